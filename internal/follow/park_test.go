package follow_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// A shelf is many followed files with room for few of them.
type shelf struct {
	t     *testing.T
	dir   string
	all   []*follow.Follower
	outs  []*recorder
	stops []func()
}

func onShelf(t *testing.T, files, room int, body func(s *shelf)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(realNow))
		s := &shelf{t: t, dir: dir}
		limit := follow.NewOpenLimit(room)
		for i := range files {
			must(t, appendTo(s.path(i), "old\n"))
			f := follow.New(follow.Config{Path: s.path(i), Poll: poll, Grace: grace, NoNotify: true, Open: limit})
			out := &recorder{}
			s.all, s.outs, s.stops = append(s.all, f), append(s.outs, out), append(s.stops, goRun(t, f, out))
		}
		s.pass(time.Second)
		body(s)
		for _, stop := range s.stops {
			stop()
		}
		if n := s.open(); n != 0 {
			t.Errorf("%d files are open after all", n)
		}
	})
}

func (s *shelf) path(i int) string { return filepath.Join(s.dir, fmt.Sprintf("%d.log", i)) }

func (s *shelf) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *shelf) open() (n int) {
	for _, f := range s.all {
		n += f.Stats().Open
	}
	return n
}

func (s *shelf) expect(i int, want ...string) {
	s.t.Helper()
	if got := s.outs[i].text(); !slices.Equal(got, want) {
		s.t.Errorf("%d.log: got %q, want %q", i, got, want)
	}
}

func TestIdleFilesBeyondTheLimitAreClosed(t *testing.T) {
	onShelf(t, 50, 10, func(s *shelf) {
		if n := s.open(); n != 10 {
			t.Errorf("%d files are open", n)
		}
		for i := range s.all {
			must(t, appendTo(s.path(i), "a\n"))
		}
		s.pass(time.Second)
		for i := range s.all {
			s.expect(i, "a")
		}
		if n := s.open(); n != 10 {
			t.Errorf("%d files are open", n)
		}
		// Those that are written to stay open, the others do not.
		for range 20 {
			for i := range 10 {
				must(t, appendTo(s.path(i), "b\n"))
			}
			s.pass(poll)
		}
		for i := range 10 {
			if s.all[i].Stats().Open != 1 {
				t.Errorf("%d.log is closed while it is written to", i)
			}
		}
	})
}

func TestWhatHappensToAClosedFile(t *testing.T) {
	onShelf(t, 6, 0, func(s *shelf) {
		if n := s.open(); n != 0 {
			t.Errorf("%d files are open", n)
		}
		for i := range s.all {
			must(t, appendTo(s.path(i), "a\n"))
		}
		s.pass(10 * time.Second)
		must(t, appendTo(s.path(0), "b\n")) // renamed with lines that nobody has read
		must(t, os.Rename(s.path(0), s.path(0)+".1"))
		must(t, appendTo(s.path(0), "c\n"))
		must(t, os.Truncate(s.path(1), 0))
		must(t, appendTo(s.path(1), "b\n"))
		must(t, os.Remove(s.path(2)))
		must(t, appendTo(s.path(2), "b\n"))
		must(t, os.Remove(s.path(3))) // and not there again
		must(t, os.Rename(s.path(4), s.path(4)+".1"))
		must(t, os.Rename(s.path(4)+".1", s.path(4))) // nothing has happened
		must(t, os.Rename(s.path(5), s.path(5)+".1"))
		s.pass(10 * time.Second)
		must(t, appendTo(s.path(5)+".1", "late\n"))
		s.pass(10 * time.Second)
		must(t, appendTo(s.path(5), "b\n"))
		must(t, appendTo(s.path(4), "b\n"))
		s.pass(10 * time.Second)
		const gap = "GAP possible, -1 bytes"
		s.expect(0, "a", "b", "c")
		s.expect(1, "a", gap, "b")
		s.expect(2, "a", gap, "b")
		s.expect(3, "a")
		s.expect(4, "a", "b")
		s.expect(5, "a", "late", "b")
	})
}
