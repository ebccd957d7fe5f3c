//go:build !unix

package fanout

import (
	"net"
	"syscall"
)

// newRawSocket has no non-blocking write here: Windows' sockets are overlapped. A goroutine writes.
func newRawSocket(net.Conn, syscall.Conn) Socket { return nil }
