package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A reading is a consumer of the stream, from a sequence on: of all topics, or of one.
type reading struct {
	s    *session
	msgs chan jetstream.Msg
	errs chan error    // has room for one
	done chan struct{} // closed by close
	cons jetstream.ConsumeContext
	name string
	read uint64 // messages of this consumer: their numbers have no holes, or something was lost on the way
}

const (
	// readAhead is how much is on its way to a reading, in bytes; at least two messages of the largest size.
	readAhead = 4 << 20
	// beat is how often a server says that it is there, where there is nothing to read.
	beat = 2 * time.Second
	// idleTime is how long the server keeps a consumer that nobody reads: one of a node that was killed.
	idleTime = time.Minute
)

// read begins to read behind a sequence. filter is a topic's subject, or "".
func (s *session) read(ctx context.Context, after uint64, filter string) (*reading, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	cons, err := s.consumer(ctx, after, filter, false)
	if err != nil {
		return nil, err
	}
	r := &reading{s: s, msgs: make(chan jetstream.Msg, 256), errs: make(chan error, 1), done: make(chan struct{}), name: cons.CachedInfo().Name}
	r.cons, err = cons.Consume(func(m jetstream.Msg) {
		select {
		case r.msgs <- m:
		case <-r.done:
		}
	}, jetstream.PullMaxBytes(int(max(readAhead, 2*s.nc.MaxPayload()+1<<16))), jetstream.PullExpiry(5*beat), jetstream.PullHeartbeat(beat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if errors.Is(err, jetstream.ErrNoHeartbeat) || errors.Is(err, jetstream.ErrConsumerDeleted) ||
				errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrConnectionClosed) || errors.Is(err, jetstream.ErrBadRequest) {
				r.fail(err)
			}
		}))
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return r, nil
}

// consumer makes one.
func (s *session) consumer(ctx context.Context, after uint64, filter string, headers bool) (jetstream.Consumer, error) {
	c := jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1, FilterSubject: filter, HeadersOnly: headers,
		AckPolicy: jetstream.AckNonePolicy, MaxDeliver: 1, MemoryStorage: true, Replicas: 1, InactiveThreshold: idleTime,
	}
	cons, err := s.stream.CreateConsumer(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return cons, nil
}

func (r *reading) fail(err error) {
	select {
	case r.errs <- err:
	default:
	}
}

// next returns the next message, for which it waits.
func (r *reading) next(ctx context.Context) (jetstream.Msg, uint64, error) {
	select {
	case m := <-r.msgs:
		return r.take(m)
	default:
	}
	select {
	case m := <-r.msgs:
		return r.take(m)
	case err := <-r.errs:
		return nil, 0, fmt.Errorf("nats: %w", err)
	case <-r.s.gone:
		return nil, 0, fmt.Errorf("nats: the connection has ended: %w", r.s.reason())
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	case <-r.s.b.closed:
		return nil, 0, errClosed
	}
}

// more returns the next message if it has come.
func (r *reading) more() (m jetstream.Msg, seq uint64, ok bool, err error) {
	select {
	case m := <-r.msgs:
		m, seq, err = r.take(m)
		return m, seq, true, err
	default:
		return nil, 0, false, nil
	}
}

// take returns a message with its sequence, and sees that none was lost before it.
func (r *reading) take(m jetstream.Msg) (jetstream.Msg, uint64, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, 0, fmt.Errorf("nats: %w", err)
	}
	if r.read++; meta.Sequence.Consumer != r.read {
		return nil, 0, fmt.Errorf("nats: message %d of the consumer came where %d was due", meta.Sequence.Consumer, r.read)
	}
	return m, meta.Sequence.Stream, nil
}

// close ends it.
func (r *reading) close() {
	close(r.done)
	r.cons.Stop()
	if r.s.ended() == nil {
		go r.s.forget(r.name)
	}
}

// forget deletes a consumer. One that it cannot delete goes by itself.
func (s *session) forget(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.stream.DeleteConsumer(ctx, name)
}
