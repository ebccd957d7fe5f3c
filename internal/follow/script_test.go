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
// Each script runs twice: with a consumer that accepts everything, and with one that fails every other batch, so that Run
// ends and is called again. Then every position that was emitted is replayed from, beside the Run, and must give the rest
// of the same stream.
func TestScripts(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range names {
		for _, flaky := range []bool{false, true} {
			label := strings.TrimSuffix(filepath.Base(name), ".txt")
			if flaky {
				label += "/consumer fails"
			}
			t.Run(label, func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { runScript(t, name, dir, flaky) })
			})
		}
	}
}

const (
	poll  = 250 * time.Millisecond
	grace = 5 * time.Second
)

type script struct {
	t     *testing.T
	dir   string
	flaky bool
	cfg   follow.Config
	f     *follow.Follower
	out   recorder
	held  map[string]*os.File
	stop  func()

	noReplay, noFlaky bool
}

func runScript(t *testing.T, name, dir string, flaky bool) {
	commands, want := readScript(t, name)
	s := &script{t: t, dir: dir, flaky: flaky, held: make(map[string]*os.File)}
	s.cfg = follow.Config{Path: filepath.Join(dir, "app.log"), Poll: poll, Grace: grace, NoNotify: true, Report: s.out.report}
	s.out.fail = flaky
	defer s.finish()
	for _, c := range commands {
		args := splitArgs(c.text)
		if err := s.do(args[0], args[1:]); err != nil {
			t.Fatalf("%s:%d: %s: %v", name, c.line, c.text, err)
		}
		if s.noFlaky && flaky {
			t.SkipNow()
		}
	}
	s.look()
	if got := s.out.text(); !slices.Equal(got, want) {
		t.Fatalf("%s:\n got:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !s.noReplay {
		s.replayAll()
	}
}

type command struct {
	line int
	text string
}

func readScript(t *testing.T, name string) (commands []command, want []string) {
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	output := false
	sc := bufio.NewScanner(strings.NewReader(string(data)))
	for n := 1; sc.Scan(); n++ {
		switch text := sc.Text(); {
		case text == "-- output --":
			output = true
		case output:
			want = append(want, text)
		case strings.TrimSpace(text) != "" && text[0] != '#':
			commands = append(commands, command{n, text})
		}
	}
	return commands, want
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

func (s *script) path(name string) string { return filepath.Join(s.dir, name) }

func (s *script) do(verb string, args []string) error {
	switch verb {
	case "run":
		return s.run(args)
	case "look":
		s.look()
	case "sleep":
		d, err := time.ParseDuration(args[0])
		time.Sleep(d)
		synctest.Wait()
		return err
	case "noreplay":
		s.noReplay = true
	case "steady":
		s.noFlaky = true
	case "stop":
		s.stop()
	default:
		return s.file(verb, args)
	}
	return nil
}

func (s *script) file(verb string, args []string) error {
	switch name := s.path(args[0]); verb {
	case "write":
		return appendTo(name, args[1])
	case "lines":
		return s.lines(name, args)
	case "create":
		return os.WriteFile(name, nil, 0o644)
	case "overwrite":
		return os.WriteFile(name, []byte(args[1]), 0o644)
	case "rename":
		return os.Rename(name, s.path(args[1]))
	case "copy":
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(s.path(args[1]), data, 0o644))
	case "truncate":
		return os.Truncate(name, 0)
	case "remove":
		return os.RemoveAll(name)
	case "mkdir":
		return os.MkdirAll(name, 0o755)
	case "symlink":
		return os.Symlink(name, s.path(args[1]))
	case "hold":
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		s.held[args[1]] = f
		return err
	case "heldwrite":
		_, err := s.held[args[0]].WriteString(args[1])
		return err
	}
	return fmt.Errorf("unknown command")
}

func appendTo(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// lines writes many lines: name, first, last, text.
func (s *script) lines(name string, args []string) error {
	first, err := strconv.Atoi(args[1])
	last, err2 := strconv.Atoi(args[2])
	var b strings.Builder
	for i := first; i <= last; i++ {
		fmt.Fprintf(&b, "%s %d\n", args[3], i)
	}
	return errors.Join(err, err2, appendTo(name, b.String()))
}

func (s *script) run(args []string) error {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "path":
			s.cfg.Path = s.path(value)
		case "from":
			s.cfg.Start = follow.FromStart
		case "last":
			s.cfg.Start = follow.LastLines(n)
		case "max":
			s.cfg.MaxLine = n
		default:
			return fmt.Errorf("unknown option %q", key)
		}
	}
	if s.f == nil {
		s.f = follow.New(s.cfg)
	}
	s.stop = goRun(s.t, s.f, &s.out)
	synctest.Wait()
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

// look lets the follower take two looks: the second one finds what the first one has made readable.
func (s *script) look() {
	time.Sleep(2 * poll)
	synctest.Wait()
}

func (s *script) finish() {
	for _, f := range s.held {
		f.Close()
	}
	if s.stop == nil {
		return
	}
	s.stop()
	if n := s.f.Stats().Open; n != 0 {
		s.t.Errorf("%d files are still open", n)
	}
}

func (s *script) replayAll() {
	all := s.out.lines()
	for i, l := range all {
		if l.Gap != nil || slices.Contains(positions(all[i+1:]), l.Pos) {
			continue // generations that begin alike share positions, and the last one is meant
		}
		want := texts(all[i+1:])
		var got recorder
		stop := goReplay(s.t, s.f, l.Pos, &got)
		synctest.Wait()
		stop()
		if !slices.Equal(got.text(), want) {
			s.t.Fatalf("replay after %q (%d):\n got:\n%s\nwant:\n%s", l.Data, i,
				strings.Join(got.text(), "\n"), strings.Join(want, "\n"))
		}
		if !slices.Equal(got.positions(), positions(all[i+1:])) {
			s.t.Fatalf("replay after %q (%d): other positions", l.Data, i)
		}
	}
}

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

func (r *recorder) report(event string, err error) {}

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

func (r *recorder) text() []string               { return texts(r.lines()) }
func (r *recorder) positions() []follow.Position { return positions(r.lines()) }

// texts writes a line as in a script's output: a cut one ends in "…", a gap says what is known of it.
func texts(lines []follow.Line) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		switch {
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
