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
type blockingSocket struct {
	nc    net.Conn
	below Socket      // of the descriptor under TLS; nil if there is none
	room  roomySocket // the same, where TryWrite is of use; else nil
	until time.Time   // the deadline that there is; zero = none
}

const tlsRecord = 16 << 10

func newBlockingSocket(nc net.Conn) (s *blockingSocket, direct bool) {
	s = &blockingSocket{nc: nc}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc := t.NetConn()
		if below, ok := NewSocket(nc); ok {
			s.below = below
			if _, unix := nc.(*net.UnixConn); !unix { // whose queue the kernel counts in another way
				s.room, direct = below.(roomySocket)
			}
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
	)
	if s.room == nil {
		return 0, nil
	}
	for room := s.room.Room() - keep; n < len(p); {
		piece := p[n:min(n+tlsRecord, len(p))]
		if room -= each + spread*len(piece); room < 0 {
			return n, nil
		}
		if err := s.bound(); err != nil {
			return n, err
		}
		m, err := s.nc.Write(piece)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// A Write that should not wait, and does, has to end between these times.
const leastBound, mostBound = 5 * time.Second, 10 * time.Second

// bound sees to it that a Write returns one day that should not wait and does, as when the whole system is short of memory.
func (s *blockingSocket) bound() error {
	now := time.Now()
	if left := s.until.Sub(now); left > leastBound && left <= mostBound {
		return nil
	}
	s.until = now.Add(mostBound)
	return s.nc.SetWriteDeadline(s.until)
}

// unbind takes back a deadline that has no more left than that, so that it does not fail what TLS has to say by itself: it answers
// a peer who wants new keys, from the goroutine that reads, and if that fails the connection is lost.
func (s *blockingSocket) unbind(left time.Duration) {
	if !s.until.IsZero() && time.Until(s.until) <= left {
		s.until = time.Time{}
		_ = s.nc.SetWriteDeadline(s.until) // else the next Write fails
	}
}

func (s *blockingSocket) WriteSome(p []byte, timeout time.Duration) (int, error) {
	s.until = time.Now().Add(timeout)
	if err := s.nc.SetWriteDeadline(s.until); err != nil {
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
	if below, ok := s.below.(unackedSocket); ok {
		return below.Unacked()
	}
	return 0, false
}
