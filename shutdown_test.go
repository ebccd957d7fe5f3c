package tailcast_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A program that has but http.Server.Shutdown in its hands, because a framework calls it, closes its hub through
// RegisterOnShutdown, and waits for it.
func TestShutdownOfTheServerClosesTheHub(t *testing.T) {
	before := runtime.NumGoroutine()
	hub := tailcast.New()
	mux := http.NewServeMux()
	mux.Handle("/", hub)
	mux.Handle("/wrapped", wrapped(hub))
	var servers []*httptest.Server
	for _, tls := range []bool{false, true} {
		srv := httptest.NewUnstartedServer(mux)
		srv.EnableHTTP2 = tls
		if tls {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		srv.Config.RegisterOnShutdown(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			hub.Shutdown(ctx)
		})
		servers = append(servers, srv)
	}
	var clients sync.WaitGroup
	ready := make(chan struct{}, 100)
	for _, c := range []struct {
		name, path, accept string
		tls, ws            bool
	}{
		{name: "WebSocket", ws: true},
		{name: "WebSocket over TLS", ws: true, tls: true},
		{name: "SSE, taken over", accept: "text/event-stream"},
		{name: "SSE behind Unwrap", accept: "text/event-stream", path: "/wrapped"},
		{name: "SSE over HTTP/2", accept: "text/event-stream", tls: true},
		{name: "text"},
		{name: "text behind Unwrap", path: "/wrapped"},
	} {
		srv := servers[0]
		if c.tls {
			srv = servers[1]
		}
		clients.Go(func() {
			get := func() ([]string, error) { return getAll(srv, c.path, c.accept, ready) }
			want := numbered(1, 3000)
			switch {
			case c.ws:
				get = func() ([]string, error) { return wsAll(srv, ready) }
				want = append(want, "1001")
			case c.accept != "":
				want = append(want, "bye 1001")
			}
			got, err := get()
			if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: %v, %d messages, the last %q", c.name, err, len(got), got[max(len(got)-1, 0):])
			}
		})
	}
	for range 7 {
		<-ready
	}
	subscribed := func() (n int) {
		for c := range hub.Conns() {
			n += len(c.Topics())
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); subscribed() != 7; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(hub.Stats().Connections)
		}
	}
	for _, m := range numbered(1, 3000) {
		hub.Publish(t.Context(), tailcast.Message{Data: []byte(m)})
	}
	stop, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Config.Shutdown(stop); err != nil {
			t.Errorf("Server.Shutdown: %v", err)
		}
	}
	if err := hub.Shutdown(stop); err != nil { // what Server.Shutdown does not wait for
		t.Errorf("Hub.Shutdown: %v", err)
	}
	if n := hub.Stats().Connections; len(n) != 0 {
		t.Errorf("connections are left: %v", n)
	}
	clients.Wait()
	for _, srv := range servers {
		srv.Close()
	}
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d are left", before, runtime.NumGoroutine())
		}
	}
}

// getAll reads a stream to its end: its messages, and "bye CODE".
func getAll(srv *httptest.Server, path, accept string, ready chan<- struct{}) (got []string, err error) {
	req, _ := http.NewRequest("GET", srv.URL+path, nil)
	req.Header.Set("Accept", accept)
	resp, err := srv.Client().Do(req)
	ready <- struct{}{}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	bye := false
	for lines.Scan() {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case accept != "" && !isData:
			bye = lines.Text() == "event: bye"
		case bye:
			got = append(got, "bye "+strings.Split(strings.SplitAfter(data, `"code":`)[1], ",")[0])
		default:
			got = append(got, data)
		}
	}
	return got, lines.Err()
}

// wsAll reads a WebSocket to its end: its messages, and the code of the Close frame.
func wsAll(srv *httptest.Server, ready chan<- struct{}) (got []string, err error) {
	nc, err := dialServer(srv)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	ws, _, err := testnet.NewWS(nc, srv.Listener.Addr().String(), "/", nil)
	ready <- struct{}{}
	if err != nil {
		return nil, err
	}
	for {
		_, data, err := ws.ReadMessage()
		var ce *testnet.ClosedError
		if errors.As(err, &ce) {
			_, _, err = ws.ReadFrame()
			if err == io.EOF {
				err = nil
			}
			return append(got, fmt.Sprint(ce.Code)), err
		}
		if err != nil {
			return got, err
		}
		got = append(got, string(data))
	}
}

// What http.Server.Shutdown does by itself: it waits for the streams that are responses, and forgets those that were taken over.
func TestShutdownOfTheServerAloneIsNotEnough(t *testing.T) {
	for _, test := range []struct {
		name string
		wrap func(http.Handler) http.Handler
		ends bool
	}{
		{"taken over", func(h http.Handler) http.Handler { return h }, true},
		{"a response", wrapped, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := tailcast.New()
				l := testnet.Listen()
				srv := &http.Server{Handler: test.wrap(hub)}
				served := make(chan struct{})
				go func() { srv.Serve(l); close(served) }()
				nc, err := l.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				r := openStream(t, nc, "/")
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if err := srv.Shutdown(ctx); (err == nil) != test.ends {
					t.Errorf("Server.Shutdown = %v", err)
				}
				if n := hub.Stats().Connections["text"]; n != 1 {
					t.Errorf("%d connections, want that it has not been ended", n)
				}
				hub.Publish(t.Context(), tailcast.Message{Data: []byte("still there")})
				r.lines("still there")
				hub.Close()
				srv.Close()
				<-served
				nc.Close()
			})
		})
	}
}
