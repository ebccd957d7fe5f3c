//go:build !unix

package follow

import "os"

// linked is not known here: a file with two hard links is followed by both names.
func linked(os.FileInfo) bool { return false }
