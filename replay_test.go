package tailcast_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// An archive is a Source whose past is long, and which counts what is read of it.
type archive struct {
	size int    // bytes of a message
	step uint64 // between the offsets of two messages

	more chan int     // how many messages are to be published next
	n    atomic.Int64 // messages that there are
	skip int          // of these, those that were there before the source was first run

	fail func(i int) error // asked before message i is yielded

	replays, active, most, read atomic.Int64
}

func newArchive(past, size int) *archive {
	a := &archive{size: size, step: uint64(size), more: make(chan int), skip: past}
	a.n.Store(int64(past))
	return a
}

func (a *archive) text(i int) string {
	s := fmt.Sprint("message ", i, " ")
	return s + strings.Repeat("x", max(a.size-len(s), 0))
}

func (a *archive) message(i int) tailcast.Message {
	return tailcast.Message{Data: []byte(a.text(i)), Pos: a.pos(i)}
}

// pos is the position of message i, which counts from 1.
func (a *archive) pos(i int) tailcast.Position {
	return tailcast.Position{Epoch: 5, Offset: uint64(i) * a.step}
}

func (a *archive) Run(ctx context.Context, pub tailcast.Publisher) error {
	for i := a.skip; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case n := <-a.more:
			for n > 0 {
				batch := make([]tailcast.Message, 0, 64)
				for ; n > 0 && len(batch) < cap(batch); n-- {
					i++
					batch = append(batch, a.message(i))
				}
				a.n.Store(int64(i))
				if err := pub.Publish(ctx, batch...); err != nil {
					return err
				}
			}
		}
	}
}

func (a *archive) Replay(ctx context.Context, _ string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		a.replays.Add(1)
		a.most.Store(max(a.most.Load(), a.active.Add(1)))
		defer a.active.Add(-1)
		if after == tailcast.Earliest() {
			after = tailcast.Position{Epoch: 5}
		}
		if after.Epoch != 5 || after.Offset%a.step != 0 {
			yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
			return
		}
		for i := int(after.Offset/a.step) + 1; ctx.Err() == nil; i++ {
			for i > int(a.n.Load()) && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			if a.fail != nil {
				if err := a.fail(i); err != nil {
					yield(tailcast.Message{}, err)
					return
				}
			}
			a.read.Add(1)
			if !yield(a.message(i), nil) {
				return
			}
		}
	}
}

// newArchiveSite serves an archive, of which the newest 10 messages are in memory.
func newArchiveSite(t *testing.T, a *archive, opts ...tailcast.Option) *site {
	s := newSite(t, append([]tailcast.Option{tailcast.WithRetention(tailcast.Retention{Messages: 10})}, opts...)...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.hub.Run(ctx, a) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	a.more <- 10
	synctest.Wait()
	return s
}

// reads makes a viewer that comes back to message from and expects all up to message to: over a WebSocket or as text.
func (s *site) reads(a *archive, ws bool, from, to int) (result func() error) {
	since := "?since=" + a.pos(from).String()
	if from == 0 {
		since = "?since=earliest"
	}
	done := make(chan error, 1)
	next := func() (string, error) { panic("not set") }
	if ws {
		c := s.ws(since)
		next = func() (string, error) { _, p, err := c.ReadFrame(); return string(p), err }
	} else {
		r := s.get(since)
		next = func() (string, error) { line, err := r.ReadString('\n'); return strings.TrimSuffix(line, "\n"), err }
	}
	go func() {
		for i := from + 1; i <= to; i++ {
			if got, err := next(); err != nil || got != a.text(i) {
				done <- fmt.Errorf("from %d: %.60q, %v; want message %d", from, got, err, i)
				return
			}
		}
		done <- nil
	}()
	return func() error { return <-done }
}

func TestViewersThatCatchUpShareWhatIsRead(t *testing.T) {
	const past = 3000
	viewers := 100
	if raced {
		viewers = 20
	}
	for name, from := range map[string]func(i int) int{
		"all from the beginning": func(int) int { return 0 },
		"each from its own place": func(i int) int {
			return 1 + i*7919%500
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArchive(past, 500)
				s := newArchiveSite(t, a)
				var results []func() error
				for i := range viewers {
					results = append(results, s.reads(a, i%2 == 0, from(i), past+10))
				}
				for _, result := range results {
					if err := result(); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if n, read := a.replays.Load(), a.read.Load(); n != 1 || read > past+10 {
					t.Errorf("%d replays read %d messages of %d", n, read, past)
				}
				if n := s.hub.Stats().CatchUps; n != 0 || a.active.Load() != 0 {
					t.Errorf("%d viewers still catch up; %d replays go on", n, a.active.Load())
				}
			})
		})
	}
}

func TestViewersMayLeaveAReplayMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 4000
		a := newArchive(past, 1000)
		s := newArchiveSite(t, a)
		idle := s.hub.Stats().Memory
		var results []func() error
		for i := range 10 {
			results = append(results, s.reads(a, i%2 == 0, 0, past+10))
			c := s.ws("?since=earliest")
			frames(t, c, a.text(1), a.text(2))
			if i%2 == 0 {
				c.Conn.Close()
			}
		}
		for _, result := range results {
			if err := result(); err != nil {
				t.Error(err)
			}
		}
		for c := range s.hub.Conns() {
			c.Close(nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		st := s.hub.Stats()
		if st.CatchUps != 0 || a.active.Load() != 0 || st.Memory > idle+64<<10 {
			t.Errorf("%d viewers catch up, %d replays go on, %d bytes of memory, %d before", st.CatchUps, a.active.Load(), st.Memory, idle)
		}
	})
}

func TestAReplayThatBreaksOffGoesOnForAllItsViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 3000
		a := newArchive(past, 1000)
		broken := make(map[int]bool)
		var mu sync.Mutex
		a.fail = func(i int) error {
			mu.Lock()
			defer mu.Unlock()
			if i%500 == 0 && !broken[i] {
				broken[i] = true
				return errors.New("the disk hiccups")
			}
			return nil
		}
		s := newArchiveSite(t, a)
		var results []func() error
		for i := range 20 {
			results = append(results, s.reads(a, i%2 == 0, 1+i%3, past+10))
		}
		for _, result := range results {
			if err := result(); err != nil {
				t.Error(err)
			}
		}
		if n := a.replays.Load(); n != 1+past/500 {
			t.Errorf("%d replays", n)
		}
	})
}

func TestAReplayThatFailsForGoodDeclaresTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 3000
		a := newArchive(past, 1000)
		a.fail = func(i int) error {
			if i == 2000 {
				return tailcast.Permanent(errors.New("a bad sector"))
			}
			return nil
		}
		s := newArchiveSite(t, a)
		for i := range 20 {
			r := s.sse("?since=earliest")
			go func() {
				for n := 1; n < 2000; n++ {
					if e, err := r.event(); err != nil || e.data != a.text(n) {
						t.Errorf("viewer %d: %+v, %v; want message %d", i, e, err, n)
						return
					}
				}
				e, err := r.event()
				if err != nil || e.name != "gap" || !strings.Contains(e.data, a.pos(1999).String()) {
					t.Errorf("viewer %d: %+v, %v; want a gap", i, e, err)
				}
				for n := past + 1; n <= past+10; n++ {
					if e, err := r.event(); err != nil || e.data != a.text(n) {
						t.Errorf("viewer %d: %+v, %v; want message %d", i, e, err, n)
						return
					}
				}
			}()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := s.hub.Stats(); st.CatchUps != 0 || st.Gaps != 20 || a.replays.Load() != 1 {
			t.Errorf("%d catch up, %d gaps, %d replays", st.CatchUps, st.Gaps, a.replays.Load())
		}
	})
}

func TestASlowViewerKeepsItsPlaceWhileOthersAreFarAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 12_000 // three times what is shared
		a := newArchive(past, 1000)
		s := newArchiveSite(t, a)
		slow := s.ws("?since=earliest")
		var results []func() error
		for i := range 4 {
			results = append(results, s.reads(a, i%2 == 0, 0, past+10))
		}
		rng := rand.New(rand.NewPCG(1, 2))
		at := 0
		for range 300 { // 100 KB/s, by fits and starts
			for range rng.IntN(20) {
				at++
				frames(t, slow, a.text(at))
			}
			time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
		}
		for _, result := range results {
			if err := result(); err != nil {
				t.Error(err)
			}
		}
		if n := a.replays.Load(); n < 2 {
			t.Errorf("%d replays: the slow viewer has never lost its place", n)
		}
		for at < past+10 {
			at++
			frames(t, slow, a.text(at))
		}
		if read := a.read.Load(); read > 3*past {
			t.Errorf("%d messages were read of %d", read, past)
		}
	})
}

func TestReplaysTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past, viewers = 40_000, 5
		a := newArchive(past, 1000)
		a.step = 1 << 30 // nobody is near anybody
		s := newArchiveSite(t, a, tailcast.WithMaxReplays(2))
		var results []func() error
		for i := range viewers {
			from := i * past / viewers
			results = append(results, s.reads(a, i%2 == 0, from, min(from+6000, past+10)))
		}
		for _, result := range results {
			if err := result(); err != nil {
				t.Error(err)
			}
		}
		if n := a.most.Load(); n != 2 {
			t.Errorf("%d replays at once", n)
		}
	})
}

func TestViewersThatStandStillInThePastAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const viewers = 50
		a := newArchive(100_000, 1000)
		a.step = 1 << 30
		s := newArchiveSite(t, a, tailcast.WithWriteTimeout(time.Hour), tailcast.WithPing(0, time.Second))
		before := s.hub.Stats().Memory
		for i := range viewers {
			c := s.ws("?since=" + a.pos(i*1000).String())
			frames(t, c, a.text(i*1000+1))
		}
		goroutines := runtime.NumGoroutine()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		st := s.hub.Stats()
		per := (st.Memory - before) / viewers
		t.Logf("%d bytes for each viewer, %d goroutines, %d before, %d messages read for each", per, runtime.NumGoroutine(), goroutines, a.read.Load()/viewers)
		if per > 4<<10 || a.active.Load() != 0 || st.Connections["websocket"] != viewers {
			t.Errorf("%d bytes for each of %d viewers, %d replays go on", per, st.Connections["websocket"], a.active.Load())
		}
	})
}

func TestAClientMayReadSoMuchOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 5000
		a := newArchive(past, 1000)
		s := newArchiveSite(t, a, tailcast.WithLimits(tailcast.Limits{ReplayBytes: 1 << 20}))
		r, ws := s.sse("?since=earliest"), s.ws("?since=earliest")
		n := 0
		for e, err := r.event(); e.name != "gap"; e, err = r.event() {
			if n++; err != nil || e.data != a.text(n) {
				t.Fatalf("%+v, %v; want message %d", e, err, n)
			}
		}
		if got := n * 1000; got < 1<<20 || got > 1<<20+128<<10 {
			t.Errorf("it got %d bytes", got)
		}
		for i := past + 1; i <= past+10; i++ {
			r.events(a.text(i))
		}
		closed(t, ws, 1013)
		if err := s.reads(a, true, past-1000, past+10)(); err != nil {
			t.Error(err)
		}
	})
}
