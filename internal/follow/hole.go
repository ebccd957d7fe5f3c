package follow

import (
	"bytes"
	"fmt"
	"io"
)

// holeSize is how many NULs in a row are no data but a hole: what a truncation leaves under a writer that goes on at its old
// place, or a crash. A hole ends the line before it, and what follows it begins a new one. Fewer NULs are data.
const holeSize = 4096

// A hole that the reader has come into and not seen the end of. Its bytes are not kept.
type hole struct {
	size   int64
	from   Position // the place before it
	before []byte   // and the bytes before that
}

// nulRun is how many NULs b begins with.
func nulRun(b []byte) int {
	n := 0
	for len(b)-n >= len(zeros) && bytes.Equal(b[n:n+len(zeros)], zeros[:]) {
		n += len(zeros)
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}

var zeros [512]byte

// findHole finds the first hole that begins in the first n bytes of b, or right after them. It is not sure where b ends
// before that can be said; final says that nothing follows.
func findHole(b []byte, n int, final bool) (at int, found, sure bool) {
	n = min(n, len(b)-1)
	for i := 0; i <= n; i++ {
		if b[i] != 0 {
			skip := bytes.IndexByte(b[i:n+1], 0)
			if skip < 0 {
				break
			}
			i += skip
		}
		run := nulRun(b[i:min(len(b), i+holeSize)])
		if run == holeSize {
			return i, true, true
		}
		if i += run; i == len(b) {
			return 0, false, final
		}
	}
	return 0, false, true
}

// cutAtHole is cutLine for what may have a hole in it: a line that is shorter than a hole has none. A hole at the very
// beginning is none of its business.
func cutAtHole(b []byte, maxLine int, final bool) (n, size int, partial bool) {
	n, size, partial = cutLine(b, maxLine, final)
	within := n
	if size == 0 {
		within = len(b) // a line of which the end has not come yet
	}
	if !partial && within < holeSize {
		return n, size, partial
	}
	at, found, sure := findHole(b, min(within, maxLine), final)
	switch {
	case found:
		return at, at, false
	case !sure:
		return 0, 0, false
	}
	return n, size, partial
}

// atHole reports whether a hole begins at buf[i], or goes on there, and how much of it is in the buffer.
func (r *reader) atHole(i int) (n int, ok bool) {
	n = nulRun(r.buf[i:])
	return n, n >= holeSize || r.hole.size > 0 && i == r.next
}

// cutHole appends the hole at buf[at], and the line after it, so that every batch ends with a position. The hole itself has
// none: all files that begin with a hole share those.
func (r *reader) cutHole(dst []Line, at, n int, final, partial bool) ([]Line, int) {
	b := r.buf[at+n:]
	if len(b) == 0 || len(dst)+2 > cap(dst) {
		return dst, 0
	}
	m, size, cut := cutAtHole(b, r.maxLine, final)
	if size == 0 {
		return dst, 0
	}
	if size == len(b) && final && b[size-1] != '\n' {
		cut = partial
	}
	h := hole{size: int64(n), from: r.positionAt(at)}
	if r.hole.size > 0 && at == r.next {
		h.size, h.from = h.size+r.hole.size, r.hole.from
	}
	dst = append(dst, Line{Gap: h.gap()}, Line{Data: b[:m:m], Pos: r.positionAt(at + n + size), Partial: cut})
	return dst, n + size
}

// gap declares a hole. It holds no lines; whether it stands in the place of some nobody can know.
func (h hole) gap() *Gap {
	g := &Gap{Count: -1, Bytes: h.size, Possible: true, Reason: fmt.Sprintf("a hole of %d NUL bytes", h.size)}
	if h.from.Offset > 0 {
		g.From = h.from
	}
	return g
}

// swallow forgets what is in the buffer of a hole that has not ended.
func (r *reader) swallow() {
	if r.pending() == 0 || r.buf[r.next] != 0 {
		return
	}
	n, ok := r.atHole(r.next)
	if !ok || r.next+n < len(r.buf) {
		return
	}
	if r.hole.size == 0 {
		r.hole.from, r.hole.before = r.positionAt(r.next), bytes.Clone(r.before())
	}
	r.hole.size += int64(n)
	r.next = len(r.buf)
	r.compact()
}

// leap skips the part of a hole that takes no room on the disk, where the system tells, and returns how much that was.
func (r *reader) leap(limit int64) int64 {
	s, ok := r.file.(interface{ nextData(int64) (int64, bool) })
	if r.hole.size == 0 || r.pending() > 0 || !ok {
		return 0
	}
	to, ok := s.nextData(r.end())
	n := min(to, limit) - r.end()
	if !ok || n < checkSize {
		return 0
	}
	r.hole.size += n
	r.base, r.buf = r.base+int64(r.next)+n-checkSize, make([]byte, checkSize)
	r.next = checkSize
	return n
}

// ended returns the gap of a hole that a file ends with.
func (r *reader) ended() *Gap {
	if r.hole.size == 0 || r.pending() > 0 {
		return nil
	}
	return r.hole.gap()
}

// nextData is where the next bytes are stored that are no hole, from offset on. Not ok means that nobody can tell.
func (h *handle) nextData(offset int64) (int64, bool) {
	s, ok := h.file.(io.Seeker)
	if !ok || seekData == 0 {
		return 0, false
	}
	if to, err := s.Seek(offset, seekData); err == nil {
		return to, to >= offset
	}
	size, err := h.size() // there is none up to the end, or the file system knows no holes
	if to, errHole := s.Seek(offset, seekHole); errHole != nil || to != offset {
		return 0, false
	}
	return size, err == nil
}

// afterHole is the end of the NULs that go on at offset, or size.
func afterHole(file io.ReaderAt, offset, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for offset < size {
		b := buf[:min(int64(len(buf)), size-offset)]
		if n, err := file.ReadAt(b, offset); n < len(b) {
			return 0, err
		}
		n := nulRun(b)
		offset += int64(n)
		if n < len(b) {
			break
		}
	}
	return offset, nil
}

// endedInHole declares the hole that a file ends with.
func (p *replay) endedInHole() error {
	if gap := p.reader.ended(); gap != nil {
		return p.declare(gap)
	}
	return nil
}

// countHoles counts the holes among lines, and their bytes.
func countHoles(lines []Line) (gaps, size int64) {
	for i := range lines {
		if g := lines[i].Gap; g != nil {
			gaps++
			size += g.Bytes
		}
	}
	return gaps, size
}

// beginsWith notes the hole that a source begins with. All such files have the same epoch.
func (h *history) beginsWith(src *source, hole int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	src.hole = uint64(hole)
}
