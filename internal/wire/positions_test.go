package wire_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestPositionsAreJoined(t *testing.T) {
	a1 := wire.Position{Epoch: 10, Offset: 1}
	for want, tps := range map[string][]wire.TopicPosition{
		"":                                 nil,
		"=1a.1":                            {{"", a1}},
		"app=1a.1":                         {{"app", a1}},
		"web=latest,app=earliest":          {{"web", wire.Position{}}, {"app", wire.Earliest()}},
		"A-z._~/:9=1a.1":                   {{"A-z._~/:9", a1}},
		"%2C%3D%25%20%00%0D%0A%2B%26=1a.1": {{",=% \x00\r\n+&", a1}},
		"%C3%A9%FF%7F%22=1a.1":             {{"é\xff\x7f\"", a1}},
	} {
		if got := string(wire.AppendPositions(nil, tps)); got != want {
			t.Errorf("%v is written %q, want %q", tps, got, want)
		}
		if want == "" {
			continue
		}
		single, many, err := wire.ParsePositions(want)
		if err != nil || !single.IsZero() || !slices.Equal(many, tps) {
			t.Errorf("ParsePositions(%q) = %v, %v, %v, want %v", want, single, many, err, tps)
		}
	}
}

func TestParsePositionsAcceptsOtherEscapers(t *testing.T) {
	want := wire.TopicPosition{Topic: "a/b é+'", Pos: wire.Earliest()}
	for _, s := range []string{
		"a%2Fb%20%C3%A9%2B'=earliest",                                 // encodeURIComponent
		"a/b%20%c3%a9+%27=earliest",                                   // lower case
		"%61%2f%62%20%C3%A9%2B%27=earliest",                           // all of it
		string(wire.AppendPositions(nil, []wire.TopicPosition{want})), // our own
	} {
		if _, many, err := wire.ParsePositions(s); err != nil || len(many) != 1 || many[0] != want {
			t.Errorf("ParsePositions(%q) = %v, %v, want %v", s, many, err, want)
		}
	}
}

func TestParsePositionsSaysWhatIsWrongAndWhere(t *testing.T) {
	for s, want := range map[string]string{
		"":                   `position is empty`,
		"1a.1,1a.2":          `position "1a.1,1a.2" has "," at byte 5 of its offset`,
		"app=":               `entry 1 of the joined positions: position is empty`,
		"a=1a.1,":            `entry 2 of the joined positions: "" has no equals sign, want topic=position`,
		"a=1a.1,b":           `entry 2 of the joined positions: "b" has no equals sign`,
		"a=1a.1,b=1a":        `entry 2 of the joined positions: position "1a" ends at byte 2`,
		"a=1a.1,%61=1a.2":    `entry 2 of the joined positions: topic "a" comes a second time`,
		"a=b=1a.1":           `entry 1 of the joined positions: position "b=1a.1" begins with "b" at byte 1`,
		"a b=1a.1":           `topic "a b" has " " at byte 2, want it escaped with a percent sign`,
		"a\x00=1a.1":         `topic "a\x00" has "\x00" at byte 2`,
		"\xc3\xa9=1a.1":      `topic "é" has "\xc3" at byte 1`,
		"a%=1a.1":            `topic "a%" has a percent sign at byte 2 without two hexadecimal digits after it`,
		"a%4=1a.1":           `topic "a%4" has a percent sign at byte 2 without`,
		"a%4g=1a.1":          `topic "a%4g" has a percent sign at byte 2 without`,
		topic(256) + "=1a.1": `is 256 bytes long, more than the 255 allowed`,
		joined(129):          `name 129 topics, more than the 128 allowed`,
		"a=" + strings.Repeat("1", wire.MaxPositions): `are 131074 bytes long, more than the 131072 allowed`,
	} {
		single, many, err := wire.ParsePositions(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePositions(%.50q) says %v, want %s", s, err, want)
			continue
		}
		if !single.IsZero() || many != nil {
			t.Errorf("ParsePositions(%.50q) = %v, %v beside an error", s, single, many)
		}
		checkMessage(t, err)
	}
	for _, s := range []string{topic(255) + "=1a.1", strings.Repeat("%41", 255) + "=1a.1", joined(128)} {
		if _, _, err := wire.ParsePositions(s); err != nil {
			t.Errorf("what is just within the limits: %v", err)
		}
	}
}

func topic(n int) string { return strings.Repeat("t", n) }

// joined returns the joined form for n topics.
func joined(n int) string {
	var tps []wire.TopicPosition
	for i := range n {
		tps = append(tps, wire.TopicPosition{Topic: fmt.Sprint(i), Pos: wire.Earliest()})
	}
	return string(wire.AppendPositions(nil, tps))
}

func FuzzParsePositions(f *testing.F) {
	for _, s := range []string{"latest", "=1a.1", "a=1a.1,b=earliest", "a%2C=1a.1,%3d=1a.2.3", "a=1a.1,a=1a.2", "a=1a.1,,", joined(129), "%=1a.1", "é=1a.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		single, many, err := wire.ParsePositions(s)
		if err != nil {
			checkMessage(t, err)
			return
		}
		if many == nil {
			if single.String() != s {
				t.Fatalf("%q is accepted as %v", s, single)
			}
			return
		}
		checkJoined(t, many)
	})
}

func FuzzAppendPositions(f *testing.F) {
	f.Add("app", uint64(1), uint64(2), uint32(3), "web,=%", uint64(0), uint64(1), uint32(0))
	f.Add("", uint64(0), uint64(0), uint32(0), "\x00\r\n é\xff", uint64(9), uint64(0), uint32(1))
	f.Fuzz(func(t *testing.T, topic1 string, e1, o1 uint64, c1 uint32, topic2 string, e2, o2 uint64, c2 uint32) {
		tps := []wire.TopicPosition{
			{Topic: topic1, Pos: wire.Position{Epoch: e1, Offset: o1, Check: c1}},
			{Topic: topic2, Pos: wire.Position{Epoch: e2, Offset: o2, Check: c2}},
		}
		if topic1 == topic2 || max(len(topic1), len(topic2)) > wire.MaxTopicBytes || !tps[0].Pos.Valid() || !tps[1].Pos.Valid() {
			if _, _, err := wire.ParsePositions(string(wire.AppendPositions(nil, tps))); err == nil {
				t.Fatalf("%v is accepted", tps)
			}
			return
		}
		checkJoined(t, tps)
	})
}

// checkJoined fails unless the joined form of tps is read as tps and holds only what a header and an id line may.
func checkJoined(t *testing.T, tps []wire.TopicPosition) {
	t.Helper()
	text := string(wire.AppendPositions(nil, tps))
	if strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7F }) {
		t.Fatalf("%q has raw bytes", text)
	}
	if strings.Count(text, "=") != len(tps) || strings.Count(text, ",") != len(tps)-1 {
		t.Fatalf("%q has raw separators in its topics", text)
	}
	single, many, err := wire.ParsePositions(text)
	if len(text) > wire.MaxPositions {
		if err == nil {
			t.Fatal("too long a text is accepted")
		}
		return
	}
	if err != nil || !single.IsZero() || !slices.Equal(many, tps) {
		t.Fatalf("%v is written %q and read as %v, %v, %v", tps, text, single, many, err)
	}
}

// What a connection may have, it may come back with.
func TestTheLongestJoinedFormIsAccepted(t *testing.T) {
	var tps []wire.TopicPosition
	for i := range wire.MaxTopics {
		name := strings.Repeat("\u0100", (wire.MaxTopicBytes-3)/2) + fmt.Sprintf("%03d", i)
		tps = append(tps, wire.TopicPosition{Topic: name, Pos: wire.Position{Epoch: 1<<64 - 1, Offset: 1<<64 - 1, Check: 1<<32 - 1}})
	}
	_, many, err := wire.ParsePositions(string(wire.AppendPositions(nil, tps)))
	if err != nil || !slices.Equal(many, tps) {
		t.Errorf("%d positions, %v", len(many), err)
	}
}
