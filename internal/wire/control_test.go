package wire_test

import (
	"encoding/json"
	"testing"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestControlObjects(t *testing.T) {
	for want, got := range map[string][]byte{
		`{"event":"bye","code":1001,"reason":"restart \"now\"","retry":2500}`: wire.AppendBye(nil, 1001, `restart "now"`, 2500),
		`{"event":"bye","code":1000}`:                                         wire.AppendBye(nil, 1000, "", 0),
		`{"event":"error","reason":"no such topic","ref":0}`:                  wire.AppendError(nil, "no such topic", 0),
		`{"event":"error","reason":"at capacity"}`:                            wire.AppendError(nil, "at capacity"),
		`{"event":"ok","ref":-7}`:                                             wire.AppendOK(nil, -7),
		`{"event":"degraded","reason":"late"}`:                                wire.AppendDegraded(nil, false, "late"),
		`{"event":"degraded","over":true}`:                                    wire.AppendDegraded(nil, true, ""),
		`{"event":"ok"}`:                                                      wire.AppendOK(nil),
		`{"event":"pos","topic":"app","id":"1a.1"}`:                           wire.AppendPos(nil, "app", wire.Position{Epoch: 10, Offset: 1}),
		`{"event":"join","topic":"app","user":"eve\n"}`:                       wire.AppendJoin(nil, "app", "eve\n", wire.Position{}),
		`{"event":"leave","topic":"","user":"eve"}`:                           wire.AppendLeave(nil, "", "eve", wire.Position{}),
	} {
		if string(got) != want || !json.Valid(got) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add("app", "why", 1001, 2500, int64(1))
	f.Add("\"\r\n\xff", "\u2028\\", -1, -1, int64(0))
	f.Fuzz(func(t *testing.T, topic, text string, code, retry int, ref int64) {
		topic8, text8 := sanitise([]byte(topic)), sanitise([]byte(text))
		type object struct {
			Event, Reason, Topic, User string
			Code, Retry                int
			Ref                        *int64
			Over                       bool
			ID                         string
		}
		for _, tt := range []struct {
			b    []byte
			want object
		}{
			{wire.AppendBye(nil, code, text, retry), object{Event: "bye", Code: code, Reason: text8, Retry: max(retry, 0)}},
			{wire.AppendError(nil, text, ref), object{Event: "error", Reason: text8, Ref: &ref}},
			{wire.AppendOK(nil, ref), object{Event: "ok", Ref: &ref}},
			{wire.AppendDegraded(nil, code > 0, text), object{Event: "degraded", Over: code > 0, Reason: text8}},
			{wire.AppendPos(nil, topic, wire.Earliest()), object{Event: "pos", Topic: topic8, ID: "earliest"}},
			{wire.AppendJoin(nil, topic, text, wire.Position{}), object{Event: "join", Topic: topic8, User: text8}},
			{wire.AppendLeave(nil, topic, text, wire.Position{}), object{Event: "leave", Topic: topic8, User: text8}},
		} {
			var got object
			if err := json.Unmarshal(tt.b, &got); err != nil {
				t.Fatalf("%q: %v", tt.b, err)
			}
			if (got.Ref == nil) != (tt.want.Ref == nil) || got.Ref != nil && *got.Ref != ref {
				t.Fatalf("%q has another ref than %d", tt.b, ref)
			}
			if got.Ref = tt.want.Ref; got != tt.want {
				t.Fatalf("%q is read as %+v, want %+v", tt.b, got, tt.want)
			}
		}
	})
}
