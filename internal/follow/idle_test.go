//go:build unix

package follow_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// cpu is what the process has used.
func cpu(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// inUse is the memory that is in use after a collection: the heap's and the stacks'.
func inUse() uint64 {
	var m runtime.MemStats
	for range 4 { // a stack halves with each
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// A thousand quiet files cost nearly nothing. What is asserted leaves room for a slow machine with other work to do.
func TestIdleCost(t *testing.T) {
	const files = 1000
	rest := 5 * time.Second
	if testing.Short() || raced {
		rest = time.Second
	}
	dir := t.TempDir()
	paths := make([]string, files)
	for i := range paths {
		paths[i] = filepath.Join(dir, fmt.Sprintf("app-%d.log", i))
		must(t, appendTo(paths[i], "a line\n"))
		must(t, os.Chtimes(paths[i], time.Time{}, time.Now().Add(-time.Hour))) // it is quiet already
	}
	before := inUse()
	var all []*follow.Follower
	looks := func() (n int64) {
		for _, f := range all {
			n += f.Stats().Looks
		}
		return n
	}
	for _, path := range paths {
		began := make(chan struct{}, 1)
		f := follow.New(follow.Config{Path: path, Begin: signal(began)})
		all = append(all, f)
		defer goRun(t, f, &recorder{})()
		<-began
	}
	time.Sleep(time.Second)
	used, looked, began := cpu(t), looks(), time.Now()
	time.Sleep(rest)
	used, looked = cpu(t)-used, looks()-looked
	share := 100 * used.Seconds() / time.Since(began).Seconds()
	t.Logf("%d quiet files: %.2f %% of a core, %d looks in %v, %d bytes each", files, share, looked, rest, (inUse()-before)/files)
	if share > 20 {
		t.Errorf("%.2f %% of a core", share)
	}
}
