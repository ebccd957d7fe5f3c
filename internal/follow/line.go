package follow

import (
	"bytes"
	"unicode/utf8"
)

// A Line is one line of the file, a piece of a line that is longer than MaxLine, or a declared loss.
type Line struct {
	Data    []byte   // without its end, "\n" or "\r\n"; valid only until emit returns
	Pos     Position // the place after the line
	Partial bool     // cut at MaxLine, and goes on in the next Line; or its rest may be in the Gap that follows
	Gap     *Gap     // a declared loss; then Data is nil and Pos is zero
}

// cutLine finds the first line in b: size bytes, of which the first n are its data. Size 0 means that b does not tell yet.
// The answer depends only on the bytes from here on and never on how many of them have arrived, so that a replay cuts
// where the live stream did. Final says that nothing follows b: what is left is a line then.
func cutLine(b []byte, maxLine int, final bool) (n, size int, partial bool) {
	// A line of maxLine bytes that ends in "\r\n" is not too long, so it takes two bytes more to know.
	window := b[:min(len(b), maxLine+2)]
	if i := bytes.IndexByte(window, '\n'); i >= 0 {
		n = i
		if i > 0 && b[i-1] == '\r' {
			n--
		}
		if n <= maxLine {
			return n, i + 1, false
		}
	} else if len(b) < maxLine+2 && (!final || len(b) <= maxLine) {
		if final {
			return len(b), len(b), false
		}
		return 0, 0, false
	}
	n = runeBoundary(b, maxLine)
	return n, n, true
}

// shortLine is cutLine for most lines: those that are complete and too short for a hole.
func shortLine(b []byte) (n, size int, partial bool) {
	n = bytes.IndexByte(b[:min(len(b), holeSize)], '\n')
	if n < 0 {
		return 0, 0, false
	}
	if size = n + 1; n > 0 && b[n-1] == '\r' {
		n--
	}
	return n, size, false
}

// runeBoundary is the last place in b, at most n, where no rune is cut in two. Where b is not UTF-8 it is n.
func runeBoundary(b []byte, n int) int {
	for i := n; i > 0 && i > n-utf8.UTFMax; i-- {
		if !utf8.RuneStart(b[i]) {
			continue
		}
		if i < n && !utf8.FullRune(b[i:n]) {
			return i
		}
		return n
	}
	return n
}
