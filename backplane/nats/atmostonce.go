package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

// An AtMostOnce passes messages between hubs over core NATS, without JetStream: each reaches those that are connected at that moment,
// once or not at all. It is no tailcast.Backplane, since core NATS keeps nothing and numbers nothing. It is a Source, which publishes what
// comes into the hub that runs it, and that hub numbers; and a Publisher, whose messages reach every hub that runs one, its own included.
//
//	core := nats.NewAtMostOnce(nats.Config{URL: "nats://broker:4222"})
//	go hub.Run(ctx, core)
//	err := core.Publish(ctx, tailcast.Message{Topic: "prices", Data: data})
//
// What a program publishes with Hub.Publish stays in that hub. Messages of one publisher keep their order. Those of several may come in
// another order to each hub, and have other Positions there, so a viewer resumes only on the hub that it came from.
//
// One Run is one connection, which is closed when Run returns: there is nothing else to close. When it is lost Run returns an error, and
// Hub.Run calls it again after a pause. What others publish meanwhile is lost, so after each pause all topics that messages have come in get
// a Gap that says that something may be missing, before anything else comes. Messages wait for a hub that is slower than they come, up to 16
// MiB or 65536 of them: what comes then is dropped, and its topic gets a Gap with its size in that place.
//
// A message to a topic that another Source numbers ends the Run for good, with tailcast.ErrTopicOwner. A hub with a Backplane must not run
// one: each node would put all that comes into the log.
type AtMostOnce struct {
	cfg      Config
	subjects string // what subjects of messages begin with
	stats    struct {
		connects, foreign, dropped, refused atomic.Int64
	}

	running sync.Mutex // held by Run; guards topics
	topics  topics

	mu  sync.Mutex // guards the rest
	now *link      // nil if there is none
}

var (
	_ tailcast.Source    = (*AtMostOnce)(nil)
	_ tailcast.Publisher = (*AtMostOnce)(nil)
)

// NewAtMostOnce returns an AtMostOnce for one hub. It connects to nothing before it is run. Of the Config only URL, Options and Stream
// count. Stream is what subjects begin with, and need not exist: messages go to Stream + ".n." and the topic. A Backplane with the same Stream
// makes one that has none of these subjects; one that was made by others with the subject Stream + ".>" keeps them, to no use. What Options
// say of reconnecting and of NoEcho does not count. It panics on a Config that cannot be meant.
func NewAtMostOnce(c Config) *AtMostOnce {
	c.place()
	return &AtMostOnce{cfg: c, subjects: c.Stream + ".n."}
}

// AtMostOnceStats are plain numbers.
type AtMostOnceStats struct {
	Connects int64 // how often it has connected
	Foreign  int64 // messages that were not tailcast's, and left out
	Dropped  int64 // messages that came faster than the hub took them
	Refused  int64 // messages that were too large for the hub
}

// Stats returns a snapshot. It may be called concurrently.
func (a *AtMostOnce) Stats() AtMostOnceStats {
	n := &a.stats
	return AtMostOnceStats{n.connects.Load(), n.foreign.Load(), n.dropped.Load(), n.refused.Load()}
}

// Publish sends messages to all hubs, in order. It returns nil when the server has taken them: what becomes of them from there on nobody is
// told. They are sent once, whatever happens, and go nowhere unless Run is connected: before that, after it, and while the server is away
// Publish returns an error that matches tailcast.ErrBackplane at once. Where the connection breaks meanwhile, the server does not answer
// within 5 s, or says that the program must not publish there, it returns such an error too; and where ctx is done, its cause. Then some of
// the messages may have been sent. (What the server says of a subject may go unnoticed where it says so of several at the same moment.) A
// connection that takes no bytes holds it up for 5 s at most, whatever ctx says, and is closed then.
//
// Messages that are not fit are refused before any is sent, with an error that matches tailcast.ErrMessage or ErrTopicName: for one that is
// larger than the server's max_payload it is a *tailcast.TooLargeError. The Pos of a message is dropped. One without Time gets the present
// one, the same on all hubs. It may be called concurrently; messages of one call stand together.
func (a *AtMostOnce) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	if err := a.publish(ctx, msgs); err != nil {
		return fmt.Errorf("nats: publish: %w", err)
	}
	return nil
}

func (a *AtMostOnce) publish(ctx context.Context, msgs []tailcast.Message) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	out := make([]*natsgo.Msg, len(msgs))
	for i, m := range msgs {
		if m.Origin = ""; m.Time.IsZero() {
			m.Time = now
		}
		err := fit(&m)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		header, data, err := encode(&m)
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
		out[i] = &natsgo.Msg{Subject: a.subjects + token(m.Topic), Data: data, Header: natsgo.Header{headerName: {header}}}
	}
	a.mu.Lock()
	l := a.now
	a.mu.Unlock()
	if l == nil {
		return fmt.Errorf("%w: %w", tailcast.ErrBackplane, errNoConnection)
	}
	return l.send(ctx, out)
}

var errNoConnection = errors.New("there is no connection, as no Run has one")

// fit reports what a hub would have against a message, as far as all hubs are alike.
func fit(m *tailcast.Message) error {
	const longest = 255 // bytes of a topic's name
	switch {
	case m.Gap != nil && len(m.Data) > 0:
		return fmt.Errorf("%w: a gap has no Data", tailcast.ErrMessage)
	case m.Gap != nil && len(m.Gap.Reason) > 1<<10:
		return fmt.Errorf("%w: a gap's reason of %d bytes, the limit is 1024", tailcast.ErrMessage, len(m.Gap.Reason))
	case len(m.Topic) > longest:
		return fmt.Errorf("%w: %d bytes, the limit is %d", tailcast.ErrTopicName, len(m.Topic), longest)
	case !utf8.ValidString(m.Topic):
		return fmt.Errorf("%w: it is not UTF-8", tailcast.ErrTopicName)
	case hasControl(m.Topic):
		return fmt.Errorf("%w: it has a control character", tailcast.ErrTopicName)
	}
	return nil
}

func hasControl(s string) bool {
	for _, r := range s {
		if unicode.IsControl(r) {
			return true
		}
	}
	return false
}

// Run connects, and publishes what comes, until ctx is done, the connection is lost, or pub refuses something. It never returns nil. It is
// not to be called concurrently.
func (a *AtMostOnce) Run(ctx context.Context, pub tailcast.Publisher) error {
	if !a.running.TryLock() {
		return tailcast.Permanent(errors.New("nats: the AtMostOnce is running already"))
	}
	defer a.running.Unlock()
	err := a.follow(ctx, pub)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("nats: %w", err)
}

// follow is one connection.
func (a *AtMostOnce) follow(ctx context.Context, pub tailcast.Publisher) error {
	l, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	a.topics.interrupted()
	if err := a.topics.declare(ctx, pub); err != nil {
		return err
	}
	a.set(l)
	defer a.set(nil)
	msgs := make([]tailcast.Message, 0, batch)
	for over := false; !over; {
		select {
		case <-l.queue.some:
		case <-l.gone:
			<-l.quiet
			over = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for msgs = l.queue.take(msgs); len(msgs) > 0; msgs = l.queue.take(msgs) {
			if err := a.deliver(ctx, pub, msgs); err != nil {
				return err
			}
			clear(msgs)
		}
	}
	return fmt.Errorf("the connection has ended: %w", l.reason())
}

// set says which connection there is.
func (a *AtMostOnce) set(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = l
}

// deliver publishes messages. If one is too large for the hub the others go one by one.
func (a *AtMostOnce) deliver(ctx context.Context, pub tailcast.Publisher, msgs []tailcast.Message) error {
	for i := range msgs {
		a.topics.note(msgs[i].Topic)
	}
	err := pub.Publish(ctx, msgs...)
	if errors.Is(err, tailcast.ErrMessage) && len(msgs) > 1 {
		for i := range msgs {
			if err := a.deliver(ctx, pub, msgs[i:i+1]); err != nil {
				a.topics.lost(msgs[i:])
				return err
			}
		}
		return nil
	}
	if errors.Is(err, tailcast.ErrMessage) {
		a.stats.refused.Add(1)
		gap := &tailcast.Gap{Count: 1, Bytes: int64(len(msgs[0].Data)), Reason: "the hub could not take a message of this size"}
		err = pub.Publish(ctx, tailcast.Message{Topic: msgs[0].Topic, Time: msgs[0].Time, Gap: gap})
	}
	if err != nil {
		a.topics.lost(msgs)
	}
	return err
}

// came is called with each message of a connection, one after the other. It must not wait: nats.go would drop what comes then, and nobody
// would know where.
func (a *AtMostOnce) came(l *link, msg *natsgo.Msg) {
	m, err := decode(msg.Header.Get(headerName), msg.Data)
	if err == nil {
		m.Topic, err = topicOf(msg.Subject[len(a.subjects):])
		m.Origin = "" // it would keep the message from a connection of this hub's
	}
	if err == nil {
		err = fit(&m)
	}
	switch {
	case err != nil:
		a.stats.foreign.Add(1)
	case !l.queue.put(m):
		a.stats.dropped.Add(1)
	}
}
