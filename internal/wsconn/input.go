package wsconn

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// A buffer is what is read into. A connection has one only while there is something in it, or a frame has begun.
type buffer [4 << 10]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// readMost bounds one call of the system.
const readMost = 1 << 20

// fill waits until there is something in c.in, or else sets c.err.
func (c *Conn) fill() {
	c.giveBack()
	if c.frame.whole && c.frame.op.control() {
		c.hurry()
	}
	if err := c.wait(); err != nil {
		c.giveBack()
		c.err = c.verdict(err)
	}
}

// wait reads something. It says what the network says.
func (c *Conn) wait() error {
	if c.raw == nil {
		n, err := c.conn.Read(c.room(true))
		return c.got(n, err)
	}
	if err := c.raw.Read(c.pull); err != nil {
		return asRead(err)
	}
	err := c.err
	c.err = nil
	return err
}

// readable is called with the descriptor when there may be something to read, and reports whether there was. It keeps no buffer
// while there is not.
func (c *Conn) readable(fd uintptr) bool {
	n, again, err := readDescriptor(fd, c.room(false))
	if again {
		c.giveBack()
		return false
	}
	if err != nil {
		err = c.fault(os.NewSyscallError("read", err))
	} else if n == 0 {
		err = io.EOF
	}
	c.err = c.got(n, err) // wait takes it back
	return true
}

// fault is what a Read of the connection would have reported.
func (c *Conn) fault(err error) error {
	op := &net.OpError{Op: "read", Source: c.conn.LocalAddr(), Addr: c.conn.RemoteAddr(), Err: err}
	if op.Source != nil {
		op.Net = op.Source.Network()
	}
	return op
}

// asRead names what was done to a descriptor as a Read would.
func asRead(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		op.Op = "read"
	}
	return err
}

// room is where the next bytes go. They come in c.in.
func (c *Conn) room(blocks bool) []byte {
	f := &c.frame
	switch {
	case f.whole && !f.op.control() && f.left >= int64(len(buffer{})):
		// Into the message itself, and nothing of what follows. What the peer says of the length is not believed before it comes.
		b := c.msg.room(int(min(f.left, int64(max(len(buffer{}), c.msg.size())))))
		c.in = b[:min(int64(len(b)), f.left, readMost)]
	case blocks && !f.begun():
		// An idle connection waits with these. What comes with them is read next, without waiting: no frame has two bytes.
		c.in = f.head[:2]
	default:
		c.buffer = buffers.Get().(*buffer)
		c.in = c.buffer[:]
	}
	return c.in
}

// got takes note of what was read.
func (c *Conn) got(n int, err error) error {
	c.in = c.in[:max(n, 0)]
	if n > 0 {
		c.touch()
		return nil // an error that came with the bytes comes again
	}
	return err
}

// giveBack lets go of the buffer, which has nothing in it any more.
func (c *Conn) giveBack() {
	c.in = nil
	if c.buffer != nil {
		buffers.Put(c.buffer)
		c.buffer = nil
	}
}

// verdict makes of what the network reported the error that Read returns.
func (c *Conn) verdict(err error) error {
	c.mu.Lock()
	released := c.released
	late := c.due != 0 && (c.until == 0 || c.due <= c.until)
	c.mu.Unlock()
	switch {
	case released:
		return net.ErrClosed
	case late && errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(1002, "a control frame was not finished in time")
		return c.err
	}
	return err
}
