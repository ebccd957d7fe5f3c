//lint:file-ignore SA1019 It is the one that tailcast stands on.

package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"nhooyr.io/websocket"
)

// What the chat example of nhooyr.io/websocket sets, but for the queue, which is 16 messages there.
const (
	nhooyrQueue     = 256
	nhooyrWriteWait = 5 * time.Second
)

// nhooyrServer is that chat: a handler for each connection that waits for messages of its channel.
type nhooyrServer struct {
	web
	waits bool // for a slow subscriber, instead of closing it

	mu   sync.Mutex
	subs map[*nhooyrSub]struct{}
}

type nhooyrSub struct {
	msgs      chan []byte
	closeSlow func()
}

func newNhooyr(s *spec) (server, error) {
	n := &nhooyrServer{subs: make(map[*nhooyrSub]struct{}), waits: s.burst()}
	n.web = web{http.HandlerFunc(n.subscribe)}
	return n, nil
}

func (n *nhooyrServer) subscribe(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	s := &nhooyrSub{
		msgs:      make(chan []byte, nhooyrQueue),
		closeSlow: func() { c.Close(websocket.StatusPolicyViolation, "connection too slow to keep up with messages") },
	}
	n.mu.Lock()
	n.subs[s] = struct{}{}
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.subs, s)
	}()
	ctx := c.CloseRead(context.Background())
	for {
		select {
		case m := <-s.msgs:
			if err := nhooyrWrite(ctx, c, m); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func nhooyrWrite(ctx context.Context, c *websocket.Conn, m []byte) error {
	ctx, cancel := context.WithTimeout(ctx, nhooyrWriteWait)
	defer cancel()
	return c.Write(ctx, websocket.MessageText, m)
}

func (n *nhooyrServer) viewers() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.subs)
}

func (n *nhooyrServer) publish(_ uint8, m []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.subs {
		if n.waits {
			s.msgs <- m
			continue
		}
		select {
		case s.msgs <- m:
		default:
			go s.closeSlow()
		}
	}
	return nil
}
