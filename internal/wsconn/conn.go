package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// A Conn reads the messages of one WebSocket. Read must not be called concurrently with itself; all else may be called at any time.
type Conn struct {
	lib   *library
	tap   *tap
	limit int64

	compressed bool // permessage-deflate was agreed on

	// Read state, of the goroutine that is in Read.
	buf     []byte
	err     error // what ended the reading
	control func(op Opcode, payload []byte)
	closing int // the code of the Close frame that went to control; 0 for none
	reason  string

	release  sync.Once
	released atomic.Bool
}

// A CloseError is the peer's Close frame. Code is 1005 if it had none.
type CloseError struct {
	Code   int
	Reason string // valid UTF-8, at most 123 bytes
}

func (e *CloseError) Error() string {
	return fmt.Sprintf("the peer closed the WebSocket with %d %q", e.Code, e.Reason)
}

// A ProtocolError says that the peer broke the protocol or a limit, and with which Close frame the connection is to end.
type ProtocolError struct {
	Code   int
	Reason string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("the peer broke the WebSocket protocol: %d %s", e.Code, e.Reason)
}

const (
	keepBuffer  = 4 << 10 // what a Conn keeps of its message buffer from one message to the next
	firstBuffer = 512
)

func newConn(o Options) *Conn {
	c := &Conn{control: o.Control, limit: min(o.ReadLimit, 1<<40)}
	if c.limit <= 0 {
		c.limit = DefaultReadLimit
	}
	c.tap = &tap{base: time.Now(), emit: c.outgoing}
	return c
}

// NetConn returns the connection itself. Writing to it and closing it are the caller's; this package only reads, and sets read deadlines.
func (c *Conn) NetConn() net.Conn { return c.tap.Conn }

// Subprotocol returns the subprotocol that was agreed on, "" for none.
func (c *Conn) Subprotocol() string { return c.lib.Subprotocol() }

// Compressed reports whether permessage-deflate was agreed on: the client reads messages that are marked with RSV1, each compressed
// by itself with a window of 32 KiB.
func (c *Conn) Compressed() bool { return c.compressed }

// LastRead returns when a byte was last read from the connection; at first, when it was accepted. It has a monotonic part, so that
// time.Since tells how long the peer has been silent.
func (c *Conn) LastRead() time.Time { return c.tap.base.Add(time.Duration(c.tap.last.Load())) }

// Read waits for the next data message. Text is valid UTF-8. The data is only valid until the next Read.
//
// An error is final, and every later Read returns the same one. It is a *CloseError if the peer has sent a Close frame, a *ProtocolError
// if the peer broke the protocol or the limit, and else what the network reported: io.EOF, a *net.OpError, or net.ErrClosed after
// Release. In the first two cases Control has been given the Close frame to send. A message whose end has not come is never returned.
func (c *Conn) Read() (data []byte, binary bool, err error) {
	if c.err != nil {
		return nil, false, c.err
	}
	if data, binary, err = c.read(); err != nil {
		c.err, c.buf = c.verdict(err), nil
		return nil, false, c.err
	}
	return data, binary, nil
}

func (c *Conn) read() (data []byte, binary bool, err error) {
	if cap(c.buf) > keepBuffer {
		c.buf = nil
	}
	typ, r, err := c.lib.Reader(context.Background())
	if err != nil {
		return nil, false, err
	}
	c.tap.allow(2*c.limit + 64<<10)
	defer c.tap.allow(0)
	b := c.buf[:0]
	binary, checked := typ == libraryBinary, 0
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, max(firstBuffer, len(b)))
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF && c.tap.err == nil {
			break
		}
		if err != nil {
			// The library reports a connection that ends inside a message as io.EOF too, as if the message were whole.
			return nil, false, err
		}
		if !binary {
			whole := len(b) - startedRune(b[checked:])
			if !utf8.Valid(b[checked:whole]) {
				return nil, false, c.badText()
			}
			checked = whole
		}
	}
	if c.buf = b; !binary && checked < len(b) {
		return nil, false, c.badText()
	}
	return b, binary, nil
}

func (c *Conn) badText() error {
	c.outgoing(OpClose, ClosePayload(1007, errText.Error()))
	return errText
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

var errText = errors.New("text that is not valid UTF-8")

// verdict makes of the library's error the one that Read returns, and sees to it that the peer gets the Close frame that it is due.
func (c *Conn) verdict(err error) error {
	if code, reason, ok := libraryClose(err); ok {
		return &CloseError{code, validReason(reason)}
	}
	switch {
	case c.closing != 0:
		// The library has found the fault and sent a Close for it.
	case c.released.Load():
		return net.ErrClosed
	case c.tap.err == errFlood:
		c.outgoing(OpClose, ClosePayload(1008, "too many fragments for one message"))
	case c.tap.err == errLength:
		c.outgoing(OpClose, ClosePayload(1002, errLength.Error()))
	case c.tap.err != nil:
		return c.tap.err
	case c.tap.shut.Load():
		c.outgoing(OpClose, ClosePayload(1002, "a control frame was not finished in time"))
	default:
		// There is nothing wrong with the network. The library sends no Close frame for some faults, such as a frame without a mask.
		c.outgoing(OpClose, ClosePayload(1002, innermostText(err)))
	}
	return &ProtocolError{c.closing, c.reason}
}

// innermostText returns the text of the error that the library's many layers wrap.
func innermostText(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// outgoing takes a control frame that the library wrote, or should have written, to Options.Control. Of Close frames only the first goes on.
func (c *Conn) outgoing(op Opcode, payload []byte) {
	if op == OpClose {
		if c.closing != 0 {
			return
		}
		code, reason := ParseClose(payload)
		switch {
		case code == 1009:
			reason = fmt.Sprintf("a message may have %d bytes", c.limit) // The library's text is off by one.
			payload = ClosePayload(code, reason)
		case !utf8.ValidString(reason):
			code, reason = 1007, "the reason of the Close frame is not valid UTF-8" // An echo would break the protocol too.
			payload = ClosePayload(code, reason)
		}
		c.closing, c.reason = code, reason
	}
	if c.control != nil {
		c.control(op, payload)
	}
}

// Release ends the library's goroutine and waits for it and for a Read in progress, which returns net.ErrClosed. It leaves NetConn open
// and without a read deadline. Further calls do nothing.
func (c *Conn) Release() {
	c.release.Do(func() {
		c.released.Store(true)
		c.lib.CloseNow()
		c.tap.Conn.SetReadDeadline(time.Time{})
	})
}

// Linger calls Release, tells the peer that nothing more will be sent, where the connection has a CloseWrite, and then reads and
// discards what the peer still sends until it has closed, wait has passed, or limit bytes have come. The caller closes NetConn after it.
//
// It is for the end of a connection whose peer may be sending: closing a TCP socket with bytes unread makes the kernel send a reset,
// and a reset can destroy the Close frame before the peer has read it.
func (c *Conn) Linger(wait time.Duration, limit int64) {
	c.Release()
	conn := c.NetConn()
	conn.SetReadDeadline(time.Now().Add(wait))
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() != nil {
			return
		}
	}
	io.CopyN(io.Discard, conn, limit)
}
