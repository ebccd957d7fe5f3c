package tailcast

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"

	"github.com/tailcast/tailcast/internal/fanout"
)

// Stats are plain numbers, fit for expvar and for JSON. What counts events only grows, also when connections, topics and sources go,
// and starts at 0 with the Hub; the rest is as it is now. The keys of Gaps and Ended by reason are few and fixed: they are listed in
// the package's documentation, and all of them are there from the beginning.
type Stats struct {
	Connections    map[string]int   // now, by transport
	Accepted       int64            // connections so far: the sum of Ended, and those that there are now
	Refused        int64            // requests, pushes included, that were refused
	Ended          map[string]int64 // connections that have ended, by reason
	Users          int              // that have connections now
	Topics         int              // that have a log
	Received       int64            // messages of clients, commands and registrations included
	ReceivedBytes  int64            // payload of these
	Published      int64            // messages taken from Publish and Sources, gaps included
	PublishedBytes int64            // payload of these
	Delivered      uint64           // messages handed to the kernel, for all viewers together
	SentBytes      uint64           // bytes handed to the kernel, framing included
	Compressed     int64            // messages that WithCompression has made smaller, each once for all viewers of a format, and again if that was forgotten
	CompressedFrom int64            // bytes of these before
	CompressedTo   int64            // bytes of these after
	Private        uint64           // messages of Send and Push that were queued, for all connections together
	PrivateDropped uint64           // messages of Send and Push that found no room in a queue
	Pushes         int64            // calls of Push that returned no error
	PushMatched    int64            // sum of their PushResult.Matched
	PushQueued     int64            // sum of their PushResult.Queued
	PushDropped    int64            // sum of their PushResult.Dropped
	CatchUps       int64            // viewers, loops of Subscribe included, that are being served from a Replayer now
	Gaps           int64            // losses declared to viewers: the sum of GapsByReason
	GapsByReason   map[string]int64 // of Gaps, by reason
	Panics         int64            // of hooks and sources, recovered
	Memory         int64            // bytes of logs, encodings and queues
	MemoryLimit    int64            // 0 = none
	LagMessages    uint64           // of the viewer that is furthest behind
	LagBytes       uint64           // of the viewer that is furthest behind
	Sources        []SourceStats
	Backplane      *BackplaneStats // nil without one
}

// BackplaneStats describe a hub's Backplane.
type BackplaneStats struct {
	SourceStats
	Connected     bool   // the log can be reached, as far as is known
	Away          string // why it cannot
	Degraded      int64  // how often it could not
	Received      int64  // messages that came from the log, of all nodes
	ReceivedBytes int64  // payload of these
	Waiting       int    // messages of Hub.Publish and of clients that the log has not stored yet
}

// SourceStats describe a Source in the care of Run.
type SourceStats struct {
	Name     string // its type
	State    string // "running", "waiting" to be run again, "finished", "failed", "stopped"
	Restarts int64
	Error    string // the last one
	Detail   any    // what the Source tells of itself: TailStats for a Tail
}

// A statser is a Source that can tell something of itself.
type statser interface{ stats() any }

// A gapReason is why a gap was declared. What a Source writes into Gap.Reason is for people, and no key.
type gapReason uint8

const (
	gapSource gapReason = iota
	gapReplayer
	gapReplayFailed
	gapUnknown
	gapNotKept
	gapTooSlow
	gapReplayLimit
	gapQueueFull
	gapReasons // how many there are
)

func (r gapReason) String() string {
	return [gapReasons]string{
		gapSource:       "source",
		gapReplayer:     "replayer",
		gapReplayFailed: "replay_failed",
		gapUnknown:      "unknown_position",
		gapNotKept:      "not_kept",
		gapTooSlow:      "too_slow",
		gapReplayLimit:  "replay_limit",
		gapQueueFull:    "queue_full",
	}[r]
}

func (h *Hub) countGap(why gapReason) { h.gaps[why].Add(1) }

// An endReason is why a connection has ended.
type endReason uint8

const (
	endClient endReason = iota
	endApplication
	endTooSlow
	endWriteTimeout
	endPingTimeout
	endLost
	endShutdown
	endExpired
	endUnregistered
	endProtocol
	endLimit
	endHook
	endPanic
	endContext
	endReasons // how many there are
)

func (r endReason) String() string {
	return [endReasons]string{
		endClient:       "client",
		endApplication:  "application",
		endTooSlow:      "too_slow",
		endWriteTimeout: "write_timeout",
		endPingTimeout:  "ping_timeout",
		endLost:         "lost",
		endShutdown:     "shutdown",
		endExpired:      "expired",
		endUnregistered: "unregistered",
		endProtocol:     "protocol",
		endLimit:        "limit",
		endHook:         "hook",
		endPanic:        "panic",
		endContext:      "context",
	}[r]
}

// gone is what an error of the network means that ends a connection. A stream has no way to say goodbye, so whatever ends it but time
// is its client's end.
func (c *Conn) gone(err error) endReason {
	var timed net.Error
	if c.format.webSocket() || errors.As(err, &timed) && timed.Timeout() {
		return endLost
	}
	return endClient
}

// unwritten is what an error of the write side means. resident says that it is that of a ResponseWriter, whose own errors match
// io.ErrUnexpectedEOF: any other one is the cause of the request's context.
func (c *Conn) unwritten(err error, resident bool) endReason {
	var p *PanicError
	switch {
	case errors.Is(err, ErrWriteTimeout):
		return endWriteTimeout
	case errors.Is(err, ErrPingTimeout):
		return endPingTimeout
	case errors.Is(err, context.Canceled): // see writeCause
		return endClient
	case resident && errors.As(err, &p): // middleware ends a request with it
		return endContext
	case resident && !errors.Is(err, io.ErrUnexpectedEOF):
		return endContext
	}
	return c.gone(err)
}

// broken is what a fault of the peer's means.
func broken(code int) endReason {
	if code == 1008 || code == 1009 {
		return endLimit
	}
	return endProtocol
}

// unregisteredFor is what the error of a registration means.
func unregisteredFor(err error) endReason {
	var p *PanicError
	var full seatsError
	switch {
	case errors.As(err, &p):
		return endPanic
	case errors.Is(err, ErrQueueFull): // the answer found no room
		return endTooSlow
	case errors.As(err, &full), errors.Is(err, ErrTooManyTopics), errors.Is(err, ErrTooManyFilters):
		return endLimit
	}
	return endUnregistered
}

// counters are those of connections that have ended; guarded by Hub.mu.
type counters struct {
	received, receivedBytes int64
	ended                   [endReasons]int64
}

func (n *counters) add(c *Conn) {
	n.received += c.incoming.messages.Load()
	n.receivedBytes += c.incoming.bytes.Load()
}

// Stats returns a snapshot. It waits for nobody and may be called as often as one likes to look: it costs a look at each connection and
// subscription, some 100 ns each, most of it without a lock that a publisher needs.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	n, accepted := h.past, h.accepted
	conns := make([]*Conn, 0, len(h.conns))
	for c := range h.conns {
		conns = append(conns, c)
	}
	sources := append([]*sourceRun(nil), h.sources...)
	topics := maps.Clone(h.topics)
	h.mu.Unlock()

	s := Stats{Topics: len(topics), Users: h.users.count(), Accepted: accepted, Refused: h.refused.Load(), Connections: make(map[string]int)}
	for _, c := range conns {
		s.Connections[c.Transport()]++
		n.add(c)
	}
	s.Received, s.ReceivedBytes = n.received, n.receivedBytes
	s.Ended = make(map[string]int64, endReasons)
	for why, ended := range n.ended {
		s.Ended[endReason(why).String()] = ended
	}
	s.GapsByReason = make(map[string]int64, gapReasons)
	for why := range gapReasons {
		gaps := h.gaps[why].Load()
		s.GapsByReason[why.String()] = gaps
		s.Gaps += gaps
	}
	s.Published, s.PublishedBytes = h.published.Load(), h.publishedBytes.Load()
	s.Pushes, s.PushQueued, s.PushDropped = h.pushes.Load(), h.pushQueued.Load(), h.pushDropped.Load()
	s.PushMatched = s.PushQueued + s.PushDropped
	s.setSent(h.pool.Counts())
	if h.deflater != nil {
		s.Compressed, s.CompressedFrom, s.CompressedTo = h.deflater.Counts()
	}
	s.CatchUps, s.Panics = h.catchups.Load(), h.panics.Load()
	s.Memory, s.MemoryLimit = h.budget.Used(), h.budget.Limit()
	for _, t := range topics {
		messages, bytes := t.lag()
		s.LagMessages, s.LagBytes = max(s.LagMessages, messages), max(s.LagBytes, bytes)
	}
	for _, r := range sources {
		s.Sources = append(s.Sources, r.stats())
	}
	if h.plane != nil {
		s.Backplane = h.plane.stats()
	}
	return s
}

func (p *plane) stats() *BackplaneStats {
	_, joined := p.place()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.counts
	s.SourceStats, s.Waiting, s.Connected = p.source.stats(), p.queued.messages, joined && p.away == nil
	if p.away != nil {
		s.Away = p.away.Error()
	}
	return &s
}

func (s *Stats) setSent(n fanout.Counts) {
	s.Delivered, s.SentBytes, s.Private, s.PrivateDropped = n.Messages, n.Bytes, n.Private, n.Refused
}

func (r *sourceRun) stats() SourceStats {
	state, restarts, err := r.get()
	s := SourceStats{Name: r.name, State: state, Restarts: restarts}
	if err != nil {
		s.Error = err.Error()
	}
	if t, ok := r.pub.source.(statser); ok {
		s.Detail = t.stats()
	}
	return s
}
