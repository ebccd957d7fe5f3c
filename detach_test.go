package tailcast_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

type contextKey struct{}

// A seen request is what middleware sees of one.
type seenRequest struct {
	ctx      context.Context
	returned chan struct{}
}

// observed is middleware that hands each request to the test.
func observed(h http.Handler) (http.Handler, chan seenRequest) {
	requests := make(chan seenRequest, 10)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := context.WithValue(r.Context(), contextKey{}, "kept")
		seen := seenRequest{ctx, make(chan struct{})}
		requests <- seen
		defer close(seen.returned)
		h.ServeHTTP(seeThrough{w}, r.WithContext(ctx))
	}), requests
}

func TestADetachedWebSocketOutlivesItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		conns, onConnect := connected()
		hub := tailcast.New(tailcast.WithDetach(), w.option(), onConnect, tailcast.WithAfterRead(echo))
		h, requests := observed(hub)
		s := serveSite(t, hub, h)
		ws := s.ws("")
		c, seen := <-conns, <-requests
		<-seen.returned
		synctest.Wait()
		if seen.ctx.Err() == nil {
			t.Error("the request's context has not ended with its handler")
		}
		if c.Context().Err() != nil || c.Context().Value(contextKey{}) != "kept" || c.Context().Value(http.ServerContextKey) == nil {
			t.Errorf("the connection's context: %v, %v", c.Context().Err(), c.Context().Value(contextKey{}))
		}
		s.publish("one")
		frames(t, ws, "one")
		ws.WriteText("hello")
		frames(t, ws, "hello")
		time.Sleep(25 * time.Second)
		if op, _, err := ws.ReadFrame(); op != testnet.OpPing || err != nil {
			t.Errorf("frame %d, %v after a silence, want a ping", op, err)
		}
		if st := s.hub.Stats(); st.Connections["websocket"] != 1 || st.Received != 1 || st.Accepted != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

func TestADetachedWebSocketEndsAsAnyOther(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(s *site, c *tailcast.Conn, ws *testnet.WS)
		why  string
		want func(t *testing.T, ws *testnet.WS, cause error)
	}{
		"the client closes": {
			func(_ *site, _ *tailcast.Conn, ws *testnet.WS) { ws.WriteClose(4001, "bye") }, "client",
			func(t *testing.T, ws *testnet.WS, cause error) { wantEnd(t, ws, cause, 4001) },
		},
		"the client vanishes": {
			func(_ *site, _ *tailcast.Conn, ws *testnet.WS) { ws.Close() }, "lost",
			func(t *testing.T, _ *testnet.WS, cause error) {
				if !errors.Is(cause, io.ErrUnexpectedEOF) {
					t.Errorf("cause %v", cause)
				}
			},
		},
		"the client breaks the protocol": {
			func(_ *site, _ *tailcast.Conn, ws *testnet.WS) { ws.Conn.Write([]byte("\x81\x01x")) }, "protocol",
			func(t *testing.T, ws *testnet.WS, cause error) { wantEnd(t, ws, cause, 1002) },
		},
		"the program closes": {
			func(_ *site, c *tailcast.Conn, _ *testnet.WS) { c.Close(&tailcast.CloseError{Code: 4002}) }, "application",
			func(t *testing.T, ws *testnet.WS, cause error) { wantEnd(t, ws, cause, 4002) },
		},
		"a hook panics": {
			func(_ *site, _ *tailcast.Conn, ws *testnet.WS) { ws.WriteText("panic") }, "panic",
			func(t *testing.T, ws *testnet.WS, cause error) {
				var p *tailcast.PanicError
				if !errors.As(cause, &p) || p.Value != "panic" {
					t.Errorf("cause %v", cause)
				}
				closed(t, ws, 1011)
			},
		},
		"the hub shuts down": {
			func(s *site, _ *tailcast.Conn, ws *testnet.WS) { go s.hub.Shutdown(context.Background()) }, "shutdown",
			func(t *testing.T, ws *testnet.WS, cause error) { wantEnd(t, ws, cause, 1001) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatch()
				conns, onConnect := connected()
				s := newSite(t, tailcast.WithDetach(), w.option(), onConnect, tailcast.WithAfterRead(func(_ *tailcast.Conn, in tailcast.Inbound) error {
					panic(string(in.Data))
				}))
				ws := s.ws("?grep=one")
				c := <-conns
				s.publish("one", "two")
				frames(t, ws, "one")
				test.end(s, c, ws)
				test.want(t, ws, <-w.ended)
				ws.Close()
				time.Sleep(time.Minute)
				if n := w.count(); n != 1 {
					t.Errorf("BeforeClose was called %d times", n)
				}
				if st := s.hub.Stats(); len(st.Connections) != 0 || st.Ended[test.why] != 1 {
					t.Errorf("stats %+v, want one that has ended because of %s", st, test.why)
				}
				if c.Context().Err() == nil {
					t.Error("the connection's context has not ended")
				}
			})
		})
	}
}

func wantEnd(t *testing.T, ws *testnet.WS, cause error, want int) {
	t.Helper()
	if code(cause) != want {
		t.Errorf("cause %v, want %d", cause, want)
	}
	closed(t, ws, want)
}

// What limits count, and what a request has reserved, is the connection's until it ends, and nobody's then.
func TestADetachedWebSocketKeepsItsSeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithDetach(), tailcast.WithLimits(tailcast.Limits{Connections: 1}), tailcast.WithAuthorize(tailcast.AllowAllTopics))
		ws := s.ws("?topic=a&grep=x")
		synctest.Wait()
		for range 2 {
			_, resp, err := testnet.NewWS(s.dial(), "hub.example", "/", nil)
			if err == nil || resp.StatusCode != 503 {
				t.Fatalf("a second connection: %v, %v", resp, err)
			}
		}
		ws.WriteClose(1000, "")
		closed(t, ws, 1000)
		synctest.Wait()
		time.Sleep(time.Minute)
		if names := s.hub.TopicNames(); len(names) != 0 {
			t.Errorf("topics are left: %q", names)
		}
		s.ws("")
	})
}

// A server that ends its requests' contexts ends WebSockets, but not detached ones.
func TestTheEndOfARequestsContext(t *testing.T) {
	for _, detach := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch()
			opts := []tailcast.Option{w.option()}
			if detach {
				opts = append(opts, tailcast.WithDetach())
			}
			hub := tailcast.New(opts...)
			ctx, cancel := context.WithCancel(context.Background())
			s := serveSite(t, hub, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hub.ServeHTTP(w, r.WithContext(ctx))
			}))
			ws := s.ws("")
			synctest.Wait()
			cancel()
			synctest.Wait()
			if ended := w.count() == 1; ended == detach {
				t.Errorf("detached %v: ended %v", detach, ended)
			}
			ws.Close()
		})
	}
}

// Nothing of a detached connection's request stays in memory, while a goroutine waits for each connection.
func TestADetachedWebSocketLetsGoOfItsRequest(t *testing.T) {
	const conns = 50
	hub := tailcast.New(tailcast.WithDetach())
	defer hub.Close()
	requests := make(chan [2]any, conns)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner := seeThrough{w}
		requests <- [2]any{weak.Make(r), weak.Make(&inner)}
		hub.ServeHTTP(&inner, r)
	}))
	defer srv.Close()
	for range conns {
		nc := dialIdle(t, srv)
		defer nc.Close()
	}
	eventually(t, "all connections", func() bool { return hub.Stats().Connections["websocket"] == conns })
	eventually(t, "one goroutine for each connection", func() bool { return connGoroutines() == conns })
	for range conns {
		seen := <-requests
		eventually(t, "the request is let go of", func() bool {
			runtime.GC()
			return seen[0].(weak.Pointer[http.Request]).Value() == nil && seen[1].(weak.Pointer[seeThrough]).Value() == nil
		})
	}
}

// connGoroutines counts the goroutines that connections have: those of the hub and of net/http that serve one.
func connGoroutines() (n int) {
	stacks := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		of := strings.Contains(g, "tailcast.(*") || strings.Contains(g, "net/http.(*conn)") || strings.Contains(g, "nhooyr.io/")
		if of && !strings.Contains(g, "fanout.(*worker).run") && !strings.Contains(g, "testing.tRunner") {
			n++
		}
	}
	return n
}

// dialIdle opens a WebSocket and leaves it alone.
func dialIdle(t testing.TB, srv *httptest.Server) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := testnet.NewWS(nc, srv.Listener.Addr().String(), "/", nil); err != nil {
		t.Fatal(err)
	}
	return nc
}
