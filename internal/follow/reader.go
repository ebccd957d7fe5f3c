package follow

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/bits"
	"slices"
)

const (
	blockSize = 256 << 10 // one pread
	batchSize = 1 << 10   // lines in one emit
	keptHead  = 256       // bytes of a file's beginning that are compared with each block
)

// errChanged says that the bytes before the place of reading are not those that were there: the file was truncated or
// rewritten.
var errChanged = errors.New("follow: the file's content has changed")

var errUnread = errors.New("follow: the file's first line can't be read")

// A reader turns one generation's bytes into lines. It reads blocks with pread and finds lines in place; each pread also
// reads the last bytes that are known already and compares them, so a truncation can't hide behind new data.
type reader struct {
	file    io.ReaderAt
	maxLine int
	epoch   uint64 // 0 until the first line is complete

	base int64  // the file offset of buf[0]
	buf  []byte // at least checkSize bytes before next (or all there are), then what is not delivered yet
	next int    // index in buf of the first byte that is not delivered
	hole hole   // swallowed before next
	head []byte // the file's first bytes, at most keptHead, as they were when they were first read
}

func (r *reader) offset() int64 { return r.base + int64(r.next) }
func (r *reader) end() int64    { return r.base + int64(len(r.buf)) }
func (r *reader) pending() int  { return len(r.buf) - r.next }

// before is what stands before position, as far as checks go.
func (r *reader) before() []byte {
	if r.hole.size > 0 {
		return r.hole.before
	}
	return r.buf[max(0, r.next-checkSize):r.next]
}

// position is the place after the last delivered line; zero while there is no epoch.
func (r *reader) position() Position {
	if r.hole.size > 0 {
		return r.hole.from
	}
	return r.positionAt(r.next)
}

func (r *reader) positionAt(i int) Position {
	if r.epoch == 0 {
		return Position{}
	}
	return Position{r.epoch, uint64(r.base + int64(i)), checkOf(r.buf[:i])}
}

// seek goes to an offset, of which the caller knows that a line begins there.
func (r *reader) seek(offset int64) error {
	before, err := readBefore(r.file, offset)
	if err != nil {
		return err
	}
	r.head = make([]byte, min(offset, keptHead))
	if _, err := r.file.ReadAt(r.head, 0); err != nil {
		return err
	}
	r.epoch, _ = readEpoch(r.file, offset > 0)
	r.base, r.buf, r.next, r.hole = offset-int64(len(before)), before, len(before), hole{}
	return nil
}

// fill reads the next block, but nothing from limit on, and returns how many bytes came. It returns errChanged when what
// stands before them is not what was read earlier.
func (r *reader) fill(limit int64) (int, error) {
	if r.end() > 0 && r.end() < limit {
		if err := r.beginsAsBefore(); err != nil {
			return 0, err
		}
	}
	leapt := int(min(r.leap(limit), math.MaxInt32))
	from := r.end()
	r.compact()
	known := min(len(r.buf), checkSize)
	want := int(min(max(limit-from, 0), blockSize))
	r.reserve(want)
	var before [checkSize]byte
	copy(before[:], r.buf[len(r.buf)-known:])

	start := len(r.buf) - known
	n, err := r.file.ReadAt(r.buf[start:start+known+want], from-int64(known))
	if err == io.EOF {
		err = nil
	}
	if n < known || !bytes.Equal(r.buf[start:start+known], before[:known]) {
		copy(r.buf[start:], before[:known])
		return 0, cmpErr(err, errChanged)
	}
	r.buf = r.buf[:start+n]
	if r.base == 0 && (from == 0 || len(r.head) < keptHead) {
		r.head = append(r.head[:0], r.buf[:min(len(r.buf), keptHead)]...)
	}
	if from == 0 && r.epoch != 0 && n > 0 {
		return n, r.verify()
	}
	return n - known + leapt, err
}

// beginsAsBefore returns errChanged unless the file begins with the bytes that it began with: lines that are alike can hide a
// truncation from the comparison of the bytes before the place of reading. It comes before the block: what was read of that is
// good, though the file may be truncated right after.
func (r *reader) beginsAsBefore() error {
	var head [keptHead]byte
	n, err := r.file.ReadAt(head[:len(r.head)], 0)
	for n < len(r.head) { // a read may be short
		more, err2 := r.file.ReadAt(head[n:len(r.head)], int64(n))
		if n, err = n+more, err2; more == 0 {
			break
		}
	}
	if bytes.Equal(head[:n], r.head) {
		return nil
	}
	if err == io.EOF {
		err = nil
	}
	return cmpErr(err, errChanged)
}

func cmpErr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// verify stands in for the bytes before the offset where there are none: at a file's very beginning.
func (r *reader) verify() error {
	epoch, ok := readEpoch(r.file, true)
	if ok && epoch == r.epoch {
		return nil
	}
	r.buf = r.buf[:0]
	if !ok {
		return errUnread
	}
	return errChanged
}

// compact drops what was delivered, except for the bytes that the next check needs.
func (r *reader) compact() {
	if drop := r.next - checkSize; drop > 0 {
		r.buf = r.buf[:copy(r.buf, r.buf[drop:])]
		r.base += int64(drop)
		r.next -= drop
	}
}

// reserve makes room for n more bytes. The buffer is as large as the file's appetite: a quiet file needs 4 KiB.
func (r *reader) reserve(n int) {
	need := len(r.buf) + n
	if need <= cap(r.buf) {
		return
	}
	size := max(4<<10, 1<<bits.Len(uint(need-1)))
	r.buf = append(make([]byte, 0, size), r.buf...)
}

// shrink gives a large buffer back while nothing happens.
func (r *reader) shrink() {
	r.compact()
	if cap(r.buf) > 16<<10 && len(r.buf) <= 4<<10 {
		r.buf = append(make([]byte, 0, 4<<10), r.buf...)
	}
}

// forget drops what was read and not delivered; it will be read again.
func (r *reader) forget() {
	r.buf = r.buf[:r.next]
	r.compact()
	r.buf = slices.Clone(r.buf)
}

// rewind forgets a first block of which nothing was delivered.
func (r *reader) rewind() { r.buf, r.head, r.epoch = r.buf[:0], nil, 0 }

func (r *reader) imprint() imprint {
	return imprint{r.end(), bytes.Clone(r.buf[max(0, len(r.buf)-checkSize):])}
}

// cut appends the lines that are complete to dst, up to its capacity, and returns where the last one ends. Final says that
// the data ends here for good: then what is left is a line too, and partial whether it goes on elsewhere.
func (r *reader) cut(dst []Line, final, partial bool) ([]Line, int) {
	at := r.next
	if !r.identify(final) {
		return dst, at
	}
	for len(dst) < cap(dst) {
		b := r.buf[at:]
		if r.hole.size > 0 || len(b) > 0 && b[0] == 0 {
			if n, ok := r.atHole(at); ok {
				if dst, n = r.cutHole(dst, at, n, final, partial); n == 0 {
					break
				}
				at += n
				continue
			}
		}
		n, size, cut := shortLine(b)
		if size == 0 || n > r.maxLine {
			if n, size, cut = cutAtHole(b, r.maxLine, final); size == 0 {
				break
			}
		}
		at += size
		if at == len(r.buf) && final && b[size-1] != '\n' {
			cut = partial
		}
		dst = dst[:len(dst)+1]
		line := &dst[len(dst)-1] // field by field: a Line that is built first and copied then takes twice as long
		line.Data, line.Partial, line.Gap = b[:n:n], cut, nil
		line.Pos.Epoch, line.Pos.Offset, line.Pos.Check = r.epoch, uint64(r.base+int64(at)), checkOf(r.buf[:at])
	}
	return dst, at
}

// identify finds the epoch once the first line is complete.
func (r *reader) identify(final bool) bool {
	if r.epoch == 0 && len(r.buf) > 0 {
		r.epoch, _ = epochOf(r.buf, final)
	}
	return r.epoch != 0
}

// accept notes that everything before buf[next] is delivered.
func (r *reader) accept(next int) { r.next, r.hole = next, hole{} }

// known reports whether enough was read to tell the file from others.
func (r *reader) known() bool { return r.epoch != 0 || len(r.buf) >= checkSize }

// beginsWith reports whether the first size bytes of file, which are all it has, are the first that were read, where these
// are still known.
func (r *reader) beginsWith(file io.ReaderAt, size int64) bool {
	if r.base != 0 || size == 0 || size > int64(len(r.buf)) {
		return false
	}
	b := make([]byte, size)
	n, _ := file.ReadAt(b, 0)
	return bytes.Equal(b[:n], r.buf[:size])
}

// matches reports whether file holds all that this reader remembers, at the same place.
func (r *reader) matches(file io.ReaderAt) bool {
	if r.epoch != 0 {
		if epoch, ok := readEpoch(file, true); !ok || epoch != r.epoch {
			return false
		}
	}
	return imprint{int64(len(r.head)), r.head}.on(file) && imprint{r.end(), r.buf}.on(file) // in a hole all bytes are alike
}

// pump reads up to limit and hands out what is complete, batch after batch, until there is no more. It returns how many
// bytes it read.
func (r *reader) pump(limit int64, end ending, batch []Line, deliver func(lines []Line, next int) error) (int, error) {
	total := 0
	for {
		n, err := r.fill(limit)
		total += n
		if err != nil {
			return total, err
		}
		if err := r.hand(limit, end, batch, deliver); err != nil || n == 0 || r.end() >= limit {
			return total, err
		}
	}
}

// An ending says what the end of the data means: not the end at all, or the end for good, perhaps in the middle of a line
// that was cut there.
type ending struct{ final, partial bool }

func (r *reader) hand(limit int64, end ending, batch []Line, deliver func(lines []Line, next int) error) error {
	for {
		lines, next := r.cut(batch[:0], end.final && r.end() >= limit, end.partial)
		if len(lines) == 0 {
			r.swallow()
			return nil
		}
		if err := deliver(lines, next); err != nil {
			return err
		}
		r.accept(next)
	}
}
