package follow

import (
	"bytes"
	"context"
	"io"
	"math"
	"slices"
)

// Back bounds: who wants more lines gets so many, or as many as are in so many bytes.
const (
	MaxBack      = 100_000
	maxBackBytes = 64 << 20
)

// Back goes n lines back from a position, through the file that it is in and its rotated siblings, and returns a position
// that a Replay goes on from, the zero one where that is the beginning of all, and how many lines lie between the two.
// From the zero position it goes back from the end. Of the n lines, have come after the position; and where the live stream began
// there, as many as were in the file then, if that is more: they are about to come. It goes back MaxBack lines and 64 MiB at most; a packed file counts
// with all its bytes, since it has to be unpacked from its beginning, and where it is too large what is newer is all there is.
//
// Lines that were written to an older file after a newer one had begun count where they stand in the file, while a Replay
// delivers them where they came.
func (f *Follower) Back(ctx context.Context, from Position, n, have int) (Position, int) {
	p := &replay{Follower: f, ctx: ctx, after: from}
	defer p.close()
	list := p.files()
	i, limit, ok := p.lastFile(list)
	if !ok {
		return from, 0
	}
	var at struct {
		file   int
		offset int64
		pos    Position
	}
	n = min(n, MaxBack)
	left, found := n-max(have, linesIn(p.h, int64(from.Offset), f.hist.ahead(from), n)), 0
	budget := int64(maxBackBytes)
	for left > 0 && ctx.Err() == nil {
		offset, lines, all := startsBefore(p.h, limit, left, &budget)
		if lines > 0 {
			at.file, at.offset, at.pos = i, offset, positionIn(p.h, offset)
			found, left = found+lines, left-lines
		}
		if i--; !all || i < 0 || left == 0 {
			break
		}
		h, err := p.open(list[i])
		if err != nil {
			break
		}
		p.use(h, nil)
		if limit = math.MaxInt64; !h.packed() {
			if limit, err = h.size(); err != nil {
				break
			}
		}
	}
	switch {
	case found == 0:
		return from, 0
	case at.offset > 0 && p.alone(list[at.file+1:], at.pos):
		return at.pos, found
	}
	return p.beginning(list, at.file), found
}

// lastFile opens the file that the position is in, or else the newest one, and returns its index and where to go back from.
func (p *replay) lastFile(list []sibling) (i int, limit int64, ok bool) {
	if p.after == (Position{}) {
		for i, s := range slices.Backward(list) {
			h, err := p.open(s)
			if err != nil {
				continue
			}
			p.use(h, nil)
			if s.name != p.cfg.Path {
				return i, math.MaxInt64, true
			}
			size, err := h.size()
			if err == nil {
				limit, err = lineStart(h, size, 0)
			}
			return i, limit, err == nil
		}
		return 0, 0, false
	}
	i = -1
	if n, inside, _ := p.join(); inside {
		if e, _, _, ok := p.hist.at(n); ok && p.openSource(e, p.after) {
			i = slices.IndexFunc(list, func(s sibling) bool { return p.same(s.id, identity{p.h.info}) })
		}
	}
	if i < 0 {
		var h *handle
		if i, h = p.locate(list, identity{}, with(p.after)); h == nil {
			return 0, 0, false
		}
		p.use(h, nil)
	}
	return i, int64(p.after.Offset), true
}

// linesIn counts the lines that end between two offsets, up to most.
func linesIn(h *handle, from, to int64, most int) (n int) {
	buf := make([]byte, 64<<10)
	for n < most && from < to {
		got, err := h.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		n += bytes.Count(buf[:got], []byte{'\n'})
		if from += int64(got); err != nil {
			break
		}
	}
	return min(n, most)
}

// alone reports whether none of the files has the position.
func (p *replay) alone(newer []sibling, pos Position) bool {
	_, h := p.locate(newer, identity{}, with(pos))
	if h != nil {
		h.release()
	}
	return h == nil
}

// beginning is a position before the first line of a file. Where a newer one begins with the same line it is the end of the
// file before, and where that has only such lines too it is before that.
func (p *replay) beginning(list []sibling, i int) Position {
	for ; i > 0; i-- {
		for _, place := range []struct {
			file int
			end  bool
		}{{i, false}, {i - 1, true}} {
			h, err := p.open(list[place.file])
			if err != nil {
				continue
			}
			size := int64(0)
			if place.end {
				size, _ = h.size()
			}
			pos := positionIn(h, size)
			h.release()
			if pos != (Position{}) && (size > 0 || !place.end) && p.alone(list[place.file+1:], pos) {
				return pos
			}
		}
	}
	return Position{}
}

// startsBefore finds the last so many places before limit at which a line begins, and returns the first of them, and how
// many there are. It is not all of the file if the budget of bytes was used up.
func startsBefore(h *handle, limit int64, want int, budget *int64) (offset int64, found int, all bool) {
	if h.packed() {
		return startsUnpacked(h, limit, want, budget)
	}
	buf := make([]byte, 64<<10)
	offset = limit
	for end := limit; end > 0; {
		b := buf[:min(int64(len(buf)), end)]
		if *budget -= int64(len(b)); *budget < 0 {
			return offset, found, false
		}
		end -= int64(len(b))
		if n, _ := h.ReadAt(b, end); n < len(b) {
			return offset, found, false
		}
		if len(b) >= holeSize && nulRun(b) == len(b) { // what is before a large hole is not looked for
			if start, err := afterHole(h, end+int64(len(b)), limit); err == nil && start < offset {
				offset, found = start, found+1
			}
			return offset, found, false
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b[:i], '\n') {
			if start := end + int64(i) + 1; start < limit {
				offset, found = start, found+1
				if found == want {
					return offset, found, true
				}
			}
		}
	}
	if limit > 0 {
		offset, found = 0, found+1
	}
	return offset, found, true
}

// startsUnpacked is startsBefore for a packed file, which is read from its beginning.
func startsUnpacked(h *handle, limit int64, want int, budget *int64) (offset int64, found int, all bool) {
	starts := make([]int64, 0, 64)
	r := io.NewSectionReader(h, 0, limit)
	buf := make([]byte, 64<<10)
	at, begins := int64(0), true
	for {
		n, err := r.Read(buf)
		if *budget -= int64(n); *budget < 0 {
			return 0, 0, false
		}
		for b, i := buf[:n], 0; len(b) > 0; b = b[i:] {
			if begins {
				if found++; len(starts) < want {
					starts = append(starts, at)
				} else {
					starts[(found-1)%want] = at
				}
			}
			if i = bytes.IndexByte(b, '\n') + 1; i == 0 {
				i, begins = len(b), false
			} else {
				begins = true
			}
			at += int64(i)
		}
		if err != nil || n == 0 {
			break
		}
	}
	return slices.Min(append(starts, at)), len(starts), true
}
