package fanout

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

// A Sub is one connection's subscription to one topic. It rests until Resume: then the fan-out sends what comes at its
// cursor, until the log no longer has it; then it rests again, and the Handler says how it goes on. Meanwhile it may Follow
// another log, one with older messages of its topic.
type Sub struct {
	conn *Conn // what each delivery looks at stands first: see Conn
	enc  *stream.Encoding

	// Touched only by whoever has the connection's turn.
	cur    stream.Cursor
	read   *stream.Encoding // what cur stands in
	until  uint64           // where in payload bytes it has enough of that
	live   bool
	gone   bool
	coming bool // there is more to come than its topic's log says
	waits  bool // for a filter

	// The cursor as the last turn left it, for others to read.
	behind   atomic.Bool   // it follows another log than its topic's
	judged   atomic.Bool   // it waits for a filter
	seq, cum atomic.Uint64 // in its topic's own log; seq is 0 where that is not known
	at       atomic.Uint64 // payload bytes of the log that it follows

	moves struct{ seq, cum uint64 } // what makes a place in read one in the topic's own log, modulo 2^64; touched as cur is

	Name  string // of the topic
	Owner any    // whatever the hub keeps beside it

	home member           // of its topic
	away *member          // of what it follows meanwhile; nil if nothing
	past *stream.Encoding // what it follows meanwhile; touched only by who calls Follow and Leave

	pending *stream.Chunk // notices that have not been taken; nil if there are none; guarded by conn.mu
	removed bool          // nothing is noted any more; guarded by conn.mu
}

// A member is one place in a shard.
type member struct {
	sub   *Sub
	topic *Topic
	index int // in its shard; guarded by shard.mu, as is the rest

	lastLook
}

// A lastLook is what was seen of somebody's place: see Topic.Trailing.
type lastLook struct {
	judged  bool // it waits for a filter
	seen    uint64
	movedAt time.Time // when that was found to have changed
}

// place is how many payload bytes of the topic's log its viewer has passed.
func (m *member) place() (bytes uint64, ok bool) {
	s := m.sub
	if m != &s.home {
		return s.at.Load(), true
	}
	return s.cum.Load(), s.seq.Load() != 0 && !s.behind.Load()
}

// Subscribe adds a resting subscription.
func (c *Conn) Subscribe(name string, t *Topic, enc *stream.Encoding, owner any) *Sub {
	s := &Sub{Name: name, Owner: owner, conn: c, enc: enc}
	s.home = member{sub: s, topic: t}
	c.request(op{sub: s, kind: opAdd})
	t.shards[c.shard].add(&s.home)
	return s
}

// Conn returns the connection that it belongs to.
func (s *Sub) Conn() *Conn { return s.conn }

// Encoding returns what it reads.
func (s *Sub) Encoding() *stream.Encoding { return s.enc }

// Resume lets the fan-out go on at cur, in the topic's own log.
func (s *Sub) Resume(cur stream.Cursor) {
	s.conn.request(op{sub: s, kind: opResume, cur: cur, read: s.enc, until: math.MaxUint64})
}

// Follow lets the fan-out go on at cur in another log, whose growth t wakes, until that has no more, or that many of its payload
// bytes have been passed. Leave must come once, and before it no other Follow; enc is given back by it.
func (s *Sub) Follow(t *Topic, enc *stream.Encoding, cur stream.Cursor, until uint64) {
	s.past = enc
	s.at.Store(cur.Cum)
	s.behind.Store(true)
	s.away = &member{sub: s, topic: t}
	t.shards[s.conn.shard].add(s.away)
	s.conn.request(op{sub: s, kind: opResume, cur: cur, read: enc, until: until, coming: true})
}

// Leave takes back a Follow, once it has ended in Handler.Lagged or the subscription is over.
func (s *Sub) Leave() {
	s.away.topic.shards[s.conn.shard].remove(s.away)
	s.away = nil
	s.past.Leave(time.Now())
	s.past = nil
}

// Stand says which position the viewer of a subscription that rests has seen, and whether it is going to Follow a log.
func (s *Sub) Stand(pos stream.Position, coming bool) {
	s.conn.request(op{sub: s, kind: opStand, cur: stream.Cursor{Pos: pos}, coming: coming})
}

// TellPlace has Handler.Place tell the viewer where it stands, behind all that was asked for the subscription before.
func (s *Sub) TellPlace() { s.conn.request(op{sub: s, kind: opPlace}) }

// Notice sends one frame, such as a declared loss, after which the viewer stands at pos (zero: where it stood). It does not
// wait.
func (s *Sub) Notice(frame []byte, pos stream.Position) {
	c := s.conn
	c.mu.Lock()
	if c.isDone() || s.removed {
		c.mu.Unlock()
		return
	}
	if s.pending == nil {
		s.pending = new(stream.Chunk)
		c.ops = append(c.ops, op{sub: s, kind: opFeed})
	}
	s.pending.Append(stream.NewChunk(frame, []uint32{uint32(len(frame))}, []stream.Position{pos}))
	c.urgent.Store(true)
	c.mu.Unlock()
	c.pool.cfg.Budget.Use(int64(len(frame)))
	c.wake(none)
}

// takePending returns the notices that have not been taken; conn.mu is held.
func (s *Sub) takePending() (chunk stream.Chunk) {
	if s.pending != nil {
		chunk, s.pending = *s.pending, nil
	}
	return chunk
}

// Remove ends the subscription. Nothing of it is sent after what is asked of the connection from now on.
func (s *Sub) Remove() {
	s.detach()
	c := s.conn
	c.mu.Lock()
	s.removed = true
	fed := s.takePending()
	c.mu.Unlock()
	c.pool.cfg.Budget.Use(-int64(len(fed.Bytes)))
	c.request(op{sub: s, kind: opRemove})
}

// detach takes it out of its topic; it is called once.
func (s *Sub) detach() {
	s.home.topic.shards[s.conn.shard].remove(&s.home)
	s.enc.Leave(time.Now())
}

// Lag is how many messages and payload bytes of the topic's log have not been sent; false where that cannot be told: before the
// first Resume.
func (s *Sub) Lag() (messages, bytes uint64, ok bool) {
	seq := s.seq.Load()
	if seq == 0 {
		return 0, 0, false
	}
	messages, bytes = s.enc.Log().Lag(stream.Cursor{Seq: seq, Cum: s.cum.Load()})
	return messages, bytes, true
}

// Behind reports whether it follows another log than its topic's.
func (s *Sub) Behind() bool { return s.behind.Load() }

// Judged reports whether it waits for a filter.
func (s *Sub) Judged() bool { return s.judged.Load() }

// Cursor is where it stands. Only a Handler, during its turn, may ask.
func (s *Sub) Cursor() stream.Cursor { return s.cur }

// next returns what comes at its cursor.
func (s *Sub) next(limit int) (stream.Chunk, stream.State) {
	if s.cur.Cum >= s.until {
		return stream.Chunk{}, stream.Lost
	}
	return s.read.Next(&s.cur, limit)
}

// moved tells others where it stands.
func (s *Sub) moved() {
	if s.read == s.enc {
		s.seq.Store(s.cur.Seq)
		s.cum.Store(s.cur.Cum)
		return
	}
	s.at.Store(s.cur.Cum)
	if s.seq.Load() != 0 {
		s.seq.Store(s.cur.Seq + s.moves.seq)
		s.cum.Store(s.cur.Cum + s.moves.cum)
	}
}

// wait notes whether it waits for a filter.
func (s *Sub) wait(waits bool) {
	s.waits = waits
	s.judged.Store(waits)
}

// passed is how many of the first n messages of a chunk are sent, and not left out by a filter.
func (s *Sub) passed(chunk *stream.Chunk, n int) uint64 {
	if s.read.Filter() != nil {
		n = chunk.Full(n)
	}
	return uint64(n)
}

// resume takes it to where it goes on.
func (s *Sub) resume(o *op) {
	s.live, s.coming, s.cur, s.read, s.until = true, o.coming, o.cur, o.read, o.until
	s.moves.seq, s.moves.cum = s.seq.Load()-s.cur.Seq, s.cum.Load()-s.cur.Cum
	s.moved()
	if s.read == s.enc {
		s.behind.Store(false)
	}
}

// An op is something that others ask of the goroutine that has the turn.
type op struct {
	sub    *Sub
	kind   opKind
	cur    stream.Cursor
	read   *stream.Encoding
	until  uint64
	coming bool
}

type opKind uint8

const (
	opNone opKind = iota
	opAdd
	opCopy
	opResume
	opStand
	opPlace
	opFeed
	opRemove
)
