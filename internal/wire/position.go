package wire

import (
	"errors"
	"fmt"
	"strconv"
)

// Position is a place in a topic's log. Positions are compared for equality only: their order is the topic's.
//
// Its text form is opaque to clients, canonical (one text for each value), and ASCII without spaces, commas, or equals signs:
//
//	latest          the zero Position: after the newest message
//	earliest        {0, 1, 0}: before the oldest message that can still be had
//	1abc.zz         version 1, epoch and offset in base 36
//	1abc.zz.1x2y3z  the same with a check, if that is not zero
//
// All other Positions with Epoch 0 are invalid.
type Position struct {
	Epoch  uint64
	Offset uint64
	Check  uint32
}

// Earliest is the Position before the oldest message that can still be had.
func Earliest() Position { return Position{Offset: 1} }

// maxPosition is the length of the longest text form: the version, two numbers of 64 bits, one of 32, and two dots.
const maxPosition = 1 + 13 + 1 + 13 + 1 + 7

// IsZero reports whether p is the zero Position, the one that is written "latest".
func (p Position) IsZero() bool { return p == Position{} }

// Valid reports whether p has a text form that ParsePosition accepts.
func (p Position) Valid() bool { return p.Epoch != 0 || p.IsZero() || p == Earliest() }

// String returns the text form.
func (p Position) String() string { return string(p.Append(make([]byte, 0, maxPosition))) }

// Append appends the text form. An invalid Position is written as its numbers say, so that it can be seen in a message;
// ParsePosition refuses that text.
func (p Position) Append(dst []byte) []byte {
	switch p {
	case Position{}:
		return append(dst, "latest"...)
	case Earliest():
		return append(dst, "earliest"...)
	}
	dst = append(dst, '1')
	dst = strconv.AppendUint(dst, p.Epoch, 36)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, p.Offset, 36)
	if p.Check != 0 {
		dst = append(dst, '.')
		dst = strconv.AppendUint(dst, uint64(p.Check), 36)
	}
	return dst
}

// ParsePosition reads a text form. Only what Append writes for a valid Position is accepted. The error is a sentence that is fit
// for the client who sent s: it quotes at most 40 bytes of s, escaped, and counts bytes from 1.
func ParsePosition(s string) (Position, error) {
	switch s {
	case "":
		return Position{}, errors.New("position is empty")
	case "latest":
		return Position{}, nil
	case "earliest":
		return Earliest(), nil
	}
	if len(s) > maxPosition {
		return Position{}, fmt.Errorf("position %s is %d bytes long, more than the %d that any can have", quote(s), len(s), maxPosition)
	}
	if s[0] != '1' {
		return Position{}, fmt.Errorf("position %s begins with %s at byte 1, want latest, earliest, or the version character 1", quote(s), quote(s[:1]))
	}
	return parseNumbers(s)
}

// parseNumbers reads what follows the version character in s.
func parseNumbers(s string) (Position, error) {
	epoch, i, err := parseNumber(s, 1, "epoch", 64)
	if err != nil {
		return Position{}, err
	}
	if epoch == 0 {
		return Position{}, fmt.Errorf("position %s has epoch 0 at byte 2, which is never given out", quote(s))
	}
	if i == len(s) {
		return Position{}, fmt.Errorf("position %s ends at byte %d, after its epoch, want a dot and an offset", quote(s), i)
	}
	offset, i, err := parseNumber(s, i+1, "offset", 64)
	if err != nil || i == len(s) {
		return Position{Epoch: epoch, Offset: offset}.unless(err)
	}
	start := i + 1
	check, i, err := parseNumber(s, start, "check", 32)
	if err == nil && check == 0 {
		err = fmt.Errorf("position %s has check 0 at byte %d, which is left out when it is 0", quote(s), start+1)
	}
	if err == nil && i < len(s) {
		err = fmt.Errorf("position %s goes on after its check at byte %d, want its end", quote(s), i+1)
	}
	return Position{Epoch: epoch, Offset: offset, Check: uint32(check)}.unless(err)
}

// unless returns p, or the zero Position beside an error.
func (p Position) unless(err error) (Position, error) {
	if err != nil {
		return Position{}, err
	}
	return p, nil
}

// parseNumber reads a base 36 number of s that begins at start and ends before a dot or at the end of s, where it returns the
// index. strconv.ParseUint is too generous here: it accepts upper case and leading zeros, so one place would have many names.
func parseNumber(s string, start int, name string, bits int) (n uint64, i int, err error) {
	limit := uint64(1)<<bits - 1 // for 64 bits the shift gives 0, and so the limit is the largest uint64
	for i = start; i < len(s) && s[i] != '.'; i++ {
		digit, ok := base36(s[i])
		switch {
		case !ok:
			return 0, i, fmt.Errorf("position %s has %s at byte %d of its %s, want 0-9 or a-z", quote(s), quote(s[i:i+1]), i+1, name)
		case i == start+1 && s[start] == '0':
			return 0, i, fmt.Errorf("position %s has a leading 0 at byte %d in its %s, which is never written", quote(s), start+1, name)
		case n > (limit-digit)/36:
			return 0, i, fmt.Errorf("position %s has more than %d bits in its %s at byte %d", quote(s), bits, name, start+1)
		}
		n = n*36 + digit
	}
	if i == start {
		return 0, i, fmt.Errorf("position %s has no %s at byte %d, want 0-9 or a-z", quote(s), name, start+1)
	}
	return n, i, nil
}

func base36(c byte) (digit uint64, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0'), true
	case 'a' <= c && c <= 'z':
		return uint64(c-'a') + 10, true
	}
	return 0, false
}

// quote quotes what a client sent for a message to it: escaped, and short however long it is.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
