package fanout

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentLimit bounds what the kernel takes of a connection before the peer has made room for it. Without it a stalled
// viewer holds megabytes of kernel memory, and a Close frame has to wait behind them: nothing overtakes what the kernel
// has accepted. (TCP_NOTSENT_LOWAT counts bytes that were not sent yet; what is in flight comes on top.)
const unsentLimit = 128 << 10

func boundQueue(raw syscall.RawConn) {
	// A unix socket refuses it, and needs it not: its queue is small.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentLimit)
	})
}

// Unacked asks the kernel for the bytes that the peer has not acknowledged.
func (s *rawSocket) Unacked() (n int, ok bool) {
	err := s.raw.Control(func(fd uintptr) {
		v, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		n, ok = v, err == nil
	})
	return n, ok && err == nil
}
