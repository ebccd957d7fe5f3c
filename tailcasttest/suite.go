package tailcasttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// An Option tells TestSource and TestReplayer what they cannot know of the Source that they test.
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

type config struct {
	messages     int
	within       time.Duration
	identity     func(tailcast.Message) string
	ends         bool
	unrepeatable bool
	bubble       bool
	ignore       []string
	expire       func(testing.TB, tailcast.Source)
	away         []func(testing.TB) // cut and restore
	anew         func(testing.TB)
	tooLarge     int // bytes
}

func newConfig(opts []Option) config {
	c := config{messages: 3, within: 10 * time.Second}
	for _, o := range opts {
		o.apply(&c)
	}
	return c
}

// Messages says how many messages a new Source publishes without being asked: at least two, 3 by default. It is best if the Source
// then waits for more: in real time that alone shows whether a Source that waits can be ended.
func Messages(n int) Option {
	if n < 2 {
		panic("tailcasttest: Messages: the suites need at least two")
	}
	return option(func(c *config) { c.messages = n })
}

// Within says how long the Source may take for anything that has to happen soon: for the next message, for its end. The default is
// 10 s. Only a check that fails waits for so long.
func Within(d time.Duration) Option {
	if d <= 0 {
		panic("tailcasttest: Within: must be positive")
	}
	return option(func(c *config) { c.within = d })
}

// Identity says what tells two messages apart that have no Position, so that one that comes twice is found: an id in the payload,
// for one. Without it, messages that have no Position are compared by their Data, and only where one has to come again.
func Identity(f func(tailcast.Message) string) Option {
	return option(func(c *config) { c.identity = f })
}

// Ends says that the Source finishes after its messages: Run then returns nil by itself. Without it a nil breaks rule 1.
func Ends() Option { return option(func(c *config) { c.ends = true }) }

// Unrepeatable says that the Source cannot bring back what Publish has refused, such as the tick of a clock, so that rule 2 is not
// checked: Run need only publish again when it is run again. A SourceFunc, which is what Lines and FromSeq return, needs no option,
// since nobody runs it again (rule 5).
func Unrepeatable() Option { return option(func(c *config) { c.unrepeatable = true }) }

// Bubble runs each check in a bubble of testing/synctest of its own, so that time is virtual. It is for Sources that wait for nothing
// but what is in memory, and for time; one that polls a file is fine. It needs a *testing.T. A test must not call a suite in a bubble that it has made itself: subtests are
// not allowed there. A goroutine that a check has reported, and cannot end, makes the bubble panic after that.
func Bubble() Option { return option(func(c *config) { c.bubble = true }) }

// IgnoreGoroutines names functions whose goroutines may stay when Run or Replay has returned: a client library's pool of connections,
// for one. A goroutine is ignored if its stack contains one of them, written as in a stack trace: "net/http.(*persistConn)".
func IgnoreGoroutines(functions ...string) Option {
	return option(func(c *config) { c.ignore = append(c.ignore, functions...) })
}

// Expire gives TestReplayer a function that makes src lose some of its oldest messages, as its retention would do, before it
// returns. Only with it can rule 2 of a Replayer be checked, by what it says of a loss.
func Expire[S ReplaySource](f func(t testing.TB, src S)) Option {
	return option(func(c *config) {
		c.expire = func(t testing.TB, src tailcast.Source) { f(t, src.(S)) }
	})
}

// A rule is a sentence of a contract.
type rule struct{ name, text string }

// sourceRule is a rule of tailcast.Source by its number.
func sourceRule(n int) rule { return rule{fmt.Sprint("Source rule ", n), sourceRules[n-1]} }

// replayerRule is a rule of tailcast.Replayer by its number.
func replayerRule(n int) rule { return rule{fmt.Sprint("Replayer rule ", n), replayerRules[n-1]} }

// The words are those of source.go.
var (
	sourceRules = []string{
		"It returns nil when it has finished for good.",
		"Any other error means: run me again, after a while. It must then go on after the last message whose Publish returned nil.",
		"An error made by Permanent ends it.",
		"When ctx is done it returns context.Cause(ctx) soon.",
		"SourceFunc, Lines and FromSeq are not run again, since nothing says where they would go on: each error ends them.",
	}
	replayerRules = []string{
		"It yields the messages after the given Position, with the same Positions, Data and cuts as they had live, in the order in which they were published.",
		"What it cannot serve is declared by a first Message with Gap. It then goes on at the first message that it has.",
		"For a Position that is not its own it yields ErrUnknownPosition, and nothing else.",
		"Earliest() stands for the first message that it has.",
		"It runs until the consumer breaks or ctx is done: at the end it waits for more.",
		"It is called concurrently, with itself and with Run. While its viewers have enough to read, yield does not return",
	}
	bytesRule     = rule{"Publisher", "It copies what it keeps, so the caller may use the slices again: when Publish has returned, and not before."}
	fitRule       = rule{"Publisher", "It takes messages that are fit."}
	positionRule  = rule{"Message.Pos", "Pos is where it stands in its topic: an Epoch that is not 0, never two messages with the same one, and all messages of a topic have one or none has."}
	panicRule     = rule{"Source", "A panic is recovered, counts as an error, and is reported."}
	leftRule      = rule{"Source", "Nothing goes on when Run has returned: no goroutine, and no Publish."}
	replayLeft    = rule{"Replayer", "Nothing goes on when the iterator has returned: no goroutine, and no yield."}
	replayedBytes = rule{"Replayer", "Data that Replay yields stays as it is until yield returns, whoever else reads or writes meanwhile."}
)

// A suite is one check at work: the test that it reports to, and what it was told.
type suite struct {
	testing.TB
	config
}

// check runs f as a subtest, where the test can have one, and reports whether nothing has failed.
func (c *config) check(t testing.TB, name string, f func(s *suite)) bool {
	t.Helper()
	tt, ok := t.(*testing.T)
	switch {
	case ok && c.bubble:
		return tt.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(&suite{t, *c}) })
		})
	case ok:
		return tt.Run(name, func(t *testing.T) { f(&suite{t, *c}) })
	case c.bubble:
		t.Fatalf("tailcasttest: Bubble needs a *testing.T, this is a %T", t)
	default:
		f(&suite{t, *c})
	}
	return !t.Failed()
}

// broken reports a rule that does not hold.
func (s *suite) broken(r rule, expected, happened string) {
	s.Helper()
	s.Errorf("%s: %s\n\texpected: %s\n\thappened: %s", r.name, r.text, expected, happened)
}

// await waits until ch is closed, for as long as things may take.
func (s *suite) await(ch <-chan struct{}) bool {
	timer := time.NewTimer(s.within)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	}
}

// settle gives what ends with ch a moment to end, or to get to where it waits. In a bubble it has done so then. In real time it has in
// all likelihood: what is found later is judged as well, if by another rule.
func (s *suite) settle(ch <-chan struct{}) {
	timer := time.NewTimer(5 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ch:
	case <-timer.C:
	}
}

// same reports whether b is a again. What a Gap says may have grown meanwhile.
func (s *suite) same(a, b tailcast.Message) bool {
	if (a.Gap != nil) != (b.Gap != nil) {
		return false
	}
	if a.Gap != nil {
		return true
	}
	if s.identity != nil && a.Pos == (tailcast.Position{}) {
		return s.identity(a) == s.identity(b)
	}
	return a.Pos == b.Pos && string(a.Data) == string(b.Data) && a.Binary == b.Binary && a.Partial == b.Partial
}

// key is what must not come twice; "" if nothing tells.
func (s *suite) key(m tailcast.Message) string {
	switch {
	case m.Gap != nil:
		return ""
	case m.Pos != tailcast.Position{}:
		return "the position " + m.Pos.String()
	case s.identity != nil:
		return "the identity " + s.identity(m)
	}
	return ""
}

// show describes a message.
func show(m tailcast.Message) string {
	var b strings.Builder
	if m.Gap != nil {
		fmt.Fprintf(&b, "a Gap (%q)", m.Gap.Reason)
	} else {
		fmt.Fprintf(&b, "%.60q", m.Data)
	}
	if m.Topic != "" {
		fmt.Fprintf(&b, " in topic %q", m.Topic)
	}
	if m.Pos != (tailcast.Position{}) {
		fmt.Fprintf(&b, " at %s", m.Pos)
	}
	if m.Partial {
		b.WriteString(", partial")
	}
	if m.Binary {
		b.WriteString(", binary")
	}
	return b.String()
}

// permanent reports whether err was made by tailcast.Permanent, whose type has no name outside.
func permanent(err error) bool {
	target := reflect.New(reflect.TypeOf(tailcast.Permanent(io.EOF)))
	return errors.As(err, target.Interface())
}

// errOver is the cause of the contexts that a suite cancels.
var errOver = errors.New("the suite has cancelled the context")

func newContext() (context.Context, context.CancelCauseFunc) {
	return context.WithCancelCause(context.Background())
}
