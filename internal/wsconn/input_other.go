//go:build !unix

package wsconn

import (
	"net"
	"syscall"
)

// rawConn finds none here: Windows' sockets are overlapped, and are read as a net.Conn.
func rawConn(net.Conn) syscall.RawConn { return nil }

func readDescriptor(uintptr, []byte) (n int, again bool, err error) { return 0, false, syscall.EINVAL }
