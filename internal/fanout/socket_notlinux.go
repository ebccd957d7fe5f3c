//go:build unix && !linux

package fanout

import "syscall"

// boundQueue leaves the kernel's queue as the system sizes it.
func boundQueue(syscall.RawConn) {}
