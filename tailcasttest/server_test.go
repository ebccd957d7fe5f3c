package tailcasttest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

// both runs a test inside a bubble and outside of one.
func both(t *testing.T, f func(t *testing.T)) {
	t.Run("in a bubble", func(t *testing.T) { synctest.Test(t, f) })
	t.Run("in real time", f)
}

func publish(t testing.TB, hub *tailcast.Hub, data ...string) {
	t.Helper()
	for _, d := range data {
		if err := hub.Publish(context.Background(), tailcast.Message{Data: []byte(d)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryFormatIsRead(t *testing.T) {
	both(t, func(t *testing.T) {
		hub := tailcast.New()
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)
		text, events, objects := srv.Stream("/", ""), srv.Stream("/", "text/event-stream"), srv.Stream("/", "application/x-ndjson")
		bare, envelopes := srv.WebSocket("/"), srv.WebSocket("/", "tailcast.v1")
		if bare.Subprotocol() != "" || envelopes.Subprotocol() != "tailcast.v1" {
			t.Errorf("subprotocols %q and %q", bare.Subprotocol(), envelopes.Subprotocol())
		}
		publish(t, hub, "one", "two")
		var id string
		for _, want := range []string{"one", "two"} {
			if line, err := text.Line(); line != want || err != nil {
				t.Errorf("line %q, %v", line, err)
			}
			e, err := events.Event()
			if e.Data != want || e.Name != "" || e.ID == "" || e.ID != events.LastEventID || err != nil {
				t.Errorf("event %+v, %v", e, err)
			}
			id = e.ID
			if data, binary, err := bare.Read(); string(data) != want || binary || err != nil {
				t.Errorf("message %q, %v, %v", data, binary, err)
			}
			for name, read := range map[string]func(any) error{"NDJSON": objects.Object, "envelopes": envelopes.Object} {
				var m struct{ ID, Data, Event string }
				err := read(&m)
				if m.Event == "pos" && err == nil { // where the viewer begins
					m.Event = ""
					err = read(&m)
				}
				if m.Data != want || m.ID != id || m.Event != "" || err != nil {
					t.Errorf("%s: %+v, %v", name, m, err)
				}
			}
		}
		if err := envelopes.Write(`{"type":"subscribe","topic":"other","ref":7}`); err != nil {
			t.Error(err)
		}
		var answer struct {
			Event string
			Ref   int
		}
		if err := envelopes.Object(&answer); answer.Event != "error" || answer.Ref != 7 || err != nil { // nobody may read it
			t.Errorf("%+v, %v", answer, err)
		}
		srv.Header.Set("Last-Event-ID", id)
		again := srv.Stream("/", "text/event-stream")
		publish(t, hub, "three")
		if e, err := again.Event(); e.Data != "three" || err != nil {
			t.Errorf("after a resume: %+v, %v", e, err)
		}
	})
}

func TestHowConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 10)
		hub := tailcast.New(tailcast.WithBeforeClose(func(_ *tailcast.Conn, cause error) { causes <- cause }))
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)

		leaving := srv.WebSocket("/")
		if err := leaving.Goodbye(4000, "enough"); err != nil {
			t.Fatal(err)
		}
		closed := new(tailcast.CloseError)
		if _, _, err := leaving.Read(); !errors.As(err, &closed) || closed.Code != 4000 {
			t.Errorf("after Goodbye: %v", err)
		}
		if cause := <-causes; !errors.As(cause, &closed) || closed.Code != 4000 || closed.Reason != "enough" {
			t.Errorf("BeforeClose: %v", cause)
		}
		srv.WebSocket("/").Close()
		if cause := <-causes; !errors.Is(cause, io.ErrUnexpectedEOF) {
			t.Errorf("BeforeClose of one that vanishes: %v", cause)
		}

		stays, events := srv.WebSocket("/"), srv.Stream("/", "text/event-stream")
		if err := hub.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if _, _, err := stays.Read(); !errors.As(err, &closed) || closed.Code != 1001 {
			t.Errorf("after Shutdown: %v", err)
		}
		if e, err := events.Event(); e.Name != "bye" || err != nil {
			t.Errorf("after Shutdown: %+v, %v", e, err)
		}
		if e, err := events.Event(); !errors.Is(err, io.EOF) {
			t.Errorf("after bye: %+v, %v", e, err)
		}
	})
}

func TestARefusalCanBeLookedAt(t *testing.T) {
	both(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithAuthenticate(func(r *http.Request) (tailcast.Identity, error) {
			if r.Header.Get("Authorization") != "Bearer x" {
				return tailcast.Identity{}, errors.New("who are you?")
			}
			return tailcast.Identity{User: "x"}, nil
		}))
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)
		if got := srv.Stream("/", ""); got.Response.StatusCode != http.StatusUnauthorized {
			t.Errorf("a stream: %s", got.Response.Status)
		}
		ws := srv.WebSocket("/")
		if _, _, err := ws.Read(); ws.Response.StatusCode != http.StatusUnauthorized || err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("a WebSocket: %s, %v", ws.Response.Status, err)
		}
		if ws.Write("x") == nil || ws.Goodbye(1000, "") == nil || ws.Object(new(any)) == nil {
			t.Error("a WebSocket that is none can be used")
		}
		srv.Header.Set("Authorization", "Bearer x")
		if got := srv.Stream("/", ""); got.Response.StatusCode != http.StatusOK {
			t.Errorf("a stream of somebody: %s", got.Response.Status)
		}
		resp, err := srv.Client().Post(srv.URL+"/", "text/plain", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST: %s", resp.Status)
		}
	})
}

func TestAStalledClientIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		causes := make(chan error, 1)
		hub := tailcast.New(tailcast.WithWriteTimeout(time.Minute), tailcast.WithPing(0, time.Second),
			tailcast.WithBeforeClose(func(_ *tailcast.Conn, cause error) { causes <- cause }))
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)
		slow, gone := srv.Stream("/", "text/event-stream"), srv.WebSocket("/")
		slow.Stall()
		publish(t, hub, "one", "two")
		time.Sleep(30 * time.Second)
		slow.Resume()
		for _, want := range []string{"one", "two"} {
			if e, err := slow.Event(); e.Data != want || err != nil {
				t.Errorf("%+v, %v", e, err)
			}
		}
		began := time.Now()
		gone.Stall()
		publish(t, hub, "three")
		if cause := <-causes; !errors.Is(cause, tailcast.ErrWriteTimeout) || time.Since(began) < time.Minute {
			t.Errorf("after %v: %v", time.Since(began), cause)
		}
	})
}

// A viewer that reads nothing for a minute, and then too late, is told how much it has missed.
func TestAStalledClientIsToldOfAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 10}), tailcast.WithWriteTimeout(time.Hour))
		defer hub.Close()
		viewer := tailcasttest.Serve(t, hub).Stream("/", "text/event-stream")
		viewer.Stall()
		for range 1000 {
			publish(t, hub, strings.Repeat("x", 1000))
		}
		time.Sleep(time.Minute)
		viewer.Resume()
		for e, err := viewer.Event(); e.Name != "gap"; e, err = viewer.Event() {
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAHandlerOfOnesOwn(t *testing.T) {
	both(t, func(t *testing.T) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /events", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, ": a comment\r\n\r\nid: 1\n\nevent: e\ndata: a\ndata:b\nid: 2\n\ndata: cut off")
		})
		mux.HandleFunc("GET /host", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s\n\nend", r.Host) })
		mux.HandleFunc("GET /json", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{\"n\":1}\nno json\n") })
		srv := tailcasttest.Serve(t, mux)
		events := srv.Stream("/events", "text/event-stream")
		if e, err := events.Event(); e != (tailcasttest.Event{Name: "e", Data: "a\nb", ID: "2"}) || err != nil || events.LastEventID != "2" {
			t.Errorf("%+v, %v, %q", e, err, events.LastEventID)
		}
		if e, err := events.Event(); err != io.EOF {
			t.Errorf("%+v, %v", e, err)
		}
		srv.Header = http.Header{"Host": {"logs.example"}}
		lines := srv.Stream("/host", "")
		for _, want := range []string{"logs.example", "", "end"} {
			if line, err := lines.Line(); line != want || err != nil {
				t.Errorf("%q, %v", line, err)
			}
		}
		if line, err := lines.Line(); err != io.EOF {
			t.Errorf("%q, %v", line, err)
		}
		var v struct{ N int }
		objects := srv.Stream("/json", "")
		if err := objects.Object(&v); v.N != 1 || err != nil {
			t.Errorf("%+v, %v", v, err)
		}
		if err := objects.Object(&v); err == nil || !strings.Contains(err.Error(), "no json") {
			t.Error(err)
		}
		resp, err := srv.Client().Get(srv.URL + "/nowhere")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Error(resp.Status)
		}
	})
}

func TestAHandlerThatDoesNotReturnIsTold(t *testing.T) {
	var said []string
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		ft := &fake{TB: t}
		t.Cleanup(func() { said = ft.said; close(over) })
		srv := tailcasttest.Serve(ft, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			<-over
		}))
		srv.Stream("/", "")
	})
	if len(said) != 1 || !strings.Contains(said[0], "has not returned") {
		t.Errorf("%q", said)
	}
}
