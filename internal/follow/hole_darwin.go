package follow

// What lseek takes to find data and holes.
const (
	seekHole = 3
	seekData = 4
)
