package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strconv"

	natsgo "github.com/nats-io/nats.go"
)

// Where messages pass other servers on their way to the stream, or its leader may change, some that are on their way may be lost, and
// those that were sent after them stored: they would change places. There the messages of a call go as an atomic batch (NATS ADR-50): all
// of them are stored, next to each other, or none. A server before 2.12 does not know that, and one at a time is sent; so it is to a
// stream without replicas that another server has, since that server (2.12.6) would acknowledge a batch whose last message it could store.

const (
	headerBatch    = "Nats-Batch-Id"
	headerSequence = "Nats-Batch-Sequence"
	headerCommit   = "Nats-Batch-Commit"
)

const (
	// maxBatch and maxBatchBytes are how large a batch may be: a server takes 1000 messages, and gives them to the others as one.
	maxBatch      = 1000
	maxBatchBytes = 1 << 20
	// maxBatches is how many are on their way at the same time: a server takes 50 for a stream, of all nodes together.
	maxBatches = 4
)

// batchHeaders is how many bytes a message grows by in a batch, at most. One that would be too large then goes by itself.
var batchHeaders = headerBytes(natsgo.Header{headerBatch: {rand.Text()}, headerSequence: {strconv.Itoa(maxBatch)}, headerCommit: {"1"}})

var errNoBatch = &ackError{Description: "the server that leads the stream knows no batches"}

// sendInOrder sends messages that are not stored yet over a way on which some may be lost and later ones not.
func (b *Backplane) sendInOrder(ctx context.Context, s *session, out []outbound) error {
	for len(out) > 0 {
		n := 0
		for bytes := 0; s.batches.Load() && n < min(len(out), maxBatch); n++ {
			m := out[n].msg
			if bytes += len(m.Data); bytes > maxBatchBytes || len(m.Data)+headerBytes(m.Header)+batchHeaders > s.largest {
				break
			}
		}
		n = max(n, 1)
		if n > 1 && !out[0].doubt {
			err := b.sendBatch(ctx, s, out[:n])
			var refused *ackError
			if err != nil && !errors.As(err, &refused) {
				return err
			}
			if err == nil {
				out = out[n:]
				continue
			}
		}
		// A batch is refused where a message is stored already, which was tried before, and where there are too many batches. Some get no
		// answer from a server that is not the leader any more and does not know it yet, nor from one that leads, if it has dropped them.
		for i := range n {
			if err := b.sendSome(ctx, s, out[i:i+1]); err != nil {
				return err
			}
		}
		out = out[n:]
	}
	return nil
}

// sendBatch sends messages of which all are stored, or none.
func (b *Backplane) sendBatch(ctx context.Context, s *session, out []outbound) error {
	select {
	case b.batching <- struct{}{}:
		defer func() { <-b.batching }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	number, acks, forget := b.expect(1)
	defer forget()
	id := rand.Text()
	for i := range out {
		b.sends(&out[i])
		m := &natsgo.Msg{Subject: out[i].msg.Subject, Data: out[i].msg.Data, Header: maps.Clone(out[i].msg.Header)}
		m.Header[headerBatch], m.Header[headerSequence] = []string{id}, []string{strconv.Itoa(i + 1)}
		if i == len(out)-1 {
			m.Header[headerCommit] = []string{"1"}
			m.Reply = b.reply(number)
		}
		if err := s.publish(m); err != nil {
			return err
		}
	}
	var answer ack
	if err := b.collect(ctx, s, acks, 1, func(a ack) { answer = a }); err != nil {
		for i := range out {
			out[i].doubt = true
		}
		return err
	}
	switch {
	case answer.err != nil:
	case answer.batch != id: // the server is older than the one that has made the stream, and has stored each that it has got
		s.batches.Store(false)
		answer.err = errNoBatch
	default:
		for i := range out {
			out[i].stored = true
		}
	}
	return answer.err
}
