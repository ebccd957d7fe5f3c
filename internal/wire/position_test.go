package wire_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestPositionHasOneTextForm(t *testing.T) {
	for text, pos := range map[string]wire.Position{
		"latest":        {},
		"earliest":      {Offset: 1},
		"11.0":          {Epoch: 1},
		"1a.1":          {Epoch: 10, Offset: 1},
		"1zz.10":        {Epoch: 35*36 + 35, Offset: 36},
		"11.2.3":        {Epoch: 1, Offset: 2, Check: 3},
		"11.0.1z141z3":  {Epoch: 1, Check: math.MaxUint32},
		"10.2":          {Offset: 2},           // invalid, but must be visible
		"10.1.1":        {Offset: 1, Check: 1}, // likewise
		longestPosition: {Epoch: math.MaxUint64, Offset: math.MaxUint64, Check: math.MaxUint32},
	} {
		if got := pos.String(); got != text {
			t.Errorf("%#v is written %q, want %q", pos, got, text)
		}
		got, err := wire.ParsePosition(text)
		switch {
		case pos.Valid() && (err != nil || got != pos):
			t.Errorf("ParsePosition(%q) = %#v, %v, want %#v", text, got, err, pos)
		case !pos.Valid() && err == nil:
			t.Errorf("ParsePosition(%q) accepts an invalid position", text)
		}
	}
	if wire.Earliest().String() != "earliest" || wire.Earliest().IsZero() || !(wire.Position{}).IsZero() {
		t.Error("the two named positions are mixed up")
	}
}

const longestPosition = "13w5e11264sgsf.3w5e11264sgsf.1z141z3"

func TestParsePositionSaysWhatIsWrongAndWhere(t *testing.T) {
	for text, want := range map[string]string{
		"":                         `position is empty`,
		"2a.1":                     `position "2a.1" begins with "2" at byte 1, want latest, earliest, or the version character 1`,
		"Latest":                   `position "Latest" begins with "L" at byte 1`,
		" 1a.1":                    `begins with " " at byte 1`,
		"\xe21a":                   `begins with "\xe2" at byte 1`,
		"1":                        `position "1" has no epoch at byte 2, want 0-9 or a-z`,
		"1.1":                      `position "1.1" has no epoch at byte 2`,
		"10.1":                     `position "10.1" has epoch 0 at byte 2, which is never given out`,
		"10a.1":                    `position "10a.1" has a leading 0 at byte 2 in its epoch`,
		"1a":                       `position "1a" ends at byte 2, after its epoch, want a dot and an offset`,
		"1a.":                      `position "1a." has no offset at byte 4`,
		"1a.00":                    `position "1a.00" has a leading 0 at byte 4 in its offset`,
		"1A.1":                     `position "1A.1" has "A" at byte 2 of its epoch, want 0-9 or a-z`,
		"1a.1 ":                    `has " " at byte 5 of its offset`,
		"1a.1\x00":                 `position "1a.1\x00" has "\x00" at byte 5 of its offset`,
		"1a.1\r\n":                 `has "\r" at byte 5 of its offset`,
		"1a.-1":                    `has "-" at byte 4 of its offset`,
		"1a.1.0":                   `position "1a.1.0" has check 0 at byte 6, which is left out when it is 0`,
		"1a.1.":                    `has no check at byte 6`,
		"1a.1.1.":                  `position "1a.1.1." goes on after its check at byte 7, want its end`,
		"13w5e11264sgsg.1":         `has more than 64 bits in its epoch at byte 2`,
		"11.zzzzzzzzzzzzzz":        `has more than 64 bits in its offset at byte 4`,
		"11.1.1z141z4":             `has more than 32 bits in its check at byte 6`,
		longestPosition + "0":      `is 37 bytes long, more than the 36 that any can have`,
		strings.Repeat("é", 10000): `position "éééééééééééééééééééé"… is 20000 bytes long`,
		"1a.1,1a.2":                `has "," at byte 5`,
		"1a.1=":                    `has "=" at byte 5`,
	} {
		got, err := wire.ParsePosition(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePosition(%.50q) says %v, want %s", text, err, want)
		}
		if got != (wire.Position{}) {
			t.Errorf("ParsePosition(%.50q) = %v beside an error", text, got)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"", "latest", "earliest", "1a.1", "1a.1.1", "1a.1.0", "10.1", "1A.1", "1a.01", longestPosition, "1a.1\x00", "1\xff.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pos, err := wire.ParsePosition(s)
		if err != nil {
			checkMessage(t, err)
			return
		}
		if !pos.Valid() || pos.String() != s {
			t.Fatalf("%q is accepted as %#v, which is written %q", s, pos, pos)
		}
	})
}

func FuzzPositionAppend(f *testing.F) {
	f.Add(uint64(0), uint64(0), uint32(0))
	f.Add(uint64(0), uint64(1), uint32(0))
	f.Add(uint64(0), uint64(1), uint32(1))
	f.Add(uint64(1), uint64(0), uint32(0))
	f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64), uint32(math.MaxUint32))
	f.Fuzz(func(t *testing.T, epoch, offset uint64, check uint32) {
		pos := wire.Position{Epoch: epoch, Offset: offset, Check: check}
		text := string(pos.Append([]byte("before")))
		got, err := wire.ParsePosition(strings.TrimPrefix(text, "before"))
		if pos.Valid() != (err == nil) || err == nil && got != pos {
			t.Fatalf("%#v is written %q and read as %#v, %v", pos, text, got, err)
		}
	})
}

// checkMessage fails unless err can be shown to the client who caused it: one short line without control characters.
func checkMessage(t *testing.T, err error) {
	t.Helper()
	s := err.Error()
	if len(s) > 500 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7F }) {
		t.Fatalf("not fit for a client: %q", s)
	}
}

func ExampleParsePositions() {
	single, many, err := wire.ParsePositions("1abc.zz")
	fmt.Println(single, many, err)
	single, many, err = wire.ParsePositions("app=1abc.zz,my%20log=earliest")
	fmt.Println(single, many, err)
	_, _, err = wire.ParsePositions("app=1abc.zz,web=1ABC.zz")
	fmt.Println(err)
	// Output:
	// 1abc.zz [] <nil>
	// latest [{app 1abc.zz} {my log earliest}] <nil>
	// entry 2 of the joined positions: position "1ABC.zz" has "A" at byte 2 of its epoch, want 0-9 or a-z
}
