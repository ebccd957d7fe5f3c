package client

import (
	"bytes"
	"fmt"
	"io"
)

const (
	usualBuffer = 64 << 10
	largeBuffer = 1 << 20 // one that is not kept when what needed it is over
)

// lines reads whole lines, as many at a time as there are.
type lines struct {
	r   io.Reader
	max int // bytes of a line

	buf  []byte
	done int // of buf, what next has returned
	end  int // of buf, what has been read
	err  error
}

// next returns at least one line, with its end. It is valid until the next call, and the caller's to change. A last line without an end
// was cut off, and is dropped.
func (l *lines) next() ([]byte, error) {
	l.end = copy(l.buf, l.buf[l.done:l.end])
	l.done = 0
	if cap(l.buf) > largeBuffer && l.end <= usualBuffer {
		l.buf = append(make([]byte, 0, usualBuffer), l.buf[:l.end]...)
	}
	for seen := 0; ; {
		if n := bytes.LastIndexByte(l.buf[seen:l.end], '\n'); n >= 0 {
			l.done = seen + n + 1
			return l.buf[:l.done], nil
		}
		seen = l.end
		switch {
		case l.err != nil:
			return nil, l.err
		case l.end > l.max:
			return nil, finalError{permanentError{fmt.Errorf("a line is longer than %d bytes: see WithMaxLine", l.max)}}
		}
		l.read()
	}
}

func (l *lines) read() {
	if l.end == cap(l.buf) {
		l.buf = append(make([]byte, 0, min(max(2*l.end, usualBuffer), l.max+1)), l.buf[:l.end]...)
	}
	l.buf = l.buf[:cap(l.buf)]
	var n int
	n, l.err = l.r.Read(l.buf[l.end:min(len(l.buf), max(l.end, l.max)+1)])
	l.end += n
}
