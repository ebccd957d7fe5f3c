//go:build race

package tailcast_test

// raced says that the race detector is on: what runs in one goroutine at a time is only slower with it, and fewer of a kind do.
const raced = true
