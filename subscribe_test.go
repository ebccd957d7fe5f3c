package tailcast_test

import (
	"bytes"
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

// take returns what the first n messages say: their data, or how large a gap is.
func take(t *testing.T, seq messages, n int) (got []string) {
	t.Helper()
	if n == 0 {
		return nil
	}
	for m, err := range seq {
		switch {
		case err != nil:
			t.Fatalf("after %d messages: %v", len(got), err)
		case m.Gap != nil:
			got = append(got, fmt.Sprint("gap ", m.Gap.Count))
		default:
			got = append(got, string(m.Data))
		}
		if len(got) == n {
			break
		}
	}
	return got
}

// A looper ranges over a topic on a goroutine of its own, until it gets an error.
type looper struct {
	got  []tailcast.Message
	err  error
	done chan struct{}
}

func startLoop(seq messages) *looper {
	l := &looper{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for m, err := range seq {
			if l.err != nil {
				panic("something comes after an error")
			}
			if l.err = err; err == nil {
				l.got = append(l.got, m)
			}
		}
	}()
	return l
}

func (l *looper) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

func text(msgs []tailcast.Message) string {
	var s []string
	for _, m := range msgs {
		s = append(s, string(m.Data))
	}
	return strings.Join(s, " ")
}

func TestSubscribeBeginsWhereItIsAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.publish("1", "2", "3")
		now := s.hub.Subscribe(t.Context(), "", tailcast.Position{})
		s.publish("4") // before any loop over it begins
		a := startLoop(now)
		synctest.Wait()
		s.publish("5")
		b := startLoop(now) // the same once more, later
		all := startLoop(s.hub.Subscribe(t.Context(), "", tailcast.Earliest()))
		synctest.Wait()
		after := startLoop(s.hub.Subscribe(t.Context(), "", all.got[1].Pos))
		s.publish("6")
		synctest.Wait()
		for _, c := range []struct {
			l    *looper
			want string
		}{{a, "5 6"}, {b, "6"}, {all, "1 2 3 4 5 6"}, {after, "3 4 5 6"}} {
			if got := text(c.l.got); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		}
		last := all.got[5]
		if head, _ := s.hub.Head(""); last.Pos != head || last.Time.IsZero() || last.Topic != "" || last.Gap != nil {
			t.Errorf("%+v", last)
		}
	})
}

func TestSubscribeWaitsForATopicToComeIntoBeing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		now := startLoop(s.hub.Subscribe(t.Context(), "app", tailcast.Position{}))
		all := startLoop(s.hub.Subscribe(t.Context(), "app", tailcast.Earliest()))
		lost := startLoop(s.hub.Subscribe(t.Context(), "app", tailcast.Position{Epoch: 4711, Offset: 3}))
		time.Sleep(time.Hour)
		err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "app", Data: []byte("x"), Partial: true}, tailcast.Message{Topic: "app", Data: []byte{0xff}, Binary: true})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, l := range []*looper{now, all} {
			if len(l.got) != 2 || !l.got[0].Partial || l.got[0].Binary || !l.got[1].Binary || l.got[1].Partial || l.got[0].Topic != "app" {
				t.Errorf("got %+v", l.got)
			}
		}
		if len(lost.got) != 3 || lost.got[0].Gap == nil || lost.got[0].Gap.Count != -1 || lost.got[0].Gap.From.Epoch != 4711 {
			t.Errorf("from a foreign position: %+v", lost.got)
		}
	})
}

// A Source's gap stands at its place, and one can go on after it.
func TestSubscribeYieldsTheGapsOfASource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.publish("1")
		gap := &tailcast.Gap{Count: 3, Bytes: -1, Possible: true, Reason: "why"}
		if err := s.hub.Publish(t.Context(), tailcast.Message{Gap: gap}); err != nil {
			t.Fatal(err)
		}
		s.publish("2")
		l := startLoop(s.hub.Subscribe(t.Context(), "", tailcast.Earliest()))
		synctest.Wait()
		if len(l.got) != 3 || l.got[1].Gap == nil || *l.got[1].Gap != *gap || l.got[1].Data != nil {
			t.Fatalf("got %+v", l.got)
		}
		if got := take(t, s.hub.Subscribe(t.Context(), "", l.got[1].Pos), 1); got[0] != "2" {
			t.Errorf("after the gap: %q", got)
		}
	})
}

func TestASlowLoopIsToldWhatItHasMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}), tailcast.WithLagPolicy(tailcast.LagClose))
		var got []string
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		go func() {
			time.Sleep(time.Second)
			for n := 1; n <= 100; n++ {
				s.publish(fmt.Sprint(n))
			}
			time.Sleep(10 * time.Minute)
			cancel(enough)
		}()
		quick := startLoop(s.hub.Subscribe(t.Context(), "", tailcast.Position{}))
		var last error
		for m, err := range s.hub.Subscribe(ctx, "", tailcast.Position{}) {
			switch {
			case err != nil:
				last = err
			case m.Gap != nil:
				got = append(got, fmt.Sprint("gap ", m.Gap.Count, " of ", m.Gap.Bytes))
				if m.Pos != m.Gap.To {
					t.Errorf("a gap at %v leads to %v", m.Pos, m.Gap.To)
				}
			default:
				got = append(got, string(m.Data))
			}
			if len(got) == 1 {
				time.Sleep(time.Minute)
			}
		}
		if !errors.Is(last, enough) {
			t.Errorf("the end: %v", last)
		}
		sum := int64(0)
		for _, m := range quick.got {
			if sum++; m.Gap != nil {
				sum += m.Gap.Count - 1
			}
		}
		if quick.ended() || sum != 100 {
			t.Errorf("the quick one knows of %d messages", sum)
		}
		if joined := strings.Join(got, " "); !strings.HasSuffix(joined, "91 92 93 94 95 96 97 98 99 100") || !strings.Contains(joined, "gap ") {
			t.Errorf("got %s", joined)
		}
	})
}

func TestALoopCatchesUpWithOthersThroughTheReplayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 12_000 // three times what a replay keeps
		a := newArchive(past, 1000)
		s := newArchiveSite(t, a)
		var wg sync.WaitGroup
		watch := func(from, to int, pace time.Duration) {
			wg.Go(func() {
				pos := tailcast.Earliest()
				if from > 0 {
					pos = a.pos(from)
				}
				i := from
				for m, err := range s.hub.Subscribe(t.Context(), "", pos) {
					if i++; err != nil || string(m.Data) != a.text(i) || m.Pos != a.pos(i) {
						t.Errorf("from %d: %.60q, %v; want message %d", from, m.Data, err, i)
						return
					}
					if i == to {
						break
					}
					if i%100 == 0 {
						time.Sleep(pace)
					}
				}
			})
		}
		for i := range 20 {
			watch(i%3, past+10, 0)
		}
		client := s.reads(a, true, 0, past+10)
		wg.Wait()
		if err := client(); err != nil {
			t.Error(err)
		}
		if n, read := a.replays.Load(), a.read.Load(); n > 2 || read > past+past/4 {
			t.Errorf("%d replays read %d messages of %d", n, read, past)
		}
		watch(0, past+10, 300*time.Millisecond)
		watch(0, past+10, 7*time.Second) // so slow that replays rest meanwhile
		watch(0, past+10, 0)
		wg.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		if n := s.hub.Stats().CatchUps; n != 0 || a.active.Load() != 0 {
			t.Errorf("%d catch-ups, %d replays go on", n, a.active.Load())
		}
		if n := s.hub.Stats().Gaps; n != 0 {
			t.Errorf("%d gaps", n)
		}
	})
}

func TestAReplayThatFailsIsAGapInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 100
		a := newArchive(past, 10)
		a.fail = func(i int) error {
			if i == 50 {
				return tailcast.Permanent(errors.New("a bad sector"))
			}
			return nil
		}
		s := newArchiveSite(t, a)
		got := take(t, s.hub.Subscribe(t.Context(), "", a.pos(40)), 20)
		if got[8] != a.text(49) || got[9] != "gap -1" || got[10] != a.text(101) || got[19] != a.text(110) {
			t.Errorf("got %q", got)
		}
		got = take(t, s.hub.Subscribe(t.Context(), "", tailcast.Position{Epoch: 77, Offset: 3}), 2)
		if got[0] != "gap -1" || got[1] != a.text(101) {
			t.Errorf("from a foreign position: %q", got)
		}
	})
}

func TestALoopEndsWithOneError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("why")
		hub := tailcast.New()
		for name, c := range map[string]struct {
			topic string
			stop  func(cancel context.CancelCauseFunc)
			want  error
		}{
			"canceled before":     {"", func(c context.CancelCauseFunc) { c(why) }, why},
			"an impossible topic": {"a\nb", func(context.CancelCauseFunc) {}, tailcast.ErrTopicName},
			"canceled":            {"", func(c context.CancelCauseFunc) { time.AfterFunc(time.Minute, func() { c(why) }) }, why},
		} {
			for _, from := range []tailcast.Position{{}, tailcast.Earliest()} {
				ctx, cancel := context.WithCancelCause(t.Context())
				c.stop(cancel)
				l := startLoop(hub.Subscribe(ctx, c.topic, from))
				<-l.done
				cancel(nil)
				if !errors.Is(l.err, c.want) || len(l.got) > 0 {
					t.Errorf("%s, from %v: %v, %d messages", name, from, l.err, len(l.got))
				}
			}
		}
		waiting := startLoop(hub.Subscribe(t.Context(), "nothing", tailcast.Earliest()))
		synctest.Wait()
		if err := hub.Close(); err != nil {
			t.Fatal(err)
		}
		<-waiting.done
		after := startLoop(hub.Subscribe(t.Context(), "", tailcast.Position{}))
		<-after.done
		if !errors.Is(waiting.err, tailcast.ErrClosed) || !errors.Is(after.err, tailcast.ErrClosed) {
			t.Errorf("%v, %v; want ErrClosed", waiting.err, after.err)
		}
	})
}

func TestShutdownLetsLoopsFinish(t *testing.T) {
	for _, replay := range []bool{false, true} {
		t.Run(fmt.Sprint("replay ", replay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub, n := tailcast.New(), 200
				var last error
				if replay {
					hub = tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 10}))
					tp := &tape{data: numbered(1, n), next: make(chan int)}
					go hub.Run(t.Context(), tp)
					tp.next <- n
				} else {
					for range n {
						if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte("x")}); err != nil {
							t.Fatal(err)
						}
					}
				}
				synctest.Wait()
				got, done := 0, make(chan struct{})
				go func() {
					defer close(done)
					for _, err := range hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
						if last = err; err == nil {
							got++
							time.Sleep(time.Second)
						}
					}
				}()
				synctest.Wait()
				if err := hub.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				select {
				case <-done:
				default:
					t.Fatal("Shutdown has not waited")
				}
				if got != n || !errors.Is(last, tailcast.ErrClosed) {
					t.Errorf("%d messages of %d, %v", got, n, last)
				}
			})
		})
	}
}

// A loop whose body does not return holds Close up not at all, and nothing of the hub keeps running for it.
func TestCloseDoesNotWaitForLoops(t *testing.T) {
	for _, replay := range []bool{false, true} {
		t.Run(fmt.Sprint("replay ", replay), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArchive(3000, 1000)
				s := newArchiveSite(t, a)
				from := tailcast.Earliest()
				if !replay {
					from = tailcast.Position{}
					go func() { time.Sleep(time.Second); a.more <- 1 }()
				}
				got := 0
				var last error
				for _, err := range s.hub.Subscribe(t.Context(), "", from) {
					if last = err; err != nil {
						continue
					}
					got++
					began := time.Now()
					if err := s.hub.Close(); err != nil {
						t.Error(err)
					}
					if d := time.Since(began); d > time.Second {
						t.Errorf("Close took %v", d)
					}
					if n := a.active.Load(); n != 0 {
						t.Errorf("%d replays go on", n)
					}
				}
				if got != 1 || !errors.Is(last, tailcast.ErrClosed) {
					t.Errorf("%d messages, %v", got, last)
				}
			})
		})
	}
}

func TestShutdownWaitsForLoopsAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.publish("1", "2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := 0
		var last error
		for _, err := range s.hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
			if last = err; err == nil {
				got++
				began := time.Now()
				if err := s.hub.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 62*time.Second {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			}
		}
		if got != 1 || !errors.Is(last, tailcast.ErrClosed) {
			t.Errorf("%d messages, %v", got, last)
		}
	})
}

// However a loop ends, nothing of it is left: no goroutine, no topic, no replay.
func TestALoopLeavesNothingBehind(t *testing.T) {
	ends := map[string]func(seq messages){
		"break": func(seq messages) {
			for range seq {
				break
			}
		},
		"panic": func(seq messages) {
			defer func() { _ = recover() }()
			for range seq {
				panic("of the body")
			}
		},
		"Goexit": func(seq messages) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				for range seq {
					runtime.Goexit()
				}
			}()
			<-done
		},
		"Pull": func(seq messages) {
			next, stop := iter.Pull2(seq)
			next()
			stop()
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newArchive(8000, 1000)
				s := newArchiveSite(t, a)
				time.Sleep(time.Minute)
				synctest.Wait()
				goroutines, memory := runtime.NumGoroutine(), s.hub.Stats().Memory
				for i := range 50 {
					end(s.hub.Subscribe(t.Context(), "", a.pos(i*150)))
				}
				end(s.hub.Subscribe(t.Context(), "", a.pos(8005)))
				canceled, cancel := context.WithTimeout(t.Context(), time.Second)
				end(s.hub.Subscribe(canceled, "nobody knows it", tailcast.Earliest()))
				end(s.hub.Subscribe(canceled, "neither", tailcast.Position{}))
				cancel()
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := runtime.NumGoroutine(); n > goroutines+10 || a.active.Load() != 0 {
					t.Errorf("%d goroutines, %d before; %d replays go on", n, goroutines, a.active.Load())
				}
				if m := s.hub.Stats().Memory; m > memory {
					t.Errorf("%d bytes, %d before", m, memory)
				}
				if names := s.hub.TopicNames(); len(names) != 1 {
					t.Errorf("topics %q are left", names)
				}
			})
		})
	}
}

func TestSubscribeInHooksAndInLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub *tailcast.Hub
		var seen atomic.Value
		hub = tailcast.New(tailcast.WithOnConnect(func(c *tailcast.Conn) error {
			var got []string
			for m, err := range hub.Subscribe(c.Context(), "", tailcast.Earliest()) {
				if err != nil {
					return err
				}
				if got = append(got, string(m.Data)); len(got) == 2 {
					break
				}
			}
			seen.Store(strings.Join(got, " "))
			return nil
		}))
		s := serveSite(t, hub, hub)
		s.publish("1", "2")
		frames(t, s.ws("?since=earliest"), "1", "2")
		if seen.Load() != "1 2" {
			t.Errorf("the hook saw %q", seen.Load())
		}
		var got []string
		for outer := range hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
			if len(got) == 0 {
				s.publish("3")
			}
			for inner := range hub.Subscribe(t.Context(), "", outer.Pos) {
				got = append(got, string(outer.Data)+string(inner.Data))
				break
			}
			if len(got) == 2 {
				break
			}
		}
		if strings.Join(got, " ") != "12 23" {
			t.Errorf("got %q", got)
		}
	})
}

// What was yielded stays as it was, also when the log has long dropped it.
func TestYieldedDataStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 5}))
		l := startLoop(s.hub.Subscribe(t.Context(), "", tailcast.Position{}))
		synctest.Wait()
		buf := make([]byte, 1000)
		for i := range 1000 {
			for k := range buf {
				buf[k] = byte(i)
			}
			if err := s.hub.Publish(t.Context(), tailcast.Message{Data: buf}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for i, m := range l.got {
			if !bytes.Equal(m.Data, bytes.Repeat([]byte{byte(i)}, 1000)) || cap(m.Data) != len(m.Data) {
				t.Fatalf("message %d: % x…, capacity %d", i, m.Data[:4], cap(m.Data))
			}
		}
	})
}

// TestSubscribeModel runs random programs of publishers, slow loops, loops that break off and come back with their last
// position, and clients, with retentions so small that they lag. Message n of the topic says n, as in TestModel: each loop must
// see the numbers one after the other, or a gap that says how many are missing; with a Replayer no gap at all. Shutdown ends it:
// all must have come then.
func TestSubscribeModel(t *testing.T) {
	var gaps, replays atomic.Int32
	for seed := range uint64(soak(24)) {
		synctest.Test(t, func(t *testing.T) { subscribeModel(t, seed, &gaps, &replays) })
	}
	if gaps.Load() == 0 || replays.Load() == 0 {
		t.Errorf("%d gaps, %d replays: the programs do not reach what they are for", gaps.Load(), replays.Load())
	}
}

func subscribeModel(t *testing.T, seed uint64, gaps, replays *atomic.Int32) {
	rng := rand.New(rand.NewPCG(seed, 11))
	opts := []tailcast.Option{
		tailcast.WithRetention(tailcast.Retention{Messages: 1 + rng.IntN(30)}), tailcast.WithMaxReplays(1 + rng.IntN(3)),
		tailcast.WithLagPolicy(tailcast.LagPolicy(1 + seed/2%3)),
	}
	if seed%5 == 0 {
		opts = append(opts, tailcast.WithMemoryLimit(4<<20))
	}
	hub := tailcast.New(opts...)
	const total = 3000
	var tp *tape
	m := &modelRun{t: t}
	var publish func(n int)
	published := 0
	if seed%2 == 0 {
		tp = &tape{next: make(chan int)}
		for i := range total {
			tp.data = append(tp.data, m.data(i+1))
		}
		go hub.Run(t.Context(), tp)
		publish = func(n int) { tp.next <- n; published += n }
	} else {
		publish = func(n int) {
			msgs := make([]tailcast.Message, n)
			for i := range msgs {
				published++
				msgs[i].Data = []byte(m.data(published))
			}
			if err := hub.Publish(t.Context(), msgs...); err != nil {
				t.Error(err)
			}
		}
	}
	var wg sync.WaitGroup
	var closing atomic.Bool
	var next [6]int // of each loop
	for i := range next {
		rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
		from := tailcast.Position{}
		if rng.IntN(2) == 0 {
			from = tailcast.Earliest()
			if tp != nil {
				next[i] = 1
			}
		}
		slow := time.Duration(rng.IntN(4)*rng.IntN(30)) * time.Millisecond
		wg.Go(func() {
			fail := func(format string, args ...any) {
				t.Errorf("seed %d, loop %d: %s", seed, i, fmt.Sprintf(format, args...))
			}
			for over := false; !over; {
				left, came := 1+rng.IntN(200), false
				for msg, err := range hub.Subscribe(t.Context(), "", from) {
					switch {
					case over:
						fail("something comes after an error: %v", err)
						return
					case err != nil:
						if over = true; !errors.Is(err, tailcast.ErrClosed) {
							fail("%v", err)
						}
						if !came { // it came back when the hub was closing
							next[i] = 0
						}
						continue
					case msg.Gap != nil:
						gaps.Add(1)
						// Who was there before the first message, and missed that one, has no position to replay from.
						if msg.Gap.Count <= 0 || tp != nil && msg.Gap.From != (tailcast.Position{}) {
							fail("gap %+v", msg.Gap)
							return
						}
						if next[i] > 0 {
							next[i] += int(msg.Gap.Count)
						}
					default:
						var n int
						fmt.Sscan(string(msg.Data), &n)
						if next[i] > 0 && n != next[i] || string(msg.Data) != m.data(n) {
							fail("%.20q comes, %d is next", msg.Data, next[i])
							return
						}
						next[i] = n + 1
					}
					from = msg.Pos
					if rng.IntN(8) == 0 {
						time.Sleep(slow)
					}
					came = true
					if left--; left <= 0 && !closing.Load() {
						break
					}
				}
				if !over && rng.IntN(2) == 0 {
					time.Sleep(time.Duration(rng.IntN(200)) * time.Millisecond)
				}
			}
		})
	}
	for published < total-100 {
		publish(1 + rng.IntN(90))
		if rng.IntN(2) == 0 {
			time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		}
		if rng.IntN(10) == 0 {
			synctest.Wait()
		}
	}
	if rng.IntN(2) == 0 { // else Shutdown finds them far behind
		time.Sleep(time.Minute)
	}
	closing.Store(true)
	if err := hub.Shutdown(t.Context()); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
	wg.Wait()
	if tp != nil { // Shutdown may have stopped it before it had published all that it was told to
		published = int(tp.done.Load())
	}
	for i, n := range next {
		if n != 0 && n != published+1 {
			t.Errorf("seed %d, loop %d: ends before %d, %d are published", seed, i, n, published)
		}
	}
	if tp != nil {
		replays.Add(tp.replays.Load())
	}
}
