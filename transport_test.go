package tailcast_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// Wrappers of middleware: one that http.ResponseController sees through, and one that hides what is below.
type (
	seeThrough struct{ http.ResponseWriter }
	opaque     struct{ w http.ResponseWriter }
)

func (s seeThrough) Unwrap() http.ResponseWriter { return s.ResponseWriter }
func (o opaque) Header() http.Header             { return o.w.Header() }
func (o opaque) Write(p []byte) (int, error)     { return o.w.Write(p) }
func (o opaque) WriteHeader(code int)            { o.w.WriteHeader(code) }
func wrapped(h http.Handler) http.Handler {
	return wrap(h, func(w http.ResponseWriter) http.ResponseWriter { return seeThrough{w} })
}
func hidden(h http.Handler) http.Handler {
	return wrap(h, func(w http.ResponseWriter) http.ResponseWriter { return opaque{w} })
}
func wrap(h http.Handler, f func(http.ResponseWriter) http.ResponseWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(f(w), r) })
}

// TestEveryTransport sends enough to every kind of connection to fill its buffers, over real sockets, past the server's
// timeouts, which all of them wait for together.
func TestEveryTransport(t *testing.T) {
	line := "a line of some length: " + strings.Repeat("x", 200)
	const count = 10_000
	type connection struct {
		name string
		hub  *tailcast.Hub
		w    *watch
		done chan error // how its client ends
	}
	var connections []connection
	for _, c := range []struct {
		name   string
		tls    bool
		h2     bool
		wrap   func(http.Handler) http.Handler
		accept string
		ws     bool
		detach bool
	}{
		{name: "HTTP/1 text"},
		{name: "HTTP/1 SSE", accept: "text/event-stream"},
		{name: "HTTP/1 SSE behind middleware", accept: "text/event-stream", wrap: wrapped},
		{name: "HTTP/1 SSE over TLS", accept: "text/event-stream", tls: true},
		{name: "HTTP/1 SSE over TLS behind middleware", accept: "text/event-stream", tls: true, wrap: wrapped},
		{name: "HTTP/2 SSE", accept: "text/event-stream", tls: true, h2: true},
		{name: "HTTP/2 text behind middleware", tls: true, h2: true, wrap: wrapped},
		{name: "HTTP/1 NDJSON", accept: "application/x-ndjson"},
		{name: "HTTP/1 NDJSON behind middleware", accept: "application/x-ndjson", wrap: wrapped},
		{name: "HTTP/2 NDJSON", accept: "application/x-ndjson", tls: true, h2: true},
		{name: "WebSocket of envelopes", accept: "tailcast.v1", ws: true},
		{name: "WebSocket of envelopes over TLS", accept: "tailcast.v1", ws: true, tls: true},
		{name: "WebSocket", ws: true},
		{name: "WebSocket behind middleware", ws: true, wrap: wrapped},
		{name: "WebSocket over TLS", ws: true, tls: true},
		{name: "WebSocket of envelopes, detached", accept: "tailcast.v1", ws: true, detach: true},
		{name: "WebSocket, detached", ws: true, detach: true},
		{name: "WebSocket behind middleware, detached", ws: true, wrap: wrapped, detach: true},
		{name: "WebSocket over TLS, detached", ws: true, tls: true, detach: true},
		{name: "HTTP/1 SSE of a hub that detaches", accept: "text/event-stream", detach: true},
	} {
		w := newWatch()
		conns, onConnect := connected()
		opts := []tailcast.Option{w.option(), onConnect, tailcast.WithRetention(tailcast.Retention{})}
		if c.detach {
			opts = append(opts, tailcast.WithDetach())
		}
		hub := tailcast.New(opts...)
		h := http.Handler(hub)
		if c.wrap != nil {
			h = c.wrap(h)
		}
		srv := httptest.NewUnstartedServer(h)
		srv.Config.WriteTimeout, srv.Config.ReadTimeout = 2*time.Second, 2*time.Second // a handshake takes long where much goes on
		srv.EnableHTTP2 = c.h2
		if c.tls {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		t.Cleanup(srv.Close)
		t.Cleanup(func() { hub.Close() })
		done := make(chan error, 1)
		ready := make(chan struct{})
		go func() { done <- receive(srv, c.ws, c.accept, line, count, ready) }()
		select {
		case <-ready:
			<-conns
		case err := <-done:
			t.Fatalf("%s: %v", c.name, err)
		}
		connections = append(connections, connection{c.name, hub, w, done})
	}
	time.Sleep(2500 * time.Millisecond) // longer than the server's timeouts
	for _, c := range connections {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for range count / 100 {
				msgs := make([]tailcast.Message, 100)
				for i := range msgs {
					msgs[i].Data = []byte(line)
				}
				if err := c.hub.Publish(t.Context(), msgs...); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-c.done; err != nil {
				t.Error(err)
			}
			select {
			case cause := <-c.w.ended:
				if !errors.Is(cause, io.ErrUnexpectedEOF) && code(cause) != 1000 && !strings.Contains(cause.Error(), "reset") {
					t.Errorf("the cause of its end: %v", cause)
				}
			case <-time.After(20 * time.Second):
				t.Error("the hub has not noticed that the client has gone")
			}
		})
	}
}

func receive(srv *httptest.Server, ws bool, accept, line string, count int, ready chan struct{}) error {
	if ws {
		return receiveWS(srv, accept, line, count, ready)
	}
	req, _ := http.NewRequest("GET", srv.URL, nil)
	req.Header.Set("Accept", accept)
	resp, err := srv.Client().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return errors.New(resp.Status)
	}
	br := bufio.NewReader(resp.Body)
	close(ready)
	for n := 0; n < count; {
		got, err := br.ReadString('\n')
		if err != nil {
			return err
		}
		got = strings.TrimPrefix(strings.TrimSpace(got), "data: ")
		if accept == "application/x-ndjson" {
			got = payload(got)
		}
		switch {
		case got == line:
			n++
		case got == "" || accept != "" && (strings.HasPrefix(got, "id: ") || strings.HasPrefix(got, "retry: ")):
		default:
			return errors.New("unexpected " + got)
		}
	}
	return nil
}

// payload is what an envelope says; "" for a control object.
func payload(envelope string) string {
	var o struct {
		Event string
		Data  *string
	}
	if err := json.Unmarshal([]byte(envelope), &o); err != nil || (o.Event == "") != (o.Data != nil) {
		return "bad envelope " + envelope
	}
	if o.Event != "" {
		return ""
	}
	return *o.Data
}

func receiveWS(srv *httptest.Server, protocol, line string, count int, ready chan struct{}) error {
	nc, err := dialServer(srv)
	if err != nil {
		return err
	}
	defer nc.Close()
	header := make(http.Header)
	if protocol != "" {
		header.Set("Sec-WebSocket-Protocol", protocol)
	}
	ws, _, err := testnet.NewWS(nc, srv.Listener.Addr().String(), "/", header)
	if err != nil {
		return err
	}
	close(ready)
	for n := 0; n < count; {
		op, p, err := ws.ReadFrame()
		if err != nil {
			return err
		}
		got := string(p)
		if protocol != "" {
			got = payload(got)
		}
		if op != 1 || got != line && got != "" {
			return errors.New("unexpected " + string(p))
		}
		if got != "" {
			n++
		}
	}
	ws.WriteClose(1000, "")
	if op, _, err := ws.ReadFrame(); op != 8 {
		return errors.Join(errors.New("no answer to the Close frame"), err)
	}
	return nil
}

// dialServer connects, for HTTP/1.
func dialServer(srv *httptest.Server) (net.Conn, error) {
	nc, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err == nil && srv.TLS != nil {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	return nc, err
}

// TestACurtailedHandshake: what a proxy passes on of a WebSocket's handshake that was not told to pass on all of it.
func TestACurtailedHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for _, c := range []struct{ proto, header, want string }{
			{"HTTP/1.0", "Connection: close", "over HTTP/1.0, without the header Connection: Upgrade, without the header Upgrade: websocket. A proxy"},
			{"HTTP/1.1", "Connection: close", "without the header Connection: Upgrade, without the header Upgrade: websocket. A proxy"},
			{"HTTP/1.1", "Connection: close|Upgrade: websocket", "came without the header Connection: Upgrade. A proxy"},
			{"HTTP/1.1", "Connection: Upgrade", "came without the header Upgrade: websocket. A proxy"},
			{"HTTP/1.0", "Connection: Upgrade|Upgrade: websocket", "came over HTTP/1.0. A proxy"},
		} {
			nc := s.dial()
			io.WriteString(nc, "GET / "+c.proto+"\r\nHost: hub.example\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
				lines(c.header)+"\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			nc.Close()
			if resp.StatusCode != 426 || resp.Header.Get("Upgrade") != "websocket" || !strings.Contains(string(body), c.want) {
				t.Errorf("%s, %s: %d %v %q; want %q", c.proto, c.header, resp.StatusCode, resp.Header, body, c.want)
			}
		}
		if n := s.hub.Stats().Refused; n != 5 {
			t.Errorf("%d requests were refused, want 5", n)
		}
	})
}

func TestTheTypeInTheWayIsNamed(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	asserting := wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return asserts{w} })
	for _, c := range []struct {
		name   string
		h      http.Handler
		stream string // which is named to a stream, "" for none
		ws     string
	}{
		{"opaque", hidden(hub), "tailcast_test.opaque", "tailcast_test.opaque"},
		{"http.TimeoutHandler", http.TimeoutHandler(hub, time.Minute, ""), "*http.timeoutWriter", "*http.timeoutWriter"},
		{"http.TimeoutHandler behind a Flush and a Hijack", http.TimeoutHandler(asserting, time.Minute, ""), "*http.timeoutWriter", "*http.timeoutWriter"},
		{"a compressor without Flush", compressed(hub), "tailcast_test.seeThrough", ""},
	} {
		srv := httptest.NewServer(c.h)
		ask := func(name string, header http.Header) {
			if name == "" {
				return
			}
			req, _ := http.NewRequestWithContext(context.Background(), "GET", srv.URL, nil)
			req.Header = header
			resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Errorf("%s, %v: %v", c.name, header, err)
				return
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 500 || !strings.Contains(string(body), name) {
				t.Errorf("%s, %v: %d %q, want the name %s", c.name, header, resp.StatusCode, body, name)
			}
		}
		ask(c.stream, http.Header{"Accept": {"text/event-stream"}})
		ask(c.ws, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}})
		srv.Close()
	}
}

// compressed says that it compresses, and hides the Flush that would let it.
func compressed(h http.Handler) http.Handler {
	return wrap(h, func(w http.ResponseWriter) http.ResponseWriter {
		w.Header().Set("Content-Encoding", "gzip")
		return seeThrough{w}
	})
}

// asserts has methods that work only over a writer that has them too, as many a wrapper does: they do nothing over another
// one, and insists panics.
type (
	asserts struct{ http.ResponseWriter }
	insists struct{ http.ResponseWriter }
)

func (w asserts) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w insists) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w asserts) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w asserts) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h, ok := w.ResponseWriter.(http.Hijacker); ok {
		return h.Hijack()
	}
	return nil, nil, errors.New("no Hijack inside")
}

func (w insists) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w insists) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

// What such a Flush does not reach would stay in the server's buffer.
func TestAFlushThatMissesTheWriterInside(t *testing.T) {
	for name, with := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"does nothing":         func(w http.ResponseWriter) http.ResponseWriter { return asserts{seeThrough{w}} },
		"panics":               func(w http.ResponseWriter) http.ResponseWriter { return insists{seeThrough{w}} },
		"does nothing, within": func(w http.ResponseWriter) http.ResponseWriter { return insists{asserts{seeThrough{seeThrough{w}}}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := tailcast.New()
				s := serveSite(t, hub, wrap(hub, with))
				text, sse, ws := s.get(""), s.sse(""), s.ws("")
				for _, m := range numbered(1, 3) {
					synctest.Wait()
					s.publish(m)
					text.lines(m)
					sse.events(m)
					frames(t, ws, m)
				}
			})
		})
	}
}

type panicsInFlush struct{ seeThrough }

func (panicsInFlush) Flush() { panic(http.ErrAbortHandler) }

// An answer of 200 without a body would look like a stream that has ended.
func TestAPanicOfTheFirstFlushIsNoAnswer(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	srv := httptest.NewServer(wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return panicsInFlush{seeThrough{w}} }))
	defer srv.Close()
	if resp, err := http.Get(srv.URL); err == nil {
		t.Errorf("the answer is %s", resp.Status)
		resp.Body.Close()
	}
}

// Once the closing handshake is over, a client that leaves its socket open may hold up nobody for more than a second.
func TestAClientThatKeepsItsSocketIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for range 100 {
			ws := s.ws("")
			ws.WriteClose(1000, "")
			closed(t, ws, 1000)
		}
		began := time.Now()
		if err := s.hub.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Shutdown took %v", took)
		}
	})
}

// fragile has a SetWriteDeadline that panics over each but none.
type fragile struct{ seeThrough }

func (w fragile) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		panic("a deadline")
	}
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(t)
}

// What a ResponseWriter does to a timer, or to a worker, must not take the process down.
func TestAWriteDeadlineThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		hub := tailcast.New(w.option())
		s := serveSite(t, hub, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return fragile{seeThrough{w}} }))
		stalled, aborted := s.sse(""), s.sse("")
		stalled.nc.(*testnet.Conn).Peer().Stall()
		flood(s)
		if cause := <-w.ended; !errors.Is(cause, tailcast.ErrWriteTimeout) {
			t.Errorf("the cause is %v", cause)
		}
		stalled.nc.Close()
		go io.Copy(io.Discard, aborted)
		for c := range hub.Conns() {
			c.Close(nil)
		}
	})
}
