package follow_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// A yard is a directory and a Group.
type yard struct {
	t    *testing.T
	dir  string
	cfg  follow.GroupConfig
	g    *follow.Group
	stop func()

	mu      sync.Mutex
	outs    map[string]*recorder
	begun   map[string]bool
	reports []string
	forgot  []string
	fail    map[string]error
}

func newYard(t *testing.T, pattern string) *yard {
	y := &yard{t: t, dir: t.TempDir(), outs: make(map[string]*recorder), begun: make(map[string]bool), fail: make(map[string]error)}
	y.cfg = follow.GroupConfig{
		Pattern: filepath.Join(y.dir, filepath.FromSlash(pattern)), File: follow.Config{Poll: poll, Grace: grace},
		Begin:  func(name string, _ follow.Position) { y.set(func() { y.begun[name] = true }) },
		Forget: func(name string) { y.set(func() { y.forgot = append(y.forgot, name) }) },
		Report: func(path, event string, _ error) {
			y.set(func() { y.reports = append(y.reports, filepath.Base(path)+" "+event) })
		},
	}
	return y
}

// inYard is in virtual time.
func inYard(t *testing.T, pattern string, body func(y *yard)) {
	y := newYard(t, pattern)
	synctest.Test(t, func(t *testing.T) {
		y.t = t
		time.Sleep(time.Until(realNow))
		y.cfg.File.NoNotify = true
		body(y)
		if y.stop != nil {
			y.stop()
		}
	})
}

func (y *yard) set(change func()) {
	y.mu.Lock()
	defer y.mu.Unlock()
	change()
}

func (y *yard) path(name string) string { return filepath.Join(y.dir, filepath.FromSlash(name)) }

func (y *yard) write(name, text string) {
	y.t.Helper()
	must(y.t, os.MkdirAll(filepath.Dir(y.path(name)), 0o755))
	must(y.t, appendTo(y.path(name), text))
}

func (y *yard) rename(from, to string) { must(y.t, os.Rename(y.path(from), y.path(to))) }

func (y *yard) out(name string) *recorder {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.outs[name] == nil {
		y.outs[name] = &recorder{}
	}
	return y.outs[name]
}

func (y *yard) run() {
	y.t.Helper()
	if y.g == nil {
		g, err := follow.NewGroup(y.cfg)
		must(y.t, err)
		if y.cfg.File.NoNotify {
			g.ListAnew()
		}
		y.g = g
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error)
	go func() {
		done <- y.g.Run(ctx, func(name string, lines []follow.Line) error {
			y.mu.Lock()
			err := y.fail[name]
			y.mu.Unlock()
			if err != nil {
				return err
			}
			return y.out(name).emit(lines)
		})
	}()
	y.stop = func() {
		y.stop = nil
		cancel(errStop)
		if err := <-done; err != errStop {
			y.t.Errorf("Run returned %v", err)
		}
		if n := y.g.Stats(0).Open; n != 0 {
			y.t.Errorf("%d files are open after Run", n)
		}
	}
}

func (y *yard) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (y *yard) expect(want map[string][]string) {
	y.t.Helper()
	got := make(map[string][]string)
	y.set(func() {
		for name, out := range y.outs {
			got[name] = out.text()
		}
	})
	if !maps.EqualFunc(got, want, slices.Equal) {
		y.t.Errorf("got %q, want %q", got, want)
	}
}

func TestAGroupIsTheFilesThatMatch(t *testing.T) {
	inYard(t, "*.log*", func(y *yard) {
		y.write("a.log", "old\n")
		y.write("a.log.1", "older\n")
		y.write("a.log.2.gz", "no text\n")
		y.write("a-20260101.log", "oldest\n")
		y.write("b.log", "old\n")
		y.write(".c.log", "hidden\n")
		y.write("d.txt", "no\n")
		y.write("dir.log/e.log", "no\n")
		y.run()
		y.pass(time.Second)
		for _, name := range []string{"a.log", "a.log.1", "b.log", ".c.log", "d.txt", "dir.log/e.log", "f.log"} {
			y.write(name, "new\n")
		}
		y.pass(time.Second)
		y.expect(map[string][]string{"a.log": {"new"}, "b.log": {"new"}, "f.log": {"new"}})
		y.write("f.log", "more\n")
		must(y.t, os.Remove(y.path("b.log")))
		y.pass(time.Second)
		y.write("b.log", "again\n")
		y.pass(time.Second)
		y.expect(map[string][]string{"a.log": {"new"}, "b.log": {"new", "again"}, "f.log": {"new", "more"}})
		if len(y.reports) != 0 {
			y.t.Errorf("reported %q", y.reports)
		}
		if s := y.g.Stats(2); s.Files != 3 || s.Lines != 5 || len(s.Some) != 2 || s.Some[0].Name != "a.log" {
			y.t.Errorf("stats %+v", s)
		}
	})
}

func TestRotatedSiblingsAreNoFilesOfTheirOwn(t *testing.T) {
	inYard(t, "app.log*", func(y *yard) {
		y.write("app.log", "")
		y.run()
		y.pass(time.Second)
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprint(i), fmt.Sprint("late ", i))
			y.write("app.log", fmt.Sprintf("%d\n", i))
			if i%2 == 0 {
				y.pass(time.Second)
			}
			must(y.t, shift(y.path("app.log"), i))
			y.rename("app.log", "app.log.1")
			y.write("app.log.1", fmt.Sprintf("late %d\n", i))
			y.pass(time.Duration(i) * 20 * time.Second) // the name is absent for a while, and longer than files are remembered for
		}
		y.pass(2 * time.Minute)
		y.write("app.log", "last\n")
		y.pass(time.Minute)
		y.expect(map[string][]string{"app.log": append(want, "last")})
	})
}

func TestDatedFilesAreFilesOfTheirOwn(t *testing.T) {
	inYard(t, "*.log", func(y *yard) {
		y.write("app-20260101.log", "old\n")
		y.cfg.File.Start = follow.FromStart
		y.run()
		y.pass(time.Minute)
		y.write("app-20260102.log", "a\n")
		y.pass(time.Minute)
		y.expect(map[string][]string{"app-20260101.log": {"old"}, "app-20260102.log": {"a"}})
	})
}

func TestFilesOfSeveralDirectoriesAreNamedByPath(t *testing.T) {
	inYard(t, "*/log/app*.log", func(y *yard) {
		y.write("a/log/app.log", "")
		y.write("b/log/app.log", "")
		y.run()
		y.pass(time.Second)
		y.write("a/log/app.log", "1\n")
		y.write("b/log/app.log", "2\n")
		y.write("c/log/app-x.log", "3\n")
		y.write("c/app.log", "no\n")
		y.pass(time.Second)
		y.expect(map[string][]string{"a/log/app.log": {"1"}, "b/log/app.log": {"2"}, "c/log/app-x.log": {"3"}})
		must(y.t, os.RemoveAll(y.path("a")))
		y.pass(2 * time.Minute)
		if s := y.g.Stats(9); s.Files != 2 || s.Gone != 1 {
			y.t.Errorf("stats %+v", s)
		}
	})
}

func TestAFileOfTwoNamesIsFollowedOnce(t *testing.T) {
	inYard(t, "*.log", func(y *yard) {
		y.write("real.log", "")
		y.write("elsewhere/x", "")
		if err := os.Symlink(y.path("real.log"), y.path("a-link.log")); err != nil {
			y.t.Skip(err)
		}
		must(y.t, os.Symlink(y.path("elsewhere/x"), y.path("z-link.log")))
		y.run()
		y.pass(time.Second)
		if err := os.Link(y.path("real.log"), y.path("hard.log")); err != nil {
			y.t.Skip(err)
		}
		y.write("real.log", "1\n")
		y.write("elsewhere/x", "2\n")
		y.pass(time.Minute)
		y.expect(map[string][]string{"real.log": {"1"}, "z-link.log": {"2"}})
		must(y.t, os.Remove(y.path("z-link.log"))) // and it leads to a file of the group now
		must(y.t, os.Symlink(y.path("real.log"), y.path("z-link.log")))
		y.pass(time.Second)
		link := y.out("z-link.log").text() // perhaps with what its new target had when it was seen
		y.write("real.log", "3\n")
		y.pass(time.Minute)
		y.expect(map[string][]string{"real.log": {"1", "3"}, "z-link.log": link})
	})
}

func TestAFileThatFailsStopsNoOther(t *testing.T) {
	inYard(t, "*.log", func(y *yard) {
		y.write("bad.log", "")
		y.write("good.log", "")
		y.fail["bad.log"] = errors.New("refused")
		y.run()
		y.pass(time.Second)
		y.write("bad.log", "1\n")
		y.write("good.log", "1\n")
		y.pass(2 * time.Minute)
		y.write("bad.log", "2\n")
		y.write("good.log", "2\n")
		y.pass(time.Minute)
		y.set(func() {
			if !slices.Equal(y.reports, []string{"bad.log failed"}) {
				y.t.Errorf("reported %q", y.reports)
			}
			delete(y.fail, "bad.log")
		})
		y.pass(time.Minute)
		y.expect(map[string][]string{"bad.log": {"1", "2"}, "good.log": {"1", "2"}})
	})
}

func TestAFileThatComesBackGoesOn(t *testing.T) {
	for _, room := range []int{1, 100} {
		inYard(t, "*.log", func(y *yard) {
			y.cfg.MaxOpen = room
			for i := range 5 {
				y.write(fmt.Sprintf("%d.log", i), "")
			}
			y.run()
			y.pass(time.Second)
			for i := range 5 {
				y.write(fmt.Sprintf("%d.log", i), "a\nno end")
			}
			y.pass(time.Minute)
			for i := range 5 {
				y.rename(fmt.Sprintf("%d.log", i), fmt.Sprintf("%d.gone", i))
			}
			y.pass(2 * time.Minute)
			if s := y.g.Stats(9); s.Files != 0 || s.Gone != 5 || s.Open != 0 {
				y.t.Errorf("stats %+v", s)
			}
			want := make(map[string][]string)
			for i := range 5 {
				name := fmt.Sprintf("%d.log", i)
				y.write(name, "b\n")
				want[name] = []string{"a", "no end", "b"}
			}
			y.pass(time.Second)
			y.expect(want)
			for i := range 5 {
				var all recorder
				name := fmt.Sprintf("%d.log", i)
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error)
				go func() { done <- y.g.Replay(ctx, name, y.out(name).lines()[1].Pos, all.emit) }()
				synctest.Wait()
				cancel()
				<-done
				if got := all.text(); !slices.Equal(got, []string{"b"}) {
					y.t.Errorf("replayed %q", got)
				}
			}
		})
	}
}

func TestAGroupGoesOnAfterAStop(t *testing.T) {
	inYard(t, "*.log", func(y *yard) {
		y.write("a.log", "")
		y.run()
		y.pass(time.Second)
		y.write("a.log", "1\n")
		y.pass(time.Second)
		y.stop()
		y.write("a.log", "2\n")
		y.rename("a.log", "a.log.1")
		y.write("b.log", "3\n")
		y.run()
		y.pass(time.Second)
		y.write("a.log", "4\n")
		y.pass(time.Minute)
		y.expect(map[string][]string{"a.log": {"1", "2", "4"}, "b.log": {"3"}})
	})
}

// Two files that are alike are two, and so is one that two follow.
func TestEqualFilesAndTwoGroups(t *testing.T) {
	inYard(t, "*.log", func(y *yard) {
		other := &yard{t: y.t, dir: y.dir, cfg: y.cfg, outs: make(map[string]*recorder), begun: make(map[string]bool)}
		y.write("a.log", "")
		y.write("b.log", "")
		y.run()
		other.run()
		y.pass(time.Second)
		for _, name := range []string{"a.log", "b.log"} {
			y.write(name, "same\n")
			y.pass(time.Second)
			y.write(name, "same\n")
		}
		y.pass(time.Second)
		y.rename("a.log", "a.log.1")
		y.write("a.log", "same\n")
		y.pass(time.Minute)
		want := map[string][]string{"a.log": {"same", "same", "same"}, "b.log": {"same", "same"}}
		y.expect(want)
		other.expect(want)
		other.stop()
	})
}

func TestRotatedFromIsTheReverse(t *testing.T) {
	for name, want := range map[string][]string{
		"app.log.1": {"app.log"}, "app-20260101.log": {"app.log"}, "app.log-20260101": {"app.log"}, "app.log.old": {"app.log"},
		"app.log": nil, "app": nil, "1": nil, "app.1.log": {"app.log"},
	} {
		got := follow.RotatedFrom(name)
		for _, base := range got {
			if !follow.RotatedName(base, name) {
				t.Errorf("%s does not come from %s", name, base)
			}
		}
		for _, base := range want {
			if !slices.Contains(got, base) {
				t.Errorf("%s comes from %q, not %q", name, got, want)
			}
		}
		if want == nil && got != nil {
			t.Errorf("%s comes from %q", name, got)
		}
	}
}

// These run in real time, with the kernel's notifications.

func TestNewFilesAreFoundByNotification(t *testing.T) {
	y := newYard(t, "*/*.log")
	y.cfg.File.Poll = time.Hour
	y.write("a/1.log", "")
	y.run()
	defer func() { noWatcher(t) }()
	defer func() { y.stop() }()
	for range 20_000 {
		var begun bool
		if y.set(func() { begun = y.begun["a/1.log"] }); begun {
			break
		}
		time.Sleep(time.Millisecond)
	}
	y.write("a/1.log", "x\n")
	y.out("a/1.log").wait(t, 1)
	y.write("a/2.log", "x\n")
	y.out("a/2.log").wait(t, 1)
	y.write("b/1.log", "x\n")
	y.out("b/1.log").wait(t, 1)
	y.write("b/2.log", "x\n")
	y.out("b/2.log").wait(t, 1)
	y.rename("b/2.log", "b/2.log.1")
	y.write("b/2.log", "y\n")
	y.out("b/2.log").wait(t, 2)
}

// Ten thousand files, of which a thousand are open. FOLLOW_FILES is another number.
func TestManyFiles(t *testing.T) {
	files := 500
	if n, err := strconv.Atoi(os.Getenv("FOLLOW_FILES")); err == nil {
		files = n
	}
	before := runtime.NumGoroutine()
	y := newYard(t, "*.log")
	y.cfg.MaxOpen = files / 10
	y.cfg.File.Poll = 0
	name := func(i int) string { return fmt.Sprintf("app-%d.log", i*7) }
	for i := range files {
		y.write(name(i), "a line\n")
		must(t, os.Chtimes(y.path(name(i)), time.Time{}, time.Now().Add(-time.Hour)))
		y.outs[name(i)] = &recorder{}
	}
	memory, descriptors := inUse(), openDescriptors()
	began, used := time.Now(), cpu(t)
	y.run()
	all := func(ok func(follow.GroupStats) bool, what string) {
		t.Helper()
		for range 6000 {
			if ok(y.g.Stats(0)) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s: %+v", what, y.g.Stats(0))
	}
	all(func(s follow.GroupStats) bool { return s.Looks >= int64(files) && s.Files == files }, "to start")
	t.Logf("%d files: started in %v, %v of processor time", files, time.Since(began).Round(time.Millisecond), cpu(t)-used)
	all(func(s follow.GroupStats) bool { return s.Open <= files/10 }, "to close")
	time.Sleep(2 * time.Second)
	t.Logf("%d bytes each", (int64(inUse())-int64(memory))/int64(files))
	rest := time.Second
	if files > 500 {
		rest = 10 * time.Second
	}
	began, used = time.Now(), cpu(t)
	time.Sleep(rest)
	t.Logf("idle: %.2f %% of a core; %d open, %d descriptors", 100*(cpu(t)-used).Seconds()/time.Since(began).Seconds(),
		y.g.Stats(0).Open, openDescriptors()-descriptors)
	began, used = time.Now(), cpu(t)
	for round := range 3 {
		for i := range files {
			y.write(name(i), fmt.Sprintf("new %d\n", round))
		}
	}
	all(func(s follow.GroupStats) bool { return s.Lines >= int64(3*files) }, "to read")
	t.Logf("3 lines to each: %v, %v of processor time", time.Since(began).Round(time.Millisecond), cpu(t)-used)
	for i := range files {
		if got := y.out(name(i)).text(); !slices.Equal(got, []string{"new 0", "new 1", "new 2"}) {
			t.Fatalf("%s: %q", name(i), got)
		}
	}
	if s := y.g.Stats(0); s.Gaps != 0 || s.Trouble != "" {
		t.Errorf("stats %+v", s)
	}
	y.stop()
	noWatcher(t)
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if n := openDescriptors(); n > descriptors {
		t.Errorf("%d descriptors, %d before", n, descriptors)
	}
	if len(y.reports) != 0 {
		t.Errorf("reported %s", strings.Join(y.reports, ", "))
	}
}

// openDescriptors is 0 where that can't be known.
func openDescriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}
