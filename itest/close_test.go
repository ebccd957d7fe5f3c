package itest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// A visitor is clients/visitor.mjs: a page in Chromium, or Node, that does what it is told and says what it sees.
type visitor struct {
	*nodeProgram
	events map[string]chan seen
}

// seen is an event.
type seen struct {
	Event    string
	Code     int
	Reason   string
	Clean    bool
	Messages int
	Data     string
	State    int
	At       float64 // ms
}

func startVisitor(t *testing.T, kind, origin string) *visitor {
	t.Helper()
	v := &visitor{events: make(map[string]chan seen)}
	for _, event := range []string{"ready", "done", "open", "close", "message", "bye", "error"} {
		v.events[event] = make(chan seen, 1000)
	}
	v.nodeProgram = startNode(t, kind, func(line []byte) error {
		var e seen
		err := json.Unmarshal(line, &e)
		if err == nil {
			v.events[e.Event] <- e
		}
		return err
	}, "node", "clients/visitor.mjs", kind, origin)
	v.await("ready")
	return v
}

// await waits for an event.
func (v *visitor) await(event string) seen {
	v.t.Helper()
	select {
	case e := <-v.events[event]:
		return e
	case <-v.gone:
		v.t.Fatalf("%s has ended: %s", v.name, &v.stderr)
	case <-time.After(patience):
		v.t.Fatalf("%s waits for %s", v.name, event)
	}
	return seen{}
}

// order returns when the order has been carried out.
func (v *visitor) order(words ...any) {
	v.t.Helper()
	v.send(words)
	v.await("done")
}

// A house serves the hub of the moment, and a page.
type house struct {
	url   string
	hub   atomic.Pointer[tailcast.Hub]
	conns chan *tailcast.Conn
	ends  chan error
}

func newHouse(t *testing.T) *house {
	h := new(house)
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<!doctype html><title>visitor</title>")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) { h.hub.Load().ServeHTTP(w, r) })
	server := httptest.NewServer(mux)
	h.url = server.URL
	t.Cleanup(server.Close)
	return h
}

// open begins with a new hub.
func (h *house) open(t *testing.T, opts ...tailcast.Option) *tailcast.Hub {
	h.conns, h.ends = make(chan *tailcast.Conn, 10), make(chan error, 10)
	conns, ends := h.conns, h.ends
	hub := tailcast.New(append(opts, tailcast.WithBacklog(1), // a first message arrives, though the client may not be subscribed yet
		tailcast.WithOnConnect(func(c *tailcast.Conn) error { conns <- c; return nil }),
		tailcast.WithBeforeClose(func(_ *tailcast.Conn, cause error) { ends <- cause }))...)
	h.hub.Store(hub)
	t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
	})
	return hub
}

// ended waits for the cause that BeforeClose is given, and until the connection is gone.
func (h *house) ended(t *testing.T) error {
	t.Helper()
	select {
	case cause := <-h.ends:
		eventually(t, "the connection leaves Stats", func() bool { return len(h.hub.Load().Stats().Connections) == 0 })
		if n := len(h.ends); n != 0 {
			t.Errorf("BeforeClose was called %d times more", n)
		}
		return cause
	case <-time.After(patience):
		t.Fatal("BeforeClose is not called")
		return nil
	}
}

// A table of what was observed: a row for each cause, a column for each visitor.
type table struct {
	columns []string
	order   []string
	cells   map[string][]string
}

func (tb *table) add(row, cell string) {
	if tb.cells == nil {
		tb.cells = make(map[string][]string)
	}
	if tb.cells[row] == nil {
		tb.order = append(tb.order, row)
	}
	tb.cells[row] = append(tb.cells[row], cell)
}

func (tb *table) log(t *testing.T) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s |\n%s|\n", strings.Join(tb.columns, " | "), strings.Repeat("|---", len(tb.columns)))
	for _, row := range tb.order {
		fmt.Fprintf(&b, "| %s | %s |\n", row, strings.Join(tb.cells[row], " | "))
	}
	t.Log(b.String())
}

func needVisitors(t *testing.T) {
	t.Helper()
	need(t, "node", "chromium", "npm/ws", "npm/eventsource", "npm/playwright-core")
}

const shuttingDown = "the server is shutting down"

// TestCloseCodesAtThePage: what the server closes with is what a page and Node see. Everything has its real cause, but for
// what a page cannot do: break the protocol, send text that is not UTF-8, and stop reading.
func TestCloseCodesAtThePage(t *testing.T) {
	needVisitors(t)
	const tooMany, kept = 128, 4
	long := "moved " + strings.Repeat("日本é", 30)
	cut := "moved " + strings.Repeat("日本é", 14) + "日" // 121 bytes: the next rune has 3
	h := newHouse(t)
	tb := &table{columns: []string{"cause", "Chromium: code, reason, wasClean", "ws of Node: code, reason, wasClean"}}
	closeWith := func(cause error) func(*visitor, *tailcast.Conn) {
		return func(_ *visitor, c *tailcast.Conn) { c.Close(cause) }
	}
	node := func(v *visitor) bool { return v.name == "node" }
	hook := func(err error) tailcast.Option {
		return tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { return err })
	}
	cases := []struct {
		cause  string
		code   int
		reason string // at Node, if nodes is empty
		nodes  string // its reason at Node
		opts   []tailcast.Option
		act    func(*visitor, *tailcast.Conn)
	}{
		{cause: "Conn.Close(nil)", code: 1000, act: closeWith(nil)},
		{cause: "Hub.Shutdown", code: 1001, reason: shuttingDown, act: func(*visitor, *tailcast.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := h.hub.Load().Shutdown(ctx); err != nil {
				t.Error(err)
			}
		}},
		{cause: "an unmasked frame (Chromium: CloseError)", code: 1002, reason: "as if", nodes: "received unmasked frame from client",
			act: func(v *visitor, c *tailcast.Conn) {
				if node(v) {
					v.order("raw", "8100")
				} else {
					c.Close(&tailcast.CloseError{Code: 1002, Reason: "as if"})
				}
			}},
		{cause: "text that is not UTF-8 (Chromium: CloseError)", code: 1007, reason: "text that is not valid UTF-8",
			act: func(v *visitor, c *tailcast.Conn) {
				if node(v) {
					v.order("raw", "818100000000ff")
				} else {
					c.Close(&tailcast.CloseError{Code: 1007, Reason: "text that is not valid UTF-8"})
				}
			}},
		{cause: "AfterRead returns a CloseError", code: 1008, reason: "not here",
			opts: []tailcast.Option{hook(&tailcast.CloseError{Code: 1008, Reason: "not here"})},
			act:  func(v *visitor, _ *tailcast.Conn) { v.order("send", 5) }},
		{cause: "200 KB with a limit of 1000 bytes", code: 1009, reason: "a message may have 1000 bytes",
			opts: []tailcast.Option{tailcast.WithLimits(tailcast.Limits{MessageBytes: 1000})},
			act:  func(v *visitor, _ *tailcast.Conn) { v.order("send", 200_000) }},
		{cause: "AfterRead returns an error", code: 1011, opts: []tailcast.Option{hook(errors.New("a secret"))},
			act: func(v *visitor, _ *tailcast.Conn) { v.order("send", 5) }},
		{cause: "too slow (Chromium: CloseError)", code: 1013, reason: "too slow", nodes: "too slow: missed %d messages, %d bytes",
			opts: []tailcast.Option{tailcast.WithRetention(tailcast.Retention{Messages: kept}), tailcast.WithWriteTimeout(patience)},
			act: func(v *visitor, c *tailcast.Conn) {
				if !node(v) {
					c.Close(&tailcast.CloseError{Code: 1013, Reason: "too slow"})
					return
				}
				hub := h.hub.Load()
				publish := func(n int) {
					for range n {
						if err := hub.Publish(t.Context(), tailcast.Message{Data: bytes.Repeat([]byte("x"), 256<<10)}); err != nil {
							t.Fatal(err)
						}
					}
				}
				publish(1)
				eventually(t, "it is subscribed", func() bool { return hub.Stats().Delivered > 0 })
				v.order("pause")
				publish(tooMany - 1) // 32 MiB: the kernel takes less for a client that does not read
				v.order("resume")
			}},
		{cause: "Conn.Close with a reason of 246 bytes", code: 4009, reason: cut, act: closeWith(&tailcast.CloseError{Code: 4009, Reason: long})},
		{cause: "Conn.Close(&CloseError{Code: 4401})", code: 4401, reason: "the session has expired",
			act: closeWith(fmt.Errorf("wrapped: %w", &tailcast.CloseError{Code: 4401, Reason: "the session has expired"}))},
	}
	for _, kind := range []string{"chromium", "node"} {
		v := startVisitor(t, kind, h.url)
		for _, c := range cases {
			h.open(t, c.opts...)
			v.order("open", "ws"+strings.TrimPrefix(h.url, "http")+"/stream")
			v.await("open")
			c.act(v, <-h.conns)
			got := v.await("close")
			want := c.reason
			if node(v) && c.nodes != "" {
				want = c.nodes
			}
			if strings.Contains(want, "%d") { // how many it misses depends on when it is looked at
				var missed, size int
				fmt.Sscanf(got.Reason, want, &missed, &size)
				if missed < 1 || missed > tooMany-kept-got.Messages {
					t.Errorf("it got %d of %d messages, of which %d are kept, and missed %d", got.Messages, tooMany, kept, missed)
				}
				want = fmt.Sprintf(want, missed, missed*256<<10)
			}
			if got.Code != c.code || got.Reason != want || !got.Clean {
				t.Errorf("%s, %s: %d %q, clean %t; want %d %q", c.cause, kind, got.Code, got.Reason, got.Clean, c.code, want)
			}
			tb.add(c.cause, fmt.Sprintf("%d, %q, %t", got.Code, got.Reason, got.Clean))
			h.ended(t)
		}
	}
	tb.log(t)
}

// TestCloseCodesOfThePage: what a page and Node close with is what BeforeClose is told, and the echo is clean.
func TestCloseCodesOfThePage(t *testing.T) {
	needVisitors(t)
	h := newHouse(t)
	tb := &table{columns: []string{"the client's", "Chromium: BeforeClose's; its own close event", "ws of Node: BeforeClose's; its own close event"}}
	for _, kind := range []string{"chromium", "node"} {
		v := startVisitor(t, kind, h.url)
		for _, c := range []struct {
			name   string
			order  []any
			code   int
			reason string
		}{
			{"close()", []any{"close"}, 1005, ""},
			{"close(1000)", []any{"close", 1000}, 1000, ""},
			{"close(3001)", []any{"close", 3001}, 3001, ""},
			{"close(4009, …)", []any{"close", 4009, "genug für heute: 終"}, 4009, "genug für heute: 終"},
			{"the page is left", []any{"leave"}, 1001, ""},
		} {
			if c.order[0] == "leave" && kind == "node" {
				tb.add(c.name, "")
				continue
			}
			h.open(t)
			v.order("open", "ws"+strings.TrimPrefix(h.url, "http")+"/stream")
			v.await("open")
			v.order(c.order...)
			cause := h.ended(t)
			var ce *tailcast.CloseError
			if !errors.As(cause, &ce) || ce.Code != c.code || ce.Reason != c.reason {
				t.Errorf("%s, %s: BeforeClose got %v; want %d %q", c.name, kind, cause, c.code, c.reason)
			}
			cell := fmt.Sprint(cause)
			if c.order[0] != "leave" { // who has left sees nothing
				got := v.await("close")
				if got.Code != c.code || got.Reason != c.reason || !got.Clean {
					t.Errorf("%s, %s: its own event says %d %q, clean %t", c.name, kind, got.Code, got.Reason, got.Clean)
				}
				cell += fmt.Sprintf("; %d, %q, %t", got.Code, got.Reason, got.Clean)
			}
			tb.add(c.name, cell)
		}
	}
	tb.log(t)
}

// TestAnEventSourceComesBack: Shutdown says bye, and an EventSource comes back after the stream's advice, as often as the hub
// that is shut down says bye again, and to the next hub.
func TestAnEventSourceComesBack(t *testing.T) {
	t.Parallel()
	needVisitors(t)
	for _, kind := range []string{"chromium", "node"} {
		t.Run(kind, func(t *testing.T) {
			h := newHouse(t)
			hub := h.open(t)
			v := startVisitor(t, kind, h.url)
			v.order("source", h.url+"/stream")
			v.await("open")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := hub.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			var ce *tailcast.CloseError
			if cause := h.ended(t); !errors.As(cause, &ce) || ce.Code != 1001 {
				t.Errorf("BeforeClose got %v", cause)
			}
			for round := range 2 {
				var bye struct {
					Event, Reason string
					Code, Retry   int
				}
				data := v.await("bye").Data
				if err := json.Unmarshal([]byte(data), &bye); err != nil {
					t.Fatalf("%v: %s", err, data)
				}
				if bye.Event != "bye" || bye.Code != 1001 || bye.Reason != shuttingDown || bye.Retry < 2000 || bye.Retry > 3000 {
					t.Errorf("bye: %s", data)
				}
				lost := v.await("error")
				if lost.State != 0 {
					t.Errorf("readyState %d after the end, want CONNECTING", lost.State)
				}
				if round == 1 {
					hub = h.open(t)
				}
				back := v.await("open")
				wait := back.At - lost.At
				if wait < 1950 || wait > 3000+float64(patience/time.Millisecond) { // above, only the machine counts
					t.Errorf("it came back after %.0f ms, the advice is 2000 to 3000", wait)
				}
				t.Logf("bye %s; readyState %d; open again after %.0f ms", data, lost.State, wait)
			}
			<-h.conns
			if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte("welcome back")}); err != nil {
				t.Fatal(err)
			}
			if got := v.await("message").Data; got != "welcome back" {
				t.Errorf("got %q", got)
			}
			v.order("unsource")
			if cause := h.ended(t); !errors.Is(cause, io.ErrUnexpectedEOF) {
				t.Errorf("EventSource.close: %v", cause)
			}
		})
	}
}

// TestAClientThatIsKilled: its kernel closes its sockets, with a FIN, or with a RST if there is something that it has not read.
func TestAClientThatIsKilled(t *testing.T) {
	need(t, "node", "npm/ws", "npm/eventsource")
	tb := &table{columns: []string{"client", "BeforeClose's"}}
	for _, c := range []struct {
		name, what string
		unread     bool
		cause      error
	}{
		{"ws of Node", "open", false, io.ErrUnexpectedEOF},
		{"ws of Node, with bytes unread", "open", true, syscall.ECONNRESET},
		{"EventSource of Node", "source", false, io.ErrUnexpectedEOF},
	} {
		h := newHouse(t)
		hub := h.open(t)
		v := startVisitor(t, "node", h.url)
		url := h.url + "/stream"
		if c.what == "open" {
			url = "ws" + strings.TrimPrefix(url, "http")
		}
		v.order(c.what, url)
		v.await("open")
		<-h.conns
		publish := func(size int) {
			if err := hub.Publish(t.Context(), tailcast.Message{Data: bytes.Repeat([]byte("x"), size)}); err != nil {
				t.Fatal(err)
			}
		}
		if c.unread {
			v.order("pause")
			before := hub.Stats().SentBytes
			const size = 200_000 // Node reads some of it ahead, the kernels hold the rest
			publish(size)
			eventually(t, "the message is sent", func() bool { return hub.Stats().SentBytes > before+size })
		} else if c.what == "source" {
			publish(10)
			v.await("message") // it has read what came before
		}
		if err := v.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cause := h.ended(t)
		if !errors.Is(cause, c.cause) {
			t.Errorf("%s: %v, want %v", c.name, cause, c.cause)
		}
		tb.add(c.name, fmt.Sprint(cause))
	}
	tb.log(t)
}
