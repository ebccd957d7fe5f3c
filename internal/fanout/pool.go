// Package fanout owns the write side of every connection.
//
// A connection's bytes are written by whoever has its turn: a worker of the pool, without blocking; a goroutine, once the
// socket would block; or, for a streaming response, the goroutine of its handler. There is one turn at a time and it is
// handed over, never shared, so that no lock is held while a byte is written.
package fanout

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

// Config holds what all connections of a pool share.
type Config struct {
	Workers      int           // 0 = GOMAXPROCS
	WriteTimeout time.Duration // without a byte taken
	PingInterval time.Duration // 0 = no pings
	PongTimeout  time.Duration
	Heartbeat    time.Duration // of streaming responses; 0 = none
	PrivateBytes int           // what Send may queue per connection
	Budget       *stream.Budget
	// FlushInterval is how long a topic's new messages may wait for others that go with the same write: see Topic.Grow.
	FlushInterval time.Duration
}

// turnBytes is what one connection may send before the others of its worker get their turn.
const turnBytes = 64 << 10

// A Pool is a set of workers and the connections they serve. Goroutines start with the first connection.
type Pool struct {
	cfg     Config
	workers []*worker
	started sync.Once
	stop    chan struct{}
	stopped sync.Once
	wg      sync.WaitGroup
	next    atomic.Uint32 // spreads connections over workers
}

// Counts are what connections have been sent so far.
type Counts struct {
	Messages uint64 // that were handed to the kernel
	Bytes    uint64 // that were handed to the kernel
	Private  uint64 // messages that Send has queued
	Refused  uint64 // messages for which Send had no room
}

func (n *Counts) add(c *Conn) {
	n.Messages += c.messages.Load()
	n.Bytes += c.sent.Load()
}

// NewPool returns a pool without goroutines.
func NewPool(cfg Config) *Pool {
	if cfg.Workers == 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{cfg: cfg, stop: make(chan struct{})}
	for range cfg.Workers {
		p.workers = append(p.workers, &worker{
			pool: p, wake: make(chan struct{}, 1), members: make(map[*Conn]struct{}),
		})
	}
	return p
}

func (p *Pool) start() {
	p.started.Do(func() {
		for _, w := range p.workers {
			p.wg.Go(w.run)
		}
	})
}

// Close ends the workers and waits for them and for every goroutine that still writes. All connections must have ended.
func (p *Pool) Close() {
	p.started.Do(func() {}) // who adds a connection only now, to cancel it, gets no workers
	p.stopped.Do(func() { close(p.stop) })
	for _, w := range p.workers {
		w.mu.Lock()
		if w.flush != nil {
			w.flush.Stop()
		}
		w.mu.Unlock()
	}
	p.wg.Wait()
}

// Counts returns the sum over all connections that there are or have been. From one call to the next no number falls: who has
// ended and who has not is taken at one moment, for each worker.
func (p *Pool) Counts() (n Counts) {
	var conns []*Conn
	for _, w := range p.workers {
		w.mu.Lock()
		n.Messages += w.gone.Messages
		n.Bytes += w.gone.Bytes
		n.Private += w.private.Load()
		n.Refused += w.refused.Load()
		conns = slices.Grow(conns, len(w.members))
		for c := range w.members {
			conns = append(conns, c)
		}
		w.mu.Unlock()
	}
	for _, c := range conns { // without the lock, which a publisher may be waiting for
		n.add(c)
	}
	return n
}

// tick is how often liveness is looked at: a tenth of the shortest interval, between 10 ms and 1 s.
func (p *Pool) tick() time.Duration {
	d := 10 * time.Second
	for _, v := range []time.Duration{p.cfg.PingInterval, p.cfg.PongTimeout, p.cfg.Heartbeat} {
		if v > 0 {
			d = min(d, v)
		}
	}
	return max(d/10, 10*time.Millisecond)
}

// A worker serves its share of the connections.
type worker struct {
	pool   *Pool
	wake   chan struct{}
	looked []*Conn // look's own space

	mu      sync.Mutex  // guards the rest
	topics  []*shard    // that have something new
	held    []*shard    // that have something new, which waits for more
	flush   *time.Timer // releases held
	conns   []*Conn     // whose turn it is; their turn is claimed for the worker
	members map[*Conn]struct{}
	gone    Counts // what members have sent that have ended

	private, refused atomic.Uint64 // what Counts says, for members and those that have ended

	wrote, writes int // bytes and calls since a pass began; only the worker's own goroutine counts, and only its own
}

func (w *worker) run() {
	var (
		topics []*shard
		tired  []*shard // they rest
		conns  []*Conn
		grown  []*Conn // whose topics have grown, where those are several
		subs   []*Sub
		pass   uint64
	)
	tick := w.pool.tick()
	timer, rest := time.NewTimer(tick), time.NewTimer(time.Hour)
	timer.Stop()
	rest.Stop()
	armed := false
	for {
		select {
		case <-w.pool.stop:
			timer.Stop()
			rest.Stop()
			return
		case <-w.wake:
		case now := <-timer.C:
			armed = false
			w.look(now)
		case <-rest.C:
			topics, tired = tired, topics
		}
		w.mu.Lock()
		topics = append(topics, w.topics...)
		clear(w.topics)
		w.topics = w.topics[:0]
		conns, w.conns = w.conns, conns[:0]
		if !armed && len(w.members) > 0 {
			timer.Reset(tick)
			armed = true
		}
		w.mu.Unlock()
		pass++
		began := time.Now()
		w.wrote, w.writes = 0, 0
		for _, s := range topics {
			s.pass = pass
			subs = s.snapshot(subs)
			if len(topics) > 1 {
				grown = note(grown, subs)
			} else {
				for _, sub := range subs {
					sub.conn.serve(sub)
				}
			}
			clear(subs)
		}
		for _, c := range grown {
			only := c.woken
			c.woken = nil
			c.serve(only)
		}
		clear(grown)
		grown = grown[:0]
		served := len(topics) > 0
		clear(topics)
		topics = topics[:0]
		for _, c := range conns {
			c.turn()
		}
		clear(conns)
		if served && len(tired) == 0 {
			if d := w.tired(time.Since(began)); d > 0 {
				if tired = w.overtaken(tired, pass); len(tired) > 0 {
					rest.Reset(d)
				}
			}
		}
	}
}

// note adds the connections of subs to grown, each once, so that one write can have what several of its topics have.
func note(grown []*Conn, subs []*Sub) []*Conn {
	for _, sub := range subs {
		switch c := sub.conn; c.woken {
		case nil:
			c.woken = sub
			grown = append(grown, c)
		case sub:
		default:
			c.woken = several
		}
	}
	return grown
}

// tired is how long a worker rests from the topics that have grown again while it has served them for so long, with writes of few
// bytes each. It could go on at once: but then it would be busy for ever with one small write for each message and connection,
// while a write of two messages costs hardly more than that of one. So the rest makes up for itself, and at most doubles a delay that
// is there anyhow.
func (w *worker) tired(busy time.Duration) time.Duration {
	const (
		least, most = time.Millisecond, 10 * time.Millisecond
		few         = 4 << 10
	)
	if busy < least || w.wrote > few*w.writes {
		return 0
	}
	return min(busy, most)
}

// overtaken moves those shards to dst that were served in that pass and have grown again.
func (w *worker) overtaken(dst []*shard, pass uint64) []*shard {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topics = slices.DeleteFunc(w.topics, func(s *shard) bool {
		if s.pass == pass {
			dst = append(dst, s)
		}
		return s.pass == pass
	})
	return dst
}

// look checks the liveness of every member.
func (w *worker) look(now time.Time) {
	w.mu.Lock()
	for c := range w.members {
		w.looked = append(w.looked, c)
	}
	w.mu.Unlock()
	for _, c := range w.looked {
		c.look(now)
	}
	clear(w.looked)
	w.looked = w.looked[:0]
}

func (w *worker) push(c *Conn) {
	w.mu.Lock()
	w.conns = append(w.conns, c)
	w.mu.Unlock()
	w.signal()
}

func (w *worker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// hold adds a shard to those whose subscriptions are woken when the flush interval is over.
func (w *worker) hold(s *shard) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.held { // it was woken meanwhile, and waits for no longer than if it had not
		return
	}
	s.held = true
	if w.held = append(w.held, s); len(w.held) > 1 {
		return
	}
	if d := w.pool.cfg.FlushInterval; w.flush == nil {
		w.flush = time.AfterFunc(d, w.release)
	} else {
		w.flush.Reset(d)
	}
}

// release wakes what was held.
func (w *worker) release() {
	w.mu.Lock()
	for _, s := range w.held {
		s.held = false
		if s.state.CompareAndSwap(gathering, dirty) {
			w.topics = append(w.topics, s)
		}
	}
	clear(w.held)
	w.held = w.held[:0]
	w.mu.Unlock()
	w.signal()
}

// A Topic is the set of subscriptions that wake up together, a shard for each worker, and of Watchers.
type Topic struct {
	pool     *Pool
	shards   []shard
	watchers watchers
	keep     stream.Retention // of its log
	gathered atomic.Int64     // what Grow has told of since the last wake: see weight
}

type shard struct {
	w     *worker
	state atomic.Uint32
	count atomic.Int32
	pass  uint64 // of its worker, which alone touches it: when it was served last
	held  bool   // it is in w.held; guarded by w.mu

	mu      sync.Mutex
	members []*member
}

// The states of a shard.
const (
	clean     = iota
	gathering // it is in w.held, or about to be
	dirty     // it is in w.topics
)

// NewTopic returns an empty topic, whose log keeps so much.
func (p *Pool) NewTopic(keep stream.Retention) *Topic {
	t := &Topic{pool: p, keep: keep, shards: make([]shard, len(p.workers))}
	for i := range t.shards {
		t.shards[i].w = p.workers[i]
	}
	return t
}

// Wake tells the workers and the Watchers that the topic's log has grown. It does not wait for anything.
func (t *Topic) Wake() {
	t.watchers.wake()
	t.wake()
}

func (t *Topic) wake() {
	if t.pool.cfg.FlushInterval > 0 {
		t.gathered.Store(0)
	}
	for i := range t.shards {
		s := &t.shards[i]
		if s.count.Load() == 0 || s.state.Swap(dirty) == dirty {
			continue
		}
		s.w.mu.Lock()
		s.w.topics = append(s.w.topics, s)
		s.w.mu.Unlock()
		s.w.signal()
	}
}

// gatherBytes is how much a topic gathers that waits for more.
const gatherBytes = 16 << 10

// Grow is Wake for a log that has grown by some messages of so many payload bytes. With a flush interval, the subscriptions are
// woken when it has passed since the first of them, or when so much has gathered that one more message would save nothing, or that
// is half of what the log keeps.
func (t *Topic) Grow(messages, bytes int) {
	if t.pool.cfg.FlushInterval <= 0 {
		t.Wake()
		return
	}
	t.watchers.wake()
	if t.gathered.Add(t.weight(messages, bytes)) >= gatherBytes {
		t.wake()
		return
	}
	for i := range t.shards {
		if s := &t.shards[i]; s.count.Load() > 0 && s.state.CompareAndSwap(clean, gathering) {
			s.w.hold(s)
		}
	}
}

// weight is how much of gatherBytes messages make up.
func (t *Topic) weight(messages, bytes int) int64 {
	if t.keep.Age > 0 && t.keep.Age/2 < t.pool.cfg.FlushInterval {
		return gatherBytes
	}
	n := int64(bytes)
	if most := int64(t.keep.Messages); most > 0 {
		n = max(n, 2*gatherBytes*int64(messages)/most)
	}
	if most := t.keep.Bytes; most > 0 && most < 2*gatherBytes {
		n = max(n, 2*gatherBytes*int64(bytes)/most)
	}
	return n
}

// WakeFiltered wakes the subscriptions that read through a filter, when it has come to know more.
func (t *Topic) WakeFiltered(f *stream.Filter) {
	var subs []*Sub // most topics have many that read through none
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, m := range s.members {
			if m.sub.enc.Filter() == f {
				subs = append(subs, m.sub)
			}
		}
		s.mu.Unlock()
	}
	for _, s := range subs {
		s.conn.Wake()
	}
}

// Len is the number of subscriptions.
func (t *Topic) Len() int {
	n := 0
	for i := range t.shards {
		n += int(t.shards[i].count.Load())
	}
	return n
}

// Each calls f for every subscription.
func (t *Topic) Each(f func(*Sub)) {
	var subs []*Sub
	for i := range t.shards {
		subs = t.shards[i].list(subs)
	}
	for _, s := range subs {
		f(s)
	}
}

// stillTime is how long a subscription has not moved that stands still.
const stillTime = 500 * time.Millisecond

// Idle reports whether nobody is there.
func (t *Topic) Idle() bool { return t.watchers.count.Load() == 0 && t.Len() == 0 }

// Trailing counts the subscriptions and Watchers that are more than far bytes behind the log's end and not standing still, and
// all of which the place is known. One that waits for a filter counts as one that stands still: nobody is to be held up for that.
func (t *Topic) Trailing(end, far uint64) (trailing, all int) {
	now := time.Now()
	t.each(func(at uint64, known bool, l *lastLook) {
		if !known {
			return
		}
		if at != l.seen || l.movedAt.IsZero() { // who is looked at for the first time has not stood still yet
			l.seen, l.movedAt = at, now
		}
		all++
		if end-min(at, end) > far && !l.judged && now.Sub(l.movedAt) < stillTime {
			trailing++
		}
	})
	return trailing, all
}

// Moved reports whether one of them has moved since the last look.
func (t *Topic) Moved() (moved bool) {
	t.each(func(at uint64, _ bool, l *lastLook) {
		moved = moved || at != l.seen
		l.seen = at
	})
	return moved
}

// Front is the place of the one that has come furthest; false while there is none.
func (t *Topic) Front() (bytes uint64, ok bool) {
	t.each(func(at uint64, known bool, _ *lastLook) {
		if known {
			bytes, ok = max(bytes, at), true
		}
	})
	return bytes, ok
}

// each calls f with the place of everybody who is there, if it is known.
func (t *Topic) each(f func(at uint64, known bool, l *lastLook)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, m := range s.members {
			at, known := m.place()
			m.judged = m.sub.Judged()
			f(at, known, &m.lastLook)
		}
		s.mu.Unlock()
	}
	t.watchers.each(f)
}

// snapshot copies the subscriptions into buf, after taking back the mark: what comes later marks it again.
func (s *shard) snapshot(buf []*Sub) []*Sub {
	s.state.Store(clean)
	return s.list(buf[:0])
}

func (s *shard) list(buf []*Sub) []*Sub {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		buf = append(buf, m.sub)
	}
	return buf
}

func (s *shard) add(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.index = len(s.members)
	s.members = append(s.members, m)
	s.count.Add(1)
}

func (s *shard) remove(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.members) - 1
	s.members[m.index] = s.members[last]
	s.members[m.index].index = m.index
	s.members[last] = nil
	s.members = s.members[:last]
	s.count.Add(-1)
}
