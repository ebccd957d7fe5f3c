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

// A tape is one call of Replay, on a goroutine of its own, and what it has yielded.
type tape struct {
	s      *suite
	at     place
	opts   tapeOptions
	cancel context.CancelCauseFunc
	label  string
	done   chan struct{} // closed when the iterator has returned

	stopped bool
	ended   bool // it had returned before its context was cancelled; set by stop and endsWith
	freed   sync.Once

	mu       sync.Mutex // guards the rest
	more     chan struct{}
	got      []tailcast.Message
	err      error  // that was yielded
	over     string // why nothing must be yielded any more
	late     string // what was yielded then
	changed  string // what was wrong with the bytes
	panicked string
}

type tapeOptions struct {
	breakAt   int           // the message at which the consumer breaks; 0 for never
	hold      chan struct{} // the first yield returns when it is closed
	cancelled bool          // the context is done before Replay is called
}

func (s *suite) replay(from tailcast.Replayer, at place, opts tapeOptions) *tape {
	ctx, cancel := newContext()
	ctx, label := labelled(ctx)
	t := &tape{s: s, at: at, opts: opts, cancel: cancel, label: label, done: make(chan struct{}), more: make(chan struct{})}
	if opts.cancelled {
		cancel(errOver)
	}
	s.Cleanup(func() { // where a check ends early
		cancel(errOver)
		t.release()
	})
	go func() {
		defer close(t.done)
		defer func() {
			v := recover()
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.over == "" {
				t.over = "the iterator had returned"
			}
			if v != nil {
				t.panicked = fmt.Sprintf("%v\n%s", v, debug.Stack())
			}
		}()
		adopt(ctx)
		from.Replay(ctx, at.topic, at.after)(t.yield)
	}()
	return t
}

func (p *past) replay(at place, opts tapeOptions) *tape { return p.suite.replay(p.src, at, opts) }

// yield is what the body of a loop does.
func (t *tape) yield(m tailcast.Message, err error) bool {
	kept := clone(m)
	first, goOn := t.keep(kept, err)
	if !goOn {
		return false
	}
	if first && t.opts.hold != nil {
		<-t.opts.hold
	}
	runtime.Gosched() // to whoever would change the bytes
	t.mu.Lock()
	defer t.mu.Unlock()
	if !bytes.Equal(kept.Data, m.Data) {
		t.changed = fmt.Sprintf("it was %.60q and became %.60q", kept.Data, m.Data)
	}
	if t.opts.breakAt > 0 && len(t.got) >= t.opts.breakAt {
		t.over = "the consumer had broken off"
		return false
	}
	return true
}

func (t *tape) keep(m tailcast.Message, err error) (first, goOn bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	what := show(m)
	if err != nil {
		what = fmt.Sprintf("the error %q", err)
	}
	if t.over != "" {
		t.late = what + " was yielded when " + t.over
		return false, false
	}
	if err != nil {
		t.err = err
		t.over = "an error had been yielded"
	} else {
		t.got = append(t.got, m)
	}
	close(t.more)
	t.more = make(chan struct{})
	return err == nil && len(t.got) == 1, true
}

// until waits for something to be yielded. It reports false if the iterator has returned first, or nothing comes for too long.
func (t *tape) until(enough func() bool) bool {
	for {
		t.mu.Lock()
		more, there := t.more, enough()
		t.mu.Unlock()
		if there {
			return true
		}
		timer := time.NewTimer(t.s.within)
		select {
		case <-more:
		case <-t.done:
			t.mu.Lock()
			defer t.mu.Unlock()
			return enough()
		case <-timer.C:
			return false
		}
		timer.Stop()
	}
}

// reach waits for the message with a position.
func (t *tape) reach(p tailcast.Position) bool {
	return t.until(func() bool {
		return len(t.got) > 0 && t.got[len(t.got)-1].Pos == p || slices.ContainsFunc(t.got, func(m tailcast.Message) bool { return m.Pos == p })
	})
}

// release ends the first yield.
func (t *tape) release() {
	if t.opts.hold != nil {
		t.freed.Do(func() { close(t.opts.hold) })
	}
}

func (t *tape) yielded() ([]tailcast.Message, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.got, t.err
}

func (t *tape) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.got)
}

// says begins what was expected of the call.
func (t *tape) says(expected string) string { return "of Replay " + t.at.String() + ": " + expected }

// stop ends the call and looks how it has behaved. Later calls do nothing.
func (t *tape) stop() {
	t.s.Helper()
	if t.stopped {
		return
	}
	select {
	case <-t.done:
		t.ended = true
	default:
	}
	t.cancel(errOver)
	t.endsWith("whose context was cancelled")
}

// endsWith sees that the iterator ends, now that its context is done, and has behaved.
func (t *tape) endsWith(which string) {
	t.s.Helper()
	t.stopped = true
	t.release()
	if !t.s.await(t.done) {
		t.s.broken(replayerRule(5), t.says("to end soon, "+which), fmt.Sprintf("it has not returned after %v:\n%s", t.s.within, t.s.running(t.label)))
		t.s.FailNow()
	}
	t.mu.Lock()
	late, changed, panicked := t.late, t.changed, t.panicked
	wrong := t.err != nil && !t.ended && !errors.Is(t.err, errOver) && !errors.Is(t.err, context.Canceled) && !errors.Is(t.err, tailcast.ErrUnknownPosition)
	t.mu.Unlock()
	switch {
	case panicked != "":
		t.s.broken(replayLeft, "no panic", "Replay panicked: "+panicked)
	case late != "" && errors.Is(t.err, tailcast.ErrUnknownPosition):
		t.s.broken(replayerRule(3), t.says("to yield nothing more"), late)
	case late != "":
		t.s.broken(replayerRule(5), t.says("to yield nothing more"), late)
	case wrong:
		t.s.broken(replayerRule(5), t.says("no error but its context's cause, "+which), fmt.Sprintf("the error %q", t.err))
	}
	if changed != "" {
		t.s.broken(replayedBytes, t.says("Data that nobody changes"), changed)
	}
	if stacks := t.s.left(t.label); stacks != "" {
		t.s.broken(replayLeft, t.says("to leave no goroutine"), "these go on:\n"+stacks)
	}
}
