//go:build unix

package follow

import (
	"os"
	"syscall"
)

// linked reports whether a file has several names.
func linked(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink > 1
}
