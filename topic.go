package tailcast

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
)

// A topic is a log and those who look at it.
type topic struct {
	name string
	log  *stream.Log
	fan  *fanout.Topic

	visitors int // who holds it; guarded by Hub.mu

	mu       sync.Mutex // guards the rest; taken after Hub.mu, before no other but the log's
	numbered numbering
	owner    *publisher // of a topic that a Source numbers, while the Source runs
	replayer Replayer
	epoch    uint64 // of a topic that the hub numbers
	waiting  map[*subscription]Position
}

type numbering uint8

const (
	byNobody numbering = iota // nothing has been published yet
	byHub
	bySource
)

// claim makes sure that pub may publish msg here, and settles who numbers the topic if that is open.
func (t *topic) claim(pub *publisher, msg *Message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := msg.Pos != Position{} || msg.Gap != nil && t.numbered == bySource && t.owner == pub
	switch t.numbered {
	case byNobody:
		if own {
			t.own(pub, replayerOf(pub))
			return nil
		}
		t.numbered, t.epoch = byHub, rand.Uint64()|1
	case byHub:
		if own {
			return fmt.Errorf("%w: topic %q is numbered by the hub", ErrTopicOwner, t.name)
		}
	case bySource:
		if own && t.owner == nil {
			t.own(pub, replayerOf(pub))
			return nil
		}
		if !own || t.owner != pub {
			return fmt.Errorf("%w: topic %q", ErrTopicOwner, t.name)
		}
	}
	return nil
}

func (t *topic) own(pub *publisher, r Replayer) {
	t.numbered, t.owner = bySource, pub
	if r != nil {
		t.replayer = r
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

// disown lets another publisher number the topic in pub's place. Its past stays readable.
func (t *topic) disown(pub *publisher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owner == pub {
		t.owner = nil
	}
}

// append adds messages that claim has accepted.
func (t *topic) append(msgs []Message, now time.Time) {
	nanos := now.UnixNano()
	a := t.log.Begin()
	for i := range msgs {
		t.add(&a, &msgs[i], nanos)
	}
	a.End(now)
	t.fan.Wake()
	t.settle()
}

func (t *topic) add(a *stream.Appender, m *Message, nanos int64) {
	if !m.Time.IsZero() {
		nanos = m.Time.UnixNano()
	}
	pos := stream.Position(m.Pos)
	if t.epoch != 0 {
		pos = stream.Position{Epoch: t.epoch, Offset: a.NextSeq()}
	}
	var flags stream.Flags
	if m.Binary {
		flags |= stream.Binary
	}
	if m.Partial {
		flags |= stream.Partial
	}
	if m.Gap != nil {
		a.Add(pos, nanos, flags|stream.Gap, m.Gap.wire().AppendBinary(nil))
		return
	}
	a.Add(pos, nanos, flags, m.Data)
}

// empty reports whether nobody has published here or is about to.
func (t *topic) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.numbered == byNobody && t.replayer == nil
}

// known reports whether anything is known of the topic's past.
func (t *topic) known() (Replayer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.replayer, t.replayer != nil || t.numbered != byNobody
}

// wait puts a viewer aside that wants to go on at a place that nobody can judge yet. It reports false if that has changed.
func (t *topic) wait(s *subscription, from Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.replayer != nil || t.numbered != byNobody {
		return false
	}
	if t.waiting == nil {
		t.waiting = make(map[*subscription]Position)
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
		s.resume(from)
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
	t.settle()
	return nil
}
