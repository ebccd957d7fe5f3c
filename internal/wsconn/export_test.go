package wsconn

import "net"

// NewConn reads from nc as if a handshake had come before.
func NewConn(nc net.Conn, o Options) *Conn { return newConn(nc, nil, o) }

// Inflate has the connection take compressed messages, as after a handshake that has agreed on them. It comes before the first Read.
func (c *Conn) Inflate() { c.inflate = true }

// Holds reports whether it holds memory for what it reads.
func (c *Conn) Holds() bool {
	return c.buffer != nil || c.in != nil || c.said != nil || c.msg.parts != nil
}

var Unmask = unmask
