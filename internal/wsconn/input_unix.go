//go:build unix

package wsconn

import (
	"net"
	"syscall"
)

// rawConn returns the way to a descriptor that can be waited for without a buffer, nil if there is none. Only the plain types have one: a type
// that embeds one of them may mean to see each Read.
func rawConn(nc net.Conn) syscall.RawConn {
	switch nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		if raw, err := nc.(syscall.Conn).SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// readDescriptor reads without waiting; again says that it would have to wait.
func readDescriptor(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return n, false, err
	}
}
