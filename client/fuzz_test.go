package client_test

import (
	"bytes"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/internal/wire"
)

var seedLines = []string{
	`{"id":"11.1","topic":"app","time":"2025-01-02T15:04:05.678901234Z","data":"line"}`,
	`{"id":"11.1","topic":"app","data":"\u00e9\"\\\/\b\f\n\r\t\u2028 é","partial":true}`,
	`{"topic":"","data":"\ud83d\ude00 \ud800"}`,
	`{"topic":"a","b64":true,"data":"/w=="}`,
	`{"topic":"a","b64":true,"binary":true,"data":"YQ=="}`,
	`{"event":"gap","topic":"app","from":"11.2","to":"11.2a","count":3,"bytes":-1,"possible":true,"reason":"why"}`,
	`{"event":"pos","topic":"app","id":"latest"}`,
	`{"event":"pos","topic":"app","id":"earliest"}`,
	`{"event":"bye","code":1001,"reason":"away","retry":2500}`,
	`{"event":"join","topic":"app","user":"ann","id":"11.4"}`,
	`{"event":null,"topic":"app","data":"","topic":"b"}`,
	` { "data" : "spaces" , "topic":"a","DATA":1, "more":[{}],"n":-0.1e5 } `,
	`{"count":01}`, `{"count":-}`, `{"a":"\x"}`, `{"\u0061":1}`, `{}`, `null`, `[]`, `{"a":tru}`, `{"data":"` + "\xff" + `","topic":""}`,
	`{"code":99999999999999999999,"event":"bye"}`, `{"id":"1","topic":""}`, `{"topic":"a","data":"","time":"now"}`,
}

// FuzzLine: a line is read the fast way as encoding/json reads it, and what the fast way does not take, the other one does.
func FuzzLine(f *testing.F) {
	for _, l := range seedLines {
		f.Add([]byte(l))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		want, wantErr := client.ParseSlowly(bytes.Clone(line))
		got, fast, err := client.ParseLine(bytes.Clone(line))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, want %v", line, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(normal(got), normal(want)) {
			t.Fatalf("%q (fast: %v):\n got %+v\nwant %+v", line, fast, got, want)
		}
	})
}

// normal makes what is the same look the same.
func normal(l client.Line) client.Line {
	if len(l.Msg.Data) == 0 {
		l.Msg.Data = nil
	}
	return l
}

// FuzzHubsLines: what a hub writes is read the fast way, and says what it was.
func FuzzHubsLines(f *testing.F) {
	f.Add("app", []byte("line"), int64(1), uint64(1), uint64(2), uint32(3), false, false, "")
	f.Add("a\"b", []byte("\u2028\x00\x1f\"\\\u00e9"), int64(0), uint64(9), uint64(0), uint32(0), false, true, "")
	f.Add("", []byte("\xff"), int64(-1), uint64(0), uint64(1), uint32(0), true, false, "")
	f.Add("app", []byte(nil), int64(7), uint64(1), uint64(2), uint32(3), false, true, "why")
	f.Fuzz(func(t *testing.T, topic string, data []byte, at int64, epoch, offset uint64, check uint32, binary, partial bool, gap string) {
		r := wire.Record{Topic: topic, Pos: wire.Position{Epoch: epoch, Offset: offset, Check: check}, Time: at, Data: data, Binary: binary, Partial: partial}
		if !r.Pos.Valid() {
			r.Pos = wire.Position{}
		}
		if gap != "" {
			r.Gap = &wire.Gap{From: r.Pos, To: r.Pos, Count: at, Bytes: int64(offset), Possible: partial, Reason: gap}
		}
		line := wire.AppendEnvelope(nil, &r)
		got, fast, err := client.ParseLine(bytes.Clone(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		long := at > 1e18-1 || int64(offset) > 1e18-1 // numbers that encoding/json is left to read
		if !fast && !(gap != "" && long) {
			t.Errorf("%q was not read the fast way", line)
		}
		m, pos := got.Msg, tailcast.Position(r.Pos)
		if m.Topic != strings.ToValidUTF8(topic, "") && !strings.Contains(m.Topic, "\uFFFD") || got.Pos != pos {
			t.Errorf("%q: %+v", line, got)
		}
		if gap != "" {
			g := m.Gap
			if g == nil || g.From != pos || g.To != pos || g.Count != max(at, -1) || g.Bytes != max(int64(offset), -1) || g.Possible != partial {
				t.Errorf("%q: %+v", line, g)
			}
			return
		}
		if !bytes.Equal(m.Data, data) || m.Pos != pos || m.Binary != binary || m.Partial != partial || m.Time.IsZero() != (at == 0) || at != 0 && m.Time.UnixNano() != at {
			t.Errorf("%q: %+v", line, m)
		}
	})
}

// FuzzStream: a body says the same in whatever pieces it comes, and a part of it nothing else than its whole lines do.
func FuzzStream(f *testing.F) {
	f.Add([]byte(strings.Join(seedLines[:10], "\n")+"\n"), uint16(70), uint16(200))
	f.Add([]byte(strings.Repeat(seedLines[0]+"\r\n\n", 40)), uint16(1), uint16(1000))
	f.Add([]byte(seedLines[0]+"\n"+seedLines[8]+"\n"+seedLines[0]+"\n"), uint16(3), uint16(4000))
	f.Fuzz(func(t *testing.T, body []byte, piece, most uint16) {
		limit := int(most) + 1
		whole := body[:bytes.LastIndexByte(body, '\n')+1]
		want, wantSince, wantErr := client.ReadStream(bytes.NewReader(whole), limit)
		for name, r := range map[string]io.Reader{
			"byte by byte":       iotest.OneByteReader(bytes.NewReader(body)),
			"in pieces":          &pieces{body, int(piece)%300 + 1},
			"with its error":     iotest.DataErrReader(bytes.NewReader(body)),
			"with half a line":   bytes.NewReader(append(bytes.Clone(whole), seedLines[0]...)),
			"with empty batches": iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(body))),
		} {
			got, since, err := client.ReadStream(r, limit)
			if tooLong(wantErr) || tooLong(err) {
				// How much comes before it depends on how it comes.
				n := min(len(got), len(want))
				if !slices.EqualFunc(got[:n], want[:n], same) {
					t.Fatalf("%s: %+v, want %+v", name, got, want)
				}
				continue
			}
			if !slices.EqualFunc(got, want, same) || since != wantSince || (err == io.EOF) != (wantErr == io.EOF) {
				t.Fatalf("%s: %+v, %q, %v; want %+v, %q, %v", name, got, since, err, want, wantSince, wantErr)
			}
		}
	})
}

func tooLong(err error) bool { return strings.Contains(err.Error(), "WithMaxLine") }

func same(a, b tailcast.Message) bool {
	return bytes.Equal(a.Data, b.Data) && a.Pos == b.Pos && a.Topic == b.Topic && a.Partial == b.Partial && a.Binary == b.Binary &&
		(a.Gap == nil) == (b.Gap == nil) && (a.Gap == nil || *a.Gap == *b.Gap)
}

// pieces reads n bytes at a time.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(p.n, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}
