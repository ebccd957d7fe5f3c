package itest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// A ledger is what a Tail has published: the numbers of the lines of one writer, and a gap where one was declared.
type ledger struct {
	*account
	last     int // the number of the last line that came
	declared *tailcast.Gap
	missing  int // lines that have not come, where a gap was declared
	silent   int // lines that have not come, where none was
	certain  int // lines that have not come, where the gap is not only possible
	possible int // gaps that are only possible
	empty    int // gaps in which nothing was missing
}

// publish is a tailcast.PublisherFunc.
func (l *ledger) publish(_ context.Context, msgs ...tailcast.Message) error {
	for i := range msgs {
		l.take(&msgs[i])
	}
	return nil
}

func (l *ledger) take(m *tailcast.Message) {
	if m.Partial { // what a truncation has left of a line
		return
	}
	if m.Gap != nil {
		l.declared = m.Gap
		if m.Gap.Possible {
			l.possible++
		}
		return
	}
	seq := l.line(m.Data)
	if seq == 0 {
		return
	}
	switch skipped := seq - l.last - 1; {
	case skipped > 0 && l.declared == nil:
		l.silent += skipped
	case skipped > 0:
		l.missing += skipped
		if !l.declared.Possible {
			l.certain += skipped
		}
	case l.declared != nil:
		l.empty++
	}
	l.last, l.declared = max(l.last, seq), nil
}

// follow lets a Tail publish into the ledger until stop is called.
func (l *ledger) follow(t *testing.T, tail *tailcast.Tail) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tail.Run(ctx, tailcast.PublisherFunc(l.publish))
	}()
	return func() { cancel(); <-ended }
}

// TestThousandRotations lets logrotate rotate under a writer that does not pause, as fast as logrotate can.
func TestThousandRotations(t *testing.T) {
	need(t, "root", "logrotate")
	pidFile := filepath.Join(t.TempDir(), "pid")
	for _, test := range []struct {
		name, directives string
		lossy            bool // what is written between copy and truncation is lost
	}{
		{"create", "\tcreate 0644\n\tpostrotate\n\t\tkill -HUP $(cat " + pidFile + ")\n\tendscript", false},
		{"copytruncate", "\tcopytruncate", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			rotations := setting(t, "ITEST_THOUSAND", 50, 1000)
			rotate := newLogrotate(t, test.directives)
			l := &ledger{account: newAccount("tail")}
			stop := l.follow(t, &tailcast.Tail{Path: rotate.path, Start: tailcast.FromStart})
			w := startWriter(t, &writer{Name: "a", Path: rotate.path, Rate: lineRate(t), Width: 120})
			if err := os.WriteFile(pidFile, fmt.Append(nil, w.cmd.Process.Pid), 0o644); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the first line comes", func() bool { return l.got() > 0 })
			began := time.Now()
			for range rotations {
				rotate.run(t)
			}
			took := time.Since(began)
			time.Sleep(100 * time.Millisecond) // the last file gets lines too
			written := w.order(t, "stop")
			l.await(t, written, test.lossy)
			stop()
			t.Logf("%d rotations in %.1f s, written %d, delivered %d, lost %d where a gap says so and %d where none does, duplicated %d, torn %d, reordered %d, gaps %d (possible %d, with nothing missing %d)",
				rotations, took.Seconds(), written, l.got(), l.missing, l.silent, l.duplicate, l.torn, l.reordered, len(l.gaps)+l.possible, l.possible, l.empty)
			if l.silent+l.certain+l.duplicate+l.torn+l.reordered > 0 {
				t.Errorf("%d lost silently, %d in a gap that is not only possible; %s", l.silent, l.certain, l.first)
			}
			if !test.lossy && (l.missing > 0 || l.possible > 0 || l.got() != written) {
				t.Errorf("%d of %d lines came, %d gaps", l.got(), written, l.possible)
			}
		})
	}
}

// await waits for the last line.
func (l *ledger) await(t *testing.T, written int, lossy bool) {
	t.Helper()
	came := func() bool {
		got := l.got()
		if !lossy {
			return got == written
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		seen := l.seen["a"]
		return written/64 < len(seen) && seen[written/64]&(1<<(written%64)) != 0
	}
	for deadline := time.Now().Add(patience); !came() && time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
	} // what is missing then is told by the account
	time.Sleep(time.Second) // what comes twice, or late
}
