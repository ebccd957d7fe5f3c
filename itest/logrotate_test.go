package itest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A logrotate runs the real one over a file.
type logrotate struct {
	dir  string
	path string // the log
	conf string
}

func newLogrotate(t *testing.T, directives string) *logrotate {
	t.Helper()
	l := &logrotate{dir: t.TempDir()}
	l.path = filepath.Join(l.dir, "app.log")
	l.conf = filepath.Join(l.dir, "rotate.conf")
	conf := fmt.Sprintf("%s {\n\tsu root root\n\trotate 50\n\tnocompress\n%s\n}\n", l.path, directives)
	if err := os.WriteFile(l.conf, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *logrotate) run(t *testing.T) {
	t.Helper()
	out, err := exec.Command("logrotate", "-f", "-s", filepath.Join(l.dir, "state"), l.conf).CombinedOutput()
	if err != nil {
		t.Fatalf("logrotate: %v\n%s", err, out)
	}
}

func (l *logrotate) rotations(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(l.path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// TestLogrotateCreate: logrotate renames the file, makes a new one, and tells the writer, which goes on in the old one until
// then.
func TestLogrotateCreate(t *testing.T) {
	t.Parallel()
	needRealClients(t)
	need(t, "root", "logrotate")
	rotations := setting(t, "ITEST_ROTATIONS", 5, 20)
	pidFile := filepath.Join(t.TempDir(), "pid")
	rotate := newLogrotate(t, "\tcreate 0644\n\tpostrotate\n\t\tkill -HUP $(cat "+pidFile+")\n\tendscript")
	server := startLogtail(t, "-addr", "127.0.0.1:0", "-from-start", rotate.path)
	clients := realClients(t, server.url)
	w := startWriter(t, &writer{Name: "a", Path: rotate.path, Rate: lineRate(t), Width: 120})
	if err := os.WriteFile(pidFile, fmt.Append(nil, w.cmd.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range rotations {
		time.Sleep(time.Second) // lines between rotations; nothing waits for this
		rotate.run(t)
	}
	time.Sleep(time.Second)
	written := w.order(t, "stop")
	t.Logf("%d rotations in %.1f s, %.0f lines/s", rotate.rotations(t), time.Since(began).Seconds(), float64(written)/time.Since(began).Seconds())
	settle(t, server, clients, written)
}

// settle sees to it that all clients get everything, stops the server, and checks.
func settle(t *testing.T, server *logtailProcess, clients []*clientProcess, written int) {
	t.Helper()
	for _, c := range clients {
		c.await(t, written)
	}
	server.stop(t)
	for _, c := range clients {
		c.finish(t)
		c.check(t, map[string]int{"a": written})
	}
}

// TestLogrotateCopytruncate: logrotate copies the file and truncates it. What is written in between is lost to everybody, so
// the writer pauses around it.
func TestLogrotateCopytruncate(t *testing.T) {
	t.Parallel()
	needRealClients(t)
	need(t, "root", "logrotate")
	rotations := setting(t, "ITEST_COPYTRUNCATE", 3, 10)
	rotate := newLogrotate(t, "\tcopytruncate")
	server := startLogtail(t, "-addr", "127.0.0.1:0", "-from-start", rotate.path)
	clients := realClients(t, server.url)
	w := startWriter(t, &writer{Name: "a", Path: rotate.path, Rate: lineRate(t), Width: 120})
	for range rotations {
		time.Sleep(time.Second)
		w.order(t, "pause")
		time.Sleep(1200 * time.Millisecond) // a file that was quiet for a second is believed to be: no possible loss is declared
		rotate.run(t)
		time.Sleep(500 * time.Millisecond)
		w.order(t, "resume")
	}
	time.Sleep(time.Second)
	written := w.order(t, "stop")
	t.Logf("%d rotations", rotate.rotations(t))
	settle(t, server, clients, written)
}
