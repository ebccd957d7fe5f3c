package follow_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/tailcast/tailcast/internal/follow"
)

// FuzzCutFromACut: a replay that begins at any cut goes on with the same ones.
func FuzzCutFromACut(f *testing.F) {
	f.Add([]byte("1234567\xf0\x9f\x98\x80890\r\n\r\nabc"), 5)
	f.Add([]byte(strings.Repeat("ä", 30)+"\n"), 7)
	f.Fuzz(func(t *testing.T, data []byte, maxLine int) {
		maxLine = min(max(maxLine, 4), 64)
		ends := cutAll(data, maxLine, len(data))
		for i, end := range ends {
			again := cutAll(data[end:], maxLine, len(data))
			for j := range again {
				again[j] += end
			}
			if !slices.Equal(again, ends[i+1:]) {
				t.Fatalf("from %d on: cuts %v, want %v", end, again, ends[i+1:])
			}
		}
	})
}

// FuzzPosition: a position holds in the file that it is of, in the same file grown, and not where the bytes before it differ.
func FuzzPosition(f *testing.F) {
	f.Add([]byte("first\nsecond\n"), 6, []byte("third\n"))
	f.Add([]byte(strings.Repeat("x", 2000)), 1500, []byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte, offset int, more []byte) {
		line := bytes.IndexByte(data, '\n')
		if line < 0 && len(data) < follow.HeadSize {
			return // there is no position yet
		}
		offset = min(max(offset, 0), len(data))
		pos := follow.PositionIn(bytes.NewReader(data), int64(offset))
		if pos.Epoch == 0 || pos.Offset != uint64(offset) {
			t.Fatalf("position %v at %d", pos, offset)
		}
		if epoch, ok := follow.EpochOf(data, false); !ok || epoch != pos.Epoch {
			t.Errorf("epoch %d %t, want %d", epoch, ok, pos.Epoch)
		}
		if !follow.Holds(bytes.NewReader(slices.Concat(data, more)), pos) {
			t.Error("not held by the file when it has grown")
		}
		if follow.Holds(bytes.NewReader(data[:max(offset-1, 0)]), pos) && offset > 0 {
			t.Error("held by a file that is shorter")
		}
		if offset > 0 {
			other := slices.Clone(data)
			other[offset-1] ^= 1
			if follow.Holds(bytes.NewReader(other), pos) {
				t.Error("held by a file in which the byte before it is another")
			}
		}
	})
}

// FuzzRotatedName: a rotated name has the stem of its base, and something more; no name is its own.
func FuzzRotatedName(f *testing.F) {
	f.Add("app.log", "app.log.1")
	f.Add("app.log", "app-20260101.log")
	f.Add(".", "..")
	f.Add("", ".1")
	f.Fuzz(func(t *testing.T, base, name string) {
		if follow.RotatedName(base, base) {
			t.Errorf("%q is its own rotated name", base)
		}
		stem := base
		if i := strings.LastIndexByte(base, '.'); i >= 0 {
			stem = base[:i]
		}
		if follow.RotatedName(base, name) && (!strings.HasPrefix(name, stem) || len(name) < len(base)+2) {
			t.Errorf("%q is said to be a rotated %q", name, base)
		}
	})
}
