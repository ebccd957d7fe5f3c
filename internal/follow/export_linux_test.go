package follow

import "os"

var (
	StatFile  = statFile
	SameFile  = sameFile
	SystemKey = systemKey
)

// Born is when a file was born, in a form that can be compared.
func Born(info os.FileInfo) any { return info.(*linuxInfo).born }
