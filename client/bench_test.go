package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/internal/wire"
)

// benchLines are lines as a hub writes them, of 120 bytes of text each.
func benchLines(text string, n int) []byte {
	var b []byte
	for i := range n {
		b = wire.AppendNDJSON(b, &wire.Record{
			Topic: "app.log", Pos: wire.Position{Epoch: 0xfeedfacecafe, Offset: uint64(1_000_000 + 120*i), Check: 0xdeadbeef},
			Time: 1735830245678901234, Data: fmt.Appendf(nil, "%08d %s", i, text),
		})
	}
	return b
}

var benchTexts = map[string]string{
	"text": strings.Repeat("log line ", 12),
	"JSON": strings.Repeat(`{"k":"v\n"},`, 9),
}

// BenchmarkParse is what a line costs a client beside the network, and what it would cost with encoding/json, into a struct.
func BenchmarkParse(b *testing.B) {
	for name, text := range benchTexts {
		batch := benchLines(text, 300)
		work := make([]byte, len(batch))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var p client.Parser
			for i := 0; i < b.N; i += 300 {
				copy(work, batch) // escapes are resolved in place
				if n, err := p.Parse(work); n != 300 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		line := bytes.TrimSpace(benchLines(text, 1))
		b.Run(name+" with encoding/json", func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				var o struct {
					ID, Topic, Data, Event string
					Time                   time.Time
					B64, Binary, Partial   bool
				}
				if err := json.Unmarshal(line, &o); err != nil {
					b.Fatal(err)
				}
				if _, err := wire.ParsePosition(o.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFollow is a loop over HTTP, from the server's socket to the body.
func BenchmarkFollow(b *testing.B) {
	batch := benchLines(benchTexts["text"], 300)
	srv := newServer(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for r.Context().Err() == nil {
			w.Write(batch)
		}
	}))
	b.ReportAllocs()
	b.SetBytes(int64(len(batch) / 300))
	n := 0
	b.ResetTimer()
	for _, err := range client.Follow(b.Context(), srv) {
		if err != nil {
			b.Fatal(err)
		}
		if n++; n >= b.N {
			break
		}
	}
}
