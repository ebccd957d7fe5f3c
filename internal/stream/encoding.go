package stream

import (
	"slices"
	"sort"
	"sync"
	"time"
)

// An Encoder appends the form of r that is ready for a socket. It may append nothing. It keeps neither dst nor r.
type Encoder func(dst []byte, r *Record) []byte

// An Encoding is one log in one socket-ready form. Its segments are derived on demand by whoever needs them first, and
// shared by all viewers of that form; any of them can be dropped and derived again. Its methods may be called concurrently.
type Encoding struct {
	log    *Log
	encode Encoder
	chosen *selection // of the records, if not all are encoded

	viewers int       // guarded by log.mu
	leftAt  time.Time // when the last viewer went; guarded by log.mu

	mu       sync.Mutex // guards the rest
	segments []*segment // ascending, not overlapping; there may be holes between them
	scratch  Record     // so that encode's argument is not allocated for each record
	pass     []uint64   // see known; of the block that is being encoded
	start    bool       // the filter has to be started
}

// A segment is a run of encoded records of one block. Like a block's, its slices only grow, and what is below their length
// never changes.
type segment struct {
	first uint64 // seq of its first record
	block *block // keeps the seqs apart: a segment never spans two blocks
	cum   uint64 // payload bytes of the log before the block
	skip  int    // index in the block of its first record
	recs  []rec  // the block's index up to the last record that is encoded here
	buf   []byte
	ends  []uint32 // the end in buf of each record
	full  bool     // the record after the last one belongs to another segment
	used  uint64   // the budget's clock when it was last read
}

func (s *segment) next() uint64 { return s.first + uint64(len(s.ends)) }

func (s *segment) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return s.ends[i-1]
}

// clip gives room back that a segment which does not grow any more has too much, and returns by how much it grew: what is compressed
// takes a fraction of what was reserved for it.
func (s *segment) clip() int64 {
	if cap(s.buf)/2 <= len(s.buf) {
		return 0
	}
	before := s.size()
	s.buf = slices.Clone(s.buf) // not in place: a viewer may be reading
	return s.size() - before
}

func (s *segment) size() int64 {
	const header = 160
	return header + int64(cap(s.buf)) + 4*int64(cap(s.ends))
}

// Encoding returns the log's encoding of that key, made with encode if it does not exist. Each call counts as one viewer,
// until Leave.
func (l *Log) Encoding(key string, encode Encoder) *Encoding {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.encodings[key]
	if e == nil {
		e = &Encoding{log: l, encode: encode}
		l.encodings[key] = e
	}
	e.viewers++
	return e
}

// Leave takes back one Encoding call.
func (e *Encoding) Leave(now time.Time) {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	e.viewers--
	e.leftAt = now
	if e.chosen != nil {
		e.chosen.viewers.Add(-1)
	}
}

// Log returns the log that it is an encoding of.
func (e *Encoding) Log() *Log { return e.log }

// Next returns what comes at c: as many whole messages as fit into limit bytes, at least one. It does not move c: see
// Chunk.Advance.
func (e *Encoding) Next(c *Cursor, limit int) (Chunk, State) {
	closed := e.log.closed.Load() // before head: then that is the last one
	if c.Seq >= e.log.head.Load() {
		if closed {
			return Chunk{}, Lost
		}
		return Chunk{}, AtHead
	}
	e.mu.Lock()
	s, grown, state := e.locate(c.Seq)
	if state != Ready {
		start := e.start
		e.start = false
		e.mu.Unlock()
		if grown != 0 {
			e.log.budget.grow(grown)
		}
		if start {
			e.chosen.filter.Go(e.chosen.run)
		}
		return Chunk{}, state
	}
	s.used = e.log.budget.clock.Load()
	chunk := s.chunk(int(c.Seq-s.first), limit)
	e.mu.Unlock()
	if grown != 0 {
		e.log.budget.grow(grown)
	}
	return chunk, Ready
}

// locate returns the segment that holds seq, deriving it if need be, and by how much memory grew.
func (e *Encoding) locate(seq uint64) (*segment, int64, State) {
	clipped := int64(0)
	i := len(e.segments) // the number of segments that begin at or before seq
	if i > 0 && e.segments[i-1].first > seq {
		i = sort.Search(len(e.segments), func(i int) bool { return e.segments[i].first > seq })
	}
	if i > 0 {
		if s := e.segments[i-1]; seq < s.next() {
			return s, 0, Ready
		} else if seq == s.next() && !s.full {
			grown, state := e.extend(s, e.stopBefore(i))
			if state != Ready || seq < s.next() {
				return s, grown, state
			}
			clipped = grown // the block had ended: the record is in the next one
		}
	}
	s, grown, state := e.insert(i, seq)
	return s, grown + clipped, state
}

// stopBefore is where a segment before index i has to end.
func (e *Encoding) stopBefore(i int) uint64 {
	if i < len(e.segments) {
		return e.segments[i].first
	}
	return ^uint64(0)
}

// insert derives a new segment that begins at seq, at index i.
func (e *Encoding) insert(i int, seq uint64) (*segment, int64, State) {
	v, state := e.log.view(seq)
	if state == Ready && e.chosen != nil {
		state, e.start = e.known(&v)
	}
	if state != Ready {
		return nil, 0, state
	}
	s := &segment{first: seq, block: v.block, cum: v.block.cum, skip: v.index}
	e.segments = append(e.segments, nil)
	copy(e.segments[i+1:], e.segments[i:])
	e.segments[i] = s
	return s, s.size() + e.fill(s, &v, e.stopBefore(i+1)), Ready
}

// extend adds what the log has got since to a segment.
func (e *Encoding) extend(s *segment, stop uint64) (int64, State) {
	v, state := e.log.view(s.next())
	if state != Ready {
		return 0, state
	}
	if v.block != s.block {
		s.full = true
		return s.clip(), Ready
	}
	if e.chosen != nil {
		if state, e.start = e.known(&v); state != Ready {
			return 0, state
		}
	}
	return e.fill(s, &v, stop), Ready
}

// fill encodes the records of v from its index up to stop into s and returns by how much s grew.
func (e *Encoding) fill(s *segment, v *view, stop uint64) int64 {
	before := s.size()
	if s.buf == nil && e.chosen == nil {
		e.reserve(s, v)
	}
	end := len(v.recs)
	if n := stop - v.block.first; n < uint64(end) {
		end, s.full = int(n), true
	}
	for i := v.index; i < end; i++ {
		if e.chosen == nil || bit(e.pass, i) {
			e.scratch = v.record(i)
			if e.chosen != nil && i > 0 && !bit(e.pass, i-1) {
				e.scratch.Flags &^= AfterPartial // of a line that was left out nothing goes on
			}
			s.buf = e.encode(s.buf, &e.scratch)
		}
		s.ends = append(s.ends, uint32(len(s.buf)))
	}
	e.scratch = Record{}
	s.recs = v.recs[:end]
	return s.size() - before
}

// reserve gives a new segment room for what is there; on a busy topic for as much as the segment before it came to.
func (e *Encoding) reserve(s *segment, v *view) {
	count := len(v.recs) - v.index
	size := len(v.data) + 16*count
	if n := len(e.segments); n > 1 && e.segments[n-1] == s && v.index == 0 {
		if last := e.segments[n-2]; last.full && len(last.buf) <= 4*blockSize {
			size, count = max(size, len(last.buf)+len(last.buf)/16), max(count, len(last.ends)+len(last.ends)/16)
		}
	}
	s.buf, s.ends = make([]byte, 0, size), make([]uint32, 0, count)
}

// trim forgets the segments that end before first.
func (e *Encoding) trim(first uint64) {
	e.mu.Lock()
	freed, n := int64(0), 0
	for n < len(e.segments) && e.segments[n].next() <= first {
		freed += e.segments[n].size()
		e.segments[n] = nil
		n++
	}
	e.segments = e.segments[n:]
	if len(e.segments) == 0 {
		e.segments = nil
	}
	e.mu.Unlock()
	e.log.budget.free(freed)
}

// drop forgets the segments that were not used since clock, and returns how much that freed.
func (e *Encoding) drop(clock uint64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	freed := int64(0)
	kept := e.segments[:0]
	for _, s := range e.segments {
		if s.used < clock {
			freed += s.size()
			continue
		}
		kept = append(kept, s)
	}
	clear(e.segments[len(kept):])
	e.segments = kept
	return freed
}
