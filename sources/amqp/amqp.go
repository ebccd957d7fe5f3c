// Package amqp brings the messages of an AMQP 0-9-1 broker, such as RabbitMQ, into a hub.
//
//	src := &amqp.Source{
//		Servers:  []string{"amqps://user:password@broker.example/vhost"},
//		Exchange: "logs",
//		Keys:     []string{"app.*"},
//	}
//	err := hub.Run(ctx, src)
//
// A message is acknowledged when the hub has it, and not before. So it comes at least once, whatever becomes of the connection, as
// long as the broker keeps the queue: see Source.
package amqp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/intake"
)

// A Source consumes a queue of an AMQP broker and publishes what comes, each message to the hub's topic that has the name of its
// routing key unless Topic says otherwise. The hub numbers these topics.
//
// What it guarantees:
//
//   - Every message that is in the queue comes at least once. One comes twice where the connection was lost between the hub's
//     having it and the broker's hearing of that.
//   - If the queue was gone when the Source came back, all topics get a Gap. If there was no connection for a while, which is what a restart of
//     the broker looks like, those get one that have messages which are not persistent: it says that something may be missing.
//   - The order is that of the queue, as long as nobody else consumes it.
//
// What the broker drops, because the queue has a limit or messages an age, nobody is told of.
//
// One Run is one connection: when it is lost Run returns an error, and Hub.Run calls it again after a pause. The zero fields
// are defaults; Servers has none, and Queue or Exchange has to be set. Fields must not be changed after the first Run. A Source runs
// once at a time.
type Source struct {
	// Servers are URLs: amqp://user:password@host:5672/vhost, or amqps. They are tried in turn, beginning with the one that served
	// last. What RabbitMQ has for parameters of such URLs holds here as well.
	Servers []string
	// Queue is the queue to consume. Where several consume it, each message comes to one of them. If Exchange is empty the queue has
	// to be there; otherwise it is declared, durable, and bound.
	//
	// If Queue is empty the queue has a random name. It is durable too, so that nothing is lost while there is no connection. The
	// Source deletes it when the context of Run ends, and the broker does when nobody has come for Expiry.
	Queue string
	// Exchange is what the queue is bound to. It has to be there.
	Exchange string
	// Keys are the binding keys: "#", which is everything for a topic exchange, unless they are set.
	Keys []string
	// Expiry is for how long the broker keeps a queue with a random name that nobody consumes: 1 h by default.
	Expiry time.Duration
	// Args are the arguments of a queue that the Source declares, such as {"x-queue-type": "quorum"} or {"x-max-length": 100_000}.
	Args amqp091.Table
	// Prefetch is how many messages the broker may send before the first one is acknowledged: 256 by default, at most 65535.
	Prefetch int
	// Topic maps a routing key to a topic of the hub. Messages for which ok is false are acknowledged and ignored. By default the
	// routing key is the topic. Where strangers may publish, give the hub's topics a beginning of their own: a topic that
	// another Source numbers ends this one, with tailcast.ErrTopicOwner.
	Topic func(routingKey string) (topic string, ok bool)

	// TLS is for amqps. By default the host in the URL is verified against the system's roots.
	TLS *tls.Config
	// SASL are other ways to authenticate than with the user and the password in the URL.
	SASL []amqp091.Authentication
	// Dial opens the connections, for proxies and tests: a net.Dialer's DialContext by default.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger is told of messages that are skipped: see Skipped. By default nobody is.
	Logger *slog.Logger

	running sync.Mutex // held by Run, guards the rest but topics.Skipped
	server  int        // index of the one that has served last
	name    string     // Queue, or the random one
	had     bool       // the queue has been consumed before
	topics  intake.Topics
}

var _ tailcast.Source = (*Source)(nil)

const (
	defaultExpiry   = time.Hour
	defaultPrefetch = 256
)

// Run connects, declares what is to be declared, and publishes what comes. It returns an error when the connection fails, the queue goes, or
// Publish refuses a message: what has not been acknowledged comes again when it is run again. Only fields that make no sense are
// Permanent. It never returns nil. It is not to be called concurrently.
func (s *Source) Run(ctx context.Context, pub tailcast.Publisher) error {
	if !s.running.TryLock() {
		return tailcast.Permanent(errors.New("amqp: the Source is running already"))
	}
	defer s.running.Unlock()
	if err := s.check(); err != nil {
		return tailcast.Permanent(fmt.Errorf("amqp: %w", err))
	}
	if s.name = cmp.Or(s.Queue, s.name); s.name == "" {
		s.name = fmt.Sprintf("tailcast-%016x", rand.Uint64())
	}
	err := s.connection(ctx, pub)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("amqp: %w", err)
}

// Skipped returns how many messages the hub could not take: because the name of their topic was too long or no text, or because
// they were too large. They are rejected, so that the queue's dead letter exchange gets them if it has one. For one that was too large its
// topic gets a Gap. It may be called concurrently.
func (s *Source) Skipped() int64 { return s.topics.Skipped() }

// check reports what is wrong with the fields.
func (s *Source) check() error {
	if len(s.Servers) == 0 {
		return errors.New("no Servers")
	}
	for i, text := range s.Servers {
		if _, err := amqp091.ParseURI(text); err != nil {
			return fmt.Errorf("Servers[%d] is no amqp:// or amqps:// URL; what is reserved in a password has to be percent-encoded", i) // err might tell the password
		}
	}
	switch {
	case s.Queue == "" && s.Exchange == "":
		return errors.New("neither Queue nor Exchange is set")
	case s.Exchange == "" && (len(s.Keys) > 0 || len(s.Args) > 0):
		return errors.New("Keys and Args are for a queue that is declared, which needs an Exchange")
	case s.Prefetch < 0 || s.Prefetch > math.MaxUint16:
		return fmt.Errorf("Prefetch is %d: it must be from 1 to 65535", s.Prefetch)
	case s.Expiry < 0 || s.Expiry.Milliseconds() > math.MaxInt32:
		return fmt.Errorf("Expiry is %v: it must be positive, and at most 24 days", s.Expiry)
	}
	if err := s.Args.Validate(); err != nil {
		return fmt.Errorf("Args: %w", err)
	}
	return nil
}

// ours reports whether the queue is for this Source only.
func (s *Source) ours() bool { return s.Queue == "" }

// args are those of a queue that is declared.
func (s *Source) args() amqp091.Table {
	args := make(amqp091.Table, len(s.Args)+1)
	maps.Copy(args, s.Args)
	if s.ours() {
		args["x-expires"] = max(cmp.Or(s.Expiry, defaultExpiry).Milliseconds(), 1)
	}
	return args
}
