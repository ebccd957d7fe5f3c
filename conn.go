package tailcast

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/wsconn"
)

// An Inbound is a message of a client.
type Inbound struct {
	Data   []byte // valid until the hook returns; valid UTF-8 unless Binary
	Binary bool
}

// A Conn is one connection of a client. Its methods may be called concurrently, from hooks too. After its end, methods that
// return an error return one that matches ErrClosed.
type Conn struct {
	hub      *Hub
	id       string
	number   uint32 // names it within the hub
	remote   string
	format   *format
	mount    *mount  // what its client may subscribe to
	filter   *filter // what messages of its topics pass; nil: everything
	ctx      context.Context
	cancel   context.CancelCauseFunc
	fan      *fanout.Conn
	hello    []byte                   // the first bytes of this transport
	farewell func(*CloseError) []byte // the last bytes of this transport, nil for none
	ws       *wsconn.Conn             // its reading side; nil for a stream
	several  atomic.Bool              // an event's id holds the positions of all topics
	told     atomic.Bool              // the client has been told where it stands: what is added is told of by itself
	asked    map[string]start         // what the request said of topics, also of those that a hook may add; nil if nothing
	away     bool                     // its client was told so, and not yet that it is over; guarded by plane.notice
	meter    meter                    // of what it sends; its reader's
	socket   net.Conn                 // below TLS; nil if it is not ours
	lastWord []byte                   // farewell's place is taken by this: a Close frame that answers the peer's
	incoming struct {                 // data messages of its client; its reader counts
		messages, bytes atomic.Int64
	}

	hooking atomic.Bool  // a hook is running that holds up the reader: the peer is not to be blamed for silence
	hooked  atomic.Int64 // when it last returned

	seat   *seat
	free   func()   // lets go of the filters that were kept for its request; nil if there are none
	wanted []string // the topics of its request

	mu          sync.Mutex // guards the rest; taken before Hub.mu
	identity    Identity
	waiting     bool            // it has to register before anything else
	late        *time.Timer     // when it is too late for that
	expiry      *time.Timer     // of identity
	subs        []*subscription // as subscribed
	afterRead   []func(*Conn, Inbound) error
	beforeClose []func(*Conn, error)
	ending      bool
	why         endReason
	cause       error
	sealed      chan struct{} // see seal
}

func (h *Hub) newConn(ctx context.Context, remote string, req *request) *Conn {
	c := &Conn{
		hub: h, id: rand.Text(), number: h.number(), identity: req.identity, remote: remote, seat: req.seat, wanted: req.topics,
		format: req.format.shared(), mount: req.mount, filter: req.filter, asked: req.said(),
		meter:     newMeter(&h.cfg.limits, time.Now()),
		afterRead: slices.Clip(h.cfg.afterRead), beforeClose: slices.Clip(h.cfg.beforeClose),
	}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return c
}

// ID is a random text that names this connection.
func (c *Conn) ID() string { return c.id }

// Identity is who it belongs to, as WithAuthenticate has found, or WithRegistration: then it changes with a registration.
func (c *Conn) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.identity
}

// Remote is the address of the peer, as http.Request.RemoteAddr tells it.
func (c *Conn) Remote() string { return c.remote }

// Transport is "websocket", "tailcast.v1" (a WebSocket with envelopes), "sse", "ndjson" or "text".
func (c *Conn) Transport() string { return c.format.transport }

// Context has the values of the request's context, and ends with the connection: its cause is then that of the end.
func (c *Conn) Context() context.Context { return c.ctx }

// Topics returns what it is subscribed to, sorted.
func (c *Conn) Topics() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	topics := c.names()
	slices.Sort(topics)
	return topics
}

// names returns its topics, as subscribed; mu is held.
func (c *Conn) names() []string {
	names := make([]string, len(c.subs))
	for i, s := range c.subs {
		names[i] = s.topic.name
	}
	return names
}

// sub returns its subscription to a topic, nil if there is none; mu is held.
func (c *Conn) sub(topic string) *subscription {
	for _, s := range c.subs { // a map would cost most connections more than all else here
		if s.topic.name == topic {
			return s
		}
	}
	return nil
}

// Subscribe adds a topic, from just after the message at from; from the zero Position, it adds what comes from now on (or
// the hub's backlog), or, where the client's request says since when it has missed this topic, from there. The topic need
// not exist yet. The filters of the client's request count for it too. A bare WebSocket does not say which topic a message belongs to.
func (c *Conn) Subscribe(ctx context.Context, topic string, from Position) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("tailcast: subscribe: %w", err)
	}
	if err := checkTopic(topic); err != nil {
		return fmt.Errorf("tailcast: subscribe: %w", err)
	}
	begin := start{since: from, tail: -1}
	if asked, ok := c.asked[topic]; ok && from == (Position{}) {
		begin = asked
		begin.at = nil // that was then
	}
	c.hub.plane.await(ctx)
	if err := c.subscribe(topic, begin); err != nil {
		return fmt.Errorf("tailcast: subscribe: topic %q: %w", topic, err)
	}
	return nil
}

func (c *Conn) subscribe(name string, from start) error {
	s, err := c.join(name)
	if err != nil {
		return err
	}
	s.set(from)
	return nil
}

// set places a subscription that has joined, and tells the client where, if it is told of all.
func (s *subscription) set(from start) {
	s.place(from)
	if s.conn.told.Load() {
		s.fan.TellPlace()
	}
}

// join adds a subscription that rests.
func (c *Conn) join(name string) (*subscription, error) {
	s, user, err := c.enter(name)
	if err == nil {
		s.arrives(user)
	}
	return s, err
}

// enter returns the subscription, and whose the connection was at that moment.
func (c *Conn) enter(name string) (_ *subscription, user string, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ending:
		return nil, "", ErrClosed
	case c.sub(name) != nil:
		return nil, "", ErrSubscribed
	case len(c.subs) >= c.hub.cfg.limits.Topics:
		return nil, "", fmt.Errorf("%w: the limit is %d", ErrTooManyTopics, c.hub.cfg.limits.Topics)
	case c.format.transport == formatSSE.transport && idBytes(append(c.names(), name)) > maxIDBytes:
		return nil, "", fmt.Errorf("%w: their names are too long for an event's id", ErrTooManyTopics)
	}
	t := c.hub.visit(name)
	s := &subscription{conn: c, topic: t}
	if err := s.takeFilter(c.filter); err != nil {
		c.hub.part(t)
		return nil, "", err
	}
	if len(c.subs) == 1 && c.format.marks() {
		c.several.Store(true)
		c.fan.CopyMessages()
	}
	s.fan = c.fan.Subscribe(name, t.fan, s.encoding(t.log, t.fan), s)
	c.subs = append(c.subs, s)
	return s, c.identity.User, nil
}

// Unsubscribe removes a topic. What is on its way to the client still arrives.
func (c *Conn) Unsubscribe(topic string) error {
	c.mu.Lock()
	s, err := c.unsubscribe(topic)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("tailcast: unsubscribe: topic %q: %w", topic, err)
	}
	s.end()
	return nil
}

// unsubscribe takes out a subscription, which is then to be ended without mu; mu is held.
func (c *Conn) unsubscribe(topic string) (*subscription, error) {
	s := c.sub(topic)
	switch {
	case c.ending:
		return nil, ErrClosed
	case s == nil:
		return nil, ErrNotSubscribed
	}
	c.subs = slices.DeleteFunc(c.subs, func(other *subscription) bool { return other == s })
	return s, nil
}

// Send sends a message to this client alone. It does not wait: it returns ErrQueueFull when the message does not fit into
// 256 KiB together with what is queued already, or the hub is at its memory limit, and then the client is told
// of a gap (a bare WebSocket has no way to be told). Messages of Send arrive in the order of the calls; Message.Topic is only a label, and
// the message has no Position.
func (c *Conn) Send(m Message) error {
	m.Pos = Position{}
	if err := c.fan.Send(c.format.message(nil, m.Topic, &m)); err != nil {
		if errors.Is(err, os.ErrClosed) {
			err = ErrClosed
		}
		return fmt.Errorf("tailcast: send: %w", err)
	}
	return nil
}

// dropped appends what declares that direct messages found no room.
func (c *Conn) dropped(dst []byte, n int) []byte {
	c.hub.countGap(gapQueueFull)
	return c.format.message(dst, "", &Message{Gap: &Gap{Count: int64(n), Bytes: -1, Reason: "the connection's queue was full"}})
}

// PublishOthers is Hub.Publish for everybody but this connection, which does not get the messages: what a chat does with what a client
// says. (Who comes back with a position from before them gets them, as another connection.)
func (c *Conn) PublishOthers(ctx context.Context, msgs ...Message) error {
	c.fan.Author(c.number)
	return c.hub.ingress(ctx, nil, c.number, msgs)
}

// AfterRead adds a hook for the messages of this client, behind those that are set for the hub. Set it in OnConnect: a hook
// that is added later may miss messages.
func (c *Conn) AfterRead(f func(*Conn, Inbound) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.afterRead = append(c.afterRead, f)
}

// BeforeClose adds a hook for the end of this connection, behind those that are set for the hub. If the connection is ending
// already, f is called soon.
func (c *Conn) BeforeClose(f func(*Conn, error)) {
	c.mu.Lock()
	ending, cause := c.ending, c.cause
	c.beforeClose = append(c.beforeClose, f)
	c.mu.Unlock()
	if ending {
		c.hub.host(func() { _ = c.guard(func() error { f(c, cause); return nil }) })
	}
}

// Close ends the connection, after what Send has queued. It returns at once; the first cause counts. A WebSocket is closed
// with the *CloseError that errors.As finds in cause: 1000 for nil, 1011 without a reason if there is none.
func (c *Conn) Close(cause error) error {
	if !c.end(endApplication, cause) {
		return fmt.Errorf("tailcast: close: %w", ErrClosed)
	}
	return nil
}

// end begins the end of the connection, unless it has begun.
func (c *Conn) end(why endReason, cause error) bool { return c.endIf(why, cause, nil) }

// endIf is end where only is true, which is called with mu; nil is always.
func (c *Conn) endIf(why endReason, cause error, only func() bool) bool {
	c.mu.Lock()
	if c.ending || only != nil && !only() {
		c.mu.Unlock()
		return false
	}
	c.ending, c.cause, c.why = true, cause, why
	if c.expiry != nil {
		c.expiry.Stop()
	}
	hooks := c.beforeClose
	c.mu.Unlock()
	if cause == nil {
		c.cancel(ErrClosed)
	} else {
		c.cancel(cause)
	}
	c.hub.background(func() { c.finish(hooks, cause) })
	return true
}

// drain ends the connection when everything that there is for it has been sent.
func (c *Conn) drain(cause error) {
	select {
	case <-c.fan.Drained():
		c.end(endShutdown, cause)
	case <-c.ctx.Done():
	}
}

// cut ends a client that has no more time: its write side, and the wait for its answer to the last bytes.
func (c *Conn) cut() {
	c.fan.Abort(errShutdown)
	if c.socket != nil {
		c.socket.Close()
	}
}

// bottom returns the connection below TLS, whose Close would wait to say so.
func bottom(nc net.Conn) net.Conn {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return nc
}

// finish runs the hooks, says goodbye and sees the write side to its end.
func (c *Conn) finish(hooks []func(*Conn, error), cause error) {
	for _, f := range hooks {
		apart(func() { _ = c.guard(func() error { f(c, cause); return nil }) })
	}
	last := c.lastWord
	if last == nil {
		last = c.farewell(closeError(cause))
	}
	c.fan.Finish(last)
	<-c.fan.Done()
	if c.ws != nil {
		c.ws.Expire(time.Now().Add(closeTime))
	}
	close(c.seal())
}

// seal returns what is closed when the write side is over and the hooks have run.
func (c *Conn) seal() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sealed == nil {
		c.sealed = make(chan struct{})
	}
	return c.sealed
}

// closeError is what a cause means on the wire.
func closeError(cause error) *CloseError {
	var ce *CloseError
	switch {
	case cause == nil:
		return &CloseError{Code: 1000}
	case errors.As(cause, &ce) && ce != nil:
		return ce
	}
	return &CloseError{Code: 1011}
}

// goexit is the value of the PanicError of a hook that has ended its goroutine.
const goexit = "the hook has called runtime.Goexit"

// guard calls a hook, and turns its panic into an error that closes the connection. So does a Goexit, which goes on after that.
func (c *Conn) guard(f func() error) (err error) {
	returned := false
	defer func() {
		v := recover()
		if returned {
			return
		}
		if v == nil {
			v = goexit
		}
		p := &PanicError{Value: v, Stack: debug.Stack()}
		c.hub.panicked(c.ctx, p, slog.String(logConn, c.id))
		c.end(endPanic, p)
		err = p
	}()
	err = f()
	returned = true
	return err
}

// received hands a message of the client to the hooks, and ends the connection where they or the hub will not have it. It runs on the
// connection's reader.
func (c *Conn) received(in Inbound) {
	c.incoming.messages.Add(1)
	c.incoming.bytes.Add(int64(len(in.Data)))
	if why, err := c.handle(in); err != nil {
		c.end(why, err)
	}
}

func (c *Conn) handle(in Inbound) (endReason, error) {
	c.mu.Lock()
	hooks := c.afterRead
	c.mu.Unlock()
	if !c.meter.take(time.Now()) {
		return endLimit, c.tooFast()
	}
	c.hooking.Store(true)
	defer c.hookOver()
	if done, err := c.registers(in); done {
		return unregisteredFor(err), err
	}
	for _, f := range hooks {
		if err := c.guard(func() error { return f(c, in) }); err != nil {
			return endHook, err // a panic has ended it already
		}
	}
	if c.format.objects() {
		return endTooSlow, c.command(in)
	}
	return 0, nil
}

// hookOver is called when a hook has returned that held up the reader.
func (c *Conn) hookOver() {
	now := time.Now()
	c.meter.resume(now)
	c.hooked.Store(now.UnixNano())
	c.hooking.Store(false)
}

// tooFast is the end of a client that sends more than it may.
func (c *Conn) tooFast() error {
	return &CloseError{Code: 1008, Reason: fmt.Sprintf("more than %v messages a second", c.meter.limits.MessageRate)}
}

// leave ends the subscriptions and takes the connection out of the hub. The write side is over.
func (c *Conn) leave() {
	c.mu.Lock()
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		s.end()
	}
	c.fan.Remove()
	c.hub.dismiss(c)
}
