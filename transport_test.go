package tailcast_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
// timeouts.
func TestEveryTransport(t *testing.T) {
	for _, c := range []struct {
		name   string
		tls    bool
		h2     bool
		wrap   func(http.Handler) http.Handler
		accept string
		ws     bool
	}{
		{name: "HTTP/1 text"},
		{name: "HTTP/1 SSE", accept: "text/event-stream"},
		{name: "HTTP/1 SSE behind middleware", accept: "text/event-stream", wrap: wrapped},
		{name: "HTTP/1 SSE over TLS", accept: "text/event-stream", tls: true},
		{name: "HTTP/1 SSE over TLS behind middleware", accept: "text/event-stream", tls: true, wrap: wrapped},
		{name: "HTTP/2 SSE", accept: "text/event-stream", tls: true, h2: true},
		{name: "HTTP/2 text behind middleware", tls: true, h2: true, wrap: wrapped},
		{name: "WebSocket", ws: true},
		{name: "WebSocket behind middleware", ws: true, wrap: wrapped},
		{name: "WebSocket over TLS", ws: true, tls: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWatch()
			conns, onConnect := connected()
			hub := tailcast.New(w.option(), onConnect, tailcast.WithRetention(tailcast.Retention{}))
			h := http.Handler(hub)
			if c.wrap != nil {
				h = c.wrap(h)
			}
			srv := httptest.NewUnstartedServer(h)
			srv.Config.WriteTimeout, srv.Config.ReadTimeout = 300*time.Millisecond, 300*time.Millisecond
			srv.EnableHTTP2 = c.h2
			if c.tls {
				srv.StartTLS()
			} else {
				srv.Start()
			}
			defer srv.Close()
			defer hub.Close()
			line := "a line of some length: " + strings.Repeat("x", 200)
			const count = 10_000
			done := make(chan error, 1)
			ready := make(chan struct{})
			go func() { done <- receive(srv, c.ws, c.accept, line, count, ready) }()
			select {
			case <-ready:
				<-conns
			case err := <-done:
				t.Fatal(err)
			}
			time.Sleep(400 * time.Millisecond) // longer than the server's timeouts
			for range count / 100 {
				msgs := make([]tailcast.Message, 100)
				for i := range msgs {
					msgs[i].Data = []byte(line)
				}
				if err := hub.Publish(t.Context(), msgs...); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			select {
			case cause := <-w.ended:
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
		return receiveWS(srv, line, count, ready)
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

func receiveWS(srv *httptest.Server, line string, count int, ready chan struct{}) error {
	nc, err := dialServer(srv)
	if err != nil {
		return err
	}
	defer nc.Close()
	ws, _, err := testnet.NewWS(nc, srv.Listener.Addr().String(), "/", nil)
	if err != nil {
		return err
	}
	close(ready)
	for range count {
		op, p, err := ws.ReadFrame()
		if err != nil {
			return err
		}
		if op != 1 || string(p) != line {
			return errors.New("unexpected " + string(p))
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

func TestAnOpaqueWrapperIsNamed(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	for name, h := range map[string]http.Handler{
		"tailcast_test.opaque": hidden(hub),
		"*http.timeoutWriter":  http.TimeoutHandler(hub, time.Minute, ""),
	} {
		srv := httptest.NewServer(h)
		for _, header := range []http.Header{
			{"Accept": {"text/event-stream"}},
			{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}},
		} {
			req, _ := http.NewRequestWithContext(context.Background(), "GET", srv.URL, nil)
			req.Header = header
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 500 || !strings.Contains(string(body), name) {
				t.Errorf("%v: %d %q, want the name %s", header, resp.StatusCode, body, name)
			}
		}
		srv.Close()
	}
}
