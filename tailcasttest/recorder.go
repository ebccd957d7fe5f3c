package tailcasttest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/tailcast/tailcast"
)

// A Recorder is a tailcast.Publisher that keeps copies of what is published, in order. Like a hub's, its Publish takes all messages
// of a call or none, and refuses them with the context's cause when the context is done.
//
// The zero value is ready. All methods may be called concurrently. It must not be copied.
type Recorder struct {
	mu   sync.Mutex // guards the rest
	msgs []tailcast.Message
	fail func(context.Context, []tailcast.Message) error
	more chan struct{} // closed when messages have come; nil while nobody waits for that
}

var _ tailcast.Publisher = (*Recorder)(nil)

// Publish keeps the messages, unless ctx is done or the function that Fail has set returns an error.
func (r *Recorder) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	if ctx.Err() != nil {
		return fmt.Errorf("tailcasttest: publish: %w", context.Cause(ctx))
	}
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, msgs); err != nil {
			return fmt.Errorf("tailcasttest: publish: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range msgs {
		r.msgs = append(r.msgs, clone(m))
	}
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
	return nil
}

// Messages returns what has been published so far. The slice is the caller's; the Data in it is shared and must not be changed.
func (r *Recorder) Messages() []tailcast.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.msgs)
}

// Wait blocks until at least n messages have been published, and returns nil; or until ctx is done, and returns its cause.
func (r *Recorder) Wait(ctx context.Context, n int) error {
	for {
		have, more := r.state()
		if have >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("tailcasttest: %d of %d messages were published: %w", have, n, context.Cause(ctx))
		}
	}
}

// Fail makes Publish ask f first, from now on. An error of f's refuses the messages of that call, all of them, and Publish returns it
// wrapped; with nil they are kept. f may block, as long as it heeds ctx; it may be called concurrently if Publish is, and must neither
// keep nor change what it is given. A nil f ends it.
//
//	n := 0
//	rec.Fail(func(context.Context, []tailcast.Message) error {
//		if n++; n == 3 {
//			return errors.New("not now") // the third call only
//		}
//		return nil
//	})
func (r *Recorder) Fail(f func(ctx context.Context, msgs []tailcast.Message) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = f
}

// state returns how many messages there are, and what is closed when that has changed.
func (r *Recorder) state() (n int, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.more == nil {
		r.more = make(chan struct{})
	}
	return len(r.msgs), r.more
}

// clone copies what a message points to.
func clone(m tailcast.Message) tailcast.Message {
	m.Data = bytes.Clone(m.Data)
	if m.Gap != nil {
		gap := *m.Gap
		m.Gap = &gap
	}
	return m
}
