package tailcast

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
)

// Subscribe lets the program itself watch a topic, from just after the message at from. The zero Position stands for "from now
// on": the place is fixed when a loop over the result begins, not when Subscribe is called. Earliest() stands for all that can
// still be had. Loops over one result are independent of each other, and each begins at from.
//
// Each message comes once, in the order of the topic, and the loop then waits for the next one. What memory does not have comes
// from the topic's Replayer, as for viewers who come back, and is shared with them. What cannot be had is declared by a Message
// with Gap at its place. The Pos of each message, also of one with Gap, is where another Subscribe goes on after it. (Where it is not
// known which position a gap leads to, that is the one before it, and the gap comes again.)
//
// The body may take its time: nothing waits for it, and a loop holds one place in the log and no queue. When the log has dropped
// what comes next, it catches up through the Replayer, or gets a Gap. WithLagPolicy and Limits.ReplayBytes are for clients, and
// change nothing here.
//
// A message's Data is shared with others: it must not be changed. It stays as it is for as long as the program keeps it; but it
// keeps up to 64 KiB around it in memory, so bytes.Clone what is to be kept for long.
//
// Breaking off the loop, or a panic in it, unsubscribes at once. An error comes once and last, when everything has been
// released: the cause of ctx; what matches ErrTopicName; or ErrClosed after Shutdown, when all that was published before has
// come, and after Close. Shutdown waits for that as long as its context allows. So a body must not call it with a context that
// does not end. It may call everything else, Subscribe and Close included, and hooks may call Subscribe.
//
// WithAuthorize is not asked. The topic need not exist: until something is known of it, a loop from a Position waits.
func (h *Hub) Subscribe(ctx context.Context, topic string, from Position) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		err := h.watch(ctx, topic, from, func(m Message) bool { return yield(m, nil) })
		if err != nil {
			yield(Message{}, fmt.Errorf("tailcast: subscribe: %w", err))
		}
	}
}

// A loop is one that ranges over what Subscribe has returned: a cursor in the topic's log, or in that of a replay.
type loop struct {
	hub     *Hub
	topic   *topic
	ctx     context.Context
	yield   func(Message) bool
	watcher *fanout.Watcher // of what it reads; moved and stopped with mu
	cut     chan struct{}   // closed by cutOff

	// Touched only by the goroutine of the loop.
	cur stream.Cursor
	at  *replay // what cur stands in; nil for the topic's log

	mu     sync.Mutex // guards the rest; taken before Hub.mu and topic.mu
	isCut  bool
	past   *replay // where it catches up, or waits to
	state  standing
	from   Position      // its place when it came to past
	landed stream.Cursor // its place in past
}

// standing is how a loop stands to the replay that it has found.
type standing uint8

const (
	waits     standing = iota // for the replay to come to its place
	follows                   // the replay has
	abandoned                 // the replay is not going to
)

// errBroken says that the program has broken off the loop.
var errBroken = errors.New("broken off")

// watch is one loop. It returns nil when it was broken off.
func (h *Hub) watch(ctx context.Context, topic string, from Position, yield func(Message) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := checkTopic(topic); err != nil {
		return err
	}
	h.plane.await(ctx)
	l := &loop{hub: h, ctx: ctx, yield: yield, cut: make(chan struct{})}
	if l.topic = h.addLoop(l, topic); l.topic == nil {
		return ErrClosed
	}
	defer l.end()
	if err := l.run(from); err != errBroken {
		return err
	}
	return nil
}

func (l *loop) run(from Position) error {
	if from == (Position{}) {
		l.cur = l.topic.log.Newest(0)
		l.watcher.Pass(l.cur.Cum)
	} else if err := l.place(from); err != nil {
		return err
	}
	for {
		err := l.step()
		if err != nil {
			return err
		}
	}
}

// step yields what comes next, or waits for it, or goes to where it is.
func (l *loop) step() error {
	log, full := l.topic.log, l.hub.full
	if l.at != nil {
		log, full = l.at.log, nil // the end of a replay is not the end
	}
	over := closed(full) // before looking for a record: then that is the last one
	switch recs, state := log.Read(l.cur); {
	case state == stream.Ready:
		return l.emit(recs)
	case state == stream.AtHead && over:
		return ErrClosed
	case state == stream.AtHead:
		return l.wait(full)
	case l.at != nil:
		return l.onward()
	}
	return l.lagged()
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// emit yields records.
func (l *loop) emit(recs stream.Records) error {
	for {
		if err := l.ended(); err != nil {
			return err
		}
		r, ok := recs.Next(&l.cur)
		if !ok {
			return nil
		}
		if r.Flags&stream.Event != 0 {
			continue
		}
		m, err := l.message(&r)
		if err != nil {
			return err
		}
		if !l.yield(m) {
			return errBroken
		}
		l.watcher.Pass(l.cur.Cum)
	}
}

func (l *loop) message(r *stream.Record) (Message, error) {
	m := Message{
		Topic: l.topic.name, Data: r.Data, Pos: Position(r.Pos),
		Binary: r.Flags&stream.Binary != 0, Partial: r.Flags&stream.Partial != 0,
	}
	if r.Time != 0 {
		m.Time = time.Unix(0, r.Time)
	}
	if r.Flags&stream.Gap == 0 {
		return m, nil
	}
	g, err := wire.ParseGapBinary(r.Data)
	if err != nil {
		return m, err
	}
	m.Data = nil
	m.Gap = &Gap{From: Position(g.From), To: Position(g.To), Count: g.Count, Bytes: g.Bytes, Possible: g.Possible, Reason: g.Reason}
	m.Pos = cmp.Or(m.Pos, Position(l.cur.Pos), Earliest())
	return m, nil
}

// declare yields a gap of its own and goes on behind it.
func (l *loop) declare(why gapReason, gap *Gap, cur stream.Cursor) error {
	if err := l.ended(); err != nil {
		return err
	}
	l.hub.countGap(why)
	l.cur = cur
	l.watcher.Pass(cur.Cum)
	pos := cmp.Or(gap.To, gap.From, Earliest()) // never the zero one: that would be from now on
	if !l.yield(Message{Topic: l.topic.name, Time: time.Now(), Pos: pos, Gap: gap}) {
		return errBroken
	}
	return nil
}

// ended reports why nothing more may be yielded.
func (l *loop) ended() error {
	switch {
	case l.ctx.Err() != nil:
		return context.Cause(l.ctx)
	case closed(l.cut):
		return ErrClosed
	}
	return nil
}

// wait waits for something to have changed, full being closed included.
func (l *loop) wait(full <-chan struct{}) error {
	select {
	case <-l.watcher.C:
	case <-full:
	case <-l.ctx.Done():
	case <-l.cut:
	}
	return l.ended()
}

// place brings the loop to just after the message at from: see subscription.resume, which does it for viewers.
func (l *loop) place(from Position) error {
	for alone := false; ; {
		over := closed(l.hub.full)
		if cur, ok := l.topic.after(from); ok {
			l.goOn(cur)
			return nil
		}
		switch replayer, known := l.topic.known(); {
		case replayer != nil:
			if err := l.catchUp(replayer, from, alone); err != nil || l.at != nil {
				return err
			}
			alone = true
		case known && from == Earliest():
			l.goOn(l.topic.log.Oldest())
			return nil
		case known:
			return l.lost(from, nil)
		case over:
			return ErrClosed
		default:
			if err := l.wait(l.hub.full); err != nil {
				return err
			}
		}
	}
}

// goOn goes on in the topic's log.
func (l *loop) goOn(cur stream.Cursor) {
	l.cur = cur
	l.watcher.Pass(cur.Cum)
}

// lost declares that nothing is known of what came after from, and goes on with what there is: see subscription.lost.
func (l *loop) lost(from Position, failed error) error {
	gap, cur, why := l.topic.lost(from, failed)
	return l.declare(why, gap, cur)
}

// lagged is called when the topic's log no longer has what comes next.
func (l *loop) lagged() error {
	if l.cur.Seq == 1 && l.cur.Pos == (stream.Position{}) { // it was here before anything was known of the topic
		l.cur.Pos = l.topic.log.Base()
	}
	if replayer, _ := l.topic.known(); replayer != nil && l.cur.Pos != (stream.Position{}) {
		return l.place(Position(l.cur.Pos))
	}
	count, bytes, cur := l.topic.log.Missed(l.cur)
	return l.declare(gapTooSlow, &Gap{
		From: Position(l.cur.Pos), To: Position(cur.Pos), Count: int64(count), Bytes: int64(bytes),
		Reason: "the program was too slow",
	}, cur)
}

// catchUp finds a replay for it, and waits for that to come to its place. If it is not going to, at stays nil.
func (l *loop) catchUp(r Replayer, from Position, alone bool) error {
	if !l.stand(r, from, alone) {
		return ErrClosed
	}
	for {
		l.mu.Lock()
		state, p := l.state, l.past
		l.mu.Unlock()
		switch {
		case p == nil: // cut off
		case state == follows:
			l.at, l.cur = p, l.landed
			return nil
		case state == abandoned:
			l.leave()
			return nil
		}
		if err := l.wait(nil); err != nil {
			return err
		}
	}
}

func (l *loop) stand(r Replayer, from Position, alone bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		return false
	}
	l.hub.catchups.Add(1)
	l.from, l.state = from, waits
	p, cur, here := l.topic.stand(l, l.hub, r, from, alone)
	if l.past = p; here {
		l.follow(cur)
	}
	return true
}

// follow says that past has come to its place; mu is held.
func (l *loop) follow(cur stream.Cursor) {
	l.state, l.landed = follows, cur
	l.watcher.Move(l.past.fan, cur.Cum)
	l.watcher.Wake()
}

// arrive is follower's.
func (l *loop) arrive(p *replay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.past != p || l.state != waits {
		return
	}
	cur, ok := p.log.After(stream.Position(l.from))
	if !ok { // memory is so tight that what came after is gone already
		cur = stream.Cursor{Pos: stream.Position(l.from)}
	}
	l.follow(cur)
}

// disappoint is follower's.
func (l *loop) disappoint(p *replay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.past == p && l.state == waits {
		l.state = abandoned
		l.watcher.Wake()
	}
}

// leave takes it out of the replay that it has found.
func (l *loop) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked()
}

func (l *loop) leaveLocked() {
	if l.past == nil {
		return
	}
	l.watcher.Move(l.topic.fan, l.topic.log.Bytes())
	l.past.part(l, l.from)
	l.past = nil
	l.hub.catchups.Add(-1)
}

// onward is called when the replay has no more for it: see subscription.onward.
func (l *loop) onward() error {
	p := l.at
	l.at = nil
	end, exit, err := p.exitAt(l.cur)
	l.leave()
	first, _ := l.topic.log.Bounds()
	switch {
	case end && err != nil:
		return l.lost(Position(l.cur.Pos), err)
	case exit.Seq >= first:
		l.goOn(exit)
		return nil
	case exit.Pos != (stream.Position{}):
		return l.place(Position(exit.Pos))
	}
	return l.place(Position(l.cur.Pos))
}

// cutOff ends the loop for the hub, whatever its body is doing.
func (l *loop) cutOff() {
	l.mu.Lock()
	if !l.isCut {
		l.isCut = true
		close(l.cut)
	}
	l.leaveLocked()
	l.mu.Unlock()
	l.hub.dismissLoop(l)
}

// end is called once, when the loop is over.
func (l *loop) end() {
	l.mu.Lock()
	l.leaveLocked()
	l.watcher.Stop()
	l.mu.Unlock()
	l.hub.part(l.topic)
	l.hub.dismissLoop(l)
}

// addLoop makes a loop known and returns its topic, or nil if the hub is closing.
func (h *Hub) addLoop(l *loop, name string) *topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hubOpen {
		return nil
	}
	t := h.topicLocked(name)
	t.visitors++
	l.watcher = t.fan.Watch(0)
	h.loops[l] = struct{}{}
	return t
}

// dismissLoop removes a loop that has ended, or is cut off and not waited for.
func (h *Hub) dismissLoop(l *loop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.loops[l]; ok {
		delete(h.loops, l)
		h.vacate()
	}
}

func (h *Hub) allLoops() []*loop {
	h.mu.Lock()
	defer h.mu.Unlock()
	loops := make([]*loop, 0, len(h.loops))
	for l := range h.loops {
		loops = append(loops, l)
	}
	return loops
}
