package stream

import (
	"sync"
	"sync/atomic"
	"time"
)

// Retention bounds what a log keeps. A zero field is no bound.
type Retention struct {
	Bytes    int64 // of payload
	Messages int
	Age      time.Duration
}

// A Log is a topic's record log: payloads copied in at Append, and an index entry for each. Its methods may be called
// concurrently. It never waits for a reader.
type Log struct {
	budget *Budget
	keep   Retention

	head   atomic.Uint64 // next, readable without the lock
	closed atomic.Bool   // no more records will come
	spare  int           // how many blocks it keeps where the memory limit allows it at all

	mu         sync.Mutex
	blocks     []*block // oldest first; the last one grows
	first      uint64   // seq of the oldest record that is kept
	next       uint64   // seq of the next record to come
	firstCum   uint64   // payload bytes before first
	cum        uint64   // payload bytes ever appended
	before     Position // of the record before first: what a viewer at the log's beginning has seen
	gapped     bool     // a gap without a position is between before and first
	base       Position // what before was at first
	last       Position // of the newest record that had one
	said       bool     // it has had a record that is no event
	newest     int64    // Record.Time of the newest record
	encodings  map[string]*Encoding
	selections map[string]*selection
	grown      int64 // what of the blocks is accounted for in the budget
}

// NewLog returns an empty log that accounts for its memory in b.
func NewLog(keep Retention, b *Budget) *Log {
	l := &Log{budget: b, keep: keep, spare: 1, first: 1, next: 1, encodings: make(map[string]*Encoding)}
	l.head.Store(1)
	b.add(l)
	return l
}

// SetBase says which position the first record to come will follow. It counts only while the log is empty.
func (l *Log) SetBase(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == l.first && p != (Position{}) {
		l.before, l.last, l.gapped = p, p, l.gapped && p == l.before
		if l.next == 1 {
			l.base = p
		}
	}
}

// Base is the position that the very first record follows, zero if it is not known.
func (l *Log) Base() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.base
}

// An Appender adds records to a log in one go: nobody sees a part of them, and no other record comes between them.
type Appender struct {
	l    *Log
	From uint32 // whose the records are that are added next; 0 is nobody. See Chunk.Run
}

// Begin locks the log for an Appender. End must follow.
func (l *Log) Begin() Appender {
	l.mu.Lock()
	return Appender{l: l}
}

// NextSeq is the arrival number that the next Add will give.
func (a *Appender) NextSeq() uint64 { return a.l.next }

// Add appends one record. It copies data.
func (a *Appender) Add(pos Position, nanos int64, flags Flags, data []byte) {
	l := a.l
	b := l.open(len(data))
	before := b.size()
	b.data = append(b.data, data...)
	b.recs = append(b.recs, rec{pos: pos, bits: uint32(len(b.data))<<flagBits | uint32(flags), from: a.From, time: nanos})
	b.note(pos)
	l.newest = nanos
	if flags&Event != 0 {
		b.events++
	} else {
		l.said = true
	}
	l.grown += b.size() - before
	l.next++
	l.cum += uint64(len(data))
	if pos != (Position{}) {
		l.last = pos
	}
}

// End applies the retention, lets readers see the records and gives the lock back.
func (a *Appender) End(now time.Time) {
	l := a.l
	dropped := l.expire(now)
	l.head.Store(l.next)
	grown := l.grown
	l.grown = 0
	var encodings []*Encoding
	first := l.first
	if dropped {
		encodings = l.encodingsLocked()
	}
	l.mu.Unlock()
	for _, e := range encodings {
		e.trim(first)
	}
	l.budget.grow(grown)
}

// open returns the block that takes the next n bytes.
func (l *Log) open(n int) *block {
	var last *block
	if len(l.blocks) > 0 {
		last = l.blocks[len(l.blocks)-1]
		if (len(last.data)+n <= blockSize || len(last.recs) == 0) && len(last.recs) < blockRecords {
			return last
		}
	}
	b := &block{first: l.next, cum: l.cum}
	if last != nil { // a busy topic: as large as the last one at once, instead of growing there
		b.torn = last.recs[len(last.recs)-1].flags()&Partial != 0
		b.data = make([]byte, 0, max(min(cap(last.data), blockSize), n))
		b.recs = make([]rec, 0, min(len(last.recs)+len(last.recs)/8, blockRecords))
		l.grown += b.size()
	}
	l.blocks = append(l.blocks, b)
	return b
}

// expire drops what the retention no longer keeps, always leaving the newest record to its viewers unless it is too old,
// and reports whether a block went.
func (l *Log) expire(now time.Time) (dropped bool) {
	oldest := int64(0)
	if l.keep.Age > 0 {
		oldest = now.Add(-l.keep.Age).UnixNano()
	}
	for l.first < l.next {
		b := l.blocks[0]
		i := int(l.first - b.first)
		r := &b.recs[i]
		over := l.keep.Messages > 0 && l.next-l.first > uint64(l.keep.Messages) ||
			l.keep.Bytes > 0 && l.cum-l.firstCum > uint64(l.keep.Bytes) && l.next-l.first > 1 ||
			l.keep.Age > 0 && r.time < oldest
		if !over {
			break
		}
		l.first++
		l.firstCum = b.cum + uint64(r.end())
		l.pass(r)
		if l.first == b.next() {
			l.dropOldest()
			dropped = true
		}
	}
	return dropped
}

// pass notes that r is no longer kept; mu is held.
func (l *Log) pass(r *rec) {
	if l.gapped = r.pos == (Position{}); !l.gapped {
		l.before = r.pos
	}
}

// dropOldest forgets the oldest block, whose records have all been passed.
func (l *Log) dropOldest() {
	l.grown -= l.blocks[0].size()
	l.blocks[0] = nil
	l.blocks = l.blocks[1:]
	if len(l.blocks) == 0 {
		l.blocks = nil
	}
}

// Spare makes the log keep its n newest blocks, instead of only the one that it is writing to, unless the memory limit is too
// small for that. It must be called before the first record comes.
func (l *Log) Spare(n int) { l.spare = n }

// Close says that no more records will come: for a reader that has had all of them the next one is Lost.
func (l *Log) Close() { l.closed.Store(true) }

// Bytes is how much payload has ever been appended.
func (l *Log) Bytes() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cum
}

// filteredLinger is how long an encoding of some of the records is kept without viewers: anybody can ask for many.
const filteredLinger = 5 * time.Second

// Maintain applies the age limit and forgets encodings that had no viewer for linger.
func (l *Log) Maintain(now time.Time, linger time.Duration) {
	a := l.Begin()
	a.End(now)
	l.mu.Lock()
	var gone []*Encoding
	var idle []*selection
	for key, e := range l.encodings {
		keep := linger
		if e.chosen != nil {
			keep = min(keep, filteredLinger)
		}
		if e.viewers == 0 && now.Sub(e.leftAt) >= keep {
			delete(l.encodings, key)
			gone = append(gone, e)
			if s := e.unused(); s != nil {
				idle = append(idle, s)
			}
		}
	}
	l.mu.Unlock()
	for _, e := range gone {
		e.trim(^uint64(0))
	}
	for _, s := range idle {
		s.release()
	}
}

// Bounds returns the arrival numbers of the oldest record and of the next one to come.
func (l *Log) Bounds() (first, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, l.next
}

// Idle reports whether there have never been any records but events, and none of these since then.
func (l *Log) Idle(since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.said && l.newest < since.UnixNano()
}

// Head returns the position of the newest message, and false while there is none.
func (l *Log) Head() (Position, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.last != Position{}
}

// A view is a block as it stood at one moment.
type view struct {
	block *block
	data  []byte
	recs  []rec
	index int // of the record that was asked for
}

func (v *view) record(i int) Record {
	start := uint32(0)
	if i > 0 {
		start = v.recs[i-1].end()
	}
	r := &v.recs[i]
	flags := r.flags()
	if i > 0 && v.recs[i-1].flags()&Partial != 0 || i == 0 && v.block.torn {
		flags |= AfterPartial
	}
	return Record{
		Seq: v.block.first + uint64(i), Pos: r.pos, Time: r.time, Flags: flags,
		Data: v.data[start:r.end():r.end()],
	}
}

// view finds the block that holds seq.
func (l *Log) view(seq uint64) (view, State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case seq >= l.next:
		return view{}, AtHead
	case seq < l.first:
		return view{}, Lost
	}
	b := l.blockOf(seq)
	return view{block: b, data: b.data, recs: b.recs, index: int(seq - b.first)}, Ready
}

// lineOf returns the first part of the line that record seq goes on with, as long as its block is there.
func (l *Log) lineOf(seq uint64) (first Record, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := len(l.blocks) - 1; n >= 0; n-- {
		b := l.blocks[n]
		if b.first >= seq {
			continue
		}
		v := view{block: b, data: b.data, recs: b.recs}
		for i := int(min(seq, b.next())-b.first) - 1; i >= 0; i-- {
			if r := v.record(i); r.Flags&AfterPartial == 0 {
				return r, true
			}
		}
	}
	return Record{}, false
}

// blockOf returns the block of a seq that is kept. Nearly always it is the last one.
func (l *Log) blockOf(seq uint64) *block {
	lo, hi := 0, len(l.blocks)-1
	if seq >= l.blocks[hi].first {
		return l.blocks[hi]
	}
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if l.blocks[mid].first <= seq {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return l.blocks[lo]
}

// Encodings is how many there are.
func (l *Log) Encodings() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.encodings)
}

func (l *Log) encodingsLocked() []*Encoding {
	list := make([]*Encoding, 0, len(l.encodings))
	for _, e := range l.encodings {
		list = append(list, e)
	}
	return list
}
