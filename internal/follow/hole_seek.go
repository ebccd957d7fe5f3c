//go:build linux || freebsd

package follow

// What lseek takes to find data and holes.
const (
	seekData = 3
	seekHole = 4
)
