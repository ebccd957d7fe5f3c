package follow

import (
	"bytes"
	"io"
	"slices"
	"sync"
)

// maxSpans bounds the history. One generation is one span unless late lines of an older one came in between.
const maxSpans = 64 << 10

// A source is one generation as the history knows it. It outlives the open file.
type source struct {
	info identity

	// Guarded by history.mu.
	h         *handle    // nil once the live stream has closed it, or its content was truncated
	head      []byte     // its first bytes, as far as they were read
	landmarks []Position // some places in it, in order
	spacing   uint64     // of the landmarks
	hole      uint64     // the size of the one that it begins with: no position is in there
}

const (
	firstSpacing    = 4 << 10 // of the landmarks in the first 64 KiB
	landmarkSpacing = 64 << 10
	maxLandmarks    = 256
)

// next is the offset from which on a place is far enough from the last one to be noted.
func (src *source) next() uint64 {
	last := uint64(0)
	if n := len(src.landmarks); n > 0 {
		last = src.landmarks[n-1].Offset
	}
	if last < landmarkSpacing {
		return last + firstSpacing
	}
	return last + max(src.spacing, landmarkSpacing)
}

// passed notes a place. A long generation has its landmarks farther apart.
func (src *source) passed(at Position) {
	n := len(src.landmarks)
	if n == maxLandmarks {
		src.spacing = 2 * max(src.spacing, landmarkSpacing)
		for i := range n / 2 {
			src.landmarks[i] = src.landmarks[2*i]
		}
		src.landmarks = src.landmarks[:n/2]
	}
	src.landmarks = append(src.landmarks, at)
}

// An entry of the history is a span of one generation's bytes, or a gap. Only the last one grows.
type entry struct {
	src      *source
	from, to Position
	partial  bool // the last line was cut at MaxLine
	cut      bool // the last line has no end, and what comes after it is another one
	gap      *Gap
}

// A history is the order in which the live stream has emitted what it has emitted, so that a replay can follow in its steps.
type history struct {
	limit int // entries kept

	mu      sync.Mutex
	entries []entry
	dropped int // entries that were forgotten: entries[0] has this number
	sources []*source
	begin   entry // where the first Run began: src, from, and nothing more; src is nil before
	there   int64 // up to which offset its file was written then
	changed chan struct{}
}

// start notes where the live stream begins, and how far that file was written then. Only the first call counts.
func (h *history) start(src *source, at Position, there int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begin.src == nil {
		h.begin, h.there = entry{src: src, from: at, to: at}, there
		h.broadcast()
	}
}

// beginsAt notes what the position is that the live stream begins at, where the file had no complete line when it was opened.
func (h *history) beginsAt(src *source, at Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begin.src == src && len(h.entries) == 0 {
		h.begin.from, h.begin.to = at, at
	}
}

// isBegin reports whether the live stream begins at a position, but with lines of another generation: the first one had only a
// line without an end then, which came later.
func (h *history) isBegin(pos Position) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.entries, func(e entry) bool { return e.src != nil })
	return i >= 0 && h.dropped == 0 && pos != (Position{}) && pos == h.begin.from && h.entries[i].src != h.begin.src
}

// ahead returns the offset up to which there were lines after a position when the live stream began there; 0 if it did not.
func (h *history) ahead(at Position) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begin.src == nil || h.begin.from != at {
		return 0
	}
	return h.there
}

// add makes a generation known before anything of it was emitted.
func (h *history) add(src *source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sources = append(h.sources, src)
}

// close takes the open file away from a source.
func (h *history) close(src *source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if src.h != nil {
		src.h.release()
		src.h = nil
	}
}

// describe notes the present size and time of a source's file.
func (h *history) describe(src *source, id identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	src.info = id
}

// attach gives a source the file that its bytes are in from now on.
func (h *history) attach(src *source, f *handle) {
	h.close(src)
	h.mu.Lock()
	defer h.mu.Unlock()
	src.h, src.info = f, identity{f.info}
}

// open returns the source's file, retained, or nil, and its identity.
func (h *history) open(src *source) (*handle, identity) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if src.h == nil || !src.h.retain() {
		return nil, src.info
	}
	return src.h, src.info
}

// extend notes what was emitted: lines that begin at from, of a generation that begins with head.
func (h *history) extend(src *source, head []byte, from Position, lines []Line) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.broadcast()
	if len(src.head) < len(head) {
		src.head = bytes.Clone(head)
	}
	to, partial := lines[len(lines)-1].Pos, lines[len(lines)-1].Partial
	for i, next := 0, src.next(); i < len(lines) && next <= to.Offset; i++ {
		if lines[i].Pos.Offset >= next {
			src.passed(lines[i].Pos)
			next = src.next()
		}
	}
	if n := len(h.entries); n > 0 {
		last := &h.entries[n-1]
		if last.src == src && last.gap == nil && last.to == from && !last.cut {
			last.to, last.partial = to, partial
			return
		}
	}
	h.push(entry{src: src, from: from, to: to, partial: partial})
}

// cut notes that the last line of a source was emitted without its end.
func (h *history) cut(src *source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.entries); n > 0 && h.entries[n-1].src == src {
		h.entries[n-1].cut = true
	}
}

func (h *history) gap(g *Gap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.broadcast()
	h.push(entry{gap: g})
}

func (h *history) push(e entry) {
	h.entries = append(h.entries, e)
	if len(h.entries) <= h.limit {
		return
	}
	drop := max(1, h.limit/8)
	h.entries = append(h.entries[:0], h.entries[drop:]...)
	h.dropped += drop
	h.prune()
}

// prune forgets sources that no entry needs. The newest stay: nothing of them may have been emitted yet.
func (h *history) prune() {
	used := make(map[*source]bool)
	for i := range h.entries {
		used[h.entries[i].src] = true
	}
	kept := h.sources[:0]
	for i, src := range h.sources {
		if used[src] || src.h != nil || i == len(h.sources)-1 {
			kept = append(kept, src)
		}
	}
	h.sources = kept
}

func (h *history) broadcast() {
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
}

// watch returns a channel that is closed at the next change.
func (h *history) watch() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// first tells where the history begins: a number, a source and a position in it. It is not ok before the first generation
// was opened.
func (h *history) first() (n int, src *source, at Position, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.entries {
		if e := &h.entries[i]; e.src != nil {
			return h.dropped, e.src, e.from, true
		}
	}
	return h.dropped, h.begin.src, h.begin.from, h.begin.src != nil
}

// at returns entry n. It is not ok where n is forgotten, and pending where n is still to come.
func (h *history) at(n int) (e entry, last, pending, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := n - h.dropped
	switch {
	case i < 0:
		return entry{}, false, false, false
	case i >= len(h.entries):
		return entry{}, false, true, true
	}
	return h.entries[i], i == len(h.entries)-1, false, true
}

// find lists the numbers of the entries that pos may be in, the likeliest first. A position is the end of a line, so it
// belongs to the span that ends with that line and not to the one that goes on after it; where several generations have it,
// the newest is meant. Only where no span ends there is it a beginning: the one that Begin was told, which is the oldest.
func (h *history) find(pos Position) []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var inside, begins []int
	for i := len(h.entries) - 1; i >= 0; i-- {
		e := &h.entries[i]
		switch {
		case e.gap != nil || e.to.Epoch != pos.Epoch:
		case e.from == pos:
			begins = append(begins, i+h.dropped)
		case e.to == pos, e.src.hole < pos.Offset && e.from.Offset < pos.Offset && pos.Offset < e.to.Offset:
			inside = append(inside, i+h.dropped)
		}
	}
	slices.Reverse(begins)
	return append(inside, begins...)
}

// knows lists the files that are the live stream's, from the history's first entry on.
func (h *history) knows() []identity {
	_, first, _, _ := h.first()
	h.mu.Lock()
	defer h.mu.Unlock()
	from := max(slices.Index(h.sources, first), 0)
	var ids []identity
	for _, src := range h.sources[from:] {
		ids = append(ids, src.info)
	}
	return ids
}

// told lists how far each source was told, oldest first.
func (h *history) told() (list []entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := make(map[*source]int)
	for _, e := range h.entries {
		if e.src == nil {
			continue
		}
		i, ok := at[e.src]
		if !ok {
			i = len(list)
			at[e.src], list = i, append(list, entry{src: e.src})
		}
		list[i].to = e.to
	}
	return list
}

// beginsLike reports whether the first size bytes of a file, which are all it has, are those of a source, as far as the source's
// head and its landmarks tell.
func (h *history) beginsLike(src *source, file io.ReaderAt, size int64) bool {
	h.mu.Lock()
	head := src.head[:min(int64(len(src.head)), size)]
	h.mu.Unlock()
	b := make([]byte, len(head))
	if n, _ := file.ReadAt(b, 0); n == 0 || !bytes.Equal(b[:n], head) {
		return false
	}
	at := h.landmark(src, size)
	return at.Offset <= uint64(len(head)) || holds(file, at)
}

// landmark returns the last place noted in a source that is at most at size; zero if there is none.
func (h *history) landmark(src *source, size int64) Position {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, at := range slices.Backward(src.landmarks) {
		if int64(at.Offset) <= size {
			return at
		}
	}
	return Position{}
}

func (h *history) identity(src *source) identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	return src.info
}
