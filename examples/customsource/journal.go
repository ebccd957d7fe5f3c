package main

import (
	"context"
	"iter"
	"math/rand/v2"
	"sync"

	"github.com/tailcast/tailcast"
)

// A Journal is a list of lines that remembers all of them. It numbers its messages itself, with Position.Offset 1 for the
// first, and so can find the place of any Position again. One that outlives the process would keep its epoch with its lines.
type Journal struct {
	topic string
	epoch uint64
	sent  uint64 // how many are published; only Run touches it

	mu    sync.Mutex // guards the rest
	lines []string
	more  chan struct{} // closed at the next Append
}

var (
	_ tailcast.Source   = (*Journal)(nil)
	_ tailcast.Replayer = (*Journal)(nil)
)

func NewJournal(topic string) *Journal {
	return &Journal{topic: topic, epoch: rand.Uint64() | 1, more: make(chan struct{})}
}

func (j *Journal) Append(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	close(j.more)
	j.more = make(chan struct{})
}

// Run publishes every line once. If it is run again it goes on after the last line that was accepted.
func (j *Journal) Run(ctx context.Context, pub tailcast.Publisher) error {
	for ; ; j.sent++ {
		msg, err := j.after(ctx, j.sent)
		if err == nil {
			err = pub.Publish(ctx, msg)
		}
		if err != nil {
			return err
		}
	}
}

// Replay yields what comes after a Position, as Run publishes it. At the end it waits: the hub breaks off when it has caught up.
func (j *Journal) Replay(ctx context.Context, _ string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		if after == tailcast.Earliest() {
			after = tailcast.Position{Epoch: j.epoch}
		}
		if after.Epoch != j.epoch || after.Offset > j.len() {
			yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
			return
		}
		for n := after.Offset; ; n++ {
			msg, err := j.after(ctx, n)
			if !yield(msg, err) || err != nil {
				return
			}
		}
	}
}

// after returns the message that follows the first n, once it is there.
func (j *Journal) after(ctx context.Context, n uint64) (tailcast.Message, error) {
	for {
		j.mu.Lock()
		lines, more := j.lines, j.more
		j.mu.Unlock()
		if n < uint64(len(lines)) {
			pos := tailcast.Position{Epoch: j.epoch, Offset: n + 1}
			return tailcast.Message{Topic: j.topic, Data: []byte(lines[n]), Pos: pos}, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return tailcast.Message{}, context.Cause(ctx)
		}
	}
}

func (j *Journal) len() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(len(j.lines))
}
