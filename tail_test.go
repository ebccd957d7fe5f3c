package tailcast_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// A logFile is a file that a test appends to and rotates.
type logFile struct {
	t    testing.TB
	path string
	f    *os.File
	gen  int
}

func newLogFile(t testing.TB, content string) *logFile {
	l := &logFile{t: t, path: filepath.Join(t.TempDir(), "app.log")}
	l.open()
	l.append(content)
	t.Cleanup(func() { l.f.Close() })
	return l
}

func (l *logFile) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *logFile) open() {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	l.must(err)
	l.f = f
}

func (l *logFile) append(s string) {
	_, err := l.f.WriteString(s)
	l.must(err)
}

func (l *logFile) lines(from, to int) {
	l.append(strings.Join(numbered(from, to), "\n") + "\n")
}

// rotate renames the file and begins a new one, as logrotate's create does.
func (l *logFile) rotate() (old *os.File) {
	l.gen++
	l.must(os.Rename(l.path, fmt.Sprintf("%s-%06d", l.path, l.gen)))
	old = l.f
	l.open()
	return old
}

// copyTruncate copies the file and empties it.
func (l *logFile) copyTruncate() {
	l.gen++
	content, err := os.ReadFile(l.path)
	l.must(err)
	l.must(os.WriteFile(fmt.Sprintf("%s-%06d", l.path, l.gen), content, 0o644))
	l.must(os.Truncate(l.path, 0))
}

// follow runs a tail of the file in the site's hub, inside a bubble: it polls, since notifications have no virtual time.
func (l *logFile) follow(s *site, tail *tailcast.Tail) (stop func()) {
	if tail == nil {
		tail = tailcast.NewTail("")
	}
	tail.Path, tail.PollOnly = l.path, true
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.hub.Run(ctx, tail) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run = %v", err)
		}
	}
}

func TestTailBeginsWhereStartSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			start     tailcast.Start
			published int
		}{
			{tailcast.FromEnd, 2},
			{tailcast.FromStart, 7},
			{tailcast.LastLines(2), 4},
			{tailcast.LastLines(99), 7},
		} {
			s := newSite(t)
			l := newLogFile(t, "")
			l.lines(1, 5)
			stop := l.follow(s, &tailcast.Tail{Start: c.start})
			r := s.get("?since=earliest")
			if c.start == tailcast.FromEnd {
				r = s.get("")
			}
			synctest.Wait()
			l.lines(6, 7)
			if c.start != tailcast.FromEnd {
				r.lines(numbered(1, 5)...) // the file has what the log has not
			}
			r.lines(numbered(6, 7)...)
			if n := s.hub.Stats().Published; n != int64(c.published) {
				t.Errorf("%d messages were published, want %d", n, c.published)
			}
			s.get("?tail=100").lines(numbered(1, 7)...) // what is shown does not depend on Start
			stop()
		}
	})
}

func TestTailFollowsThroughRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		l := newLogFile(t, "before\n")
		defer l.follow(s, nil)()
		ws := s.ws("")
		synctest.Wait()
		l.lines(1, 10)
		old := l.rotate()
		l.lines(13, 20)
		fmt.Fprint(old, "message 11\nmessage 12\n") // the writer has not noticed yet
		frames(t, ws, numbered(1, 20)...)
		fmt.Fprint(old, "late\n")
		frames(t, ws, "late")
		l.lines(21, 30)
		frames(t, ws, numbered(21, 30)...)
		time.Sleep(2 * time.Second)
		l.copyTruncate()
		l.lines(31, 40)
		frames(t, ws, numbered(31, 40)...)
		l.must(os.Remove(l.path))
		time.Sleep(time.Second)
		l.open()
		l.lines(41, 50)
		frames(t, ws, numbered(41, 50)...)
	})
}

func TestTailWaitsForItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		l := &logFile{t: t, path: filepath.Join(t.TempDir(), "dir", "app.log")}
		defer l.follow(s, nil)()
		r := s.sse("")
		synctest.Wait()
		time.Sleep(time.Minute)
		l.must(os.Mkdir(filepath.Dir(l.path), 0o755))
		time.Sleep(time.Minute)
		l.open()
		defer l.f.Close()
		l.lines(1, 3)
		r.events(numbered(1, 3)...)
	})
}

func TestALongLineComesInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		l := newLogFile(t, "")
		defer l.follow(s, &tailcast.Tail{MaxLine: 10})()
		ws, text := s.ws(""), s.get("")
		synctest.Wait()
		l.append("ääääääää\nshort\n")
		frames(t, ws, "äääää", "äää", "short")
		text.lines("ääääääää", "short")
	})
}

func TestAFileServesWhatMemoryNoLongerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 5}))
		l := newLogFile(t, "")
		defer l.follow(s, nil)()
		r := s.sse("")
		synctest.Wait()
		ids := map[int]string{}
		n := 0
		check := func(from, to int) {
			t.Helper()
			for ; n < to; n++ {
				r.events(numbered(n+1, n+1)...)
				ids[n+1] = r.id
			}
		}
		for range 4 {
			l.lines(n+1, n+20)
			check(n+1, n+20)
			l.rotate()
			time.Sleep(time.Second)
		}
		l.lines(81, 100)
		check(81, 100)
		time.Sleep(2 * time.Second) // quiet for long enough to say that nothing can be missing
		l.copyTruncate()
		l.lines(101, 120)
		check(101, 120)
		time.Sleep(20 * time.Second) // the rotated files are closed
		for from := 1; from <= 120; from++ {
			again := s.sse("", "Last-Event-ID: "+ids[from])
			for i := from + 1; i <= 120; i++ {
				e, err := again.event()
				if want := fmt.Sprint("message ", i); err != nil || e.data != want {
					t.Fatalf("resumed after %d: %+v, %v; want %s", from, e, err, want)
				}
			}
			again.nc.Close()
			synctest.Wait()
		}
	})
}

func TestAResumeSurvivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLogFile(t, "old\n")
		first := newSite(t)
		stop := l.follow(first, nil)
		r := first.sse("")
		synctest.Wait()
		l.lines(1, 10)
		r.events(numbered(1, 7)...)
		id := r.id
		stop()
		first.hub.Close()
		l.lines(11, 15)
		l.rotate()
		l.lines(16, 20)
		second := newSite(t)
		early := second.sse("", "Last-Event-ID: "+id) // before anything is known of the topic
		synctest.Wait()
		defer l.follow(second, nil)()
		late := second.sse("", "Last-Event-ID: "+id)
		late.events(numbered(8, 20)...)
		early.events(numbered(8, 20)...)
		l.lines(21, 25)
		late.events(numbered(21, 25)...)
		early.events(numbered(21, 25)...)
		synctest.Wait()
		if n := second.hub.Stats().CatchUps; n != 0 {
			t.Errorf("%d catch-ups are still going on", n)
		}
	})
}

func TestABadTailFailsForGood(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	if err := hub.Run(t.Context(), &tailcast.Tail{}); err == nil || !strings.Contains(err.Error(), "Path is empty") {
		t.Errorf("Run = %v", err)
	}
	hub.Publish(t.Context(), tailcast.Message{Topic: "x"})
	err := hub.Run(t.Context(), &tailcast.Tail{Path: filepath.Join(t.TempDir(), "f"), Topic: "x"})
	if !errors.Is(err, tailcast.ErrTopicOwner) {
		t.Errorf("Run = %v", err)
	}
}

// TestReconnectsAtFullSpeed resumes many viewers at random places of a stream that goes on, over real TCP and with
// rotations, where a part of the places is in the file only.
func TestReconnectsAtFullSpeed(t *testing.T) {
	const viewers = 8
	lines := soak(30_000)
	l := newLogFile(t, "")
	hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 3000}), tailcast.WithHosts("hub.example"))
	srv := httptest.NewServer(hub)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- hub.Run(ctx, tailcast.NewTail(l.path)) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		hub.Close()
		srv.Close()
	}()
	var reconnects atomic.Int64
	var wg sync.WaitGroup
	started := make(chan struct{}, viewers)
	for v := range viewers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(v)))
			next, id := 1, "earliest"
			for next <= lines {
				nc, err := net.Dial("tcp", srv.Listener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				r := openStream(t, nc, "/", "Accept: text/event-stream", "Last-Event-ID: "+id)
				if next == 1 {
					started <- struct{}{}
				}
				for stop := next + rng.IntN(2000); next <= min(stop, lines); next++ {
					e, err := r.event()
					if err != nil || e.data != fmt.Sprint("message ", next) {
						t.Errorf("viewer %d after %d: %+v, %v", v, next-1, e, err)
						nc.Close()
						return
					}
				}
				id = r.id
				nc.Close()
				reconnects.Add(1)
				if rng.IntN(3) == 0 { // long enough to fall out of memory
					time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
				}
			}
		})
	}
	for range viewers {
		<-started
	}
	for n := 0; n < lines; n += 100 {
		l.lines(n+1, n+100)
		if n%6000 == 0 && n > 0 {
			l.rotate().Close()
		}
	}
	wg.Wait()
	t.Logf("%d reconnects, %d gaps", reconnects.Load(), hub.Stats().Gaps)
	if n := hub.Stats().Gaps; n != 0 {
		t.Errorf("%d gaps were declared", n)
	}
}

// A restart with a checkpoint goes on with the next line, for those who have no position of their own.
func TestTailCheckpoint(t *testing.T) {
	l := newLogFile(t, "a\nb\n")
	checkpoint := filepath.Join(t.TempDir(), "app.pos")
	process := func(n int) (lines []string) { // one that ends when it has published n lines
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		src := &tailcast.Tail{Path: l.path, Start: tailcast.FromStart, Checkpoint: checkpoint, Poll: 10 * time.Millisecond}
		err := src.Run(ctx, tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
			for _, m := range msgs {
				lines = append(lines, string(m.Data))
			}
			if len(lines) >= n {
				cancel()
			}
			return nil
		}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		return lines
	}
	first := process(2)
	l.append("c\n")
	l.rotate()
	l.append("d\n")
	if got := append(first, process(2)...); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("got %q", got)
	}
}

// What is wrong with a checkpoint is said in the log and in the Stats, and the stream goes on. A second Tail with the same one
// waits until the first has ended.
func TestTailCheckpointTrouble(t *testing.T) {
	l := newLogFile(t, "a\n")
	checkpoint := filepath.Join(t.TempDir(), "app.pos")
	l.must(os.WriteFile(checkpoint, []byte("17"), 0o600))
	var log bytes.Buffer
	hub := tailcast.New(tailcast.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	defer hub.Close()
	tail := func(topic string) *tailcast.Tail {
		return &tailcast.Tail{Path: l.path, Topic: topic, Start: tailcast.FromStart, Checkpoint: checkpoint}
	}
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- hub.Run(ctx, tail("")) }()
	until := func(cond func(s tailcast.Stats) bool) tailcast.Stats {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			s := hub.Stats()
			if cond(s) || time.Now().After(deadline) {
				return s
			}
		}
	}
	stats := until(func(s tailcast.Stats) bool { return s.Published == 1 })
	go func() { done <- hub.Run(ctx, tail("second")) }()
	waiting := until(func(s tailcast.Stats) bool { return len(s.Sources) == 2 && s.Sources[1].Restarts > 0 }).Sources[1]
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for _, said := range []string{stats.Sources[0].Detail.(tailcast.TailStats).Checkpoint, log.String()} {
		if !strings.Contains(said, checkpoint) || !strings.Contains(said, "no checkpoint") {
			t.Errorf("%q", said)
		}
	}
	if !strings.Contains(waiting.Error, checkpoint+": another follower uses it") {
		t.Errorf("the second one: %q", waiting.Error)
	}
	err := hub.Run(t.Context(), &tailcast.Tail{Path: l.path, Topic: "third", Checkpoint: l.path})
	if err == nil || !strings.Contains(err.Error(), "Checkpoint is the same file") {
		t.Errorf("a checkpoint in the file itself: %v", err)
	}
}

// gzip packs the rotated files but for the newest few, as logrotate does.
func (l *logFile) gzip(but int) {
	for n := 1; n <= l.gen-but; n++ {
		name := fmt.Sprintf("%s-%06d", l.path, n)
		plain, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		l.must(err)
		info, err := os.Stat(name)
		l.must(err)
		f, err := os.Create(name + ".gz")
		l.must(err)
		w := gzip.NewWriter(f)
		_, err = w.Write(plain)
		l.must(errors.Join(err, w.Close(), f.Close(), os.Chtimes(name+".gz", time.Time{}, info.ModTime()), os.Remove(name)))
	}
}

// TestTheNewestLinesComeFromTheFile: tail=N has N lines also when the hub has just been started.
func TestTheNewestLinesComeFromTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, keep := range []int{1000, 3} {
			l := newLogFile(t, "")
			for n := 0; n < 40; n += 10 {
				l.lines(n+1, n+10)
				l.rotate().Close()
			}
			l.gzip(1)
			l.lines(41, 45)
			s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: keep}), tailcast.WithBacklog(2))
			early, earlySSE := s.get("?tail=12"), s.sse("?tail=3")
			synctest.Wait()
			stop := l.follow(s, nil)
			viewers := map[int]*reader{34: early, 43: earlySSE}
			for n := 1; n <= 45; n += 4 {
				viewers[n] = s.get(fmt.Sprint("?tail=", 46-n))
			}
			viewers[44] = s.get("")
			all := s.get("?tail=1000")
			synctest.Wait()
			l.lines(46, 50)
			synctest.Wait()
			l.rotate().Close()
			l.lines(51, 55)
			for n, v := range viewers {
				if v == earlySSE {
					v.events(numbered(n, 55)...)
					continue
				}
				v.lines(numbered(n, 55)...)
			}
			all.lines(numbered(1, 55)...)
			for n := 1; n <= 55; n++ { // what is in memory, and what comes before it
				s.get(fmt.Sprint("?tail=", 56-n)).lines(numbered(n, 55)...)
			}
			synctest.Wait()
			if n := s.hub.Stats().CatchUps; n != 0 {
				t.Errorf("%d catch-ups are still going on", n)
			}
			if n := s.hub.Stats().Gaps; n != 0 {
				t.Errorf("%d gaps", n)
			}
			stop()
		}
	})
}

// A viewer that comes before anything is published gets everything, whatever it asks for.
func TestAnEarlyViewerOfTheNewestMissesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		one, many := s.get("?tail=1"), s.sse("?tail=10")
		synctest.Wait()
		s.publish(numbered(1, 3)...)
		one.lines(numbered(1, 3)...)
		many.events(numbered(1, 3)...)
		s.publish("more")
		one.lines("more")
		many.events("more")
	})
}
