package tailcasttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// TestBackplane holds a Backplane to the contract of tailcast.Backplane. newLog makes a log that is empty, for one check, and returns
// what connects a node to it, as a hub would have one; nodes of the same name are one program that was started again.
//
//	func TestMyLog(t *testing.T) {
//		tailcasttest.TestBackplane(t, func(t testing.TB) func(name string) tailcast.Backplane {
//			server := start(t)
//			return func(name string) tailcast.Backplane { return mylog.New(server.URL, name) }
//		})
//	}
//
// What is checked: that a message that was published is in the log once and whole, those of a call in their order, and Publish heeds
// its context (rule 1); that a Position of a Source's is stored once, also when the program was started again, and all parts of a message are (2); that all nodes get the
// same messages, each as it was published, in the same order, with the same Positions (3), which grow (4); that Run calls Join before
// anything else, begins at the log's end, and when it is run again after the last message that was accepted (5); that Replay reads what
// Run publishes, from each Position on, and from one between two messages (6); that everything works before Run (7); that Last is right;
// that bytes are left alone; and that Run ends with its context and leaves nothing behind. With the option Away also that it says so when
// the log cannot be reached, and that Publish waits; with Anew that another Epoch is joined, and that a Replay declares what is missing; with
// TooLarge that such a message is refused, and one of the size that the error tells is not (8).
//
// The options of TestSource and TestReplayer that do not fit are ignored. A Backplane may also be given to TestReplayer, within a Source
// that publishes.
func TestBackplane(t testing.TB, newLog func(t testing.TB) func(name string) tailcast.Backplane, opts ...Option) {
	t.Helper()
	c := newConfig(opts)
	check := func(name string, f func(p *shared)) {
		t.Helper()
		c.check(t, name, func(s *suite) { f(&shared{suite: s, node: newLog(s.TB)}) })
	}
	check("messages come as they were published, to all nodes in one order", (*shared).oneOrder)
	check("a node begins at the end of the log", (*shared).beginsAtTheEnd)
	check("a node that is run again goes on", (*shared).goesOn)
	check("a position of a Source is stored once", (*shared).storedOnce)
	check("Publish heeds its context", (*shared).publishEnds)
	check("Publish copies", (*shared).publishCopies)
	check("Replay reads what Run publishes", (*shared).replays)
	check("Last finds the newest messages", (*shared).lasts)
	if c.tooLarge > 0 {
		check("a message that is too large", (*shared).refusesTooLarge)
	}
	if c.away != nil {
		check("a log that cannot be reached", (*shared).isAway)
	}
	if c.anew != nil {
		check("a log that begins anew", (*shared).beginsAnew)
	}
}

// Away gives TestBackplane functions that make the log unreachable for all nodes, and reachable again.
func Away(cut, restore func(t testing.TB)) Option {
	return option(func(c *config) { c.away = []func(testing.TB){cut, restore} })
}

// TooLarge tells TestBackplane that the log takes no message with n bytes of Data.
func TooLarge(n int) Option { return option(func(c *config) { c.tooLarge = n }) }

// Anew gives TestBackplane a function that deletes the log, so that it begins anew.
func Anew(f func(t testing.TB)) Option { return option(func(c *config) { c.anew = f }) }

// backplaneRule is a rule of tailcast.Backplane by its number.
func backplaneRule(n int) rule { return rule{fmt.Sprint("Backplane rule ", n), backplaneRules[n-1]} }

// The words are those of backplane.go.
var (
	backplaneRules = []string{
		"Publish returns nil when the log has stored all of the messages.",
		"The same one, published again because it is not known whether it was stored, also after a restart of the program, is stored once.",
		"Run publishes what the log has stored, messages of its own hub included, in the log's order, each with its Position, and each as it was published: Topic, Data, Binary, Partial, Time, Gap and Origin.",
		"Positions of one Epoch grow by their Offset, over all topics.",
		"Before its first Publish it calls Join with the Position after which it begins: the first time the log's end, and later, as after an error, that of the last message whose Publish returned nil",
		"Replay reads the same log: its messages are those of Run.",
		"Publish, Replay and Last may be called before Run is, and concurrently with it.",
		"Publish returns a TooLargeError, and has stored nothing but what has a Pos, if a message has more Data than the log takes.",
	}
	lastRule = rule{"Backplane.Last", "Last returns the Position after which the n newest messages of a topic come, as the log is now; all of them, if there are fewer."}
	awayRule = rule{"Backplane rule 5", "While the log cannot be reached it calls Degraded, or returns an error."}
)

// shared is a log, and what connects nodes to it.
type shared struct {
	*suite
	node func(name string) tailcast.Backplane
}

// A member is a node whose Run goes on.
type member struct {
	*suite
	name   string
	b      tailcast.Backplane
	cancel context.CancelCauseFunc
	label  string
	done   chan struct{}
	err    error // when done is closed

	mu     sync.Mutex // guards the rest
	joins  []tailcast.Position
	at     []int // how many messages came before each join
	msgs   []tailcast.Message
	away   int  // how often it said so
	refuse int  // how many calls of Publish to refuse
	early  bool // a message came before Join
	more   chan struct{}
}

// run runs a node.
func (p *shared) run(name string, b tailcast.Backplane) *member {
	ctx, cancel := newContext()
	ctx, label := labelled(ctx)
	m := &member{suite: p.suite, name: name, b: b, cancel: cancel, label: label, done: make(chan struct{}), more: make(chan struct{})}
	p.Cleanup(func() { cancel(errOver) })
	go func() {
		defer close(m.done)
		adopt(ctx)
		m.err = b.Run(ctx, m)
	}()
	return m
}

// joined is run, until it has joined.
func (p *shared) joined(name string, b tailcast.Backplane) *member {
	p.Helper()
	m := p.run(name, b)
	if !m.until(func() bool { return len(m.joins) > 0 }) {
		p.broken(backplaneRule(5), "Join, soon", "it was not called within "+p.within.String())
		p.FailNow()
	}
	return m
}

// Publish is BackplanePublisher's.
func (m *member) Publish(_ context.Context, msgs ...tailcast.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuse > 0 {
		m.refuse--
		return errRefused
	}
	m.early = m.early || len(m.joins) == 0
	for i := range msgs {
		m.msgs = append(m.msgs, clone(msgs[i]))
	}
	m.news()
	return nil
}

// Join is BackplanePublisher's.
func (m *member) Join(at tailcast.Position) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joins, m.at = append(m.joins, at), append(m.at, len(m.msgs))
	m.news()
}

// Degraded is BackplanePublisher's.
func (m *member) Degraded(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.away++
		m.news()
	}
}

// news wakes until; mu is held.
func (m *member) news() {
	close(m.more)
	m.more = make(chan struct{})
}

// until waits until something is so; ok is called with mu.
func (m *member) until(ok func() bool) bool {
	timer := time.NewTimer(m.within)
	defer timer.Stop()
	for {
		m.mu.Lock()
		is, more := ok(), m.more
		m.mu.Unlock()
		if is {
			return true
		}
		select {
		case <-more:
		case <-m.done:
			m.mu.Lock()
			defer m.mu.Unlock()
			return ok()
		case <-timer.C:
			return false
		}
	}
}

// take waits for n messages, and returns those that there are.
func (m *member) take(n int) []tailcast.Message {
	m.Helper()
	if !m.until(func() bool { return len(m.msgs) >= n }) {
		m.mu.Lock()
		have := len(m.msgs)
		m.mu.Unlock()
		m.broken(backplaneRule(3), fmt.Sprintf("%d messages, since so many are stored", n), fmt.Sprintf("%d have come to node %s", have, m.name))
		m.FailNow()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.msgs)
}

// stop ends Run, and sees how.
func (m *member) stop() {
	m.Helper()
	m.cancel(errOver)
	if !m.await(m.done) {
		m.broken(sourceRule(4), "Run to return", fmt.Sprintf("it has not returned after %v:\n%s", m.within, m.running(m.label)))
		m.FailNow()
	}
	if !errors.Is(m.err, errOver) {
		m.broken(sourceRule(4), fmt.Sprintf("Run to return context.Cause(ctx), %q", errOver), fmt.Sprintf("it returned %v", m.err))
	}
	if stacks := m.left(m.label); stacks != "" {
		m.broken(leftRule, "no goroutine that Run has started", "these go on:\n"+stacks)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.early {
		m.broken(backplaneRule(5), "Join first", "Publish was called before it")
	}
	for i := 1; i < len(m.msgs); i++ {
		if a, b := m.msgs[i-1].Pos, m.msgs[i].Pos; a.Epoch == b.Epoch && a.Offset >= b.Offset {
			m.broken(backplaneRule(4), "an Offset above "+fmt.Sprint(a.Offset), show(m.msgs[i]))
		}
	}
}

// publish stores messages, or ends the check.
func (p *shared) publish(b tailcast.Backplane, msgs ...tailcast.Message) {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), p.within)
	defer cancel()
	if err := b.Publish(ctx, msgs...); err != nil {
		p.broken(backplaneRule(1), "nil", fmt.Sprintf("Publish returned %q", err))
		p.FailNow()
	}
}

// sample are messages with everything that a message can have.
func sample() []tailcast.Message {
	at := time.Unix(1700000000, 123456789)
	return []tailcast.Message{
		{Data: []byte("text"), Time: at},
		{Topic: "a.b c*>/ü$", Data: []byte{0, 1, 255}, Binary: true, Time: at},
		{Topic: "parts", Data: []byte("the first part"), Partial: true, Time: at.Add(1)},
		{Topic: "parts", Data: nil, Time: at.Add(2), Origin: "node.1f"},
		{Topic: "parts", Gap: &tailcast.Gap{Count: 3, Bytes: -1, Possible: true, Reason: "a rotation"}, Time: at.Add(3)},
		{Data: []byte("last"), Time: at.Add(4)},
	}
}

// alike reports how got is not what was published; "" if it is.
func alike(published, got tailcast.Message) string {
	switch {
	case published.Topic != got.Topic:
		return fmt.Sprintf("topic %q", got.Topic)
	case !bytes.Equal(published.Data, got.Data):
		return "other Data: " + show(got)
	case published.Binary != got.Binary || published.Partial != got.Partial:
		return fmt.Sprintf("Binary %v, Partial %v", got.Binary, got.Partial)
	case !published.Time.Equal(got.Time):
		return fmt.Sprint("another Time: ", got.Time)
	case published.Origin != got.Origin:
		return fmt.Sprintf("Origin %q", got.Origin)
	case (published.Gap == nil) != (got.Gap == nil):
		return show(got)
	case got.Pos.Epoch == 0:
		return "no Position"
	case got.Gap != nil:
		g := *got.Gap
		if g.From, g.To = (tailcast.Position{}), (tailcast.Position{}); g != *published.Gap {
			return fmt.Sprintf("another Gap: %+v", g)
		}
	}
	return ""
}

func (p *shared) oneOrder() {
	a, b := p.node("a"), p.node("b")
	p.publish(a, tailcast.Message{Data: []byte("before Run")}) // rule 7
	one, two := p.joined("a", a), p.joined("b", b)
	p.publish(a, sample()...)
	msgs := one.take(len(sample()))
	for i, want := range sample() {
		if what := alike(want, msgs[i]); what != "" {
			p.broken(backplaneRule(3), show(want)+", as it was published", what)
		}
	}
	const calls, each = 10, 5
	var wg sync.WaitGroup
	for n, from := range []tailcast.Backplane{a, b} {
		wg.Go(func() {
			for call := range calls {
				var batch []tailcast.Message
				for i := range each {
					batch = append(batch, tailcast.Message{Topic: "t", Data: fmt.Appendf(nil, "%d %d", n, call*each+i)})
				}
				p.publish(from, batch...)
			}
		})
	}
	wg.Wait()
	all := len(sample()) + 2*calls*each
	left, right := one.take(all), two.take(all)
	var next [2]int
	for i, m := range left[:all] {
		if i >= len(right) || m.Pos != right[i].Pos || !bytes.Equal(m.Data, right[i].Data) {
			p.broken(backplaneRule(3), "the same on both nodes", fmt.Sprintf("message %d is %s here, and %s there", i, show(m), show(right[min(i, len(right)-1)])))
			break
		}
		var n, k int
		if _, err := fmt.Sscanf(string(m.Data), "%d %d", &n, &k); m.Topic == "t" && err == nil {
			if k != next[n] {
				p.broken(backplaneRule(1), fmt.Sprintf("message %d of node %d next", next[n], n), show(m))
				break
			}
			next[n]++
		}
	}
	one.stop()
	two.stop()
}

func (p *shared) beginsAtTheEnd() {
	a := p.node("a")
	one := p.joined("a", a)
	p.publish(a, tailcast.Message{Data: []byte("1")}, tailcast.Message{Data: []byte("2")})
	last := one.take(2)[1].Pos
	two := p.joined("b", p.node("b"))
	if two.joins[0] != last {
		p.broken(backplaneRule(5), "Join with the log's end, "+last.String(), "it was called with "+two.joins[0].String())
	}
	p.publish(a, tailcast.Message{Data: []byte("3")})
	if m := two.take(1)[0]; string(m.Data) != "3" {
		p.broken(backplaneRule(5), "the message after the log's end", show(m))
	}
	one.stop()
	two.stop()
}

func (p *shared) goesOn() {
	a := p.node("a")
	one := p.joined("a", a)
	p.publish(a, tailcast.Message{Data: []byte("1")})
	last := one.take(1)[0].Pos
	one.mu.Lock()
	one.refuse = 1
	one.mu.Unlock()
	p.publish(a, tailcast.Message{Data: []byte("2")})
	if !p.await(one.done) {
		p.broken(sourceRule(2), "Run to return an error, since Publish has refused a message", "it goes on")
		p.FailNow()
	}
	if one.err == nil || permanent(one.err) {
		p.broken(sourceRule(2), "an error that is not Permanent", fmt.Sprintf("Run returned %v", one.err))
	}
	p.publish(a, tailcast.Message{Data: []byte("3")})
	again := p.joined("a", a)
	msgs := again.take(2)
	if again.joins[0] != last {
		p.broken(backplaneRule(5), "Join with the Position of the last message that was accepted, "+last.String(), "it was called with "+again.joins[0].String())
	}
	if string(msgs[0].Data) != "2" || string(msgs[1].Data) != "3" {
		p.broken(sourceRule(2), "the message that was refused, and the next one", show(msgs[0])+", "+show(msgs[1]))
	}
	again.stop()
}

func (p *shared) storedOnce() {
	at := func(n uint64, data string) tailcast.Message {
		return tailcast.Message{Data: []byte(data), Pos: tailcast.Position{Epoch: 7, Offset: n, Check: 5}}
	}
	watcher := p.joined("w", p.node("w"))
	parts := []tailcast.Message{at(30, "part"), at(30, "part"), at(30, "end")}
	parts[0].Partial, parts[1].Partial = true, true
	p.publish(p.node("a"), at(10, "1"), at(20, "2"))
	a := p.node("a") // started again
	p.publish(a, append([]tailcast.Message{at(10, "1"), at(20, "2")}, parts...)...)
	a = p.node("a")
	p.publish(a, parts...)
	end := tailcast.Message{Topic: "end"}
	p.publish(a, at(40, "3"), end, end, end) // so many that the wait is not for parts
	msgs := watcher.take(7)
	for i, want := range []string{"1", "2", "part", "part", "end", "3", ""} {
		if string(msgs[i].Data) != want {
			p.broken(backplaneRule(2), fmt.Sprintf("%q next", want), show(msgs[i]))
			break
		}
	}
	watcher.stop()
}

func (p *shared) refusesTooLarge() {
	watcher := p.joined("w", p.node("w"))
	b := p.node("a")
	message := func(n int) tailcast.Message { return tailcast.Message{Data: bytes.Repeat([]byte("x"), n)} }
	ctx, cancel := newContext()
	defer cancel(errOver)
	err := b.Publish(ctx, message(1), message(p.tooLarge), message(2))
	var large *tailcast.TooLargeError
	if !errors.As(err, &large) || large.Index != 1 || large.Limit < 1 || large.Limit >= p.tooLarge || !errors.Is(err, tailcast.ErrMessage) {
		p.broken(backplaneRule(8), "a TooLargeError for message 1", fmt.Sprintf("it returned %v", err))
		watcher.stop()
		return
	}
	p.publish(b, message(large.Limit))
	if m := watcher.take(1)[0]; len(m.Data) != large.Limit {
		p.broken(backplaneRule(8), fmt.Sprintf("first a message of %d bytes", large.Limit), show(m))
	}
	watcher.stop()
}

func (p *shared) publishEnds() {
	a := p.node("a")
	ctx, cancel := newContext()
	cancel(errOver)
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = a.Publish(ctx, tailcast.Message{})
	}()
	if !p.await(done) {
		p.broken(backplaneRule(1), "Publish to return, since its context is done", "it has not returned")
	} else if err != nil && !errors.Is(err, errOver) {
		p.broken(backplaneRule(1), "the cause of its context", fmt.Sprintf("Publish returned %q", err))
	}
}

func (p *shared) publishCopies() {
	a := p.node("a")
	one := p.joined("a", a)
	data := []byte("mine")
	p.publish(a, tailcast.Message{Data: data})
	if string(data) != "mine" {
		p.broken(bytesRule, "Data that stays as it is", fmt.Sprintf("%q", data))
	}
	copy(data, "XXXX")
	if m := one.take(1)[0]; string(m.Data) != "mine" {
		p.broken(bytesRule, "the bytes as they were when Publish was called", show(m))
	}
	one.stop()
}

func (p *shared) replays() {
	a := p.node("a")
	one := p.joined("a", a)
	for i := range 6 {
		p.publish(a, tailcast.Message{Topic: fmt.Sprint("t", i%2), Data: fmt.Append(nil, i)})
	}
	msgs := one.take(6)
	b := p.node("b") // which does not run: rule 7
	for _, topic := range []string{"t0", "t1"} {
		for from := -1; from < 5; from++ {
			after := tailcast.Earliest()
			if from >= 0 {
				after = msgs[from].Pos // of the other topic, too
			}
			var want []tailcast.Message
			for _, m := range msgs[from+1:] {
				if m.Topic == topic {
					want = append(want, m)
				}
			}
			if len(want) == 0 {
				continue
			}
			t := p.replay(b, place{topic: topic, after: after}, tapeOptions{})
			t.reach(want[len(want)-1].Pos)
			got, err := t.yielded()
			t.stop()
			for i, w := range want {
				switch {
				case i >= len(got):
					p.broken(backplaneRule(6), t.says(show(w)+" next"), fmt.Sprintf("nothing more came; error: %v", err))
				case got[i].Pos != w.Pos || alike(w, got[i]) != "":
					p.broken(backplaneRule(6), t.says(show(w)+" next"), show(got[i]))
				default:
					continue
				}
				return
			}
		}
	}
	one.stop()
}

func (p *shared) lasts() {
	a := p.node("a")
	one := p.joined("a", a)
	for i := range 8 {
		p.publish(a, tailcast.Message{Topic: fmt.Sprint("t", i%2), Data: fmt.Append(nil, i)})
	}
	msgs := one.take(8)
	for _, n := range []int{0, 1, 3, 4, 9} {
		at, err := a.Last(context.Background(), "t0", n)
		if err != nil {
			p.broken(lastRule, "no error", err.Error())
			return
		}
		behind := 0
		for _, m := range msgs {
			if m.Topic == "t0" && m.Pos.Offset > at.Offset {
				behind++
			}
		}
		if want := min(n, 4); behind != want || at.Epoch != msgs[0].Pos.Epoch {
			p.broken(lastRule, fmt.Sprintf("a Position with %d of the topic's 4 messages after it, for n = %d", want, n), fmt.Sprintf("%s, with %d", at, behind))
		}
	}
	if at, err := a.Last(context.Background(), "t1", 0); err != nil || at != msgs[7].Pos {
		p.broken(lastRule, "that of the newest message, "+msgs[7].Pos.String(), fmt.Sprintf("%s, %v", at, err))
	}
	if at, err := a.Last(context.Background(), "nothing", 5); err != nil || at.Epoch != msgs[0].Pos.Epoch || at.Offset >= msgs[0].Pos.Offset {
		p.broken(lastRule, "the place where the log begins, for a topic that has nothing", fmt.Sprintf("%s, %v", at, err))
	}
	one.stop()
}

func (p *shared) isAway() {
	a := p.node("a")
	one := p.joined("a", a)
	p.publish(a, tailcast.Message{Data: []byte("1")})
	last := one.take(1)[0].Pos
	p.away[0](p.TB)
	if !one.until(func() bool { return one.away > 0 }) && !one.over() {
		p.broken(awayRule, "one of both", "neither, within "+p.within.String())
	}
	done := make(chan struct{})
	ctx, cancel := newContext()
	defer cancel(errOver)
	var err error
	go func() {
		defer close(done)
		err = a.Publish(ctx, tailcast.Message{Data: []byte("2")}, tailcast.Message{Data: []byte("3")})
	}()
	p.settle(done)
	p.away[1](p.TB)
	if !p.await(done) || err != nil {
		p.broken(backplaneRule(1), "Publish to go on trying, and to return nil when the log can be reached", fmt.Sprintf("it returned %v", err))
		cancel(errOver)
		return
	}
	if one.over() {
		one = p.joined("a", a)
		one.msgs = append([]tailcast.Message{{}}, one.msgs...)
	}
	msgs := one.take(3)
	if string(msgs[1].Data) != "2" || string(msgs[2].Data) != "3" || len(msgs) > 3 {
		p.broken(backplaneRule(1), "each message once", fmt.Sprint(len(msgs), " messages: ", show(msgs[1]), ", ", show(msgs[2])))
	}
	one.mu.Lock()
	if at := one.joins[len(one.joins)-1]; len(one.joins) > 1 && at != last {
		p.broken(backplaneRule(5), "Join with the Position of the last message, "+last.String(), "it was called with "+at.String())
	}
	one.mu.Unlock()
	one.stop()
}

// over reports whether Run has returned.
func (m *member) over() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

func (p *shared) beginsAnew() {
	a := p.node("a")
	one := p.joined("a", a)
	p.publish(a, tailcast.Message{Data: []byte("1")}, tailcast.Message{Data: []byte("2")})
	old := one.take(2)[0].Pos
	p.anew(p.TB)
	p.publish(a, tailcast.Message{Data: []byte("3")})
	m := one.take(3)[2]
	one.mu.Lock()
	at, n := one.joins[len(one.joins)-1], one.at[len(one.at)-1]
	one.mu.Unlock()
	if m.Pos.Epoch == old.Epoch || at.Epoch != m.Pos.Epoch || n != 2 {
		p.broken(backplaneRule(5), "Join again, in the new Epoch, before its first message", fmt.Sprintf("Join with %s after %d messages, and then %s", at, n, show(m)))
	}
	t := p.replay(p.node("b"), place{after: old}, tapeOptions{})
	t.until(func() bool { return len(t.got) > 0 || t.err != nil })
	got, err := t.yielded()
	t.stop()
	if !errors.Is(err, tailcast.ErrUnknownPosition) && (len(got) == 0 || got[0].Gap == nil) {
		p.broken(backplaneRule(6), t.says("a Gap, or ErrUnknownPosition"), fmt.Sprintf("%d messages, %v", len(got), err))
	}
	one.stop()
}
