//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package follow

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes a lock that no other process has, nor any other caller in this one, and that ends with the process. Its file is
// removed when it is given back, so whoever gets the lock looks whether the name still means the file that was locked.
func lockFile(name string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				err = errLocked
			}
			return nil, err
		}
		now, err := os.Stat(name)
		info, err2 := f.Stat()
		if err == nil && err2 == nil && os.SameFile(now, info) {
			return func() { os.Remove(name); f.Close() }, nil
		}
		f.Close()
	}
}

func flock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			return err
		}
	}
}
