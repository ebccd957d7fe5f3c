package follow_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// One writer that never waits, and twenty rotations: every line comes exactly once and in order, live and replayed.
func TestNothingIsLostUnderAFastWriter(t *testing.T) {
	for name, rotate := range map[string]func(path string, n int) error{
		"renamed":   renameAndCreate,
		"truncated": copyAndTruncate,
	} {
		t.Run(name, func(t *testing.T) {
			generations, lines := 21, 10_000
			if raced {
				lines = 2000
			}
			path := filepath.Join(t.TempDir(), "app.log")
			var out recorder
			began := make(chan struct{}, 1)
			f := follow.New(follow.Config{Path: path, Poll: 20 * time.Millisecond, Grace: time.Second, Begin: signal(began)})
			defer goRun(t, f, &out)()
			<-began
			writeGenerations(t, path, generations, lines, rotate)

			want := generations * lines
			got := waitLines(t, &out, want)
			checkSequence(t, got, lines)

			var again recorder
			defer goReplay(t, f, follow.Position{}, &again)()
			if !slices.Equal(positions(waitLines(t, &again, want)), positions(got)) {
				t.Error("the replay is not what was live")
			}
			middle := got[want/2]
			var rest recorder
			defer goReplay(t, f, middle.Pos, &rest)()
			if !slices.Equal(positions(waitLines(t, &rest, want-want/2-1)), positions(got[want/2+1:])) {
				t.Error("the replay from the middle is not what was live")
			}
		})
	}
}

// waitLines is recorder.wait for lines without gaps.
func waitLines(t *testing.T, out *recorder, n int) []follow.Line {
	t.Helper()
	noGap := func(lines []follow.Line) []follow.Line {
		return slices.DeleteFunc(lines, func(l follow.Line) bool { return l.Gap != nil && l.Gap.Possible })
	}
	got := noGap(out.wait(t, n))
	for more := n; len(got) < n; got = noGap(out.wait(t, more)) {
		more = n + len(out.lines()) - len(got)
	}
	return got
}

func checkSequence(t *testing.T, got []follow.Line, perGeneration int) {
	t.Helper()
	for i, l := range got {
		if want := stressLine(i/perGeneration, i%perGeneration); string(l.Data) != want {
			t.Fatalf("line %d is %q (gap %v), not %q", i, l.Data, l.Gap, want)
		}
	}
}

func stressLine(generation, i int) string { return fmt.Sprintf("generation %d line %d", generation, i) }

func writeGenerations(t *testing.T, path string, generations, lines int, rotate func(string, int) error) {
	for g := range generations {
		var b bytes.Buffer
		for i := range lines {
			b.WriteString(stressLine(g, i) + "\n")
			if b.Len() < 4000 && i < lines-1 {
				continue
			}
			if err := appendTo(path, b.String()); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
		if g == generations-1 {
			return
		}
		if err := rotate(path, g); err != nil {
			t.Fatal(err)
		}
	}
}

// shift makes room for path.1, as logrotate does.
func shift(path string, n int) error {
	for i := n; i > 0; i-- {
		if err := os.Rename(fmt.Sprintf("%s.%d", path, i), fmt.Sprintf("%s.%d", path, i+1)); err != nil {
			return err
		}
	}
	return nil
}

func renameAndCreate(path string, n int) error {
	if err := shift(path, n); err != nil {
		return err
	}
	if err := os.Rename(path, path+".1"); err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o644)
}

func copyAndTruncate(path string, n int) error {
	if err := shift(path, n); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".1", data, 0o644); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

func TestOnlyRotatedNamesAreSiblings(t *testing.T) {
	for name, want := range map[string]bool{
		"app.log.1": true, "app.log.12": true, "app.log-20260101": true, "app.log.2026-01-01T10:00:00": true,
		"app.log.old": true, "app-2026-01-01T10-00-00.000.log": true, "app.1.log": true,
		"app.log": false, "app.log.swp": false, "app.log.offset": false, "app.log.": false, "app.logger": false,
		"app.json": false, "other.log.1": false, "app-error.log": false,
	} {
		if got := follow.RotatedName("app.log", name); got != want {
			t.Errorf("rotatedName(%q) = %t", name, got)
		}
	}
}

// FuzzCutLine: however the bytes arrive, the cuts are the same, and nothing is lost in them.
func FuzzCutLine(f *testing.F) {
	f.Add([]byte("a\r\nb\n\n"), 4, 3)
	f.Add([]byte("äöüäöüäöü\r\nx"), 5, 7)
	f.Add([]byte(strings.Repeat("\xff", 20)), 4, 1)
	f.Fuzz(func(t *testing.T, data []byte, maxLine, split int) {
		maxLine = min(max(maxLine, 4), 64)
		whole := cutAll(data, maxLine, len(data))
		if parts := cutAll(data, maxLine, split); !slices.Equal(parts, whole) {
			t.Errorf("cuts at once %v, in two parts %v", whole, parts)
		}
		if n := len(whole); len(data) > 0 && (n == 0 || whole[n-1] != len(data)) {
			t.Errorf("cuts %v of %d bytes", whole, len(data))
		}
	})
}

// cutAll returns where the lines end when the first bytes are there first, and then the rest.
func cutAll(data []byte, maxLine, first int) (ends []int) {
	first = min(max(first, 0), len(data))
	at := 0
	for _, there := range []int{first, len(data)} {
		for at < there {
			n, size, _ := follow.CutLine(data[at:there], maxLine, false)
			if n > maxLine || size == 0 {
				break
			}
			at += size
			ends = append(ends, at)
		}
	}
	for at < len(data) {
		_, size, _ := follow.CutLine(data[at:], maxLine, true)
		at += size
		ends = append(ends, at)
	}
	return ends
}
