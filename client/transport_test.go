package client_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
)

// running reports whether a goroutine of a client's connections runs.
func running() bool {
	buf := make([]byte, 1<<20)
	stacks := string(buf[:runtime.Stack(buf, true)])
	return strings.Contains(stacks, "net/http.(*persistConn)") || strings.Contains(stacks, "net/http.(*http2ClientConn)")
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not happen: %s", what)
		}
	}
}

// TestNothingIsLeft of a loop that has been broken off, by the client that it makes for itself: no goroutine, and no connection, also of
// answers before that have been read to their end.
func TestNothingIsLeft(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	answers := 0
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answers++; answers == 1 {
			http.Error(w, "Not yet.", http.StatusServiceUnavailable)
			return
		}
		hub.ServeHTTP(w, r)
	}))
	publish(t, hub, "", numbered(1, 3)...)
	seq := client.Follow(t.Context(), srv, client.WithTail(3), client.WithBackoff(1, 1))
	if got := read(t, seq, 2); !slices.Equal(got, numbered(1, 2)) {
		t.Errorf("got %q", got)
	}
	eventually(t, "the hub's connection ends", func() bool { return len(hub.Stats().Connections) == 0 })
	eventually(t, "the goroutines end", func() bool { return !running() })
}

func TestNothingIsLeftOfARefusal(t *testing.T) {
	srv := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "No.", http.StatusForbidden) }))
	for _, err := range client.Follow(t.Context(), srv) {
		if err == nil {
			t.Error("a message")
		}
	}
	eventually(t, "the goroutines end", func() bool { return !running() })
}

// TestHTTP2: over one connection, which is left in the pool of who owns it, and without the stream.
func TestHTTP2(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the request came over %s", r.Proto)
		}
		hub.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	publish(t, hub, "", numbered(1, 3)...)
	var last tailcast.Position
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for m, err := range client.Follow(ctx, srv.URL, client.WithTail(3), client.WithHTTPClient(srv.Client())) {
		if err != nil {
			t.Fatal(err)
		}
		if last = m.Pos; string(m.Data) == "message 2" {
			break
		}
	}
	eventually(t, "the stream ends", func() bool { return len(hub.Stats().Connections) == 0 })
	publish(t, hub, "", "message 4")
	seq := client.Follow(ctx, srv.URL, client.WithSince(map[string]tailcast.Position{"": last}), client.WithHTTPClient(srv.Client()))
	if got := read(t, seq, 2); !slices.Equal(got, numbered(3, 4)) {
		t.Errorf("after message 2: %q", got)
	}
}

// A cable takes connections to a server, until they are cut without a word to either side: then those that there are take bytes and bring
// none, and those that come are sound.
type cable struct {
	net.Listener
	server string
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the rest
	links []net.Conn
	dead  *atomic.Bool // of those that there are
}

func newCable(t testing.TB, server string) *cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &cable{Listener: l, server: server, dead: new(atomic.Bool)}
	w.wg.Go(func() {
		for {
			c, err := w.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", w.server)
			if err != nil {
				c.Close()
				continue
			}
			w.mu.Lock()
			w.links = append(w.links, c, s)
			dead := w.dead
			w.mu.Unlock()
			w.wg.Go(func() { pass(s, c, dead) })
			w.wg.Go(func() { pass(c, s, dead) })
		}
	})
	t.Cleanup(func() {
		w.Close()
		w.mu.Lock()
		for _, c := range w.links {
			c.Close()
		}
		w.mu.Unlock()
		w.wg.Wait()
	})
	return w
}

func pass(to, from net.Conn, dead *atomic.Bool) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		switch {
		case err != nil:
			if !dead.Load() {
				to.Close()
			}
			return
		case !dead.Load():
			to.Write(buf[:n])
		}
	}
}

func (w *cable) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead.Store(true)
	w.dead = new(atomic.Bool)
}

// newHTTP2 serves a hub over HTTP/2 alone, and has http.DefaultTransport trust it.
func newHTTP2(t testing.TB, hub http.Handler) (address string, open *atomic.Int64) {
	srv, open := httptest.NewUnstartedServer(hub), new(atomic.Int64)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	before := http.DefaultTransport
	trusting := before.(*http.Transport).Clone()
	trusting.TLSClientConfig = &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	http.DefaultTransport = trusting
	t.Cleanup(func() { http.DefaultTransport = before })
	return srv.Listener.Addr().String(), open
}

// TestNothingIsLeftOverHTTP2 of a loop whose context ends, where a stream ends after its body has been closed.
func TestNothingIsLeftOverHTTP2(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	addr, open := newHTTP2(t, hub)
	publish(t, hub, "", "message 1")
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		for _, err := range client.Follow(ctx, "https://"+addr, client.WithTail(1)) {
			if err == nil {
				time.AfterFunc(time.Millisecond, cancel) // while it waits for a second message
			}
		}
		cancel()
	}
	eventually(t, "the connections end", func() bool { return open.Load() == 0 })
}

// TestADeadConnectionOfHTTP2 is not the one over which the loop comes back.
func TestADeadConnectionOfHTTP2(t *testing.T) {
	hub := tailcast.New(tailcast.WithHeartbeat(50 * time.Millisecond))
	defer hub.Close()
	addr, _ := newHTTP2(t, hub)
	w := newCable(t, addr)
	publish(t, hub, "", "message 1")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seq := client.Follow(ctx, "https://"+w.Addr().String(), client.WithTail(1), client.WithSilence(3*time.Second), client.WithBackoff(1, 1))
	var got []string
	for m, err := range seq {
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		if got = append(got, string(m.Data)); len(got) == 2 {
			break
		}
		w.cut()
		publish(t, hub, "", "message 2")
	}
	if !slices.Equal(got, numbered(1, 2)) {
		t.Errorf("got %q", got)
	}
}
