package tailcasttest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/tailcast/tailcast"
)

const epoch = 7

// A journal is a Source and a Replayer as it should be, unless it has a bug.
type journal struct {
	bug  string
	over <-chan struct{} // ends what a bug leaves behind
	sent uint64          // how many are published; only Run touches it
	fell bool            // Publish has failed; only Run touches it

	mu      sync.Mutex // guards the rest
	lines   []string
	expired int // of them
	more    chan struct{}

	reading sync.Mutex // held by a bug
	scratch []byte     // changed by a bug; guarded by mu
}

func newJournal(bug string, over <-chan struct{}) *journal {
	j := &journal{bug: bug, over: over, more: make(chan struct{})}
	for i := range 4 {
		j.append(fmt.Sprint("line ", i+1))
	}
	return j
}

func (j *journal) append(line string) {
	if j.bug == "its lock is held while yield runs" {
		j.reading.Lock()
		defer j.reading.Unlock()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	if j.scratch != nil {
		j.scratch[0] = 'x'
	}
	close(j.more)
	j.more = make(chan struct{})
}

func (j *journal) expire(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.expired = n
}

func (j *journal) oldest() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(j.expired)
}

func (j *journal) len() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return uint64(len(j.lines))
}

// after returns the message that follows the first n, once it is there.
func (j *journal) after(ctx context.Context, n uint64) (tailcast.Message, error) {
	for {
		j.mu.Lock()
		lines, more := j.lines, j.more
		j.mu.Unlock()
		if n < uint64(len(lines)) {
			return tailcast.Message{Data: []byte(lines[n]), Pos: tailcast.Position{Epoch: epoch, Offset: n + 1}}, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return tailcast.Message{}, context.Cause(ctx)
		}
	}
}

func (j *journal) Run(ctx context.Context, pub tailcast.Publisher) error {
	switch j.bug {
	case "it panics":
		panic("oh no")
	case "it fails for ever":
		return errors.New("no connection")
	case "it gives up for good":
		return tailcast.Permanent(errors.New("no connection"))
	case "it leaves a goroutine":
		go func() { <-j.over }()
	case "it publishes from a goroutine that it leaves":
		go func() {
			time.Sleep(time.Second)
			_ = pub.Publish(context.WithoutCancel(ctx), tailcast.Message{Data: []byte("late"), Pos: tailcast.Position{Epoch: epoch, Offset: 1000}})
		}()
	case "it begins at the first line each time":
		j.sent = 0
	}
	for {
		if j.bug == "it does not heed its context" && j.sent == j.len() {
			<-j.over
			return nil
		}
		if j.bug == "it returns nil when it has nothing more" && j.sent == j.len() {
			return nil
		}
		msg, err := j.after(ctx, j.sent)
		if err == nil {
			err = j.publish(ctx, pub, msg)
		}
		switch {
		case err == nil:
			j.sent++
			if j.fell && j.sent > 1 && strings.HasPrefix(j.bug, "after a failure it repeats the line before") {
				msg, err = j.after(ctx, j.sent-2)
				for err == nil && j.publish(ctx, pub, msg) != nil && ctx.Err() == nil {
				}
			}
			j.fell = false
		case j.bug == "it drops what is refused":
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			j.sent++
		case j.bug == "it advances before Publish":
			j.sent++
			return err
		case j.bug == "it returns nil when Publish fails":
			return nil
		case j.bug == "it gives up when Publish fails" && ctx.Err() == nil:
			return tailcast.Permanent(err)
		case j.bug == "it returns nil when it is cancelled" && ctx.Err() != nil:
			return nil
		case j.bug == "it hides the cause" && ctx.Err() != nil:
			return errors.New("stopped")
		default:
			j.fell = true
			return err
		}
	}
}

func (j *journal) publish(ctx context.Context, pub tailcast.Publisher, msg tailcast.Message) error {
	switch j.bug {
	case "its Publish has a context of its own":
		ctx = context.WithoutCancel(ctx)
	case "its topic is not text":
		msg.Topic = "\xff"
	case "it has no epoch":
		msg.Pos.Epoch = 0
	case "some messages have no position":
		if j.sent == 1 {
			msg.Pos = tailcast.Position{}
		}
	case "it has no positions", "after a failure it repeats the line before, without a position":
		msg.Pos = tailcast.Position{}
	case "its positions repeat":
		msg.Pos.Offset = 1 + j.sent%2
	case "it changes the bytes while Publish has them":
		ctx = meddler{ctx, func() { msg.Data[0]++ }}
	}
	return pub.Publish(ctx, msg)
}

func (j *journal) Replay(ctx context.Context, _ string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		if j.bug == "two cannot read at the same time" {
			j.reading.Lock()
			defer j.reading.Unlock()
		}
		n, gap, known := j.place(after)
		if !known {
			j.unknown(ctx, yield)
			return
		}
		if gap != nil && !yield(tailcast.Message{Gap: gap}, nil) {
			return
		}
		if j.bug == "its replay leaves a goroutine" {
			go func() { <-j.over }()
		}
		for ; ; n++ {
			if n == j.len() {
				switch j.bug {
				case "its replay ends at the end":
					return
				case "its replay fails at the end":
					yield(tailcast.Message{}, errors.New("end of file"))
					return
				case "its replay does not heed its context":
					<-j.over
					return
				}
			}
			msg, err := j.after(ctx, n)
			if err != nil {
				if j.bug == "its replay has an error of its own when it is cancelled" {
					err = errors.New("stopped")
				}
				yield(tailcast.Message{}, err)
				return
			}
			if !j.yield(msg, yield) {
				return
			}
		}
	}
}

// place says where a replay begins.
func (j *journal) place(after tailcast.Position) (n uint64, gap *tailcast.Gap, known bool) {
	if after == tailcast.Earliest() {
		if j.bug == "it takes Earliest for a position" {
			return 0, nil, false
		}
		n = j.oldest()
		if j.bug == "Earliest is after the first message" {
			n = max(n, 1)
		}
		return n, nil, true
	}
	if (after.Epoch != epoch || after.Offset > j.len()) && j.bug != "it knows every position" {
		return 0, nil, false
	}
	n = after.Offset
	switch j.bug {
	case "its replay begins one too late":
		n++
	case "its replay repeats the message itself":
		n--
	}
	if old := j.oldest(); n < old {
		if j.bug != "it does not declare what has expired" {
			gap = &tailcast.Gap{From: after, Count: int64(old - n), Bytes: -1, Reason: "expired"}
		}
		n = old
	}
	return n, gap, true
}

func (j *journal) unknown(ctx context.Context, yield func(tailcast.Message, error) bool) {
	switch j.bug {
	case "it says nothing of a foreign position":
	case "it has another error for a foreign position":
		yield(tailcast.Message{}, errors.New("no such place"))
	case "it waits at a foreign position":
		<-ctx.Done()
	case "it goes on after a foreign position":
		yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
		msg, _ := j.after(ctx, 0)
		yield(msg, nil)
	default:
		yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
	}
}

func (j *journal) yield(msg tailcast.Message, yield func(tailcast.Message, error) bool) bool {
	switch j.bug {
	case "its replay has other positions":
		msg.Pos.Offset += 100
	case "its replay has other data":
		msg.Data = append(msg.Data, '\n')
	case "its replay has other cuts":
		msg.Partial = true
	case "its replay leaves one out":
		if msg.Pos.Offset == 3 {
			return true
		}
	case "its lock is held while yield runs":
		j.reading.Lock()
		defer j.reading.Unlock()
	case "its bytes change while yield has them":
		j.mu.Lock()
		if j.scratch == nil {
			j.scratch = msg.Data // which append changes
		}
		j.mu.Unlock()
	case "its replay goes on after a break":
		if !yield(msg, nil) {
			yield(msg, nil)
			return false
		}
		return true
	case "its replay never ends":
		if !yield(msg, nil) {
			<-j.over
			return false
		}
		return true
	case "its replay panics":
		panic("oh no")
	}
	return yield(msg, nil)
}

// A meddler is a context that does something while it is asked, as another goroutine might.
type meddler struct {
	context.Context
	meddle func()
}

func (m meddler) Err() error {
	m.meddle()
	return m.Context.Err()
}
