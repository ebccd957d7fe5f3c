package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestEnvelopes(t *testing.T) {
	pos := wire.Position{Epoch: 10, Offset: 1}
	at := time.Date(2025, 1, 2, 15, 4, 5, 678901234, time.UTC).UnixNano()
	for name, tt := range map[string]struct {
		r    wire.Record
		want string
	}{
		"all there is":            {wire.Record{Topic: "app", Pos: pos, Time: at, Data: []byte("hello")}, `{"id":"1a.1","topic":"app","time":"2025-01-02T15:04:05.678901234Z","data":"hello"}`},
		"nothing":                 {wire.Record{}, `{"topic":"","data":""}`},
		"escapes":                 {wire.Record{Topic: "a\"b", Data: []byte("<\\\"\n\r\t\x00\x1f\x7f\u2028\u2029é€\u202a>")}, `{"topic":"a\"b","data":"<\\\"\n\r\t\u0000\u001f` + "\x7f" + `\u2028\u2029é€` + "\u202a" + `>"}`},
		"bytes that are no text":  {wire.Record{Data: []byte("a\xff")}, `{"topic":"","b64":true,"data":"Yf8="}`},
		"bytes that look like it": {wire.Record{Data: []byte("a"), Binary: true}, `{"topic":"","b64":true,"binary":true,"data":"YQ=="}`},
		"a piece":                 {wire.Record{Data: []byte("a"), Partial: true}, `{"topic":"","data":"a","partial":true}`},
		"a whole gap": {
			wire.Record{Topic: "app", Pos: pos, Time: at, Data: []byte("ignored"), Gap: &wire.Gap{From: pos, To: wire.Position{Epoch: 10, Offset: 5}, Count: 4, Bytes: 99, Possible: true, Reason: "why"}},
			`{"event":"gap","topic":"app","from":"1a.1","to":"1a.5","count":4,"bytes":99,"possible":true,"reason":"why"}`,
		},
		"an unknown gap": {wire.Record{Gap: &wire.Gap{Count: -1, Bytes: math.MinInt64}}, `{"event":"gap","topic":"","count":-1,"bytes":-1}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(wire.AppendEnvelope([]byte("before"), &tt.r)); got != "before"+tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			if got := string(wire.AppendNDJSON(nil, &tt.r)); got != tt.want+"\n" {
				t.Errorf("as a line: %q", got)
			}
		})
	}
}

// envelope is what a client decodes.
type envelope struct {
	Event    string
	ID       string
	Topic    string
	Time     time.Time
	Data     *string
	B64      bool
	Binary   bool
	Partial  bool
	From, To string
	Count    int64
	Bytes    int64
	Possible bool
	Reason   string
}

// decode decodes one object on one line, strictly: no unknown members, nothing after it.
func decode(t *testing.T, b []byte) (e envelope) {
	t.Helper()
	if !utf8.Valid(b) || bytes.ContainsAny(b, "\r\n\u2028\u2029") {
		t.Fatalf("%q is not UTF-8 on one line", b)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if d.More() {
		t.Fatalf("%q goes on after the object", b)
	}
	return e
}

func FuzzEnvelope(f *testing.F) {
	f.Add("app", []byte("line"), int64(1), uint64(1), uint64(2), uint32(3), false, false)
	f.Add("a\nb\"\\", []byte("\u2028\u2029\u202a\xe2"), int64(math.MinInt64), uint64(0), uint64(0), uint32(0), false, true)
	f.Add("\xff", []byte("\x00\x1f\x7f<>&'"), int64(math.MaxInt64), uint64(0), uint64(1), uint32(0), true, false)
	f.Add("", []byte("\u2028"), int64(0), uint64(9), uint64(0), uint32(0), false, false)
	f.Fuzz(func(t *testing.T, topic string, data []byte, at int64, epoch, offset uint64, check uint32, isBinary, partial bool) {
		r := wire.Record{
			Topic: topic, Pos: wire.Position{Epoch: epoch, Offset: offset, Check: check},
			Time: at, Data: data, Binary: isBinary, Partial: partial,
		}
		e := decode(t, wire.AppendEnvelope(nil, &r))
		if e.Event != "" || e.Topic != sanitise([]byte(topic)) || e.Partial != partial || e.Data == nil {
			t.Fatalf("%+v is read as %+v", r, e)
		}
		if wantID := r.Pos.String(); e.ID != wantID && !(e.ID == "" && r.Pos.IsZero()) {
			t.Fatalf("id %q, want %q", e.ID, wantID)
		}
		if e.Time.IsZero() != (at == 0) || at != 0 && e.Time.UnixNano() != at {
			t.Fatalf("time %v, want %d", e.Time, at)
		}
		got := []byte(*e.Data)
		if e.B64 != (isBinary || !utf8.Valid(data)) {
			t.Fatalf("%q is marked %v", data, e.B64)
		}
		if e.Binary != isBinary {
			t.Fatalf("%q is called binary: %v", data, e.Binary)
		}
		if e.B64 {
			var err error
			if got, err = base64.StdEncoding.DecodeString(*e.Data); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("data %q, want %q", got, data)
		}
	})
}

func FuzzGapEnvelope(f *testing.F) {
	f.Add("app", uint64(1), uint64(2), int64(-1), int64(5), true, "why")
	f.Add("\r\n", uint64(0), uint64(0), int64(math.MinInt64), int64(0), false, "\xff\u2028\"")
	f.Fuzz(func(t *testing.T, topic string, from, to uint64, count, size int64, possible bool, reason string) {
		g := wire.Gap{From: wire.Position{Epoch: 1, Offset: from}, To: wire.Position{Epoch: to, Offset: to}, Count: count, Bytes: size, Possible: possible, Reason: reason}
		e := decode(t, wire.AppendEnvelope(nil, &wire.Record{Topic: topic, Gap: &g}))
		wantTo := g.To.String()
		if g.To.IsZero() {
			wantTo = ""
		}
		want := envelope{
			Event: "gap", Topic: sanitise([]byte(topic)), From: g.From.String(), To: wantTo,
			Count: max(count, -1), Bytes: max(size, -1), Possible: possible, Reason: sanitise([]byte(reason)),
		}
		if e != want {
			t.Fatalf("%+v is read as %+v, want %+v", g, e, want)
		}
	})
}

func TestJSONStringAgreesWithTheStandardLibrary(t *testing.T) {
	for c := range rune(0x3000) {
		checkJSONString(t, []byte("a"+string(c)+"b"))
	}
	for c := range 256 {
		checkJSONString(t, []byte{byte(c)})
		checkJSONString(t, []byte{0xE2, 0x80, byte(c)})
		checkJSONString(t, []byte{0xE2, byte(c)})
	}
}

func FuzzJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\/\b\f\n\r\t\x00\x7f", "\u2028\u2029\u2027", "\xe2\x80", "\xed\xa0\x80", "<script>&", strings.Repeat("x", 100) + "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(checkJSONString)
}

// checkJSONString compares what the two strings decode to: the same text may be escaped in more than one way.
func checkJSONString(t *testing.T, s []byte) {
	ours := wire.AppendJSONString(nil, s)
	if !utf8.Valid(ours) || bytes.ContainsAny(ours, "\u2028\u2029") {
		t.Fatalf("%q is written %q", s, ours)
	}
	theirs, err := json.Marshal(string(s))
	if err != nil {
		t.Fatal(err)
	}
	var got, want string
	if err := json.Unmarshal(ours, &got); err != nil {
		t.Fatalf("%q is written %q: %v", s, ours, err)
	}
	if err := json.Unmarshal(theirs, &want); err != nil {
		t.Fatal(err)
	}
	if got != want || got != sanitise(s) {
		t.Fatalf("%q is written %q and read as %q, want %q", s, ours, got, want)
	}
}
