//go:build unix

package follow

import (
	"os"
	"syscall"
)

func statKey(info os.FileInfo) fileKey {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileKey{uint64(st.Dev), uint64(st.Ino)}
	}
	return fileKey{}
}
