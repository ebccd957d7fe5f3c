package itest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/tailcast/tailcast"
)

// TestHTTP2: event streams and NDJSON over HTTP/2, for curl and for a page, which has more of them at once than it may have
// connections over HTTP/1.1, all on one.
func TestHTTP2(t *testing.T) {
	need(t, "curl")
	needVisitors(t)
	hub := tailcast.New(tailcast.WithBacklog(0), tailcast.WithRetention(tailcast.Retention{Messages: 1 << 20}))
	var mu sync.Mutex
	asked := make(map[string]int) // by address of the client
	mux := http.NewServeMux()
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!doctype html><title>visitor</title>")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != "HTTP/2.0" {
			t.Errorf("%s from %s", r.Proto, r.UserAgent())
		}
		mu.Lock()
		asked[r.RemoteAddr]++
		mu.Unlock()
		hub.ServeHTTP(w, r)
	})
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{NextProtos: []string{"h2"}}
	server.StartTLS()
	defer server.Close()
	defer hub.Close()

	v := startVisitor(t, "chromium", server.URL)
	const streams = 12
	for i := range streams {
		if i%2 == 0 {
			v.order("source", server.URL+"/stream")
		} else {
			v.order("ndjson", server.URL+"/stream")
		}
		v.await("open")
	}
	mu.Lock()
	if len(asked) != 1 {
		t.Errorf("the page's %d streams came on %d connections", streams, len(asked))
	}
	mu.Unlock()
	publish := func(data string) {
		if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	data := func(line string) string {
		var o struct{ Data string }
		if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &o) != nil {
			return line
		}
		return o.Data
	}
	eventually(t, "all streams are subscribed", func() bool { return connections(hub) == streams })
	publish("to the page")
	for seen := 0; seen < streams; {
		if got := data(v.await("message").Data); got == "to the page" {
			seen++
		} else if got != "" { // what is no message has no data
			t.Fatalf("the page got %q", got)
		}
	}

	v.order("leave")
	eventually(t, "the page's streams end", func() bool { return connections(hub) == 0 })

	// curl, at full speed.
	const messages = 20_000
	var wg sync.WaitGroup
	for _, accept := range []string{"text/event-stream", "application/x-ndjson", "text/plain"} {
		cmd := exec.Command("curl", "-sSkN", "--http2", "--max-time", fmt.Sprint(patience.Seconds()), "-H", "Accept: "+accept, server.URL+"/stream?since=earliest")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer cmd.Wait()
			defer cmd.Process.Kill()
			next := 0 // message 0 was to the page
			for lines := bufio.NewScanner(out); next <= messages; {
				if !lines.Scan() {
					t.Errorf("curl, %s: it ended after message %d: %s", accept, next-1, &stderr)
					return
				}
				line, ok := lines.Text(), true
				switch accept {
				case "text/event-stream":
					line, ok = strings.CutPrefix(line, "data: ")
				case "application/x-ndjson":
					ok = !strings.HasPrefix(line, `{"event"`)
					line = data(line)
				}
				if !ok {
					continue
				}
				want := fmt.Sprint("message ", next)
				if next == 0 {
					want = "to the page"
				}
				if line != want {
					t.Errorf("curl, %s: %q after message %d", accept, line, next-1)
					return
				}
				next++
			}
		})
	}
	for i := range messages {
		publish(fmt.Sprint("message ", i+1))
	}
	wg.Wait()
}

// connections counts those of all formats.
func connections(hub *tailcast.Hub) (n int) {
	for range hub.Conns() {
		n++
	}
	return n
}
