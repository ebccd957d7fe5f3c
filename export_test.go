package tailcast

import (
	"context"
	"maps"
	"slices"
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
func (h *Hub) Attach(sock fanout.Socket) (detach func()) { return h.attach(sock, formatWebSocket, "") }

// AttachDeflating is Attach for a client that reads compressed messages, with WithCompression.
func (h *Hub) AttachDeflating(sock fanout.Socket) (detach func()) {
	f := formatWebSocket
	f.deflater = h.deflater
	return h.attach(sock, f, "")
}

// AttachEnvelopes is Attach for a client of tailcast.v1.
func (h *Hub) AttachEnvelopes(sock fanout.Socket, topics ...string) (detach func()) {
	return h.attach(sock, formatEnvelope, topics...)
}

// AttachNDJSON is Attach for a stream of lines, as a worker writes it.
func (h *Hub) AttachNDJSON(sock fanout.Socket, topics ...string) (detach func()) {
	return h.attach(sock, formatNDJSON, topics...)
}

// AttachUser is Attach for a user's connection with these topics.
func (h *Hub) AttachUser(sock fanout.Socket, user string, topics ...string) (detach func()) {
	return h.attachAs(sock, formatWebSocket, Identity{User: user}, topics)
}

// Become is a registration of another user for a topic. It reports whether that was in time.
func (c *Conn) Become(user, topic string) bool {
	if c.become(Identity{User: user}) != nil {
		return false
	}
	return c.subscribe(topic, start{}) == nil
}

func (h *Hub) attach(sock fanout.Socket, f format, topics ...string) (detach func()) {
	return h.attachAs(sock, f, Identity{}, topics)
}

func (h *Hub) attachAs(sock fanout.Socket, f format, id Identity, topics []string) (detach func()) {
	req := &request{format: f, mount: new(mount), identity: id, topics: topics, start: make(map[string]start)}
	for _, t := range topics {
		req.start[t] = start{tail: 0}
	}
	h.hold(context.Background(), req)
	c := h.newConn(context.Background(), "bench", req)
	var handler fanout.Handler = &plainHandler{}
	if f.objects() {
		handler = &objectHandler{Conn: c}
	}
	c.farewell = func(*CloseError) []byte { return nil }
	h.open(c, req, fanout.Options{Socket: sock, Direct: true, Handler: handler, Abort: func() {}})
	return func() {
		c.end(endApplication, nil)
		<-c.seal()
		c.leave()
	}
}

// TopicNames are the topics that the hub keeps anything of.
func (h *Hub) TopicNames() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.topics))
}

// Tidy is what the hub does every 10 s.
func (h *Hub) Tidy() { h.housekeep() }

// MemoryUsed is what the hub's budget accounts for.
func (h *Hub) MemoryUsed() int64 { return h.budget.Used() }

// ReplayEncodings is how many encodings of what was read from a Replayer there are.
func (h *Hub) ReplayEncodings(topic string) (n int) {
	h.mu.Lock()
	t := h.topics[topic]
	h.mu.Unlock()
	for _, p := range t.allReplays() {
		n += p.log.Encodings()
	}
	return n
}

// CompileGrep is what the hub makes of grep=….
var CompileGrep = compileGrep

// Users is how many users have connections.
func (h *Hub) Users() int { return len(h.users.all()) }

// TailEvent is what is logged of a follower's event, "" if it is not known.
func TailEvent(event string) string { return tailEvents[event].message }
