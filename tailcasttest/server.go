package tailcasttest

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

// A Server is an http.Server on a network in memory, which serves HTTP/1.1. No port of the system is used, and everything that blocks
// here does so in a way that testing/synctest knows, so it works inside a bubble, where timeouts and heartbeats take no time, and
// outside of one.
//
// A connection holds 64 KiB in each direction; then who writes waits. Clients come from 198.51.100.1, each from a port of its own.
type Server struct {
	// URL is where Client finds the handler, without a slash at its end. Any other host leads there too.
	URL string
	// Header is sent with the requests of WebSocket and Stream: a cookie, Origin, Last-Event-ID. It may be changed between two of
	// them, not during one. Its "Host" sets the host of the request.
	Header http.Header

	t testing.TB
	l *testnet.Listener

	mu    sync.Mutex // guards the rest
	links []*link
}

// Serve serves h until the test ends. Then it closes the connections of its clients and the server, and waits for each call of h that
// goes on; the test fails if one does not return within 10 s. A hub is closed by who has made it: in a bubble before the test's
// function returns, since its goroutines belong to the bubble.
//
//	hub := tailcast.New()
//	defer hub.Close()
//	viewer := tailcasttest.Serve(t, hub).WebSocket("/")
func Serve(t testing.TB, h http.Handler) *Server {
	t.Helper()
	s := &Server{URL: "http://" + host, Header: make(http.Header), t: t, l: testnet.Listen()}
	var calls sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		defer calls.Done()
		h.ServeHTTP(w, r)
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(s.l) // http.ErrServerClosed
	}()
	t.Cleanup(func() {
		s.closeLinks()
		_ = srv.Close() // of a listener in memory
		<-served
		returned := make(chan struct{})
		go func() { defer close(returned); calls.Wait() }()
		timer := time.NewTimer(10 * time.Second)
		defer timer.Stop()
		select {
		case <-returned:
		case <-timer.C:
			t.Error("tailcasttest: a call of the handler has not returned, though its connection is closed")
		}
	})
	return s
}

const host = "tailcast.test"

// Client returns an http.Client whose every request goes to the server, over a connection of its own. It follows no redirect, and
// leaves nothing behind once the bodies of its responses are closed.
func (s *Server) Client() *http.Client { return testnet.HTTPClient(s.l) }

// dial makes a connection, which is closed at the end of the test.
func (s *Server) dial() *link {
	s.t.Helper()
	conn, err := s.l.Dial(context.Background())
	if err != nil {
		s.t.Fatalf("tailcasttest: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &link{conn}
	s.links = append(s.links, l)
	return l
}

func (s *Server) closeLinks() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.links {
		l.Close()
	}
}

// header returns a copy of Header, and the host that it names.
func (s *Server) header() (http.Header, string) {
	h := s.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	name := h.Get("Host")
	h.Del("Host")
	if name == "" {
		name = host
	}
	return h, name
}

// A link is a client's connection.
type link struct{ conn *testnet.Conn }

// Stall makes the client take nothing more of what the server sends, not even into a buffer, until Resume: it is there and does not
// read, as a phone in a tunnel. What it had taken before can still be read from it.
func (l *link) Stall() { l.conn.Peer().Stall() }

// Resume ends a Stall.
func (l *link) Resume() { l.conn.Peer().Resume() }

// Close ends the connection without a word, as a client that vanishes. A Read that blocks returns an error. It may be called more than
// once.
func (l *link) Close() { _ = l.conn.Close() }
