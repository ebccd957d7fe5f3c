package tailcast

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/follow"
	"github.com/tailcast/tailcast/internal/stream"
)

// A subscription is a connection's interest in a topic: where it stands, and how it gets there.
type subscription struct {
	conn  *Conn
	topic *topic
	fan   *fanout.Sub
	over  atomic.Bool // it has ended, or is about to
	back  bool        // see start

	user     string     // that arrives has counted; guarded by topic.presence.mu
	departed bool       // guarded by topic.presence.mu
	filter   *filterUse // what its topic's messages pass; nil: everything

	mu       sync.Mutex  // guards the rest; taken before topic.mu, and before the fan-out's
	cancel   func()      // of what context has returned; nil if nothing
	past     *replay     // where it catches up, or waits to
	follows  bool        // it is there: past has come to its place
	from     Position    // its place when it came to past
	entered  uint64      // payload bytes of past's log before that
	line     stream.Line // what it has had of the line in whose middle it is taken from one log to another
	replayed int64       // payload bytes that it has got from replays since it was last in the topic's log
}

// A start is where a viewer wants to begin.
type start struct {
	since Position // counts unless it is zero
	back  bool     // the viewer has been here: Earliest then means that it has seen nothing yet, and not that it wants all
	tail  int      // of the newest messages; −1 = the hub's backlog

	at *stream.Cursor // those were counted before: they begin here
}

// place brings a new subscription to where its viewer wants to begin.
func (s *subscription) place(from start) {
	if from.since != (Position{}) {
		s.back = from.back
		s.resume(from.since)
		return
	}
	s.newest(s.topic.wanted(from), from.at)
}

// wanted is how many of the newest messages a viewer begins with.
func (t *topic) wanted(from start) int {
	if from.tail < 0 {
		return t.cfg.Backlog
	}
	return from.tail
}

// hold settles where a viewer begins that wants the newest messages, before it is told that it is heard: what is published after that
// it gets, and what is published before it is placed as well.
func (t *topic) hold(from *start) {
	if from.since == (Position{}) {
		cur := t.log.Newest(t.wanted(*from))
		from.at = &cur
	}
}

// newest begins n messages before the end: those that are in memory, and what is missing from the topic's Replayer, if it
// can go back. A viewer that comes before anything is known of the topic waits for it; what was published meanwhile is new to it.
// If at is set, the n messages were counted when the log ended at or after it.
func (s *subscription) newest(n int, at *stream.Cursor) {
	cur := s.topic.log.Newest(n)
	if at != nil {
		if cur = *at; cur.Seq == 1 && cur.Pos == (stream.Position{}) { // nothing was known then
			cur.Pos = s.topic.log.Base()
		} // it stays where it is, though the first batch may have been larger than what is kept
	}
	kept, _ := s.topic.log.Lag(cur)
	replayer, known := s.topic.known()
	last, ok := replayer.(lastReplayer)
	switch n := min(n, follow.MaxBack); {
	case !known && n > 0:
		s.fan.Stand(stream.Position(Earliest()), false)
		if !s.topic.wait(s, start{tail: n}) {
			s.newest(n, at)
		}
	case !ok || n <= int(kept):
		s.live(cur)
	default:
		s.fan.Stand(cur.Pos, true)
		s.conn.hub.catchups.Add(1)
		s.conn.hub.host(func() {
			defer s.conn.hub.catchups.Add(-1)
			ctx, cancel := s.context()
			defer cancel()
			if at, ok := last.lastBefore(ctx, s.topic.name, Position(cur.Pos), n, int(kept)); ok {
				s.catchUp(replayer, at, false)
			} else {
				s.live(cur)
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
	s.newest(from.tail, &stream.Cursor{Seq: 1})
}

// resume brings the viewer to just after the message at from: in the log, or through the topic's Replayer, or else to the
// oldest message that there is, after a gap.
func (s *subscription) resume(from Position) { s.resumeFrom(from, false) }

// resumeFrom is resume for a viewer that may be alone: see topic.stand.
func (s *subscription) resumeFrom(from Position, alone bool) {
	if s.join(from) {
		return
	}
	replayer, known := s.topic.known()
	s.fan.Stand(stream.Position(from), replayer != nil)
	switch {
	case replayer != nil:
		s.catchUp(replayer, from, alone)
	case known && from == Earliest():
		s.begin()
	case known:
		s.lost(from, nil)
	case !s.topic.wait(s, start{since: from}):
		s.resume(from) // it has become known in between
	}
}

// live lets the fan-out go on in the topic's log.
func (s *subscription) live(cur stream.Cursor) {
	s.replayed = 0
	s.mu.Lock()
	cur.Line = s.line
	s.mu.Unlock()
	s.fan.Encoding().Continue(&cur)
	s.fan.Resume(cur)
}

// begin goes on at the oldest message, and tells a viewer that was here before the topic's first one what it has missed.
func (s *subscription) begin() {
	cur := s.topic.log.Oldest()
	if s.back && cur.Seq > 1 {
		s.declare(gapNotKept, &Gap{To: Position(cur.Pos), Count: int64(cur.Seq - 1), Bytes: int64(cur.Cum), Reason: "no longer kept in memory"})
	}
	s.live(cur)
}

// join lets the fan-out go on after the message at from, if the log has it.
func (s *subscription) join(from Position) bool {
	cur, ok := s.topic.after(from)
	if ok {
		s.live(cur)
	}
	return ok
}

// lost declares that nothing is known of what came after from, and goes on with what there is. failed is why a replay was given up
// that has come so far, nil if none was.
func (s *subscription) lost(from Position, failed error) {
	gap, cur, why := s.topic.lost(from, failed)
	s.declare(why, gap)
	s.live(cur)
}

// lost returns the gap after from, of which nothing is known, and where what there is begins. See subscription.lost.
func (t *topic) lost(from Position, failed error) (*Gap, stream.Cursor, gapReason) {
	cur, why := t.log.Oldest(), gapUnknown
	if failed != nil && !errors.Is(failed, ErrUnknownPosition) {
		why = gapReplayFailed
	}
	gap := &Gap{From: from, To: Position(cur.Pos), Count: -1, Bytes: -1, Reason: "the position is no longer known here"}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.epoch.Load() == from.Epoch && t.numbered == byHub && from.Offset < cur.Seq-1 {
		gap.Count, gap.Reason, why = int64(cur.Seq-1-from.Offset), "no longer kept in memory", gapNotKept
	}
	return gap, cur, why
}

func (s *subscription) setLine(l stream.Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = l
}

// declare tells the viewer of a gap of its own.
func (s *subscription) declare(why gapReason, gap *Gap) {
	s.setLine(stream.Whole)
	s.conn.hub.countGap(why)
	frame := s.conn.format.message(nil, s.topic.name, &Message{Gap: gap})
	if len(frame) > 0 {
		s.fan.Notice(frame, stream.Position(gap.To))
	}
}

// A lagger is the part of fanout.Handler that is the same for all transports.
type lagger struct{}

// Lagged is fanout.Handler's.
func (lagger) Lagged(s *fanout.Sub, cur stream.Cursor) { s.Owner.(*subscription).lagged(cur) }

// lagged is called when the viewer has fallen out of the log that it follows, or that has ended.
func (s *subscription) lagged(cur stream.Cursor) {
	p := s.leave()
	s.setLine(cur.Line)
	if p != nil {
		s.onward(p, cur)
		return
	}
	if cur.Seq == 1 && cur.Pos == (stream.Position{}) { // it was here before anything was known of the topic
		cur.Pos = s.topic.log.Base()
	}
	replayer, _ := s.topic.known()
	if replayer != nil && cur.Pos != (stream.Position{}) && s.topic.cfg.Lag == LagCatchUp {
		s.resume(Position(cur.Pos))
		return
	}
	count, bytes, resume := s.topic.log.Missed(cur)
	s.skip(gapTooSlow, &Gap{
		From: Position(cur.Pos), To: Position(resume.Pos), Count: int64(count), Bytes: int64(bytes),
		Reason: "the viewer was too slow",
	}, resume)
}

// skip goes on at cur after a gap; or it closes the connection, if that is the policy, or that of a viewer which cannot be told.
func (s *subscription) skip(why gapReason, gap *Gap, cur stream.Cursor) {
	policy := s.topic.cfg.Lag
	mute := s.conn.format.transport == formatWebSocket.transport // a bare WebSocket has no way to tell this from a message
	if policy == LagClose || policy == LagCatchUp && mute {
		s.conn.hub.countGap(why)
		s.conn.end(endTooSlow, &CloseError{Code: 1013, Reason: tooSlow(gap)})
		return
	}
	s.declare(why, gap)
	s.live(cur)
}

func tooSlow(gap *Gap) string {
	if gap.Count < 0 {
		return "too slow: " + gap.Reason
	}
	return fmt.Sprintf("too slow: missed %d messages, %d bytes", gap.Count, gap.Bytes)
}

// catchUp lets the viewer follow a replay, or wait for one to come to its place.
func (s *subscription) catchUp(r Replayer, from Position, alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended() { // it has ended meanwhile, and leave was called
		return
	}
	s.conn.hub.catchups.Add(1)
	s.from = from
	p, cur, here := s.topic.stand(s, s.conn.hub, r, from, alone)
	if s.past = p; here {
		s.follow(cur)
	}
}

// arrive lets it follow a replay that has come to its place.
func (s *subscription) arrive(p *replay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.past != p {
		return
	}
	if cur, ok := p.log.After(stream.Position(s.from)); ok {
		s.follow(cur)
	} else { // it is so tight in memory that what came after is gone already
		s.follow(stream.Cursor{Pos: stream.Position(s.from)})
	}
}

// A lastReplayer can go back.
type lastReplayer interface {
	// lastBefore returns a position before the given one, so that those who go on there get at least n messages, of which have
	// come after before, or fewer if that is all there is. From the zero Position it goes back from the end. It is not ok if it
	// does not go back.
	lastBefore(ctx context.Context, topic string, before Position, n, have int) (at Position, ok bool)
}

// follow lets it follow s.past; mu is held.
func (s *subscription) follow(cur stream.Cursor) {
	s.follows, s.entered = true, cur.Cum
	most := s.conn.hub.cfg.limits.ReplayBytes
	if most < 0 {
		most = unbounded
	}
	enc := s.encoding(s.past.log, s.past.fan)
	cur.Line = s.line
	enc.Continue(&cur)
	s.fan.Follow(s.past.fan, enc, cur, cur.Cum+uint64(max(most-s.replayed, 0)))
}

// disappoint is called when a replay that it has waited for is not going to come to its place.
func (s *subscription) disappoint(p *replay) {
	s.mu.Lock()
	if s.past != p || s.follows {
		s.mu.Unlock()
		return
	}
	s.leaveLocked()
	s.mu.Unlock()
	s.resumeFrom(s.from, true)
}

// leave takes it out of the replay that it follows, and returns that.
func (s *subscription) leave() *replay {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaveLocked()
}

func (s *subscription) leaveLocked() *replay {
	p := s.past
	if p == nil {
		return nil
	}
	s.past = nil
	if s.follows {
		s.follows = false
		s.fan.Leave()
	}
	p.part(s, s.from)
	s.conn.hub.catchups.Add(-1)
	return p
}

// onward is called when the replay that it has followed has no more for it: where the topic's log takes over, where it was given
// up, or because it was too slow.
func (s *subscription) onward(p *replay, cur stream.Cursor) {
	end, exit, err := p.exitAt(cur)
	s.replayed += int64(cur.Cum - min(s.entered, cur.Cum))
	from := Position(cur.Pos)
	switch first, _ := s.topic.log.Bounds(); {
	case end && err != nil:
		s.lost(from, err)
	case exit.Seq >= first:
		s.live(exit)
	case exit.Pos != (stream.Position{}):
		s.resume(Position(exit.Pos))
	case s.conn.hub.cfg.limits.ReplayBytes >= 0 && s.replayed >= s.conn.hub.cfg.limits.ReplayBytes && !s.join(from):
		cur := s.topic.log.Oldest()
		s.skip(gapReplayLimit, &Gap{From: from, To: Position(cur.Pos), Count: -1, Bytes: -1, Reason: "more of the past than a client may read at a time"}, cur)
	default:
		s.resume(from)
	}
}

// exitAt reports whether cur is the end of what the replay has read for good, and then where the topic's log takes over (zero if
// it does not), or why it was given up.
func (p *replay) exitAt(cur stream.Cursor) (end bool, exit stream.Cursor, err error) {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	if _, next := p.log.Bounds(); !p.ended || cur.Seq != next {
		return false, stream.Cursor{}, nil
	}
	if p.joined {
		exit = p.exit
	}
	return true, exit, p.err
}

// end is called once, when the subscription is over.
func (s *subscription) end() {
	s.over.Store(true)
	s.cancelContext()
	s.leave()
	s.topic.forget(s)
	s.fan.Remove()
	s.dropFilter()
	s.departs()
	s.conn.hub.part(s.topic)
}

// ended reports whether it is over, or its connection is ending.
func (s *subscription) ended() bool { return s.over.Load() || s.conn.ctx.Err() != nil }

// context returns one that ends with the subscription. Few need it, and not for long.
func (s *subscription) context() (context.Context, context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithCancel(s.conn.ctx)
	if s.over.Load() {
		cancel()
	}
	s.cancel = cancel
	return ctx, cancel
}

func (s *subscription) cancelContext() {
	s.mu.Lock()
	cancel := s.cancel
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// encodingLinger is how long an encoding without viewers is kept.
const encodingLinger = 30 * time.Second
