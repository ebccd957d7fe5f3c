package tailcast_test

import (
	"context"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/tailcast/tailcast"
)

func TestLinesCutsLongLinesBetweenCharacters(t *testing.T) {
	long := "x" + strings.Repeat("€", 1_000_000) // 3 bytes each
	var parts []string
	pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		for _, m := range msgs {
			if !utf8.Valid(m.Data) || len(m.Data) > 1<<20+3 {
				t.Errorf("a part of %d bytes, valid %v", len(m.Data), utf8.Valid(m.Data))
			}
			if m.Topic != "t" {
				t.Errorf("topic %q", m.Topic)
			}
			parts = append(parts, string(m.Data))
			if !m.Partial {
				parts = append(parts, "|")
			}
		}
		return nil
	})
	if err := tailcast.Lines(strings.NewReader("first\r\n"+long+"\n\nlast"), "t").Run(t.Context(), pub); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(parts, ""); got != "first|"+long+"||last|" {
		t.Errorf("%d bytes, want %d", len(got), len(long)+13)
	}
	broken := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("ab\n")))
	if err := tailcast.Lines(broken, "t").Run(t.Context(), pub); err == nil || !strings.Contains(err.Error(), `topic "t"`) {
		t.Errorf("a failing reader: %v", err)
	}
}

func TestPositionsAreText(t *testing.T) {
	for _, p := range []tailcast.Position{{}, tailcast.Earliest(), {Epoch: 1, Offset: 0}, {Epoch: 1<<64 - 1, Offset: 1<<64 - 1, Check: 1<<32 - 1}} {
		text, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var q tailcast.Position
		if err := q.UnmarshalText(text); err != nil || q != p {
			t.Errorf("%v becomes %s becomes %v, %v", p, text, q, err)
		}
	}
	var p tailcast.Position
	for _, bad := range []string{"", "x", "1", "1.", "10.5", "1A.1", "1a.01", "1a.1.0", "1a.1\n", strings.Repeat("1", 1000)} {
		if err := p.UnmarshalText([]byte(bad)); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}
