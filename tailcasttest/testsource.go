package tailcasttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/tailcast/tailcast"
)

// TestSource holds a Source to the contract of tailcast.Source. newSource makes one: each check calls it for a new one, with the
// subtest that it is for, whose Cleanup ends what the Source needs. By itself, soon, a new Source publishes at least as many
// messages as the option Messages says; it may be the same ones each time.
//
//	func TestQueue(t *testing.T) {
//		tailcasttest.TestSource(t, func(t testing.TB) *Queue { return NewQueue("a", "b", "c") }, tailcasttest.Bubble())
//	}
//
// What is checked: that the messages are fit for a hub and no position comes twice; that Run returns nil only when it has finished
// (rule 1); that after a refused Publish it is run again and goes on exactly there, with a Gap if it cannot (2); that it is not
// Permanent about what passes (3); that it ends with its context's cause, while it waits as well as while Publish does (4); that
// a SourceFunc does not count on being run again (5); that it leaves the bytes alone while Publish has them; that nothing of it
// goes on when it has returned.
//
// Messages of one topic are expected in the same order again, so a Source that publishes to a topic from several goroutines at the
// same time has to be tested with one of them.
//
// Where t is a *testing.T each check is a subtest. A Run that does not return ends the test.
func TestSource[S tailcast.Source](t testing.TB, newSource func(t testing.TB) S, opts ...Option) {
	t.Helper()
	c := newConfig(opts)
	c.check(t, "messages come and are fit", func(s *suite) { s.fit(newSource(s.TB)) })
	c.check(t, "a refused message comes again", func(s *suite) { s.refused(newSource(s.TB)) })
	c.check(t, "a context that is done before Run", func(s *suite) { s.doneBefore(newSource(s.TB)) })
	c.check(t, "a context that is cancelled while Publish waits", func(s *suite) { s.doneWhilePublishWaits(newSource(s.TB)) })
	c.check(t, "a context that is cancelled while Publish accepts", func(s *suite) { s.doneInPublish(newSource(s.TB)) })
}

// fit brings the first messages, looks at them, and ends the Source while it goes on.
func (s *suite) fit(src tailcast.Source) {
	var rec Recorder
	r := s.bring(src, &rec, s.messages, nil)
	if r == nil {
		return
	}
	if s.settle(r.done); r.over() && !s.mayEnd(src, r, s.messages, s.messages, nil) {
		r.clean()
		return
	}
	if s.ends && !s.await(r.done) {
		s.broken(sourceRule(1), "Run to return nil when it has finished, as the option Ends says", fmt.Sprint("it has not returned after ", s.within))
	}
	r.stop()
	hub := tailcast.New() // knows best what it takes
	defer func() {
		if err := hub.Close(); err != nil {
			s.Error(err)
		}
	}()
	seen := make(map[string]bool)
	for i, m := range rec.Messages() {
		if err := hub.Publish(context.Background(), m); err != nil {
			broken := fitRule
			if errors.Is(err, tailcast.ErrTopicOwner) || m.Pos != (tailcast.Position{}) && m.Pos.Epoch == 0 {
				broken = positionRule
			}
			s.broken(broken, "a message that a hub takes", fmt.Sprintf("message %d, %s: %v", i+1, show(m), err))
			return
		}
		if key := s.key(m); key != "" && seen[m.Topic+"\x00"+key] {
			s.broken(positionRule, "each message once", fmt.Sprintf("message %d, %s: %s has come before", i+1, show(m), key))
		} else {
			seen[m.Topic+"\x00"+key] = true
		}
	}
}

// refused refuses some calls of Publish, and sees that all that was refused comes again.
func (s *suite) refused(src tailcast.Source) {
	if _, once := src.(tailcast.SourceFunc); once {
		s.refusedOnce(src)
		return
	}
	var rec Recorder
	l := &ledger{s: s, refuses: func(call int) bool { return call%5 != 2 && call%5 != 0 }} // 1, 3, 4, 6, 8, 9
	rec.Fail(l.judge)
	r := s.bring(src, &rec, s.messages, l)
	rec.Fail(nil)
	if r != nil {
		r.stop()
	}
	l.report()
}

// refusedOnce refuses what a Source that is not run again publishes first.
func (s *suite) refusedOnce(src tailcast.Source) {
	var rec Recorder
	l := &ledger{s: s, refuses: func(call int) bool { return call == 1 }, rule: sourceRule(5)}
	rec.Fail(l.judge)
	r := s.start(src, &rec)
	s.reach(r, &rec, 1)
	if waiting, lost := l.waiting(); r.over() && r.sound() && r.err == nil && lost {
		s.broken(sourceRule(5), "an error, since Publish has refused "+show(waiting), "Run returned nil")
	}
	r.stop()
	l.report()
}

func (s *suite) doneBefore(src tailcast.Source) {
	ctx, cancel := newContext()
	cancel(errOver)
	r := s.startWith(ctx, cancel, src, new(Recorder))
	r.unfinished = true
	r.stopped(false, "it had been cancelled before Run was called")
}

func (s *suite) doneWhilePublishWaits(src tailcast.Source) {
	called, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var rec Recorder
	rec.Fail(func(ctx context.Context, _ []tailcast.Message) error {
		once.Do(func() { close(called) })
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-release:
			return errRefused
		}
	})
	r := s.start(src, &rec)
	if !s.await(called) {
		r.stop()
		s.Fatalf("tailcasttest: the Source has published nothing within %v", s.within)
	}
	r.cancel(errOver)
	if !s.await(r.done) {
		s.broken(sourceRule(4), "a Publish whose context ends with Run's", fmt.Sprintf("Publish was given one that goes on, and so waited for %v", s.within))
		close(release)
		s.await(r.done)
		r.clean()
		return
	}
	r.unfinished = true
	r.stopped(false, "it was cancelled while Publish waited")
}

func (s *suite) doneInPublish(src tailcast.Source) {
	var rec Recorder
	var r *run
	started := make(chan struct{})
	rec.Fail(func(context.Context, []tailcast.Message) error {
		<-started
		r.cancel(errOver)
		return nil
	})
	r = s.start(src, &rec)
	close(started)
	if !s.reach(r, &rec, 1) {
		r.stop()
		s.Fatalf("tailcasttest: the Source has published nothing within %v", s.within)
	}
	r.stopped(false, "it was cancelled while Publish was accepting a message")
}

var errRefused = errors.New("the suite refuses this message, for now")

// A ledger refuses some calls of Publish, and knows what has to come again.
type ledger struct {
	s       *suite
	refuses func(call int) bool
	rule    rule // that is broken when something else comes; Source rule 2 if it is zero

	mu      sync.Mutex // guards the rest
	calls   int
	refused int
	pending map[string][]tailcast.Message // by topic: what was refused and has not come again
	taken   map[string]bool
	wrong   []string // expected and happened, of the first fault
}

// judge is for Recorder.Fail.
func (l *ledger) judge(_ context.Context, msgs []tailcast.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	refuse := l.refuses(l.calls) && l.wrong == nil
	byTopic := make(map[string][]tailcast.Message)
	for _, m := range msgs {
		byTopic[m.Topic] = append(byTopic[m.Topic], clone(m))
	}
	if l.pending == nil {
		l.pending, l.taken = make(map[string][]tailcast.Message), make(map[string]bool)
	}
	for topic, msgs := range byTopic {
		l.expect(topic, msgs)
		if refuse {
			l.pending[topic] = longer(l.pending[topic], msgs)
		} else {
			l.pending[topic] = l.pending[topic][min(len(msgs), len(l.pending[topic])):]
			l.take(topic, msgs)
		}
	}
	if refuse {
		l.refused++
		return errRefused
	}
	return nil
}

// expect compares what comes with what has to come again.
func (l *ledger) expect(topic string, msgs []tailcast.Message) {
	pending := l.pending[topic]
	for i := 0; i < min(len(pending), len(msgs)); i++ {
		if l.s.same(pending[i], msgs[i]) {
			continue
		}
		if msgs[i].Gap == nil && !l.s.unrepeatable {
			l.fault("the refused message again, "+show(pending[i])+", or a Gap", "the next one in its topic was "+show(msgs[i]))
		}
		l.pending[topic] = nil
		return
	}
}

// take looks whether a message was accepted before.
func (l *ledger) take(topic string, msgs []tailcast.Message) {
	for _, m := range msgs {
		key := l.s.key(m)
		if key == "" {
			continue
		}
		if l.taken[topic+"\x00"+key] {
			l.fault("what was accepted not to come again", show(m)+" came twice: "+key)
		}
		l.taken[topic+"\x00"+key] = true
	}
}

func (l *ledger) fault(expected, happened string) {
	if l.wrong == nil {
		l.wrong = []string{expected, happened}
	}
}

func longer(a, b []tailcast.Message) []tailcast.Message {
	if len(a) > len(b) {
		return a
	}
	return b
}

// waiting returns a message that was refused and has not come again.
func (l *ledger) waiting() (tailcast.Message, bool) {
	if l == nil || l.s.unrepeatable {
		return tailcast.Message{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, msgs := range l.pending {
		if len(msgs) > 0 {
			return msgs[0], true
		}
	}
	return tailcast.Message{}, false
}

// lost reports whether something is wrong that explains why no more messages come. A refused message that does not come is.
func (l *ledger) lost() bool {
	m, waits := l.waiting()
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if waits {
		l.fault("the refused message again, "+show(m), fmt.Sprint("nothing came within ", l.s.within))
	}
	return l.wrong != nil
}

func (l *ledger) refusals() int {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// report says what was wrong. No Run goes on.
func (l *ledger) report() {
	l.s.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.rule
	if r.name == "" {
		r = sourceRule(2)
	}
	if l.wrong != nil {
		l.s.broken(r, l.wrong[0], l.wrong[1])
	}
}
