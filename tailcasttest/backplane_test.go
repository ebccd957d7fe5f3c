package tailcasttest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

// limit is how much Data a message may have in aLog.
const limit = 1 << 16

// aLog is a shared log for each check, whose nodes have a bug.
type aLog struct {
	bug    string
	over   <-chan struct{} // ends what a bug leaves behind
	shared *tailcasttest.SharedLog
	nodes  []*tailcasttest.LogNode
	first  map[string]*tailcasttest.LogNode
}

func (l *aLog) open(testing.TB) func(string) tailcast.Backplane {
	l.shared, l.nodes, l.first = tailcasttest.NewSharedLog(), nil, make(map[string]*tailcasttest.LogNode)
	l.shared.Limit(limit)
	return func(name string) tailcast.Backplane {
		n := l.shared.Node()
		if was := l.first[name]; was != nil && l.bug != "ids of a Source are forgotten" {
			n = was.Restart()
		}
		l.first[name] = n
		l.nodes = append(l.nodes, n)
		if l.bug == "" {
			return n
		}
		return &brokenNode{LogNode: n, bug: l.bug, over: l.over}
	}
}

func (l *aLog) options() []tailcasttest.Option {
	return []tailcasttest.Option{
		tailcasttest.Away(func(testing.TB) {
			for _, n := range l.nodes {
				n.Cut()
			}
		}, func(testing.TB) {
			for _, n := range l.nodes {
				n.Restore()
			}
		}),
		tailcasttest.Anew(func(testing.TB) { l.shared.Renew() }),
		tailcasttest.TooLarge(limit + 1),
	}
}

func TestASharedLogPasses(t *testing.T) {
	l := new(aLog)
	tailcasttest.TestBackplane(t, l.open, append(l.options(), tailcasttest.Bubble())...)
	tailcasttest.TestBackplane(t, l.open, l.options()...)
}

// A brokenNode is a node with a bug.
type brokenNode struct {
	*tailcasttest.LogNode
	bug  string
	over <-chan struct{}
}

func (n *brokenNode) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	out := append([]tailcast.Message(nil), msgs...)
	switch n.bug {
	case "it stores a call backwards":
		for i, m := range msgs {
			out[len(msgs)-1-i] = m
		}
	case "it stores a message twice":
		out = append(out, msgs...)
	case "it drops what is binary":
		for i := range out {
			out[i].Binary = false
		}
	case "it drops the origin":
		for i := range out {
			out[i].Origin = ""
		}
	case "it drops the time":
		for i := range out {
			out[i].Time = out[i].Time.Truncate(1000)
		}
	case "it drops gaps":
		for i := range out {
			out[i].Gap = nil
		}
	case "it changes the bytes":
		for i := range msgs {
			out[i].Data = bytes.Clone(msgs[i].Data)
			clear(msgs[i].Data)
		}
	case "it has its own error when it is cancelled":
		if ctx.Err() != nil {
			return errors.New("stopped")
		}
	case "it drops parts of a message":
		out = slices.CompactFunc(out, func(a, b tailcast.Message) bool { return a.Pos == b.Pos && a.Pos != tailcast.Position{} })
	case "it stores what comes before a message that is too large":
		err := n.LogNode.Publish(ctx, out...)
		if large := (*tailcast.TooLargeError)(nil); errors.As(err, &large) {
			_ = n.LogNode.Publish(ctx, out[:large.Index]...)
		}
		return err
	case "it says nothing of a limit":
		if err := n.LogNode.Publish(ctx, out...); errors.Is(err, tailcast.ErrMessage) {
			return tailcast.ErrMessage
		} else {
			return err
		}
	case "it gives up when the log is away":
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 1)
		defer cancel()
	}
	return n.LogNode.Publish(ctx, out...)
}

func (n *brokenNode) Run(ctx context.Context, pub tailcast.Publisher) error {
	to := &brokenPublisher{pub.(tailcast.BackplanePublisher), n}
	switch err := n.LogNode.Run(ctx, to); {
	case n.bug == "its Run hides the cause":
		return errors.New("stopped")
	case n.bug == "its Run leaves a goroutine":
		go func() { <-n.over }()
		return err
	default:
		return err
	}
}

type brokenPublisher struct {
	tailcast.BackplanePublisher
	n *brokenNode
}

func (p *brokenPublisher) Join(at tailcast.Position) {
	switch p.n.bug {
	case "it does not join":
		return
	case "it joins at another place":
		at.Offset += 5
	case "it joins in the old epoch":
		at.Epoch = 1
	}
	p.BackplanePublisher.Join(at)
}

func (p *brokenPublisher) Degraded(err error) {
	if p.n.bug != "it says nothing of an outage" {
		p.BackplanePublisher.Degraded(err)
	}
}

func (p *brokenPublisher) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	switch p.n.bug {
	case "its offsets do not grow":
		msgs = append([]tailcast.Message(nil), msgs...)
		for i := range msgs {
			msgs[i].Pos.Offset = 5
		}
	case "it goes on when it is refused":
		_ = p.BackplanePublisher.Publish(ctx, msgs...)
		return nil
	}
	return p.BackplanePublisher.Publish(ctx, msgs...)
}

func (n *brokenNode) Replay(ctx context.Context, topic string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	switch n.bug {
	case "its Replay has all topics":
		topic = "t0"
	case "its Replay knows no place between two messages":
		return func(yield func(tailcast.Message, error) bool) {
			for m, err := range n.LogNode.Replay(ctx, topic, tailcast.Earliest()) {
				if m.Pos == after || after == tailcast.Earliest() {
					for m, err := range n.LogNode.Replay(ctx, topic, after) {
						if !yield(m, err) {
							return
						}
					}
					return
				}
				if err != nil || m.Pos.Offset > after.Offset {
					yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
					return
				}
			}
		}
	case "its Replay goes on in a new log as if nothing were":
		at := after
		if last, err := n.LogNode.Last(ctx, topic, 100); err == nil && last.Epoch != after.Epoch {
			at = tailcast.Earliest()
		}
		return n.LogNode.Replay(ctx, topic, at)
	}
	return n.LogNode.Replay(ctx, topic, after)
}

func (n *brokenNode) Last(ctx context.Context, topic string, back int) (tailcast.Position, error) {
	if n.bug == "its Last is off by one" {
		back++
	}
	return n.LogNode.Last(ctx, topic, back)
}

// Each bug of a Backplane breaks a rule, which is named.
func TestABrokenBackplaneFails(t *testing.T) {
	for _, c := range []struct{ bug, rule, happened string }{
		{"it stores a call backwards", "Backplane rule 3", `"text"`},
		{"it stores a message twice", "Backplane rule 1", ""},
		{"it drops what is binary", "Backplane rule 3", "Binary false"},
		{"it drops the origin", "Backplane rule 3", `Origin ""`},
		{"it drops the time", "Backplane rule 3", "another Time"},
		{"it drops gaps", "Backplane rule 3", `in topic "parts"`},
		{"it changes the bytes", "Publisher", `"\x00\x00\x00\x00"`},
		{"it has its own error when it is cancelled", "Backplane rule 1", `"stopped"`},
		{"it gives up when the log is away", "Backplane rule 1", "it returned"},
		{"ids of a Source are forgotten", "Backplane rule 2", `"1" at`},
		{"it drops parts of a message", "Backplane rule 2", `"3" at`},
		{"it stores what comes before a message that is too large", "Backplane rule 8", `"x"`},
		{"it says nothing of a limit", "Backplane rule 8", "it returned unfit message"},
		{"its offsets do not grow", "Backplane rule 4", "at "},
		{"it does not join", "Backplane rule 5", "not called within"},
		{"it joins at another place", "Backplane rule 5", "it was called with"},
		{"it joins in the old epoch", "Backplane rule 5", "Join with"},
		{"it says nothing of an outage", "Backplane rule 5", "neither"},
		{"it goes on when it is refused", "Source rule 2", "it goes on"},
		{"its Run hides the cause", "Source rule 4", "stopped"},
		{"its Run leaves a goroutine", "Source", "(*brokenNode).Run"},
		{"its Replay has all topics", "Backplane rule 6", `in topic "t0"`},
		{"its Replay knows no place between two messages", "Backplane rule 6", "unknown position"},
		{"its Replay goes on in a new log as if nothing were", "Backplane rule 6", "1 messages"},
		{"its Last is off by one", "Backplane.Last", "with 1"},
	} {
		t.Run(c.bug, func(t *testing.T) {
			l := &aLog{bug: c.bug}
			said := failures(t, func(t testing.TB, over <-chan struct{}) {
				l.over = over
				tailcasttest.TestBackplane(t, l.open, l.options()...)
			})
			blames(t, said, c.rule, c.happened)
		})
	}
}

// The rules are quoted, so they have to be the same.
func TestTheBackplaneRulesAreThoseOfTheContract(t *testing.T) {
	text, err := os.ReadFile("../backplane.go")
	if err != nil {
		t.Fatal(err)
	}
	contract := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "//", "")), " ")
	for i, rule := range tailcasttest.BackplaneRules {
		at := strings.Index(contract, fmt.Sprintf(" %d. ", i+1))
		if n := strings.Index(contract[at:], rule); n < 0 {
			t.Errorf("rule %d is not %q", i+1, rule)
		}
	}
}
