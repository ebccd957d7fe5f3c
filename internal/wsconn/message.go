package wsconn

import (
	"slices"
	"sync"
	"unicode/utf8"
)

// A message is the one that is being read, or was returned last.
type message struct {
	binary, deflated bool
	open             bool  // its last frame has not ended
	length           int64 // of its frames' payload so far, that of the last one included
	cost             int64 // bytes beside that
	parts            *parts
}

// parts is what has come of a message, where it has not come at once.
type parts struct {
	b       []byte
	checked int    // bytes of b that are known to be UTF-8
	out     []byte // what b unpacks to
}

// keepParts is how large memory may be that is kept for other messages.
const keepParts = 64 << 10

var partsPool = sync.Pool{New: func() any { return new(parts) }}

func (m *message) begin(binary, deflated bool) {
	*m = message{binary: binary, deflated: deflated, open: true, parts: m.parts}
}

// release lets go of the memory of a message that has been returned.
func (m *message) release() {
	if m.parts == nil || m.open {
		return
	}
	p := m.parts
	m.parts = nil
	if cap(p.b) <= keepParts && cap(p.out) <= keepParts {
		*p = parts{b: p.b[:0], out: p.out[:0]}
		partsPool.Put(p)
	}
}

func (m *message) need() *parts {
	if m.parts == nil {
		m.parts = partsPool.Get().(*parts)
	}
	return m.parts
}

// empty reports whether nothing has come of it.
func (m *message) empty() bool { return m.parts == nil || len(m.parts.b) == 0 }

// size is how many bytes have come of it.
func (m *message) size() int {
	if m.parts == nil {
		return 0
	}
	return len(m.parts.b)
}

// room returns where the next bytes of it go, n at least. What is read there is to be added as anything else.
func (m *message) room(n int) []byte {
	p := m.need()
	p.b = slices.Grow(p.b, n)
	return p.b[len(p.b):cap(p.b)]
}

// add returns all that has come of it.
func (m *message) add(b []byte) []byte {
	p := m.need()
	p.b = append(p.b, b...)
	return p.b
}

// valid reports whether what has come of a text may be the beginning of one.
func (m *message) valid() bool {
	if m.binary || m.deflated {
		return true
	}
	p := m.parts
	whole := len(p.b) - startedRune(p.b[p.checked:])
	if !utf8.Valid(p.b[p.checked:whole]) {
		return false
	}
	p.checked = whole
	return true
}

// validEnd reports whether data is a text, or need not be. What was found valid of it is not looked at again.
func (m *message) validEnd(data []byte) bool {
	if m.binary {
		return true
	}
	if m.parts != nil && !m.deflated {
		data = data[m.parts.checked:]
	}
	return utf8.Valid(data)
}

// startedRune returns how many bytes at the end of p may be the beginning of a rune whose rest is still to come.
func startedRune(p []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(p); n++ {
		if last := p[len(p)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				break
			}
			return n
		}
	}
	return 0
}
