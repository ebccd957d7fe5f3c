package itest

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
)

// TestEnvelopesAtThePage: a page in Chromium, and Node, agree on tailcast.v1, read what JSON.parse takes, command, and come back
// with the positions that they kept.
func TestEnvelopesAtThePage(t *testing.T) {
	needVisitors(t)
	h := newHouse(t)
	for _, kind := range []string{"chromium", "node"} {
		t.Run(kind, func(t *testing.T) {
			hub := h.open(t, tailcast.WithAuthorize(func(context.Context, tailcast.Access) error { return nil }))
			v := startVisitor(t, kind, h.url)
			at := "ws" + strings.TrimPrefix(h.url, "http") + "/stream?topic=a"
			ids := make(map[string]string)
			next := func() string {
				t.Helper()
				var o struct{ Event, Topic, ID, Data, Reason string }
				data := v.await("message").Data
				if err := json.Unmarshal([]byte(data), &o); err != nil {
					t.Fatalf("%q: %v", data, err)
				}
				if o.ID != "" {
					ids[o.Topic] = o.ID
				}
				return strings.TrimSpace(strings.Join([]string{o.Event, o.Topic, o.Data, o.Reason}, " "))
			}
			expect := func(want ...string) {
				t.Helper()
				for _, w := range want {
					if got := next(); got != w {
						t.Fatalf("got %q, want %q", got, w)
					}
				}
			}
			publish := func(topic, data string) {
				t.Helper()
				if err := hub.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte(data)}); err != nil {
					t.Fatal(err)
				}
			}
			v.order("envelopes", at)
			if e := v.await("open"); e.Data != "tailcast.v1" {
				t.Errorf("the subprotocol is %q", e.Data)
			}
			expect("pos a")
			odd := "\u2028\u2029\x01\"\\/日本<script>\U0001F600"
			publish("a", odd)
			expect("a " + odd)
			v.order("command", map[string]any{"type": "subscribe", "topic": "b"})
			expect("ok", "pos b")
			v.order("command", map[string]any{"type": "publish", "topic": "unseen", "data": "x"})
			expect("ok")
			v.order("command", map[string]any{"type": "unsubscribe", "topic": "c"})
			expect(`error   unsubscribe: topic "c": not subscribed.`)
			v.order("close")
			v.await("close")
			publish("a", "missed in a")
			publish("b", "missed in b")
			v.order("envelopes", at+"&topic=b&since="+url.QueryEscape("a="+ids["a"]+",b="+ids["b"]))
			v.await("open")
			for missed := 0; missed < 2; {
				switch got := next(); got {
				case "a missed in a", "b missed in b":
					missed++
				case "pos a", "pos b":
				default:
					t.Fatalf("after coming back: %q", got)
				}
			}
			go hub.Shutdown(t.Context())
			for got := next(); got != "bye   "+shuttingDown; got = next() {
				if !strings.HasPrefix(got, "pos ") {
					t.Fatalf("at the end: %q", got)
				}
			}
			if e := v.await("close"); e.Code != 1001 || e.Reason != shuttingDown || !e.Clean {
				t.Errorf("closed with %+v", e)
			}
		})
	}
}
