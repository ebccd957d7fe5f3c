package stream

import (
	"maps"
	"sync"
	"sync/atomic"
)

// A Budget bounds the memory of all logs and encodings of a hub, and what else is accounted for in it. Over the limit the
// coldest encodings go first, then the oldest records, then the rest of the encodings. What else there is cannot be
// reclaimed, so it is for its owners to ask Room first; whatever they hold, half of the limit is left to the logs.
type Budget struct {
	limit int64
	kept  atomic.Int64  // by logs and encodings
	other atomic.Int64  // by others
	clock atomic.Uint64 // counts reclaims: a segment that was read since the last one is warm

	reclaiming sync.Mutex
	mu         sync.Mutex // guards logs
	logs       map[*Log]struct{}
	most       int // logs since the map was made: a map keeps the memory of what it had once
}

// NewBudget returns a budget of limit bytes; 0 is no limit.
func NewBudget(limit int64) *Budget {
	b := &Budget{limit: limit, logs: make(map[*Log]struct{})}
	b.clock.Store(1)
	return b
}

// Used returns how many bytes are accounted for.
func (b *Budget) Used() int64 { return b.kept.Load() + b.other.Load() }

// Room reports whether n bytes more may be held by others than the logs.
func (b *Budget) Room(n int) bool {
	return b.limit == 0 || b.other.Load()+int64(n) <= b.limit/2
}

// Limit returns the limit, 0 if there is none.
func (b *Budget) Limit() int64 { return b.limit }

// Use accounts for n bytes more (or less) that somebody else holds, such as a private queue.
func (b *Budget) Use(n int64) {
	b.other.Add(n)
	if n > 0 {
		b.grow(0)
	}
}

func (b *Budget) add(l *Log) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logs[l] = struct{}{}
	b.most = max(b.most, len(b.logs))
}

// Remove takes l, which nobody uses any more, out of the budget.
func (b *Budget) Remove(l *Log) {
	b.mu.Lock()
	delete(b.logs, l)
	if b.most > 1000 && len(b.logs) < b.most/4 {
		logs := make(map[*Log]struct{}, len(b.logs))
		maps.Copy(logs, b.logs)
		b.logs, b.most = logs, len(logs)
	}
	b.mu.Unlock()
	l.mu.Lock()
	for _, blk := range l.blocks {
		l.grown -= blk.size()
	}
	grown := l.grown
	l.blocks, l.grown = nil, 0
	l.first, l.firstCum, l.before = l.next, l.cum, l.last
	encodings := l.encodingsLocked()
	selections := l.selections
	l.selections = nil
	l.mu.Unlock()
	for _, e := range encodings {
		e.trim(^uint64(0))
	}
	for _, s := range selections {
		s.release()
	}
	b.free(-grown)
}

func (b *Budget) free(n int64) { b.kept.Add(-n) }

// grow accounts for n bytes of a log or an encoding and reclaims if there are too many. The caller holds no lock of this
// package.
func (b *Budget) grow(n int64) {
	kept := b.kept.Add(n)
	if b.limit == 0 || kept <= b.share() {
		return
	}
	if b.reclaiming.TryLock() {
		b.reclaim()
		b.reclaiming.Unlock()
	}
}

// share is what the logs and encodings may have now.
func (b *Budget) share() int64 { return max(b.limit-b.other.Load(), b.limit/2) }

func (b *Budget) reclaim() {
	share := b.share()
	target := share - share/8
	clock := b.clock.Add(1) - 1
	logs := b.list()
	b.dropSegments(logs, clock)
	for _, spare := range []bool{true, false} { // each log keeps the block that it is writing to, if that is enough
		for b.kept.Load() > target {
			l := oldestLog(logs, spare)
			if l == nil {
				break
			}
			l.dropBlock()
		}
		if b.kept.Load() > share {
			b.dropSegments(logs, ^uint64(0))
		}
	}
}

func (b *Budget) list() []*Log {
	b.mu.Lock()
	defer b.mu.Unlock()
	logs := make([]*Log, 0, len(b.logs))
	for l := range b.logs {
		logs = append(logs, l)
	}
	return logs
}

func (b *Budget) dropSegments(logs []*Log, clock uint64) {
	for _, l := range logs {
		l.mu.Lock()
		encodings := l.encodingsLocked()
		l.mu.Unlock()
		for _, e := range encodings {
			b.free(e.drop(clock))
		}
	}
}

// oldestLog returns the log with the oldest block that may go, its spare ones or not.
func oldestLog(logs []*Log, spare bool) *Log {
	var oldest *Log
	when := int64(0)
	for _, l := range logs {
		l.mu.Lock()
		keep := 0
		if spare {
			keep = l.spare
		}
		if len(l.blocks) > keep {
			if t := l.blocks[0].recs[0].time; oldest == nil || t < when {
				oldest, when = l, t
			}
		}
		l.mu.Unlock()
	}
	return oldest
}

// dropBlock forgets the oldest block of l and what was encoded of it.
func (l *Log) dropBlock() {
	l.mu.Lock()
	if len(l.blocks) > 0 {
		b := l.blocks[0]
		l.first = b.next()
		l.firstCum = b.cum + uint64(len(b.data))
		for i := range b.recs {
			l.pass(&b.recs[i])
		}
		l.dropOldest()
	}
	first := l.first
	encodings := l.encodingsLocked()
	grown := l.grown
	l.grown = 0
	l.mu.Unlock()
	for _, e := range encodings {
		e.trim(first)
	}
	l.budget.free(-grown)
}
