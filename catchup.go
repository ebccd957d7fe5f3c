package tailcast

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/follow"
	"github.com/tailcast/tailcast/internal/stream"
)

// A subscription is a connection's interest in a topic: where it stands, and how it gets there.
type subscription struct {
	conn   *Conn
	topic  *topic
	fan    *fanout.Sub
	ctx    context.Context // ends with the subscription
	cancel context.CancelFunc
	back   bool // see start
}

// A start is where a viewer wants to begin.
type start struct {
	since Position // counts unless it is zero
	back  bool     // the viewer has been here: Earliest then means that it has seen nothing yet, and not that it wants all
	tail  int      // of the newest messages; −1 = the hub's backlog
}

// place brings a new subscription to where its viewer wants to begin.
func (s *subscription) place(from start) {
	if from.since != (Position{}) {
		s.back = from.back
		s.resume(from.since)
		return
	}
	n := from.tail
	if n < 0 {
		n = s.conn.hub.cfg.backlog
	}
	s.newest(n, false)
}

// newest begins n messages before the end: those that are in memory, and what is missing from the topic's Replayer, if it
// can go back. A viewer that comes before anything is known of the topic waits for it; what was published meanwhile is new to it.
func (s *subscription) newest(n int, waited bool) {
	cur := s.topic.log.Newest(n)
	if waited {
		cur = s.topic.log.At(1)
	}
	kept, _ := s.topic.log.Lag(cur)
	replayer, known := s.topic.known()
	last, ok := replayer.(lastReplayer)
	switch missing := min(n, follow.MaxBack) - int(kept); {
	case !known && n > 0:
		s.fan.Stand(stream.Position(Earliest()), false)
		if !s.topic.wait(s, start{tail: n}) {
			s.newest(n, false)
		}
	case !ok || missing <= 0:
		s.fan.Resume(cur)
	default:
		s.fan.Stand(cur.Pos, true)
		s.conn.hub.catchups.Add(1)
		s.conn.hub.background(func() {
			defer s.conn.hub.catchups.Add(-1)
			if at, ok := last.lastBefore(s.ctx, s.topic.name, Position(cur.Pos), missing); ok {
				s.catchUp(replayer, at)
			} else {
				s.fan.Resume(cur)
			}
		})
	}
}

// settled is called when something has become known of a topic that the viewer waits for.
func (s *subscription) settled(from start) {
	if from.since != (Position{}) {
		s.resume(from.since)
		return
	}
	s.newest(from.tail, true)
}

// resume brings the viewer to just after the message at from: in the log, or through the topic's Replayer, or else to the
// oldest message that there is, after a gap.
func (s *subscription) resume(from Position) {
	if s.join(from) {
		return
	}
	replayer, known := s.topic.known()
	s.fan.Stand(stream.Position(from), replayer != nil)
	switch {
	case replayer != nil:
		s.conn.hub.catchups.Add(1)
		s.conn.hub.background(func() {
			defer s.conn.hub.catchups.Add(-1)
			s.catchUp(replayer, from)
		})
	case known && from == Earliest():
		s.begin()
	case known:
		s.lost(from)
	case !s.topic.wait(s, start{since: from}):
		s.resume(from) // it has become known in between
	}
}

// begin goes on at the oldest message, and tells a viewer that was here before the topic's first one what it has missed.
func (s *subscription) begin() {
	cur := s.topic.log.Oldest()
	if s.back && cur.Seq > 1 {
		s.declare(&Gap{To: Position(cur.Pos), Count: int64(cur.Seq - 1), Bytes: int64(cur.Cum), Reason: "no longer kept in memory"})
	}
	s.fan.Resume(cur)
}

// join lets the fan-out go on after the message at from, if the log has it.
func (s *subscription) join(from Position) bool {
	cur, ok := s.topic.log.After(stream.Position(from))
	if ok {
		s.fan.Resume(cur)
	}
	return ok
}

// lost declares that nothing is known of what came after from, and goes on with what there is.
func (s *subscription) lost(from Position) {
	cur := s.topic.log.Oldest()
	gap := &Gap{From: from, To: Position(cur.Pos), Count: -1, Bytes: -1, Reason: "the position is no longer known here"}
	s.topic.mu.Lock()
	if s.topic.epoch == from.Epoch && s.topic.numbered == byHub && from.Offset < cur.Seq-1 {
		gap.Count, gap.Reason = int64(cur.Seq-1-from.Offset), "no longer kept in memory"
	}
	s.topic.mu.Unlock()
	s.declare(gap)
	s.fan.Resume(cur)
}

// declare tells the viewer of a gap of its own.
func (s *subscription) declare(gap *Gap) {
	s.conn.hub.count(gap)
	frame := s.conn.format.message(nil, s.topic.name, &Message{Gap: gap})
	if len(frame) > 0 {
		s.fan.Notice(frame, stream.Position(gap.To))
	}
}

// A lagger is the part of fanout.Handler that is the same for all transports.
type lagger struct{}

// Lagged is fanout.Handler's.
func (lagger) Lagged(s *fanout.Sub, cur stream.Cursor) { s.Owner.(*subscription).lagged(cur) }

// lagged is called when the viewer has fallen out of the log.
func (s *subscription) lagged(cur stream.Cursor) {
	if cur.Seq == 1 && cur.Pos == (stream.Position{}) { // it was here before anything was known of the topic
		cur.Pos = s.topic.log.Base()
	}
	if replayer, _ := s.topic.known(); replayer != nil && cur.Pos != (stream.Position{}) {
		s.resume(Position(cur.Pos))
		return
	}
	count, bytes, resume := s.topic.log.Missed(cur)
	gap := &Gap{
		From: Position(cur.Pos), To: Position(resume.Pos), Count: int64(count), Bytes: int64(bytes),
		Reason: "the viewer was too slow",
	}
	if s.conn.format.transport == formatWebSocket.transport {
		// A bare WebSocket has no way to tell this from a message.
		s.conn.hub.count(gap)
		_ = s.conn.Close(&CloseError{Code: 1013, Reason: fmt.Sprintf("too slow: missed %d messages, %d bytes", count, bytes)})
		return
	}
	s.declare(gap)
	s.fan.Resume(resume)
}

// catchUp replays from after from until the log has the message that was replayed last, and hands over to the fan-out there.
// A replay that breaks off goes on after a pause.
func (s *subscription) catchUp(r Replayer, from Position) {
	pause, failed := firstPause, 0
	for s.ctx.Err() == nil {
		c := &catchup{sub: s, last: from}
		err := c.replay(r)
		if failed++; c.last != from {
			from, pause, failed = c.last, firstPause, 0
		}
		var permanent *permanentError
		switch {
		case c.joined, s.ctx.Err() != nil:
			return
		case errors.Is(err, ErrUnknownPosition), errors.As(err, &permanent), failed == maxReplays:
			s.conn.hub.cfg.logger.Error("replay failed", "topic", s.topic.name, "error", err)
			s.lost(from)
			return
		}
		s.conn.hub.cfg.logger.Warn("replay broke off", "topic", s.topic.name, "error", err)
		if !sleep(s.ctx, jitter(pause)) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// maxReplays is how often a replay may fail without a message before it is given up: some 6 s.
const maxReplays = 6

// A batchReplayer replays many messages at a time.
type batchReplayer interface {
	replayBatches(ctx context.Context, topic string, after Position, f func([]Message) error) error
}

// A lastReplayer can go back.
type lastReplayer interface {
	// lastBefore returns the position that at most n messages lie after, up to before; from the zero Position it goes back
	// from the end. It is not ok if there are none.
	lastBefore(ctx context.Context, topic string, before Position, n int) (at Position, ok bool)
}

// A catchup is one run of a replay for one viewer.
type catchup struct {
	sub    *subscription
	last   Position // of the last message that was fed
	joined bool
}

// errJoined ends a replay that has reached the log.
var errJoined = errors.New("joined")

func (c *catchup) replay(r Replayer) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
			c.sub.conn.hub.panics.Add(1)
		}
	}()
	ctx := c.sub.ctx
	if b, ok := r.(batchReplayer); ok {
		return b.replayBatches(ctx, c.sub.topic.name, c.last, c.feed)
	}
	for msg, err := range r.Replay(ctx, c.sub.topic.name, c.last) {
		if err == nil {
			err = c.feed([]Message{msg})
		}
		if err != nil {
			return err
		}
	}
	return errors.New("the replay ended by itself")
}

// feed sends replayed messages and sees whether the log can take over.
func (c *catchup) feed(msgs []Message) error {
	for len(msgs) > 0 {
		n := slices.IndexFunc(msgs, func(m Message) bool { return m.Gap != nil })
		switch {
		case n < 0:
			n = len(msgs)
		case n == 0:
			n = 1
			if c.bridge(msgs[0].Gap) {
				return errJoined
			}
		}
		if err := c.send(msgs[:n]); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	if c.joined = c.sub.join(c.last); c.joined {
		return errJoined
	}
	return nil
}

// bridge is asked before a gap is passed on: what the Replayer can no longer read may be in memory still, all of it or the
// last part.
func (c *catchup) bridge(gap *Gap) bool {
	s := c.sub
	if s.join(c.last) || s.join(gap.From) {
		c.joined = true
		return true
	}
	if _, ok := s.topic.log.After(stream.Position(gap.To)); !ok {
		return false
	}
	cur := s.topic.log.Oldest()
	s.declare(&Gap{
		From: gap.From, To: Position(cur.Pos), Count: -1, Bytes: -1, Possible: gap.Possible, Reason: gap.Reason,
	})
	s.fan.Resume(cur)
	c.joined = true
	return true
}

// send feeds messages to the connection.
func (c *catchup) send(msgs []Message) error {
	s := c.sub
	var (
		bytes []byte
		ends  = make([]uint32, 0, len(msgs))
		pos   = make([]stream.Position, 0, len(msgs))
	)
	for i := range msgs {
		m := &msgs[i]
		if m.Gap != nil {
			s.conn.hub.count(m.Gap)
		}
		bytes = s.conn.format.message(bytes, s.topic.name, m)
		ends = append(ends, uint32(len(bytes)))
		pos = append(pos, stream.Position(m.Pos))
		if m.Pos != (Position{}) {
			c.last = m.Pos
		}
	}
	return s.fan.Feed(s.ctx, stream.NewChunk(bytes, ends, pos))
}

// end is called once, when the subscription is over.
func (s *subscription) end() {
	s.cancel()
	s.topic.forget(s)
	s.fan.Remove()
	s.conn.hub.part(s.topic)
}

// linger is how long an encoding without viewers is kept.
const linger = 30 * time.Second
