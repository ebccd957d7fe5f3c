//go:build unix && !linux

package fanout

import "syscall"

// boundQueue leaves the kernel's queue as the system sizes it.
func boundQueue(syscall.RawConn) {}

// Unacked cannot be told in a way that is the same on these systems.
func (s *rawSocket) Unacked() (n int, ok bool) { return 0, false }
