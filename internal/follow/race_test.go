//go:build race

package follow_test

// raced says that the race detector is on. What runs in one goroutine at a time is only slower with it: fewer of the same kind do.
const raced = true
