package itest

import (
	"testing"
	"time"
)

// TestRenamesUnderFullSpeed: the file is renamed under a writer that writes as fast as it can, which goes on in the new one
// at once.
func TestRenamesUnderFullSpeed(t *testing.T) {
	renames := setting(t, "ITEST_RENAMES", 10, 100)
	each := setting(t, "ITEST_LINES_PER_FILE", 10_000, 20_000)
	s := newSite(t)
	viewers := []*viewer{s.watchWS(t, "?since=earliest"), s.watchText(t, "?since=earliest"), s.watchSSE(t, "?since=earliest")}
	w := (&writer{Name: "a", Path: s.path, Width: 120}).start()
	began := time.Now()
	for i := range renames {
		eventually(t, "lines are written", func() bool { return int(w.seq.Load()) > (i+1)*each })
		rotate(t, s.path)
		if err := w.order("reopen"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "lines are written", func() bool { return int(w.seq.Load()) > (renames+1)*each })
	if err := w.order("stop"); err != nil {
		t.Fatal(err)
	}
	written := int(w.seq.Load())
	t.Logf("%d renames, %.0f lines/s", renames, float64(written)/time.Since(began).Seconds())
	finish(t, s, viewers, map[string]int{"a": written})
}

// finish sees to it that all viewers get everything, stops the hub, and checks.
func finish(t *testing.T, s *site, viewers []*viewer, written map[string]int) {
	t.Helper()
	total := 0
	for _, n := range written {
		total += n
	}
	for _, v := range viewers {
		v.await(t, total)
	}
	s.stop()
	for _, v := range viewers {
		v.finish(t)
		v.check(t, written)
	}
}

// TestWriterGoesOnInTheOldFile: of two writers one goes on at once in the new file, and one only after half a second. Lines
// of the same writer in the same file keep their order.
func TestWriterGoesOnInTheOldFile(t *testing.T) {
	renames := setting(t, "ITEST_LATE_RENAMES", 5, 20)
	rate := lineRate(t)
	s := newSite(t)
	viewers := []*viewer{s.watchWS(t, "?since=earliest"), s.watchText(t, "?since=earliest"), s.watchSSE(t, "?since=earliest")}
	for _, v := range viewers {
		v.perFile = true
	}
	prompt := (&writer{Name: "prompt", Path: s.path, Rate: rate, Width: 120}).start()
	late := (&writer{Name: "late", Path: s.path, Rate: rate, Width: 120}).start()
	order := func(w *writer, what string) {
		if err := w.order(what); err != nil {
			t.Fatal(err)
		}
	}
	for range renames {
		time.Sleep(200 * time.Millisecond)
		rotate(t, s.path)
		order(prompt, "reopen")
		time.Sleep(500 * time.Millisecond)
		order(late, "reopen")
	}
	order(prompt, "stop")
	order(late, "stop")
	finish(t, s, viewers, map[string]int{"prompt": int(prompt.seq.Load()), "late": int(late.seq.Load())})
}
