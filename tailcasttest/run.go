package tailcasttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/tailcast/tailcast"
)

// A run is one call of Run, on a goroutine of its own.
type run struct {
	s      *suite
	cancel context.CancelCauseFunc
	label  string
	pub    *guard
	done   chan struct{}

	unfinished bool // it has messages left: nil would be wrong, whatever the option Ends says

	// Set when done is closed.
	err      error
	returned bool // it has neither panicked nor called runtime.Goexit
	panicked string
}

// start calls Run with pub.
func (s *suite) start(src tailcast.Source, pub tailcast.Publisher) *run {
	ctx, cancel := newContext()
	return s.startWith(ctx, cancel, src, pub)
}

func (s *suite) startWith(ctx context.Context, cancel context.CancelCauseFunc, src tailcast.Source, pub tailcast.Publisher) *run {
	ctx, label := labelled(ctx)
	r := &run{s: s, cancel: cancel, label: label, pub: &guard{to: pub}, done: make(chan struct{})}
	s.Cleanup(func() { cancel(errOver) }) // where a check ends early
	go func() {
		defer close(r.done)
		defer r.pub.close()
		defer func() {
			if v := recover(); v != nil {
				r.panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
			}
		}()
		adopt(ctx)
		r.err = src.Run(ctx, r.pub)
		r.returned = true
	}()
	return r
}

// over reports whether Run has returned.
func (r *run) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// sound reports whether Run, which is over, has returned as a function does.
func (r *run) sound() bool {
	r.s.Helper()
	switch {
	case r.panicked != "":
		r.s.broken(panicRule, "no panic", "Run panicked: "+r.panicked)
	case !r.returned:
		r.s.broken(panicRule, "Run to return", "Run has ended its goroutine, with runtime.Goexit or a FailNow")
	}
	return r.returned
}

// stop cancels the context and sees that Run ends as rule 4 says.
func (r *run) stop() {
	r.s.Helper()
	before := r.over()
	r.cancel(errOver)
	r.stopped(before, "its context was cancelled")
}

// stopped sees that Run ends as rule 4 says, unless it had returned before, and leaves nothing behind.
func (r *run) stopped(before bool, when string) {
	r.s.Helper()
	expected := fmt.Sprintf("Run to return context.Cause(ctx), %q, when %s", errOver, when)
	switch {
	case !r.s.await(r.done):
		r.s.broken(sourceRule(4), expected, fmt.Sprintf("it has not returned after %v:\n%s", r.s.within, r.s.running(r.label)))
		r.s.FailNow() // What it publishes from now on would be in the way.
	case !r.sound() || before:
	case r.err == nil && (r.unfinished || !r.s.ends):
		r.s.broken(sourceRule(4), expected, "it returned nil, which says that it has finished for good (if it had just done that, see the option Ends)")
	case r.err != nil && !errors.Is(r.err, errOver):
		r.s.broken(sourceRule(4), expected, fmt.Sprintf("it returned %q, which does not wrap the cause", r.err))
	}
	r.clean()
}

// clean sees that Run, which is over, has left nothing behind, and has published as it should.
func (r *run) clean() {
	r.s.Helper()
	r.cancel(errOver)
	if stacks := r.s.left(r.label); stacks != "" {
		r.s.broken(leftRule, "no goroutine that Run has started", "these go on:\n"+stacks)
	}
	changed, late := r.pub.faults()
	if changed != "" {
		r.s.broken(bytesRule, "Data that stays as it is while Publish is called", changed)
	}
	if late != "" {
		r.s.broken(leftRule, "no Publish when Run has returned", late)
	}
}

// A guard is a Publisher that looks how it is called.
type guard struct {
	to tailcast.Publisher

	mu      sync.Mutex // guards the rest
	calls   int
	over    bool   // Run has returned
	changed string // what was wrong with the bytes, if anything
	late    string // what came when Run had returned
}

func (g *guard) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	if !g.enter(msgs) {
		return fmt.Errorf("tailcasttest: publish: Run has returned: %w", tailcast.ErrClosed)
	}
	g.hold(ctx)
	before := make([]tailcast.Message, len(msgs))
	for i := range msgs {
		before[i] = clone(msgs[i])
	}
	err := g.to.Publish(ctx, msgs...)
	runtime.Gosched() // to whoever would change them
	for i := range msgs {
		if !bytes.Equal(before[i].Data, msgs[i].Data) {
			g.mu.Lock()
			g.changed = fmt.Sprintf("the Data of message %d of a call was %.60q and became %.60q", i, before[i].Data, msgs[i].Data)
			g.mu.Unlock()
		}
	}
	return err
}

// hold slows down a Source that publishes without end, as a hub may: in a bubble no time would pass beside it.
func (g *guard) hold(ctx context.Context) {
	const fast = 100 // calls
	g.mu.Lock()
	g.calls++
	calls := g.calls
	g.mu.Unlock()
	if calls <= fast {
		return
	}
	timer := time.NewTimer(time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (g *guard) enter(msgs []tailcast.Message) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over && len(msgs) > 0 {
		g.late = show(msgs[0]) + " was published"
	}
	return !g.over
}

func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}

func (g *guard) faults() (changed, late string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed, g.late
}

// bring runs the Source until n messages have been published, and again after each error, as a hub does but without its pause. l, if
// not nil, is what refuses messages. It returns the last run, which may go on; or nil when something was wrong.
func (s *suite) bring(src tailcast.Source, rec *Recorder, n int, l *ledger) *run {
	s.Helper()
	const patience = 10 // runs that bring nothing
	idle, progress := 0, -1
	for {
		r := s.start(src, rec)
		if !s.reach(r, rec, n) {
			r.stop()
			if l.lost() {
				return nil
			}
			s.Fatalf("tailcasttest: the Source has published %d messages, and no more within %v; the suite needs %d: see Messages and Within",
				len(rec.Messages()), s.within, n)
		}
		have, _ := rec.state()
		if !r.over() {
			return r
		}
		if !s.mayEnd(src, r, have, n, l) {
			r.clean()
			return nil
		}
		if r.err == nil || have >= n {
			return r
		}
		r.clean()
		if now := have + l.refusals(); now > progress {
			idle, progress = 0, now
		} else if idle++; idle == patience {
			s.broken(sourceRule(2), fmt.Sprintf("Run to go on after message %d when it is run again", have),
				fmt.Sprintf("it failed %d times in a row without another message, at last with %q", patience, r.err))
			return nil
		}
	}
}

// reach waits until n messages are there or Run has returned. It reports false if neither happens while no message comes.
func (s *suite) reach(r *run, rec *Recorder, n int) bool {
	for {
		have, more := rec.state()
		if have >= n || r.over() {
			return true
		}
		timer := time.NewTimer(s.within)
		select {
		case <-more:
		case <-r.done:
		case <-timer.C:
			return false
		}
		timer.Stop()
	}
}

// mayEnd reports whether a run may have ended as it has.
func (s *suite) mayEnd(src tailcast.Source, r *run, have, n int, l *ledger) bool {
	s.Helper()
	_, once := src.(tailcast.SourceFunc)
	waiting, refused := l.waiting()
	switch {
	case !r.sound():
		return false
	case r.err == nil && refused:
		s.broken(sourceRule(1), "an error, since a message is left: "+show(waiting), "Run returned nil, though Publish had refused that message")
	case r.err == nil && !s.ends:
		s.broken(sourceRule(1), "Run to go on, or to return an error (a Source that finishes needs the option Ends)",
			fmt.Sprintf("it returned nil after %d messages", have))
	case r.err == nil && have < n:
		s.broken(sourceRule(1), fmt.Sprintf("at least %d messages, see the option Messages", n), fmt.Sprintf("Run returned nil after %d", have))
	case r.err == nil:
		return true
	case once && have < n:
		s.broken(sourceRule(5), fmt.Sprintf("at least %d messages before its first error", n),
			fmt.Sprintf("Run returned %q after %d, and that ends a SourceFunc", r.err, have))
	case permanent(r.err) && !s.final(r.err):
		s.broken(sourceRule(3), "an error that is not Permanent, since nothing has happened that another Run would not mend",
			fmt.Sprintf("Run returned Permanent(%q) after %d messages", r.err, have))
	default:
		return true
	}
	return false
}

// final reports whether an error of Publish's says that it would be the same again.
func (s *suite) final(err error) bool {
	return slices.ContainsFunc([]error{tailcast.ErrClosed, tailcast.ErrTopicOwner, tailcast.ErrTopicName, tailcast.ErrMessage},
		func(f error) bool { return errors.Is(err, f) })
}
