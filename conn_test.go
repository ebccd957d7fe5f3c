package tailcast_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A watch records the ends of connections.
type watch struct {
	mu     sync.Mutex
	causes []error
	ended  chan error
}

func newWatch() *watch { return &watch{ended: make(chan error, 100)} }

func (w *watch) option() tailcast.Option {
	return tailcast.WithBeforeClose(func(_ *tailcast.Conn, cause error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.causes = append(w.causes, cause)
		w.ended <- cause
	})
}

func (w *watch) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.causes)
}

func code(err error) int {
	var ce *tailcast.CloseError
	if errors.As(err, &ce) {
		return ce.Code
	}
	return 0
}

// connected returns the options with which the hub hands each new connection to the test.
func connected() (chan *tailcast.Conn, tailcast.Option) {
	ch := make(chan *tailcast.Conn, 10)
	return ch, tailcast.WithOnConnect(func(c *tailcast.Conn) error { ch <- c; return nil })
}

func TestAConnTellsWhatItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect)
		seen := map[string]bool{}
		for _, want := range []string{"websocket", "sse", "text"} {
			switch want {
			case "websocket":
				s.ws("")
			case "sse":
				s.sse("")
			default:
				s.get("")
			}
			c := <-conns
			synctest.Wait()
			if c.Transport() != want || c.Remote() == "" || seen[c.ID()] || len(c.ID()) < 20 {
				t.Errorf("transport %q, remote %q, id %q", c.Transport(), c.Remote(), c.ID())
			}
			seen[c.ID()] = true
			if got := c.Topics(); len(got) != 1 || got[0] != "" {
				t.Errorf("topics %q", got)
			}
			if err := c.Context().Err(); err != nil {
				t.Errorf("context: %v", err)
			}
		}
		n := 0
		for c := range s.hub.Conns() {
			if !seen[c.ID()] {
				t.Errorf("unknown %s", c.ID())
			}
			n++
		}
		if n != 3 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestSendReachesOneClientInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect)
		ws := s.ws("")
		c := <-conns
		other := s.sse("")
		<-conns
		synctest.Wait()
		for i := range 5 {
			if err := c.Send(tailcast.Message{Data: fmt.Append(nil, i), Binary: i == 4}); err != nil {
				t.Fatal(err)
			}
		}
		frames(t, ws, "0", "1", "2", "3")
		if op, p, _ := ws.ReadFrame(); op != 2 || string(p) != "4" {
			t.Errorf("binary: %d %q", op, p)
		}
		s.publish("for all")
		frames(t, ws, "for all")
		other.events("for all")
	})
}

func TestAFullQueueIsAnErrorHereAndAGapThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect)
		r := s.sse("")
		c := <-conns
		big := bytes.Repeat([]byte("x"), 10_000)
		sent, refused := 0, 0
		for range 100 {
			switch err := c.Send(tailcast.Message{Data: big}); {
			case err == nil:
				sent++
			case errors.Is(err, tailcast.ErrQueueFull):
				refused++
			default:
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if sent < 25 || refused < 50 { // what fits into the queue and the network's buffer
			t.Fatalf("%d sent, %d refused", sent, refused)
		}
		for range sent {
			if e, err := r.event(); err != nil || len(e.data) != len(big) {
				t.Fatal(err)
			}
		}
		e, err := r.event()
		if err != nil || e.name != "gap" || !strings.Contains(e.data, fmt.Sprintf(`"count":%d,`, refused)) {
			t.Errorf("%+v, %v; want a gap of %d", e, err, refused)
		}
	})
}

func TestCloseSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		conns, onConnect := connected()
		s := newSite(t, onConnect, w.option())
		long := strings.Repeat("é", 100)
		for _, c := range []struct {
			cause  error
			code   int
			reason string
		}{
			{nil, 1000, ""},
			{errors.New("a secret"), 1011, ""},
			{&tailcast.CloseError{Code: 4009, Reason: "moved"}, 4009, "moved"},
			{fmt.Errorf("wrapped: %w", &tailcast.CloseError{Code: 1008}), 1008, ""},
			{&tailcast.CloseError{Code: 4000, Reason: long}, 4000, long[:122]},
		} {
			ws := s.ws("")
			conn := <-conns
			if err := conn.Send(tailcast.Message{Data: []byte("last words")}); err != nil {
				t.Fatal(err)
			}
			if err := conn.Close(c.cause); err != nil {
				t.Errorf("Close = %v", err)
			}
			if err := conn.Close(errors.New("again")); !errors.Is(err, tailcast.ErrClosed) {
				t.Errorf("second Close = %v", err)
			}
			if got := <-w.ended; got != c.cause {
				t.Errorf("BeforeClose got %v, want %v", got, c.cause)
			}
			frames(t, ws, "last words")
			if reason := closed(t, ws, c.code); reason != c.reason {
				t.Errorf("reason %q, want %q", reason, c.reason)
			}
			if _, _, err := ws.ReadFrame(); err != io.EOF {
				t.Errorf("after the Close frame: %v", err)
			}
			if conn.Context().Err() == nil {
				t.Error("its context lives on")
			}
			if err := conn.Send(tailcast.Message{}); !errors.Is(err, tailcast.ErrClosed) {
				t.Errorf("Send after the end: %v", err)
			}
			if err := conn.Subscribe(t.Context(), "x", tailcast.Position{}); !errors.Is(err, tailcast.ErrClosed) {
				t.Errorf("Subscribe after the end: %v", err)
			}
		}
	})
}

func TestBeforeCloseRunsOnceHoweverItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		conns, onConnect := connected()
		s := newSite(t, onConnect, w.option(), tailcast.WithLimits(tailcast.Limits{MessageBytes: 100}))
		want := 0
		for _, c := range []struct {
			name  string
			end   func(*testnet.WS, *testnet.Conn)
			cause func(error) bool
		}{
			{"a Close frame", func(ws *testnet.WS, _ *testnet.Conn) {
				ws.WriteClose(4001, "bye")
				if op, p, err := ws.ReadFrame(); op != 8 || string(p[2:]) != "bye" {
					t.Errorf("the echo: %d %q %v", op, p, err)
				}
			}, func(err error) bool { return code(err) == 4001 }},
			{"a Close frame without a code", func(ws *testnet.WS, _ *testnet.Conn) { ws.WriteFrame(true, 8, nil) },
				func(err error) bool { return code(err) == 1005 }},
			{"FIN", func(_ *testnet.WS, nc *testnet.Conn) { nc.Close() },
				func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
			{"RST", func(_ *testnet.WS, nc *testnet.Conn) { nc.Reset() },
				func(err error) bool { return errors.Is(err, syscall.ECONNRESET) }},
			{"too large a message", func(ws *testnet.WS, _ *testnet.Conn) { ws.WriteText(strings.Repeat("x", 101)); closed(t, ws, 1009) },
				func(err error) bool { return code(err) == 1009 }},
			{"a broken frame", func(ws *testnet.WS, _ *testnet.Conn) { ws.WriteFrame(true, 3, nil); closed(t, ws, 1002) },
				func(err error) bool { return code(err) == 1002 }},
			{"text that is none", func(ws *testnet.WS, _ *testnet.Conn) { ws.WriteFrame(true, 1, []byte("\xff")); closed(t, ws, 1007) },
				func(err error) bool { return code(err) == 1007 }},
		} {
			nc := s.dial()
			ws, _, err := testnet.NewWS(nc, "hub.example", "/", nil)
			if err != nil {
				t.Fatal(err)
			}
			<-conns
			c.end(ws, nc)
			cause := <-w.ended
			want++
			if !c.cause(cause) {
				t.Errorf("%s: cause %v", c.name, cause)
			}
			synctest.Wait()
			nc.Close()
		}
		for range 2 {
			r := s.sse("")
			<-conns
			synctest.Wait() // a write that comes too late would be a cause of its own
			r.nc.Close()
			if cause := <-w.ended; !errors.Is(cause, io.ErrUnexpectedEOF) {
				t.Errorf("SSE: %v", cause)
			}
			want++
		}
		time.Sleep(time.Minute)
		if n := w.count(); n != want {
			t.Errorf("BeforeClose ran %d times for %d connections", n, want)
		}
		if n := len(s.hub.Stats().Connections); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

func TestASilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option())
		start := time.Now()
		dead, alive := s.ws(""), s.ws("")
		go func() { // a client that answers, as browsers do
			for {
				op, p, err := alive.ReadFrame()
				if err != nil {
					return
				}
				if op == 9 {
					alive.WriteFrame(true, 10, p)
				}
			}
		}()
		if op, _, err := dead.ReadFrame(); op != 9 || err != nil {
			t.Errorf("opcode %d, %v", op, err)
		}
		if cause := <-w.ended; !errors.Is(cause, tailcast.ErrPingTimeout) {
			t.Errorf("cause %v", cause)
		}
		if d := time.Since(start); d < 35*time.Second || d > 37*time.Second {
			t.Errorf("it took %v", d)
		}
		time.Sleep(time.Hour)
		if w.count() != 1 {
			t.Error("the one that answers was given up too")
		}
	})
}

// While OnConnect runs nobody reads: its time does not count against the peer, and what comes meanwhile is no burst.
func TestASlowOnConnectIsNotThePeersFault(t *testing.T) {
	for _, detach := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch()
			const said = 1000
			heard := 0
			opts := []tailcast.Option{
				w.option(), tailcast.WithOnConnect(func(*tailcast.Conn) error { time.Sleep(time.Minute); return nil }),
				tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { heard++; return nil }),
			}
			if detach {
				opts = append(opts, tailcast.WithDetach())
			}
			s := newSite(t, opts...)
			ws := s.ws("")
			go func() {
				for range said {
					time.Sleep(50 * time.Millisecond)
					ws.WriteText("hello")
				}
			}()
			go ws.ReadMessage() // answers pings
			time.Sleep(70 * time.Second)
			synctest.Wait()
			if n := w.count(); n != 0 {
				t.Errorf("it was closed: %v", <-w.ended)
			} else if heard != said {
				t.Errorf("%d of %d messages were heard", heard, said)
			}
			ws.Close()
		})
	}
}

func TestAStalledPeerEndsWithErrWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option())
		s.ws("")
		s.sse("")
		s.get("")
		synctest.Wait()
		start := time.Now()
		for range 50 {
			s.publish(strings.Repeat("x", 10_000))
		}
		for range 3 {
			if cause := <-w.ended; !errors.Is(cause, tailcast.ErrWriteTimeout) {
				t.Errorf("cause %v", cause)
			}
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestAQuietStreamGetsHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		r := s.sse("")
		r.lines2(t)
		s.publish("a")
		r.events("a")
		id, start := r.id, time.Now()
		for range 3 {
			if line, err := r.ReadString('\n'); err != nil || line != "id: "+id+"\n" {
				t.Fatalf("%q, %v; want the id %s", line, err, id)
			}
			r.lines("")
			if d := time.Since(start); d < 14*time.Second || d > 17*time.Second {
				t.Errorf("after %v", d)
			}
			start = time.Now()
		}
	})
}

func TestAfterReadGetsEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		stop := &tailcast.CloseError{Code: 4002, Reason: "enough"}
		s := newSite(t, w.option(), tailcast.WithPing(2*time.Second, time.Second),
			tailcast.WithAfterRead(func(c *tailcast.Conn, in tailcast.Inbound) error {
				switch {
				case string(in.Data) == "stop":
					return stop
				case string(in.Data) == "slow":
					time.Sleep(30 * time.Second) // its time does not count against the peer
				}
				return c.Send(tailcast.Message{Data: append([]byte("echo "), in.Data...), Binary: in.Binary})
			}))
		ws := s.ws("")
		go func() {
			ws.WriteText("one")
			ws.WriteFrame(false, 2, []byte("t"))
			ws.WriteFrame(true, 0, []byte("wo"))
			ws.WriteText("slow")
		}()
		frames(t, ws, "echo one")
		if op, p, _ := ws.ReadFrame(); op != 2 || string(p) != "echo two" {
			t.Errorf("%d %q", op, p)
		}
		for {
			op, p, err := ws.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if op == 9 {
				ws.WriteFrame(true, 10, p)
				continue
			}
			if string(p) != "echo slow" {
				t.Errorf("%d %q", op, p)
			}
			break
		}
		ws.WriteText("stop")
		closed(t, ws, 4002)
		if cause := <-w.ended; cause != stop {
			t.Errorf("cause %v", cause)
		}
	})
}

func TestHooksMayDoAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub *tailcast.Hub
		var ends atomic.Int32
		ready := make(chan struct{})
		hub = tailcast.New(
			tailcast.WithOnConnect(func(c *tailcast.Conn) error {
				<-ready
				c.AfterRead(func(c *tailcast.Conn, in tailcast.Inbound) error {
					return hub.Publish(c.Context(), tailcast.Message{Data: bytes.ToUpper(in.Data)})
				})
				c.BeforeClose(func(c *tailcast.Conn, _ error) {
					ends.Add(1)
					c.Send(tailcast.Message{Data: []byte("farewell")})
					hub.Publish(context.Background(), tailcast.Message{Data: []byte("one has left")})
					c.Close(nil)
				})
				return c.Subscribe(c.Context(), "extra", tailcast.Position{})
			}),
			tailcast.WithAfterRead(func(c *tailcast.Conn, in tailcast.Inbound) error {
				if string(in.Data) == "quit" {
					return c.Close(&tailcast.CloseError{Code: 4003})
				}
				return nil
			}))
		close(ready)
		s := serveSite(t, hub, hub)
		a, b := s.ws(""), s.ws("")
		synctest.Wait()
		a.WriteText("hello")
		frames(t, a, "HELLO")
		frames(t, b, "HELLO")
		hub.Publish(t.Context(), tailcast.Message{Topic: "extra", Data: []byte("more")})
		frames(t, a, "more")
		frames(t, b, "more")
		a.WriteText("quit")
		frames(t, b, "one has left") // the second hook's Publish failed with the connection's context
		got := ""
		for {
			op, p, err := a.ReadFrame()
			if err != nil || op == 8 {
				break
			}
			got += string(p) + ";"
		}
		if !strings.Contains(got, "farewell;") {
			t.Errorf("the last words were %q", got)
		}
		if ends.Load() != 1 {
			t.Errorf("BeforeClose ran %d times", ends.Load())
		}
	})
}

func TestPanicsOfHooksEndTheirConnectionOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
			tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { panic("a bug") }),
			tailcast.WithBeforeClose(func(*tailcast.Conn, error) { panic(io.ErrNoProgress) }))
		ws, other := s.ws(""), s.ws("")
		synctest.Wait()
		ws.WriteText("secret payload")
		closed(t, ws, 1011)
		var p *tailcast.PanicError
		if cause := <-w.ended; !errors.As(cause, &p) || p.Value != "a bug" || !strings.Contains(string(p.Stack), "conn_test.go") {
			t.Errorf("cause %v", cause)
		}
		synctest.Wait()
		if n := s.hub.Stats().Panics; n != 2 {
			t.Errorf("%d panics are counted", n)
		}
		if text := log.String(); strings.Count(text, "hook panicked") != 2 || strings.Contains(text, "secret") {
			t.Errorf("logged: %s", text)
		}
		s.publish("still here")
		frames(t, other, "still here")
	})
}

func TestOnConnectCanRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithBacklog(5), tailcast.WithOnConnect(func(*tailcast.Conn) error {
			return &tailcast.CloseError{Code: 1013, Reason: "full"}
		}))
		s.publish("not for you")
		ws := s.ws("")
		op, p, err := ws.ReadFrame()
		if op != 8 || err != nil || string(p[2:]) != "full" {
			t.Errorf("%d %q %v", op, p, err)
		}
		r := s.sse("")
		if e, err := r.event(); err != nil || e.name != "bye" || !strings.Contains(e.data, "full") {
			t.Errorf("%+v %v", e, err)
		}
		<-w.ended
		<-w.ended
	})
}

func TestALaggingBareWebSocketIsClosedWithTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		ws := s.ws("")
		synctest.Wait()
		big := strings.Repeat("x", 20_000)
		for range 100 {
			s.publish(big)
			synctest.Wait()
		}
		n := 0
		for {
			op, p, err := ws.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if op == 8 {
				want := fmt.Sprintf("too slow: missed %d messages, %d bytes", 90-n, (90-n)*20_000)
				if got := int(p[0])<<8 | int(p[1]); got != 1013 || string(p[2:]) != want {
					t.Errorf("closed with %d %q, want %q", got, p[2:], want)
				}
				break
			}
			n++
		}
		if n == 0 || n >= 90 {
			t.Errorf("%d messages arrived", n)
		}
	})
}

func TestAnExtraTopicTurnsAStreamIntoOneOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect)
		r, text := s.sse(""), s.get("")
		sse, plain := <-conns, <-conns
		if sse.Transport() != "sse" {
			sse, plain = plain, sse
		}
		synctest.Wait()
		for _, c := range []*tailcast.Conn{sse, plain} {
			if err := c.Subscribe(t.Context(), "b", tailcast.Position{}); err != nil {
				t.Fatal(err)
			}
			if err := c.Subscribe(t.Context(), "b", tailcast.Position{}); !errors.Is(err, tailcast.ErrSubscribed) {
				t.Errorf("twice: %v", err)
			}
			if err := c.Subscribe(t.Context(), "\x00", tailcast.Position{}); !errors.Is(err, tailcast.ErrTopicName) {
				t.Errorf("a bad name: %v", err)
			}
		}
		s.publish("1")
		synctest.Wait()
		s.hub.Publish(t.Context(), tailcast.Message{Topic: "b", Data: []byte("2")})
		synctest.Wait()
		r.events("1", "2")
		if !strings.Contains(r.id, ",b=") {
			t.Errorf("the id is %q", r.id)
		}
		text.lines("==>  <==", "1", "", "==> b <==", "2")
	})
}
