//go:build !unix

package follow

func isLimit(error) bool { return false }
