//go:build linux && (amd64 || arm64)

package fanout

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// send is write(2) for a socket, without what that does for files: the kernel then has not to look at the socket's inode, which is in
// no cache when a worker comes by thousands of connections. That is 5 % of what a delivery costs at a low rate. (syscall.Sendto does not
// say how much the kernel took.)
func send(fd int, p []byte) (int, error) {
	n, _, err := syscall.Syscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if err != 0 {
		return -1, err
	}
	return int(n), nil
}

// Room asks the kernel how much memory the queue of a TCP connection may still take. With much in it there is no telling: what
// boundQueue asks for may count sooner. And while somebody waits to write there is none, until the kernel wakes him, which it does
// when a third is free: it may be the reader of TLS, who has an answer for the peer, and the lock that a Write needs.
func (s *rawSocket) Room() int {
	a := attempts.Get().(*attempt)
	a.n = 0
	_ = s.raw.Control(a.ask)
	n := a.n
	attempts.Put(a)
	return n
}

// room sets a.n to what Room returns.
func (a *attempt) room(fd uintptr) {
	const short = unsentLimit / 2
	var mem [unix.SK_MEMINFO_DROPS + 1]uint32
	size := uint32(unsafe.Sizeof(mem))
	_, _, err := syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	queued, most := int(mem[unix.SK_MEMINFO_WMEM_QUEUED]), int(mem[unix.SK_MEMINFO_SNDBUF])
	if err == 0 && size == uint32(unsafe.Sizeof(mem)) && queued <= short && queued/2 <= most-queued {
		a.n = min(most-queued, unsentLimit)
	}
}
