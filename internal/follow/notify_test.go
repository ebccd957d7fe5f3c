package follow_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/tailcast/tailcast/internal/follow"
)

// A hall is a directory with followers, and notifications that the test sends, in virtual time.
type hall struct {
	t       *testing.T
	dir     string
	n       *follow.Notifier
	backend *follow.Backend

	mu      sync.Mutex // guards the rest
	noOpen  error      // of opening the next backend
	noWatch error      // of watching a directory
	asked   int
	reports []string
}

func newHall(t *testing.T, dir string) *hall {
	dir, err := filepath.EvalSymlinks(dir)
	must(t, err)
	h := &hall{t: t, dir: dir}
	h.n = follow.NewNotifier(func() (*follow.Backend, error) {
		if err := h.refuse(&h.noOpen); err != nil {
			return nil, err
		}
		h.backend = &follow.Backend{Watch: func(string) error { return h.refuse(&h.noWatch) }}
		return h.backend, nil
	})
	return h
}

func (h *hall) refuse(with *error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	return *with
}

func (h *hall) path(name string) string { return filepath.Join(h.dir, name) }

func (h *hall) follow(name string) (*follow.Follower, *recorder, func()) {
	must(h.t, appendTo(h.path(name), ""))
	f := follow.New(follow.Config{Path: h.path(name), Poll: poll, Grace: grace, Report: func(event string, _ error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.reports = append(h.reports, event)
	}})
	h.n.Use(f)
	out := &recorder{}
	stop := goRun(h.t, f, out)
	synctest.Wait()
	return f, out, stop
}

func (h *hall) tell(name string, op fsnotify.Op) {
	h.backend.Events <- fsnotify.Event{Name: h.path(name), Op: op}
}

// looks counts the looks of f in a time.
func looks(f *follow.Follower, d time.Duration) int64 {
	before := f.Stats().Looks
	time.Sleep(d)
	synctest.Wait()
	return f.Stats().Looks - before
}

func inHall(t *testing.T, body func(t *testing.T, h *hall)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { body(t, newHall(t, dir)) })
}

func TestAQuietFileIsLookedAtRarely(t *testing.T) {
	inHall(t, func(t *testing.T, h *hall) {
		f, out, stop := h.follow("app.log")
		defer stop()
		time.Sleep(time.Minute)
		if n := looks(f, 400*time.Second); n < 90 || n > 130 {
			t.Errorf("%d looks in 400 s", n)
		}
		must(t, appendTo(h.path("app.log"), "a\n"))
		h.tell("app.log", fsnotify.Write)
		time.Sleep(10 * time.Millisecond)
		if got := out.text(); !slices.Equal(got, []string{"a"}) {
			t.Fatalf("got %q", got)
		}
		if n := looks(f, time.Second); n < 3 {
			t.Errorf("%d looks in the second after a line", n)
		}
		if s := f.Stats(); s.Untold != 0 || !s.Notified {
			t.Errorf("stats %+v", s)
		}
	})
}

// What no notification tells of is found, and from then on at once, until one comes.
func TestAFileWithoutNotificationsIsPolled(t *testing.T) {
	inHall(t, func(t *testing.T, h *hall) {
		f, out, stop := h.follow("app.log")
		defer stop()
		time.Sleep(time.Minute)
		wait := func(want string, limit time.Duration) {
			t.Helper()
			must(t, appendTo(h.path("app.log"), want+"\n"))
			time.Sleep(limit)
			synctest.Wait()
			if got := out.text(); len(got) == 0 || got[len(got)-1] != want {
				t.Fatalf("got %q after %v, not %q", got, limit, want)
			}
			time.Sleep(time.Minute)
		}
		wait("a", 16*poll)
		wait("b", poll)
		wait("c", poll)
		if s := f.Stats(); s.Untold != 1 {
			t.Errorf("stats %+v", s)
		}
		h.tell("app.log", fsnotify.Write)
		time.Sleep(time.Minute)
		if n := looks(f, 400*time.Second); n > 130 {
			t.Errorf("%d looks in 400 s", n)
		}
	})
}

func TestAnEventWakesItsFilesFollowerOnly(t *testing.T) {
	inHall(t, func(t *testing.T, h *hall) {
		var all []*follow.Follower
		for i := range 100 {
			f, _, stop := h.follow(fmt.Sprintf("app-%d.log", i))
			defer stop()
			all = append(all, f)
		}
		if n := h.n.Watching(); n != 1 {
			t.Errorf("%d directories are watched", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for _, name := range []string{"app-7.log", "app-7.log.1", "app-7.log.2.gz", "app-7-20260101.log"} {
			time.Sleep(time.Until(time.Now().Truncate(poll).Add(poll + poll/2))) // between two ticks
			var before []int64
			for _, f := range all {
				before = append(before, f.Stats().Looks)
			}
			h.tell(name, fsnotify.Create)
			synctest.Wait()
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			for i, f := range all {
				if woken := f.Stats().Looks - before[i]; (woken > 0) != (i == 7) {
					t.Errorf("%s: app-%d.log was looked at %d times", name, i, woken)
				}
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestLimitsMeanPollingUntilTheyAreGone(t *testing.T) {
	for name, opens := range map[string]bool{"instances": true, "watches": false} {
		t.Run(name, func(t *testing.T) {
			inHall(t, func(t *testing.T, h *hall) {
				if opens {
					h.noOpen = fmt.Errorf("no room: %w", syscall.EMFILE)
				} else {
					h.noWatch = fmt.Errorf("no room: %w", syscall.ENOSPC)
				}
				f, out, stop := h.follow("app.log")
				defer stop()
				_, _, stop2 := h.follow("other.log")
				defer stop2()
				time.Sleep(time.Minute)
				must(t, appendTo(h.path("app.log"), "a\n"))
				time.Sleep(poll)
				synctest.Wait()
				if got := out.text(); !slices.Equal(got, []string{"a"}) {
					t.Errorf("got %q", got)
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				if !slices.Equal(h.reports, []string{follow.EventUnwatched, follow.EventUnwatched}) { // one for each
					t.Errorf("reported %q", h.reports)
				}
				if s := f.Stats(); s.Notified || s.Unwatched == 0 {
					t.Errorf("stats %+v", s)
				}
				if h.asked > 14 {
					t.Errorf("the system was asked %d times in a minute", h.asked)
				}
				h.noOpen, h.noWatch = nil, nil
				h.mu.Unlock()
				time.Sleep(time.Minute)
				if s := f.Stats(); !s.Notified || s.Trouble != "" {
					t.Errorf("stats %+v", s)
				}
				n := looks(f, 400*time.Second)
				h.mu.Lock()
				if n > 130 {
					t.Errorf("%d looks in 400 s", n)
				}
			})
		})
	}
}

func TestAnOverflowWakesEverybody(t *testing.T) {
	inHall(t, func(t *testing.T, h *hall) {
		f, out, stop := h.follow("app.log")
		defer stop()
		time.Sleep(time.Minute)
		must(t, appendTo(h.path("app.log"), "a\n"))
		for range 1000 {
			h.backend.Errors <- fsnotify.ErrEventOverflow
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if got := out.text(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("got %q", got)
		}
		if s := f.Stats(); s.Overflows != 1000 || s.Untold != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// A watch that ends without a word is found missing.
func TestALostWatchIsMadeAgain(t *testing.T) {
	inHall(t, func(t *testing.T, h *hall) {
		f, _, stop := h.follow("app.log")
		defer stop()
		time.Sleep(time.Minute)
		must(t, h.backend.Remove(h.dir))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if list := h.backend.WatchList(); len(list) != 1 || !f.Stats().Notified {
			t.Errorf("watched: %q", list)
		}
	})
}

// Events are of the directory that the name leads to; they come by that name only.
func TestNotificationsThroughLinkedDirectories(t *testing.T) {
	dir := t.TempDir()
	real1, real2, link := filepath.Join(dir, "1"), filepath.Join(dir, "2"), filepath.Join(dir, "logs")
	must(t, os.Mkdir(real1, 0o755))
	must(t, os.Mkdir(real2, 0o755))
	if err := os.Symlink(real1, link); err != nil {
		t.Skip(err)
	}
	must(t, appendTo(filepath.Join(real2, "target.log"), ""))
	must(t, os.Symlink(filepath.Join(real2, "target.log"), filepath.Join(real1, "link.log")))
	var outs [3]recorder
	for i, path := range []string{filepath.Join(link, "app.log"), filepath.Join(real1, "app.log"), filepath.Join(link, "link.log")} {
		began := make(chan struct{}, 1)
		f := follow.New(follow.Config{Path: path, Poll: time.Hour, Begin: signal(began)})
		defer goRun(t, f, &outs[i])()
		<-began
	}
	must(t, appendTo(filepath.Join(real1, "app.log"), "a\n"))
	outs[0].wait(t, 1)
	outs[1].wait(t, 1)
	must(t, appendTo(filepath.Join(real2, "target.log"), "b\n"))
	outs[2].wait(t, 1)
}

// Several hundred followers take one instance of the system's, and give it back.
func TestFollowersShareOneInstance(t *testing.T) {
	dir := t.TempDir()
	before := runtime.NumGoroutine()
	var stops []func()
	var outs []*recorder
	for i := range 300 { // Linux has 128 instances for a user
		path := filepath.Join(dir, fmt.Sprint(i%10), fmt.Sprintf("%d.log", i))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, appendTo(path, ""))
		began := make(chan struct{}, 1)
		f := follow.New(follow.Config{Path: path, Poll: time.Hour, Begin: signal(began), Report: func(event string, err error) {
			t.Errorf("%s: %s: %v", path, event, err)
		}})
		outs = append(outs, &recorder{})
		stops = append(stops, goRun(t, f, outs[i]))
		<-began
	}
	if n := instances(t); n != 1 && n != -1 {
		t.Errorf("%d instances", n)
	}
	for i := range outs {
		must(t, appendTo(filepath.Join(dir, fmt.Sprint(i%10), fmt.Sprintf("%d.log", i)), "a\n"))
	}
	for _, out := range outs {
		out.wait(t, 1)
	}
	for _, stop := range stops {
		stop()
	}
	noWatcher(t)
	if n := instances(t); n != 0 && n != -1 {
		t.Errorf("%d instances are left", n)
	}
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// instances counts the process's inotify instances; -1 where that can't be known.
func instances(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		return -1
	}
	must(t, err)
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(to, "inotify") {
			n++
		}
	}
	return n
}

// A file that was created and removed between two looks has left no trace but its notifications.
func TestAFileThatCameAndWent(t *testing.T) {
	const made, wrote, gone, moved = fsnotify.Create, fsnotify.Write, fsnotify.Remove, fsnotify.Rename
	for _, tt := range []struct {
		name   string
		events []fsnotify.Op // from the removal of the file that was read, to the creation of the one that comes
		want   []string
	}{
		{"one after the other", []fsnotify.Op{gone, made}, nil},
		{"unseen", []fsnotify.Op{gone, made, wrote, wrote, gone, made}, []string{"GAP -1 bytes"}},
		{"unseen and renamed over", []fsnotify.Op{gone, made, wrote, made}, []string{"GAP possible, -1 bytes"}},
		{"unseen and empty", []fsnotify.Op{gone, made, gone, made}, nil},
		{"renamed", []fsnotify.Op{moved, made, wrote, moved, made}, nil},
		{"renamed over", []fsnotify.Op{made}, nil},
		{"an event is lost", []fsnotify.Op{gone, wrote, gone, made}, nil},
		{"all events are lost", nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inHall(t, func(t *testing.T, h *hall) {
				_, out, stop := h.follow("app.log")
				defer stop()
				must(t, appendTo(h.path("app.log"), "a\n"))
				h.tell("app.log", wrote)
				time.Sleep(10 * time.Millisecond)
				for range 2 {
					must(t, os.Remove(h.path("app.log")))
					must(t, appendTo(h.path("app.log"), "b\n"))
					for _, op := range tt.events {
						h.tell("app.log", op)
					}
					time.Sleep(time.Second)
				}
				want := slices.Concat([]string{"a"}, tt.want, []string{"b"}, tt.want, []string{"b"})
				if got := out.text(); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}
