//go:build unix

package fanout

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A rawSocket writes to a descriptor without blocking. syscall.RawConn.Write waits behind another one on the same
// descriptor: the turn makes sure that there is none.
type rawSocket struct {
	raw syscall.RawConn
	nc  net.Conn
}

// An attempt is one write, and what the kernel said to it. Those who write share a few: there are as many at a time as writers, and
// thousands of sockets.
type attempt struct {
	p   []byte
	n   int
	err error

	try, wait func(fd uintptr) bool // for RawConn.Write; kept, so that a write allocates nothing
	ask       func(fd uintptr)      // for RawConn.Control
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.try = func(fd uintptr) bool { a.write(fd); return true }
	a.wait, a.ask = a.write, a.room
	return a
}}

func newRawSocket(nc net.Conn, c syscall.Conn) Socket {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	boundQueue(raw)
	return &rawSocket{raw: raw, nc: nc}
}

// write reports whether the kernel gave an answer other than "not now".
func (a *attempt) write(fd uintptr) bool {
	for {
		n, err := send(int(fd), a.p)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		a.n, a.err = max(n, 0), err
		return true
	}
}

func (s *rawSocket) TryWrite(p []byte) (int, error) { return s.write(p, false) }

// WriteSome is Socket.WriteSome. A kernel takes nothing until a good part of its queue is free, which with a slow peer may
// take longer than timeout: as long as the peer acknowledges something, it is not stalled.
func (s *rawSocket) WriteSome(p []byte, timeout time.Duration) (int, error) {
	unacked, known := s.Unacked()
	for {
		if err := s.nc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return 0, err
		}
		n, err := s.write(p, true)
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

// write makes one attempt, which waits for room or does not.
func (s *rawSocket) write(p []byte, wait bool) (int, error) {
	a := attempts.Get().(*attempt)
	a.p, a.n, a.err = p, 0, nil
	f := a.try
	if wait {
		f = a.wait
	}
	err := s.raw.Write(f)
	n := a.n
	if err == nil {
		err = a.err
	}
	a.p, a.err = nil, nil
	attempts.Put(a)
	if err != nil {
		return 0, err
	}
	return n, nil
}
