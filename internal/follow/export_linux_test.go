package follow

import (
	"os"
	"testing"
)

var (
	StatFile  = statFile
	SameFile  = sameFile
	SystemKey = systemKey
)

func init() { births = false }

// WithBirths lets the time of a file's birth count until the test ends.
func WithBirths(t *testing.T) {
	births = true
	t.Cleanup(func() { births = false })
}

// Born is when a file was born, in a form that can be compared.
func Born(info os.FileInfo) any { return info.(*linuxInfo).born }
