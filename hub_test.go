package tailcast_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

func TestEveryFormatGetsWhatIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws, text, sse := s.ws(""), s.get(""), s.sse("")
		synctest.Wait()
		s.publish("one", "two")
		frames(t, ws, "one", "two")
		text.lines("one", "two")
		sse.events("one", "two")
		if got := text.resp.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
			t.Errorf("text has Content-Type %q", got)
		}
		if got := sse.resp.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("SSE has Content-Type %q", got)
		}
		if got := sse.resp.Header.Get("X-Accel-Buffering"); got != "no" {
			t.Errorf("X-Accel-Buffering is %q", got)
		}
	})
}

func TestAViewerBeginsWhereItAsksTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithBacklog(2))
		s.publish("1", "2", "3", "4")
		first := s.sse("?since=earliest")
		first.events("1", "2")
		id := first.id
		for _, c := range []struct {
			name, query string
			header      []string
			want        []string
		}{
			{"the backlog", "", nil, []string{"3", "4"}},
			{"tail", "?tail=3", nil, []string{"2", "3", "4"}},
			{"tail beyond what there is", "?tail=99", nil, []string{"1", "2", "3", "4"}},
			{"tail=0", "?tail=0", nil, nil},
			{"since latest", "?since=latest", nil, nil},
			{"since", "?since=" + id, nil, []string{"3", "4"}},
			{"since beats tail", "?tail=1&since=" + id, nil, []string{"3", "4"}},
			{"Last-Event-ID beats since", "?since=latest", []string{"Last-Event-ID: " + id}, []string{"3", "4"}},
		} {
			r := s.sse(c.query, c.header...)
			ended := make(chan []string)
			go func() {
				var got []string
				for {
					e, err := r.event()
					if err != nil {
						ended <- got
						return
					}
					got = append(got, e.data)
				}
			}()
			synctest.Wait()
			r.nc.Close()
			if got := <-ended; !slices.Equal(got, c.want) {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	})
}

func TestAResumeIsExactlyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		r := s.sse("")
		synctest.Wait()
		for i := 1; i <= 50; i++ {
			s.publish(numbered(2*i-1, 2*i)...)
			r.events(numbered(2*i-1, 2*i-1)...)
			r.nc.Close()
			r = s.sse("", "Last-Event-ID: "+r.id)
			r.events(numbered(2*i, 2*i)...)
		}
	})
}

func TestAClientWithoutAMessageYetResumesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		r := s.sse("")
		r.lines2(t) // retry, then the id of where it stands
		r.nc.Close()
		s.publish("while it was away")
		r = s.sse("", "Last-Event-ID: "+r.id)
		r.events("while it was away")
	})
}

// lines2 reads the two blocks that an event stream begins with.
func (r *reader) lines2(t *testing.T) {
	t.Helper()
	for blocks := 0; blocks < 2; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			r.id = strings.TrimSpace(id)
		}
		if line == "\n" {
			blocks++
		}
	}
}

func TestALostPositionIsDeclaredAndTheRestIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 3}))
		s.publish("1")
		r := s.sse("?since=earliest")
		r.events("1")
		r.nc.Close()
		s.publish("2", "3", "4", "5", "6")
		for name, id := range map[string]string{"known": r.id, "foreign": "1abc.5"} {
			r := s.sse("", "Last-Event-ID: "+id)
			e, err := r.event()
			if err != nil || e.name != "gap" {
				t.Fatalf("%s: %+v, %v", name, e, err)
			}
			var gap struct {
				Event, From, To string
				Count, Bytes    int64
			}
			if err := json.Unmarshal([]byte(e.data), &gap); err != nil {
				t.Fatal(err)
			}
			want := map[string]int64{"known": 2, "foreign": -1}[name]
			if gap.Event != "gap" || gap.From != id || gap.Count != want || gap.To != e.id {
				t.Errorf("%s: %+v with id %q, want from %q count %d", name, gap, e.id, id, want)
			}
			r.events("4", "5", "6")
		}
		text := s.get("?since=" + r.id)
		line, _ := text.ReadString('\n')
		if !strings.HasPrefix(line, "# tailcast gap: ") {
			t.Errorf("text gets %q", line)
		}
		text.lines("4", "5", "6")
		s.get("?gaps=0&since="+r.id).lines("4", "5", "6")
	})
}

func TestAGapOfASourceStandsAtItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws, quiet, sse := s.ws(""), s.ws("?gaps=0"), s.sse("")
		synctest.Wait()
		gap := tailcast.Message{Gap: &tailcast.Gap{Count: 3, Bytes: -1, Reason: "the disk was full"}}
		err := s.hub.Publish(t.Context(), tailcast.Message{Data: []byte("a")}, gap, tailcast.Message{Data: []byte("b")})
		if err != nil {
			t.Fatal(err)
		}
		frames(t, quiet, "a", "b")
		frames(t, ws, "a")
		if _, p, err := ws.ReadFrame(); err != nil || !strings.HasPrefix(string(p), "# tailcast gap: ") {
			t.Errorf("frame %q, %v", p, err)
		}
		frames(t, ws, "b")
		sse.events("a")
		if e, err := sse.event(); err != nil || e.name != "gap" || !strings.Contains(e.data, "the disk was full") {
			t.Errorf("%+v, %v", e, err)
		}
		sse.events("b")
	})
}

func TestAGapInALongLineOfTextEndsTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		text := s.get("")
		synctest.Wait()
		for _, m := range []tailcast.Message{{Data: []byte("half"), Partial: true}, {Gap: &tailcast.Gap{Count: 1, Bytes: 1}}, {Data: []byte("next")}} {
			if err := s.hub.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		text.lines("half", "# tailcast gap: 1 message, 1 byte lost", "next")
	})
}

func TestSeveralTopicsShareAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New()
		s := serveSite(t, hub, hub.Handler("a", "b"))
		publish := func(topic, data string) {
			if err := hub.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		text, one, sse := s.get(""), s.get("?topic=b"), s.sse("")
		synctest.Wait()
		publish("a", "1")
		publish("a", "2")
		publish("b", "3")
		publish("a", "4")
		text.lines("==> a <==", "1", "2", "", "==> b <==", "3", "", "==> a <==", "4")
		one.lines("3")
		sse.events("1", "2", "3")
		sse.nc.Close()
		sse = s.sse("", "Last-Event-ID: "+sse.id)
		sse.events("4")
		publish("b", "5") // between two topics there is no order
		sse.events("5")
	})
}

func TestBadRequestsGetASentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for _, c := range []struct {
			query  string
			header string
			status int
			says   string
		}{
			{"?tail=-1", "", 400, "tail"},
			{"?tail=x", "", 400, "tail"},
			{"?tail=99999999999999", "", 400, "tail"},
			{"?gaps=2", "", 400, "gaps"},
			{"?since=%00", "", 400, "since"},
			{"?since=" + strings.Repeat("1", 5000), "", 400, "since"},
			{"?since=a=1abc.1,a=1abc.2", "", 400, "since"},
			{"?since=%zz", "", 400, "query"},
			{"?topic=other", "", 403, "topic"},
			{"", "Last-Event-ID: no position", 400, "Last-Event-ID"},
			{"", "Origin: http://evil.example", 403, "evil.example"},
			{"", "Origin: https://hub.example", 403, "origin"},
			{"", "Origin: null", 403, "origin"},
		} {
			r := openStream(t, s.dial(), "/"+c.query, "Connection: close", c.header+"X: y")
			if c.header != "" {
				r = openStream(t, s.dial(), "/"+c.query, "Connection: close", c.header)
			}
			body, _ := io.ReadAll(r)
			if r.resp.StatusCode != c.status || !strings.Contains(string(body), c.says) || strings.Count(string(body), "\n") != 1 || len(body) > 300 {
				t.Errorf("%.60s %s: %d %q", c.query, c.header, r.resp.StatusCode, body)
			}
		}
		s.sse("", "Origin: http://hub.example").nc.Close()
		nc := s.dial()
		io.WriteString(nc, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(nc)
		if !strings.HasPrefix(string(answer), "HTTP/1.1 405 ") || !strings.Contains(string(answer), "Allow: GET, HEAD") {
			t.Errorf("POST: %q", answer)
		}
	})
}

func TestPublishIsAllOrNothing(t *testing.T) {
	hub := tailcast.New(tailcast.WithMemoryLimit(4 << 20))
	defer hub.Close()
	ctx := t.Context()
	ok := tailcast.Message{Data: []byte("x")}
	for _, c := range []struct {
		name string
		bad  tailcast.Message
		want error
	}{
		{"a long topic", tailcast.Message{Topic: strings.Repeat("t", 256)}, tailcast.ErrTopicName},
		{"a topic with a line end", tailcast.Message{Topic: "a\nb"}, tailcast.ErrTopicName},
		{"a topic that is not UTF-8", tailcast.Message{Topic: "\xff"}, tailcast.ErrTopicName},
		{"a huge message", tailcast.Message{Data: make([]byte, 2<<20)}, tailcast.ErrMessage},
		{"a gap with data", tailcast.Message{Data: []byte("x"), Gap: &tailcast.Gap{}}, tailcast.ErrMessage},
		{"a position without an epoch", tailcast.Message{Pos: tailcast.Position{Offset: 9}}, tailcast.ErrMessage},
		{"a position of its own in the hub's topic", tailcast.Message{Pos: tailcast.Position{Epoch: 1, Offset: 9}}, tailcast.ErrTopicOwner},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := hub.Publish(ctx, ok); err != nil {
				t.Fatal(err)
			}
			before, _ := hub.Head("")
			if err := hub.Publish(ctx, ok, c.bad); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if after, _ := hub.Head(""); after != before {
				t.Errorf("the head has moved from %v to %v", before, after)
			}
		})
	}
	canceled, cancel := context.WithCancelCause(ctx)
	cause := errors.New("no more")
	cancel(cause)
	if err := hub.Publish(canceled, ok); !errors.Is(err, cause) {
		t.Errorf("with a canceled context: %v", err)
	}
	hub.Close()
	if err := hub.Publish(ctx, ok); !errors.Is(err, tailcast.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestPublishCopiesAndKeepsBatchesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws := s.ws("")
		synctest.Wait()
		data := []byte("mine")
		if err := s.hub.Publish(t.Context(), tailcast.Message{Data: data}); err != nil {
			t.Fatal(err)
		}
		copy(data, "XXXX")
		frames(t, ws, "mine")
		for range 8 {
			go s.hub.Publish(t.Context(), tailcast.Message{Data: []byte("a")}, tailcast.Message{Topic: "other"}, tailcast.Message{Data: []byte("b")})
		}
		for range 8 {
			frames(t, ws, "a", "b")
		}
	})
}

func TestMemoryStaysWithinItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		s := newSite(t, tailcast.WithMemoryLimit(limit), tailcast.WithRetention(tailcast.Retention{}))
		for range 20 { // viewers that read nothing
			s.sse("")
			s.ws("")
		}
		synctest.Wait()
		big := strings.Repeat("x", 10_000)
		for range 5000 {
			s.publish(big)
			if n := s.hub.Stats().Memory; n > limit+1<<20 {
				t.Fatalf("%d bytes in use", n)
			}
		}
		synctest.Wait()
		if n := s.hub.Stats().Memory; n > limit+1<<20 {
			t.Fatalf("%d bytes in use", n)
		}
	})
}

// A flaky Source fails in a given way each time it is run.
type flaky struct {
	runs atomic.Int32
	run  func(n int, ctx context.Context, pub tailcast.Publisher) error
}

func (f *flaky) Run(ctx context.Context, pub tailcast.Publisher) error {
	return f.run(int(f.runs.Add(1)), ctx, pub)
}

func TestSourcesAreRunByTheirContract(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws := s.ws("")
		synctest.Wait()
		boom := errors.New("boom")
		again := &flaky{run: func(n int, ctx context.Context, pub tailcast.Publisher) error {
			if n == 4 {
				return nil
			}
			if n == 2 {
				panic("a bug")
			}
			pub.Publish(ctx, tailcast.Message{Data: []byte("run")})
			return boom
		}}
		permanent := &flaky{run: func(int, context.Context, tailcast.Publisher) error { return tailcast.Permanent(boom) }}
		once := tailcast.SourceFunc(func(context.Context, tailcast.Publisher) error { return errors.New("only once") })
		lines := tailcast.Lines(strings.NewReader("l1\r\nl2\nl3"), "")
		start := time.Now()
		err := s.hub.Run(t.Context(), again, permanent, once, lines)
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), "only once") {
			t.Errorf("Run = %v", err)
		}
		if again.runs.Load() != 4 || permanent.runs.Load() != 1 {
			t.Errorf("ran %d and %d times", again.runs.Load(), permanent.runs.Load())
		}
		if d := time.Since(start); d < 500*time.Millisecond || d > time.Second { // 100 + 200 + 400 ms, with jitter
			t.Errorf("it took %v", d)
		}
		if n := s.hub.Stats().Panics; n != 1 {
			t.Errorf("%d panics", n)
		}
		got := map[string]int{}
		for range 5 {
			_, p, _ := ws.ReadFrame()
			got[string(p)]++
		}
		if got["run"] != 2 || got["l1"] != 1 || got["l2"] != 1 || got["l3"] != 1 {
			t.Errorf("got %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.hub.Run(ctx, again); err != nil {
			t.Errorf("Run with a canceled context = %v", err)
		}
	})
}

func TestATopicHasOneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		pos := func(n uint64) tailcast.Message { return tailcast.Message{Pos: tailcast.Position{Epoch: 7, Offset: n}} }
		ready := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var late tailcast.Publisher
		done := make(chan error)
		go func() {
			done <- s.hub.Run(ctx, tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
				late = pub
				if err := pub.Publish(ctx, pos(1)); err != nil {
					t.Error(err)
				}
				close(ready)
				<-ctx.Done()
				return context.Cause(ctx)
			}))
		}()
		<-ready
		if err := s.hub.Publish(t.Context(), tailcast.Message{}); !errors.Is(err, tailcast.ErrTopicOwner) {
			t.Errorf("Hub.Publish: %v", err)
		}
		err := s.hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			return pub.Publish(ctx, pos(2))
		}))
		if !errors.Is(err, tailcast.ErrTopicOwner) {
			t.Errorf("another source: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := late.Publish(t.Context(), pos(3)); !errors.Is(err, tailcast.ErrClosed) {
			t.Errorf("after its end: %v", err)
		}
		err = s.hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			return pub.Publish(ctx, pos(2))
		}))
		if err != nil {
			t.Errorf("the next source: %v", err)
		}
	})
}

// A tape is a Source of numbered messages that can replay all of them.
type tape struct {
	data    []string
	next    chan int     // how many more are to be published
	done    atomic.Int32 // how many are
	replays atomic.Int32
}

func (tp *tape) message(i int) tailcast.Message {
	return tailcast.Message{Data: []byte(tp.data[i]), Pos: tailcast.Position{Epoch: 5, Offset: uint64(i + 1)}}
}

func (tp *tape) Run(ctx context.Context, pub tailcast.Publisher) error {
	for i := 0; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case n := <-tp.next:
			for range n {
				if err := pub.Publish(ctx, tp.message(i)); err != nil {
					return err
				}
				i++
				tp.done.Store(int32(i))
			}
		}
	}
}

func (tp *tape) Replay(ctx context.Context, _ string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		tp.replays.Add(1)
		if after == tailcast.Earliest() {
			after = tailcast.Position{Epoch: 5}
		}
		if after.Epoch != 5 {
			yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
			return
		}
		for i := int(after.Offset); ctx.Err() == nil; {
			if i == int(tp.done.Load()) {
				time.Sleep(time.Millisecond)
				continue
			}
			if !yield(tp.message(i), nil) {
				return
			}
			i++
		}
	}
}

func TestAReplayJoinsTheLiveLogWithoutASeam(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		tp := &tape{data: numbered(1, 1000), next: make(chan int)}
		go s.hub.Run(t.Context(), tp)
		tp.next <- 500
		synctest.Wait()
		for _, from := range []int{0, 1, 250, 489, 490, 491, 499} {
			r := s.sse("", "Last-Event-ID: "+tailcast.Position{Epoch: 5, Offset: uint64(from)}.String())
			ws := s.ws("?since=" + tailcast.Position{Epoch: 5, Offset: uint64(from)}.String())
			r.events(numbered(from+1, 500)...)
			frames(t, ws, numbered(from+1, 500)...)
			r.nc.Close()
			ws.Close()
		}
		slow := s.dial()
		r := openStream(t, slow, "/?since=earliest", "Accept: text/event-stream")
		ws := s.ws("?since=earliest")
		tp.next <- 500
		synctest.Wait()
		r.events(numbered(1, 1000)...)
		frames(t, ws, numbered(1, 1000)...)
		r = s.sse("", "Last-Event-ID: 1zzz.3")
		if e, err := r.event(); err != nil || e.name != "gap" {
			t.Errorf("a foreign position: %+v, %v", e, err)
		}
		r.events(numbered(991, 1000)...)
		synctest.Wait()
		if n := s.hub.Stats().CatchUps; n != 0 {
			t.Errorf("%d catch-ups are still going on", n)
		}
	})
}

func TestShutdownSendsTheRestAndSaysGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws, sse, text := s.ws(""), s.sse(""), s.get("")
		synctest.Wait()
		s.publish(numbered(1, 2000)...)
		done := make(chan error)
		go func() { done <- s.hub.Shutdown(t.Context()) }()
		frames(t, ws, numbered(1, 2000)...)
		closed(t, ws, 1001)
		sse.events(numbered(1, 2000)...)
		e, err := sse.event()
		var bye struct {
			Code, Retry int
			Reason      string
		}
		if err != nil || e.name != "bye" || json.Unmarshal([]byte(e.data), &bye) != nil || bye.Code != 1001 || bye.Retry < 2000 || bye.Retry > 3000 {
			t.Errorf("%+v, %v", e, err)
		}
		text.lines(numbered(1, 2000)...)
		if _, err := text.ReadByte(); err != io.EOF {
			t.Errorf("text ends with %v", err)
		}
		sse.nc.Close()
		text.nc.Close()
		if err := <-done; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		r := openStream(t, s.dial(), "/")
		if r.resp.StatusCode != http.StatusServiceUnavailable || r.resp.Header.Get("Retry-After") == "" {
			t.Errorf("after Shutdown: %v", r.resp)
		}
		if err := s.hub.Run(t.Context(), &tape{}); !errors.Is(err, tailcast.ErrClosed) {
			t.Errorf("Run after Shutdown: %v", err)
		}
	})
}

func TestShutdownKeepsItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithWriteTimeout(time.Hour))
		s.ws("") // reads nothing
		s.sse("")
		synctest.Wait()
		big := strings.Repeat("x", 50_000)
		for range 100 {
			s.publish(big)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := s.hub.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown = %v", err)
		}
		if d := time.Since(start); d < 3*time.Second || d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestImpossibleOptionsPanicAtTheirLine(t *testing.T) {
	for name, f := range map[string]func(){
		"backlog": func() { tailcast.WithBacklog(-1) },
		"memory":  func() { tailcast.WithMemoryLimit(17) },
		"nil":     func() { tailcast.New(nil) },
		"handler": func() { tailcast.New().Handler() },
		"twice":   func() { tailcast.New().Handler("a", "a") },
		"flush":   func() { tailcast.WithFlushInterval(-1) },
		"no end":  func() { tailcast.WithFlushInterval(time.Hour) },
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.HasPrefix(v, "tailcast: ") {
					t.Errorf("%s: recovered %v", name, v)
				}
			}()
			f()
		}()
	}
}

func TestAnIdleTopicIsSmall(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const topics = 2000
	before := heap()
	for i := range topics {
		msg := tailcast.Message{Topic: fmt.Sprint("topic ", i), Data: make([]byte, 100)}
		if err := hub.Publish(t.Context(), msg, msg, msg); err != nil {
			t.Fatal(err)
		}
	}
	per := (int64(heap()) - int64(before)) / topics
	t.Logf("%d bytes for each topic", per)
	if per > 8<<10 {
		t.Errorf("%d bytes for each topic", per)
	}
	runtime.KeepAlive(hub)
}
