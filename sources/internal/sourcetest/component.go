package sourcetest

import (
	"os"
	"os/exec"
	"testing"
)

// Component returns the path of a program: the first of the names that is there, each in the PATH or a path itself. Without one the
// test is skipped, and where CI=true fails.
func Component(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and with CI=true nothing is skipped", names[0])
	}
	t.Skipf("%s is missing", names[0])
	return ""
}

// Soak chooses how much is done: a little in the gate, and all of it with ITEST_SOAK=1.
func Soak(gate, full int) int {
	if os.Getenv("ITEST_SOAK") == "1" {
		return full
	}
	return gate
}
