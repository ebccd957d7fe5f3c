package tailcast

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
)

// A DiscardSocket takes every byte at once and counts them.
type DiscardSocket struct{ Bytes atomic.Int64 }

func (s *DiscardSocket) TryWrite(p []byte) (int, error) {
	s.Bytes.Add(int64(len(p)))
	return len(p), nil
}

func (s *DiscardSocket) WriteSome(p []byte, _ time.Duration) (int, error) { return s.TryWrite(p) }

// Attach adds a WebSocket's write side to the default topic, without a request or a reader behind it. The function that it
// returns takes it out again.
func (h *Hub) Attach(sock fanout.Socket) (detach func()) {
	f := formatWebSocket
	req := &request{format: f, topics: []string{""}, start: map[string]start{"": {tail: 0}}}
	c := h.newConn(context.Background(), "bench", req)
	c.farewell = func(*CloseError) []byte { return nil }
	h.open(c, req, fanout.Options{Socket: sock, Direct: true, Handler: &plainHandler{}, Abort: func() {}})
	return func() {
		c.end(nil)
		<-c.sealed
		c.leave()
	}
}

// MemoryUsed is what the hub's budget accounts for.
func (h *Hub) MemoryUsed() int64 { return h.budget.Used() }
