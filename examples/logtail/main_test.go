package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// timeout is how long a test waits for what should come at once.
const timeout = 20 * time.Second

func TestPlainGetShowsTheLastLinesAndThenNewOnes(t *testing.T) {
	path := write(t, t.TempDir(), "app.log", "one\ntwo\nthree\n")
	p := start(t, "-last", "2", path)
	lines := p.get("/logs", "")
	want(t, lines, "two", "three")
	appendTo(t, path, "four\n")
	want(t, lines, "four")
}

func TestFromStartShowsTheFirstLine(t *testing.T) {
	path := write(t, t.TempDir(), "app.log", "one\ntwo\nthree\n")
	p := start(t, "-from-start", "-last", "1", path)
	want(t, p.get("/logs", ""), "one", "two", "three")
	want(t, p.get("/logs", ""), "one", "two", "three")
}

func TestEventStreamHasLinesWithIDs(t *testing.T) {
	path := write(t, t.TempDir(), "app.log", "one\n")
	p := start(t, path)
	lines := p.get("/logs", "text/event-stream")
	until(t, lines, "data: one")
	if id := lines.next(); !strings.HasPrefix(id, "id: 1") {
		t.Fatalf("after the data came %q, want an id", id)
	}
	appendTo(t, path, "two\n")
	until(t, lines, "data: two")
}

func TestSeveralFilesAreTopics(t *testing.T) {
	dir := t.TempDir()
	a, b := write(t, dir, "a.log", "from a\n"), write(t, dir, "b.log", "from b\n")
	p := start(t, a, b)
	want(t, p.get("/logs?topic=a.log", ""), "from a")

	all := p.get("/logs", "")
	seen := []string{all.next(), all.next(), all.next(), all.next(), all.next()} // the order of topics is not promised
	for _, line := range []string{"==> a.log <==", "from a", "==> b.log <==", "from b"} {
		if !slices.Contains(seen, line) {
			t.Fatalf("got %q, no %q", seen, line)
		}
	}

	one := p.get("/logs?topic=b.log", "")
	want(t, one, "from b")
	appendTo(t, a, "more of a\n")
	until(t, all, "more of a")
	appendTo(t, b, "more of b\n")
	want(t, one, "more of b")
}

func TestFileThatDoesNotExistYetIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "later.log")
	p := start(t, path)
	lines := p.get("/logs", "")
	write(t, filepath.Dir(path), "later.log", "here I am\n")
	want(t, lines, "here I am")
	p.stop()
	if got := p.stderr.String(); strings.Count(got, "does not exist yet") != 1 {
		t.Fatalf("stderr: %q, want it said once", got)
	}
}

func TestDemoRotatesAndLosesNothing(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	t.Setenv("TMP", tmp) // on Windows
	p := start(t, "-demo-interval", "1ms", "-demo-rotate", "200")
	lines := p.get("/logs", "")
	number := demoNumber(t, lines.next())
	for range 450 { // two rotations at least
		number++
		if line := lines.next(); demoNumber(t, line) != number {
			t.Fatalf("got %q, want number %d", line, number)
		}
	}
	p.stop()
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Fatalf("left behind: %v", left)
	}
}

func demoNumber(t *testing.T, line string) int {
	t.Helper()
	m := regexp.MustCompile(`#0*(\d+) |"n":(\d+),`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("no demo line: %q", line)
	}
	n, err := strconv.Atoi(m[1] + m[2])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStatsCountViewers(t *testing.T) {
	p := start(t, write(t, t.TempDir(), "app.log", "one\n"))
	want(t, p.get("/logs", ""), "one")
	var stats struct {
		Connections map[string]int
		Published   int
	}
	if err := json.Unmarshal(p.read("/stats"), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Connections["text"] != 1 || stats.Published != 1 {
		t.Fatalf("got %+v", stats)
	}
}

func TestPageIsTheViewer(t *testing.T) {
	dir := t.TempDir()
	one, other := write(t, dir, "app.log", "one\n"), write(t, dir, "db.log", "two\n")
	for _, test := range []struct {
		args  []string
		wants []string
	}{
		{[]string{one}, []string{`data-hub="logs"`, `data-tail="1000"`, `data-topics=""`, "<title>app.log</title>"}},
		{[]string{one, other}, []string{`data-topics="[&#34;app.log&#34;,&#34;db.log&#34;]"`, "<title>logtail</title>"}},
		{[]string{"-last", "2000", one}, []string{`data-tail="2000"`}},
		{[]string{"-from-start", one}, []string{`data-tail="100000"`}},
	} {
		p := start(t, test.args...)
		html := string(p.read("/"))
		for _, want := range test.wants {
			if !strings.Contains(html, want) {
				t.Errorf("%v: no %s in\n%.600s", test.args, want, html)
			}
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(html, -1) {
			p.read("/" + m[1]) // fails unless it is there
		}
		p.stop()
	}
}

func TestSignalSaysGoodbye(t *testing.T) {
	p := start(t, write(t, t.TempDir(), "app.log", "one\n"))
	lines := p.get("/logs", "text/event-stream")
	until(t, lines, "data: one")
	p.stop() // checks that the exit code is 0
	until(t, lines, "event: bye")
}

func TestMistakesGetOneSentence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	file := write(t, dir, "app.log", "")
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"a flag that does not exist":        {[]string{"-color"}, exitUsage, "-color"},
		"a number that is none":             {[]string{"-last", "few"}, exitUsage, "few"},
		"a negative number of lines":        {[]string{"-last", "-1", file}, exitUsage, "must not be negative"},
		"no time between demo lines":        {[]string{"-demo-interval", "0"}, exitUsage, "must be positive"},
		"a checkpoint of no file":           {[]string{"-checkpoint", "app.pos"}, exitUsage, "exactly one FILE"},
		"two files of one base name":        {[]string{file, filepath.Join(dir, "old", "app.log")}, exitUsage, "would both be called app.log"},
		"more files than topics":            {slices.Repeat([]string{file}, maxLogs+1), exitUsage, "too many"},
		"a name with control characters":    {[]string{"a\nb.log", file}, exitUsage, "plain text"},
		"a directory":                       {[]string{dir}, exitRuntime, "is a directory"},
		"an address in use":                 {[]string{"-addr", ln.Addr().String(), file}, exitRuntime, "-addr sets another"},
		"an address in use, with the demo":  {[]string{"-addr", ln.Addr().String()}, exitRuntime, "-addr sets another"},
		"an address that cannot be written": {[]string{"-addr", "nowhere", file}, exitRuntime, "missing port"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), test.args, &stdout, &stderr)
			if code != test.code || stdout.Len() > 0 {
				t.Errorf("exit %d, stdout %q; want %d and nothing", code, &stdout, test.code)
			}
			if got := stderr.String(); !strings.Contains(got, test.says) || strings.Count(got, "\n") != 1 {
				t.Errorf("stderr %q, want one line that says %q", got, test.says)
			}
		})
	}
}

func TestHelpIsNoMistake(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-h"}, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Errorf("exit %d, stderr %q", code, &stderr)
	}
	if !strings.Contains(stdout.String(), "-from-start") {
		t.Errorf("stdout %q", &stdout)
	}
}

func TestURLIsOneThatABrowserCanOpen(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080",
		"[::1]:8080":     "http://[::1]:8080",
		"0.0.0.0:8080":   "http://localhost:8080",
		"[::]:8080":      "http://localhost:8080",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := baseURL(tcp); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

// A program is a run of logtail on a free port. It must end well.
type program struct {
	t      *testing.T
	url    string
	stderr bytes.Buffer // to be read after stop
	stop   func()
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{t: t}
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), w, &p.stderr)
		w.Close()
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case c := <-code:
			if c != exitOK {
				t.Errorf("exit %d: %s", c, &p.stderr)
			}
		case <-time.After(timeout):
			t.Errorf("still running")
		}
	})
	t.Cleanup(p.stop)
	first, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		p.stop()
		t.Fatal("it did not start")
	}
	go io.Copy(io.Discard, r)
	p.url = strings.TrimRight(strings.Fields(first)[1], "/")
	return p
}

// get opens a stream.
func (p *program) get(path, accept string) *response {
	p.t.Helper()
	resp := p.do(path, accept)
	return &response{t: p.t, lines: bufio.NewReader(resp.Body)}
}

// read returns a whole body.
func (p *program) read(path string) []byte {
	p.t.Helper()
	body, err := io.ReadAll(p.do(path, "").Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return body
}

func (p *program) do(path, accept string) *http.Response {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	p.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		p.t.Fatalf("GET %s: %s", path, resp.Status)
	}
	return resp
}

// A response is a response that goes on.
type response struct {
	t     *testing.T
	lines *bufio.Reader
}

func (s *response) next() string {
	s.t.Helper()
	line, err := s.lines.ReadString('\n')
	if err != nil {
		s.t.Fatalf("the stream has ended after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}

// want reads exactly these lines.
func want(t *testing.T, s *response, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if got := s.next(); got != line {
			t.Fatalf("got %q, want %q", got, line)
		}
	}
}

// until reads up to a line.
func until(t *testing.T, s *response, line string) {
	t.Helper()
	for s.next() != line {
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(f, text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
