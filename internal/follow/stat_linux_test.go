package follow_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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

// Files that were written in one tick of the clock are in the order in which they were made, whatever their names say; where nobody
// knows that, or some are packed, the names tell.
func TestTheAgeOfFilesOfOneTick(t *testing.T) {
	for _, c := range []struct {
		births bool
		made   []string
		want   string
	}{
		{true, []string{"app.log.1", "app.log.2", "app.log.3"}, "1 2 3"}, // the numbers count up
		{true, []string{"app.log.2", "app.log.old", "app.log.1"}, "2 old 1"},
		{false, []string{"app.log.1", "app.log.2", "app.log.3"}, "3 2 1"},
		{true, []string{"app.log.1.gz", "app.log.2.gz"}, "2 1"}, // they were packed the newest first
	} {
		r := newRig(t)
		r.births.On = c.births
		now := time.Now()
		for _, name := range c.made {
			if plain, packed := strings.CutSuffix(name, ".gz"); packed {
				r.write(plain, name)
				r.gzip(plain, 1, false)
			}
			r.make(name)
			r.tick += time.Millisecond
			r.must(os.Chtimes(r.path(name), time.Time{}, now))
		}
		var got []string
		for _, name := range r.follower(r.cfg).Siblings() {
			got = append(got, strings.TrimSuffix(filepath.Base(name), ".gz")[len("app.log."):])
		}
		if fmt.Sprint(got) != "["+c.want+"]" {
			t.Errorf("births %t, made %v: got %v, want %s", c.births, c.made, got, c.want)
		}
	}
}

// A file that came and went while the one before still has a writer, and nothing has the name, is neither older than that nor a copy.
func TestALateWriterBesideAMissedFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.births.On = true
		r.write("app.log", "first\n")
		r.run()
		r.rename("app.log", "app.log.3")
		r.hold("old", "app.log")
		r.heldWrite("old", "a1\n")
		r.look()
		r.rename("app.log", "app.log.2")
		r.write("app.log", "b1\n")
		r.rename("app.log", "app.log.1")
		r.heldWrite("old", "a2\n")
		r.look()
		r.write("app.log", "c1\n")
		r.look()
		if want := []string{"a1", "a2", "b1", "c1"}; !slices.Equal(r.out, want) {
			t.Errorf("got %q, want %q", r.out, want)
		}
		r.check()
	})
}
