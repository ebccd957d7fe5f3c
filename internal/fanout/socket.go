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

// A roomySocket can tell how much memory of the kernel's writes may still take before one of them waits; 0 where that is not certain.
type roomySocket interface {
	Room() int
}

// NewSocket returns the write side of nc, and whether TryWrite is of use: where it is not (anything without a descriptor of its own,
// and TLS where the kernel does not tell how much room there is), a goroutine writes. A conn that has the methods of Socket itself
// is used as it is.
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
	return newBlockingSocket(nc)
}

// A blockingSocket writes through net.Conn. TLS learns of progress only after a whole record, so it gets no more at a time.
//
// No deadline stays behind: who reads from TLS answers a peer that wants new keys, and fails all later writes where that fails.
type blockingSocket struct {
	nc    net.Conn
	below Socket // of the descriptor under TLS; nil if there is none
	room  int    // what is left of what the kernel had room for when it was asked
}

const tlsRecord = 16 << 10

func newBlockingSocket(nc net.Conn) (s *blockingSocket, direct bool) {
	s = &blockingSocket{nc: nc}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		if below, ok := NewSocket(t.NetConn()); ok {
			s.below = below
			_, direct = below.(roomySocket)
		}
	}
	return s, direct
}

// TryWrite writes what the kernel has room for: then Write does not wait. To hand each message to a goroutine costs more than to
// encrypt it.
func (s *blockingSocket) TryWrite(p []byte) (n int, err error) {
	const (
		spread = 3       // TLS makes records of little more than 1 KiB at first, and the kernel needs as much again for each
		each   = 3 << 10 // what the kernel needs for the smallest one
		keep   = 4 << 10 // for what the reading side may have to say: an alert, or new keys
		most   = 10 * time.Second
	)
	below, ok := s.below.(roomySocket)
	if !ok {
		return 0, nil
	}
	for n < len(p) {
		piece := p[n:min(n+tlsRecord, len(p))]
		need := each + spread*len(piece)
		if s.room < need {
			if s.room = below.Room() - keep; s.room < need {
				return n, nil
			}
		}
		s.room -= need
		m, err := s.write(piece, most) // it should not wait; but it may, as when the whole system is short of memory
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *blockingSocket) WriteSome(p []byte, timeout time.Duration) (int, error) {
	s.room = 0
	n, err := s.write(p[:min(len(p), tlsRecord)], timeout)
	if n > 0 {
		return n, nil
	}
	return n, err
}

// write is a Write that returns within timeout.
func (s *blockingSocket) write(p []byte, timeout time.Duration) (n int, err error) {
	if err := s.nc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	if n, err = s.nc.Write(p); err != nil {
		return n, err
	}
	return n, s.nc.SetWriteDeadline(time.Time{})
}

// Unacked asks the connection under TLS.
func (s *blockingSocket) Unacked() (int, bool) {
	if below, ok := s.below.(unackedSocket); ok {
		return below.Unacked()
	}
	return 0, false
}
