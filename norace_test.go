//go:build !race

package tailcast_test

const raced = false
