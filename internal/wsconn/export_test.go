package wsconn

import (
	"net"
	"syscall"
)

// NewConn reads from nc as if a handshake had come before.
func NewConn(nc net.Conn, o Options) *Conn { return newConn(nc, nil, o) }

// Inflate has the connection take compressed messages, as after a handshake that has agreed on them. It comes before the first Read.
func (c *Conn) Inflate() { c.inflate = true }

// Holds reports whether it holds memory for what it reads.
func (c *Conn) Holds() bool {
	return c.buffer != nil || len(c.in) > 2 || c.said != nil || c.msg.parts != nil
}

var Unmask = unmask

// OnWait has f called each time that Read begins to wait, on its goroutine. It reports false where Read waits for no descriptor.
func (c *Conn) OnWait(f func()) bool {
	if c.raw != nil {
		c.raw = waiting{c.raw, f}
	}
	return c.raw != nil
}

type waiting struct {
	syscall.RawConn
	begins func()
}

func (w waiting) Read(f func(fd uintptr) bool) error {
	return w.RawConn.Read(func(fd uintptr) bool {
		done := f(fd)
		if !done {
			w.begins()
		}
		return done
	})
}

// AcceptDeflate is the answer to a client's offers, for the fuzz target.
var AcceptDeflate = acceptDeflate
