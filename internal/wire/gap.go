package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"unicode"
)

// Gap declares that messages between two positions were lost, or may have been.
type Gap struct {
	From, To     Position // zero where unknown
	Count, Bytes int64    // −1 where unknown
	Possible     bool     // nothing may have been lost after all
	Reason       string
}

// GapLine returns g as one line for people, without a line end. It stands in for the loss where a format has only lines:
//
//	# tailcast gap: 12 messages, 3456 bytes lost: the log was truncated
//	# tailcast gap: unknown messages, 3456 bytes possibly lost: …
//	# tailcast gap: unknown amount lost
//
// The reason's line ends and control characters become spaces and what is not UTF-8 in it U+FFFD, so that it can neither forge a
// second line nor drive a terminal.
func GapLine(g *Gap) string { return string(AppendGapLine(nil, g)) }

// AppendGapLine appends GapLine(g).
func AppendGapLine(dst []byte, g *Gap) []byte {
	dst = append(dst, "# tailcast gap: "...)
	if g.Count < 0 && g.Bytes < 0 {
		dst = append(dst, "unknown amount"...)
	} else {
		dst = appendAmount(dst, g.Count, "message")
		dst = append(dst, ", "...)
		dst = appendAmount(dst, g.Bytes, "byte")
	}
	if g.Possible {
		dst = append(dst, " possibly"...)
	}
	dst = append(dst, " lost"...)
	if g.Reason == "" {
		return dst
	}
	dst = append(dst, ": "...)
	for _, c := range g.Reason {
		if unicode.IsControl(c) || c == lineSeparator || c == paragraphSeparator {
			c = ' '
		}
		dst = append(dst, string(c)...)
	}
	return dst
}

// Some readers, JavaScript's older parsers among them, take these for line ends.
const (
	lineSeparator      = '\u2028'
	paragraphSeparator = '\u2029'
)

func appendAmount(dst []byte, n int64, unit string) []byte {
	if n < 0 {
		dst = append(dst, "unknown"...)
	} else {
		dst = strconv.AppendInt(dst, n, 10)
	}
	dst = append(dst, ' ')
	dst = append(dst, unit...)
	if n != 1 {
		dst = append(dst, 's')
	}
	return dst
}

// gapPossible is the one flag of the binary form's first byte. Its other bits are zero, and room for a next version.
const gapPossible = 1

// AppendBinary appends the form in which g is kept inside a record log: a byte of flags, eight varints, and the reason's bytes to
// the end. It is for memory, not for a wire or a file.
func (g *Gap) AppendBinary(dst []byte) []byte {
	var flags byte
	if g.Possible {
		flags |= gapPossible
	}
	dst = append(dst, flags)
	for _, p := range [...]Position{g.From, g.To} {
		dst = binary.AppendUvarint(dst, p.Epoch)
		dst = binary.AppendUvarint(dst, p.Offset)
		dst = binary.AppendUvarint(dst, uint64(p.Check))
	}
	dst = binary.AppendVarint(dst, g.Count)
	dst = binary.AppendVarint(dst, g.Bytes)
	return append(dst, g.Reason...)
}

var errGapBinary = errors.New("stored gap is damaged")

// ParseGapBinary reads what AppendBinary wrote. The Gap does not refer to b.
func ParseGapBinary(b []byte) (Gap, error) {
	if len(b) == 0 || b[0]&^gapPossible != 0 {
		return Gap{}, fmt.Errorf("%w: no known flags at byte 1 of %d", errGapBinary, len(b))
	}
	d := gapDecoder{rest: b[1:]}
	g := Gap{Possible: b[0]&gapPossible != 0}
	g.From = d.position()
	g.To = d.position()
	g.Count = d.varint()
	g.Bytes = d.varint()
	g.Reason = string(d.rest)
	if d.failed {
		return Gap{}, fmt.Errorf("%w: bad number at byte %d of %d", errGapBinary, len(b)-len(d.rest)+1, len(b))
	}
	return g, nil
}

// gapDecoder takes numbers off the front of rest until one of them is bad.
type gapDecoder struct {
	rest   []byte
	failed bool
}

func (d *gapDecoder) position() Position {
	p := Position{Epoch: d.uvarint(), Offset: d.uvarint()}
	check := d.uvarint()
	p.Check = uint32(check)
	d.failed = d.failed || check != uint64(p.Check)
	return p
}

func (d *gapDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	d.skip(n)
	return v
}

func (d *gapDecoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	d.skip(n)
	return v
}

// skip goes on after a number of n bytes; n <= 0 is how encoding/binary says that there was none.
func (d *gapDecoder) skip(n int) {
	if d.failed = d.failed || n <= 0; !d.failed {
		d.rest = d.rest[n:]
	}
}
