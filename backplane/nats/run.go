package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tailcast/tailcast"
)

// batch is how many messages go to the hub at a time, if so many have come.
const batch = 256

// Run is tailcast.Source's. Only what the hub refuses ends it, and what no other try would mend.
func (b *Backplane) Run(ctx context.Context, pub tailcast.Publisher) error {
	to, ok := pub.(tailcast.BackplanePublisher)
	if !ok {
		return tailcast.Permanent(fmt.Errorf("nats: %T is no BackplanePublisher", pub))
	}
	b.mu.Lock()
	b.pub = to
	b.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { b.beatOn(ctx) })
	defer func() {
		cancel(nil)
		beats.Wait()
		b.mu.Lock()
		b.pub = nil
		b.mu.Unlock()
	}()
	for {
		s, err := b.session(ctx)
		if err == nil {
			var refused bool
			if refused, err = b.follow(ctx, s, to); refused && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-b.closed:
			return tailcast.Permanent(errClosed)
		default:
		}
		if errors.Is(err, errUnfit) {
			return tailcast.Permanent(err)
		}
		to.Degraded(err)
		_ = b.sleep(ctx, firstPause) // the loop sees why it ended
	}
}

// follow publishes what the stream has, until something is wrong. refused says that it is the hub that does not take it.
func (b *Backplane) follow(ctx context.Context, s *session, to tailcast.BackplanePublisher) (refused bool, err error) {
	first, last, err := s.state(ctx)
	if err != nil {
		s.close(err)
		return false, err
	}
	b.mu.Lock()
	at, seen := b.at, b.seen
	b.mu.Unlock()
	switch {
	case at == tailcast.Position{}:
		at, seen = s.at(last), last
	case at.Epoch == s.epoch && seen > last: // it has lost what it had acknowledged, be it only what was not tailcast's
		at, seen = s.at(last), last
	case at.Epoch != s.epoch, seen+1 < first:
		at, seen = s.at(first-1), first-1
	}
	r, err := s.read(ctx, seen, "")
	if err != nil {
		s.close(err)
		return false, err
	}
	defer r.close()
	to.Join(at)
	b.reached(at, seen)
	b.reading.Store(true)
	defer b.reading.Store(false)
	msgs := make([]tailcast.Message, 0, batch)
	flush := func() error {
		if len(msgs) == 0 {
			return nil
		}
		if err := to.Publish(ctx, msgs...); err != nil {
			return err
		}
		b.reached(msgs[len(msgs)-1].Pos, seen)
		clear(msgs)
		msgs = msgs[:0]
		return nil
	}
	for {
		m, seq, err := r.next(ctx)
		for more := true; more; {
			switch {
			case err != nil:
				if perr := flush(); perr != nil {
					return true, perr
				}
				return false, err
			case seq > seen+1: // something was taken out of the stream before it could be read
				if err := flush(); err != nil {
					return true, err
				}
				to.Join(s.at(seq - 1))
				b.reached(s.at(seq-1), seq-1)
			}
			seen = seq
			if msg, err := b.message(m, s.at(seq)); err != nil {
				b.stats.foreign.Add(1)
			} else {
				msgs = append(msgs, msg)
			}
			if len(msgs) == batch {
				break
			}
			m, seq, more, err = r.more()
		}
		if err := flush(); err != nil {
			return true, err
		}
	}
}

// at is the Position of a sequence.
func (s *session) at(seq uint64) tailcast.Position {
	return tailcast.Position{Epoch: s.epoch, Offset: seq}
}

// reached notes how far Run has come.
func (b *Backplane) reached(at tailcast.Position, seen uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at, b.seen = at, seen
}

// beatOn tells the other nodes that this one is there, while Run goes on, and sees whether the stream is still where it was found.
func (b *Backplane) beatOn(ctx context.Context) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if s := b.live(); s != nil {
				s.say(here)
				if s.direct { // nobody tells: what is sent as if it still were could change places
					_, _, _ = s.state(ctx)
				}
			}
		case <-ctx.Done():
			if s := b.live(); s != nil {
				s.say(bye)
			}
			return
		}
	}
}
