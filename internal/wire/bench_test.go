package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tailcast/tailcast/internal/wire"
)

var encoders = []struct {
	name   string
	append func([]byte, *wire.Record) []byte
}{
	{"WS", wire.AppendWS},
	{"WSEnvelope", wire.AppendWSEnvelope},
	{"SSE", wire.AppendSSE},
	{"Text", wire.AppendText},
	{"Envelope", wire.AppendEnvelope},
	{"NDJSON", wire.AppendNDJSON},
}

// records are the payloads that viewers see most, and the ones that leave the fast path.
func records() map[string]*wire.Record {
	r := func(data string) *wire.Record {
		return &wire.Record{
			Topic: "a topic whose name does not fit on the stack/app", Pos: wire.Position{Epoch: 1 << 60, Offset: 1 << 30, Check: 1 << 31},
			Time: 1735830245678901234, Data: []byte(data),
		}
	}
	gap := r("")
	gap.Gap = &wire.Gap{From: wire.Earliest(), To: gap.Pos, Count: 12, Bytes: -1, Reason: "the log was truncated"}
	return map[string]*wire.Record{
		"ascii":   r("2025-01-02T15:04:05.678Z INFO request done method=GET path=/api/v1/items status=200 bytes=5120 duration=1.234ms"),
		"json":    r(`{"time":"2025-01-02T15:04:05.678Z","level":"INFO","msg":"request done","method":"GET","path":"/api/v1/items","status":200}`),
		"utf8":    r(strings.Repeat("наблюдение за журналом — ", 5)),
		"invalid": r(strings.Repeat("latin1 \xe9t\xe9 ", 10)),
		"lines":   r(strings.Repeat("\tat com.example.Main.run(Main.java:42)\r\n", 100)),
		"gap":     gap,
	}
}

func TestEncodersAllocateOnlyToGrow(t *testing.T) {
	dst := make([]byte, 0, 64<<10)
	for name, r := range records() {
		for _, e := range encoders {
			if n := testing.AllocsPerRun(10, func() { e.append(dst, r) }); n != 0 {
				t.Errorf("%s of %s allocates %v times", e.name, name, n)
			}
		}
	}
	id := []byte("app=1a.1,web=1a.2")
	if n := testing.AllocsPerRun(10, func() {
		b := wire.AppendSSEID(dst, id)
		b = wire.AppendSSEComment(b, "hb")
		_ = wire.AppendPos(b, "a topic whose name does not fit on the stack/app", wire.Earliest())
	}); n != 0 {
		t.Errorf("heartbeats allocate %v times", n)
	}
}

func TestEncodersKeepNothingAndLeaveTheRecordAlone(t *testing.T) {
	for name, r := range records() {
		for _, e := range encoders {
			before := bytes.Clone(r.Data)
			first := e.append(nil, r)
			second := e.append(bytes.Clone(first), r)
			if !bytes.Equal(second, append(bytes.Clone(first), first...)) || !bytes.Equal(before, r.Data) {
				t.Errorf("%s of %s is not the same twice", e.name, name)
			}
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	all := records()
	for _, e := range encoders {
		for _, name := range []string{"ascii", "json", "utf8", "invalid", "lines"} {
			b.Run(e.name+"/"+name, func(b *testing.B) {
				r, dst := all[name], make([]byte, 0, 64<<10)
				b.SetBytes(int64(len(r.Data)))
				b.ReportAllocs()
				for b.Loop() {
					dst = e.append(dst[:0], r)
				}
			})
		}
	}
}

func BenchmarkParsePosition(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := wire.ParsePosition(longestPosition); err != nil {
			b.Fatal(err)
		}
	}
}
