package nxtail_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nxadm/tail"
	"github.com/nxadm/tail/ratelimiter"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/nxtail"
)

// A run is a Source that runs, and what it has published.
type run struct {
	t      *testing.T
	msgs   chan tailcast.Message
	done   chan error
	cancel context.CancelCauseFunc
}

func start(t *testing.T, src tailcast.Source) *run {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &run{t, make(chan tailcast.Message, 10_000), make(chan error, 1), cancel}
	pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		for _, m := range msgs {
			r.msgs <- m
		}
		return nil
	})
	go func() { r.done <- src.Run(ctx, pub) }()
	t.Cleanup(func() { cancel(nil) })
	return r
}

func (r *run) next() tailcast.Message {
	r.t.Helper()
	select {
	case m := <-r.msgs:
		return m
	case <-time.After(20 * time.Second):
		r.t.Fatal("no message")
		return tailcast.Message{}
	}
}

func (r *run) want(lines ...string) {
	r.t.Helper()
	for _, want := range lines {
		if m := r.next(); string(m.Data) != want || m.Gap != nil || m.Topic != "topic" || m.Time.IsZero() {
			r.t.Fatalf("got %+v (%q), want %q", m, m.Data, want)
		}
	}
}

func (r *run) end() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		r.t.Fatal("Run does not return")
		return nil
	}
}

func tailFile(t *testing.T, path string, cfg tail.Config) *tail.Tail {
	t.Helper()
	cfg.Logger = tail.DiscardingLogger
	tl, err := tail.TailFile(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tl.Stop() })
	return tl
}

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// following is how a service follows a log with nxadm/tail. It polls: notifications are the same to a Source, and nxadm/tail
// shares one watcher in the whole process.
var following = tail.Config{Follow: true, ReOpen: true, CompleteLines: true, Poll: true}

func TestFileThatGrowsAndIsRenamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, "one\r\ntwo\n\nhalf")
	tl := tailFile(t, path, following)
	r := start(t, nxtail.Source(tl, "topic"))
	r.want("one", "two", "")
	write(t, path, " and half\r\n")
	r.want("half and half")
	for tries := 0; len(r.msgs) == 0; tries++ { // nxadm/tail misses a rename that comes just after a line
		if err := os.Rename(path, path+".1"); err != nil || tries == 20 {
			t.Fatal("no rename is seen", err)
		}
		write(t, path, "three\n")
		time.Sleep(time.Second)
	}
	r.want("three")
	if err := tl.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.end(); err != nil {
		t.Errorf("Run after Stop: %v", err)
	}
}

func TestContextEndsRunAndNotTheTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, "one\n")
	tl := tailFile(t, path, following)
	r := start(t, nxtail.Source(tl, "topic"))
	r.want("one")
	enough := errors.New("enough")
	r.cancel(enough)
	if err := r.end(); err != enough {
		t.Errorf("Run: %v", err)
	}
	if err := tl.Err(); !strings.Contains(err.Error(), "still alive") {
		t.Errorf("the Tail: %v", err)
	}
	write(t, path, "two\n")
	r = start(t, nxtail.Source(tl, "topic"))
	r.want("two")
}

func TestEndsOfATail(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	write(t, path, "one\ntwo")
	t.Run("a file that is not followed", func(t *testing.T) {
		r := start(t, nxtail.Source(tailFile(t, path, tail.Config{}), "topic"))
		r.want("one", "two")
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("StopAtEOF", func(t *testing.T) {
		tl := tailFile(t, path, tail.Config{Follow: true, Poll: true})
		r := start(t, nxtail.Source(tl, "topic"))
		r.want("one")
		go tl.StopAtEOF()
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("an error", func(t *testing.T) {
		tl := tailFile(t, dir, tail.Config{}) // a directory can be opened, and not read
		r := start(t, nxtail.Source(tl, "topic"))
		err := r.end()
		if err == nil || !errors.Is(err, tl.Err()) || !strings.Contains(err.Error(), dir) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Run("a hub that is closed", func(t *testing.T) {
		hub := tailcast.New()
		hub.Close()
		pub := tailcast.PublisherFunc(hub.Publish)
		err := nxtail.Source(tailFile(t, path, tail.Config{Follow: true, Poll: true}), "topic").Run(t.Context(), pub)
		if !errors.Is(err, tailcast.ErrClosed) {
			t.Errorf("Run: %v", err)
		}
	})
}

// A Tail that has ended stays so: the hub does not run it again.
func TestHubDoesNotRunItAgain(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	tl := tailFile(t, t.TempDir(), tail.Config{})
	if err := hub.Run(t.Context(), nxtail.Source(tl, "topic")); !errors.Is(err, tl.Err()) {
		t.Errorf("Hub.Run: %v", err)
	}
}

func TestRateLimitBecomesAGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	write(t, path, "one\ntwo\nthree\n")
	cfg := following
	cfg.RateLimiter = ratelimiter.NewLeakyBucket(1, time.Hour)
	r := start(t, nxtail.Source(tailFile(t, path, cfg), "topic"))
	r.want("one", "two")
	if m := r.next(); m.Gap == nil || !m.Gap.Possible || m.Gap.Count != -1 || m.Gap.Reason == "" || len(m.Data) > 0 {
		t.Errorf("got %+v", m)
	}
}

func TestLongLinesAreCutBetweenCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	long := "x" + strings.Repeat("€", 1_000_000)
	write(t, path, long+"\r\nlast\n")
	r := start(t, nxtail.Source(tailFile(t, path, tail.Config{}), "topic"))
	var got []string
	for partial := true; partial; {
		m := r.next()
		if !utf8.Valid(m.Data) || len(m.Data) > 1<<20 {
			t.Errorf("a part of %d bytes, valid: %t", len(m.Data), utf8.Valid(m.Data))
		}
		got, partial = append(got, string(m.Data)), m.Partial
	}
	if len(got) != 3 || strings.Join(got, "") != long {
		t.Errorf("%d parts, %d bytes", len(got), len(strings.Join(got, "")))
	}
	r.want("last")
}

// What nxadm/tail gives while a hub has it: all lines, in order, where nothing is rotated.
func TestThroughAHub(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	var want []string
	for i := range 1000 {
		want = append(want, strings.Repeat("x", i%100))
	}
	write(t, path, strings.Join(want, "\r\n")+"\r\n")
	hub := tailcast.New()
	defer hub.Close()
	cfg := following
	cfg.Follow, cfg.ReOpen, cfg.Location = false, false, &tail.SeekInfo{Whence: io.SeekStart}
	if err := hub.Run(t.Context(), nxtail.Source(tailFile(t, path, cfg), "")); err != nil {
		t.Fatal(err)
	}
	if head, ok := hub.Head(""); !ok || head.Offset != uint64(len(want)) {
		t.Errorf("the head is %v, %t", head, ok)
	}
	var got []string
	r := start(t, nxtail.Source(tailFile(t, path, cfg), "topic"))
	for range want {
		got = append(got, string(r.next().Data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d lines, not those that were written", len(got))
	}
}
