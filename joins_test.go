package tailcast_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// A ledger is a Source that publishes what it is given, in the same batches, and replays all of it as it was.
type ledger struct {
	give chan []tailcast.Message

	mu   sync.Mutex
	past []tailcast.Message
}

func newLedger() *ledger { return &ledger{give: make(chan []tailcast.Message)} }

// entry is message i of a ledger.
func entry(i int, data string) tailcast.Message {
	return tailcast.Message{Data: []byte(data), Pos: entryPos(i)}
}

func entryPos(i int) tailcast.Position { return tailcast.Position{Epoch: 9, Offset: uint64(i)} }

func entries(from, to int) (list []tailcast.Message) {
	for i := from; i <= to; i++ {
		list = append(list, entry(i, fmt.Sprint("message ", i)))
	}
	return list
}

func (l *ledger) Run(ctx context.Context, pub tailcast.Publisher) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case batch := <-l.give:
			l.mu.Lock()
			l.past = append(l.past, batch...)
			l.mu.Unlock()
			if err := pub.Publish(ctx, batch...); err != nil {
				return err
			}
		}
	}
}

// get returns entry i, and how many there are.
func (l *ledger) get(i int) (m tailcast.Message, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i < len(l.past) {
		m = l.past[i]
	}
	return m, len(l.past)
}

func (l *ledger) Replay(ctx context.Context, _ string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		i := 0
		for found := after == tailcast.Earliest(); !found; i++ {
			m, n := l.get(i)
			if i >= n {
				yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
				return
			}
			found = m.Pos == after
		}
		for ctx.Err() == nil {
			m, n := l.get(i)
			if i >= n {
				time.Sleep(time.Millisecond)
				continue
			}
			if i++; !yield(m, nil) {
				return
			}
		}
	}
}

// runs has the hub run a source until the end of the test, or until stop is called.
func (s *site) runs(t *testing.T, src tailcast.Source) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.hub.Run(ctx, src); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// gap expects a gap next.
func (r *reader) gap() (object string) {
	r.t.Helper()
	e, err := r.event()
	if err != nil || e.name != "gap" {
		r.t.Fatalf("event %+v, %v; want a gap", e, err)
	}
	return e.data
}

// Who asked for the newest messages before there was one gets all that come, or is told how many it missed.
func TestAFirstBatchLargerThanWhatIsKept(t *testing.T) {
	for name, replays := range map[string]bool{"numbered by the hub": false, "of a Source that replays": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
				l := newLedger()
				s.runs(t, l)
				r := s.sse("?tail=5")
				synctest.Wait()
				if replays {
					l.give <- entries(1, 30)
				} else {
					s.publish(numbered(1, 30)...)
				}
				if gap, want := r.gap(), `"count":20,`; !strings.Contains(gap, want) {
					t.Errorf("%s, want %s", gap, want)
				}
				r.events(numbered(21, 30)...)
			})
		})
	}
}

// A gap that has no position and is no longer in memory is declared to who comes back to the message before it.
func TestAGapWithoutAPositionIsNotForgotten(t *testing.T) {
	gap := tailcast.Message{Gap: &tailcast.Gap{Count: 5, Bytes: -1, Reason: "a reason"}}
	t.Run("by the Replayer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 1}))
			l := newLedger()
			s.runs(t, l)
			l.give <- append(append(entries(1, 1), gap), entries(2, 2)...)
			synctest.Wait()
			r := s.sse("?since=" + entryPos(1).String())
			if got := r.gap(); !strings.Contains(got, "a reason") {
				t.Error(got)
			}
			r.events("message 2")
			loop := startLoop(s.hub.Subscribe(t.Context(), "", entryPos(1)))
			time.Sleep(time.Second)
			synctest.Wait()
			if len(loop.got) != 2 || loop.got[0].Gap == nil || loop.got[1].Pos != entryPos(2) {
				t.Errorf("a loop got %+v", loop.got)
			}
		})
	})
	t.Run("without one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 1}))
			s.runs(t, tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
				return pub.Publish(ctx, append(append(entries(1, 1), gap), entries(2, 2)...)...)
			}))
			synctest.Wait()
			r := s.sse("?since=" + entryPos(1).String())
			r.gap()
			r.events("message 2")
		})
	})
}

// The parts of a line that was cut go the way of its first one also for who comes back in the middle of it, and where a replay
// ends in the middle of it.
func TestACutLineIsNotTornByAFilter(t *testing.T) {
	cut := func(i int, data string) tailcast.Message {
		m := entry(i, data)
		m.Partial = true
		return m
	}
	long := strings.Repeat("-", 100_000) // has its block to itself
	for name, c := range map[string]struct {
		line  []tailcast.Message
		keep  int
		query string
		want  []string
	}{
		"comes back":            {[]tailcast.Message{cut(2, "yes"), entry(3, "end")}, 10, "grep=yes&since=2", []string{"end"}},
		"comes back, far in":    {[]tailcast.Message{cut(2, "yes"), cut(3, long), cut(4, long), entry(5, "end")}, 10, "grep=yes&since=4", []string{"end"}},
		"did not pass":          {[]tailcast.Message{cut(2, "no"), entry(3, "yes")}, 10, "grep=yes&since=2", nil},
		"inverted":              {[]tailcast.Message{cut(2, "no"), entry(3, "yes")}, 10, "grep=^no$&invert=1&since=2", nil},
		"tail":                  {[]tailcast.Message{cut(2, "no"), entry(3, "yes")}, 10, "grep=yes&tail=1", nil},
		"replayed":              {[]tailcast.Message{cut(2, "yes"), entry(3, "end")}, 1, "grep=yes&since=1", []string{"yes", "end"}},
		"replayed, other block": {[]tailcast.Message{cut(2, "yes"+long), cut(3, long), entry(4, "end")}, 1, "grep=yes&since=1", []string{"yes" + long, long, "end"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: c.keep}))
				l := newLedger()
				s.runs(t, l)
				l.give <- append(entries(1, 1), c.line...)
				synctest.Wait()
				before, since, found := strings.Cut(c.query, "since=")
				if found {
					n, _ := strconv.Atoi(since)
					before += "since=" + entryPos(n).String()
				}
				ws := s.ws("?" + before)
				time.Sleep(time.Second)
				l.give <- []tailcast.Message{entry(100, "yes and no, after it")}
				frames(t, ws, append(c.want, "yes and no, after it")...)
			})
		})
	}
}

// A Replayer whose Source has a successor is at its end, and would wait there for ever. Its viewers go on with what there is now, and
// are told what they may have missed.
func TestViewersOfAReplayerThatHasASuccessor(t *testing.T) {
	for name, heir := range map[string]func(l *ledger) tailcast.Source{
		"that replays":  func(l *ledger) tailcast.Source { return l },
		"that does not": func(l *ledger) tailcast.Source { return tailcast.SourceFunc(l.Run) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const past = 3000 // more than is read ahead
				a := newArchive(past, 1000)
				s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
				stop := s.runs(t, a)
				a.more <- 10
				synctest.Wait()
				r := s.sse("?since=earliest") // and reads little of it
				r.events(a.text(1))
				hold := make(chan struct{})
				loop := startLoop(func(yield func(tailcast.Message, error) bool) {
					for m, err := range s.hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
						if <-hold; !yield(m, err) {
							return
						}
					}
				})
				time.Sleep(100 * time.Millisecond)
				stop()
				l := newLedger()
				s.runs(t, heir(l))
				l.give <- entries(1, 20)
				synctest.Wait()
				close(hold)
				time.AfterFunc(time.Minute, func() { r.nc.Close() })
				e, err := r.event()
				for i := 2; err == nil && e.name == ""; i++ {
					if e.data != a.text(i) {
						t.Fatalf("%+v, want message %d", e, i)
					}
					e, err = r.event()
				}
				if e.name != "gap" || err != nil {
					t.Fatalf("%+v, %v; want a gap", e, err)
				}
				r.events(numbered(11, 20)...)
				synctest.Wait()
				if n := len(loop.got); n < 11 || loop.got[n-11].Gap == nil || string(loop.got[n-1].Data) != "message 20" {
					t.Errorf("a loop got %d messages", n)
				}
			})
		})
	}
}

// A deaf Replayer does not return when it is told to.
type deaf struct {
	*ledger
	release chan struct{}
}

func (d deaf) Replay(context.Context, string, tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(func(tailcast.Message, error) bool) { <-d.release }
}

// A Replayer that does not return holds Close up for some seconds only, whoever has asked for it, and has left.
func TestCloseDoesNotWaitForAReplayer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 1}))
		d := deaf{newLedger(), make(chan struct{})}
		go hub.Run(t.Context(), d)
		d.give <- entries(1, 2)
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		for _, err := range hub.Subscribe(ctx, "", tailcast.Earliest()) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		}
		closed := make(chan error, 1)
		go func() { closed <- hub.Close() }()
		time.Sleep(11 * time.Second)
		select {
		case err := <-closed:
			if err == nil {
				t.Error("Close says that nothing is left running")
			}
		default:
			t.Error("Close waits for a Replayer")
		}
		close(d.release)
	})
}

// A gap may be the first thing that is published in a topic, at the same moment as its first message. (For the race detector.)
func TestAGapBesideTheFirstMessage(t *testing.T) {
	for range 1000 {
		hub := tailcast.New()
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for _, m := range []tailcast.Message{{Gap: &tailcast.Gap{Count: 1}}, {Gap: &tailcast.Gap{Count: 1}}, {Data: []byte("first")}} {
			wg.Go(func() {
				<-begin
				if err := hub.Publish(t.Context(), m); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if err := hub.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A replay lives for as long as its slowest viewer moves. Of the others, however many and with however many filters, nothing stays.
func TestFiltersLeaveNothingInALongReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const filters = 100
		a := newArchive(20_000, 1000)
		s := newArchiveSite(t, a, tailcast.WithWriteTimeout(time.Hour), tailcast.WithPing(0, time.Second))
		slow := s.ws("?since=" + a.pos(1).String())
		frames(t, slow, a.text(2))
		before := s.hub.MemoryUsed()
		for i := range filters {
			c := s.ws("?since=" + a.pos(2).String() + "&grep=" + url.QueryEscape(fmt.Sprint("message|", i)))
			frames(t, c, a.text(3))
			c.Conn.Close()
			synctest.Wait()
		}
		for i := range 100 {
			frames(t, slow, a.text(3+i))
			time.Sleep(time.Second)
		}
		if n := s.hub.ReplayEncodings(""); n != 1 || a.replays.Load() != 1 {
			t.Errorf("%d encodings are left of %d filters, in %d replays", n, filters, a.replays.Load())
		}
		if grown := s.hub.MemoryUsed() - before; grown > 5<<20 {
			t.Errorf("%d bytes more than before", grown)
		}
	})
}

// A careless Replayer yields what could not have been published.
type careless struct {
	*ledger
	odd tailcast.Message
}

func (c careless) Replay(ctx context.Context, _ string, _ tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		if yield(entry(1, "message 1"), nil) && yield(c.odd, nil) {
			<-ctx.Done()
		}
	}
}

// What a Replayer yields has to be fit to be published: a client could not come back to a Position that is none, for one. Where it is
// not, that is a gap, and not something that each client meets in its own way.
func TestAReplayedMessageHasToBeFit(t *testing.T) {
	for name, odd := range map[string]tailcast.Message{
		"no position":       {Data: []byte("odd")},
		"epoch 0":           {Data: []byte("odd"), Pos: tailcast.Position{Offset: 7}},
		"too large":         {Data: make([]byte, 3<<20), Pos: entryPos(2)},
		"a gap with Data":   {Data: []byte("odd"), Pos: entryPos(2), Gap: &tailcast.Gap{}},
		"a reason too long": {Pos: entryPos(2), Gap: &tailcast.Gap{Reason: strings.Repeat("x", 2000)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}), tailcast.WithMemoryLimit(8<<20))
				l := newLedger()
				s.runs(t, careless{l, odd})
				l.give <- entries(1, 30)
				synctest.Wait()
				r := s.sse("?since=earliest")
				time.AfterFunc(time.Minute, func() { r.nc.Close() })
				r.events("message 1")
				if gap, want := r.gap(), `"from":"`+entryPos(1).String()+`"`; !strings.Contains(gap, want) {
					t.Errorf("%s, want %s", gap, want)
				}
				r.events(numbered(21, 30)...)
			})
		})
	}
}

// What a filter leaves out of an event stream or text with several topics, which is copied for each viewer, takes no memory.
func TestWhatIsLeftOutOfACopyTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		sse, text := s.sse("?topic=&topic=a&grep=yes"), s.get("?topic=&topic=a&grep=yes")
		synctest.Wait()
		s.publish("yes")
		sse.events("yes")
		text.lines("==>  <==", "yes")
		for i := range 1000 {
			s.publish(fmt.Sprint("no ", i))
			synctest.Wait()
		}
		for c := range s.hub.Conns() {
			c.Close(nil)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := s.hub.MemoryUsed(); n > 64<<10 {
			t.Errorf("%d bytes are in use, for 10 messages and nobody", n)
		}
	})
}

// An encoding is made for the first of its viewers, and may be there for ever. Who that was is not.
func TestAnEncodingDoesNotKeepItsFirstViewer(t *testing.T) {
	type secret struct{ _ [1 << 10]byte }
	var gone atomic.Int32
	s := newSite(t, tailcast.WithAuthenticate(func(*http.Request) (tailcast.Identity, error) {
		v := new(secret)
		runtime.AddCleanup(v, func(struct{}) { gone.Add(1) }, struct{}{})
		return tailcast.Identity{Value: v}, nil
	}))
	first, second := s.ws(""), s.ws("")
	for len(s.hub.Stats().Connections) == 0 || s.hub.Stats().Connections["websocket"] < 2 {
		time.Sleep(time.Millisecond)
	}
	s.publish("message")
	frames(t, second, "message")
	first.Conn.Close()
	for i := 0; gone.Load() == 0; i++ {
		if i == 500 {
			t.Fatal("what belongs to a connection that has ended is still there")
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
}

// A position that is not known is no error, neither for the client nor for who reads the log: any client can ask for one.
func TestAnUnknownPositionIsNotLoggedAsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSite(t, tailcast.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))))
		l := newLedger()
		s.runs(t, l)
		l.give <- entries(1, 2)
		synctest.Wait()
		r := s.sse("?since=" + tailcast.Position{Epoch: 4711, Offset: 1}.String())
		r.gap()
		r.events(numbered(1, 2)...)
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("logged: %s", &log)
		}
	})
}

// A loop that breaks off at a gap goes on there, also where nothing but the gap is known: the zero Position would mean from now on.
func TestALoopGoesOnAfterAnyGap(t *testing.T) {
	goesOn := func(t *testing.T, s *site, from tailcast.Position, want ...string) {
		t.Helper()
		for m, err := range s.hub.Subscribe(t.Context(), "", from) {
			if err != nil || m.Gap == nil {
				t.Fatalf("%+v, %v; want a gap", m, err)
			}
			from = m.Pos
			break
		}
		l := startLoop(s.hub.Subscribe(t.Context(), "", from))
		synctest.Wait()
		var got []string
		for _, m := range l.got {
			if m.Gap == nil {
				got = append(got, string(m.Data))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("after the gap, at %v: %q, want %q", from, got, want)
		}
	}
	t.Run("after an unknown position", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			s.publish("1", "2")
			goesOn(t, s, tailcast.Position{Epoch: 4711, Offset: 1}, "1", "2")
		})
	})
	t.Run("before the first message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			if err := s.hub.Publish(t.Context(), tailcast.Message{Gap: &tailcast.Gap{Count: 1, Bytes: -1}}); err != nil {
				t.Fatal(err)
			}
			s.publish("1", "2")
			goesOn(t, s, tailcast.Earliest(), "1", "2")
		})
	})
}
