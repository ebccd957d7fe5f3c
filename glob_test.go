package tailcast_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// A logDir is a directory that a Tail follows with a glob.
type logDir struct {
	t   *testing.T
	dir string
}

func (d *logDir) append(name, text string) {
	d.t.Helper()
	path := filepath.Join(d.dir, filepath.FromSlash(name))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		f.Close()
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *logDir) rotate(name string) {
	d.t.Helper()
	if err := os.Rename(filepath.Join(d.dir, name), filepath.Join(d.dir, name+".1")); err != nil {
		d.t.Fatal(err)
	}
}

func (d *logDir) follow(s *site, tail *tailcast.Tail) (stop func()) {
	tail.Path, tail.PollOnly = filepath.Join(d.dir, tail.Path), true
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.hub.Run(ctx, tail) }()
	time.Sleep(time.Second)
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			d.t.Errorf("Run = %v", err)
		}
	}
}

// inDir runs body in virtual time, with a hub where everybody may read everything.
func inDir(t *testing.T, body func(d *logDir, newHub func(...tailcast.Option) *site)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(wallClock)) // as the files' times are
		body(&logDir{t, dir}, func(opts ...tailcast.Option) *site {
			return newSite(t, append(opts, tailcast.WithAuthorize(tailcast.AllowAllTopics))...)
		})
	})
}

var wallClock = time.Now()

func TestAGlobHasATopicForEachFile(t *testing.T) {
	inDir(t, func(d *logDir, newHub func(...tailcast.Option) *site) {
		s := newHub()
		d.append("a.log", "old a\n")
		d.append("b.log", "old b\n")
		d.append("b.log.1", "rotated\n")
		tail := &tailcast.Tail{Path: "*.log*", Start: tailcast.LastLines(1)}
		defer d.follow(s, tail)()
		a, b := s.get("?topic=a.log&tail=10"), s.get("?topic=b.log&tail=10")
		a.lines("old a")
		b.lines("rotated", "old b")
		c := s.get("?topic=c.log")
		synctest.Wait()
		d.append("c.log", "new c\n")
		c.lines("new c")
		d.append("a.log", "new a\n")
		a.lines("new a")
		d.rotate("a.log")
		d.append("a.log.1", "late a\n")
		d.append("a.log", "newer a\n")
		a.lines("late a", "newer a")
		synctest.Wait()
		stats := s.hub.Stats().Sources[0].Detail.(tailcast.TailStats)
		if stats.Files != 3 || stats.Lines != 6 || stats.Rotations != 1 || len(stats.Each) != 3 || stats.Each[0].Topic != "a.log" {
			t.Errorf("stats %+v", stats)
		}
		for _, topic := range []string{"b.log.1", "a.log.1"} {
			if _, ok := s.hub.Head(topic); ok {
				t.Errorf("%s is a topic", topic)
			}
		}
	})
}

// Each file is replayed from its own past, also in another process, and beyond rotations.
func TestAGlobReplaysEachFile(t *testing.T) {
	inDir(t, func(d *logDir, newHub func(...tailcast.Option) *site) {
		ids := map[string]string{}
		first := newHub(tailcast.WithRetention(tailcast.Retention{Messages: 1}))
		d.append("a.log", "")
		d.append("b.log", "")
		stop := d.follow(first, &tailcast.Tail{Path: "*.log", Topic: "logs/"})
		for _, name := range []string{"a", "b"} {
			r := first.sse("?topic=logs/" + name + ".log")
			synctest.Wait()
			d.append(name+".log", "same\n"+name+" 1\n"+name+" 2\n"+name+" 3\n")
			r.events("same", name+" 1")
			ids[name] = r.id
			r.events(name+" 2", name+" 3")
		}
		check := func(s *site, more ...string) {
			t.Helper()
			for name, id := range ids {
				r := s.sse("?topic=logs/"+name+".log", "Last-Event-ID: "+id)
				r.events(name+" 2", name+" 3")
				r.events(more...)
			}
		}
		check(first)
		stop()
		d.rotate("a.log")
		d.rotate("b.log")
		d.append("a.log", "4\n")
		d.append("b.log", "4\n")
		second := newHub()
		defer d.follow(second, &tailcast.Tail{Path: "*.log", Topic: "logs/"})()
		check(second, "4")
	})
}

// What one file can't do, the others can.
func TestAGlobWithAFileThatCannotBePublished(t *testing.T) {
	inDir(t, func(d *logDir, newHub func(...tailcast.Option) *site) {
		s := newHub()
		s.hub.Publish(t.Context(), tailcast.Message{Topic: "taken.log", Data: []byte("mine")})
		d.append("taken.log", "")
		d.append("good.log", "")
		d.append("line\nbreak.log", "")
		defer d.follow(s, &tailcast.Tail{Path: "*.log"})()
		r := s.get("?topic=good.log")
		synctest.Wait()
		for _, name := range []string{"taken.log", "line\nbreak.log", "good.log"} {
			d.append(name, "a\n")
		}
		r.lines("a")
		time.Sleep(2 * time.Minute)
		d.append("good.log", "b\n")
		r.lines("b")
		if state := s.hub.Stats().Sources[0].State; state != "running" {
			t.Errorf("the source is %s", state)
		}
	})
}

// A file and a glob that it matches are two Tails with two topics.
func TestAFileThatIsFollowedTwice(t *testing.T) {
	inDir(t, func(d *logDir, newHub func(...tailcast.Option) *site) {
		s := newHub()
		d.append("a.log", "")
		defer d.follow(s, &tailcast.Tail{Path: "*.log"})()
		defer d.follow(s, &tailcast.Tail{Path: "a.log"})()
		one, many := s.get("?topic="), s.get("?topic=a.log")
		synctest.Wait()
		for range 3 {
			d.append("a.log", "line\n")
			one.lines("line")
			many.lines("line")
			d.rotate("a.log")
		}
	})
}

func TestABadGlobFailsForGood(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	for _, tail := range []*tailcast.Tail{{Path: "[a"}, {Path: "*.log", Rotated: "*.old"}} {
		if err := hub.Run(t.Context(), tail); err == nil || !strings.Contains(err.Error(), tail.Path) {
			t.Errorf("%s: Run = %v", tail.Path, err)
		}
	}
}
