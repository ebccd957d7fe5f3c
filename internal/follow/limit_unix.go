//go:build unix

package follow

import (
	"errors"
	"syscall"
)

// isLimit reports whether the system has no more to give: watches, instances or descriptors.
func isLimit(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
