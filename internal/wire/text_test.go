package wire_test

import (
	"bytes"
	"testing"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestTextPrintsLikeTail(t *testing.T) {
	var out []byte
	for _, r := range []wire.Record{
		{Data: []byte("one")},
		{},
		{Data: []byte("a long "), Partial: true},
		{Data: []byte("line")},
		{Data: []byte("raw \xff\r"), Binary: true},
		{Gap: &wire.Gap{Count: 2, Bytes: 9, Reason: "why"}, Data: []byte("ignored"), Partial: true},
	} {
		out = wire.AppendText(out, &r)
	}
	want := "one\n\na long line\nraw \xff\r\n# tailcast gap: 2 messages, 9 bytes lost: why\n"
	if string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("line"), false)
	f.Add([]byte("piece\xff"), true)
	f.Fuzz(func(t *testing.T, data []byte, partial bool) {
		got := wire.AppendText([]byte("before"), &wire.Record{Data: data, Partial: partial})
		rest, ok := bytes.CutPrefix(got, []byte("before"))
		if !partial {
			var ended bool
			rest, ended = bytes.CutSuffix(rest, []byte("\n"))
			ok = ok && ended
		}
		if !ok || !bytes.Equal(rest, data) {
			t.Fatalf("%q, partial %v, is written %q", data, partial, got)
		}
	})
}

// sanitise is the model of what becomes of bytes that are not UTF-8: the language's own range over a string.
func sanitise(s []byte) string { return string([]rune(string(s))) }
