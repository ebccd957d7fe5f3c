//go:build unix

package follow_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast/internal/follow"
)

// What is no file does not block, and what comes in its place is read.
func TestIrregularPaths(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, path string){
		"a pipe":      func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o644)) },
		"a device":    func(t *testing.T, path string) { must(t, os.Symlink("/dev/zero", path)) },
		"a directory": func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o755)) },
		"a socket": func(t *testing.T, path string) {
			t.Chdir(filepath.Dir(path)) // a socket's name is short
			l, err := net.Listen("unix", filepath.Base(path))
			must(t, err)
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			must(t, l.Close())
		},
	} {
		for _, when := range []string{"before", "between stat and open"} {
			t.Run(name+" "+when, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "app.log")
				put(t, path)
				synctest.Test(t, func(t *testing.T) {
					cfg := polling(path)
					cfg.Start = follow.FromStart
					var events []string
					cfg.Report = func(event string, err error) { events = append(events, event) }
					f := follow.New(cfg)
					if when != "before" {
						must(t, os.Rename(path, path+"-odd"))
						must(t, appendTo(path, ""))
						f.Intercept(func(op, name string) error {
							if op == "open" && name == path {
								if _, err := os.Lstat(path + "-odd"); err == nil {
									must(t, os.Remove(path))
									must(t, os.Rename(path+"-odd", path))
								}
							}
							return nil
						})
					}
					var out recorder
					defer goRun(t, f, &out)()
					passTime()
					must(t, os.RemoveAll(path))
					must(t, appendTo(path, "a\n"))
					for range 5 {
						passTime()
					}
					if got := out.text(); !slices.Equal(got, []string{"a"}) {
						t.Errorf("got %q", got)
					}
					if len(events) == 0 || events[len(events)-1] != follow.EventRecovered {
						t.Errorf("reported %q", events)
					}
				})
			})
		}
	}
}

// Offsets are 64 bits, on every system.
func TestFileOfMoreThan4GiB(t *testing.T) {
	const size = 5 << 30
	world(t, func(t *testing.T, path string) {
		must(t, appendTo(path, "first\n"))
		if err := os.Truncate(path, size); err != nil {
			t.Skip(err) // no sparse files
		}
		must(t, appendTo(path, "\na\n"))
		var live, replayed recorder
		cfg := polling(path)
		cfg.Start = follow.LastLines(1)
		f := follow.New(cfg)
		defer goRun(t, f, &live)()
		passTime()
		must(t, appendTo(path, "b\n"))
		passTime()
		if got := live.text(); !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("got %q", got)
		}
		at := live.lines()[0].Pos
		if at.Offset != size+3 {
			t.Errorf("the position is %d", at.Offset)
		}
		defer goReplay(t, f, at, &replayed)()
		synctest.Wait()
		if got := replayed.text(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("replayed %q", got)
		}
	})
}

// A read may give less than was asked for.
func TestShortReads(t *testing.T) {
	world(t, func(t *testing.T, path string) {
		cfg := polling(path)
		cfg.Start = follow.FromStart
		f := follow.New(cfg)
		f.Intercept(func(op, name string) error {
			if op == "read" {
				return follow.ShortRead(100)
			}
			return nil
		})
		var want []string
		for i := range 50 {
			want = append(want, stressLine(0, i))
			must(t, appendTo(path, want[i]+"\n"))
		}
		var out recorder
		defer goRun(t, f, &out)()
		for range 20 {
			passTime()
		}
		if got := out.text(); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}
