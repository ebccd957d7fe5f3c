package follow

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

const (
	// unpackWindow is how many of the last bytes are kept, so that a small step back costs nothing.
	unpackWindow = 64 << 10
	// maxMembers is how many beginnings of members are remembered as places to start from.
	maxMembers = 64
	// bombSize and bombRatio: whoever unpacks to more than both is no log. Deflate can do 1030.
	bombSize  = 256 << 20
	bombRatio = 500
)

// errBomb ends a file that would never end.
var errBomb = fmt.Errorf("it unpacks to more than %d times its size", bombRatio)

// An unpacked is the plain bytes of a gzip file as an io.ReaderAt. It unpacks forward; what lies more than unpackWindow
// back, and not in the first headSize bytes, is unpacked again from the beginning of the file, or of a member of it. So
// reading in order costs one pass, each jump back another one, and memory is some 200 KiB whatever the file holds.
//
// A file that is damaged, or cut off, ends where its last good byte is: damage says why. One that can't be read at the moment
// does not end: the next read tries again.
type unpacked struct {
	packed io.ReaderAt
	length int64 // of packed

	mu      sync.Mutex
	in      *bufio.Reader // nil before the first read, and when it has been given back
	section *section
	zr      *gzip.Reader
	pos     int64         // how far this pass has come
	window  []byte        // what comes before pos
	head    []byte        // the first bytes
	members []memberStart // where a pass may begin, but for the file's beginning
	size    int64         // -1 while it is not known
	err     error         // the damage at the end
}

// A memberStart is where a member begins, in the packed and in the plain bytes.
type memberStart struct{ packed, plain int64 }

// A section is what one pass reads of the packed bytes. It notes the error that ended it, which is none of the format's.
type section struct {
	*io.SectionReader
	err error
}

func (s *section) Read(p []byte) (int, error) {
	n, err := s.SectionReader.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func newUnpacked(packed io.ReaderAt, length int64) *unpacked {
	return &unpacked{packed: packed, length: length, size: -1}
}

var (
	gzipReaders sync.Pool // of *gzip.Reader
	packedInput = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 32<<10) }}
)

// ReadAt is io.ReaderAt's.
func (u *unpacked) ReadAt(p []byte, off int64) (n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if off < 0 {
		return 0, errors.New("follow: negative offset")
	}
	if off+int64(len(p)) <= int64(len(u.head)) {
		return copy(p, u.head[off:]), nil
	}
	u.seek(off)
	if off < u.pos {
		n = copy(p, u.window[len(u.window)-int(u.pos-off):])
	}
	for n < len(p) && u.pos == off+int64(n) {
		m := u.read(p[n:])
		if m == 0 {
			break
		}
		n += m
	}
	switch {
	case n == len(p):
		return n, nil
	case (u.size < 0 || off+int64(n) < u.size) && u.section.err != nil:
		return n, u.section.err
	}
	return n, io.EOF
}

// damage is what is wrong at the end, nil if the end has not been reached.
func (u *unpacked) damage() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// plainSize is the number of plain bytes. It reads to the end, once.
func (u *unpacked) plainSize() (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.size < 0 {
		u.seek(math.MaxInt64)
	}
	if u.size < 0 {
		return 0, u.section.err
	}
	return u.size, nil
}

// seek goes to off, or to the end if that comes first; or to where the window has off.
func (u *unpacked) seek(off int64) {
	if u.size >= 0 && off >= u.size {
		return // there is nothing to be had
	}
	if u.in == nil || u.section.err != nil || off < u.pos-int64(len(u.window)) {
		u.rewind(off)
	}
	var skipped []byte
	for u.pos < off {
		if skipped == nil {
			skipped = make([]byte, 32<<10)
		}
		if u.read(skipped[:min(int64(len(skipped)), off-u.pos)]) == 0 {
			return
		}
	}
}

// rewind begins a pass at the last place that is not behind off.
func (u *unpacked) rewind(off int64) {
	from := memberStart{}
	for _, m := range u.members {
		if m.plain <= off {
			from = m
		}
	}
	if u.in == nil {
		u.in = packedInput.Get().(*bufio.Reader)
	}
	u.section = &section{SectionReader: io.NewSectionReader(u.packed, from.packed, u.length-from.packed)}
	u.in.Reset(u.section)
	u.pos, u.window = from.plain, u.window[:0]
	u.open()
}

// open begins a member. Where there is none the file ends.
func (u *unpacked) open() {
	if u.zr == nil {
		if zr, ok := gzipReaders.Get().(*gzip.Reader); ok {
			u.zr = zr
		} else {
			u.zr = new(gzip.Reader)
		}
	}
	if err := u.zr.Reset(u.in); err != nil {
		u.end(err)
		return
	}
	u.zr.Multistream(false)
}

// end notes where the plain bytes end, and why.
func (u *unpacked) end(err error) {
	if u.size >= 0 || u.section.err != nil {
		return
	}
	u.size = u.pos
	if err == io.EOF && u.pos == 0 && u.length == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != io.EOF {
		u.err = err
	}
}

// read unpacks the next bytes. 0 means that there are no more.
func (u *unpacked) read(p []byte) int {
	for u.section.err == nil && (u.size < 0 || u.pos < u.size) {
		if u.size >= 0 {
			p = p[:min(int64(len(p)), u.size-u.pos)] // what comes after damage is nobody's
		}
		n, err := u.zr.Read(p)
		u.passed(p[:n])
		switch {
		case u.pos > bombSize && u.pos/bombRatio > u.length:
			u.end(errBomb)
		case err == io.EOF:
			u.next()
		case err != nil:
			u.end(err)
		}
		if n > 0 {
			return n
		}
		if err != nil && err != io.EOF {
			return 0
		}
	}
	return 0
}

// next goes on in the next member, if there is one.
func (u *unpacked) next() {
	if _, err := u.in.Peek(1); err != nil {
		u.end(io.EOF)
		return
	}
	at, _ := u.section.Seek(0, io.SeekCurrent)
	_, begin, _ := u.section.Outer()
	m := memberStart{begin + at - int64(u.in.Buffered()), u.pos}
	if n := len(u.members); n < maxMembers && (n == 0 || u.members[n-1].packed < m.packed) {
		u.members = append(u.members, m)
	}
	u.open()
}

// passed keeps what may be asked for again.
func (u *unpacked) passed(b []byte) {
	if u.pos == int64(len(u.head)) && u.pos < headSize {
		u.head = append(u.head, b[:min(len(b), headSize-len(u.head))]...)
	}
	u.pos += int64(len(b))
	if len(b) >= unpackWindow {
		u.window, b = u.window[:0], b[len(b)-unpackWindow:]
	} else if drop := len(u.window) + len(b) - 2*unpackWindow; drop > 0 {
		u.window = u.window[:copy(u.window, u.window[len(u.window)-unpackWindow:])]
	}
	u.window = append(u.window, b...)
}

// close gives back what is costly.
func (u *unpacked) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.in != nil {
		u.in.Reset(nil)
		packedInput.Put(u.in)
	}
	if u.zr != nil {
		gzipReaders.Put(u.zr)
	}
	u.in, u.zr, u.window = nil, nil, nil
}
