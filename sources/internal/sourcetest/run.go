// Package sourcetest is what the tests of the sources share.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A Run is a Source that is run again and again, as a hub does, but almost without its pauses.
type Run struct {
	Rec  tailcasttest.Recorder
	Errs chan error // of the runs, as many as there is room for

	t      testing.TB
	cancel context.CancelCauseFunc
	done   chan struct{}
}

var errOver = errors.New("the test is over")

// Start runs a Source until Stop is called, or the test is over.
func Start(t testing.TB, src tailcast.Source) *Run {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &Run{t: t, cancel: cancel, done: make(chan struct{}), Errs: make(chan error, 100)}
	go func() {
		defer close(r.done)
		for {
			err := src.Run(ctx, &r.Rec)
			select {
			case r.Errs <- err:
			default:
			}
			if errors.Is(err, errOver) {
				return
			}
			time.Sleep(time.Millisecond) // nothing is waited for: a broker that is down must not take the whole processor
		}
	}()
	t.Cleanup(r.Stop)
	return r
}

// Stop ends the Source, and returns when it has ended.
func (r *Run) Stop() {
	r.cancel(errOver)
	select {
	case <-r.done:
	case <-time.After(Patience):
		r.t.Error("Run has not returned")
	}
}

// Wait waits until n messages have been published.
func (r *Run) Wait(n int) []tailcast.Message {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := r.Rec.Wait(ctx, n); err != nil {
		r.t.Fatalf("%v\n%v", err, r.Rec.Messages())
	}
	return r.Rec.Messages()
}

// Texts returns what has been published so far, as Texts has it.
func (r *Run) Texts() []string { return Texts(r.Rec.Messages()) }

// Until waits until a message with this text has been published.
func (r *Run) Until(text string) {
	r.t.Helper()
	Eventually(r.t, "the message "+text, func() bool { return slices.Contains(r.Texts(), text) })
}

// Texts are messages as "topic: data", without the topic where it is "log".
func Texts(msgs []tailcast.Message) []string {
	out := make([]string, len(msgs))
	for i, m := range msgs {
		out[i] = string(m.Data)
		if m.Gap != nil {
			out[i] = fmt.Sprintf("gap of %d (possible: %v)", m.Gap.Count, m.Gap.Possible)
		}
		if m.Topic != "log" {
			out[i] = m.Topic + ": " + out[i]
		}
	}
	return out
}
