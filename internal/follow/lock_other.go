//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package follow

import "errors"

func lockFile(string) (unlock func(), err error) { return nil, errors.ErrUnsupported }
