package wire_test

import (
	"math"
	"strings"
	"testing"
	"unicode"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestGapLine(t *testing.T) {
	for want, g := range map[string]wire.Gap{
		"# tailcast gap: 12 messages, 3456 bytes lost: the log was truncated": {Count: 12, Bytes: 3456, Reason: "the log was truncated"},
		"# tailcast gap: 1 message, 1 byte lost":                              {Count: 1, Bytes: 1},
		"# tailcast gap: unknown messages, 10 bytes possibly lost":            {Count: -1, Bytes: 10, Possible: true},
		"# tailcast gap: 10 messages, unknown bytes lost":                     {Count: 10, Bytes: -1},
		"# tailcast gap: unknown amount possibly lost: why":                   {Count: -1, Bytes: -1, Possible: true, Reason: "why"},
		"# tailcast gap: 0 messages, 0 bytes possibly lost":                   {Possible: true},
		"# tailcast gap: unknown amount lost: a  b [31m c d e \uFFFDé":        {Count: -1, Bytes: -1, Reason: "a\r\nb\x1b[31m\u2028c\u2029d\u0085e\x00\xffé"},
	} {
		if got := wire.GapLine(&g); got != want {
			t.Errorf("%+v\n got %q\nwant %q", g, got, want)
		}
	}
}

func TestParseGapBinaryRefusesDamage(t *testing.T) {
	g := wire.Gap{From: wire.Position{Epoch: 1 << 40, Offset: 300, Check: 1}, To: wire.Position{Epoch: 2, Offset: 3}, Count: -1, Bytes: 1 << 40, Reason: "r"}
	whole := g.AppendBinary(nil)
	for n := range len(whole) - len(g.Reason) {
		if _, err := wire.ParseGapBinary(whole[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are accepted", n, len(whole))
		}
	}
	for name, b := range map[string][]byte{
		"unknown flag":        append([]byte{2}, whole[1:]...),
		"check over 32 bits":  append([]byte{0, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x10}, 1, 1, 1, 0, 0),
		"number over 64 bits": append([]byte{0}, []byte(strings.Repeat("\xff", 11))...),
	} {
		if got, err := wire.ParseGapBinary(b); err == nil {
			t.Errorf("%s is accepted as %+v", name, got)
		}
	}
}

func FuzzGapBinary(f *testing.F) {
	f.Add(uint64(0), uint64(0), uint32(0), uint64(0), uint64(0), uint32(0), int64(-1), int64(-1), true, "")
	f.Add(uint64(1), uint64(2), uint32(3), uint64(4), uint64(5), uint32(6), int64(7), int64(8), false, "why\r\n\xff")
	f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64), uint32(math.MaxUint32), uint64(4), uint64(5), uint32(6), int64(math.MinInt64), int64(math.MaxInt64), false, "é\u2028")
	f.Fuzz(func(t *testing.T, e1, o1 uint64, c1 uint32, e2, o2 uint64, c2 uint32, count, size int64, possible bool, reason string) {
		g := wire.Gap{
			From: wire.Position{Epoch: e1, Offset: o1, Check: c1}, To: wire.Position{Epoch: e2, Offset: o2, Check: c2},
			Count: count, Bytes: size, Possible: possible, Reason: reason,
		}
		stored := g.AppendBinary(nil)
		got, err := wire.ParseGapBinary(stored)
		if err != nil || got != g {
			t.Fatalf("%+v is stored as %x and read as %+v, %v", g, stored, got, err)
		}
		clear(stored)
		if got != g {
			t.Fatal("the Gap refers to the stored bytes")
		}
		line := wire.GapLine(&g)
		if !strings.HasPrefix(line, "# tailcast gap: ") || !strings.Contains(line, "lost") {
			t.Fatalf("gap line %q", line)
		}
		if strings.ContainsFunc(line, func(c rune) bool { return unicode.IsControl(c) || c == '\u2028' || c == '\u2029' }) {
			t.Fatalf("gap line %q has control characters", line)
		}
	})
}

func FuzzParseGapBinary(f *testing.F) {
	f.Add([]byte(nil))
	f.Add((&wire.Gap{Count: -1, Bytes: -1, Reason: "why"}).AppendBinary(nil))
	f.Add([]byte(strings.Repeat("\xff", 100)))
	f.Add(append([]byte{1}, strings.Repeat("\x80", 20)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := wire.ParseGapBinary(b)
		if err != nil {
			return
		}
		again, err := wire.ParseGapBinary(g.AppendBinary(nil))
		if err != nil || again != g {
			t.Fatalf("%x is read as %+v, which is read again as %+v, %v", b, g, again, err)
		}
	})
}
