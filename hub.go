package tailcast

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
)

// A Hub takes messages from Sources and from Publish, and broadcasts them to everybody who watches through its handlers. All
// methods may be called concurrently.
type Hub struct {
	cfg      config
	budget   *stream.Budget
	pool     *fanout.Pool
	turns    turns          // of replays
	mount    mount          // what ServeHTTP serves
	deflater *wire.Deflater // nil without WithCompression
	plane    *plane         // nil without WithBackplane

	panics         atomic.Int64
	refused        atomic.Int64 // requests
	published      atomic.Int64 // messages
	publishedBytes atomic.Int64
	gaps           [gapReasons]atomic.Int64 // declared
	catchups       atomic.Int64             // going on
	pushes         atomic.Int64
	pushQueued     atomic.Int64  // for a connection
	pushDropped    atomic.Int64  // for a connection
	numbers        atomic.Uint32 // of connections

	seats   seats
	users   users
	wg      sync.WaitGroup // what connections have running; added to with mu, until the hub is closed
	guests  sync.WaitGroup // filters that look at messages, Replayers that are being read, late hooks: the application's; added to as wg
	appends sync.WaitGroup // of messages that were accepted; added to with mu, while the hub is open

	mu       sync.Mutex // guards the rest
	state    hubState
	topics   map[string]*topic
	most     int // topics since the map was made: a map keeps the memory of what it had once
	conns    map[*Conn]struct{}
	accepted int64              // connections, so far
	past     counters           // of those that are not in conns any more
	loops    map[*loop]struct{} // of Subscribe
	idle     chan struct{}      // closed when the hub is closing and the last connection and loop have ended
	full     chan struct{}      // closed when the hub is closing and its logs have got their last message
	sources  []*sourceRun
	runs     map[*context.CancelCauseFunc]struct{}
	running  sync.WaitGroup // calls of Run
	timer    *time.Timer    // for housekeep
}

type hubState uint8

const (
	hubOpen hubState = iota
	hubClosing
	hubClosed
)

var _ http.Handler = (*Hub)(nil)
var _ Publisher = (*Hub)(nil)

// New returns a Hub. It starts no goroutine before it is used. It panics on options that cannot be meant.
func New(opts ...Option) *Hub {
	h := &Hub{
		cfg:    defaults(),
		topics: make(map[string]*topic),
		conns:  make(map[*Conn]struct{}),
		loops:  make(map[*loop]struct{}),
		runs:   make(map[*context.CancelCauseFunc]struct{}),
		idle:   make(chan struct{}),
		full:   make(chan struct{}),
	}
	for _, o := range opts {
		must(o != nil, "New: nil Option")
		o.apply(&h.cfg)
	}
	if h.cfg.backplane != nil {
		h.plane = newPlane(h, h.cfg.backplane)
	}
	h.budget = stream.NewBudget(h.cfg.memory)
	h.turns.free = h.cfg.replays
	h.mount = mount{topics: defaultTopic, open: h.cfg.authorize != nil}
	if h.cfg.compression != 0 {
		h.deflater = wire.NewDeflater(h.cfg.compression)
	}
	h.pool = fanout.NewPool(fanout.Config{
		WriteTimeout: h.cfg.writeTimeout,
		PingInterval: h.cfg.pingInterval,
		PongTimeout:  h.cfg.pongTimeout,
		Heartbeat:    h.cfg.heartbeat,
		PrivateBytes: h.cfg.private,
		Budget:       h.budget,

		FlushInterval: h.cfg.flush,
	})
	return h
}

// Publish appends messages to their topics: all of them, or none and an error. Messages of one call and topic stand
// together, in the order given. It copies what it keeps, never waits for a viewer, and returns an error that matches
// ErrClosed after Shutdown, ErrTopicOwner for a topic that a Source numbers, ErrMessage or ErrTopicName for a message that
// is not fit. With a Backplane it returns when the log has stored them: see WithBackplane.
func (h *Hub) Publish(ctx context.Context, msgs ...Message) error {
	return h.ingress(ctx, nil, 0, msgs)
}

// ingress checks messages and settles whose their topics are. What it has accepted is appended. from is the connection that does not
// get them, 0 for none.
func (h *Hub) ingress(ctx context.Context, pub *publisher, from uint32, msgs []Message) error {
	if ctx.Err() != nil {
		return fmt.Errorf("tailcast: publish: %w", context.Cause(ctx))
	}
	gaps, bytes := 0, 0
	for i := range msgs {
		if err := h.check(&msgs[i]); err != nil {
			return fmt.Errorf("tailcast: publish: message %d: %w", i, err)
		}
		if bytes += len(msgs[i].Data); msgs[i].Gap != nil {
			gaps++
		}
	}
	if h.plane != nil {
		if err := h.plane.publish(ctx, pub, from, msgs); err != nil {
			return fmt.Errorf("tailcast: publish: %w", err)
		}
		return nil
	}
	var one [1]claim
	claims, err := h.claim(one[:0], pub, msgs)
	if err != nil {
		return fmt.Errorf("tailcast: publish: %w", err)
	}
	h.published.Add(int64(len(msgs)))
	h.publishedBytes.Add(int64(bytes))
	if gaps > 0 {
		h.gaps[gapSource].Add(int64(gaps))
	}
	h.append(claims, from, msgs)
	h.appends.Done()
	if replayerOf(pub) != nil {
		for i := range claims {
			claims[i].topic.pace(ctx, h.cfg.memory)
		}
	}
	return nil
}

// check reports what is wrong with a message.
func (h *Hub) check(m *Message) error {
	if err := h.checkContent(m); err != nil || m.Topic == "" {
		return err
	}
	return checkTopic(m.Topic)
}

func (h *Hub) checkContent(m *Message) error {
	switch {
	case len(m.Data) > stream.MaxRecord:
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrMessage, len(m.Data), stream.MaxRecord)
	case h.cfg.memory > 0 && int64(len(m.Data)) > h.cfg.memory/4:
		return fmt.Errorf("%w: %d bytes is more than a quarter of the hub's memory limit", ErrMessage, len(m.Data))
	case m.Gap != nil && len(m.Gap.Reason) > 1<<10:
		return fmt.Errorf("%w: a gap's reason of %d bytes, the limit is 1024", ErrMessage, len(m.Gap.Reason))
	case m.Gap != nil && len(m.Data) > 0:
		return fmt.Errorf("%w: a gap has no Data", ErrMessage)
	case m.Pos != Position{} && m.Pos.Epoch == 0:
		return fmt.Errorf("%w: a position needs an epoch other than 0", ErrMessage)
	}
	return nil
}

// claim appends to claims one for each topic of the messages, after making sure that pub may publish there. Then the caller
// owes appends a Done.
func (h *Hub) claim(claims []claim, pub *publisher, msgs []Message) ([]claim, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hubOpen {
		return nil, ErrClosed
	}
	if pub != nil && pub.ended.Load() {
		return nil, ErrClosed
	}
	c := -1
	for i := range msgs {
		if c < 0 || claims[c].topic.name != msgs[i].Topic {
			c = slices.IndexFunc(claims, func(c claim) bool { return c.topic.name == msgs[i].Topic })
			if c < 0 {
				c = len(claims)
				claims = append(claims, claim{topic: h.topicLocked(msgs[i].Topic)})
			}
		}
		claims[c].add(&msgs[i])
	}
	for i := range claims {
		if err := claims[i].check(pub); err != nil {
			return nil, err
		}
	}
	for i := range claims {
		claims[i].topic.claims.Add(1)
		claims[i].settle(pub)
		if pub != nil && claims[i].numbered {
			pub.topics.LoadOrStore(claims[i].topic, nil)
		}
	}
	h.appends.Add(1)
	return claims, nil
}

// append puts accepted messages into their logs. Messages of one topic stand together even where the caller mixed topics.
func (h *Hub) append(claims []claim, from uint32, msgs []Message) {
	now := time.Now()
	if len(claims) == 1 {
		claims[0].topic.append(msgs, from, now)
		claims[0].topic.claims.Add(-1)
		return
	}
	var part []Message
	for _, c := range claims {
		part = part[:0]
		for i := range msgs {
			if msgs[i].Topic == c.topic.name {
				part = append(part, msgs[i])
			}
		}
		c.topic.append(part, from, now)
		c.topic.claims.Add(-1)
	}
}

// topicLocked returns the topic of that name, which it makes if need be.
func (h *Hub) topicLocked(name string) *topic {
	t := h.topics[name]
	if t == nil {
		t = &topic{name: name, cfg: h.cfg.topic(name)}
		keep := stream.Retention(t.cfg.Retention)
		t.log, t.fan = stream.NewLog(keep, h.budget), h.pool.NewTopic(keep)
		t.join(h.plane)
		h.topics[name] = t
		h.most = max(h.most, len(h.topics))
		if h.timer == nil && h.state != hubClosed {
			h.timer = time.AfterFunc(housekeeping, h.housekeep)
		}
	}
	return t
}

// housekeeping is how often logs are looked through for what has become too old.
const housekeeping = 10 * time.Second

// eventLinger is how long a topic without visitors is kept that has nothing but the events of those who were there: anybody who may
// read any topic can make many of them.
const eventLinger = time.Minute

// housekeep drops what is too old, and topics that came into being only because somebody looked for them.
func (h *Hub) housekeep() {
	h.mu.Lock()
	topics := make([]*topic, 0, len(h.topics))
	for _, t := range h.topics {
		topics = append(topics, t)
	}
	h.mu.Unlock()
	now := time.Now()
	for _, t := range topics {
		t.log.Maintain(now, encodingLinger)
		t.forgetReplays(h.budget)
		for _, p := range t.allReplays() {
			p.log.Maintain(now, encodingLinger)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range topics {
		if t.visitors == 0 && h.topics[t.name] == t && (t.empty() || t.deserted(now)) {
			h.forget(t)
		}
	}
	h.timer = nil
	if h.state != hubClosed && len(h.topics) > 0 {
		h.timer = time.AfterFunc(housekeeping, h.housekeep)
	}
}

// Head returns the position of the newest message of a topic, and false while nothing is known of it. A page that shows a
// snapshot can hand it to its viewer as since=….
func (h *Hub) Head(topic string) (Position, bool) {
	h.mu.Lock()
	t := h.topics[topic]
	h.mu.Unlock()
	if t == nil {
		return Position{}, false
	}
	pos, ok := t.log.Head()
	return Position(pos), ok
}

// Conns returns the connections that there are at the moment of the call.
func (h *Hub) Conns() iter.Seq[*Conn] {
	h.mu.Lock()
	conns := make([]*Conn, 0, len(h.conns))
	for c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	return func(yield func(*Conn) bool) {
		for _, c := range conns {
			if !yield(c) {
				return
			}
		}
	}
}

// Shutdown closes the hub with consideration: it ends the sources, refuses new connections and messages, sends every viewer
// what it has not got yet, says goodbye (1001) and waits until all connections have ended. When ctx is done first, the rest
// is cut off, and Shutdown returns ctx's error. http.Server.Shutdown does not end streams: call this before it, or through
// RegisterOnShutdown and once more after it, to wait: see the package's documentation. Hooks and sources that do not return
// hold it up for at most 5 s more than ctx allows, and a filter or a Replayer that does not for another 5 s.
//
// A hook must not call it with a context that does not end: Shutdown waits for hooks.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.beginClosing()
	h.appends.Wait() // a viewer that has everything before would miss them
	h.fill()
	sources := make(chan struct{})
	go func() { h.running.Wait(); close(sources) }()
	var drains sync.WaitGroup // not wg: another Shutdown may be waiting for that
	for c := range h.Conns() {
		drains.Go(func() { c.drain(errShutdown) })
	}
	var err error
	for _, ch := range []<-chan struct{}{h.idle, sources} {
		select {
		case <-ch:
		case <-ctx.Done():
			err = fmt.Errorf("tailcast: shutdown: %w", context.Cause(ctx))
			h.hurry()
		}
	}
	if !h.settled(sources) {
		go func() { <-sources; <-h.idle; _ = h.finishClosing() }()
		return errors.Join(err, errStragglers)
	}
	drains.Wait()
	return errors.Join(err, h.finishClosing())
}

var (
	errShutdown   = &CloseError{Code: 1001, Reason: "the server is shutting down", Err: ErrClosed}
	errStragglers = errors.New("tailcast: shutdown: a hook, a filter, a source or a Replayer does not return")
)

// stragglerTime is how long what has been told to end may take.
const stragglerTime = 5 * time.Second

// hurry says goodbye to those whose sockets take it, and cuts off the others.
func (h *Hub) hurry() {
	const moment = 100 * time.Millisecond
	for c := range h.Conns() {
		c.end(endShutdown, errShutdown)
	}
	for _, l := range h.allLoops() {
		l.cutOff()
	}
	t := time.NewTimer(moment)
	defer t.Stop()
	select {
	case <-h.idle:
	case <-t.C:
	}
	for c := range h.Conns() {
		c.cut()
	}
}

// settled waits for what has been told to end.
func (h *Hub) settled(sources <-chan struct{}) bool {
	t := time.NewTimer(stragglerTime)
	defer t.Stop()
	for _, ch := range []<-chan struct{}{sources, h.idle} {
		select {
		case <-ch:
		case <-t.C:
			return false
		}
	}
	return true
}

// Close closes the hub at once: connections get no more than their Close frame, if their socket takes it. It waits until
// nothing of the hub is left running, hooks and sources included, but no longer than 5 s, and 5 s more for filters and Replayers: then
// it returns an error.
func (h *Hub) Close() error {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(ErrClosed)
	if err := h.Shutdown(ctx); errors.Is(err, errStragglers) {
		return fmt.Errorf("tailcast: close: %w", errStragglers)
	}
	return nil
}

// beginClosing refuses what is new and stops the sources.
func (h *Hub) beginClosing() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hubOpen {
		return
	}
	h.state = hubClosing
	if h.plane != nil {
		h.plane.cancel(ErrClosed)
	}
	for cancel := range h.runs {
		(*cancel)(ErrClosed)
	}
	h.vacate()
}

// vacate is called when one less is there, or the hub begins to close; mu is held.
func (h *Hub) vacate() {
	if h.state != hubOpen && len(h.conns) == 0 && len(h.loops) == 0 {
		close(h.idle)
	}
}

// fill says that no more messages will come.
func (h *Hub) fill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.full: // by another Shutdown
	default:
		close(h.full)
	}
}

// finishClosing stops the workers. Whatever could ask something of them has ended. It waits for guests for some seconds only.
func (h *Hub) finishClosing() error {
	h.mu.Lock()
	h.state = hubClosed
	if h.timer != nil {
		h.timer.Stop()
	}
	h.mu.Unlock()
	h.wg.Wait()
	h.pool.Close()
	done := make(chan struct{})
	go func() { h.guests.Wait(); close(done) }()
	t := time.NewTimer(stragglerTime)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return errStragglers
	}
}

// background runs what connections have to do beside their own goroutines. finishClosing waits for it, but not for what comes
// after that.
func (h *Hub) background(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == hubClosed {
		go f()
	} else {
		h.wg.Go(f)
	}
}

// host is background for what may wait for the application: for a filter that looks at messages, for a Replayer, or for a hook that
// is added to a connection that has ended.
func (h *Hub) host(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == hubClosed {
		go f()
	} else {
		h.guests.Go(f)
	}
}

// enter notes a call of Run, until leave.
func (h *Hub) enter(cancel context.CancelCauseFunc) (leave func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hubOpen {
		return nil, false
	}
	key := &cancel
	h.runs[key] = struct{}{}
	h.running.Add(1)
	return func() {
		h.mu.Lock()
		delete(h.runs, key)
		h.mu.Unlock()
		h.running.Done()
	}, true
}

func (h *Hub) addSource(r *sourceRun) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sources = append(h.sources, r)
}

// endSource ends what a source may do. Its last state stays in Stats until the hub is closed, unless it stopped by order.
func (h *Hub) endSource(r *sourceRun) {
	h.mu.Lock() // claim looks at ended under it
	defer h.mu.Unlock()
	r.pub.ended.Store(true)
	if h.plane != nil {
		h.plane.disown(r.pub, "", true)
	}
	r.pub.topics.Range(func(t, _ any) bool {
		t.(*topic).disown(r.pub)
		return true
	})
	const remembered = 100 // that have ended
	state, _, _ := r.get()
	r.over = true
	over := 0
	for _, o := range h.sources {
		if o.over {
			over++
		}
	}
	drop := state == "stopped"
	h.sources = slices.DeleteFunc(h.sources, func(o *sourceRun) bool {
		if drop && o == r {
			return true
		}
		if o.over && over > remembered {
			over--
			return true
		}
		return false
	})
}

// number returns one that no other connection has, as long as there are fewer than 2³² of them; never 0.
func (h *Hub) number() uint32 {
	for {
		if n := h.numbers.Add(1); n != 0 {
			return n
		}
	}
}

// add makes a connection known, unless the hub is closing.
func (h *Hub) add(c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hubOpen {
		return false
	}
	h.conns[c] = struct{}{}
	h.users.move(c, "", c.identity.User)
	h.accepted++
	return true
}

// dismiss removes a connection that has ended.
func (h *Hub) dismiss(c *Conn) {
	c.mu.Lock()
	h.users.move(c, c.identity.User, "")
	why := c.why
	c.mu.Unlock()
	c.logEnd(why) // before Shutdown may return
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
	h.past.add(c)
	h.past.ended[why]++
	h.vacate()
}

// visit returns a topic for somebody who looks at it, until part.
func (h *Hub) visit(name string) *topic {
	h.plane.wake()
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topicLocked(name)
	t.visitors++
	return t
}

// part takes back a visit. Of a topic that was only looked at nothing remains.
func (h *Hub) part(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.visitors--
	if t.visitors == 0 && t.untouched() {
		h.forget(t)
	}
}

// shrunk is m in the memory that it needs. (maps.Clone copies the table as it is.)
func shrunk[K comparable, V any](m map[K]V) map[K]V {
	small := make(map[K]V, len(m))
	maps.Copy(small, m)
	return small
}

// forget drops a topic that nobody holds; mu is held.
func (h *Hub) forget(t *topic) {
	delete(h.topics, t.name)
	h.budget.Remove(t.log)
	if h.most > 1000 && len(h.topics) < h.most/4 {
		h.topics, h.most = shrunk(h.topics), len(h.topics)
	}
}
