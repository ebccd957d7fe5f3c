package tailcast_test

// Tests of faults that were found once: each failed before its cure.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

type wrapW struct{ http.ResponseWriter }

func (w wrapW) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func zwrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrapW{w}, r) })
}

func TestAnIdleStreamOverHTTP2Lives(t *testing.T) {
	hub := tailcast.New(tailcast.WithWriteTimeout(time.Second))
	defer hub.Close()
	srv := httptest.NewUnstartedServer(hub)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	br := bufio.NewReader(resp.Body)
	hub.Publish(t.Context(), tailcast.Message{Data: []byte("one")})
	l, err := br.ReadString('\n')
	if err != nil || l != "one\n" || resp.ProtoMajor != 2 {
		t.Fatalf("%s: %q, %v", resp.Proto, l, err)
	}
	time.Sleep(2 * time.Second)
	hub.Publish(t.Context(), tailcast.Message{Data: []byte("two")})
	if l, err = br.ReadString('\n'); err != nil || l != "two\n" {
		t.Errorf("after 2 s of silence with a write timeout of 1 s: %q, %v", l, err)
	}
}

type closeOnFlush struct {
	http.ResponseWriter
	hub  *tailcast.Hub
	once *sync.Once
}

func (w closeOnFlush) FlushError() error {
	w.once.Do(func() { w.hub.Close() }) // stands for a Close by somebody else at this moment
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w closeOnFlush) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestCloseWhileAStreamOpens(t *testing.T) {
	hub := tailcast.New()
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.ServeHTTP(closeOnFlush{w, hub, new(sync.Once)}, r)
		close(done)
	}))
	defer srv.CloseClientConnections()
	go http.Get(srv.URL)
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		buf := make([]byte, 1<<16)
		buf = buf[:runtime.Stack(buf, true)]
		for _, g := range strings.Split(string(buf), "\n\n") {
			if strings.Contains(g, "(*Hub).open") {
				t.Log(g[:min(len(g), 500)])
			}
		}
		t.Error("the handler never returns")
	}
}

func TestATypedNilIsNoCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect)
		s.ws("")
		c := <-conns
		var ce *tailcast.CloseError
		c.Close(ce)
		synctest.Wait()
	})
}

func TestOldTimesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws := s.ws("")
		r := s.sse("")
		synctest.Wait()
		when, _ := time.Parse(time.Stamp, "Jan  2 15:04:05")
		t.Log(when, when.UnixNano())
		if err := s.hub.Publish(t.Context(), tailcast.Message{Data: []byte("syslog"), Time: when}); err != nil {
			t.Fatal(err)
		}
		op, p, err := ws.ReadFrame()
		if op != 1 {
			t.Errorf("ws: %d %q %v", op, p, err)
		}
		e, err := r.event()
		if e.data != "syslog" {
			t.Errorf("sse: %+v, %v", e, err)
		}
	})
}

func TestEmptyMessagesAreBounded(t *testing.T) {
	const limit = 4 << 20
	hub := tailcast.New(tailcast.WithMemoryLimit(limit))
	defer hub.Close()
	batch := make([]tailcast.Message, 1000)
	for range 1000 {
		if err := hub.Publish(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	if n := hub.Stats().Memory; n > 2*limit {
		t.Errorf("%d bytes in use after a million empty messages, limit %d", n, limit)
	}
}

func TestManyTopicsAreBounded(t *testing.T) {
	const limit = 4 << 20
	hub := tailcast.New(tailcast.WithMemoryLimit(limit))
	defer hub.Close()
	for i := range 200 {
		if err := hub.Publish(t.Context(), tailcast.Message{Topic: fmt.Sprint(i), Data: make([]byte, 200<<10)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := hub.Stats().Memory; n > 2*limit {
		t.Errorf("%d bytes in use, limit %d", n, limit)
	}
}

func TestABigMessageIsNotCopiedForEachStalledViewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		s := newSite(t, tailcast.WithMemoryLimit(limit))
		for range 50 {
			s.ws("")
		}
		synctest.Wait()
		s.publish(strings.Repeat("x", 1<<20))
		synctest.Wait()
		if n := s.hub.Stats().Memory; n > limit+1<<20 {
			t.Errorf("%d bytes in use, limit %d", n, limit)
		}
	})
}

func TestPrivateQueuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 4 << 20
		s := newSite(t, tailcast.WithMemoryLimit(limit))
		for range 50 {
			s.ws("")
		}
		synctest.Wait()
		for c := range s.hub.Conns() {
			c.Send(tailcast.Message{Data: make([]byte, 100<<10), Binary: true})
			c.Send(tailcast.Message{Data: make([]byte, 100<<10), Binary: true})
		}
		synctest.Wait()
		if n := s.hub.Stats().Memory; n > limit+1<<20 {
			t.Errorf("%d bytes in use, limit %d", n, limit)
		}
	})
}

func TestAViewerFromBeforeTheFirstMessageIsToldWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		r := s.sse("")
		r.lines2(t)
		t.Logf("id %q", r.id)
		r.nc.Close()
		s.publish(numbered(1, 100)...)
		r = s.sse("", "Last-Event-ID: "+r.id)
		e, err := r.event()
		if e.name != "gap" {
			t.Errorf("90 messages are missing and no gap says so: %+v %v", e, err)
		}
	})
}

func TestIdsStayJoinedAfterUnsubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		hub := tailcast.New(onConnect)
		s := serveSite(t, hub, hub.Handler("a", "b"))
		r := s.sse("")
		c := <-conns
		synctest.Wait()
		c.Unsubscribe("b")
		synctest.Wait()
		hub.Publish(t.Context(), tailcast.Message{Topic: "a", Data: []byte("1")})
		r.events("1")
		r.nc.Close()
		r = s.sse("", "Last-Event-ID: "+r.id)
		if r.resp.StatusCode != 200 {
			t.Errorf("an EventSource that comes back with the id %q gets %d", r.id, r.resp.StatusCode)
		}
	})
}

func TestVisitedTopicsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect)
		s.sse("")
		c := <-conns
		for i := range 1000 {
			if err := c.Subscribe(t.Context(), fmt.Sprint(i), tailcast.Position{}); err != nil {
				t.Fatal(err)
			}
			c.Unsubscribe(fmt.Sprint(i))
		}
		time.Sleep(5 * time.Minute)
		if n := s.hub.Stats().Topics; n > 2 {
			t.Errorf("%d topics", n)
		}
	})
}

func TestShutdownDoesNotWaitForABlockedSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		ws := s.ws("")
		r := s.sse("")
		pr, pw := io.Pipe()
		go s.hub.Run(t.Context(), tailcast.Lines(pr, ""))
		io.WriteString(pw, "one\n")
		frames(t, ws, "one")
		r.events("one")
		go func() { time.Sleep(20 * time.Second); pw.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		go func() { t.Log("Shutdown:", s.hub.Shutdown(ctx)) }()
		op, p, err := ws.ReadFrame()
		if op != 8 {
			t.Errorf("the WebSocket gets no Close frame: %d %q %v", op, p, err)
		}
		if e, err := r.event(); e.name != "bye" {
			t.Errorf("the event stream gets no bye: %+v %v", e, err)
		}
		time.Sleep(30 * time.Second)
	})
}

func TestASourceMayBeginWithAGap(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	err := hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
		return pub.Publish(ctx, tailcast.Message{Gap: &tailcast.Gap{Count: 3, Bytes: -1}}, tailcast.Message{Data: []byte("x"), Pos: tailcast.Position{Epoch: 1, Offset: 4}})
	}))
	if err != nil {
		t.Error(err)
	}
}

type badReplayer struct {
	tape
	f func(yield func(tailcast.Message, error) bool)
}

func (b *badReplayer) Replay(context.Context, string, tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return b.f
}

func TestAPanicOfAReplayIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		b := &badReplayer{tape: tape{data: numbered(1, 100), next: make(chan int)}, f: func(func(tailcast.Message, error) bool) { panic("a bug") }}
		go s.hub.Run(t.Context(), b)
		b.next <- 50
		synctest.Wait()
		s.sse("", "Last-Event-ID: 15.3")
		synctest.Wait()
	})
}

func TestAReplayThatFailsForGoodIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		b := &badReplayer{tape: tape{data: numbered(1, 100), next: make(chan int)}, f: func(y func(tailcast.Message, error) bool) {
			y(tailcast.Message{}, tailcast.Permanent(errors.New("the archive is gone")))
		}}
		go s.hub.Run(t.Context(), b)
		b.next <- 50
		synctest.Wait()
		r := s.sse("", "Last-Event-ID: 15.3")
		got := make(chan event, 1)
		go func() { e, _ := r.event(); got <- e }()
		b.next <- 20
		time.Sleep(time.Hour)
		select {
		case e := <-got:
			t.Logf("%+v", e)
		default:
			t.Error("an hour later the viewer has got neither a message nor a gap")
		}
	})
}

func TestNothingIsSentBeforeTheHead(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	srv := httptest.NewServer(hub)
	defer srv.CloseClientConnections()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for c := range hub.Conns() {
				c.Send(tailcast.Message{Data: []byte("to all")})
			}
		}
	}()
	bad := 0
	var last error
	const responses = 500
	for range responses {
		resp, err := http.Get(srv.URL)
		if err != nil {
			bad++
			last = err
			continue
		}
		resp.Body.Close()
	}
	if bad > 0 {
		t.Errorf("%d of %d responses did not begin with a head: %v", bad, responses, last)
	}
}

func TestFinishedSourcesAreForgotten(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	for range 1000 {
		if err := hub.Run(t.Context(), tailcast.Lines(strings.NewReader("x\n"), "")); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(hub.Stats().Sources); n > 100 {
		t.Errorf("%d finished sources are kept", n)
	}
}

func TestAnEventSourceDuringShutdownComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		r := s.sse("")
		slow := s.ws("")
		_ = slow
		synctest.Wait()
		s.publish(numbered(1, 50000)...) // the WebSocket's client is slow: it keeps Shutdown up
		go io.Copy(io.Discard, r)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		go s.hub.Shutdown(ctx)
		time.Sleep(3 * time.Second) // the advice of the bye
		r = s.sse("")
		if r.resp.StatusCode != 200 {
			t.Errorf("an EventSource that follows the bye's advice gets %d and never comes back", r.resp.StatusCode)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestAResumeFromAGapGoesOnBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 3}))
		s := serveSite(t, hub, hub.Handler("a", "b"))
		for i := range 10 {
			hub.Publish(t.Context(), tailcast.Message{Topic: "a", Data: fmt.Append(nil, i)})
		}
		var id string
		{
			h, _ := hub.Head("a")
			id = "a=" + tailcast.Position{Epoch: h.Epoch, Offset: 1}.String() + ",b=earliest"
		}
		r := s.sse("", "Last-Event-ID: "+id)
		e, _ := r.event()
		t.Logf("%+v", e)
		r.nc.Close()
		r = s.sse("", "Last-Event-ID: "+e.id)
		e, _ = r.event()
		if e.name == "gap" {
			t.Errorf("the same gap is declared again: %+v", e)
		}
	})
}

func TestASlowResponseIsNotCut(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch()
			hub := tailcast.New(w.option())
			var h http.Handler = hub
			if wrapped {
				h = zwrap(hub)
			}
			s := serveSite(t, hub, h)
			r := s.get("")
			synctest.Wait()
			s.publish(strings.Repeat("x", 1<<20))
			n := 0
			buf := make([]byte, 32<<10)
			for n < 1<<20 { // 64 KB/s
				m, err := r.Read(buf)
				n += m
				if err != nil {
					t.Errorf("wrapped %v: after %d bytes: %v; cause %v", wrapped, n, err, <-w.ended)
					break
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
	}
}

func TestALongLineDoesNotWedgeATail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	os.WriteFile(path, []byte("one\n"+strings.Repeat("x", 1020<<10)+"\ntwo\n"), 0o644)
	hub := tailcast.New(tailcast.WithMemoryLimit(4 << 20))
	defer hub.Close()
	tail := tailcast.NewTail(path)
	tail.Start = tailcast.FromStart
	go hub.Run(t.Context(), tail)
	eventually(t, "all three lines are published", func() bool { return hub.Stats().Published == 3 })
}

func TestLinesKeepsCRLFTogether(t *testing.T) {
	var got []string
	pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		for _, m := range msgs {
			got = append(got, fmt.Sprintf("%d %v %q", len(m.Data), m.Partial, m.Data[max(0, len(m.Data)-2):]))
		}
		return nil
	})
	tailcast.Lines(strings.NewReader(strings.Repeat("x", 1<<20-1)+"\r\nnext\n"), "").Run(t.Context(), pub)
	if strings.Contains(strings.Join(got, ""), `\r`) {
		t.Errorf("%s", got)
	}
}

type panicW struct{ http.ResponseWriter }

func (w panicW) Write(p []byte) (int, error) { panic(http.ErrAbortHandler) }

func (w panicW) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func TestAWriterThatPanicsEndsItsConnection(t *testing.T) {
	w := newWatch()
	hub := tailcast.New(w.option())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hub.ServeHTTP(panicW{w}, r) }))
	defer srv.Close()
	go http.Get(srv.URL)
	eventually(t, "it is connected", func() bool { return hub.Stats().Connections["text"] == 1 })
	hub.Publish(t.Context(), tailcast.Message{Data: []byte("x")})
	eventually(t, "it has ended", func() bool { return hub.Stats().Connections["text"] == 0 && w.count() > 0 })
	if err := hub.Close(); err != nil || w.count() != 1 {
		t.Errorf("Close: %v; BeforeClose ran %d times", err, w.count())
	}
}

func TestATopicOfAHookResumesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithOnConnect(func(c *tailcast.Conn) error {
			return c.Subscribe(c.Context(), "b", tailcast.Position{})
		}))
		pub := func(d string) { s.hub.Publish(t.Context(), tailcast.Message{Topic: "b", Data: []byte(d)}) }
		r := s.sse("")
		synctest.Wait()
		pub("1")
		r.events("1")
		r.nc.Close()
		pub("2")
		r = s.sse("", "Last-Event-ID: "+r.id)
		synctest.Wait()
		pub("3")
		if e, _ := r.event(); e.data != "2" {
			t.Errorf("after 1 comes %+v", e)
		}
	})
}

type closeOnHijack struct {
	http.ResponseWriter
	hub *tailcast.Hub
}

func (w closeOnHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hub.Close()
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func TestCloseWhileAWebSocketOpens(t *testing.T) {
	hub := tailcast.New()
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			hub.ServeHTTP(w, r)
			return
		}
		hub.ServeHTTP(closeOnHijack{w, hub}, r)
		close(done)
	}))
	resp, _ := http.Get(srv.URL) // somebody has been here before
	resp.Body.Close()
	nc, _ := net.Dial("tcp", srv.Listener.Addr().String())
	defer nc.Close()
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		t.Error("the handler never returns")
	}
}

func TestAGapsIdIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 3}))
		s := serveSite(t, hub, hub.Handler("a", "b"))
		for i := range 10 {
			hub.Publish(t.Context(), tailcast.Message{Topic: "a", Data: fmt.Append(nil, i)})
		}
		h, _ := hub.Head("a")
		id := "a=" + tailcast.Position{Epoch: h.Epoch, Offset: 1}.String() + ",b=earliest"
		for range 3 {
			r := s.sse("", "Last-Event-ID: "+id)
			e, err := r.event()
			t.Logf("%+v %v", e, err)
			e2, err := r.event()
			t.Logf("  then %+v %v", e2, err)
			r.nc.Close()
			id = e.id
		}
	})
}

// a middleware that ends the request's context

func TestTheRequestsContextEndsIt(t *testing.T) {
	for _, wrapped := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch()
			hub := tailcast.New(w.option())
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
				defer cancel()
				if wrapped {
					w = wrapW{w}
				}
				hub.ServeHTTP(w, r.WithContext(ctx))
			})
			s := serveSite(t, hub, h)
			s.get("")
			time.Sleep(time.Hour)
			t.Logf("wrapped %v: ended %d, left %v", wrapped, w.count(), hub.Stats().Connections)
		})
	}
}

// slowDeadline is a middleware whose SetWriteDeadline takes its time.

type slowDeadline struct{ http.ResponseWriter }

func (w slowDeadline) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w slowDeadline) SetWriteDeadline(t time.Time) error {
	if t.Before(time.Now()) {
		time.Sleep(20 * time.Millisecond)
	}
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
}

func TestAnAbortAfterTheHandlerIsHarmless(t *testing.T) {
	hub := tailcast.New()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hub.ServeHTTP(slowDeadline{w}, r) }))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			resp, err := srv.Client().Get(srv.URL)
			if err == nil {
				go func() { io.Copy(io.Discard, resp.Body); resp.Body.Close() }()
			}
		})
	}
	wg.Wait()
	hub.Close()
	srv.CloseClientConnections()
	srv.Close()
}

// Shutdown while a catch-up's Replayer waits

func TestStalledViewersDoNotWipeHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithMemoryLimit(8 << 20))
		s := serveSite(t, hub, hub.Handler("", "big"))
		small := strings.Repeat("s", 1000)
		for range 3000 {
			s.publish(small)
		}
		first := hub.Stats().Memory
		for range 10 {
			s.ws("?topic=big") // reads nothing
		}
		synctest.Wait()
		hub.Publish(t.Context(), tailcast.Message{Topic: "big", Data: []byte(strings.Repeat("x", 1<<20))})
		synctest.Wait()
		s.publish(small)
		r := s.get("?topic=&tail=3000")
		n := 0
		go func() {
			sc := bufio.NewScanner(r)
			for sc.Scan() {
				n++
			}
		}()
		synctest.Wait()
		r.nc.Close()
		synctest.Wait()
		if n < 3000 {
			t.Errorf("10 viewers of another topic that read nothing: of 3001 messages (%d bytes, limit 8 MiB) %d are left", first, n)
		}
	})
}

// A reader's last deadline came after the one of the connection's last second

func TestTheHubDoesNotLingerWithWhoBrokeTheProtocol(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t)
			ws := s.ws("")
			ws.Conn.Write([]byte("\xff\x80\x00\x00\x00\x00"))
			closed(t, ws, 1002)
			time.Sleep(1100 * time.Millisecond)
			if _, err := ws.Conn.Write([]byte("x")); err == nil {
				t.Error("the connection is still open")
			}
		})
	}
}

// A stuckListener's connections take every byte, of which the peer acknowledges none.
type (
	stuckListener struct{ *testnet.Listener }
	stuck         struct{ *testnet.Conn }
)

func (l stuckListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return stuck{nc.(*testnet.Conn)}, nil
}

func (s stuck) Unacked() (int, bool) { return 1, true }

// Close returns late: the reader learns of it first.
func (s stuck) Close() error {
	defer time.Sleep(time.Second)
	return s.Conn.Close()
}

// A stream that is given up ends with its cause, and not with what that did to its reader.
func TestAStuckStreamEndsWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		hub := tailcast.New(w.option())
		l := testnet.Listen()
		srv := &http.Server{Handler: hub}
		served := make(chan struct{})
		go func() { srv.Serve(stuckListener{l}); close(served) }()
		nc, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		openStream(t, nc, "/", "Accept: text/event-stream")
		if cause := <-w.ended; !errors.Is(cause, tailcast.ErrWriteTimeout) {
			t.Errorf("the cause of its end: %v", cause)
		}
		hub.Close()
		srv.Close()
		<-served
		nc.Close()
		time.Sleep(2 * time.Second) // Close
	})
}

// What Publish has taken, every viewer gets, also if Shutdown is called in the same moment.
func TestShutdownSendsWhatPublishHasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 200 {
			hub := tailcast.New()
			s := serveSite(t, hub, hub)
			var viewers []*reader
			for range 3 {
				viewers = append(viewers, s.get(""))
			}
			synctest.Wait()
			var taken atomic.Int64
			var publishers sync.WaitGroup
			for range 4 {
				publishers.Go(func() {
					for hub.Publish(t.Context(), tailcast.Message{Data: []byte("x")}) == nil {
						taken.Add(1)
						runtime.Gosched()
					}
				})
			}
			go func() {
				for taken.Load() < 100 {
					runtime.Gosched()
				}
				hub.Shutdown(t.Context())
			}()
			publishers.Wait()
			for i, v := range viewers {
				all, err := io.ReadAll(v)
				if got := int64(len(all) / 2); err != nil || got != taken.Load() {
					t.Errorf("viewer %d got %d of %d messages, %v", i, got, taken.Load(), err)
				}
				v.nc.Close()
			}
			synctest.Wait()
			if t.Failed() {
				return
			}
		}
	})
}

// A client that gets its Close frame and never answers is not waited for any longer than the context says.
func TestShutdownDoesNotWaitForAnswers(t *testing.T) {
	for name, shutdown := range map[string]func(*tailcast.Hub) error{
		"Shutdown": func(h *tailcast.Hub) error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := h.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "hook") {
				return fmt.Errorf("Shutdown = %w", err)
			}
			return nil
		},
		"Close": (*tailcast.Hub).Close,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				ws := s.ws("")
				s.sse("")
				s.get("")
				synctest.Wait()
				start := time.Now()
				if err := shutdown(s.hub); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > 1500*time.Millisecond {
					t.Errorf("it took %v", d)
				}
				if op, p, err := ws.ReadFrame(); op != 8 {
					t.Errorf("the client was not told: %d %q %v", op, p, err)
				}
			})
		})
	}
}

// lateHijack lets something happen while a connection is being taken over, and lateFlush while a stream begins.
type (
	lateHijack struct {
		seeThrough
		f func()
	}
	lateFlush struct {
		seeThrough
		f func()
	}
)

func (l lateHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	l.f()
	return http.NewResponseController(l.ResponseWriter).Hijack()
}

func (l lateFlush) FlushError() error {
	l.f()
	return http.NewResponseController(l.ResponseWriter).Flush()
}

// A client whose connection opens while the hub begins to close is told, as all others are.
func TestWhoComesDuringShutdownIsTold(t *testing.T) {
	serve := func(t *testing.T, wrap func(w http.ResponseWriter, f func()) http.ResponseWriter) *site {
		hub := tailcast.New()
		return serveSite(t, hub, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hub.ServeHTTP(wrap(w, func() { hub.Shutdown(t.Context()) }), r)
		}))
	}
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, func(w http.ResponseWriter, f func()) http.ResponseWriter { return lateHijack{seeThrough{w}, f} })
		closed(t, s.ws(""), 1001)
		s = serve(t, func(w http.ResponseWriter, f func()) http.ResponseWriter { return lateFlush{seeThrough{w}, f} })
		if e, err := s.sse("").event(); err != nil || e.name != "bye" {
			t.Errorf("the event stream ends with %+v, %v", e, err)
		}
	})
}

// Shutdown may be called by several at once: a program and its server, for one.
func TestShutdownAtTheSameTime(t *testing.T) {
	for range 50 {
		hub := tailcast.New()
		srv := httptest.NewServer(hub)
		for range 4 {
			resp, err := http.Get(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			go func() { io.Copy(io.Discard, resp.Body); resp.Body.Close() }()
		}
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				if err := hub.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		srv.Close()
	}
}

// A connection of which nobody has heard, since the hub began to close while it opened, has no end to hear of either, however
// long its client takes to read the goodbye.
func TestNoHookForWhoComesDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, connects := newWatch(), 0
		hub := tailcast.New(w.option(), tailcast.WithOnConnect(func(*tailcast.Conn) error { connects++; return nil }))
		s := serveSite(t, hub, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter {
			return slowWrite{lateFlush{seeThrough{w}, func() { hub.Close() }}}
		}))
		io.ReadAll(s.sse(""))
		synctest.Wait()
		if connects != 0 || w.count() != 0 {
			t.Errorf("OnConnect was called %d times, BeforeClose %d: %v", connects, w.count(), w.causes)
		}
	})
}

type slowWrite struct{ lateFlush }

func (s slowWrite) Write(p []byte) (int, error) {
	time.Sleep(time.Minute)
	return s.lateFlush.Write(p)
}

// Where hooks leave no room for the topics that the client has asked for, it is told, and does not wait for ever.
func TestHooksThatTakeTheRoomOfTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithLimits(tailcast.Limits{Topics: 1}), tailcast.WithOnConnect(func(c *tailcast.Conn) error {
			return c.Subscribe(c.Context(), "of the hook", tailcast.Position{})
		}))
		closed(t, s.ws(""), 1011)
		if err := <-w.ended; !errors.Is(err, tailcast.ErrTooManyTopics) {
			t.Errorf("cause %v", err)
		}
	})
}

// A program may add hooks to connections that have ended while the hub closes, and after.
func TestHooksOfEndedConnectionsWhileTheHubCloses(t *testing.T) {
	for range 5 {
		conns, onConnect := connected()
		hub := tailcast.New(onConnect)
		srv := httptest.NewServer(hub)
		resp, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		c := <-conns
		var hooks sync.WaitGroup
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			for hub.Stats().Connections["text"] > 0 {
			}
			for range 100 {
				hooks.Add(1)
				c.BeforeClose(func(*tailcast.Conn, error) { hooks.Done() })
			}
		}()
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
		<-stop
		hooks.Wait()
		resp.Body.Close()
		srv.Close()
	}
}

// A hook that is added to a connection that has ended holds Close up like any other: for some seconds.
func TestCloseDoesNotWaitForALateHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		w := newWatch()
		hub := tailcast.New(onConnect, w.option())
		h := testnet.Listen()
		srv := &http.Server{Handler: hub}
		go srv.Serve(h)
		defer srv.Close()
		ws, err := testnet.DialWS(t.Context(), h, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		c := <-conns
		ws.Close()
		<-w.ended
		release := make(chan struct{})
		c.BeforeClose(func(*tailcast.Conn, error) { <-release })
		time.Sleep(time.Minute)
		began := time.Now()
		closing := make(chan error, 1)
		go func() { closing <- hub.Close() }()
		select {
		case err := <-closing:
			if took := time.Since(began); err == nil || took > 10*time.Second {
				t.Errorf("Close: %v after %v", err, took)
			}
			close(release)
		case <-time.After(time.Minute):
			t.Error("Close waits for the hook")
			close(release)
			<-closing
		}
	})
}
