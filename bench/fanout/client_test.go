package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestClientFinds: a run is right only if every message has come on every connection, once, whole and in order.
func TestClientFinds(t *testing.T) {
	const conns = 3
	torn := messagesWith(0, 1, 2)
	torn[2] = torn[2][:50]
	for _, test := range []struct {
		name, want string
		list       [][]byte // what one of the connections gets
		closes     bool
	}{
		{"nothing wrong", "", messagesWith(0, 1, 2), false},
		{"a gap", "1 missing, 0 repeated or out of order, 0 torn, 0 connections closed", messagesWith(0, 2), false},
		{"the end is missing", "2 missing, 0 repeated or out of order, 0 torn, 0 connections closed", messagesWith(0), false},
		{"a repetition", "0 missing, 1 repeated or out of order, 0 torn, 0 connections closed", messagesWith(0, 0, 1, 2), false},
		{"a repetition at the end", "0 missing, 1 repeated or out of order, 0 torn, 0 connections closed", messagesWith(0, 1, 2, 2), false},
		{"another order", "1 missing, 1 repeated or out of order, 0 torn, 0 connections closed", messagesWith(1, 0, 2), false},
		{"a torn message", "1 missing, 0 repeated or out of order, 1 torn, 0 connections closed", torn, false},
		{"an end", "1 missing, 0 repeated or out of order, 0 torn, 1 connections closed (unexpected EOF)", messagesWith(0, 1), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := testSpec(3)
			s.Conns, s.Transport, s.Patience = conns, overWS, 5*time.Second
			said := &listener{first: make(chan struct{})}
			at := serveLists(t, conns, test.list, test.closes, said.first)
			r, err := runClient(s, &address{Addr: at}, newWire(strings.NewReader(""), said))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := (&outcome{received: r}).right(); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if n := strings.Count(said.b.String(), goOn); n != 2 {
				t.Errorf("said %q", said.b.String())
			}
		})
	}
}

// A listener hears what a client says.
type listener struct {
	b     strings.Builder
	first chan struct{} // closed when it has said something
}

func (l *listener) Write(b []byte) (int, error) {
	if l.b.Len() == 0 {
		close(l.first)
	}
	return l.b.Write(b)
}

// serveLists sends, once begin is closed, the messages 0, 1, 2 to each connection but the last, which gets the list.
func serveLists(t *testing.T, conns int, list [][]byte, closes bool, begin <-chan struct{}) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			defer nc.Close()
			req, err := http.ReadRequest(bufio.NewReader(nc))
			if err != nil {
				return
			}
			_ = answerUpgrade(nc, req.Header.Get("Sec-WebSocket-Key"))
			select {
			case <-begin:
			case <-t.Context().Done():
				return
			}
			if i < conns-1 {
				_, _ = nc.Write(embed(frames, messagesWith(0, 1, 2)))
			} else {
				_, _ = nc.Write(embed(frames, list))
			}
			if i == conns-1 && closes {
				_ = nc.(*net.TCPConn).CloseWrite()
			}
			_, _ = io.Copy(io.Discard, nc) // until the client has seen enough
		})
	}
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}
