package follow_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tailcast/tailcast/internal/follow"
)

// What the follower asks of a file agrees with package os.
func TestStat(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "app.log")
	must(t, appendTo(name, "a line\n"))
	must(t, os.Symlink(name, filepath.Join(dir, "link")))
	must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	for _, path := range []string{name, dir, filepath.Join(dir, "link"), os.DevNull} {
		got, err := follow.StatFile(path)
		must(t, err)
		want, err := os.Stat(path)
		must(t, err)
		if got.Size() != want.Size() || !got.ModTime().Equal(want.ModTime()) || got.IsDir() != want.IsDir() ||
			got.Mode().IsRegular() != want.Mode().IsRegular() || got.Mode().Perm() != want.Mode().Perm() {
			t.Errorf("%s: %v %v %v, want %v %v %v", path, got.Size(), got.ModTime(), got.Mode(), want.Size(), want.ModTime(), want.Mode())
		}
		if follow.SystemKey(got) != follow.SystemKey(want) {
			t.Errorf("%s: key %v, want %v", path, follow.SystemKey(got), follow.SystemKey(want))
		}
		again, err := follow.StatFile(path)
		must(t, err)
		if !follow.SameFile(got, again) {
			t.Errorf("%s is not the same file as itself", path)
		}
	}
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "loop"), filepath.Join(name, "x"), ""} {
		_, got := follow.StatFile(path)
		_, want := os.Stat(path)
		if got == nil || got.Error() != want.Error() {
			t.Errorf("%q: %v, want %v", path, got, want)
		}
	}
}

// A new file with the number of a removed one is another file, on a file system that notes when a file was born.
func TestANumberThatIsUsedAgain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "app.log")
	for range 100 {
		must(t, appendTo(name, "a\n"))
		before, err := follow.StatFile(name)
		must(t, err)
		must(t, os.Remove(name))
		must(t, appendTo(name, "a\n"))
		after, err := follow.StatFile(name)
		must(t, err)
		if follow.SystemKey(before) != follow.SystemKey(after) {
			continue
		}
		if follow.Born(before) == follow.Born(after) {
			t.Skip("the file system notes no births, or by a coarse clock")
		}
		if follow.SameFile(before, after) {
			t.Error("a new file is taken for the removed one")
		}
		return
	}
	t.Skip("the file system gives no number twice in a row")
}
