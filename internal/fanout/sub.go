package fanout

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

// A Sub is one connection's subscription to one topic. It rests until Resume: then the fan-out sends what comes at its
// cursor, until the log no longer has it; then it rests again, and the Handler says how it goes on.
type Sub struct {
	Name  string // of the topic
	Owner any    // whatever the hub keeps beside it

	conn  *Conn
	topic *Topic
	enc   *stream.Encoding
	index int // in its shard, guarded by shard.mu

	// Touched only by whoever has the connection's turn.
	live   bool
	gone   bool
	coming bool // it rests, and is being fed
	cur    stream.Cursor

	// The cursor as the last turn left it, for others to read.
	seq, cum atomic.Uint64

	pending stream.Chunk  // fed, and not yet taken; guarded by conn.mu
	removed bool          // nothing is fed any more; guarded by conn.mu
	free    chan struct{} // a token when pending has been taken
}

// Subscribe adds a resting subscription.
func (c *Conn) Subscribe(name string, t *Topic, enc *stream.Encoding, owner any) *Sub {
	s := &Sub{Name: name, Owner: owner, conn: c, topic: t, enc: enc, free: make(chan struct{}, 1)}
	c.request(op{sub: s, kind: opAdd})
	t.shards[c.shard].add(s)
	return s
}

// Conn returns the connection that it belongs to.
func (s *Sub) Conn() *Conn { return s.conn }

// Encoding returns what it reads.
func (s *Sub) Encoding() *stream.Encoding { return s.enc }

// Resume lets the fan-out go on at cur.
func (s *Sub) Resume(cur stream.Cursor) {
	s.conn.request(op{sub: s, kind: opResume, cur: cur})
}

// Stand says which position the viewer of a subscription that rests has seen, and whether more is coming through Feed.
func (s *Sub) Stand(pos stream.Position, coming bool) {
	s.conn.request(op{sub: s, kind: opStand, cur: stream.Cursor{Pos: pos}, coming: coming})
}

// TellPlace has Handler.Place tell the viewer where it stands, behind all that was asked for the subscription before.
func (s *Sub) TellPlace() { s.conn.request(op{sub: s, kind: opPlace}) }

// Feed queues messages that do not come from the log, and waits while a turn's worth of them is queued. They belong to the
// connection from then on.
func (s *Sub) Feed(ctx context.Context, chunk stream.Chunk) error {
	select { // what was asked before Release goes first
	case <-s.conn.released:
	case <-s.conn.done:
		return s.conn.ended()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for !s.offer(chunk, turnBytes) {
		select {
		case <-s.free:
		case <-s.conn.done:
			return s.conn.ended()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Notice is Feed for one frame, such as a declared loss, after which the viewer stands at pos (zero: where it stood). It
// does not wait.
func (s *Sub) Notice(frame []byte, pos stream.Position) {
	s.offer(stream.NewChunk(frame, []uint32{uint32(len(frame))}, []stream.Position{pos}), math.MaxInt)
}

// offer queues chunk behind what is pending, unless that makes more than limit.
func (s *Sub) offer(chunk stream.Chunk, limit int) bool {
	c := s.conn
	c.mu.Lock()
	if c.isDone() {
		c.mu.Unlock()
		return limit == math.MaxInt // nobody will take it: Feed finds out why
	}
	if s.removed {
		c.mu.Unlock()
		return true
	}
	first := s.pending.Len() == 0
	if !first && limit != math.MaxInt && (len(s.pending.Bytes)+len(chunk.Bytes) > limit || !c.pool.cfg.Budget.Room(len(chunk.Bytes))) {
		c.mu.Unlock()
		return false
	}
	s.pending.Append(chunk)
	if first {
		c.ops = append(c.ops, op{sub: s, kind: opFeed})
	}
	c.urgent.Store(true)
	c.mu.Unlock()
	c.pool.cfg.Budget.Use(int64(len(chunk.Bytes)))
	c.Wake()
	return true
}

// Remove ends the subscription. Nothing of it is sent after what is asked of the connection from now on.
func (s *Sub) Remove() {
	s.detach()
	c := s.conn
	c.mu.Lock()
	s.removed = true
	fed := int64(len(s.pending.Bytes))
	s.pending = stream.Chunk{}
	c.mu.Unlock()
	c.pool.cfg.Budget.Use(-fed)
	c.request(op{sub: s, kind: opRemove})
}

// detach takes it out of its topic; it is called once.
func (s *Sub) detach() {
	s.topic.shards[s.conn.shard].remove(s)
	s.enc.Leave(time.Now())
}

// Lag is how many messages and payload bytes of the log have not been sent; false before the first Resume.
func (s *Sub) Lag() (messages, bytes uint64, ok bool) {
	seq := s.seq.Load()
	if seq == 0 {
		return 0, 0, false
	}
	messages, bytes = s.enc.Log().Lag(stream.Cursor{Seq: seq, Cum: s.cum.Load()})
	return messages, bytes, true
}

// Cursor is where it stands. Only a Handler, during its turn, may ask.
func (s *Sub) Cursor() stream.Cursor { return s.cur }

func (s *Sub) moved() {
	s.seq.Store(s.cur.Seq)
	s.cum.Store(s.cur.Cum)
}

// An op is something that others ask of the goroutine that has the turn.
type op struct {
	sub    *Sub
	kind   opKind
	cur    stream.Cursor
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
