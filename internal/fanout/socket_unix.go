//go:build unix

package fanout

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// A rawSocket writes to a descriptor without blocking. syscall.RawConn.Write waits behind another one on the same
// descriptor: the turn makes sure that there is none.
type rawSocket struct {
	nc   net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) bool // kept, so that a write allocates nothing
	wait func(fd uintptr) bool

	p   []byte
	n   int
	err error
}

func newRawSocket(nc net.Conn, c syscall.Conn) Socket {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	s := &rawSocket{nc: nc, raw: raw}
	s.try = func(fd uintptr) bool { s.write(fd); return true }
	s.wait = func(fd uintptr) bool { return s.write(fd) }
	boundQueue(raw)
	return s
}

// write reports whether the kernel gave an answer other than "not now".
func (s *rawSocket) write(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), s.p)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		s.n, s.err = max(n, 0), err
		return true
	}
}

func (s *rawSocket) TryWrite(p []byte) (int, error) { return s.do(s.try, p) }

// WriteSome is Socket.WriteSome. A kernel takes nothing until a good part of its queue is free, which with a slow peer may
// take longer than timeout: as long as the peer acknowledges something, it is not stalled.
func (s *rawSocket) WriteSome(p []byte, timeout time.Duration) (int, error) {
	unacked, known := s.Unacked()
	for {
		if err := s.nc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return 0, err
		}
		n, err := s.do(s.wait, p)
		if err == nil { // a deadline that has passed would fail the next TryWrite
			return n, s.nc.SetWriteDeadline(time.Time{})
		}
		now, ok := s.Unacked()
		if !errors.Is(err, os.ErrDeadlineExceeded) || !known || !ok || now >= unacked {
			return n, err
		}
		unacked = now
	}
}

func (s *rawSocket) do(f func(uintptr) bool, p []byte) (int, error) {
	s.p, s.n, s.err = p, 0, nil
	err := s.raw.Write(f)
	s.p = nil
	if err != nil {
		return 0, err
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.n, nil
}
