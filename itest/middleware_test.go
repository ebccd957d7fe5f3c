package itest

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/handlers"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v4"
	echomiddleware "github.com/labstack/echo/v4/middleware"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestMiddleware puts a hub behind everything that programs put in front of their handlers, and talks to it in every way.
// With -v it prints what it saw as a table. A cell is "ok" if two viewers both got a message that was published after they
// had come, and another one after a pause; if the one that left then was noticed, and the other one was told that the hub
// shuts down; if BeforeClose was called once for each, with the right cause; and if the handlers returned. "gzip" says that
// the stream came compressed. "cut" is a connection that was closed before an answer, and "silent" one that got none of it.
func TestMiddleware(t *testing.T) {
	t.Parallel()
	gin.SetMode(gin.ReleaseMode)
	got := make([][]string, len(middlewares))
	turns := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range middlewares {
		got[i] = make([]string, len(ways))
		for j := range ways {
			wg.Go(func() {
				turns <- struct{}{}
				release := sync.OnceFunc(func() { <-turns })
				defer release()
				got[i][j] = middlewares[i].observe(&ways[j], release)
			})
		}
	}
	wg.Wait()
	table := "\n| |"
	for _, w := range ways {
		table += " " + w.name + " |"
	}
	table += "\n|---|" + strings.Repeat("---|", len(ways))
	for i := range middlewares {
		m := &middlewares[i]
		table += "\n| " + m.name + " | " + strings.Join(got[i], " | ") + " |"
		for j := range ways {
			if want := m.expect(&ways[j]); got[i][j] != want {
				t.Errorf("%s, %s: %s; want %s", m.name, ways[j].name, got[i][j], want)
			}
		}
	}
	t.Log(table)
}

// A way is how a client comes: a column of the table.
type way struct {
	name   string
	kind   string // "WS", "SSE", "text", or the method of a request that is answered at once
	want   string // "" is "ok"
	minor  int    // of HTTP/1
	tls    bool
	h2     bool
	limits bool          // the server's ReadTimeout and WriteTimeout are 1 s
	pause  time.Duration // between the two messages
}

const (
	short = 20 * time.Millisecond
	long  = 3 * time.Second
)

var ways = []way{
	{name: "WS", kind: "WS", minor: 1, pause: short},
	{name: "SSE", kind: "SSE", minor: 1, pause: short},
	{name: "text", kind: "text", minor: 1, pause: short},
	{name: "TLS WS", kind: "WS", minor: 1, tls: true, pause: short},
	{name: "TLS SSE", kind: "SSE", minor: 1, tls: true, pause: short},
	{name: "HTTP/2 SSE", kind: "SSE", h2: true, pause: short},
	{name: "HTTP/2 text", kind: "text", h2: true, pause: short},
	{name: "WS 1 s", kind: "WS", minor: 1, limits: true, pause: long},
	{name: "SSE 1 s", kind: "SSE", minor: 1, limits: true, pause: long},
	{name: "text 1 s", kind: "text", minor: 1, limits: true, pause: long},
	{name: "HTTP/2 SSE 1 s", kind: "SSE", h2: true, limits: true, pause: long},
	{name: "HTTP/1.0 SSE", kind: "SSE", pause: short},
	{name: "HTTP/1.0 text", kind: "text", pause: short},
	{name: "HTTP/1.0 WS", kind: "WS", want: "426", pause: short},
	{name: "HEAD", kind: "HEAD", minor: 1, want: "200"},
	{name: "POST", kind: "POST", minor: 1, want: "405"},
	{name: "OPTIONS", kind: "OPTIONS", minor: 1, want: "405"},
}

// A middlewareCase is a row of the table.
type middlewareCase struct {
	name string
	wrap func(http.Handler) http.Handler
	want map[string]string // by a way's name or kind, where it is not the way's own
	path string            // "" is "/"
}

func (m *middlewareCase) expect(w *way) string {
	for _, key := range []string{w.name, w.kind} {
		if want, ok := m.want[key]; ok && (key == w.name || w.want == "") {
			return want
		}
	}
	if w.want == "" {
		return "ok"
	}
	return w.want
}

type wants = map[string]string

var quiet = log.New(io.Discard, "", 0)

var middlewares = []middlewareCase{
	{name: "none", wrap: func(h http.Handler) http.Handler { return h }},

	{name: "http.ServeMux, GET /", wrap: func(h http.Handler) http.Handler {
		m := http.NewServeMux()
		m.Handle("GET /", h)
		return m
	}},
	{name: "http.StripPrefix", path: "/logs/", wrap: func(h http.Handler) http.Handler { return http.StripPrefix("/logs", h) }},
	{name: "http.AllowQuerySemicolons", path: "/?tail=5;gaps=0", wrap: http.AllowQuerySemicolons},
	{name: "http.MaxBytesHandler", wrap: func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 10) }},
	{name: "http.TimeoutHandler", wrap: timeoutHandler, want: impossible("*http.timeoutWriter")},

	{name: "chi.Router", path: "/logs/", wrap: func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Mount("/logs", h)
		return r
	}},
	{name: "chi Logger", wrap: chiLogger},
	{name: "chi Recoverer", wrap: middleware.Recoverer},
	{name: "chi Compress", wrap: middleware.Compress(5), want: wants{"text": "ok, gzip"}},
	{name: "chi Compress, text/event-stream too", wrap: middleware.Compress(5, "text/event-stream"), want: wants{"SSE": "ok, gzip"}},
	{name: "chi Timeout", wrap: middleware.Timeout(time.Minute)},
	{name: "chi RequestID", wrap: middleware.RequestID},
	{name: "chi RealIP", wrap: chiRealIP},
	{name: "chi WrapResponseWriter", wrap: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(middleware.NewWrapResponseWriter(w, r.ProtoMajor), r)
		})
	}},

	{name: "gorilla/mux", path: "/logs", wrap: func(h http.Handler) http.Handler {
		r := mux.NewRouter()
		r.Handle("/logs", h)
		return r
	}},
	{name: "gorilla LoggingHandler", wrap: func(h http.Handler) http.Handler { return handlers.LoggingHandler(io.Discard, h) }},
	{name: "gorilla CombinedLoggingHandler", wrap: func(h http.Handler) http.Handler { return handlers.CombinedLoggingHandler(io.Discard, h) }},
	{name: "gorilla CompressHandler", wrap: handlers.CompressHandler, want: wants{"SSE": "ok, gzip", "text": "ok, gzip"}},
	{name: "gorilla RecoveryHandler", wrap: handlers.RecoveryHandler(handlers.RecoveryLogger(quiet))},
	{name: "gorilla CORS", wrap: handlers.CORS(), want: wants{"OPTIONS": "200"}},
	{name: "gorilla ProxyHeaders", wrap: handlers.ProxyHeaders},

	{name: "otelhttp", wrap: func(h http.Handler) http.Handler { return otelhttp.NewHandler(h, "hub") }},

	{name: "gin.WrapH", wrap: ginEngine},
	{name: "echo.WrapHandler", wrap: echoServer()},
	{name: "echo Gzip", wrap: echoServer(echomiddleware.Gzip()), want: wants{"SSE": "ok, gzip", "text": "ok, gzip"}},

	{name: "Unwrap only", wrap: with(unwrapping)},
	{name: "opaque", wrap: with(opaquely), want: impossible("*itest.opaque")},
	{name: "Flush only", wrap: with(func(w http.ResponseWriter) http.ResponseWriter { return &flushes{w} }),
		want: wants{"WS": "500 names *itest.flushes",
			"SSE 1 s": noDeadline, "text 1 s": noDeadline, "HTTP/2 SSE 1 s": noDeadline}},
	{name: "a Hijack that fails", wrap: with(func(w http.ResponseWriter) http.ResponseWriter { return &failsHijack{w} }),
		want: wants{"WS": "500 names *itest.failsHijack", "SSE": "500 names *itest.failsHijack", "text": "500 names *itest.failsHijack", "HEAD": "500"}},
	{name: "a Hijack that fails, and Unwrap", wrap: with(func(w http.ResponseWriter) http.ResponseWriter { return &failsHijackUnwraps{failsHijack{w}} })},
	{name: "asserts Hijack and Flush of one that only unwraps", wrap: with(unwrapping, asserting)},
	{name: "the same, and panics", wrap: with(unwrapping, func(w http.ResponseWriter) http.ResponseWriter { return &assertsHard{unwraps{w}} })},
	{name: "the same over an opaque one", wrap: with(opaquely, asserting), want: impossible("*itest.opaque")},
	{name: "buffers, without Flush", wrap: buffering(func(w *buffers) http.ResponseWriter { return w }),
		want: impossible("*itest.buffers")},
	{name: "buffers, with Flush and Unwrap", wrap: buffering(func(w *buffers) http.ResponseWriter { return &buffersFlushes{buffersUnwraps{w}} })},
	{name: "buffers, with Unwrap alone", wrap: buffering(func(w *buffers) http.ResponseWriter { return &buffersUnwraps{w} }),
		want: wants{"SSE": "silent instead of one", "text": "silent instead of one"}},
	{name: "panics in Write", wrap: with(func(w http.ResponseWriter) http.ResponseWriter { return &panicsWrite{unwraps{w}} }),
		want: wants{"SSE": "end instead of one (panic: Write)", "text": "end instead of one (panic: Write)", "HTTP/1.0 WS": "cut", "POST": "cut", "OPTIONS": "cut"}},
	{name: "panics in Flush", wrap: with(func(w http.ResponseWriter) http.ResponseWriter { return &panicsFlush{unwraps{w}} }),
		want: wants{"SSE": "cut", "text": "cut"}},
	{name: "panics in WriteHeader", wrap: with(func(w http.ResponseWriter) http.ResponseWriter { return &panicsHeader{unwraps{w}} }),
		want: wants{"SSE": "cut", "text": "cut", "HTTP/1.0 WS": "cut", "HEAD": "cut", "POST": "cut", "OPTIONS": "cut"}},

	{name: "three: chi Logger, gorilla CompressHandler, otelhttp", wrap: func(h http.Handler) http.Handler {
		return chiLogger(handlers.CompressHandler(otelhttp.NewHandler(h, "hub")))
	}, want: wants{"SSE": "ok, gzip", "text": "ok, gzip"}},
	{name: "three: gorilla RecoveryHandler, Unwrap only, chi Compress", wrap: func(h http.Handler) http.Handler {
		return handlers.RecoveryHandler(handlers.RecoveryLogger(quiet))(with(unwrapping)(middleware.Compress(5)(h)))
	}, want: wants{"text": "ok, gzip"}},
	{name: "three: Unwrap only, Unwrap only, chi WrapResponseWriter", wrap: func(h http.Handler) http.Handler {
		return with(unwrapping, unwrapping)(chiLogger(h))
	}},
	{name: "three: otelhttp, http.TimeoutHandler, chi Compress", wrap: func(h http.Handler) http.Handler {
		return otelhttp.NewHandler(timeoutHandler(middleware.Compress(5)(h)), "hub")
	}, want: impossible("*http.timeoutWriter")},
	{name: "two: Unwrap only, gorilla CompressHandler", wrap: func(h http.Handler) http.Handler {
		return with(unwrapping)(handlers.CompressHandler(h))
	}, want: wants{"SSE": "500 names *httpsnoop.rw0", "text": "500 names *httpsnoop.rw0", "HEAD": "500"}},
	{name: "two: http.TimeoutHandler, gin.WrapH", wrap: func(h http.Handler) http.Handler { return timeoutHandler(ginEngine(h)) },
		want: impossible("*http.timeoutWriter")},
	{name: "two: Unwrap only, gin.WrapH", wrap: func(h http.Handler) http.Handler { return with(unwrapping)(ginEngine(h)) }},
	{name: "two: Unwrap only, echo Gzip", wrap: func(h http.Handler) http.Handler {
		return with(unwrapping)(echoServer(echomiddleware.Gzip())(h))
	}, want: wants{"SSE": "ok, gzip", "text": "ok, gzip"}},
	{name: "two: gorilla RecoveryHandler, a Hijack that fails", wrap: func(h http.Handler) http.Handler {
		return handlers.RecoveryHandler(handlers.RecoveryLogger(quiet))(with(func(w http.ResponseWriter) http.ResponseWriter { return &failsHijack{w} })(h))
	}, want: wants{"WS": "500 names *itest.failsHijack", "SSE": "500 names *itest.failsHijack", "text": "500 names *itest.failsHijack", "HEAD": "500"}},
}

// impossible is what a client gets behind a writer that hides everything.
func impossible(name string) wants {
	s := "500 names " + name
	return wants{"WS": s, "SSE": s, "text": s, "HEAD": "500"}
}

// noDeadline is the end of a stream that the server's WriteTimeout ends, since its writer hides SetWriteDeadline.
const noDeadline = "cut instead of two (tailcast: the client has gone: unexpected EOF)"

func timeoutHandler(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }

func chiLogger(h http.Handler) http.Handler {
	return middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: quiet, NoColor: true})(h)
}

func chiRealIP(h http.Handler) http.Handler {
	//lint:ignore SA1019 It is in many a program.
	return middleware.RealIP(h)
}

func ginEngine(h http.Handler) http.Handler {
	e := gin.New()
	e.Use(gin.LoggerWithWriter(io.Discard), gin.RecoveryWithWriter(io.Discard))
	e.Any("/*path", gin.WrapH(h))
	return e
}

func echoServer(use ...echo.MiddlewareFunc) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		e := echo.New()
		e.Use(use...)
		e.Any("/*", echo.WrapHandler(h))
		return e
	}
}

// with puts wrappers around the ResponseWriter, the innermost first.
func with(wrappers ...func(http.ResponseWriter) http.ResponseWriter) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, f := range wrappers {
				w = f(w)
			}
			h.ServeHTTP(w, r)
		})
	}
}

// buffering is middleware that writes everything at the end.
func buffering(as func(*buffers) http.ResponseWriter) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b := &buffers{w: w}
			h.ServeHTTP(as(b), r)
			b.spill()
		})
	}
}

func unwrapping(w http.ResponseWriter) http.ResponseWriter { return &unwraps{w} }
func opaquely(w http.ResponseWriter) http.ResponseWriter   { return &opaque{w} }
func asserting(w http.ResponseWriter) http.ResponseWriter  { return &asserts{unwraps{w}} }

type (
	unwraps            struct{ http.ResponseWriter }
	opaque             struct{ http.ResponseWriter }
	flushes            struct{ http.ResponseWriter }
	failsHijack        struct{ http.ResponseWriter }
	failsHijackUnwraps struct{ failsHijack }
	asserts            struct{ unwraps } // as many do, it does nothing where the writer inside cannot
	assertsHard        struct{ unwraps }
	buffers            struct {
		w    http.ResponseWriter
		held []byte
	}
	buffersUnwraps struct{ *buffers }
	buffersFlushes struct{ buffersUnwraps }
	panicsWrite    struct{ unwraps }
	panicsFlush    struct{ unwraps }
	panicsHeader   struct{ unwraps }
)

func (w *unwraps) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *flushes) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w *failsHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("no hijacking here")
}

func (w *failsHijackUnwraps) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *asserts) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *asserts) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errors.New("the writer inside has no Hijack")
	}
	return h.Hijack()
}

func (w *assertsHard) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w *assertsHard) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

func (w *buffers) Header() http.Header  { return w.w.Header() }
func (w *buffers) WriteHeader(code int) { w.w.WriteHeader(code) }

func (w *buffers) Write(p []byte) (int, error) {
	w.held = append(w.held, p...)
	return len(p), nil
}

func (w *buffers) spill() {
	if len(w.held) > 0 {
		w.w.Write(w.held)
		w.held = nil
	}
}

func (w *buffersUnwraps) Unwrap() http.ResponseWriter { return w.w }

func (w *buffersFlushes) Flush() {
	w.spill()
	w.w.(http.Flusher).Flush()
}

func (w *panicsWrite) Write([]byte) (int, error) { panic("Write") }
func (w *panicsFlush) Flush()                    { panic("Flush") }
func (w *panicsHeader) WriteHeader(int)          { panic("WriteHeader") }

// observe serves a hub behind the middleware to one kind of client, and tells what it saw.
func (m *middlewareCase) observe(w *way, release func()) string {
	c := &cell{way: w, release: release, path: m.path, patience: 20 * time.Second, connected: make(chan struct{}, 2), ended: make(chan error, 10)}
	if strings.HasPrefix(m.expect(w), "silent") {
		c.patience = time.Second
	}
	if c.path == "" {
		c.path = "/"
	}
	c.hub = tailcast.New(tailcast.WithBacklog(1),
		tailcast.WithOnConnect(func(*tailcast.Conn) error { c.connected <- struct{}{}; return nil }),
		tailcast.WithBeforeClose(func(_ *tailcast.Conn, cause error) { c.ended <- cause }))
	inside := m.wrap(c.hub)
	var handling atomic.Int32
	c.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handling.Add(1)
		defer handling.Add(-1)
		inside.ServeHTTP(w, r)
	}))
	c.srv.Config.ErrorLog = quiet
	if w.limits {
		c.srv.Config.ReadTimeout, c.srv.Config.WriteTimeout = time.Second, time.Second
	}
	if w.tls || w.h2 {
		c.srv.EnableHTTP2 = w.h2
		c.srv.StartTLS()
	} else {
		c.srv.Start()
	}
	saw := c.talk()
	c.hub.Close()
	for range c.leaving {
		c.leaving[0]()
		c.leaving = c.leaving[1:]
	}
	for deadline := time.Now().Add(c.patience); handling.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return saw + "; a handler does not return"
		}
	}
	c.srv.Close()
	return saw
}

// A cell is one hub, its server, and its clients.
type cell struct {
	*way
	release   func() // lets another cell begin
	path      string
	hub       *tailcast.Hub
	srv       *httptest.Server
	patience  time.Duration
	connected chan struct{}
	ended     chan error
	leaving   []func()
}

// A peer is a client with a stream.
type peer struct {
	said  chan string // messages; "bye"; "close CODE"; "end", or else what broke it
	leave func()
	gzip  bool
}

func (c *cell) talk() string {
	if c.kind != "WS" && c.kind != "SSE" && c.kind != "text" {
		resp, _, err := c.request(c.kind, "")
		return c.refusal(resp, err)
	}
	var peers [2]*peer
	for i := range peers {
		p, no := c.open()
		if no != "" {
			return no
		}
		peers[i] = p
		select {
		case <-c.connected:
		case s := <-p.said:
			select {
			case <-c.connected:
				p.said <- s
			default:
				return s + " at once"
			}
		case <-time.After(c.patience):
			return "OnConnect is not called"
		}
	}
	for i, text := range []string{"one", "two"} {
		if i > 0 {
			if c.pause == long {
				c.release()
			}
			time.Sleep(c.pause)
		}
		c.hub.Publish(context.Background(), tailcast.Message{Data: []byte(text)})
		for _, p := range peers {
			if s := c.next(p); s != text {
				return fmt.Sprintf("%s instead of %s%s", s, text, c.cause())
			}
		}
	}
	peers[0].leave()
	select {
	case cause := <-c.ended:
		var ce *tailcast.CloseError
		switch {
		case c.kind == "WS" && errors.As(cause, &ce) && ce.Code == 1000:
		case c.kind != "WS" && (errors.Is(cause, io.ErrUnexpectedEOF) || strings.Contains(cause.Error(), "reset")):
		default:
			return fmt.Sprintf("the client left, and the cause is: %v", cause)
		}
	case <-time.After(c.patience):
		return "nobody has noticed that the client left"
	}
	shut := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		shut <- c.hub.Shutdown(ctx)
	}()
	goodbye := map[string][]string{"WS": {"close 1001"}, "SSE": {"bye", "end"}, "text": {"end"}}[c.kind]
	for _, want := range goodbye {
		if s := c.next(peers[1]); s != want {
			return fmt.Sprintf("at shutdown %s instead of %s", s, want)
		}
	}
	if err := <-shut; err != nil {
		return err.Error()
	}
	select {
	case cause := <-c.ended:
		var ce *tailcast.CloseError
		if !errors.As(cause, &ce) || ce.Code != 1001 {
			return fmt.Sprintf("the hub shut down, and the cause is: %v", cause)
		}
	default:
		return "BeforeClose has not been called before Shutdown returned"
	}
	if n := len(c.ended); n > 0 {
		return fmt.Sprintf("BeforeClose was called %d times too often", n)
	}
	if n := len(c.hub.Stats().Connections); n > 0 {
		return fmt.Sprintf("%d connections are left", n)
	}
	if peers[0].gzip {
		return "ok, gzip"
	}
	return "ok"
}

func (c *cell) next(p *peer) string {
	select {
	case s := <-p.said:
		return s
	case <-time.After(c.patience):
		return "silent"
	}
}

// cause tells why a connection has ended, if one has.
func (c *cell) cause() string {
	select {
	case cause := <-c.ended:
		return fmt.Sprintf(" (%v)", cause)
	case <-time.After(100 * time.Millisecond):
		return ""
	}
}

// open starts a stream, or tells why not.
func (c *cell) open() (*peer, string) {
	p := &peer{said: make(chan string, 10)}
	if c.kind == "WS" {
		return c.openWS(p)
	}
	accept := "text/plain"
	if c.kind == "SSE" {
		accept = "text/event-stream"
	}
	resp, leave, err := c.request("GET", accept)
	if err != nil || resp.StatusCode != 200 {
		return nil, c.refusal(resp, err)
	}
	p.leave, p.gzip = leave, resp.Header.Get("Content-Encoding") == "gzip"
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, map[string]string{"SSE": "text/event-stream", "text": "text/plain"}[c.kind]) {
		return nil, "Content-Type: " + ct
	}
	go func() {
		body, err := decoded(resp)
		for name := ""; err == nil; {
			var line string
			line, err = body.ReadString('\n')
			field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch {
			case err != nil:
			case c.kind == "text":
				p.said <- strings.TrimSuffix(line, "\n")
			case field == "event":
				name = value
			case field == "data" && name != "":
				p.said <- name
			case field == "data":
				p.said <- value
			}
		}
		if errors.Is(err, io.EOF) {
			p.said <- "end"
		} else {
			p.said <- broken(err)
		}
		leave()
	}()
	return p, ""
}

func (c *cell) openWS(p *peer) (*peer, string) {
	conn, err := c.dial()
	if err != nil {
		return nil, err.Error()
	}
	handshake, key := testnet.Handshake(c.srv.Listener.Addr().String(), c.path, http.Header{"Accept-Encoding": {"gzip"}})
	if c.minor == 0 {
		handshake = []byte(strings.Replace(string(handshake), " HTTP/1.1\r\n", " HTTP/1.0\r\n", 1))
	}
	conn.SetReadDeadline(time.Now().Add(c.patience))
	conn.Write(handshake)
	ws, resp, err := testnet.ReadHandshake(conn, key)
	if err != nil {
		return nil, c.refusal(resp, err)
	}
	conn.SetReadDeadline(time.Time{})
	p.leave = func() { ws.WriteClose(1000, "") }
	go func() {
		for {
			_, data, err := ws.ReadMessage()
			var closed *testnet.ClosedError
			switch {
			case err == nil:
				p.said <- string(data)
				continue
			case errors.As(err, &closed):
				ws.WriteClose(closed.Code, "")
				p.said <- fmt.Sprint("close ", closed.Code)
				ws.ReadFrame() // the end
			default:
				p.said <- broken(err)
			}
			conn.Close()
			return
		}
	}()
	return p, ""
}

// dial connects for HTTP/1.
func (c *cell) dial() (net.Conn, error) {
	conn, err := net.Dial("tcp", c.srv.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	if c.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	c.leaving = append(c.leaving, func() { conn.Close() })
	return conn, nil
}

// request asks, and returns the head of the answer, and what ends the body.
func (c *cell) request(method, accept string) (*http.Response, func(), error) {
	if c.h2 {
		ctx, cancel := context.WithCancel(context.Background())
		c.leaving = append(c.leaving, cancel)
		req, err := http.NewRequestWithContext(ctx, method, c.srv.URL+c.path, nil)
		if err != nil {
			return nil, nil, err
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("Accept-Encoding", "gzip")
		late := time.AfterFunc(c.patience, cancel)
		defer late.Stop()
		resp, err := c.srv.Client().Do(req)
		if err == nil && resp.ProtoMajor != 2 {
			err = errors.New(resp.Proto)
		}
		return resp, cancel, err
	}
	conn, err := c.dial()
	if err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.%d\r\nHost: %s\r\nAccept: %s\r\nAccept-Encoding: gzip\r\n\r\n",
		method, c.path, c.minor, c.srv.Listener.Addr(), accept)
	conn.SetReadDeadline(time.Now().Add(c.patience))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	conn.SetReadDeadline(time.Time{})
	return resp, func() { conn.Close() }, err
}

// decoded returns the body without its Content-Encoding.
func decoded(resp *http.Response) (*bufio.Reader, error) {
	var r io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return nil, err
		}
		r = z
	}
	return bufio.NewReader(r), nil
}

// broken tells of a connection that did not end as it should.
func broken(err error) string {
	switch s := err.Error(); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(s, "reset"), strings.Contains(s, "stream error"):
		return "cut"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled):
		return "silent"
	default:
		return s
	}
}

var typeName = regexp.MustCompile(`\*?\b[a-z]\w*\.[A-Za-z]\w*`)

// refusal tells what was answered instead of a stream.
func (c *cell) refusal(resp *http.Response, err error) string {
	if resp == nil {
		return broken(err)
	}
	saw := fmt.Sprint(resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusMethodNotAllowed:
		if allow := resp.Header.Get("Allow"); !strings.Contains(allow, "GET") {
			saw += fmt.Sprintf(" with Allow: %q", allow)
		}
	case http.StatusInternalServerError:
		if c.kind == "HEAD" {
			break
		}
		body, err := decoded(resp)
		if err != nil {
			return saw + ": " + err.Error()
		}
		sentence, _ := io.ReadAll(body)
		if name := typeName.Find(sentence); name != nil {
			saw += " names " + string(name)
		} else {
			saw += fmt.Sprintf(" %q", sentence)
		}
	}
	return saw
}
