package itest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("ITEST_WRITER") != "" { // this process is a writer: see startWriter
		os.Exit(writerMain())
	}
	if os.Getenv("ITEST_FOLLOWER") != "" { // this process is a follower: see startFollower
		os.Exit(followerMain())
	}
	if os.Getenv("ITEST_VIEWERS") != "" { // this process is viewers: see burst
		os.Exit(viewersMain())
	}
	if os.Getenv("ITEST_RELAY") != "" { // this process is a relay: see startRelay
		os.Exit(relayMain())
	}
	code := m.Run()
	if binDir != "" {
		os.RemoveAll(binDir)
	}
	os.Exit(code)
}

// need makes sure of components: a program by its name, a package of Node's as "npm/NAME", and "root".
func need(t *testing.T, components ...string) {
	t.Helper()
	for _, c := range components {
		var err error
		switch name, npm := strings.CutPrefix(c, "npm/"); {
		case npm:
			_, err = os.Stat(filepath.Join("node_modules", name, "package.json"))
		case c != "root":
			_, err = exec.LookPath(c)
		case os.Geteuid() != 0:
			err = errors.New("the tests run as another user")
		}
		switch {
		case err == nil:
		case os.Getenv("CI") == "true":
			t.Fatalf("%s is missing, and with CI=true nothing is skipped: %v", c, err)
		default:
			t.Skipf("%s is missing: %v", c, err)
		}
	}
}

// setting is a count: the variable's value if it is set, or else the long one in a soak, or else the short one.
func setting(t *testing.T, name string, short, long int) int {
	t.Helper()
	if s := os.Getenv(name); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n <= 0 {
			t.Fatalf("%s=%s: must be a positive number", name, s)
		}
		return n
	}
	if os.Getenv("ITEST_SOAK") == "1" {
		return long
	}
	return short
}

// lineRate is how many lines a second a writer writes: fewer outside of a soak, since all that reads them computes for as long as it does.
func lineRate(t *testing.T) int { return setting(t, "ITEST_RATE", 5_000, 20_000) }

// patience is how long nothing may happen before a test gives up.
const patience = 60 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up after %v: %s", patience, what)
		}
	}
}

var (
	binDir  string
	logtail = sync.OnceValues(func() (string, error) {
		var err error
		if binDir, err = os.MkdirTemp("", "tailcast-itest-"); err != nil {
			return "", err
		}
		bin := filepath.Join(binDir, "logtail")
		build := exec.Command("go", "build", "-o", bin, "./examples/logtail")
		build.Dir = ".."
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build examples/logtail: %w\n%s", err, out)
		}
		return bin, nil
	})
)
