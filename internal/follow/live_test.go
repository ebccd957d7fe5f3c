package follow_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// These tests run in real time, with the kernel's notifications. They wait for lines, never for time.

func TestNotificationsAreEnough(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	out, began := recorder{}, make(chan struct{}, 1)
	f := follow.New(follow.Config{Path: path, Poll: time.Hour, Begin: signal(began)})
	stop := goRun(t, f, &out)
	<-began
	must(t, appendTo(path, "a\n"))
	out.wait(t, 1)
	must(t, appendTo(path, "b\n"))
	out.wait(t, 2)
	must(t, os.Rename(path, path+".1"))
	must(t, appendTo(path, "c\n"))
	out.wait(t, 3)
	must(t, appendTo(path+".1", "late\n"))
	got := texts(out.wait(t, 4))
	if want := []string{"a", "b", "c", "late"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	stop()
	noWatcher(t)
}

// noWatcher checks that no watcher's goroutine is left. One that has said so may take a moment to be gone.
func noWatcher(t *testing.T) {
	stack := make([]byte, 1<<20)
	for range 1000 {
		if all := string(stack[:runtime.Stack(stack, true)]); !strings.Contains(all, "follow.(*instance)") && !strings.Contains(all, "fsnotify") {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("a goroutine outlives Run:\n%s", stack)
}

func signal(c chan struct{}) func(follow.Position) {
	return func(follow.Position) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplacedDirectoryIsWatchedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	path := filepath.Join(dir, "app.log")
	must(t, os.Mkdir(dir, 0o755))
	must(t, appendTo(path, "a\n"))
	var out recorder
	f := follow.New(follow.Config{Path: path, Start: follow.FromStart, Poll: 20 * time.Millisecond})
	defer goRun(t, f, &out)()
	out.wait(t, 1)
	must(t, os.Rename(dir, dir+".old"))
	must(t, os.Mkdir(dir, 0o755))
	must(t, appendTo(path, "b\n"))
	out.wait(t, 2)
	must(t, appendTo(path, "c\n"))
	if got := texts(out.wait(t, 3)); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("got %q", got)
	}
}

func TestRunReturnsTheConsumersErrorAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	must(t, appendTo(path, "a\n"))
	f := follow.New(follow.Config{Path: path, Start: follow.FromStart, Poll: 10 * time.Millisecond})
	err := f.Run(t.Context(), func([]follow.Line) error { return errFlaky })
	if err != errFlaky {
		t.Fatalf("Run returned %v", err)
	}
	if n := f.Stats().Open; n != 0 {
		t.Errorf("%d files are open", n)
	}
	must(t, os.Rename(path, path+".1"))
	must(t, appendTo(path, "b\n"))
	var out recorder
	defer goRun(t, f, &out)()
	if got := texts(out.wait(t, 2)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q", got)
	}
}

func TestTroubleIsReportedOnce(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "app.log")
		var events []string
		cfg := follow.Config{Path: path, NoNotify: true, Report: func(event string, err error) { events = append(events, event) }}
		var out recorder
		stop := goRun(t, follow.New(cfg), &out)
		defer stop()
		step := func(err error) {
			must(t, err)
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		step(nil)
		step(os.Mkdir(path, 0o755))
		step(os.Remove(path))
		step(appendTo(path, "a\n"))
		step(os.Rename(path, path+".1"))
		step(appendTo(path, "b\n"))
		want := []string{follow.EventMissing, follow.EventIrregular, follow.EventMissing, follow.EventRecovered, follow.EventMissing,
			follow.EventRecovered}
		if !slices.Equal(events, want) {
			t.Errorf("reported %q, want %q", events, want)
		}
	})
}

// A world is a follower in virtual time that has run over a rotation.
func world(t *testing.T, body func(t *testing.T, path string)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { body(t, filepath.Join(dir, "app.log")) })
}

func polling(path string) follow.Config { return follow.Config{Path: path, NoNotify: true, Poll: poll} }

func passTime() {
	time.Sleep(2 * poll)
	synctest.Wait()
}

func TestReplayWaitsAtTheHeadAndWakes(t *testing.T) {
	world(t, func(t *testing.T, path string) {
		must(t, appendTo(path, "a\n"))
		var live, replayed recorder
		cfg := polling(path)
		cfg.Start = follow.FromStart
		f := follow.New(cfg)
		defer goRun(t, f, &live)()
		passTime()
		defer goReplay(t, f, live.lines()[0].Pos, &replayed)()
		passTime()
		if got := replayed.text(); len(got) != 0 {
			t.Fatalf("the replay is ahead: %q", got)
		}
		must(t, appendTo(path, "b\n"))
		synctest.Wait()
		if got := replayed.text(); len(got) != 0 {
			t.Fatalf("the replay has read what Run has not emitted: %q", got)
		}
		passTime()
		if got := replayed.text(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("replayed %q", got)
		}
	})
}

func TestReplayOfAPositionThatIsNowhereDeclaresAGap(t *testing.T) {
	world(t, func(t *testing.T, path string) {
		must(t, appendTo(path+".1", "a\n"))
		must(t, appendTo(path, "b\n"))
		f := follow.New(polling(path))
		var live, replayed recorder
		defer goRun(t, f, &live)()
		synctest.Wait()
		defer goReplay(t, f, follow.Position{Epoch: 1, Offset: 2, Check: 3}, &replayed)()
		synctest.Wait()
		if got, want := replayed.text(), []string{"GAP possible, -1 bytes", "a", "b"}; !slices.Equal(got, want) {
			t.Errorf("replayed %q, want %q", got, want)
		}
	})
}

func TestReplayRefusesWhatIsNoPosition(t *testing.T) {
	f := follow.New(follow.Config{Path: filepath.Join(t.TempDir(), "app.log")})
	err := f.Replay(t.Context(), follow.Position{Offset: 1}, nil)
	if !errors.Is(err, follow.ErrUnknownPosition) {
		t.Errorf("Replay returned %v", err)
	}
}

// What an earlier process has given out is found again, and joins the live stream without a seam.
func TestReplayFromBeforeTheHistory(t *testing.T) {
	world(t, func(t *testing.T, path string) {
		must(t, appendTo(path+".2", "a\nb\n"))
		must(t, appendTo(path+".1", "c\nunterminated"))
		must(t, appendTo(path, "d\n"))
		var early, live, late recorder
		f := follow.New(polling(path))
		stop := goReplay(t, f, follow.Position{}, &early)
		synctest.Wait()
		all := []string{"a", "b", "c", "unterminated", "d"}
		if got := early.text(); !slices.Equal(got, all) {
			t.Fatalf("without a Run: %q, want %q", got, all)
		}
		defer stop()
		defer goRun(t, f, &live)()
		synctest.Wait()
		must(t, appendTo(path, "e\n"))
		passTime()
		defer goReplay(t, f, early.lines()[1].Pos, &late)()
		synctest.Wait()
		if got, want := live.text(), []string{"e"}; !slices.Equal(got, want) {
			t.Errorf("live %q, want %q", got, want)
		}
		if got, want := early.text(), append(all, "e"); !slices.Equal(got, want) {
			t.Errorf("the replay that began before the Run: %q, want %q", got, want)
		}
		if got, want := late.text(), []string{"c", "unterminated", "d", "e"}; !slices.Equal(got, want) {
			t.Errorf("the replay from b: %q, want %q", got, want)
		}
	})
}

func TestRunAfterAPositionOfAnEarlierProcess(t *testing.T) {
	world(t, func(t *testing.T, path string) {
		must(t, appendTo(path, "a\nb\n"))
		cfg := polling(path)
		cfg.Start = follow.FromStart
		var before, after recorder
		stop := goRun(t, follow.New(cfg), &before)
		synctest.Wait()
		stop()
		must(t, os.Rename(path, path+".2"))
		must(t, appendTo(path, "c\n"))
		must(t, os.Rename(path, path+".1"))
		must(t, appendTo(path, "d\n"))
		cfg.After = before.lines()[0].Pos
		defer goRun(t, follow.New(cfg), &after)()
		passTime()
		if got, want := after.text(), []string{"b", "c", "d"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Lines that came between copy and truncation were delivered live, but no file has them: the replay says how much.
func TestReplayThroughACopyThatWasOvertaken(t *testing.T) {
	world(t, func(t *testing.T, path string) {
		cfg := polling(path)
		f := follow.New(cfg)
		var live, replayed recorder
		defer goRun(t, f, &live)()
		passTime()
		must(t, appendTo(path, "a\n"))
		passTime()
		must(t, appendTo(path, "b\n"))
		passTime()
		must(t, appendTo(path+".1", "a\nb\n"))
		must(t, appendTo(path, "only here\n"))
		passTime()
		must(t, os.Truncate(path, 0))
		must(t, appendTo(path, "c\n"))
		passTime()
		defer goReplay(t, f, live.lines()[0].Pos, &replayed)()
		synctest.Wait()
		want := []string{"b", "GAP 10 bytes", "GAP possible, -1 bytes", "c"}
		if got := replayed.text(); !slices.Equal(got, want) {
			t.Errorf("replayed %q, want %q; live %q", got, want, live.text())
		}
	})
}

func TestRunReturnsTheCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errStop)
	f := follow.New(follow.Config{Path: filepath.Join(t.TempDir(), "app.log")})
	if err := f.Run(ctx, func([]follow.Line) error { return nil }); err != errStop {
		t.Errorf("Run returned %v", err)
	}
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
