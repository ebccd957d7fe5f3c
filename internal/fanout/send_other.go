//go:build unix && !(linux && (amd64 || arm64))

package fanout

import "syscall"

// send writes to a socket that does not block.
func send(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }

// room is not known here.
func (a *attempt) room(uintptr) {}
