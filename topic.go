package tailcast

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
)

// A topic is a log and those who look at it.
type topic struct {
	name string
	cfg  TopicConfig
	log  *stream.Log
	fan  *fanout.Topic

	plane *plane // that numbers it; nil if there is none

	visitors int           // who holds it; guarded by Hub.mu
	claims   atomic.Int32  // batches that were accepted and are not yet appended; raised with Hub.mu
	epoch    atomic.Uint64 // of a topic that the hub numbers; set once, with mu

	mu       sync.Mutex // guards what follows, up to pacing; taken after Hub.mu, before no other but the log's
	numbered numbering
	owner    *publisher // of a topic that a Source numbers, while the Source runs
	replayer Replayer
	waiting  map[*subscription]start
	replays  []*replay // that have viewers
	filters  map[string]*filterUse
	lives    int // how often the replayer has changed: what was read from another one is nobody's any more

	presence presence

	pacing   sync.Mutex // guards the rest, which is pace's
	paced    uint64     // Bytes of the log when pace last looked
	patience patience
}

type numbering uint8

const (
	byNobody numbering = iota // nothing has been published yet
	byHub
	bySource
)

// A claim is what a batch of messages says of a topic.
type claim struct {
	topic    *topic
	numbered bool // a message has a Position
	bare     bool // a message that is no Gap has none
}

func (c *claim) add(m *Message) {
	switch {
	case m.Pos != Position{}:
		c.numbered = true
	case m.Gap == nil:
		c.bare = true
	}
}

// check reports whether pub may publish what the claim says.
func (c *claim) check(pub *publisher) error {
	t := c.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case c.numbered && c.bare:
		return fmt.Errorf("%w: topic %q: some messages have a position and some have none", ErrTopicOwner, t.name)
	case t.numbered == byHub && c.numbered:
		return fmt.Errorf("%w: topic %q is numbered by the hub", ErrTopicOwner, t.name)
	case t.numbered == bySource && (c.bare || t.owner != nil && t.owner != pub):
		return fmt.Errorf("%w: topic %q", ErrTopicOwner, t.name)
	}
	return nil
}

// join makes a new topic one that p numbers, if there is one; Hub.mu is held.
func (t *topic) join(p *plane) {
	if p == nil {
		return
	}
	t.plane, t.numbered, t.owner, t.replayer = p, bySource, p.source.pub, planeReplayer{p}
	if at, ok := p.place(); ok {
		t.log.SetBase(stream.Position(at))
	}
}

// settle decides who numbers the topic, if that is open and the claim says anything about it.
func (c *claim) settle(pub *publisher) {
	t := c.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case c.numbered && t.owner == nil:
		t.own(pub, replayerOf(pub))
	case c.bare && t.numbered == byNobody:
		t.numbered = byHub
		t.epoch.Store(rand.Uint64() | 1)
	}
}

// own makes pub the one that numbers the topic, and r the one that can replay it, if anybody can; mu is held.
func (t *topic) own(pub *publisher, r Replayer) {
	t.numbered, t.owner = bySource, pub
	t.succeed(r)
}

// succeed puts r in the place of the Replayer. What is being read from the one before ends: it may never come to what is in the log
// now, and then wait for more for ever. Its viewers ask r. mu is held.
func (t *topic) succeed(r Replayer) {
	if r == nil && t.replayer == nil {
		return
	}
	t.replayer = r
	t.lives++
	for _, p := range t.replays {
		p.cancel()
	}
}

// replayerOf returns pub's source if it can replay.
func replayerOf(pub *publisher) Replayer {
	if pub == nil {
		return nil
	}
	r, _ := pub.source.(Replayer)
	return r
}

// disown lets another publisher number the topic in pub's place. Its past stays readable until one does.
func (t *topic) disown(pub *publisher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owner == pub {
		t.owner = nil
	}
}

// abandon is disown by one that can't replay the past any more.
func (t *topic) abandon(pub *publisher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owner == pub {
		t.owner = nil
		t.succeed(nil)
	}
}

// append adds messages that claim has accepted.
func (t *topic) append(msgs []Message, from uint32, now time.Time) {
	nanos := now.UnixNano()
	a := t.log.Begin()
	a.From = from
	bytes := 0
	for i := range msgs {
		if t.plane != nil {
			a.From = t.plane.author(&msgs[i])
		}
		t.add(&a, &msgs[i], nanos)
		bytes += len(msgs[i].Data)
	}
	a.End(now)
	t.fan.Grow(len(msgs), bytes)
	t.settle()
}

func (t *topic) add(a *stream.Appender, m *Message, nanos int64) {
	if !m.Time.IsZero() {
		nanos = m.Time.UnixNano()
	}
	pos := stream.Position(m.Pos)
	if epoch := t.epoch.Load(); epoch != 0 {
		pos = stream.Position{Epoch: epoch, Offset: a.NextSeq()}
	}
	if m.Gap != nil {
		a.Add(pos, nanos, m.flags(), m.Gap.wire().AppendBinary(nil))
		return
	}
	a.Add(pos, nanos, m.flags(), m.Data)
}

// flags are what a log keeps of a message beside its payload.
func (m *Message) flags() (flags stream.Flags) {
	if m.Binary {
		flags |= stream.Binary
	}
	if m.Partial {
		flags |= stream.Partial
	}
	if m.Gap != nil {
		flags |= stream.Gap
	}
	return flags
}

// empty reports whether nothing of the topic is worth keeping: no Source is in charge of it, and it holds no message. Hub.mu is
// held, and nobody visits it.
func (t *topic) empty() bool {
	return t.idle(func() bool { first, next := t.log.Bounds(); return first == next })
}

// deserted reports whether the topic is there only because of events that were long ago. See empty.
func (t *topic) deserted(now time.Time) bool {
	return t.idle(func() bool { return t.log.Idle(now.Add(-eventLinger)) })
}

// idle reports whether nobody is in charge of the topic, and its log is what nothing says.
func (t *topic) idle(nothing func() bool) bool {
	if t.claims.Load() > 0 { // looked at first: it falls when the messages are there
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return nothing() && (t.owner == nil && t.replayer == nil || t.plane != nil)
}

// untouched reports whether the topic is there only because somebody has looked at it. See empty.
func (t *topic) untouched() bool {
	if _, known := t.known(); known && t.plane == nil || !t.empty() {
		return false
	}
	_, next := t.log.Bounds()
	return next == 1
}

// known reports whether anything is known of the topic's past.
func (t *topic) known() (Replayer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.replayer, t.replayer != nil || t.numbered != byNobody
}

// wait puts a viewer aside that wants to go on at a place that nobody can judge yet. It reports false if that has changed.
func (t *topic) wait(s *subscription, from start) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.replayer != nil || t.numbered != byNobody {
		return false
	}
	if s.ended() { // it has ended meanwhile, and forget was called
		return true
	}
	if t.waiting == nil {
		t.waiting = make(map[*subscription]start)
	}
	t.waiting[s] = from
	return true
}

// lag is how far the slowest viewer is behind.
func (t *topic) lag() (messages, bytes uint64) {
	t.fan.Each(func(s *fanout.Sub) {
		if m, b, ok := s.Lag(); ok {
			messages, bytes = max(messages, m), max(bytes, b)
		}
	})
	return messages, bytes
}

func (t *topic) forget(s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, s)
}

// settle serves those who waited.
func (t *topic) settle() {
	t.mu.Lock()
	waiting := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	for s, from := range waiting {
		s.settled(from)
	}
}

// begin is what a Source that reads a file says before its first message: that it numbers the topic, can replay it, and
// which position its first message will follow.
func (t *topic) begin(pub *publisher, r Replayer, at Position) error {
	t.mu.Lock()
	if t.numbered == byHub || t.numbered == bySource && t.owner != nil && t.owner != pub {
		t.mu.Unlock()
		return fmt.Errorf("%w: topic %q", ErrTopicOwner, t.name)
	}
	t.own(pub, r)
	t.mu.Unlock()
	t.log.SetBase(stream.Position(at))
	t.fan.Wake() // for loops that wait for something to be known
	t.settle()
	return nil
}
