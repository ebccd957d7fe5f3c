package tailcast_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// What is known to be wrong with wserver (at 2830aca), and people inherit with the pattern: each of it as a test.

// 1: a second registration of a connection was lost.
func TestASecondRegistrationCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		ws := s.ws("")
		for i := range 10 {
			say(t, ws, `{"token":"t-ann","event":"event%d"}`, i)
		}
		for i := range 10 {
			s.pushed("ann", fmt.Sprint("event", i), "x", one(1))
			frames(t, ws, "x")
		}
	})
}

// 2: a connection that registered with another token stayed the former user's for ever, also when it had gone.
func TestARegistrationMovesAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		ws := s.ws("")
		for i := range 100 {
			say(t, ws, `{"token":"t-user%d","event":"orders"}`, i)
		}
		for i := range 99 {
			s.pushed(fmt.Sprint("user", i), "orders", "not any more", one(0))
		}
		s.pushed("user99", "orders", "now", one(1))
		frames(t, ws, "now")
		ws.Close()
		synctest.Wait()
		if n := s.hub.Users(); n != 0 {
			t.Errorf("%d users are left of a connection that has gone", n)
		}
	})
}

// 3: a connection that ended without a Close frame stayed bound until a push to it failed.
func TestAConnectionThatIsCutIsUnbound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		s := newPushSite(t, tailcast.WithBeforeClose(func(*tailcast.Conn, error) { ended.Add(1) }))
		for range 10 {
			ws := s.ws("")
			say(t, ws, `{"token":"t-ann","event":"orders"}`)
			ws.Conn.Close() // no Close frame
			synctest.Wait()
			s.pushed("ann", "orders", "x", one(0))
		}
		if n := ended.Load(); n != 10 || s.hub.Users() != 0 {
			t.Errorf("BeforeClose was called %d times, %d users are left", n, s.hub.Users())
		}
	})
}

// 4: two pushes to one connection at a time were two writers, which is a panic.
func TestPushesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		ws := s.ws("")
		say(t, ws, `{"token":"t-ann","event":"orders"}`)
		const pushers, each = 50, 20
		var wg sync.WaitGroup
		for p := range pushers {
			wg.Go(func() {
				for i := range each {
					s.pushed("ann", "orders", fmt.Sprint(p, " ", i), one(1))
				}
			})
		}
		next := make([]int, pushers)
		for range pushers * each {
			_, data, err := ws.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			var p, i int
			if _, err := fmt.Sscan(string(data), &p, &i); err != nil || next[p] != i {
				t.Fatalf("%q, %v: want %d", data, err, next[p])
			}
			next[p]++
		}
		wg.Wait()
	})
}

// 5: two ends of a connection at a time closed a channel twice.
func TestManyEndsAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conn atomic.Pointer[tailcast.Conn]
		var ended atomic.Int64
		s := newPushSite(t, tailcast.WithOnConnect(func(c *tailcast.Conn) error { conn.Store(c); return nil }),
			tailcast.WithBeforeClose(func(*tailcast.Conn, error) { ended.Add(1) }))
		ws := s.ws("")
		say(t, ws, `{"token":"t-ann","event":"orders"}`)
		var first atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if conn.Load().Close(nil) == nil {
					first.Add(1)
				}
			})
			wg.Go(func() {
				n, err := s.hub.Disconnect(t.Context(), "ann", nil)
				if err != nil {
					t.Error(err)
				}
				first.Add(int64(n))
			})
		}
		wg.Wait()
		ws.Close()
		synctest.Wait()
		if first.Load() != 1 || ended.Load() != 1 {
			t.Errorf("%d calls have ended it, BeforeClose was called %d times", first.Load(), ended.Load())
		}
	})
}

// 6: it registered itself in http.DefaultServeMux, so there could not be two of them, nor one in an application's own mux.
func TestTwoHubsInOneMux(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := tailcast.New(tailcast.WithRegistration(tailcast.TokenIsUser)), tailcast.New(tailcast.WithRegistration(tailcast.TokenIsUser))
		defer two.Close()
		mux := http.NewServeMux()
		mux.Handle("GET /one", one)
		mux.Handle("GET /two", two)
		s := serveSite(t, one, mux)
		conns := make(map[string]*testnet.WS)
		for _, path := range []string{"one", "two"} {
			ws, _, err := testnet.NewWS(s.dial(), "hub.example", "/"+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			say(t, ws, `{"token":"ann"}`)
			conns[path] = ws
		}
		if r, err := two.Push(t.Context(), "ann", "", []byte("to two")); r.Queued != 1 || err != nil {
			t.Errorf("%+v, %v", r, err)
		}
		if r, err := one.Push(t.Context(), "ann", "", []byte("to one")); r.Queued != 1 || err != nil {
			t.Errorf("%+v, %v", r, err)
		}
		frames(t, conns["one"], "to one")
		frames(t, conns["two"], "to two")
	})
}

// 7: a push before the server was started was a nil pointer.
func TestPushBeforeAnythingElse(t *testing.T) {
	hub := tailcast.New()
	if r, err := hub.Push(t.Context(), "ann", "orders", []byte("x")); r != one(0) || err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if n, err := hub.Drop(t.Context(), "ann", "orders"); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := hub.Close(); err != nil {
		t.Error(err)
	}
	if _, err := hub.Push(t.Context(), "ann", "orders", []byte("x")); err == nil {
		t.Error("a push to a closed hub is no error")
	}
}

// 8: its settings were never checked, and what was wrong with a registration was ignored in silence. TestRegistrationsThatAreRefused has the
// rest.
func TestSettingsAreChecked(t *testing.T) {
	for name, f := range map[string]func(){
		"no function":       func() { tailcast.WithRegistration(nil) },
		"a negative time":   func() { tailcast.WithLimits(tailcast.Limits{RegistrationTime: -1}) },
		"a bad pattern":     func() { tailcast.WithTopicConfig("[", tailcast.TopicConfig{Presence: true}) },
		"a nil option":      func() { tailcast.New(nil) },
		"a path of nothing": func() { tailcast.New().Handler() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// 9: who never said who it is was kept for ever.
func TestWhoNeverRegistersGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		const strangers = 100
		all := make([]*testnet.WS, strangers)
		for i := range all {
			all[i] = s.ws("")
		}
		time.Sleep(16 * time.Second)
		for _, ws := range all {
			wantClosed(t, ws, 4408, "no registration")
			ws.Close()
		}
		synctest.Wait()
		if n := len(s.hub.Stats().Connections); n != 0 {
			t.Errorf("connections are left: %v", s.hub.Stats().Connections)
		}
	})
}

// 10: the body of a push was read whatever its size.
func TestABodyWithoutEnd(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	read := 0
	endless := io.MultiReader(strings.NewReader(`{"userId":"ann","event":"e","message":"`), readerFunc(func(p []byte) (int, error) {
		read += len(p)
		for i := range p {
			p[i] = 'x'
		}
		return len(p), nil
	}))
	r := httptest.NewRequest("POST", "/push", endless)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	hub.PushHandler(everybody).ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge || read > 2<<20 {
		t.Errorf("%d after %d bytes: %s", w.Code, read, w.Body)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
