package itest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestLogrotateCompress: logrotate compresses at once what it has rotated away. The live stream has every line once, and
// afterwards another process serves all of them, from the first on, out of the compressed files.
func TestLogrotateCompress(t *testing.T) {
	t.Parallel()
	need(t, "root", "logrotate", "curl")
	for _, c := range []struct{ name, directives string }{
		{"create", "\tcompress\n\tnodelaycompress\n\tcreate 0644\n\tpostrotate\n\t\tkill -HUP $(cat %s)\n\t\tsleep 0.2\n\tendscript"},
		{"dateext", "\tcompress\n\tnodelaycompress\n\tdateext\n\tdateformat -%%Y%%m%%d-%%s\n\tcreate 0644\n\tpostrotate\n\t\tkill -HUP $(cat %s)\n\t\tsleep 0.2\n\tendscript"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rotations := setting(t, "ITEST_COMPRESS", 4, 20)
			pidFile := filepath.Join(t.TempDir(), "pid")
			rotate := newLogrotate(t, fmt.Sprintf(c.directives, pidFile))
			server := startLogtail(t, "-addr", "127.0.0.1:0", "-from-start", rotate.path)
			clients := []*clientProcess{curl(t, server.url+"?since=earliest")}
			w := startWriter(t, &writer{Name: "a", Path: rotate.path, Rate: lineRate(t), Width: 120})
			if err := os.WriteFile(pidFile, fmt.Append(nil, w.cmd.Process.Pid), 0o644); err != nil {
				t.Fatal(err)
			}
			for range rotations {
				time.Sleep(1100 * time.Millisecond) // lines between rotations, and another second in the name
				rotate.run(t)
			}
			time.Sleep(time.Second)
			written := w.order(t, "stop")
			settle(t, server, clients, written)
			packed, err := filepath.Glob(filepath.Join(rotate.dir, "app.log*.gz"))
			if err != nil || len(packed) != rotations {
				t.Errorf("%d compressed files, want %d: %v", len(packed), rotations, err)
			}
			again := startLogtail(t, "-addr", "127.0.0.1:0", rotate.path)
			all := []*clientProcess{curl(t, again.url+"?since=earliest")}
			settle(t, again, all, written)
			t.Logf("%d lines in %d compressed files and the live one", written, len(packed))
		})
	}
}

func curl(t *testing.T, url string) *clientProcess {
	return startClient(t, "curl -N", "curl", "-sSN", "-D", "-", "-o", "FILE", url)
}
