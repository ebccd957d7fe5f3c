package follow

import "sync"

// batches are the lines of looks that go on: a file that is quiet has none.
var batches = sync.Pool{New: func() any { return new([batchSize]Line) }}

// A batch is borrowed for a look.
type batch struct {
	lines *[batchSize]Line
	used  int // how many may hold a file's bytes
}

// space is where lines may be put, up to its capacity.
func (b *batch) space() []Line {
	if b.lines == nil {
		b.lines = batches.Get().(*[batchSize]Line)
	}
	return b.lines[:0]
}

func (b *batch) filled(lines []Line) { b.used = max(b.used, len(lines)) }

func (b *batch) giveBack() {
	if b.lines == nil {
		return
	}
	clear(b.lines[:b.used])
	batches.Put(b.lines)
	*b = batch{}
}
