package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// loopQueue is how many messages may wait for a connection; beyond it, the publisher waits.
const loopQueue = 256

// loopServer is what one writes by hand: a goroutine for each connection that takes what is ready for the wire from its channel. A
// message is made ready once, for all.
type loopServer struct {
	web
	events bool

	mu    sync.Mutex
	conns []chan []byte
	seq   int
}

func newLoop(s *spec) (server, error) {
	l := &loopServer{events: !strings.HasPrefix(s.Transport, overWS)}
	l.web = web{http.HandlerFunc(l.stream)}
	return l, nil
}

func (s *loopServer) enter() chan []byte {
	c := make(chan []byte, loopQueue)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	return c
}

// stream is the handler of an event stream.
func (s *loopServer) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	if err := rc.Flush(); err != nil {
		return
	}
	events := s.enter()
	for {
		select {
		case e := <-events:
			if _, err := w.Write(e); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// serve accepts WebSockets without net/http.
func (s *loopServer) serve(l net.Listener) error {
	if s.events {
		return s.web.serve(l)
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go s.webSocket(nc)
	}
}

func (s *loopServer) webSocket(nc net.Conn) {
	defer nc.Close()
	br := bufio.NewReaderSize(nc, 1024)
	req, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	if err := answerUpgrade(nc, req.Header.Get("Sec-WebSocket-Key")); err != nil {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, br)
	}()
	frames := s.enter()
	for {
		select {
		case f := <-frames:
			if _, err := nc.Write(f); err != nil {
				return
			}
		case <-gone:
			return
		}
	}
}

func (s *loopServer) viewers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func (s *loopServer) publish(_ uint8, m []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ready []byte
	if s.events {
		s.seq++
		ready = fmt.Appendf(nil, "id: %d\ndata: %s\n\n", s.seq, m)
	} else {
		ready = frameOf(m)
	}
	for _, c := range s.conns {
		c <- ready
	}
	return nil
}
