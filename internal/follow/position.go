package follow

import (
	"bytes"
	"hash/crc32"
	"hash/fnv"
	"io"
)

const (
	headSize  = 1 << 10 // how much of the first line makes an epoch
	checkSize = 64      // how much before an offset makes a check
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Position is a place between two lines of one generation of a file. It is made of content alone, so it finds its place
// in the live file, in a renamed one and in a copy, in this process and in any later one.
type Position struct {
	Epoch  uint64 // FNV-1a of the generation's first line without its "\n", of at most its first 1 KiB; never 0
	Offset uint64 // the byte after the line and its end
	Check  uint32 // CRC-32C of the at most 64 bytes before Offset
}

// A Gap declares that lines are missing at this place of the stream. Count and Bytes are -1 where they are unknown.
type Gap struct {
	From, To     Position // the last position before the gap, and the first one after it; zero where unknown
	Count, Bytes int64
	Possible     bool // nothing may be missing at all: it can't be known
	Reason       string
}

// epochOf hashes the first line in head, the first bytes of a generation. It has no answer before the line is complete or
// headSize bytes are there, because the answer could change; final says that nothing will follow.
func epochOf(head []byte, final bool) (uint64, bool) {
	head = head[:min(len(head), headSize)]
	i := bytes.IndexByte(head, '\n')
	if i < 0 && len(head) < headSize && !final {
		return 0, false
	}
	if i >= 0 {
		head = head[:i]
	}
	h := fnv.New64a()
	h.Write(head)
	return max(h.Sum64(), 1), true
}

// readEpoch is epochOf for a file.
func readEpoch(file io.ReaderAt, final bool) (uint64, bool) {
	var head [headSize]byte
	n, err := file.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return 0, false
	}
	return epochOf(head[:n], final)
}

// checkOf is the check of an offset, of which before holds at least the checkSize bytes before it, or all there are.
func checkOf(before []byte) uint32 {
	return crc32.Checksum(before[max(0, len(before)-checkSize):], castagnoli)
}

// positionIn computes the position at an offset of a file; zero if it has none.
func positionIn(file io.ReaderAt, offset int64) Position {
	epoch, ok := readEpoch(file, true)
	before, err := readBefore(file, offset)
	if !ok || err != nil {
		return Position{}
	}
	return Position{epoch, uint64(offset), checkOf(before)}
}

// holds reports whether pos is a place in file.
func holds(file io.ReaderAt, pos Position) bool {
	if pos.Epoch == 0 || pos.Offset >= 1<<63 {
		return false
	}
	if epoch, ok := readEpoch(file, true); !ok || epoch != pos.Epoch { // first, since what comes next may cost unpacking
		return false
	}
	before, err := readBefore(file, int64(pos.Offset))
	return err == nil && checkOf(before) == pos.Check
}

// readBefore returns the at most checkSize bytes before offset.
func readBefore(file io.ReaderAt, offset int64) ([]byte, error) {
	b := make([]byte, min(offset, checkSize))
	_, err := io.ReadFull(io.NewSectionReader(file, offset-int64(len(b)), int64(len(b))), b)
	return b, err
}
