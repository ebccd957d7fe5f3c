package stream

import "sort"

// A Chunk is a run of messages that are ready for a socket, adjacent in memory. It stays valid, unchanged, as long as
// somebody holds it, whatever the log drops in the meantime.
type Chunk struct {
	Bytes []byte
	ends  []uint32 // of each message, relative to base
	base  uint32
	recs  []rec // their index entries; nil in a chunk made by NewChunk
	pos   []Position
	seq   uint64 // of the first message
	cum   uint64 // payload bytes of the log before the block of recs
}

// NewChunk makes a chunk of replayed messages, which have no place in a log: pos and ends hold one entry for each.
func NewChunk(bytes []byte, ends []uint32, pos []Position) Chunk {
	return Chunk{Bytes: bytes, ends: ends, pos: pos}
}

// Append adds other, like itself made by NewChunk, to a chunk that is empty or made by NewChunk.
func (c *Chunk) Append(other Chunk) {
	if len(c.ends) == 0 {
		*c = other
		return
	}
	base := uint32(len(c.Bytes))
	c.Bytes = append(c.Bytes, other.Bytes...)
	for _, end := range other.ends {
		c.ends = append(c.ends, base+end)
	}
	c.pos = append(c.pos, other.pos...)
}

// chunk returns the messages of s from index i on that fit into limit bytes, at least one.
func (s *segment) chunk(i, limit int) Chunk {
	base := s.start(i)
	n := len(s.ends)
	if int(s.ends[n-1]-base) > limit {
		n = i + sort.Search(n-i, func(k int) bool { return int(s.ends[i+k]-base) > limit })
		n = max(n, i+1)
	}
	end := s.ends[n-1]
	return Chunk{
		Bytes: s.buf[base:end:end], ends: s.ends[i:n:n], base: base,
		recs: s.recs[s.skip+i : s.skip+n], seq: s.first + uint64(i), cum: s.cum,
	}
}

// Run is how many messages c begins with that are all from one, or all from others.
func (c *Chunk) Run(from uint32) (n int, own bool) {
	if c.recs == nil {
		return len(c.ends), false
	}
	own = c.recs[0].from == from
	for n < len(c.recs) && (c.recs[n].from == from) == own {
		n++
	}
	return n, own
}

// Cut leaves the first n messages.
func (c *Chunk) Cut(n int) {
	c.ends = c.ends[:n]
	c.Bytes = c.Bytes[:c.ends[n-1]-c.base]
	if c.recs != nil {
		c.recs = c.recs[:n]
	}
}

// Full is how many of the first n messages are not empty, as those are that a filter has left out.
func (c *Chunk) Full(n int) int {
	full, last := 0, c.base
	for _, end := range c.ends[:n] {
		if end > last {
			full++
		}
		last = end
	}
	return full
}

// Len is the number of messages.
func (c *Chunk) Len() int { return len(c.ends) }

// Frame returns the bytes of message i.
func (c *Chunk) Frame(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = c.ends[i-1] - c.base
	}
	return c.Bytes[start : c.ends[i]-c.base]
}

// Pos returns the position of message i; zero for one that has none.
func (c *Chunk) Pos(i int) Position {
	if c.recs != nil {
		return c.recs[i].pos
	}
	return c.pos[i]
}

// line returns what somebody who has had the message i has had of a line.
func (c *Chunk) line(i int) Line {
	switch {
	case c.recs == nil || c.recs[i].flags()&Partial == 0:
		return Whole
	case len(c.Frame(i)) > 0:
		return Shown
	}
	return Hidden
}

// Advance moves cur past the messages of which the first n bytes of c have been sent. Where n ends inside a message, that
// one counts as sent, and rest is what still has to be, before anything else.
func (c *Chunk) Advance(cur *Cursor, n int) (sent int, rest []byte) {
	sent = len(c.ends)
	if n < len(c.Bytes) {
		sent = sort.Search(len(c.ends), func(i int) bool { return int(c.ends[i]-c.base) > n })
		start := 0
		if sent > 0 {
			start = int(c.ends[sent-1] - c.base)
		}
		if n > start {
			sent++
			rest = c.Bytes[n : c.ends[sent-1]-c.base]
		}
	}
	for i := sent - 1; i >= 0; i-- {
		if p := c.Pos(i); p != (Position{}) {
			cur.Pos = p
			break
		}
	}
	if sent > 0 {
		cur.Line = c.line(sent - 1)
	}
	if c.recs != nil && sent > 0 {
		cur.Seq = c.seq + uint64(sent)
		cur.Cum = c.cum + uint64(c.recs[sent-1].end())
	}
	return sent, rest
}
