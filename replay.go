package tailcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
)

// A replay reads a stretch of a topic's past, from its Replayer into a log of its own, for all viewers that stand in it: they
// follow that log as they follow the topic's, so what is read and encoded for one of them is there for the others. Where it
// reaches what the topic's log has, it ends; its viewers go over when they get there.
//
// The log keeps replayBytes. A viewer that is further behind than that needs another replay.
type replay struct {
	topic  *topic
	hub    *Hub
	source Replayer
	log    *stream.Log
	fan    *fanout.Topic
	ctx    context.Context
	cancel context.CancelFunc // when nobody is left

	// The reader's own.
	paced    uint64 // Bytes of the log when pace last looked
	patience patience
	opened   time.Time // when its first turn began
	gathered bool      // see gather
	turn     uint64    // Bytes of the log when its turn began
	stint    stint
	leaving  uint64 // the epoch before a gap that it has passed on; 0 if another one has begun since, or there was none; as last

	// Guarded by topic.mu.
	life    int      // topic.lives when it began
	begun   bool     // start is settled
	start   Position // where it begins
	last    Position // of the last message that was read
	viewers int
	expect  map[Position][]follower // of these, those whose place has not been read yet
	until   uint64                  // Bytes of the log by which it must have been
	ended   bool                    // nothing more will be read
	joined  bool                    // at its end, the topic's log goes on at exit
	exit    stream.Cursor
	err     error // why it was given up
}

const (
	// replayBytes is how much payload a replay's log keeps for those who are behind the one that has come furthest.
	replayBytes = 4 << 20
	// replayAhead is how far it reads ahead of that one.
	replayAhead = 1 << 20
	// replayNear is how far a viewer may be from a replay to wait for it, in payload, and in positions: bytes of a file.
	replayNear = replayBytes
	// replayReach is how far behind another replay may be, in positions, to be waited for.
	replayReach = 16 * replayNear
	// gatherTime is how long a replay waits for others that have fallen out of the log at the same moment.
	gatherTime = 5 * time.Millisecond
	// restTime is how long a replay whose viewers all stand still keeps its Replayer.
	restTime = 5 * time.Second
	// maxTries is how often a replay may fail without a message before it is given up: some 6 s.
	maxTries = 6
)

var (
	errJoined = errors.New("joined")       // ends a replay that has reached a log
	errTurn   = errors.New("others' turn") // ends one that others wait for
	errRest   = errors.New("nobody reads") // ends one whose viewers stand still
	errEnded  = errors.New("the replay ended by itself")
)

// A follower is a viewer of a replay. Its methods are called without a lock.
type follower interface {
	arrive(p *replay)     // p has come to its place
	disappoint(p *replay) // p is not going to, if it has not come there
}

// A batchReplayer replays many messages at a time.
type batchReplayer interface {
	replayBatches(ctx context.Context, topic string, after Position, f func([]Message) error) error
}

// stand finds the replay for a viewer that goes on after from, or starts it. If that has been read already, the viewer's place
// is at the cursor; if not, the viewer is expected. A viewer that is alone waits for nobody.
func (t *topic) stand(s follower, h *Hub, r Replayer, from Position, alone bool) (p *replay, cur stream.Cursor, here bool) {
	started := false
	defer func() {
		if started { // not with topic.mu: the hub's comes first
			p.hub.host(p.run)
		}
	}()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.replays {
		if cur, ok := p.has(from); ok {
			p.viewers++
			return p, cur, true
		}
	}
	for _, p := range t.replays {
		if !alone && p.nears(from) {
			p.await(s, from)
			return p, stream.Cursor{}, false
		}
	}
	p = newReplay(h, t, r, from)
	if t.replayer != nil {
		p.source = t.replayer
	} else { // it has gone since s has asked for it: see succeed
		p.cancel()
	}
	t.replays = append(t.replays, p)
	if alone {
		cur = p.begin()
		p.viewers++
	} else {
		p.await(s, from)
	}
	started = true
	return p, cur, alone
}

func newReplay(h *Hub, t *topic, r Replayer, from Position) *replay {
	p := &replay{topic: t, hub: h, source: r, life: t.lives, start: from, expect: make(map[Position][]follower)}
	p.log = stream.NewLog(stream.Retention{Bytes: replayBytes}, h.budget)
	p.log.Spare(4)
	p.fan = h.pool.NewTopic(stream.Retention{})
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.stint.turns, p.stint.quiet = &h.turns, p.quiet
	return p
}

// has returns where somebody goes on who has seen the message at from, if this replay has what comes after it; topic.mu is held.
func (p *replay) has(from Position) (stream.Cursor, bool) {
	if !p.begun || p.err != nil || p.life != p.topic.lives {
		return stream.Cursor{}, false
	}
	if p.ended && from == p.last { // what comes then, if anything, are gaps without a position, and whoever has had them is still at from
		return stream.Cursor{}, false
	}
	return p.log.After(stream.Position(from))
}

// nears reports whether the replay can be expected to come to from soon, and makes one that has not begun begin there if that
// is the earlier place. The order of positions is only guessed at: where the guess is wrong, await ends. topic.mu is held.
func (p *replay) nears(from Position) bool {
	if p.ended || p.life != p.topic.lives {
		return false
	}
	at := p.start
	if p.begun {
		at = p.last
	}
	switch {
	case at == from:
		return !p.begun
	case at.Epoch != from.Epoch || at.Epoch == 0:
		return false
	case at.Offset < from.Offset:
		return from.Offset-at.Offset <= replayNear
	case p.begun || at.Offset-from.Offset > replayNear:
		return false
	}
	p.start = from
	return true
}

// await makes s one of those who are there as soon as the message at from has been read; topic.mu is held.
func (p *replay) await(s follower, from Position) {
	p.viewers++
	p.expect[from] = append(p.expect[from], s)
	p.until = p.log.Bytes() + replayNear
}

// part takes back a stand.
func (p *replay) part(s follower, from Position) {
	t := p.topic
	t.mu.Lock()
	if list := p.expect[from]; slices.Contains(list, s) {
		if list = slices.DeleteFunc(list, func(o follower) bool { return o == s }); len(list) > 0 {
			p.expect[from] = list
		} else {
			delete(p.expect, from)
		}
	}
	p.viewers--
	left, ended := p.viewers == 0, p.ended
	if left {
		t.replays = slices.DeleteFunc(t.replays, func(o *replay) bool { return o == p })
	}
	t.mu.Unlock()
	if left {
		p.cancel()
	}
	if left && ended {
		p.hub.budget.Remove(p.log)
	}
}

// begin settles where it begins; topic.mu is held.
func (p *replay) begin() stream.Cursor {
	p.begun, p.last = true, p.start
	p.log.SetBase(stream.Position(p.start))
	return p.log.Oldest()
}

// run reads until the log has what comes next, nobody is left, others wait for their turn, or it fails for good.
func (p *replay) run() {
	p.read()
	t := p.topic
	t.mu.Lock()
	p.ended = true
	left := p.viewers == 0
	var expected []follower
	for _, list := range p.expect {
		expected = append(expected, list...)
	}
	t.mu.Unlock()
	p.log.Close() // not before ended is set: those who find the end ask for that
	p.fan.Wake()
	for _, s := range expected {
		s.disappoint(p)
	}
	if left {
		p.hub.budget.Remove(p.log)
	}
}

func (p *replay) read() {
	if !sleep(p.ctx, gatherTime) {
		return
	}
	pause, failed := firstPause, 0
	for p.stint.begin(p.ctx) {
		p.open()
		from := p.last
		err := p.once()
		p.stint.end()
		if failed++; p.last != from || errors.Is(err, ErrBackplane) {
			pause, failed = firstPause, 0
		}
		var permanent *permanentError
		switch {
		case p.ctx.Err() != nil, err == errJoined, err == errTurn, err == errRest:
			return
		case errors.Is(err, ErrUnknownPosition), errors.As(err, &permanent), failed == maxTries:
			if errors.Is(err, ErrUnknownPosition) { // any client can ask for one
				p.logReplay(slog.LevelDebug, logReplayUnknown, err)
			} else {
				p.logReplay(slog.LevelError, logReplayFailed, err)
			}
			p.topic.mu.Lock()
			p.err = err
			p.topic.mu.Unlock()
			return
		}
		p.logReplay(slog.LevelWarn, logReplayBrokeOff, err)
		if !sleep(p.ctx, jitter(pause)) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// open begins, unless it has begun, with those who wait for its first message.
func (p *replay) open() {
	p.topic.mu.Lock()
	if !p.begun {
		p.begin()
	}
	here := p.takeExpected(p.start)
	p.topic.mu.Unlock()
	arrive(here, p)
	p.turn = p.log.Bytes()
	if p.opened.IsZero() {
		p.opened = time.Now()
	}
}

// takeExpected returns those whose place is after the message at pos; topic.mu is held.
func (p *replay) takeExpected(pos Position) []follower {
	here := p.expect[pos]
	delete(p.expect, pos)
	return here
}

func arrive(viewers []follower, p *replay) {
	for _, s := range viewers {
		s.arrive(p)
	}
}

// once is one run of the Replayer.
func (p *replay) once() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
			p.hub.panics.Add(1)
		}
	}()
	if p.joins() {
		return errJoined
	}
	if b, ok := p.source.(planeReplayer); ok {
		return b.read(p.ctx, p.topic.name, p.last, p)
	}
	if b, ok := p.source.(batchReplayer); ok {
		return b.replayBatches(p.ctx, p.topic.name, p.last, p.add)
	}
	var one [1]Message
	for msg, err := range p.source.Replay(p.ctx, p.topic.name, p.last) {
		if err == nil {
			one[0] = msg
			err = p.add(one[:])
		}
		if err != nil {
			return err
		}
	}
	return errEnded
}

// add takes messages that were read, and sees whether another log can take over.
func (p *replay) add(msgs []Message) error {
	if !p.stint.work(p.ctx) {
		return context.Cause(p.ctx)
	}
	defer p.stint.rest()
	if p.joins() { // what comes now has come to that log before
		return errJoined
	}
	for len(msgs) > 0 {
		n := slices.IndexFunc(msgs, func(m Message) bool { return m.Gap != nil })
		switch {
		case n < 0:
			n = len(msgs)
		case n == 0:
			n = 1
			if p.bridges(msgs[0].Gap) {
				return errJoined
			}
			p.leaving = p.last.Epoch
		}
		if err := p.append(msgs[:n]); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	if p.joins() {
		return errJoined
	}
	return p.pace()
}

// append adds messages to the log, and lets in those who have waited for them.
func (p *replay) append(msgs []Message) error {
	for i := range msgs {
		if err := p.check(&msgs[i]); err != nil {
			return Permanent(err)
		}
	}
	a := p.log.Begin()
	for i := range msgs {
		m := &msgs[i]
		if p.topic.plane != nil {
			a.From = p.topic.plane.author(m)
		}
		pos, nanos := m.Pos, int64(0)
		if !m.Time.IsZero() {
			nanos = m.Time.UnixNano()
		}
		if m.Gap == nil {
			a.Add(stream.Position(pos), nanos, m.flags(), m.Data)
			continue
		}
		p.hub.countGap(gapReplayer)
		if pos == (Position{}) {
			pos = m.Gap.To // from where one gets what comes after it
		}
		a.Add(stream.Position(pos), nanos, m.flags(), m.Gap.wire().AppendBinary(nil))
	}
	a.End(time.Now())
	p.fan.Wake()
	here, gone := p.note(msgs)
	arrive(here, p)
	for _, s := range gone {
		s.disappoint(p)
	}
	return nil
}

// check reports what is wrong with a message: it could not have been published.
func (p *replay) check(m *Message) error {
	if m.Gap == nil && m.Pos == (Position{}) {
		return fmt.Errorf("%w: a replayed message needs a position", ErrMessage)
	}
	return p.hub.checkContent(m)
}

// note notes how far it has read, and returns those who have waited for that, and those who wait for what is not going to come.
func (p *replay) note(msgs []Message) (here, gone []follower) {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	for i := range msgs {
		pos := msgs[i].Pos
		if g := msgs[i].Gap; g != nil && pos == (Position{}) {
			pos = g.To
		}
		if pos == (Position{}) {
			continue
		}
		p.last = pos
		if len(p.expect) > 0 {
			here = append(here, p.takeExpected(pos)...)
		}
	}
	if p.leaving != 0 && p.leaving != p.last.Epoch { // a gap, and another epoch behind it
		for pos := range p.expect {
			if pos.Epoch == p.leaving {
				gone = append(gone, p.takeExpected(pos)...)
			}
		}
		p.leaving = 0
	}
	return here, gone
}

// joins reports whether the topic's log, or another replay's, goes on after what was read last.
func (p *replay) joins() bool {
	if p.reached(p.last) {
		return true
	}
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	for _, o := range p.topic.replays {
		if o == p {
			continue
		}
		if cur, ok := o.has(p.last); ok {
			if _, next := o.log.Bounds(); cur.Seq < next {
				return true
			}
		}
	}
	return false
}

// reached reports whether the topic's log goes on behind a place up to which nothing is left to read.
func (p *replay) reached(at Position) bool {
	cur, ok := p.topic.after(at)
	if ok {
		p.leaveAt(cur)
	}
	return ok
}

// leaveAt says where the topic's log goes on.
func (p *replay) leaveAt(cur stream.Cursor) {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	p.joined, p.exit = true, cur
}

// bridges is asked before a gap is passed on: what the Replayer can no longer read may be in memory still, all of it or the last
// part.
func (p *replay) bridges(gap *Gap) bool {
	live := p.topic.log
	for _, pos := range []Position{p.last, gap.From} {
		if cur, ok := p.topic.after(pos); ok {
			p.leaveAt(cur)
			return true
		}
	}
	if _, ok := p.topic.after(gap.To); !ok {
		return false
	}
	cur := live.Oldest()
	_ = p.append([]Message{{Gap: &Gap{
		From: gap.From, To: Position(cur.Pos), Count: -1, Bytes: -1, Possible: gap.Possible, Reason: gap.Reason,
	}}})
	p.leaveAt(cur)
	return true
}

// pace holds the reader back: a little, until most of its viewers have what is about to go from the log; and for as long as it
// is well ahead of all.
func (p *replay) pace() error {
	const look = 64 << 10
	end := p.log.Bytes()
	if end-p.paced < look {
		return nil
	}
	p.paced = end
	if err := p.disappoint(end); err != nil {
		return err
	}
	p.gather(end)
	p.wait(end)
	return p.stayNear(end)
}

// gather waits, once, before the beginning goes from the log: viewers that come back together, as after a restart, come within
// some 100 ms, and each that still finds the beginning needs no replay of its own.
func (p *replay) gather(end uint64) {
	if p.gathered || end < replayBytes-replayAhead {
		return
	}
	p.gathered = true
	if left := pacePause - time.Since(p.opened); left > 0 && !p.hub.turns.waiting() {
		sleep(p.ctx, left)
	}
}

// wait holds the reader back for those who are about to need another replay, and for replays close behind, so that what is read
// is read for all: the longer the more of the viewers that is.
func (p *replay) wait(end uint64) {
	p.patience.wait(p.ctx, func() time.Duration {
		trailing, all := p.fan.Trailing(end, replayBytes/2)
		behind := p.topic.chasing(p.last, p)
		trailing, all = trailing+behind, all+behind
		if all == 0 {
			return 0
		}
		return min(pacePause, pacePause*time.Duration(2*trailing)/time.Duration(all))
	})
}

// chasing counts the moving viewers of the replays, but for one, that are behind at, and not far.
func (t *topic) chasing(at Position, but *replay) (viewers int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.replays {
		if p == but || !p.begun || p.ended || p.last.Epoch != at.Epoch || p.last.Offset >= at.Offset || at.Offset-p.last.Offset > replayReach {
			continue
		}
		n, _ := p.fan.Trailing(math.MaxUint64, 0)
		viewers += n
	}
	return viewers
}

// disappoint ends the wait for those whose place should have been read by now.
func (p *replay) disappoint(end uint64) error {
	p.disappointAll(func() bool { return end > p.until })
	return p.ctx.Err()
}

// disappointAll ends the wait for all, if that is so; it is asked with topic.mu held.
func (p *replay) disappointAll(late func() bool) {
	var gone []follower
	p.topic.mu.Lock()
	if late() {
		for pos := range p.expect {
			gone = append(gone, p.takeExpected(pos)...)
		}
	}
	p.topic.mu.Unlock()
	for _, s := range gone {
		s.disappoint(p)
	}
}

// quiet is called now and then while the Replayer has nothing to yield, as one that reads from another server and stands at its head:
// then what somebody waits for may not be there, and what was read last may have come to the topic's log since.
func (p *replay) quiet() {
	p.disappointAll(func() bool { return true })
	p.topic.mu.Lock()
	last := p.last
	p.topic.mu.Unlock()
	if cur, ok := p.topic.log.After(stream.Position(last)); ok {
		p.leaveAt(cur)
		p.cancel()
	}
}

// stayNear waits while all viewers have enough to read.
func (p *replay) stayNear(end uint64) error {
	began, step := time.Now(), shortStep
	for p.ctx.Err() == nil {
		front, ok := p.fan.Front()
		others := p.hub.turns.waiting()
		switch {
		case others && end-p.turn > replayBytes:
			return errTurn
		case !ok || end-min(front, end) < replayAhead || p.expects():
			return nil
		case others && end-p.turn > replayAhead/2:
			return errTurn
		case time.Since(began) > restTime:
			return errRest
		}
		sleep(p.ctx, step)
		step = min(2*step, longStep)
	}
	return context.Cause(p.ctx)
}

func (p *replay) expects() bool {
	p.topic.mu.Lock()
	defer p.topic.mu.Unlock()
	return len(p.expect) > 0
}

// forgetReplays lets go of what was read for viewers that stand still: they need a replay of their own when they go on.
func (t *topic) forgetReplays(b *stream.Budget) {
	t.mu.Lock()
	var idle []*replay
	t.replays = slices.DeleteFunc(t.replays, func(p *replay) bool {
		if !p.ended || p.fan.Moved() {
			return false
		}
		idle = append(idle, p)
		return true
	})
	t.mu.Unlock()
	for _, p := range idle {
		b.Remove(p.log)
	}
}

func (t *topic) allReplays() []*replay {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.replays)
}

// Turns bound how many replays read at the same time. The others wait, first come, first served.
type turns struct {
	mu    sync.Mutex
	free  int
	queue []chan struct{}
}

// take waits for a turn; false if ctx is done first.
func (t *turns) take(ctx context.Context) bool {
	t.mu.Lock()
	if ctx.Err() != nil {
		t.mu.Unlock()
		return false
	}
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return true
	}
	mine := make(chan struct{})
	t.queue = append(t.queue, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return true
	case <-ctx.Done():
	}
	t.mu.Lock()
	n := len(t.queue)
	t.queue = slices.DeleteFunc(t.queue, func(o chan struct{}) bool { return o == mine })
	mineAlready := len(t.queue) == n
	t.mu.Unlock()
	if mineAlready {
		t.give()
	}
	return false
}

// give gives a turn back, or to the one that has waited longest.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.queue) == 0 {
		t.free++
		return
	}
	close(t.queue[0])
	t.queue = t.queue[1:]
}

func (t *turns) waiting() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue) > 0
}

// A stint is a replay's turn. It is lent to others while the Replayer has nothing to yield: one that waits for what it reads from, such
// as another server, would hold up all topics of the hub.
type stint struct {
	turns *turns
	quiet func() // called while there is nothing

	mu      sync.Mutex // guards the rest; taken before that of turns, and of topics
	open    bool       // between begin and end
	held    bool
	working bool // what was yielded is being looked at
	timer   *time.Timer
}

// lendAfter is how long a Replayer may have nothing to yield before its turn is lent.
const lendAfter = time.Second

// begin waits for a turn; false if ctx is done first.
func (s *stint) begin(ctx context.Context) bool {
	if !s.work(ctx) {
		return false
	}
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	s.rest()
	return true
}

// work waits for the turn, if it has been lent; false if ctx is done, or is first.
func (s *stint) work(ctx context.Context) bool {
	s.mu.Lock()
	s.working = true
	if s.timer != nil {
		s.timer.Stop()
	}
	held := s.held
	s.mu.Unlock()
	if held {
		return ctx.Err() == nil
	}
	if !s.turns.take(ctx) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
	return true
}

// rest says that the Replayer is to yield what comes next.
func (s *stint) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working = false
	if s.timer == nil {
		s.timer = time.AfterFunc(lendAfter, s.lend)
	} else {
		s.timer.Reset(lendAfter)
	}
}

func (s *stint) lend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open || s.working {
		return
	}
	s.quiet()
	if s.held && s.turns.waiting() {
		s.held = false
		s.turns.give()
	}
	s.timer.Reset(lendAfter)
}

// end gives the turn back.
func (s *stint) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.working, s.open = false, false
	s.timer.Stop()
	if s.held {
		s.held = false
		s.turns.give()
	}
}

// unbounded is more than anything that is counted in bytes.
const unbounded = math.MaxInt64
