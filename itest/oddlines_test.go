package itest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
)

// oddLines are lines of a log that a browser might choke on.
var oddLines = []struct{ name, line string }{
	{"invalid UTF-8", "caf\xe9 \xff\xfe \xc3( \xed\xa0\x80 \xf4\x90\x80\x80 cut: \xf0\x9f\x98"},
	{"a byte order mark", "\ufefffirst"},
	{"NUL", "a\x00b\x00"},
	{"CR", "50 %\r100 %"},
	{"CR at both ends", "\rx\ry\r\r"}, // the last one is a part of the line end
	{"script", "<script>document.title = 'broken'</script><img src=x onerror=alert(1)>"},
	{"ANSI", "\x1b[31;1mERROR\x1b[0m \x1b]0;title\x07 \x9b"},
	{"fields of an SSE", "id: 7"},
	{"a comment of an SSE", ": x"},
	{"a colon and spaces", "  : \t "},
	{"nothing", ""},
	{"separators", "a\u2028b\u2029c\x85\v\f\x1c"},
	{"an envelope", `{"topic":"","id":"x","data":"y"}`},
	{"outside of the planes", "\U0001F600\U0010FFFF\uFFFF"},
	{"1 MiB", strings.Repeat("0123456789abcde\t", 1<<16)},
	{"1 MiB of bad bytes", strings.Repeat("\xff", 1<<20)},
}

// TestOddLinesAtThePage: an EventSource, a WebSocket and a WebSocket with envelopes, each in Chromium and in Node, get lines of
// a followed file that are not plain text, and stay connected.
func TestOddLinesAtThePage(t *testing.T) {
	t.Parallel()
	needVisitors(t)
	h := newHouse(t)
	var log strings.Builder
	for _, odd := range oddLines {
		log.WriteString(odd.line + "\n")
	}
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte(log.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	ws := "ws" + strings.TrimPrefix(h.url, "http") + "/stream?since=earliest"
	// As text a line has one U+FFFD for each byte that is not UTF-8. The line end of the file may be CR LF.
	text := func(line string) string { return string([]rune(strings.TrimSuffix(line, "\r"))) }
	for _, format := range []struct {
		name   string
		open   []any
		unpack func(data string) string
		shown  func(line string) string
	}{
		{"EventSource", []any{"source", h.url + "/stream?since=earliest"}, nil,
			func(line string) string { return strings.ReplaceAll(text(line), "\r", "\n") }}, // its own line ends
		{"WebSocket", []any{"talk", ws, []string{}}, nil, text},
		{"envelopes", []any{"talk", ws, []string{"tailcast.v1"}}, func(data string) string {
			var o struct {
				Data string
				B64  bool
			}
			if err := json.Unmarshal([]byte(data), &o); err != nil {
				t.Errorf("%.100q: %v", data, err)
			}
			if o.B64 {
				b, err := base64.StdEncoding.DecodeString(o.Data)
				if err != nil {
					t.Errorf("%.100q: %v", data, err)
				}
				return string(b)
			}
			return o.Data
		}, func(line string) string { return strings.TrimSuffix(line, "\r") }}, // to the byte
	} {
		for _, kind := range []string{"chromium", "node"} {
			t.Run(kind+"/"+format.name, func(t *testing.T) {
				hub := h.open(t)
				ctx, cancel := context.WithCancel(t.Context())
				ran := make(chan error)
				go func() { ran <- hub.Run(ctx, &tailcast.Tail{Path: path, Start: tailcast.FromStart}) }()
				defer func() {
					cancel()
					if err := <-ran; err != nil {
						t.Error(err)
					}
				}()
				v := startVisitor(t, kind, h.url)
				v.order(format.open...)
				v.await("open")
				next := func() string {
					for {
						data := v.await("message").Data
						if format.name == "envelopes" && strings.HasPrefix(data, `{"event":"pos"`) {
							continue
						}
						if format.unpack != nil {
							data = format.unpack(data)
						}
						return data
					}
				}
				for _, odd := range oddLines {
					if got, want := next(), format.shown(odd.line); got != want {
						t.Errorf("%s: got %d bytes, %.100q, want %d, %.100q", odd.name, len(got), got, len(want), want)
					}
				}
				appendFile(t, path, "still here\n")
				defer os.Truncate(path, int64(log.Len()))
				if got := next(); got != "still here" {
					t.Errorf("after all of them: %.100q", got)
				}
				for _, event := range []string{"close", "error"} {
					if n := len(v.events[event]); n > 0 {
						t.Errorf("it was disconnected: %+v", <-v.events[event])
					}
				}
			})
		}
	}
}

func appendFile(t *testing.T, path, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
}
