package wire

import "unicode/utf8"

// AppendText appends r for a client that reads plain text: its bytes as they are and a newline. A Partial record gets no newline,
// so that the pieces of a long line print as the one line that they are; whoever puts another topic's text or a gap after such a
// piece must end the line first. A Gap becomes its GapLine.
func AppendText(dst []byte, r *Record) []byte {
	if r.Gap != nil {
		return append(AppendGapLine(dst, r.Gap), '\n')
	}
	dst = append(dst, r.Data...)
	if r.Partial {
		return dst
	}
	return append(dst, '\n')
}

// appendValid appends s with U+FFFD in place of every byte that is not part of a valid encoding.
func appendValid(dst, s []byte) []byte {
	for {
		n := validPrefix(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return dst
		}
		dst = append(dst, "\uFFFD"...)
		s = s[n+1:]
	}
}

// validPrefix returns how many bytes of s stand before its first byte that is not UTF-8, len(s) if there is none. utf8.Valid goes
// first because it takes eight bytes at a time, and it too ends at that byte, so a call costs what it returns.
func validPrefix(s []byte) int {
	if utf8.Valid(s) {
		return len(s)
	}
	n := 0
	for n < len(s) {
		c, size := utf8.DecodeRune(s[n:])
		if c == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}
