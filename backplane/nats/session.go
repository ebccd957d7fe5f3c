package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A session is one connection, and the stream as it was found over it. It does not reconnect: when anything is wrong with it, it is
// closed, and another takes its place. So all that is sent over one goes over one connection, in order.
type session struct {
	b       *Backplane
	nc      *natsgo.Conn
	js      jetstream.JetStream
	stream  jetstream.Stream
	epoch   uint64        // when the stream was created
	direct  bool          // nothing lies between the connection and the stream
	batches atomic.Bool   // the stream takes atomic batches
	largest int           // how many bytes a message may have, with its header
	gone    chan struct{} // closed with the connection
	met     time.Time     // when the other nodes are known

	mu  sync.Mutex
	err error // why it was closed
}

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	// dialTime is how long it may take to connect, and to find the stream.
	dialTime = 3 * time.Second
	// writeTime is how long a connection may take no bytes: whoever publishes waits for that, beyond its context.
	writeTime = 5 * time.Second
)

// session returns the connection, which it makes if need be. It tries once, when it is time for that.
func (b *Backplane) session(ctx context.Context) (*session, error) {
	if s := b.live(); s != nil {
		return s, nil
	}
	select {
	case b.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-b.closed:
		return nil, errClosed
	}
	type dialed struct {
		s   *session
		err error
	}
	done := make(chan dialed, 1)
	go func() { // nats.go does not give up a server that is silent before its time
		defer func() { <-b.dialing }()
		s, err := b.connect(ctx)
		done <- dialed{s, err}
	}()
	select {
	case d := <-done:
		return d.s, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-b.closed:
		return nil, errClosed
	}
}

// connect makes the connection when it is time for that, unless another has made it meanwhile. dialing is held.
func (b *Backplane) connect(ctx context.Context) (*session, error) {
	if s := b.live(); s != nil {
		return s, nil
	}
	b.mu.Lock()
	wait := time.Until(b.next)
	b.mu.Unlock()
	if err := b.sleep(ctx, wait); err != nil {
		return nil, err
	}
	s, err := b.dial()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		pause := min(firstPause<<min(b.failed, 10), lastPause)
		b.failed++
		b.next = time.Now().Add(pause - pause/5 + rand.N(2*pause/5))
		return nil, err
	}
	b.failed, b.now = 0, s
	b.next = time.Now().Add(firstPause)
	b.stats.connects.Add(1)
	return s, nil
}

// live returns the connection, if there is one.
func (b *Backplane) live() *session {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now == nil {
		return nil
	}
	select {
	case <-b.now.gone:
		return nil
	case <-b.closed:
		return nil
	default:
		return b.now
	}
}

// sleep waits, unless ctx or the Backplane ends.
func (b *Backplane) sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-b.closed:
		return errClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// dial connects, and finds or makes the stream. Whoever asked for it may have gone: it is there for the next.
func (b *Backplane) dial() (*session, error) {
	select {
	case <-b.closed:
		return nil, errClosed
	default:
	}
	s := &session{b: b, gone: make(chan struct{})}
	opts := append([]natsgo.Option{
		natsgo.Name("tailcast " + b.cfg.Node), natsgo.Timeout(dialTime), natsgo.PingInterval(5 * time.Second), natsgo.MaxPingsOutstanding(2),
		natsgo.FlusherTimeout(writeTime),
	}, b.cfg.Options...)
	opts = append(opts,
		natsgo.NoReconnect(), natsgo.RetryOnFailedConnect(false),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) { s.fail(err) }),
		natsgo.ClosedHandler(func(nc *natsgo.Conn) { s.fail(nc.LastError()); close(s.gone) }),
		natsgo.ErrorHandler(func(nc *natsgo.Conn, _ *natsgo.Subscription, err error) {
			s.fail(err)
			if errors.Is(err, os.ErrDeadlineExceeded) { // of a write, of which half may be done; nats.go would go on behind that
				nc.Close()
			}
		}),
	)
	nc, err := natsgo.Connect(b.cfg.URL, opts...)
	if err != nil {
		return nil, fmt.Errorf("nats: connect: %w", err)
	}
	s.nc = nc
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	if err := s.open(ctx); err != nil {
		s.close(err)
		<-s.gone
		return nil, err
	}
	return s, nil
}

// open finds or makes the stream, and listens.
func (s *session) open(ctx context.Context) error {
	var err error
	if s.js, err = jetstream.New(s.nc); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	c := &s.b.cfg
	s.stream, err = s.js.Stream(ctx, c.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s.stream, err = s.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: c.Stream, Subjects: []string{s.b.topics + "*"}, Storage: jetstream.FileStorage,
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, AllowAtomicPublish: true,
			Replicas: c.Replicas, MaxBytes: c.MaxBytes, MaxMsgs: c.MaxMessages, MaxAge: c.MaxAge, Duplicates: c.Duplicates,
		})
	}
	if err != nil {
		return fmt.Errorf("nats: stream %s: %w", c.Stream, err)
	}
	info := s.stream.CachedInfo()
	if err := s.b.fit(&info.Config); err != nil {
		return fmt.Errorf("nats: stream %s: %w: %w", c.Stream, errUnfit, err)
	}
	s.epoch = uint64(info.Created.UnixNano())
	s.batches.Store(info.Config.AllowAtomicPublish && info.Config.Replicas > 1)
	s.direct = s.alone(info)
	s.largest = int(s.nc.MaxPayload())
	if n := int(info.Config.MaxMsgSize); n > 0 {
		s.largest = min(s.largest, n)
	}
	if _, err := s.nc.Subscribe(s.b.inbox+".*", s.b.acknowledged); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	return s.meet(ctx)
}

// alone reports whether the server that the connection is to has the stream for itself.
func (s *session) alone(info *jetstream.StreamInfo) bool {
	at := info.Cluster
	return at == nil || at.Leader == s.nc.ConnectedServerName() && len(at.Replicas) == 0
}

// errUnfit: the stream is there, and cannot be the log.
var errUnfit = errors.New("it cannot be a hub's log")

// fit reports why a stream is of no use as a log.
func (b *Backplane) fit(c *jetstream.StreamConfig) error {
	has := false
	for _, subject := range c.Subjects {
		has = has || subject == b.topics+"*" || subject == b.topics+">" || subject == b.cfg.Stream+".>"
	}
	switch {
	case !has:
		return fmt.Errorf("its subjects have no %s*", b.topics)
	case c.Retention != jetstream.LimitsPolicy:
		return errors.New("its retention is not by limits")
	case c.Discard != jetstream.DiscardOld:
		return errors.New("it refuses new messages instead of dropping old ones")
	case c.MaxMsgsPerSubject > 0:
		return errors.New("its limit of messages for each subject leaves holes")
	case c.NoAck:
		return errors.New("it does not acknowledge")
	case c.AllowDirect:
		return errors.New("it allows direct gets, which may miss what has been stored already")
	case c.Mirror != nil || len(c.Sources) > 0 || c.Sealed:
		return errors.New("it is a copy, or sealed")
	}
	return nil
}

// fail notes what is wrong with the session. The first reason counts.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
}

// close ends the session.
func (s *session) close(err error) {
	s.fail(err)
	s.nc.Close()
}

// reason is why the session has ended.
func (s *session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return natsgo.ErrConnectionClosed
	}
	return s.err
}

// ended returns why the session has ended, nil if it has not.
func (s *session) ended() error {
	select {
	case <-s.gone:
		return s.reason()
	default:
		return nil
	}
}

// state is what the stream has. It closes the session of a stream that is not there any more, is another one, or is not reached
// directly any more.
func (s *session) state(ctx context.Context) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var info *jetstream.StreamInfo
	stream, err := s.js.Stream(ctx, s.b.cfg.Stream) // Stream.Info is not to be called concurrently
	if err == nil {
		info = stream.CachedInfo()
	}
	switch {
	case err == nil && uint64(info.Created.UnixNano()) != s.epoch:
		err = errors.New("nats: the stream has been made anew")
		s.close(err)
		return 0, 0, err
	case errors.Is(err, jetstream.ErrStreamNotFound):
		err = fmt.Errorf("nats: the stream is not there any more: %w", err)
		s.close(err)
		return 0, 0, err
	case err != nil:
		return 0, 0, fmt.Errorf("nats: %w", err)
	case s.direct && !s.alone(info):
		err = errors.New("nats: the stream has moved, or has replicas now")
		s.close(err)
		return 0, 0, err
	}
	return max(info.State.FirstSeq, 1), info.State.LastSeq, nil
}
