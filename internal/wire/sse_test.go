package wire_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/wire"
)

// event is what an EventSource dispatches.
type event struct{ name, data, id string }

// eventSource reads a stream by the algorithm of the HTML standard, 9.2.6, and returns the events that it dispatches and the
// Last-Event-ID and the reconnection time that it is left with.
func eventSource(stream string) (events []event, lastID, retry string) {
	stream = strings.TrimPrefix(sanitise([]byte(stream)), "\uFEFF")
	var name, data, idBuffer string
	for len(stream) > 0 {
		end := strings.IndexAny(stream, "\r\n")
		if end < 0 {
			break // a block that the end of the stream cuts is dropped
		}
		line := stream[:end]
		if strings.HasPrefix(stream[end:], "\r\n") {
			end++
		}
		stream = stream[end+1:]

		if line == "" {
			lastID = idBuffer
			if data != "" {
				events = append(events, event{name, strings.TrimSuffix(data, "\n"), lastID})
			}
			name, data = "", ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "": // a comment
		case "event":
			name = value
		case "data":
			data += value + "\n"
		case "id":
			if !strings.Contains(value, "\x00") {
				idBuffer = value
			}
		case "retry":
			if value != "" && strings.Trim(value, "0123456789") == "" {
				retry = value
			}
		}
	}
	return events, lastID, retry
}

func TestSSEBlocks(t *testing.T) {
	pos := wire.Position{Epoch: 10, Offset: 1}
	for name, tt := range map[string]struct {
		r    wire.Record
		want string
	}{
		"a line":                    {wire.Record{Pos: pos, Data: []byte("hello")}, "data: hello\nid: 1a.1\n\n"},
		"no id":                     {wire.Record{Data: []byte("hello")}, "data: hello\n\n"},
		"nothing":                   {wire.Record{}, "data:\n\n"},
		"its own spaces":            {wire.Record{Data: []byte("  x: y")}, "data:   x: y\n\n"},
		"LF, CR, and CRLF":          {wire.Record{Data: []byte("a\nb\rc\r\nd")}, "data: a\ndata: b\ndata: c\ndata: d\n\n"},
		"empty lines":               {wire.Record{Data: []byte("\r\r\n\n")}, "data:\ndata:\ndata:\ndata:\n\n"},
		"a forged field":            {wire.Record{Data: []byte("a\rid: 9\r\rdata: b")}, "data: a\ndata: id: 9\ndata:\ndata: data: b\n\n"},
		"bad bytes on either side":  {wire.Record{Data: []byte("\xe2\n\x82\xac"), Binary: true}, "data: \uFFFD\ndata: \uFFFD\uFFFD\n\n"},
		"a gap has its end as id":   {wire.Record{Topic: "app", Pos: pos, Gap: &wire.Gap{To: wire.Position{Epoch: 10, Offset: 2}, Count: 1, Bytes: -1, Reason: "a\nb"}}, "event: gap\ndata: {\"event\":\"gap\",\"topic\":\"app\",\"to\":\"1a.2\",\"count\":1,\"bytes\":-1,\"reason\":\"a\\nb\"}\nid: 1a.2\n\n"},
		"a gap without a known end": {wire.Record{Gap: &wire.Gap{Possible: true}}, "event: gap\ndata: {\"event\":\"gap\",\"topic\":\"\",\"count\":0,\"bytes\":0,\"possible\":true}\n\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(wire.AppendSSE([]byte("before"), &tt.r)); got != "before"+tt.want {
				t.Errorf("\n got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestSSEStreamAsABrowserSeesIt(t *testing.T) {
	pos := wire.Position{Epoch: 10, Offset: 1}
	joined := wire.AppendPositions(nil, []wire.TopicPosition{{Topic: "app", Pos: pos}, {Topic: "a b", Pos: wire.Earliest()}})

	s := wire.AppendSSERetry(nil, 2500)
	s = wire.AppendSSEComment(s, "hb")
	s = wire.AppendSSE(s, &wire.Record{Data: []byte("one"), Pos: pos})
	s = wire.AppendSSE(s, &wire.Record{Data: []byte("two"), Pos: pos})
	s = wire.AppendSSEID(s[:len(s)-1], joined) // the later id counts
	s = wire.AppendSSE(s, &wire.Record{Data: nil})
	s = wire.AppendSSEID(s, []byte("1a.5"))
	s = wire.AppendSSEControl(s, "join", wire.AppendJoin(nil, "app", "eve", wire.Position{}), nil)
	s = wire.AppendSSEID(s, nil)
	s = wire.AppendSSEControl(s, "bye", wire.AppendBye(nil, 1001, "", 0), []byte("1a.6"))
	s = append(s, "data: cut"...)

	events, lastID, retry := eventSource(string(s))
	want := []event{
		{"", "one", "1a.1"},
		{"", "two", "app=1a.1,a%20b=earliest"},
		{"", "", "app=1a.1,a%20b=earliest"},
		{"join", `{"event":"join","topic":"app","user":"eve"}`, "1a.5"},
		{"bye", `{"event":"bye","code":1001}`, "1a.6"},
	}
	if !slices.Equal(events, want) || lastID != "1a.6" || retry != "2500" {
		t.Errorf("got  %q, last id %q, retry %q\nwant %q", events, lastID, retry, want)
	}
	if got := string(wire.AppendSSERetry(nil, -1)); got != "retry: 0\n\n" {
		t.Errorf("a negative time is written %q", got)
	}
}

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func FuzzSSE(f *testing.F) {
	f.Add([]byte("line"), uint64(1), uint64(2), uint32(3))
	f.Add([]byte(""), uint64(0), uint64(0), uint32(0))
	f.Add([]byte("\r\r\n\n\r"), uint64(0), uint64(1), uint32(0))
	f.Add([]byte("a\rdata: b\rid: c\r\revent: d"), uint64(9), uint64(0), uint32(0))
	f.Add([]byte("\uFEFF cut \xe2\x82\r\n\xac:\x00"), uint64(1), uint64(1), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, epoch, offset uint64, check uint32) {
		pos := wire.Position{Epoch: epoch, Offset: offset, Check: check}
		wantID := ""
		if !pos.IsZero() {
			wantID = pos.String()
		}
		want := event{"", lineEnds.Replace(sanitise(data)), wantID}

		one := wire.AppendSSE(nil, &wire.Record{Data: data, Pos: pos})
		if !utf8.Valid(one) {
			t.Fatalf("%q is not UTF-8", one)
		}
		// Twice, since a block must not reach into the next, and with another id at the end.
		stream := string(one) + string(wire.AppendSSEID(slices.Clip(one[:len(one)-1]), []byte("other")))
		events, lastID, retry := eventSource(stream)
		if !slices.Equal(events, []event{want, {"", want.data, "other"}}) || lastID != "other" || retry != "" {
			t.Fatalf("%q is written %q and read as %q, last id %q, retry %q", data, stream, events, lastID, retry)
		}
	})
}

func FuzzSSEControl(f *testing.F) {
	f.Add("app", "why", int64(3), true)
	f.Add("a\nb\r\x00", "\u2028\xff\r\n\r\n", int64(-1), false)
	f.Fuzz(func(t *testing.T, topic, reason string, count int64, possible bool) {
		r := wire.Record{Topic: topic, Gap: &wire.Gap{To: wire.Earliest(), Count: count, Possible: possible, Reason: reason}}
		stream := wire.AppendSSE(nil, &r)
		object := wire.AppendEnvelope(nil, &r)
		again := wire.AppendSSEControl(nil, "gap", object, []byte("earliest"))
		if string(stream) != string(again) {
			t.Fatalf("a gap is written %q, and as a control object %q", stream, again)
		}
		events, _, _ := eventSource(string(stream))
		if !slices.Equal(events, []event{{"gap", string(object), "earliest"}}) {
			t.Fatalf("%q is read as %q", stream, events)
		}
	})
}
