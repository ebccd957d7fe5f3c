package wsconn

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

// A Conn reads the messages of one WebSocket. Read must not be called concurrently with itself or Discard, and Release and Linger
// not while what Read has returned is in use; all else may be called at any time.
//
// While nothing comes it holds no buffer.
type Conn struct {
	conn        net.Conn
	raw         syscall.RawConn // of conn; nil if it has to be read as a net.Conn
	pull        func(fd uintptr) bool
	subprotocol string
	control     func(op Opcode, payload []byte)
	limit       int64
	last        atomic.Int64 // when a byte was last read, in nanoseconds since 1970
	inflate     bool         // permessage-deflate was negotiated, with client_no_context_takeover

	// Read state, of the goroutine that is in Read.
	reading sync.Mutex // held during Read, for Release to wait for
	frame   frame
	msg     message
	in      []byte  // what was read and not taken yet
	buffer  *buffer // that in is a part of; nil if it is in none
	said    []byte  // of a control frame whose end has not come
	closing bool    // a Close frame has gone to control
	discard bool    // see Discard
	err     error   // what ended the reading

	mu       sync.Mutex // guards the read deadline and the rest
	released bool
	until    int64 // set by Expire, in nanoseconds since 1970; 0 is never
	due      int64 // when a control frame must have ended that has begun
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

// newConn reads from nc, after what was read of it before.
func newConn(nc net.Conn, ahead []byte, o Options) *Conn {
	c := &Conn{conn: nc, in: ahead, control: o.Control, limit: min(o.ReadLimit, 1<<40)}
	if c.limit <= 0 {
		c.limit = DefaultReadLimit
	}
	if c.raw = rawConn(nc); c.raw != nil {
		c.pull = c.readable
	}
	c.touch()
	return c
}

// NetConn returns the connection itself. Writing to it and closing it are the caller's; this package only reads, and sets read deadlines.
func (c *Conn) NetConn() net.Conn { return c.conn }

// Subprotocol returns the subprotocol that was agreed on, "" for none.
func (c *Conn) Subprotocol() string { return c.subprotocol }

// LastRead returns when a byte was last read from the connection; at first, when it was accepted.
func (c *Conn) LastRead() time.Time { return time.Unix(0, c.last.Load()) }

func (c *Conn) touch() { c.last.Store(time.Now().UnixNano()) }

// Compressed reports whether permessage-deflate was agreed on: the client reads messages that are marked with RSV1, each compressed
// by itself with a window of 32 KiB.
func (c *Conn) Compressed() bool { return c.inflate }

// Read waits for the next data message. Text is valid UTF-8. The data is only valid until the next Read.
//
// An error is final, and every later Read returns the same one. It is a *CloseError if the peer has sent a Close frame, a *ProtocolError
// if the peer broke the protocol or the limit, and else what the network reported: io.EOF, a *net.OpError, or net.ErrClosed after
// Release. In the first two cases Control has been given the Close frame to send. A message whose end has not come is never returned.
func (c *Conn) Read() (data []byte, binary bool, err error) {
	c.reading.Lock()
	c.msg.release()
	for c.err == nil {
		if data, binary, ok := c.take(); ok {
			c.reading.Unlock()
			return data, binary, nil
		}
		if c.err == nil {
			c.fill() // from here, since what a goroutine that waits has on its stack is what an idle connection costs
		}
	}
	c.drop()
	c.reading.Unlock()
	return nil, false, c.err
}

// Discard makes every later Read return an empty message for one that was sent whole, and unpack nothing: what a peer still sends that has
// been told to close must not cost more than its bytes. It must not be called concurrently with Read.
func (c *Conn) Discard() { c.discard = true }

// drop lets go of all that was read.
func (c *Conn) drop() {
	c.giveBack()
	c.in, c.said, c.msg.open = nil, nil, false
	c.msg.release()
}

// fail ends the reading because of a fault of the peer's, which gets a Close frame that says so.
func (c *Conn) fail(code int, format string, args ...any) {
	reason := validReason(fmt.Sprintf(format, args...))
	c.err = &ProtocolError{code, reason}
	c.sendClose(ClosePayload(code, reason))
}

// sendClose hands a Close frame to Options.Control, the first time.
func (c *Conn) sendClose(payload []byte) {
	if !c.closing {
		c.closing = true
		c.tell(OpClose, payload)
	}
}

func (c *Conn) tell(op Opcode, payload []byte) {
	if c.control != nil {
		c.control(op, payload)
	}
}

// answer does what a control frame asks for.
func (c *Conn) answer(op Opcode, payload []byte) {
	switch op {
	case OpPing:
		c.tell(OpPong, payload)
	case OpClose:
		c.closed(payload)
	}
}

// closed ends the reading because of the peer's Close frame.
func (c *Conn) closed(payload []byte) {
	code, reason := ParseClose(payload)
	switch {
	case len(payload) == 1:
		c.fail(1002, "received invalid close payload: close payload %q too small, cannot even contain the 2 byte status code", payload)
	case len(payload) > 0 && !validCode(code):
		c.fail(1002, "received invalid close payload: invalid status code %s", codeName(code))
	case !utf8.ValidString(reason): // an echo would break the protocol too
		c.err = &CloseError{code, validReason(reason)}
		c.sendClose(ClosePayload(1007, "the reason of the Close frame is not valid UTF-8"))
	default:
		c.err = &CloseError{code, reason}
		c.sendClose(payload)
	}
}

// Expire sets when a Read that has not returned is to fail, and every later one: when the peer's time to answer a Close frame is over,
// for one.
func (c *Conn) Expire(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.released {
		c.until = at.UnixNano()
		c.setDeadline()
	}
}

// setDeadline sets the earlier one of until and due; mu is held.
func (c *Conn) setDeadline() {
	at := c.until
	if c.due != 0 && (at == 0 || c.due < at) {
		at = c.due
	}
	if at == 0 {
		c.conn.SetReadDeadline(time.Time{})
	} else {
		c.conn.SetReadDeadline(time.Unix(0, at))
	}
}

// controlTime is how long the rest of a control frame may take. It is no longer than what a packet holds.
const controlTime = 5 * time.Second

// hurry gives the control frame that has begun its time.
func (c *Conn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.released && c.due == 0 {
		c.due = time.Now().Add(controlTime).UnixNano()
		c.setDeadline()
	}
}

// relax is called when the control frame has ended.
func (c *Conn) relax() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.released {
		c.due = 0
		c.setDeadline()
	}
}

// Release makes Read fail with net.ErrClosed, the one in progress too, for which it waits. It leaves NetConn open
// and without a read deadline. Further calls do nothing.
func (c *Conn) Release() {
	c.mu.Lock()
	first := !c.released
	c.released = true
	if first {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	c.mu.Unlock()
	c.reading.Lock()
	defer c.reading.Unlock()
	if !first {
		return
	}
	if c.err == nil {
		c.err = net.ErrClosed
	}
	c.drop()
	c.conn.SetReadDeadline(time.Time{})
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
