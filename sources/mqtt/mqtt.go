// Package mqtt brings the messages of an MQTT 5 broker into a hub.
//
//	src := &mqtt.Source{
//		Servers:  []string{"mqtts://broker.example:8883"},
//		ClientID: "tailcast-1",
//		Filters:  []string{"sensors/+/log"},
//	}
//	err := hub.Run(ctx, src)
//
// A message is acknowledged when the hub has it, and not before. So what is published and subscribed with QoS 1 comes at least
// once, and with QoS 2 once, whatever becomes of the connection, as long as the broker keeps the session: see Source.
package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/paho/store/memory"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/intake"
)

// A Source subscribes to topics of an MQTT broker and publishes what comes, each message to the hub's topic of the same name
// unless Topic says otherwise. The hub numbers these topics.
//
// What it guarantees depends on the lower one of two qualities of service: that of the message, and that of the subscription.
//
//   - QoS 1: every message comes at least once. One comes twice where the connection was lost between the hub's having it and the
//     broker's hearing of that.
//   - QoS 2: every message comes once, as long as the process lives. One may come twice after a restart of the process, which
//     does not find it in its hub.
//   - QoS 0: what is sent while there is no connection is lost, and so is what the broker drops. After each pause such topics get
//     a Gap that says that something may be missing.
//
// The broker keeps what comes while there is no connection, for SessionExpiry, and as much as it is configured to. If it has
// forgotten the session all topics get a Gap. Where it drops messages because a queue of its own is full, as brokers do, nobody
// is told. The order is the one in which the broker sends.
//
// One Run is one connection: when it is lost Run returns an error, and Hub.Run calls it again after a pause, with the same
// session. The zero fields are defaults, Servers and Filters have none. Fields must not be changed after the first Run. A Source runs
// once at a time. Two with the same ClientID throw each other out.
type Source struct {
	// Servers are URLs: mqtt://host:1883, mqtts://host:8883, ws://host/mqtt or wss://host/mqtt; the ports are these, or those of
	// HTTP, if there is none. They are tried in turn, beginning with the one that served last. All must share their sessions.
	Servers []string
	// Filters are what is subscribed to, such as "sensors/+/log" or "#". "$share/group/filter" shares the messages of a filter among
	// all that subscribe with the same group. A message that matches two filters may come twice: that is the broker's choice.
	Filters []string
	// QoS is what is asked for in all subscriptions: AtLeastOnce unless it is set. If the broker grants less, Run returns an error.
	QoS QoS
	// Topic maps the topic of an MQTT message to that of the hub. Messages for which ok is false are acknowledged and ignored.
	// By default all topics stay as they are. Where strangers may publish, give the hub's topics a beginning of their own: a
	// topic that another Source numbers ends this one, with tailcast.ErrTopicOwner.
	Topic func(mqttTopic string) (topic string, ok bool)
	// Retained says when a message comes that the broker has retained: RetainedOnce unless it is set.
	Retained Retained

	// ClientID is how the broker knows the session. Set it, to a name that nobody else uses, so that a restarted process gets what has
	// come meanwhile. By default it is random, and the session ends with the context of Run.
	ClientID string
	// SessionExpiry is for how long the broker keeps the session without a connection: 1 h by default. A negative one ends it
	// with each connection. 136 years or more mean for ever.
	SessionExpiry time.Duration
	// CleanStart makes the first Run forget what the broker has kept for ClientID, old subscriptions included, which otherwise stay.
	CleanStart bool
	// KeepAlive is how long the connection may be silent before it is tested: 30 s by default. A negative one turns that off.
	KeepAlive time.Duration
	// Inflight is how many messages the broker may send before the first one is acknowledged: 1000 by default, at most 65535.
	Inflight int

	// Username and Password are for the broker. Those in a URL are used if Username is empty.
	Username, Password string
	// TLS is for mqtts and wss. By default the host in the URL is verified against the system's roots.
	TLS *tls.Config
	// Dial opens the connections, for proxies and tests: a net.Dialer's DialContext by default.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger is told of messages that are skipped: see Skipped. By default nobody is.
	Logger *slog.Logger

	running    sync.Mutex    // held by Run, guards the rest but topics.Skipped
	began      bool          // a connection has been there
	subscribed bool          // in the session, if the broker still has that
	server     int           // index of the one that has served last
	id         string        // ClientID, or the random one
	received   *memory.Store // ids of QoS 2 messages that the hub has and the broker has not released
	topics     intake.Topics
}

var _ tailcast.Source = (*Source)(nil)

// A QoS is a quality of service.
type QoS int

// The qualities of service. AtLeastOnce comes first, so that it is the default.
const (
	AtLeastOnce QoS = iota // QoS 1
	AtMostOnce             // QoS 0
	ExactlyOnce            // QoS 2
)

func (q QoS) wire() byte { return [...]byte{AtLeastOnce: 1, AtMostOnce: 0, ExactlyOnce: 2}[q] }

// Retained says when retained messages come.
type Retained int

const (
	// RetainedOnce: when the session has not had the subscription before.
	RetainedOnce Retained = iota
	// RetainedAlways: with each connection, so that they come again each time.
	RetainedAlways
	// RetainedNever: only messages that are published while the subscription is there.
	RetainedNever
)

func (r Retained) wire() byte {
	return [...]byte{RetainedOnce: 1, RetainedAlways: 0, RetainedNever: 2}[r]
}

const (
	defaultSessionExpiry = time.Hour
	defaultKeepAlive     = 30 * time.Second
	defaultInflight      = 1000
)

// Run connects, subscribes, and publishes what comes. It returns an error when the connection fails or Publish refuses a message:
// what has not been acknowledged comes again when it is run again. Only what another Run would not mend is Permanent: fields that
// make no sense, and a broker that does not speak MQTT 5. It never returns nil. It is not to be called concurrently.
func (s *Source) Run(ctx context.Context, pub tailcast.Publisher) error {
	if !s.running.TryLock() {
		return tailcast.Permanent(errors.New("mqtt: the Source is running already"))
	}
	defer s.running.Unlock()
	servers, err := s.check()
	if err != nil {
		return tailcast.Permanent(fmt.Errorf("mqtt: %w", err))
	}
	s.prepare()
	err = s.session(ctx, servers, pub)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("mqtt: %w", err)
}

// Skipped returns how many messages the hub could not take: because the name of their topic was too long or no text, or because
// they were too large. They are acknowledged. For one that was too large its topic gets a Gap. It may be called concurrently.
func (s *Source) Skipped() int64 { return s.topics.Skipped() }

// check reports what is wrong with the fields.
func (s *Source) check() ([]*server, error) {
	if len(s.Servers) == 0 {
		return nil, errors.New("no Servers")
	}
	if len(s.Filters) == 0 {
		return nil, errors.New("no Filters")
	}
	servers := make([]*server, len(s.Servers))
	for i, text := range s.Servers {
		var err error
		if servers[i], err = parseServer(text); err != nil {
			return nil, err
		}
	}
	for _, f := range s.Filters {
		if err := checkFilter(f); err != nil {
			return nil, err
		}
	}
	switch {
	case s.QoS < AtLeastOnce || s.QoS > ExactlyOnce:
		return nil, fmt.Errorf("no such QoS: %d", s.QoS)
	case s.Retained < RetainedOnce || s.Retained > RetainedNever:
		return nil, fmt.Errorf("no such Retained: %d", s.Retained)
	case s.Inflight < 0 || s.Inflight > math.MaxUint16:
		return nil, fmt.Errorf("Inflight is %d: it must be from 1 to 65535", s.Inflight)
	case s.KeepAlive > math.MaxUint16*time.Second:
		return nil, fmt.Errorf("KeepAlive is %v: the limit is 65535 s", s.KeepAlive)
	}
	return servers, nil
}

// prepare makes what lives as long as the session.
func (s *Source) prepare() {
	if s.received != nil {
		return
	}
	s.received = memory.New()
	s.id = s.ClientID
	if s.id == "" {
		s.id = fmt.Sprintf("tailcast-%016x", rand.Uint64())
	}
}

// expiry is SessionExpiry as it goes over the wire, where the largest number means for ever.
func (s *Source) expiry() uint32 {
	switch {
	case s.SessionExpiry < 0:
		return 0
	case s.SessionExpiry == 0:
		return seconds(defaultSessionExpiry)
	}
	return seconds(s.SessionExpiry)
}

func (s *Source) keepAlive() uint16 {
	switch {
	case s.KeepAlive < 0:
		return 0
	case s.KeepAlive == 0:
		return uint16(seconds(defaultKeepAlive))
	}
	return uint16(seconds(s.KeepAlive))
}

// seconds rounds up.
func seconds(d time.Duration) uint32 {
	n := int64((d-1)/time.Second) + 1
	return uint32(min(n, math.MaxUint32))
}

func (s *Source) inflight() uint16 {
	if s.Inflight == 0 {
		return defaultInflight
	}
	return uint16(s.Inflight)
}
