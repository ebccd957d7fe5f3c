package tailcast_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

func TestPushHandler(t *testing.T) {
	hub := tailcast.New(tailcast.WithHosts("push.example"))
	defer hub.Close()
	auth := func(r *http.Request) error {
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			return nil
		case "Bearer slow":
			return &tailcast.CloseError{Code: 4429, Reason: "Slow down."}
		case "Bearer panic":
			panic("no table")
		}
		return errors.New("secret: not good")
	}
	const good = `{"userId":"ann","event":"orders","message":"x"}`
	for _, c := range []struct {
		name    string
		body    string
		change  func(r *http.Request)
		status  int
		answer  string
		nobody  bool // no auth function
		closing bool
	}{
		{name: "as it should be", body: good, status: 200, answer: `{"matched":0,"queued":0,"dropped":0}`},
		{name: "unknown members", body: `{"x":[],"message":"x","userId":"ann","event":"orders"}`, status: 200, answer: `{"matched":0`},
		{name: "a charset", body: good, change: header("Content-Type", "application/json; charset=UTF-8"), status: 200, answer: `{"matched":0`},
		{name: "text is accepted", body: good, change: header("Accept", "text/plain"), status: 200, answer: "message sent to 0 clients\n"},
		{name: "another origin", body: good, change: header("Origin", "http://evil.example"), status: 403, answer: "evil.example"},
		{name: "GET", change: func(r *http.Request) { r.Method = "GET" }, status: 405, answer: "POST a message"},
		{name: "PUT", body: good, change: func(r *http.Request) { r.Method = "PUT" }, status: 405, answer: `"PUT" has no meaning`},
		{name: "no authorization", body: good, change: header("Authorization", ""), status: 401, answer: "authenticate first"},
		{name: "a code of its own", body: good, change: header("Authorization", "Bearer slow"), status: 429, answer: "Slow down."},
		{name: "a panic", body: good, change: header("Authorization", "Bearer panic"), status: 500, answer: "something is wrong"},
		{name: "no auth function", body: good, nobody: true, status: 403, answer: "Nobody may push here"},
		{name: "a form", body: "userId=ann", change: header("Content-Type", "application/x-www-form-urlencoded"), status: 415, answer: "has to be application/json"},
		{name: "no type", body: good, change: header("Content-Type", ""), status: 415, answer: "has to be application/json"},
		{name: "another charset", body: good, change: header("Content-Type", "application/json; charset=utf-16"), status: 415, answer: "has to be application/json"},
		{name: "too large", body: `{"message":"` + strings.Repeat("x", 1<<20) + `"}`, status: 413, answer: "larger than 1048576 bytes"},
		{name: "as large as may be", body: `{"userId":"ann","event":"o","message":"` + strings.Repeat("x", 1<<20-41) + `"}`, status: 200, answer: `{"matched":0`},
		{name: "nothing", body: "", status: 400, answer: "unexpected end of JSON"},
		{name: "no JSON", body: `{"userId":"ann"]`, status: 400, answer: "at byte 16"},
		{name: "two of them", body: good + good, status: 400, answer: "at byte"},
		{name: "an array", body: `[1]`, status: 400, answer: "has to be an object"},
		{name: "null", body: `null`, status: 400, answer: "userId is missing"},
		{name: "no user", body: `{"event":"orders","message":"x"}`, status: 400, answer: "userId is missing"},
		{name: "an empty user", body: `{"userId":"","event":"orders","message":"x"}`, status: 400, answer: "userId is missing"},
		{name: "a number for a user", body: `{"userId":5,"event":"orders","message":"x"}`, status: 400, answer: "userId is of type number"},
		{name: "no event", body: `{"userId":"ann","message":"x"}`, status: 400, answer: "event is missing"},
		{name: "no message", body: `{"userId":"ann","event":"orders"}`, status: 400, answer: "message is missing"},
		{name: "an empty message", body: `{"userId":"ann","event":"orders","message":""}`, status: 400, answer: "message is missing"},
		{name: "null for a message", body: `{"userId":"ann","event":"orders","message":null}`, status: 400, answer: "message is missing"},
		{name: "a text that says null", body: `{"userId":"ann","event":"orders","message":"null"}`, status: 200, answer: `{"matched":0`},
		{name: "an event that is no topic", body: `{"userId":"ann","event":"a\u0000b","message":"x"}`, status: 400, answer: "bad topic name"},
		{name: "a hub that is closed", body: good, closing: true, status: 503, answer: "shutting down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := hub.PushHandler(auth)
			if c.nobody {
				h = hub.PushHandler(nil)
			}
			if c.closing {
				other := tailcast.New()
				other.Close()
				h = other.PushHandler(auth)
			}
			r := httptest.NewRequest("POST", "http://push.example/push", strings.NewReader(c.body))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer good")
			if c.change != nil {
				c.change(r)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.answer) || strings.Contains(w.Body.String(), "secret") {
				t.Errorf("%d %s; want %d %s", w.Code, w.Body, c.status, c.answer)
			}
			if c.status == 405 && w.Header().Get("Allow") != "POST" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
			if c.status == 503 && w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		})
	}
}

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// post pushes through a handler, and returns what it answers.
func post(t *testing.T, h http.Handler, user, event string, message any) (r tailcast.PushResult) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"userId": user, "event": event, "message": message})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequest("POST", "/push", strings.NewReader(string(body)))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil || w.Code != 200 {
		t.Errorf("%d %s: %v", w.Code, w.Body, err)
	}
	return r
}

func everybody(*http.Request) error { return nil }

func TestPushReachesEachFormat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthenticate(func(r *http.Request) (tailcast.Identity, error) {
			return tailcast.Identity{User: "ann"}, nil
		}))
		ws, v1, sse, text := s.ws(""), s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}}), s.sse(""), s.get("")
		synctest.Wait()
		s.pushed("ann", "", "to ann", one(4))
		frames(t, ws, "to ann")
		frames(t, v1, `{"event":"pos","topic":"","id":"earliest"}`, `{"topic":"","data":"to ann"}`)
		sse.events("to ann")
		text.lines("to ann")
		if _, err := s.hub.Push(t.Context(), "", "", []byte("to nobody")); !errors.Is(err, tailcast.ErrMessage) {
			t.Errorf("without a user: %v", err)
		}
	})
}

func TestAPushedObjectStaysJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		ws := s.ws("")
		say(t, ws, `{"token":"t-ann","event":"orders"}`)
		h := s.hub.PushHandler(everybody)
		for want, message := range map[string]any{`{"a":[1,"ü"]}`: map[string]any{"a": []any{1, "ü"}}, "7": 7, "text \u2028 \n": "text \u2028 \n", "false": false} {
			post(t, h, "ann", "orders", message)
			frames(t, ws, want)
		}
	})
}

// Nobody waits for a connection that does not read: neither a push to it, nor others, and the answer says what was dropped.
func TestPushesToAStalledConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		stalled, well := s.ws(""), s.ws("")
		for _, ws := range []*testnet.WS{stalled, well} {
			say(t, ws, `{"token":"t-ann","event":"orders"}`)
		}
		stalled.Conn.(*testnet.Conn).Stall()
		read := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ; read < 500; read++ {
				if _, _, err := well.ReadMessage(); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		h := s.hub.PushHandler(everybody)
		began := time.Now()
		var mu sync.Mutex
		var sum tailcast.PushResult
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 10 {
					r := post(t, h, "ann", "orders", strings.Repeat("x", 1<<10))
					mu.Lock()
					sum.Matched += r.Matched
					sum.Queued += r.Queued
					sum.Dropped += r.Dropped
					mu.Unlock()
					time.Sleep(time.Millisecond) // for who reads to read
				}
			})
		}
		wg.Wait()
		if d := time.Since(began); d != 10*time.Millisecond {
			t.Errorf("500 pushes waited %v", d)
		}
		<-done
		if sum.Matched != 1000 || sum.Queued+sum.Dropped != 1000 || sum.Queued < 500 || sum.Dropped < 100 {
			t.Errorf("%+v", sum)
		}
		t.Logf("500 pushes to two connections, one of them stalled: %+v", sum)
		stalled.Conn.Close()
	})
}

// A push is made ready once for all connections of the user that have it in the same form, not once for each.
func TestPushIsEncodedOnce(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	for range 100 {
		defer hub.AttachUser(new(tailcast.DiscardSocket), "ann", "orders")()
	}
	data := make([]byte, 100<<10)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const pushes = 20
	for range pushes {
		if r, err := hub.Push(t.Context(), "ann", "orders", data); err != nil || r.Matched != 100 {
			t.Fatal(r, err)
		}
	}
	runtime.ReadMemStats(&after)
	// Each connection copies it into its queue; that is 100 times the message, and it was 200 times.
	if n := (after.TotalAlloc - before.TotalAlloc) / pushes / uint64(len(data)); n > 150 {
		t.Errorf("a push to 100 connections takes %d times the memory of its message", n)
	}
}
