package itest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
)

// TestCompressionAtThePage: Chromium and Node's ws offer permessage-deflate by themselves. Both read what the hub compresses, the small
// with the large, and the hub reads what they compress.
func TestCompressionAtThePage(t *testing.T) {
	needVisitors(t)
	h := newHouse(t)
	for _, kind := range []string{"chromium", "node"} {
		for _, protocol := range []string{"", "tailcast.v1"} {
			t.Run(strings.TrimSpace(kind+" "+protocol), func(t *testing.T) {
				read := make(chan tailcast.Inbound, 10)
				hub := h.open(t, tailcast.WithCompression(1), tailcast.WithAfterRead(func(_ *tailcast.Conn, in tailcast.Inbound) error {
					read <- tailcast.Inbound{Data: bytes.Clone(in.Data), Binary: in.Binary}
					return nil
				}))
				v := startVisitor(t, kind, h.url)
				protocols := []string{}
				if protocol != "" {
					protocols = append(protocols, protocol)
				}
				v.order("talk", "ws"+strings.TrimPrefix(h.url, "http")+"/stream", protocols)
				if e := v.await("open"); e.Data != protocol {
					t.Errorf("the subprotocol is %q", e.Data)
				}
				next := func() string {
					t.Helper()
					for {
						data := v.await("message").Data
						if protocol == "" {
							return data
						}
						var o struct{ Event, Data string }
						if err := json.Unmarshal([]byte(data), &o); err != nil {
							t.Fatalf("%.80q: %v", data, err)
						}
						if o.Event == "" {
							return o.Data
						}
					}
				}
				published, large := 0, int64(0)
				for i, size := range []int{10, 511, 512, 513, 5000, 20, 100_000, 1 << 20, 600, 0, 70_000} {
					var lines strings.Builder
					for n := 0; lines.Len() < size; n++ {
						fmt.Fprintf(&lines, "%d: line %d, 日本 \u2028 \U0001F600\n", i, n*7919%10_007)
					}
					data := lines.String()
					if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte(data)}); err != nil {
						t.Fatal(err)
					}
					if got := next(); got != data {
						t.Fatalf("message %d is %.80q of %d bytes, want %.80q of %d bytes", i, got, len(got), data, len(data))
					}
					if published += len(data); len(data) >= 512 {
						large++
					}
				}
				n := hub.Stats()
				t.Logf("%d bytes were published, %d sent; %d messages were compressed from %d bytes to %d", published, n.SentBytes, n.Compressed, n.CompressedFrom, n.CompressedTo)
				if n.Compressed < large || n.SentBytes > uint64(published/2) {
					t.Errorf("of %d large messages %d were compressed; %d bytes were sent of %d", large, n.Compressed, n.SentBytes, published)
				}
				if protocol == "" {
					for _, size := range []int{5, 50_000} {
						v.order("send", size)
						if in := <-read; string(in.Data) != strings.Repeat("x", size) || in.Binary {
							t.Errorf("of %d bytes sent the hub has read %d", size, len(in.Data))
						}
					}
				}
				v.order("close")
				if e := v.await("close"); !e.Clean {
					t.Errorf("closed with %+v", e)
				}
			})
		}
	}
}
