package fanout

import (
	"net"
	"time"
)

// A Socket is the write side of a connection. Only the goroutine that has the connection's turn uses it.
type Socket interface {
	// TryWrite takes what it can of p without blocking. n < len(p) with a nil error means that it would block.
	TryWrite(p []byte) (n int, err error)
	// WriteSome blocks until it took at least one byte of p. It returns an error that matches os.ErrDeadlineExceeded when
	// it took none within timeout.
	WriteSome(p []byte, timeout time.Duration) (n int, err error)
}

// An unackedSocket can tell how many bytes the peer's kernel has not acknowledged yet.
type unackedSocket interface {
	Unacked() (n int, ok bool)
}

// NewSocket returns the write side of nc, and whether TryWrite is of use: where it is not (TLS, anything without a
// descriptor of its own), a goroutine writes. A conn that has the methods of Socket itself is used as it is.
func NewSocket(nc net.Conn) (s Socket, direct bool) {
	if s, ok := nc.(Socket); ok {
		return s, true
	}
	// Only the plain types: a type that embeds one of them may mean to see each Write.
	switch c := nc.(type) {
	case *net.TCPConn:
		if s := newRawSocket(c, c); s != nil {
			return s, true
		}
	case *net.UnixConn:
		if s := newRawSocket(c, c); s != nil {
			return s, true
		}
	}
	return newBlockingSocket(nc), false
}

// A blockingSocket writes through net.Conn. TLS learns of progress only after a whole record, so it gets no more at a time.
type blockingSocket struct {
	nc    net.Conn
	below unackedSocket // of the descriptor under TLS; nil if there is none
}

const tlsRecord = 16 << 10

func newBlockingSocket(nc net.Conn) *blockingSocket {
	s := &blockingSocket{nc: nc}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		if below, direct := NewSocket(t.NetConn()); direct {
			s.below, _ = below.(unackedSocket)
		}
	}
	return s
}

func (s *blockingSocket) TryWrite([]byte) (int, error) { return 0, nil }

func (s *blockingSocket) WriteSome(p []byte, timeout time.Duration) (int, error) {
	if err := s.nc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	n, err := s.nc.Write(p[:min(len(p), tlsRecord)])
	if n > 0 {
		return n, nil
	}
	return n, err
}

// Unacked asks the connection under TLS.
func (s *blockingSocket) Unacked() (int, bool) {
	if s.below == nil {
		return 0, false
	}
	return s.below.Unacked()
}
