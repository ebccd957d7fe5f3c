package tailcast

import "maps"

// Stats are plain numbers, fit for expvar. Counters only grow.
type Stats struct {
	Connections map[string]int // now, by transport
	Accepted    int64          // connections so far
	Refused     int64          // requests that did not become a connection
	Topics      int            // that have a log
	Published   int64          // messages taken
	Delivered   uint64         // messages handed to the kernel, for all viewers together
	SentBytes   uint64         // bytes handed to the kernel, framing included
	CatchUps    int64          // viewers, loops of Subscribe included, that are being served from a Replayer now
	Gaps        int64          // losses declared to viewers
	Panics      int64          // of hooks and sources, recovered
	Memory      int64          // bytes of logs, encodings and queues
	MemoryLimit int64          // 0 = none
	LagMessages uint64         // of the viewer that is furthest behind
	LagBytes    uint64         // of the viewer that is furthest behind
	Sources     []SourceStats
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

// Stats returns a snapshot. It costs a look at each connection.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	s := Stats{Topics: len(h.topics), Connections: make(map[string]int)}
	for c := range h.conns {
		s.Connections[c.Transport()]++
	}
	sources := append([]*sourceRun(nil), h.sources...)
	topics := maps.Clone(h.topics)
	h.mu.Unlock()
	s.Accepted, s.Refused = h.accepted.Load(), h.refused.Load()
	s.Published, s.Gaps, s.Panics = h.published.Load(), h.gaps.Load(), h.panics.Load()
	s.CatchUps = h.catchups.Load()
	s.Delivered, s.SentBytes = h.pool.Sent()
	s.Memory, s.MemoryLimit = h.budget.Used(), h.budget.Limit()
	for _, t := range topics {
		messages, bytes := t.lag()
		s.LagMessages, s.LagBytes = max(s.LagMessages, messages), max(s.LagBytes, bytes)
	}
	for _, r := range sources {
		s.Sources = append(s.Sources, r.stats())
	}
	return s
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
