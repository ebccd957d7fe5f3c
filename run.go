package tailcast

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Run runs the sources and publishes what they bring, until all have ended or ctx is done. A Source that fails is run again
// after a pause, 100 ms at first, doubled up to 30 s as long as it goes on failing, with jitter. Run returns nil when ctx is
// done or the hub is shut down; otherwise the errors of the sources that ended with one, joined. It may be called several
// times, also concurrently.
func (h *Hub) Run(ctx context.Context, sources ...Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	leave, ok := h.enter(cancel)
	if !ok {
		return fmt.Errorf("tailcast: run: %w", ErrClosed)
	}
	defer leave()
	h.plane.wake()
	errs := make([]error, len(sources))
	var wg sync.WaitGroup
	for i, src := range sources {
		pub := &publisher{hub: h, source: src}
		run := &sourceRun{hub: h, pub: pub, name: fmt.Sprintf("%T", src)}
		h.addSource(run)
		wg.Go(func() {
			defer h.endSource(run)
			errs[i] = run.loop(ctx)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("tailcast: run: %w", err)
	}
	return nil
}

var _ TopicPublisher = (*publisher)(nil)

// A publisher is what one source publishes through.
type publisher struct {
	hub    *Hub
	source Source
	ended  atomic.Bool
	topics sync.Map // of *topic that it numbers
}

// Publish is Publisher.Publish.
func (p *publisher) Publish(ctx context.Context, msgs ...Message) error {
	if p.ended.Load() {
		return fmt.Errorf("tailcast: publish: the source has ended: %w", ErrClosed)
	}
	return p.hub.ingress(ctx, p, 0, msgs)
}

// begin: see topic.begin.
func (p *publisher) begin(topic string, r Replayer, at Position) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	if p.hub.plane != nil {
		return p.hub.plane.begin(p, topic)
	}
	t := p.hub.visit(topic)
	defer p.hub.part(t)
	p.topics.Store(t, nil)
	return t.begin(p, r, at)
}

// Head is TopicPublisher.Head.
func (p *publisher) Head(topic string) (Position, bool) {
	if p.hub.plane != nil { // its positions are not the Source's
		return Position{}, false
	}
	return p.hub.Head(topic)
}

// Begin is TopicPublisher.Begin.
func (p *publisher) Begin(topic string, after Position) error {
	err := ErrClosed
	if !p.ended.Load() && !p.hub.closing() {
		err = p.begin(topic, replayerOf(p), after)
	}
	if err != nil {
		return fmt.Errorf("tailcast: begin: %w", err)
	}
	return nil
}

// leave gives up a topic of which the source knows nothing any more.
func (p *publisher) leave(topic string) {
	if p.hub.plane != nil {
		p.hub.plane.disown(p, topic, false)
		return
	}
	t := p.hub.visit(topic)
	defer p.hub.part(t)
	p.topics.Delete(t)
	t.abandon(p)
}

// A sourceRun is one source in the care of Run.
type sourceRun struct {
	hub  *Hub
	pub  *publisher
	run  func(context.Context) error // in the place of the source's; nil: that
	name string
	over bool // guarded by Hub.mu

	mu       sync.Mutex // guards the rest
	state    string
	lastErr  error
	restarts int64
}

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

func (r *sourceRun) loop(ctx context.Context) error {
	pause := firstPause
	for {
		r.set("running", nil)
		began := time.Now()
		err := r.once(ctx)
		switch {
		case ctx.Err() != nil:
			r.set("stopped", nil)
			return nil
		case err == nil:
			r.set("finished", nil)
			return nil
		case !again(r.pub.source, err):
			r.set("failed", err)
			r.logFailed(ctx, err)
			return fmt.Errorf("source %s: %w", r.name, err)
		}
		if time.Since(began) > lastPause { // it had been well for a while
			pause = firstPause
		}
		r.set("waiting", err)
		r.logWaiting(ctx, err, pause)
		if !sleep(ctx, jitter(pause)) {
			r.set("stopped", err)
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// again reports whether a source is to be run again after err.
func again(src Source, err error) bool {
	var permanent *permanentError
	if errors.As(err, &permanent) {
		return false
	}
	for _, final := range []error{ErrClosed, ErrTopicOwner, ErrTopicName, ErrMessage} { // Publish would say so again
		if errors.Is(err, final) {
			return false
		}
	}
	_, once := src.(SourceFunc)
	return !once
}

// once runs the source, and turns a panic into an error.
func (r *sourceRun) once(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
			r.hub.panics.Add(1)
		}
	}()
	if r.run != nil {
		return r.run(ctx)
	}
	return r.pub.source.Run(ctx, r.pub)
}

func (r *sourceRun) set(state string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if state == "running" && r.state != "" {
		r.restarts++
	}
	r.state = state
	if err != nil {
		r.lastErr = err
	}
}

func (r *sourceRun) get() (state string, restarts int64, lastErr error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.restarts, r.lastErr
}

// jitter spreads d by 20 % around itself.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1)
}

// sleep waits for d and reports false if ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
