package follow

import (
	"os"
	"time"
)

var (
	StatFile  = statFile
	SameFile  = sameFile
	SystemKey = systemKey
)

// A birth is of the real time: where the clock is virtual, which begins in 2000, it tells nothing.
func init() { births = func() bool { return time.Now().Year() > 2000 } }

// Born is when a file was born, in a form that can be compared.
func Born(info os.FileInfo) any { return info.(*linuxInfo).born }
