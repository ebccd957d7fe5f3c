package follow_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// TestScripts runs testdata/*.txt: commands, then "-- output --", then what the follower must have emitted, one line each.
// testdata/README.md lists the commands. Time is virtual, so a script says exactly what happens between two looks.
//
// Each script runs six times: with a consumer that accepts everything, with one that fails every other batch, so that Run
// ends and is called again, with no room for a file that is idle, on a file system that keeps only whole seconds, and with both
// kinds of file times on one that notes births. Then every position that was emitted is
// replayed from, beside the Run and after it, and must give the rest of the same stream; and so must another process.
func TestScripts(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range names {
		s := readScript(t, name)
		label := strings.TrimSuffix(filepath.Base(name), ".txt")
		t.Run(label, func(t *testing.T) { s.test(t, func(*rig) {}) })
		t.Run(label+"/births", func(t *testing.T) { s.test(t, func(r *rig) { r.births.On = true }) })
		if !raced { // how exact times are is nothing between goroutines
			t.Run(label+"/file times in seconds", func(t *testing.T) { s.test(t, func(r *rig) { r.coarse = true }) })
			t.Run(label+"/births in seconds", func(t *testing.T) { s.test(t, func(r *rig) { r.births.On, r.coarse = true, true }) })
		}
		if !s.steady && !s.open {
			t.Run(label+"/closed while idle", func(t *testing.T) { s.test(t, func(r *rig) { r.cfg.Open = follow.NewOpenLimit(0) }) })
		}
		if !s.steady {
			t.Run(label+"/consumer fails", func(t *testing.T) { s.test(t, func(r *rig) { r.flaky = true }) })
		}
	}
}

type script struct {
	name     string
	commands []command
	want     []string
	steady   bool // not with a consumer that fails
	open     bool // not with a file that is closed while it is idle
}

type command struct {
	line int
	args []string
}

func readScript(t *testing.T, name string) *script {
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{name: name}
	output := false
	sc := bufio.NewScanner(strings.NewReader(string(data)))
	for n := 1; sc.Scan(); n++ {
		switch text := sc.Text(); {
		case text == "-- output --":
			output = true
		case output:
			s.want = append(s.want, text)
		case text == "steady":
			s.steady = true
		case text == "open":
			s.open = true
		case strings.TrimSpace(text) != "" && text[0] != '#':
			s.commands = append(s.commands, command{n, splitArgs(text)})
		}
	}
	return s
}

// splitArgs splits at spaces; a quoted argument is a Go string.
func splitArgs(s string) (args []string) {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if q, err := strconv.QuotedPrefix(s); err == nil {
			arg, _ := strconv.Unquote(q)
			args, s = append(args, arg), s[len(q):]
			continue
		}
		arg, rest, _ := strings.Cut(s, " ")
		args, s = append(args, arg), rest
	}
	return args
}

func (s *script) test(t *testing.T, variant func(*rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		variant(r)
		for _, c := range s.commands {
			if err := r.do(c.args[0], c.args[1:]); err != nil {
				t.Fatalf("%s:%d: %s: %v", s.name, c.line, c.args, err)
			}
		}
		r.look()
		if !slices.Equal(r.out, s.want) {
			t.Fatalf("%s:\n got:\n%s\nwant:\n%s", s.name, strings.Join(r.out, "\n"), strings.Join(s.want, "\n"))
		}
		r.check()
	})
}

// verbs are the commands with the number of their arguments.
var verbs = map[string]struct {
	args int
	do   func(r *rig, a []string) error
}{
	"stop":      {0, func(r *rig, _ []string) error { r.stop(); return nil }},
	"restart":   {0, func(r *rig, _ []string) error { r.restart(); return nil }},
	"exit":      {0, func(r *rig, _ []string) error { r.exit(); return nil }},
	"kill":      {0, func(r *rig, _ []string) error { r.kill(); return nil }},
	"fail":      {0, func(r *rig, _ []string) error { return r.set(func() { r.failNext = true }) }},
	"events":    {0, func(r *rig, _ []string) error { return r.set(func() { r.events = true }) }},
	"look":      {0, func(r *rig, _ []string) error { r.look(); return nil }},
	"sleep":     {1, (*rig).sleep},
	"say":       {1, func(r *rig, a []string) error { return r.set(func() { r.out = append(r.out, "# "+a[0]) }) }},
	"write":     {2, func(r *rig, a []string) error { r.write(a[0], a[1]); return nil }},
	"overwrite": {2, func(r *rig, a []string) error { r.truncate(a[0]); r.write(a[0], a[1]); return nil }},
	"create":    {1, func(r *rig, a []string) error { r.write(a[0], ""); return nil }},
	"truncate":  {1, func(r *rig, a []string) error { r.truncate(a[0]); return nil }},
	"remove":    {1, func(r *rig, a []string) error { r.remove(a[0]); return nil }},
	"mkdir":     {1, func(r *rig, a []string) error { return os.MkdirAll(r.path(a[0]), 0o755) }},
	"rename":    {2, func(r *rig, a []string) error { r.rename(a[0], a[1]); return nil }},
	"hole":      {2, (*rig).hole},
	"gzip":      {1, func(r *rig, a []string) error { r.gzip(a[0], 1, false); return nil }},
	"gzipping":  {2, (*rig).gzipping},
	"spoil":     {2, (*rig).spoil},
	"copy":      {2, func(r *rig, a []string) error { r.copy(a[0], a[1]); return nil }},
	"symlink":   {2, func(r *rig, a []string) error { return os.Symlink(r.path(a[0]), r.path(a[1])) }},
	"hold":      {2, func(r *rig, a []string) error { r.hold(a[1], a[0]); return nil }},
	"heldwrite": {2, func(r *rig, a []string) error { r.heldWrite(a[0], a[1]); return nil }},
}

func (r *rig) do(name string, args []string) error {
	if name == "run" {
		return r.runWith(args)
	}
	verb, ok := verbs[name]
	switch {
	case !ok:
		return errors.New("unknown command")
	case verb.args != len(args):
		return fmt.Errorf("%d arguments, want %d", len(args), verb.args)
	}
	return verb.do(r, args)
}

func (r *rig) sleep(args []string) error {
	d, err := time.ParseDuration(args[0])
	r.wait(d)
	return err
}

func (r *rig) runWith(args []string) error {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "path":
			r.cfg.Path = r.path(value)
		case "checkpoint":
			r.cfg.Checkpoint = r.path(value)
		case "rotated":
			r.cfg.Rotated = r.path(value)
		case "from":
			r.cfg.Start = follow.FromStart
		case "last":
			r.cfg.Start = follow.LastLines(n)
		case "max":
			r.cfg.MaxLine = n
		default:
			return fmt.Errorf("unknown option %q", key)
		}
	}
	r.run()
	return nil
}

// goRun runs the follower until stop is called, again and again where the consumer fails.
func goRun(t *testing.T, f *follow.Follower, out *recorder) (stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			err := f.Run(ctx, out.emit)
			if errors.Is(err, errStop) {
				return
			}
			if !errors.Is(err, errFlaky) {
				t.Errorf("Run returned %v", err)
				return
			}
		}
	}()
	return func() { cancel(errStop); <-done }
}

var (
	errStop  = errors.New("stop")
	errFlaky = errors.New("the consumer failed")
)

func goReplay(t *testing.T, f *follow.Follower, after follow.Position, out *recorder) (stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Replay(ctx, after, out.emit); !errors.Is(err, errStop) {
			t.Errorf("Replay returned %v", err)
		}
	}()
	return func() { cancel(errStop); <-done }
}

// A recorder keeps what was emitted and accepted.
type recorder struct {
	fail bool // every other batch

	mu    sync.Mutex
	calls int
	got   []follow.Line
	grown chan struct{}
}

func (r *recorder) emit(lines []follow.Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.calls++; r.fail && r.calls%2 == 1 {
		return errFlaky
	}
	for _, l := range lines {
		l.Data = slices.Clone(l.Data)
		r.got = append(r.got, l)
	}
	if r.grown != nil {
		close(r.grown)
		r.grown = nil
	}
	return nil
}

func (r *recorder) lines() []follow.Line {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// wait returns once n lines have come.
func (r *recorder) wait(t *testing.T, n int) []follow.Line {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		got := slices.Clone(r.got)
		if r.grown == nil {
			r.grown = make(chan struct{})
		}
		grown := r.grown
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-grown:
		case <-timeout:
			t.Fatalf("%d lines came, not %d; the last ones: %q", len(got), n, texts(got[max(0, len(got)-5):]))
		}
	}
}

func (r *recorder) text() []string { return texts(r.lines()) }

// texts writes a line as in a script's output: a cut one ends in "…", a gap says what is known of it.
func texts(lines []follow.Line) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		switch {
		case isHole(l.Gap):
			out = append(out, fmt.Sprintf("HOLE %d", l.Gap.Bytes))
		case l.Gap != nil && l.Gap.Possible:
			out = append(out, fmt.Sprintf("GAP possible, %d bytes", l.Gap.Bytes))
		case l.Gap != nil:
			out = append(out, fmt.Sprintf("GAP %d bytes", l.Gap.Bytes))
		case l.Partial:
			out = append(out, escape(l.Data)+"…")
		default:
			out = append(out, escape(l.Data))
		}
	}
	return out
}

func escape(b []byte) string {
	q := strconv.Quote(string(b))
	return q[1 : len(q)-1]
}

func positions(lines []follow.Line) []follow.Position {
	out := make([]follow.Position, len(lines))
	for i, l := range lines {
		out[i] = l.Pos
	}
	return out
}
