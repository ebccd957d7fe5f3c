package tailcast_test

// Ends that no Close frame announces: what BeforeClose is told, that it is told once, and that nothing of the connection is
// left. Here on a network in memory; abrupt_linux_test.go does it on the kernel's sockets.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// The ways in which a client is served.
const (
	wayWS      = "WebSocket"
	wayTaken   = "SSE, HTTP/1 taken over"
	wayWrapped = "SSE, HTTP/1 behind a wrapper"
	wayH2      = "SSE, HTTP/2"
	wayText    = "text, HTTP/1 taken over"
)

var ways = []string{wayWS, wayTaken, wayWrapped, wayH2, wayText}

// errStop is why the server's context is cancelled.
var errStop = errors.New("the server stops")

// kinds names everything that a cause matches.
func kinds(cause error) string {
	var names []string
	for _, k := range []struct {
		name string
		err  error
	}{
		{"io.ErrUnexpectedEOF", io.ErrUnexpectedEOF},
		{"ECONNRESET", syscall.ECONNRESET},
		{"EPIPE", syscall.EPIPE},
		{"ErrWriteTimeout", tailcast.ErrWriteTimeout},
		{"ErrPingTimeout", tailcast.ErrPingTimeout},
		{"context.Canceled", context.Canceled},
		{"the context's cause", errStop},
		{"ErrClosed", tailcast.ErrClosed},
	} {
		if errors.Is(cause, k.err) {
			names = append(names, k.name)
		}
	}
	if c := code(cause); c != 0 {
		names = append(names, fmt.Sprint("CloseError ", c))
	}
	return strings.Join(names, ", ")
}

// A victim is a client that is about to end abruptly, and its server.
type victim struct {
	t      *testing.T
	hub    *tailcast.Hub
	watch  *watch
	srv    *http.Server
	stop   context.CancelCauseFunc // of the server's context
	nc     *gate                   // the client's connection
	stream io.Reader               // what the client reads its messages from
	cancel context.CancelFunc      // of the client's request over HTTP/2
}

// A gate is a connection whose reader can be held up.
type gate struct {
	net.Conn
	mu   sync.Mutex
	shut chan struct{} // nil if it is open
}

func (g *gate) Read(p []byte) (int, error) {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
	return g.Conn.Read(p)
}

// hold lets nothing more through until the end of the test.
func (g *gate) hold(t *testing.T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut = shut
	t.Cleanup(func() { close(shut) })
}

func (g *gate) reset() {
	switch c := g.Conn.(type) {
	case *testnet.Conn:
		c.Reset()
	case *net.TCPConn:
		c.SetLinger(0)
		c.Close()
	}
}

func (g *gate) closeWrite() { g.Conn.(interface{ CloseWrite() error }).CloseWrite() }

// serveVictim connects one client over l. HTTP/2 runs without TLS, which makes no difference to a handler.
func serveVictim(t *testing.T, way string, l net.Listener, dial func() (net.Conn, error), opts ...tailcast.Option) *victim {
	ctx, stop := context.WithCancelCause(context.Background())
	v := &victim{t: t, watch: newWatch(), stop: stop}
	v.hub = tailcast.New(append(opts, v.watch.option())...)
	h := http.Handler(v.hub)
	if way == wayWrapped {
		h = wrapped(h)
	}
	v.srv = &http.Server{
		Handler: h, Protocols: new(http.Protocols),
		BaseContext: func(net.Listener) context.Context { return ctx },
		HTTP2:       &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	v.srv.Protocols.SetHTTP1(true)
	v.srv.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan struct{})
	go func() { v.srv.Serve(l); close(served) }()
	t.Cleanup(func() {
		stop(nil)
		if err := v.hub.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		v.srv.Close()
		<-served
	})
	nc, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	v.nc = &gate{Conn: nc}
	v.stream = v.nc
	t.Cleanup(func() { v.nc.Close() })
	switch way {
	case wayWS:
		if _, _, err := testnet.NewWS(v.nc, "localhost", "/", nil); err != nil {
			t.Fatal(err)
		}
	case wayH2:
		v.openH2()
	case wayText:
		v.stream = openStream(t, v.nc, "/").Reader
	default:
		v.stream = openStream(t, v.nc, "/", "Accept: text/event-stream").Reader
	}
	return v
}

func (v *victim) openH2() {
	tr := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return v.nc, nil },
		Protocols:   new(http.Protocols),
	}
	tr.Protocols.SetUnencryptedHTTP2(true)
	ctx, cancel := context.WithCancel(context.Background())
	v.cancel = cancel
	v.t.Cleanup(func() { cancel(); tr.CloseIdleConnections() })
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://localhost/", nil)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := tr.RoundTrip(req)
	if err != nil {
		v.t.Fatal(err)
	}
	if resp.ProtoMajor != 2 {
		v.t.Fatalf("over %s", resp.Proto)
	}
	v.stream = resp.Body
	v.t.Cleanup(func() { resp.Body.Close() })
}

// publish publishes n messages of 10 KB, unless the hub is closed.
func (v *victim) publish(n int) {
	for range n {
		if v.hub.Publish(context.Background(), tailcast.Message{Data: []byte(strings.Repeat("x", 10_000))}) != nil {
			return
		}
	}
}

// settled checks that BeforeClose was called once, and that the connection is in no list any more.
func (v *victim) settled() {
	v.t.Helper()
	if n := v.watch.count(); n != 1 {
		v.t.Errorf("BeforeClose ran %d times", n)
	}
	if left := v.hub.Stats().Connections; len(left) != 0 {
		v.t.Errorf("it is in Stats still: %v", left)
	}
	for c := range v.hub.Conns() {
		v.t.Errorf("it is in Conns still: %s", c.Transport())
	}
}

// A report is a table of what was observed.
type report struct {
	mu   sync.Mutex
	rows []string
}

func (r *report) row(cells ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := "|"
	for _, c := range cells {
		row += fmt.Sprintf(" %v |", c)
	}
	r.rows = append(r.rows, row)
}

func (r *report) log(t *testing.T, columns ...string) {
	t.Helper()
	t.Logf("\n| %s |\n%s\n%s", strings.Join(columns, " | "), strings.Repeat("|---", len(columns))+"|", strings.Join(r.rows, "\n"))
}

// An unackedConn tells what its peer's kernel has not acknowledged, as a TCP socket of Linux does: here, what it has not read.
type unackedConn struct{ *testnet.Conn }

func (c unackedConn) Unacked() (int, bool) { return c.Unread(), true }

type unackedListener struct{ *testnet.Listener }

func (l unackedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return unackedConn{nc.(*testnet.Conn)}, nil
}

func TestAbruptEndsHaveTheirCause(t *testing.T) {
	const (
		eof    = "io.ErrUnexpectedEOF"
		reset  = "ECONNRESET"
		write  = "ErrWriteTimeout"
		ping   = "ErrPingTimeout"
		ctx    = "context.Canceled"
		reason = "the context's cause"
		none   = "none: it lives on"
	)
	all := func(kind string) map[string]string {
		m := make(map[string]string)
		for _, way := range ways {
			m[way] = kind
		}
		return m
	}
	// What net/http holds, it tells of only by the end of the request's context.
	other := func(kind, held string) map[string]string {
		m := all(kind)
		m[wayWrapped], m[wayH2] = held, held
		return m
	}
	var r report
	for _, e := range []struct {
		name  string
		end   func(*victim)
		want  map[string]string // by way; a way that is not in it cannot end so
		least time.Duration     // how long it takes
		most  time.Duration
	}{
		{"FIN", func(v *victim) { v.nc.Close() }, all(eof), 0, 0},
		{"half close", func(v *victim) { v.nc.closeWrite() }, all(eof), 0, 0},
		{"RST", func(v *victim) { v.nc.reset() }, other(reset, eof), 0, 0},
		{"RST_STREAM", func(v *victim) { v.cancel() }, map[string]string{wayH2: eof}, 0, 0},
		{"it stops reading", func(v *victim) { v.publish(1000) }, all(write), 10 * time.Second, 10 * time.Second},
		{"its connection takes nothing", func(v *victim) { v.nc.hold(v.t); v.publish(1000) },
			map[string]string{wayH2: write}, 10 * time.Second, 11 * time.Second},
		{"silence after a ping", func(*victim) {}, map[string]string{wayWS: ping}, 35 * time.Second, 37 * time.Second},
		{"the network is gone, nothing is said", func(v *victim) { v.nc.hold(v.t) },
			map[string]string{wayWS: ping, wayTaken: write, wayWrapped: none, wayH2: eof, wayText: none}, 24 * time.Second, 47 * time.Second},
		{"the network is gone, a message is sent", func(v *victim) { v.nc.hold(v.t); v.publish(1) },
			map[string]string{wayWS: ping, wayTaken: write, wayWrapped: none, wayH2: eof, wayText: write}, 9 * time.Second, 37 * time.Second},
		{"the server's context is cancelled", func(v *victim) { v.stop(nil) }, other(ctx, eof), 0, 0},
		{"the same, with a cause", func(v *victim) { v.stop(errStop) }, all(reason), 0, 0},
		{"http.Server.Close", func(v *victim) { v.srv.Close() }, other(none, eof), 0, 0},
	} {
		for _, way := range ways {
			want, ok := e.want[way]
			if !ok {
				continue
			}
			t.Run(way+"/"+e.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := testnet.Listen()
					v := serveVictim(t, way, unackedListener{l}, func() (net.Conn, error) { return l.Dial(t.Context()) })
					v.drain()
					start := time.Now()
					e.end(v)
					if want == none {
						time.Sleep(20 * time.Second) // a WebSocket that says nothing ends after 35
						if n := v.watch.count(); n != 0 {
							t.Errorf("ended with %v", <-v.watch.ended)
						}
						r.row(e.name, way, none, "", "")
						return
					}
					cause := <-v.watch.ended
					took := time.Since(start)
					r.row(e.name, way, kinds(cause), cause, took)
					if got := kinds(cause); got != want {
						t.Errorf("the cause is %v: %s, want %s", cause, got, want)
					}
					if took < e.least || took > e.most {
						t.Errorf("it took %v", took)
					}
					time.Sleep(time.Minute)
					v.settled()
					counted := map[string]string{eof: "client", reset: "client", write: "write_timeout", ping: "ping_timeout", ctx: "context", reason: "context"}[want]
					if way == wayWS && counted == "client" { // which had a Close frame to send
						counted = "lost"
					}
					if st := v.hub.Stats(); st.Ended[counted] != 1 || st.Accepted != 1 {
						t.Errorf("not counted as %s, but %v", counted, st.Ended)
					}
				})
			})
		}
	}
	r.log(t, "end", "way", "matches", "cause", "after")
}

// drain reads what came with the head, so that only what comes now is unread.
func (v *victim) drain() {
	synctest.Wait()
	if c, ok := v.nc.Conn.(*testnet.Conn); ok {
		for c.Peer().Unread() > 0 {
			if _, err := c.Read(make([]byte, 1000)); err != nil {
				v.t.Fatal(err)
			}
		}
	}
}

// TestTheRequestsContextEndsAViewerThatIsBehind: one that never catches up, served through a ResponseWriter, looks at its
// context nevertheless.
func TestTheRequestsContextEndsAViewerThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testnet.Listen()
		v := serveVictim(t, wayWrapped, l, func() (net.Conn, error) { return l.Dial(t.Context()) })
		synctest.Wait()
		go func() {
			for buf := make([]byte, 32<<10); ; time.Sleep(100 * time.Millisecond) {
				if _, err := v.stream.Read(buf); err != nil {
					return
				}
			}
		}()
		v.publish(800) // for half a minute
		time.Sleep(time.Second)
		start := time.Now()
		v.stop(errStop)
		if cause := <-v.watch.ended; cause != errStop || time.Since(start) > 2*time.Second {
			t.Errorf("ended with %v after %v", cause, time.Since(start))
		}
		time.Sleep(time.Minute)
		v.settled()
	})
}

// failing is a ResponseWriter of which only the head arrives.
type failing struct {
	http.ResponseWriter
	err error
}

func (f failing) Unwrap() http.ResponseWriter { return f.ResponseWriter }
func (f failing) Write([]byte) (int, error)   { return 0, f.err }

// TestAResponseThatFailsIsAClientThatHasGone: net/http's own errors, such as "client disconnected", match nothing.
func TestAResponseThatFailsIsAClientThatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		hub := tailcast.New(w.option())
		err := errors.New("client disconnected")
		s := serveSite(t, hub, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return failing{w, err} }))
		s.sse("")
		if cause := <-w.ended; !errors.Is(cause, io.ErrUnexpectedEOF) || !errors.Is(cause, err) {
			t.Errorf("ended with %v", cause)
		}
	})
}

// TestHTTPServersShutdownEndsNoStream: it waits for those that net/http writes.
func TestHTTPServersShutdownEndsNoStream(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := testnet.Listen()
				v := serveVictim(t, way, l, func() (net.Conn, error) { return l.Dial(t.Context()) })
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				err := v.srv.Shutdown(ctx)
				if waits := way == wayWrapped || way == wayH2; waits != errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown = %v", err)
				}
				if n := v.watch.count(); n != 0 {
					t.Errorf("ended with %v", <-v.watch.ended)
				}
			})
		})
	}
}
