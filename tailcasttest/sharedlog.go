package tailcasttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/tailcast/tailcast"
)

// A SharedLog is a log in memory that several hubs can share, for tests of programs that run more than one: each hub gets a Node of it
// as its Backplane. It can fail as a real one does. It works inside a bubble of testing/synctest.
//
//	shared := tailcasttest.NewSharedLog()
//	a := tailcast.New(tailcast.WithBackplane(shared.Node()))
//	b := tailcast.New(tailcast.WithBackplane(shared.Node()))
type SharedLog struct {
	mu      sync.Mutex // guards the rest, and that of the nodes
	epoch   uint64
	first   uint64 // Offset of msgs[0]
	limit   int    // see Limit; 0 = none
	msgs    []tailcast.Message
	stored  map[string]bool // what had a Position of its Source
	changed chan struct{}   // closed, and made anew, when something happens
	nodes   []*LogNode
}

// A LogNode is one hub's connection to a SharedLog: a tailcast.Backplane and a tailcast.BackplaneCaller.
type LogNode struct {
	log  *SharedLog
	name int

	// Guarded by log.mu.
	at     tailcast.Position // of the last message that Run has published
	away   error             // why the log cannot be reached
	mute   bool              // see Mute
	answer func(context.Context, []byte) []byte
}

var (
	_ tailcast.Backplane       = (*LogNode)(nil)
	_ tailcast.BackplaneCaller = (*LogNode)(nil)
)

// NewSharedLog returns a log without messages.
func NewSharedLog() *SharedLog {
	return &SharedLog{epoch: rand.Uint64() | 1, first: 1, stored: make(map[string]bool), changed: make(chan struct{})}
}

// Node returns a new connection to the log, for one hub.
func (l *SharedLog) Node() *LogNode {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &LogNode{log: l, name: len(l.nodes)}
	l.nodes = append(l.nodes, n)
	return n
}

// Restart returns the connection of the same program, started again: it knows nothing any more, and its Sources have the same name.
func (n *LogNode) Restart() *LogNode {
	again := n.log.Node()
	again.name = n.name
	return again
}

// Expire drops the n oldest messages, as retention does.
func (l *SharedLog) Expire(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.msgs))
	l.msgs = slices.Clone(l.msgs[n:])
	l.first += uint64(n)
	l.change()
}

// Limit makes the log refuse messages that have more than n bytes of Data, as brokers do.
func (l *SharedLog) Limit(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = n
}

// Renew deletes the log and begins another one in its place, with an Epoch of its own.
func (l *SharedLog) Renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.first, l.msgs, l.stored = 1, nil, make(map[string]bool)
	l.change()
}

// Len is how many messages it holds.
func (l *SharedLog) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.msgs)
}

// change wakes who waits; mu is held.
func (l *SharedLog) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// last is the Position of the newest message; mu is held.
func (l *SharedLog) last() tailcast.Position {
	return tailcast.Position{Epoch: l.epoch, Offset: l.first + uint64(len(l.msgs)) - 1}
}

// begin is the place before the oldest message; mu is held.
func (l *SharedLog) begin() tailcast.Position {
	return tailcast.Position{Epoch: l.epoch, Offset: l.first - 1}
}

// errCut is why a LogNode that was cut cannot reach its log.
var errCut = errors.New("tailcasttest: the log is cut off")

// Cut separates the node from the log, as a network that fails does, until Restore.
func (n *LogNode) Cut() { n.set(func() { n.away = errCut }) }

// Restore ends a Cut.
func (n *LogNode) Restore() { n.set(func() { n.away = nil }) }

// Mute makes the node leave unanswered what others ask, as one that was killed.
func (n *LogNode) Mute() { n.set(func() { n.mute = true }) }

func (n *LogNode) set(f func()) {
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	f()
	n.log.change()
}

// Publish is tailcast.Publisher's: it waits until the log can be reached.
func (n *LogNode) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	l := n.log
	for {
		l.mu.Lock()
		away, changed := n.away, l.changed
		if away == nil && ctx.Err() == nil {
			err := l.fits(msgs)
			if err == nil {
				n.store(msgs)
			}
			l.mu.Unlock()
			return err
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("tailcasttest: publish: %w", context.Cause(ctx))
		}
	}
}

// fits says which message is too large; mu is held.
func (l *SharedLog) fits(msgs []tailcast.Message) error {
	for i := range msgs {
		if l.limit > 0 && len(msgs[i].Data) > l.limit {
			return fmt.Errorf("tailcasttest: publish: %w", &tailcast.TooLargeError{Index: i, Limit: l.limit})
		}
	}
	return nil
}

// store appends messages; log.mu is held.
func (n *LogNode) store(msgs []tailcast.Message) {
	l := n.log
	part := 0
	for i, m := range msgs {
		if m.Pos != (tailcast.Position{}) {
			if part++; i == 0 || m.Pos != msgs[i-1].Pos || m.Topic != msgs[i-1].Topic {
				part = 0
			}
			key := fmt.Sprint(n.name, " ", m.Topic, " ", m.Pos, " ", part)
			if l.stored[key] {
				continue
			}
			l.stored[key] = true
		}
		m.Data = bytes.Clone(m.Data)
		m.Pos = tailcast.Position{Epoch: l.epoch, Offset: l.first + uint64(len(l.msgs))}
		l.msgs = append(l.msgs, m)
	}
	l.change()
}

// Run is tailcast.Source's.
func (n *LogNode) Run(ctx context.Context, pub tailcast.Publisher) error {
	to, ok := pub.(tailcast.BackplanePublisher)
	if !ok {
		return tailcast.Permanent(fmt.Errorf("tailcasttest: %T is no BackplanePublisher", pub))
	}
	joined := false
	for ctx.Err() == nil {
		n.log.mu.Lock()
		away, changed := n.away, n.log.changed
		at, msgs := n.next()
		n.log.mu.Unlock()
		switch {
		case away != nil:
			to.Degraded(away)
			joined = false
		case !joined || at != n.at:
			to.Join(at)
			n.set(func() { n.at = at })
			joined = true
			continue
		case len(msgs) > 0:
			if err := to.Publish(ctx, msgs...); err != nil {
				return err
			}
			n.set(func() { n.at = msgs[len(msgs)-1].Pos })
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// next returns what Run is to publish, and the place before it; log.mu is held.
func (n *LogNode) next() (at tailcast.Position, msgs []tailcast.Message) {
	const batch = 64
	l := n.log
	switch {
	case n.at == tailcast.Position{}:
		return l.last(), nil
	case n.at.Epoch != l.epoch || n.at.Offset+1 < l.first:
		at = l.begin()
	default:
		at = n.at
	}
	msgs = l.msgs[at.Offset+1-l.first:]
	return at, slices.Clone(msgs[:min(len(msgs), batch)])
}

// Replay is tailcast.Replayer's.
func (n *LogNode) Replay(ctx context.Context, topic string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		at := after
		for first := true; ; first = false {
			m, err := n.read(ctx, topic, at, first)
			if !yield(m, err) || err != nil {
				return
			}
			at = m.Pos
			if m.Gap != nil && m.Pos == (tailcast.Position{}) {
				at = m.Gap.To
			}
		}
	}
}

// read returns the topic's message after at, for which it waits.
func (n *LogNode) read(ctx context.Context, topic string, at tailcast.Position, first bool) (tailcast.Message, error) {
	l := n.log
	for {
		l.mu.Lock()
		away, changed, last := n.away, l.changed, l.last()
		gap := &tailcast.Gap{From: at, To: l.begin(), Count: -1, Bytes: -1}
		var found tailcast.Message
		switch {
		case away != nil:
		case at == tailcast.Earliest():
			at, gap = l.begin(), nil
		case at.Epoch != l.epoch:
			gap.Reason = "the log has begun anew"
		case at.Offset+1 < l.first:
			gap.Possible, gap.Reason = true, "no longer in the log"
		case at.Offset > last.Offset:
			l.mu.Unlock()
			return found, tailcast.ErrUnknownPosition
		default:
			gap = nil
		}
		if away == nil && gap == nil {
			for _, m := range l.msgs[at.Offset+1-l.first:] {
				if m.Topic == topic {
					found = m
					break
				}
			}
		}
		l.mu.Unlock()
		switch {
		case away != nil && first:
			return found, away
		case away != nil:
		case gap != nil:
			return tailcast.Message{Topic: topic, Gap: gap}, nil
		case found.Pos != tailcast.Position{}:
			found.Data = bytes.Clone(found.Data)
			return found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return tailcast.Message{}, context.Cause(ctx)
		}
	}
}

// Last is tailcast.Backplane's.
func (n *LogNode) Last(_ context.Context, topic string, back int) (tailcast.Position, error) {
	l := n.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.away != nil {
		return tailcast.Position{}, n.away
	}
	for i := len(l.msgs) - 1; i >= 0; i-- {
		if l.msgs[i].Topic != topic {
			continue
		}
		if back == 0 {
			return l.msgs[i].Pos, nil
		}
		back--
	}
	return l.begin(), nil
}

// Answer is tailcast.BackplaneCaller's.
func (n *LogNode) Answer(f func(ctx context.Context, request []byte) []byte) {
	n.set(func() { n.answer = f })
}

// Call is tailcast.BackplaneCaller's.
func (n *LogNode) Call(ctx context.Context, request []byte) (answers [][]byte, err error) {
	n.log.mu.Lock()
	nodes, away := slices.Clone(n.log.nodes), n.away
	n.log.mu.Unlock()
	if away != nil {
		return nil, fmt.Errorf("%w: %w", tailcast.ErrBackplane, away)
	}
	silent := 0
	for _, o := range nodes {
		n.log.mu.Lock()
		f, cut := o.answer, o.mute || o.away != nil
		n.log.mu.Unlock()
		switch {
		case o == n || f == nil:
		case cut:
			silent++
		default:
			answers = append(answers, f(ctx, request))
		}
	}
	if silent > 0 {
		err = fmt.Errorf("%w: %d of its nodes have not answered", tailcast.ErrBackplane, silent)
	}
	return answers, err
}
