package tailcast_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestAHookThatEndsItsGoroutine: runtime.Goexit, which testing's FailNow calls, ends a connection as a panic does. (Close of the site
// sees what would be left.)
func TestAHookThatEndsItsGoroutine(t *testing.T) {
	for name, opt := range map[string]tailcast.Option{
		"OnConnect":   tailcast.WithOnConnect(func(*tailcast.Conn) error { runtime.Goexit(); return nil }),
		"AfterRead":   tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { runtime.Goexit(); return nil }),
		"BeforeClose": tailcast.WithBeforeClose(func(*tailcast.Conn, error) { runtime.Goexit() }),
		"Authorize": tailcast.WithAuthorize(func(_ context.Context, a tailcast.Access) error {
			if a.Topic != "" {
				runtime.Goexit()
			}
			return nil
		}),
	} {
		for detach, opts := range map[string][]tailcast.Option{"": {opt}, " detached": {opt, tailcast.WithDetach()}} {
			t.Run(name+detach, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWatch()
					// There may be one connection: a seat that was not given back would be missed.
					limit := tailcast.WithLimits(tailcast.Limits{Connections: 1})
					s := newSite(t, append(opts, w.option(), limit)...)
					for range 2 {
						ws := s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
						code := 1011
						switch name {
						case "AfterRead":
							ws.WriteText("{}")
						case "Authorize":
							ws.WriteText(`{"type":"subscribe","topic":"x"}`)
						case "BeforeClose":
							ws.WriteClose(4001, "")
							code = 4001
						}
						closed(t, ws, code)
						ws.Close()
						cause := <-w.ended
						if name != "BeforeClose" && errors.Is(cause, tailcast.ErrClosed) {
							t.Errorf("cause %v", cause)
						}
						time.Sleep(10 * time.Second)
						synctest.Wait()
						if n := s.hub.Stats().Connections; len(n) != 0 {
							t.Errorf("connections are left: %v", n)
						}
					}
				})
			})
		}
	}
}

// The same over streams, which have no reader that sees it.
func TestAStreamsHookThatEndsItsGoroutine(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"taken over": func(h http.Handler) http.Handler { return h },
		"written by net/http": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(seeThrough{w}, r) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := tailcast.New(tailcast.WithOnConnect(func(*tailcast.Conn) error { runtime.Goexit(); return nil }))
				s := serveSite(t, hub, wrap(hub))
				r := s.sse("")
				if e, err := r.event(); err != nil || e.name != "bye" {
					t.Errorf("%+v, %v; want bye", e, err)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if n := s.hub.Stats().Connections; len(n) != 0 {
					t.Errorf("connections are left: %v", n)
				}
			})
		})
	}
}

// Before there is a connection, it ends the handler as it would without tailcast: nothing is answered.
func TestAGoexitInAHandshakeIsTheHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthenticate(func(*http.Request) (tailcast.Identity, error) { runtime.Goexit(); panic("not here") }))
		if _, resp, err := testnet.NewWS(s.dial(), "hub.example", "/", nil); err == nil || resp != nil {
			t.Errorf("%v, %v; want no answer", resp, err)
		}
	})
}

// A brokenLogger panics.
type brokenLogger struct{ enabled bool }

func (l brokenLogger) Enabled(context.Context, slog.Level) bool {
	if !l.enabled {
		panic("Enabled")
	}
	return true
}

func (l brokenLogger) Handle(context.Context, slog.Record) error { panic("Handle") }
func (l brokenLogger) WithAttrs([]slog.Attr) slog.Handler        { return l }
func (l brokenLogger) WithGroup(string) slog.Handler             { return l }

// TestALoggerThatPanics costs nobody a connection, and not the process: it is called on goroutines of the hub's, too.
func TestALoggerThatPanics(t *testing.T) {
	for _, enabled := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, tailcast.WithLogger(slog.New(brokenLogger{enabled})), tailcast.WithDetach(), tailcast.WithAfterRead(echo),
				tailcast.WithBeforeClose(func(*tailcast.Conn, error) { panic("a hook") }))
			for range 2 {
				ws := s.ws("")
				ws.WriteText("hello")
				frames(t, ws, "hello")
				ws.WriteClose(4001, "")
				closed(t, ws, 4001)
				ws.Close()
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if n := s.hub.Stats(); len(n.Connections) != 0 || n.Panics < 2 {
					t.Errorf("stats %+v", n)
				}
			}
		})
	}
}
