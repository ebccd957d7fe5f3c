package nats

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tailcast/tailcast"
)

// Replay is tailcast.Replayer's: a consumer of one topic. When its connection breaks it yields the error: the hub calls it again.
func (b *Backplane) Replay(ctx context.Context, topic string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		err := b.replay(ctx, topic, after, func(m tailcast.Message) bool { return yield(m, nil) })
		switch {
		case err == errBroken:
		case ctx.Err() != nil:
			yield(tailcast.Message{}, context.Cause(ctx))
		default:
			yield(tailcast.Message{}, err)
		}
	}
}

var errBroken = errors.New("the consumer has broken off")

func (b *Backplane) replay(ctx context.Context, topic string, after tailcast.Position, yield func(tailcast.Message) bool) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	from, gap, err := s.begin(ctx, after)
	if err != nil {
		return err
	}
	if gap != nil && !yield(tailcast.Message{Topic: topic, Gap: gap}) {
		return errBroken
	}
	r, err := s.read(ctx, from, b.topics+token(topic))
	if err != nil {
		return err
	}
	defer r.close()
	if gap == nil { // what has gone from the stream since it was looked at
		first, _, err := s.state(ctx)
		if err != nil {
			return err
		}
		if from+1 < first && after != tailcast.Earliest() {
			return fmt.Errorf("nats: what comes after %d has just gone from the stream", from)
		}
	}
	for {
		m, seq, err := r.next(ctx)
		if err != nil {
			return err
		}
		msg, err := b.message(m, s.at(seq))
		if err != nil {
			b.stats.foreign.Add(1)
			continue
		}
		if !yield(msg) {
			return errBroken
		}
	}
}

// begin returns the sequence after which a replay reads, and what is missing before that.
func (s *session) begin(ctx context.Context, after tailcast.Position) (from uint64, gap *tailcast.Gap, err error) {
	first, last, err := s.state(ctx)
	switch {
	case err != nil:
		return 0, nil, err
	case after == tailcast.Earliest():
		return first - 1, nil, nil
	case after.Check != 0:
		return 0, nil, tailcast.ErrUnknownPosition
	case after.Epoch != s.epoch:
		return first - 1, &tailcast.Gap{From: after, To: s.at(first - 1), Count: -1, Bytes: -1, Reason: "the log has begun anew"}, nil
	case after.Offset > last:
		return 0, nil, tailcast.ErrUnknownPosition
	case after.Offset+1 < first:
		return first - 1, &tailcast.Gap{
			From: after, To: s.at(first - 1), Count: -1, Bytes: -1, Possible: true, Reason: "no longer in the log",
		}, nil
	}
	return after.Offset, nil, nil
}

// Last is tailcast.Backplane's.
func (b *Backplane) Last(ctx context.Context, topic string, n int) (tailcast.Position, error) {
	s, err := b.session(ctx)
	if err != nil {
		return tailcast.Position{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*dialTime)
	defer cancel()
	seq, err := s.last(ctx, b.topics+token(topic), n)
	if err != nil {
		return tailcast.Position{}, err
	}
	return s.at(seq), nil
}

func (s *session) last(ctx context.Context, subject string, n int) (uint64, error) {
	first, end, err := s.state(ctx)
	if err != nil {
		return 0, err
	}
	newest, err := s.stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return first - 1, nil
	case err != nil:
		return 0, fmt.Errorf("nats: %w", err)
	case n == 0:
		return newest.Sequence, nil
	}
	end = max(end, newest.Sequence)
	return s.back(ctx, subject, first, end, uint64(n))
}

// few is how many messages are looked at one by one, their headers only.
const few = 256

// back returns the sequence behind which the n newest messages of a subject are, of those up to end. How many there are behind a
// sequence is something that the server knows.
func (s *session) back(ctx context.Context, subject string, first, end, n uint64) (uint64, error) {
	lo, hi := first-1, end // behind lo there are n or more, or it is the beginning; behind hi there are fewer
	for {
		cons, err := s.consumer(ctx, lo, subject, true)
		if err != nil {
			return 0, err
		}
		have := cons.CachedInfo().NumPending
		name := cons.CachedInfo().Name
		switch {
		case have <= n:
			s.forget(name)
			return lo, nil
		case have-n <= few:
			seq, err := nth(ctx, cons, have-n)
			s.forget(name)
			return seq, err
		}
		s.forget(name)
		for step := 0; ; step++ { // find a later lo: by what the share of the subject's messages lets expect, or halfway
			mid := lo + (hi-lo)/2
			if step == 0 {
				if guess := hi - min(uint64(float64(hi-lo)*float64(n+few/2)/float64(have)), hi-lo); guess > lo && guess < hi {
					mid = guess
				}
			}
			if mid == lo {
				return lo, nil
			}
			cons, err := s.consumer(ctx, mid, subject, true)
			if err != nil {
				return 0, err
			}
			behind := cons.CachedInfo().NumPending
			s.forget(cons.CachedInfo().Name)
			if behind >= n {
				lo = mid
				break
			}
			hi = mid
		}
	}
}

// nth returns the sequence of the n-th message of a consumer.
func nth(ctx context.Context, cons jetstream.Consumer, n uint64) (seq uint64, err error) {
	msgs, err := cons.Fetch(int(n), jetstream.FetchMaxWait(dialTime))
	if err != nil {
		return 0, fmt.Errorf("nats: %w", err)
	}
	got := uint64(0)
	for m := range msgs.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return 0, fmt.Errorf("nats: %w", err)
		}
		got, seq = got+1, meta.Sequence.Stream
	}
	if got != n {
		return 0, fmt.Errorf("nats: %d of %d messages came: %w", got, n, errors.Join(msgs.Error(), ctx.Err()))
	}
	return seq, nil
}
