package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
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
