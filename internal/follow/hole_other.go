//go:build !linux && !freebsd && !darwin

package follow

// Nothing here tells where data and holes are.
const seekData, seekHole = 0, 0
