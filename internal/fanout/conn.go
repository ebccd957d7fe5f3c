package fanout

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

var (
	// ErrWriteTimeout: the kernel took no byte for the write timeout.
	ErrWriteTimeout = errors.New("write timeout: the peer takes no more bytes")
	// ErrPingTimeout: nothing was heard of the peer after a ping.
	ErrPingTimeout = errors.New("ping timeout: nothing was heard of the peer")
	// ErrQueueFull: the private queue has no room.
	ErrQueueFull = errors.New("the connection's queue is full")
)

// A Handler knows what the write side does not: what a format looks like, and what to do about lag. Its methods must not
// block. All but Lagged only append bytes, and must not call back.
type Handler interface {
	// Lagged: the message at the subscription's cursor is no longer in the log, or the log that it follows has ended there. It
	// rests until Resume or Follow. No lock is held.
	Lagged(s *Sub, cur stream.Cursor)
	// Quiet appends what a quiet connection is to be sent as its heartbeat. The caller has the turn.
	Quiet(dst []byte) []byte
	// Place appends what tells the viewer where it stands in a subscription, if its format can say so. The caller has the turn.
	Place(dst []byte, s *Sub) []byte
	// Dropped appends what tells the viewer that Send refused n messages, if its format can say so.
	Dropped(dst []byte, n int) []byte
	// Rewrite appends the messages of chunk as this connection alone gets them. It is called only with Options.Rewrite. The
	// caller has the turn.
	Rewrite(dst []byte, s *Sub, chunk *stream.Chunk) []byte
}

// Options describe a connection.
type Options struct {
	Socket   Socket
	Direct   bool // TryWrite is of use
	Resident bool // the goroutine that calls Run writes, nobody else
	Rewrite  bool // messages are copied through Handler.Rewrite
	Hold     bool // nothing is sent of subscriptions before Release
	Beats    bool // with LastRead: it gets heartbeats too. Without it, they are what there is
	Handler  Handler
	Abort    func()      // makes a blocked write return; called at most once
	Failed   func(error) // called once if the write side ends before its final bytes; no lock is held. May be nil
	Hello    []byte      // goes before anything else, with the first thing that is sent
	// LastRead returns when the peer was last heard of, in nanoseconds since 1970. It makes the pool send pings.
	LastRead func() int64
	Ping     func(dst []byte) []byte              // appends a ping frame
	Pong     func(dst []byte, data []byte) []byte // appends a pong frame
}

// A Conn is the write side of one connection.
//
// What each delivery looks at stands first, and first in Options, on three cache lines: a worker comes by thousands of connections of
// which none is in the cache any more, and fetching one line costs as much as a hundred instructions.
type Conn struct {
	state    atomic.Uint32 // of the turn: see claim
	author   atomic.Uint32 // see Author
	urgent   atomic.Bool   // something below mu waits to be taken
	draining atomic.Bool   // ending was set to drain
	pool     *Pool
	w        *worker
	woken    *Sub // what has grown in the worker's present pass, or several; touched only by the worker's own goroutine

	// Touched only by whoever has the turn.
	subs     []*Sub
	alone    [1]*Sub // subs' memory, as long as there is one
	out      []byte  // bytes of ours that go before anything else: a frame is never interrupted
	off      int     // how much of out has been sent
	turnOf   int     // which sub begins: they take turns
	only     *Sub    // what the next turn has to look at; several, unless who claimed it knows better
	finished bool

	// Written by whoever has the turn, read by anyone.
	sent     atomic.Uint64 // bytes
	messages atomic.Uint64

	Options

	charged  int64 // what of out the budget knows; touched only by whoever has the turn
	shard    int
	released atomic.Bool   // subscriptions may send
	progress atomic.Int64  // when a write that had to wait went on
	wakeup   chan struct{} // Resident only

	// Liveness, touched only by the worker's look.
	askedAt   int64  // when the peer was pinged, or when what it has not acknowledged since was seen; 0 = not
	ackedThen uint64 // what it had acknowledged then
	sentThen  uint64
	quietAt   int64 // since when sentThen is what was sent

	mu      sync.Mutex // guards what others ask of the writer
	ops     []op
	private []byte // direct messages
	queued  int    // direct messages in private
	refused int    // direct messages that found no room, not yet declared
	taken   int    // bytes of private that are in out
	pong    []byte
	hasPong bool
	ping    bool
	quiet   bool
	final   []byte
	ending  ending
	drained chan struct{}
	err     error
	ended   bool          // nothing more will be written
	done    chan struct{} // closed then; nil while nobody waits for it
}

type ending uint8

const (
	open     ending = iota
	finish          // final goes at the next frame boundary
	finalOut        // final is on its way
	aborted
)

// Add starts serving a connection.
func (p *Pool) Add(o Options) *Conn {
	p.start()
	i := int(p.next.Add(1) % uint32(len(p.workers)))
	c := &Conn{pool: p, w: p.workers[i], shard: i, only: several, Options: o}
	c.released.Store(!o.Hold)
	if len(o.Hello) > 0 {
		c.private, c.Hello = o.Hello, nil
		p.cfg.Budget.Use(int64(cap(c.private)))
		c.urgent.Store(true)
	}
	if o.Resident {
		c.wakeup = make(chan struct{}, 1)
	}
	c.w.mu.Lock()
	c.w.members[c] = struct{}{}
	c.w.mu.Unlock()
	c.w.signal() // arms its timer
	return c
}

// Cancel takes back an Add that nothing has been asked of yet.
func (c *Conn) Cancel() {
	c.mu.Lock()
	c.ending = aborted // whoever has the turn sends nothing, and ends it
	c.urgent.Store(true)
	c.mu.Unlock()
	if c.Resident || c.claim() {
		c.mu.Lock()
		c.end()
		c.mu.Unlock()
	} else {
		<-c.Done() // a worker was just looking at it, and finds the note
	}
	c.Remove()
}

// Done is closed when the write side is over: the final bytes are out, or it failed.
func (c *Conn) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil { // not before somebody waits: most connections live long and end once
		c.done = make(chan struct{})
		if c.ended {
			close(c.done)
		}
	}
	return c.done
}

// Err is why the write side ended before its final bytes; nil while it has not, or if it did not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Sent returns how many messages and bytes the kernel has taken.
func (c *Conn) Sent() (messages, bytes uint64) { return c.messages.Load(), c.sent.Load() }

// Send queues a message for this connection alone.
func (c *Conn) Send(frame []byte) error { return c.enqueue(frame, 1) }

// Answer queues what answers the peer. It is no message, and none is missing where it finds no room: that is for the caller to
// see to. There is none either while so much is asked of subscriptions that a peer must be asking without reading.
func (c *Conn) Answer(frame []byte) error {
	const most = 4096 // ops, of 64 bytes
	c.mu.Lock()
	full := len(c.ops) > most
	c.mu.Unlock()
	if full {
		return ErrQueueFull
	}
	return c.enqueue(frame, 0)
}

// enqueue queues a frame that counts as so many messages.
func (c *Conn) enqueue(frame []byte, messages int) error {
	c.mu.Lock()
	if c.ending != open {
		c.mu.Unlock()
		return os.ErrClosed
	}
	if n := len(c.private) + c.taken; n > 0 && n+len(frame) > c.pool.cfg.PrivateBytes || !c.pool.cfg.Budget.Room(len(frame)) {
		c.w.refused.Add(uint64(messages))
		if c.refused += messages; c.refused > 0 {
			c.urgent.Store(true)
		}
		c.mu.Unlock()
		return ErrQueueFull
	}
	before := cap(c.private)
	c.private = append(c.declare(c.private), frame...)
	grown := cap(c.private) - before
	c.queued += messages
	c.w.private.Add(uint64(messages))
	c.urgent.Store(true)
	c.mu.Unlock()
	c.pool.cfg.Budget.Use(int64(grown))
	c.wake(none)
	return nil
}

// declare appends the notice of what Send has refused since the last one; mu is held.
func (c *Conn) declare(dst []byte) []byte {
	if c.refused == 0 {
		return dst
	}
	n := c.refused
	c.refused = 0
	return c.Handler.Dropped(dst, n)
}

// SendPong asks for a pong. Only the latest one counts (RFC 6455, 5.5.3).
func (c *Conn) SendPong(data []byte) {
	c.ask(func() { c.pong, c.hasPong = append(c.pong[:0], data...), true })
}

// Finish sends the last bytes, after all that is queued for it alone. The first call counts.
func (c *Conn) Finish(final []byte) {
	c.ask(func() {
		if c.ending == open {
			c.final, c.ending = final, finish
		}
	})
}

// Beat sends what a quiet connection would be sent as its heartbeat, if its format has one.
func (c *Conn) Beat() { c.ask(func() { c.quiet = true }) }

// CopyMessages sends messages through Handler.Rewrite from now on.
func (c *Conn) CopyMessages() { c.request(op{kind: opCopy}) }

// Author says whose records are not sent to this connection, from now on: see stream.Appender.From.
func (c *Conn) Author(from uint32) { c.author.Store(from) }

// Release lets the subscriptions of a connection send that was added with Hold. It is called once. What was asked of them until
// then is carried out first, so that whoever asks during the first message sees them all in their places.
func (c *Conn) Release() {
	c.mu.Lock()          // one look under mu sees it for all that waits for it, or for nothing
	c.urgent.Store(true) // first: whoever sees that it is released also sees that there is something to take
	c.released.Store(true)
	c.mu.Unlock()
	c.wake(none)
}

func (c *Conn) held() bool { return !c.released.Load() }

// Subs returns the subscriptions. Only a Handler may ask, while its caller has the turn.
func (c *Conn) Subs() []*Sub { return c.subs }

// Drained returns a channel that is closed as soon as everything that its topics hold, and all that is queued, has been sent.
func (c *Conn) Drained() <-chan struct{} {
	ch := c.Done() // of a connection that has ended
	c.ask(func() {
		if c.drained == nil {
			c.drained = make(chan struct{})
		}
		c.draining.Store(true)
		ch = c.drained
	})
	return ch
}

// Abort ends the write side at once.
func (c *Conn) Abort(err error) {
	c.mu.Lock()
	if c.ending == aborted || c.isDone() {
		c.mu.Unlock()
		return
	}
	c.ending = aborted
	if c.err == nil {
		c.err = err
	}
	c.urgent.Store(true)
	c.mu.Unlock()
	if _, ok := c.Socket.(*blockingSocket); ok {
		c.pool.wg.Go(c.Options.Abort) // closing TLS may wait to say so
	} else {
		c.Options.Abort()
	}
	c.wake(none)
}

// isDone reports whether nothing more will be written; mu is held.
func (c *Conn) isDone() bool { return c.ended }

func (c *Conn) ask(f func()) {
	c.mu.Lock()
	if c.isDone() {
		c.mu.Unlock()
		return
	}
	f()
	c.urgent.Store(true)
	c.mu.Unlock()
	c.wake(none)
}

func (c *Conn) request(o op) {
	c.mu.Lock()
	c.ops = append(c.ops, o)
	c.urgent.Store(true)
	c.mu.Unlock()
	c.wake(none)
}

// The turn. It is free, or somebody has it; and while somebody has it, somebody else may have noted that there is more.
const (
	free  = 0
	taken = 1
	again = 2
)

// claim takes the turn, or else leaves a note for whoever has it.
func (c *Conn) claim() bool {
	for {
		switch old := c.state.Load(); {
		case old == free:
			if c.state.CompareAndSwap(free, taken) {
				return true
			}
		case old&again != 0:
			return false
		default:
			if c.state.CompareAndSwap(old, old|again) {
				return false
			}
		}
	}
}

// release gives the turn back, unless there is a note.
func (c *Conn) release() bool {
	if c.state.CompareAndSwap(taken, free) {
		return true
	}
	c.state.Store(taken)
	return false
}

// Wake makes sure that somebody looks after the connection and all its subscriptions soon.
func (c *Conn) Wake() { c.wake(several) }

// wake is Wake, with what has to be looked at.
func (c *Conn) wake(only *Sub) {
	if c.Resident {
		select {
		case c.wakeup <- struct{}{}:
		default:
		}
		return
	}
	if c.claim() {
		c.only = only
		c.w.push(c)
	}
}

// serve is Wake for the connection's worker, which can do the work on the spot, and knows what has grown: only, or several.
func (c *Conn) serve(only *Sub) {
	if c.Resident {
		c.Wake()
	} else if c.claim() {
		c.only = only
		c.turn()
	}
}

// turn serves a connection whose turn the worker has claimed.
func (c *Conn) turn() {
	if !c.Direct {
		c.pool.wg.Go(c.drain)
		return
	}
	only := c.only
	c.only = several // next time, if nobody knows better
	if c.pool.cfg.FlushInterval > 0 {
		only = several // what other topics hold back goes along
	}
	switch c.run(false, only) {
	case idle:
		if !c.release() {
			c.w.push(c)
		}
	case more:
		c.w.push(c)
	case blocked:
		c.pool.wg.Go(c.drain)
	case over: // the turn is kept for good
	}
}

// drain writes, waiting for the socket, until nothing is left. It has the turn.
func (c *Conn) drain() {
	for {
		switch c.run(true, several) {
		case idle:
			if s, ok := c.Socket.(*blockingSocket); ok {
				c.unbind(s, c.pool.cfg.WriteTimeout)
			}
			if c.release() {
				return
			}
		case over:
			return
		}
	}
}

// unbind takes back the deadline of a write that is over. The caller has the turn.
func (c *Conn) unbind(s *blockingSocket, left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != aborted { // else there may be that of Close, for its alert
		s.unbind(left)
	}
}

// Run serves a Resident connection until its final bytes are out, it fails, or ctx is done.
func (c *Conn) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.Wake) // so that it waits for one thing only, for each message anew
	defer stop()
	for {
		switch c.run(true, several) {
		case idle:
			<-c.wakeup
		case over:
			return c.Err()
		}
		if ctx.Err() != nil { // it may be behind for ever
			c.Abort(context.Cause(ctx))
		}
	}
}

type status uint8

const (
	idle    status = iota // nothing is left to send
	more                  // there is more, but others want their turn
	blocked               // the socket takes no more
	over                  // nothing will be sent any more
)

// What stands for other than one subscription.
var (
	several = new(Sub)
	none    = new(Sub)
)

// run sends what there is, for one turn's worth of bytes. Of subscriptions it looks at those that can have anything: each look at one
// of many costs a cache line or two.
func (c *Conn) run(wait bool, only *Sub) status {
	if c.finished {
		return over
	}
	for budget := turnBytes; ; {
		if c.off < len(c.out) {
			n, err := c.write(c.out[c.off:], wait)
			if err != nil {
				return c.fail(err)
			}
			c.off += n
			budget -= n
			if c.off < len(c.out) {
				if !wait {
					return blocked
				}
				continue
			}
			c.flushed()
		}
		if c.urgent.Load() {
			took, anew := c.takeUrgent()
			if anew {
				only = several
			}
			if took {
				continue
			}
		}
		if c.finished {
			return over
		}
		if budget <= 0 {
			return more
		}
		// Before it is looked what there is: what comes in between is to be sent still, and what Release sets free.
		draining := c.draining.Load() && !c.held()
		if draining {
			only = several
		}
		n, short, err := c.follow(budget, wait, only)
		if err != nil {
			return c.fail(err)
		}
		budget -= n
		if short && !wait {
			return blocked
		}
		if n == 0 && c.off == len(c.out) && !c.urgent.Load() {
			if draining {
				c.tellDrained()
			}
			return idle
		}
	}
}

func (c *Conn) write(p []byte, wait bool) (n int, err error) {
	if !wait {
		n, err = c.Socket.TryWrite(p)
		c.w.wrote += n
		c.w.writes++
	} else {
		began := time.Now()
		n, err = c.Socket.WriteSome(p, c.pool.cfg.WriteTimeout)
		now := time.Now()
		if n > 0 && now.Sub(began) > time.Millisecond { // it had to wait: the peer has made room
			c.progress.Store(now.UnixNano())
		}
	}
	if n > 0 {
		c.sent.Add(uint64(n))
	}
	return n, err
}

// flushed lets go of what out held.
func (c *Conn) flushed() {
	if c.charged != 0 {
		c.pool.cfg.Budget.Use(-c.charged)
		c.charged = 0
	}
	const keep = 512 // a pong or two; more would be held by every idle connection, or belongs to all
	if cap(c.out) > keep {
		c.out = nil
	}
	c.out, c.off = c.out[:0], 0
}

// takeUrgent moves the next thing that was asked for into out, and reports whether the caller has to look again, and anew at all
// subscriptions. The order: control frames, direct messages, what subscriptions were told, the end.
func (c *Conn) takeUrgent() (again, anew bool) {
	c.mu.Lock()
	o, ok := c.pick()
	err := c.err
	c.mu.Unlock()
	if c.finished {
		c.tellFailed(err)
	}
	if o.kind != opNone {
		c.apply(o)
	}
	return ok, o.kind != opNone
}

// pick is takeUrgent under mu. An op that it returns is carried out without it.
func (c *Conn) pick() (o op, again bool) {
	c.taken = 0
	if c.ending == aborted {
		c.end()
		return op{}, false
	}
	if c.pickControl(); len(c.out) > 0 {
		return op{}, true
	}
	switch {
	case len(c.private) > 0:
		c.messages.Add(uint64(c.queued))
		c.charged, c.taken = int64(cap(c.private)), len(c.private)
		c.out = c.declare(c.private)
		c.private, c.queued = nil, 0
	case c.refused > 0:
		c.out = c.declare(c.out)
	case len(c.ops) > 0 && !c.held():
		o = c.ops[0]
		c.ops[0] = op{}
		if c.ops = c.ops[1:]; len(c.ops) == 0 {
			c.ops = nil
		}
	case c.quiet && c.ending == open && !c.held(): // behind ops: it tells where the subscriptions stand
		c.quiet = false
		c.out = c.Handler.Quiet(c.out)
	case c.ending == finish:
		c.out, c.final, c.ending = c.final, nil, finalOut
	case c.ending == finalOut:
		c.end()
		return op{}, false
	default:
		c.urgent.Store(false)
		return op{}, false
	}
	return o, true
}

// pickControl moves control frames into out, unless the Close frame is out already (RFC 6455, 5.5.1: nothing follows it).
func (c *Conn) pickControl() {
	if c.ending == finalOut {
		return
	}
	if c.hasPong {
		c.hasPong = false
		c.out = c.Pong(c.out, c.pong)
	}
	if c.ping {
		c.ping = false
		c.out = c.Options.Ping(c.out)
	}
}

// tellDrained is called when nothing is left to send.
func (c *Conn) tellDrained() {
	for _, s := range c.subs {
		if s.coming || s.waits {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining.Swap(false) { // under mu, as Drained sets both
		close(c.drained)
		c.drained = nil
	}
}

// apply carries out an op.
func (c *Conn) apply(o op) {
	s := o.sub
	if o.kind == opCopy {
		c.Rewrite = true
		return
	}
	if s.gone && o.kind != opFeed {
		return
	}
	switch o.kind {
	case opAdd:
		if c.subs == nil {
			c.subs = c.alone[:0]
		}
		c.subs = append(c.subs, s)
	case opResume:
		s.resume(&o)
	case opStand:
		s.cur.Pos, s.coming = o.cur.Pos, o.coming
	case opPlace:
		c.out = c.Handler.Place(c.out, s)
	case opRemove:
		c.drop(s)
	case opFeed:
		c.take(s)
	}
}

// take begins to send a notice.
func (c *Conn) take(s *Sub) {
	c.mu.Lock()
	chunk := s.takePending()
	c.mu.Unlock()
	if s.gone {
		c.pool.cfg.Budget.Use(-int64(len(chunk.Bytes)))
		return
	}
	c.charged = int64(len(chunk.Bytes))
	if c.Rewrite {
		c.out = c.Handler.Rewrite(c.out, s, &chunk)
	} else {
		c.out = chunk.Bytes
	}
	n, _ := chunk.Advance(&s.cur, len(chunk.Bytes))
	c.messages.Add(uint64(n))
}

func (c *Conn) drop(s *Sub) {
	s.gone, s.live = true, false
	for i, other := range c.subs {
		if other == s {
			c.subs = append(c.subs[:i], c.subs[i+1:]...)
			return
		}
	}
}

// copyBytes is how much of a log is copied at a time for a connection that gets its messages in a form of its own.
const copyBytes = 8 << 10

// follow sends what one subscription has at its cursor: only, or whose turn it is among those that have something. It returns how
// many bytes it dealt with, and whether the socket took less than that.
func (c *Conn) follow(budget int, wait bool, only *Sub) (n int, short bool, err error) {
	switch only {
	case none:
		return 0, false, nil
	case several:
	default:
		n, short, _, err = c.advance(only, budget, wait)
		return n, short, err
	}
	for range c.subs {
		if c.turnOf >= len(c.subs) {
			c.turnOf = 0
		}
		s := c.subs[c.turnOf]
		c.turnOf++
		if n, short, has, err := c.advance(s, budget, wait); has {
			return n, short, err
		}
	}
	return 0, false, nil
}

// advance sends what a subscription has at its cursor, if it has anything.
func (c *Conn) advance(s *Sub, budget int, wait bool) (n int, short, has bool, err error) {
	if !s.live {
		return 0, false, false, nil
	}
	if c.Rewrite {
		budget = min(budget, max(copyBytes/len(c.subs), 512)) // each message may name all places
	}
	chunk, state := s.next(budget)
	if waits := state == stream.Waiting; waits != s.waits {
		s.wait(waits)
	}
	switch state {
	case stream.AtHead, stream.Waiting:
		return 0, false, false, nil
	case stream.Lost:
		s.live = false
		c.Handler.Lagged(s, s.cur)
		return 0, false, false, nil
	}
	if self := c.author.Load(); self != 0 {
		n, own := chunk.Run(self)
		if chunk.Cut(n); own {
			chunk.Advance(&s.cur, len(chunk.Bytes))
			s.moved()
			return 1, false, true, nil
		}
	}
	if c.Rewrite {
		own := chunk // the Handler may keep its argument, and chunk is to stay on the stack
		return c.copied(s, &own), false, true, nil
	}
	n, short, err = c.shared(s, &chunk, wait)
	return n, short, true, err
}

// shared writes a chunk as all viewers of its format get it, without a copy.
func (c *Conn) shared(s *Sub, chunk *stream.Chunk, wait bool) (int, bool, error) {
	n := 0
	if len(chunk.Bytes) > 0 {
		var err error
		if n, err = c.write(chunk.Bytes, wait); err != nil {
			return n, false, err
		}
	}
	sent, rest := chunk.Advance(&s.cur, n)
	s.moved()
	c.messages.Add(s.passed(chunk, sent))
	c.keepRest(rest)
	return max(n, 1), n < len(chunk.Bytes), nil
}

// keepRest keeps the rest of a frame to be sent before anything else. A short one is copied, so that a slow socket does not
// hold a segment; a long one, which has a segment nearly to itself, stays shared with all others that stand there.
func (c *Conn) keepRest(rest []byte) {
	const long = 16 << 10
	switch {
	case len(rest) > long:
		c.out = rest[:len(rest):len(rest)] // flushed lets go of it: nothing is ever appended to it
	case len(rest) > 0:
		c.out = append(c.out, rest...)
		c.charged = int64(len(rest))
		c.pool.cfg.Budget.Use(c.charged)
	}
}

// copied puts a chunk into out in this connection's own form.
func (c *Conn) copied(s *Sub, chunk *stream.Chunk) int {
	if c.out = c.Handler.Rewrite(c.out, s, chunk); len(c.out) > 0 { // a filter may have left out all of it; then nothing is flushed either
		c.charged = int64(cap(c.out))
		c.pool.cfg.Budget.Use(c.charged)
	}
	sent, _ := chunk.Advance(&s.cur, len(chunk.Bytes))
	s.moved()
	c.messages.Add(s.passed(chunk, sent))
	return max(len(chunk.Bytes), 1)
}

// fail ends the write side because of err.
func (c *Conn) fail(err error) status {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrWriteTimeout
	}
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	err = c.err
	c.end()
	c.mu.Unlock()
	c.tellFailed(err)
	return over
}

func (c *Conn) tellFailed(err error) {
	if err != nil && c.Failed != nil {
		c.Failed(err)
	}
}

// end is the last thing that happens to a connection; mu is held, and the turn is kept for good.
func (c *Conn) end() {
	c.finished = true
	c.ending = aborted
	freed := c.charged + int64(cap(c.private))
	for _, o := range c.ops {
		if o.kind == opFeed {
			fed := o.sub.takePending()
			freed += int64(len(fed.Bytes))
		}
	}
	c.out, c.off, c.charged, c.private, c.ops, c.subs, c.alone, c.final = nil, 0, 0, nil, nil, nil, [1]*Sub{}, nil
	c.pool.cfg.Budget.Use(-freed)
	c.ended = true
	if c.done != nil {
		close(c.done)
	}
}

// Remove takes a connection whose write side is over, and whose subscriptions have been removed, out of the pool.
func (c *Conn) Remove() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	delete(c.w.members, c)
	c.w.gone.add(c)
}
