package follow_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

func isHole(g *follow.Gap) bool { return g != nil && strings.HasPrefix(g.Reason, "a hole of ") }

// hole makes a file longer by so many bytes, as a writer does that goes on at its old place after a truncation.
func (r *rig) hole(a []string) error {
	n, err := strconv.ParseInt(a[1], 10, 64)
	r.must(err)
	info, err := os.Stat(r.path(a[0]))
	r.must(err)
	r.must(os.Truncate(r.path(a[0]), info.Size()+n))
	r.touched(a[0])
	return nil
}

// A hole of any size costs neither time nor memory.
func TestAHugeHole(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the file system may not know holes")
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		const size = int64(100 << 30)
		r.write("app.log", "a\nb\n")
		if err := os.Truncate(r.path("app.log"), size); err != nil {
			t.Skip(err)
		}
		r.write("app.log", "c\nd\n")
		r.hole([]string{"app.log", strconv.FormatInt(size, 10)})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		r.cfg.Start = follow.FromStart
		r.run()
		r.write("app.log", "e\n")
		r.look()
		want := []string{"a", "b", fmt.Sprint("HOLE ", size-4), "c", "d", fmt.Sprint("HOLE ", size), "e"}
		if !slices.Equal(r.out, want) {
			t.Errorf("got %q, want %q", r.out, want)
		}
		for i, it := range slices.Clone(r.items) {
			if it.pos == (follow.Position{}) {
				continue
			}
			for _, f := range []*follow.Follower{r.f, r.follower(follow.Config{Path: r.cfg.Path})} {
				if got := r.replays(f, []follow.Position{it.pos})[0].items; !slices.Equal(got, r.items[i+1:]) {
					t.Errorf("after %v: %v", it, got)
				}
			}
		}
		for n := range 3 {
			f := r.follower(follow.Config{Path: r.cfg.Path, Start: follow.LastLines(n)})
			_, found := f.Back(t.Context(), follow.Position{}, 2, 0)
			if found != 1 {
				t.Errorf("%d lines before the end, want 1: there is a hole before it", found)
			}
		}
		runtime.ReadMemStats(&after)
		t.Logf("%v, %d KiB allocated", time.Since(began), (after.TotalAlloc-before.TotalAlloc)>>10)
	})
}

// FuzzHoles: what a file is cut into, holes too, does not depend on how it grows, nor on where a reader begins.
func FuzzHoles(f *testing.F) {
	f.Add([]byte("a\nb\x04c\nd\x05\n\x01e"), 3, 100)
	f.Add([]byte("\x04\x04a\r\n\x03b\x04"), 1, 5000)
	f.Add([]byte("ääää\x04ä\n"), 7, 4)
	f.Fuzz(func(t *testing.T, pattern []byte, step, maxLine int) {
		var data []byte
		for _, c := range pattern[:min(len(pattern), 30)] { // control characters stand for NULs
			switch {
			case c == '\n' || c == '\r' || c >= ' ':
				data = append(data, c)
			default:
				data = append(data, make([]byte, int(c)*1025)...)
			}
		}
		if len(data) == 0 {
			return
		}
		maxLine = min(max(maxLine, 4), 1<<20)
		step = max(1, len(data)*(step&15+1)/16)
		whole := follow.ReadAll(data, 0, len(data), maxLine)
		if got := follow.ReadAll(data, 0, step, maxLine); !slices.Equal(texts(got), texts(whole)) {
			t.Fatalf("in steps of %d:\ngot  %.200q\nwant %.200q", step, texts(got), texts(whole))
		}
		for i, l := range whole {
			if l.Gap == nil && (i == len(whole)-1 || len(l.Data) < 4000) && l.Pos.Offset < uint64(len(data)) {
				if got := follow.ReadAll(data, int64(l.Pos.Offset), step, maxLine); !slices.Equal(texts(got), texts(whole[i+1:])) {
					t.Fatalf("from %d:\ngot  %.200q\nwant %.200q", l.Pos.Offset, texts(got), texts(whole[i+1:]))
				}
			}
		}
		var back []byte // nothing but line ends and holes is missing
		for _, l := range whole {
			if l.Gap != nil {
				back = append(back, make([]byte, l.Gap.Bytes)...)
			}
			back = append(back, l.Data...)
		}
		ends := strings.NewReplacer("\r", "", "\n", "")
		if got, want := ends.Replace(string(back)), ends.Replace(string(data)); got != want {
			t.Fatalf("%d bytes came of %d", len(got), len(want))
		}
		if bytes.Contains(slices.Concat(func() (all [][]byte) {
			for _, l := range whole {
				all = append(all, l.Data, []byte{'|'})
			}
			return all
		}()...), make([]byte, follow.HoleSize)) {
			t.Error("a hole was delivered")
		}
	})
}
