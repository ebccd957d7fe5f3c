package tailcast_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A site is a hub behind an http.Server on a network in memory, for use inside a synctest bubble. At the end of the test it
// is closed, and whatever it leaves running fails the bubble.
type site struct {
	t   testing.TB
	hub *tailcast.Hub
	l   *testnet.Listener
}

func newSite(t testing.TB, opts ...tailcast.Option) *site {
	hub := tailcast.New(opts...)
	return serveSite(t, hub, hub)
}

func serveSite(t testing.TB, hub *tailcast.Hub, h http.Handler) *site {
	return serveSiteOn(t, hub, h, testnet.Listen())
}

func serveSiteOn(t testing.TB, hub *tailcast.Hub, h http.Handler, l *testnet.Listener) *site {
	s := &site{t: t, hub: hub, l: l}
	srv := &http.Server{Handler: h}
	served := make(chan struct{})
	go func() { srv.Serve(s.l); close(served) }()
	t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		srv.Close()
		<-served
		if n := hub.Stats(); len(n.Connections) != 0 {
			t.Errorf("connections are left: %v", n.Connections)
		}
		consistent(t, hub.Stats())
	})
	return s
}

func (s *site) publish(data ...string) {
	s.t.Helper()
	msgs := make([]tailcast.Message, len(data))
	for i := range data {
		msgs[i].Data = []byte(data[i])
	}
	if err := s.hub.Publish(context.Background(), msgs...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) dial() *testnet.Conn {
	s.t.Helper()
	nc, err := s.l.Dial(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	return nc
}

func (s *site) ws(query string) *testnet.WS {
	s.t.Helper()
	return s.wsWith(query, nil)
}

func (s *site) wsWith(query string, header http.Header) *testnet.WS {
	s.t.Helper()
	ws, _, err := testnet.NewWS(s.dial(), "hub.example", "/"+query, header)
	if err != nil {
		s.t.Fatal(err)
	}
	return ws
}

// get opens a stream: header lines are "Name: value".
func (s *site) get(query string, header ...string) *reader {
	s.t.Helper()
	return openStream(s.t, s.dial(), "/"+query, header...)
}

func (s *site) sse(query string, header ...string) *reader {
	s.t.Helper()
	return s.get(query, append(header, "Accept: text/event-stream")...)
}

// A reader reads a streaming response.
type reader struct {
	t    testing.TB
	nc   io.Closer
	resp *http.Response
	*bufio.Reader
	id string // the last event id
}

func openStream(t testing.TB, nc io.ReadWriteCloser, path string, header ...string) *reader {
	t.Helper()
	req := "GET " + path + " HTTP/1.1\r\nHost: hub.example\r\n"
	for _, h := range header {
		req += h + "\r\n"
	}
	if _, err := io.WriteString(nc, req+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{t: t, nc: nc, resp: resp, Reader: bufio.NewReaderSize(resp.Body, 64<<10)}
}

// lines expects these lines next.
func (r *reader) lines(want ...string) {
	r.t.Helper()
	for _, w := range want {
		got, err := r.ReadString('\n')
		if err != nil || got != w+"\n" {
			r.t.Fatalf("read %q, %v; want %q", got, err, w)
		}
	}
}

// An event is one block of an event stream.
type event struct{ name, data, id, topic string }

// event returns the next block that dispatches something, and remembers the last id as EventSource does.
func (r *reader) event() (event, error) {
	var e event
	dispatch := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return event{}, err
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		if line == "" && e.id != "" { // a block that is cut off says nothing
			r.id = e.id
		}
		switch {
		case line == "":
			if e.id != "" { // not before the block is whole
				r.id = e.id
			}
			if dispatch {
				return e, nil
			}
			e = event{}
		case field == "data":
			if dispatch {
				e.data += "\n"
			}
			e.data += value
			dispatch = true
		case field == "id":
			e.id = value
		case field == "event":
			e.name = value
		case field == "topic":
			e.topic = value
		}
	}
}

func (r *reader) events(want ...string) {
	r.t.Helper()
	for _, w := range want {
		e, err := r.event()
		if err != nil || e.data != w || e.name != "" {
			r.t.Fatalf("event %+v, %v; want %q", e, err, w)
		}
	}
}

// frames expects these text messages next.
func frames(t testing.TB, ws *testnet.WS, want ...string) {
	t.Helper()
	for _, w := range want {
		op, p, err := ws.ReadFrame()
		if err != nil || op != 1 || string(p) != w {
			t.Fatalf("frame %d %.80q, %v; want %.80q", op, p, err, w)
		}
	}
}

// closed expects a Close frame with this code, and answers it.
func closed(t testing.TB, ws *testnet.WS, code int) (reason string) {
	t.Helper()
	for {
		op, p, err := ws.ReadFrame()
		if err != nil {
			t.Fatalf("waiting for close %d: %v", code, err)
		}
		if op != 8 {
			continue
		}
		got := 1005
		if len(p) >= 2 {
			got, reason = int(p[0])<<8|int(p[1]), string(p[2:])
		}
		if got != code {
			t.Fatalf("closed with %d %q, want %d", got, reason, code)
		}
		_ = ws.WriteClose(code, "")
		return reason
	}
}

func numbered(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("message %d", i))
	}
	return out
}

// eventually waits for something that happens outside of a bubble.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not happen: %s", what)
		}
	}
}
