package wsconn_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/internal/wsconn"
)

const (
	fin  = testnet.Fin
	text = testnet.OpText
)

// A fixture is a server that accepts WebSockets and a way to reach it.
type fixture struct {
	dial     func() net.Conn
	accepted chan *wsconn.Conn
	controls controls
}

// controls is what came out of Options.Control, which is called on the goroutine that reads.
type controls []string

func (c *controls) add(op wsconn.Opcode, payload []byte) {
	if code, reason := wsconn.ParseClose(payload); op == wsconn.OpClose {
		*c = append(*c, fmt.Sprintf("close %d %s", code, reason))
	} else {
		*c = append(*c, fmt.Sprintf("%v %s", op, payload))
	}
}

// want checks that exactly these control frames came out since the last call.
func (c *controls) want(t *testing.T, want ...string) {
	t.Helper()
	if fmt.Sprint([]string(*c)) != fmt.Sprint(want) {
		t.Errorf("control frames %q, want %q", []string(*c), want)
	}
	*c = nil
}

// accept accepts a client in memory, for a bubble.
func accept(t *testing.T, o wsconn.Options) (*wsconn.Conn, *testnet.WS, *http.Server) {
	t.Helper()
	l := testnet.Listen()
	accepted := make(chan *wsconn.Conn, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted <- must(wsconn.Accept(w, r, o))
	})}
	go srv.Serve(l)
	ws := must(testnet.DialWS(t.Context(), l, "/", nil))
	return <-accepted, ws, srv
}

// overEach runs f over TCP, over TLS, and in memory inside a bubble. The connection that f accepts must be all it leaves open.
func overEach(t *testing.T, o wsconn.Options, f func(t *testing.T, fx *fixture)) {
	setup := func(t *testing.T) (*fixture, *httptest.Server) {
		fx := &fixture{accepted: make(chan *wsconn.Conn, 1)}
		o.Control = fx.controls.add
		return fx, httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := wsconn.Accept(w, r, o)
			if err == nil {
				fx.accepted <- c
			}
		}))
	}
	t.Run("TCP", func(t *testing.T) {
		fx, srv := setup(t)
		srv.Start()
		defer srv.Close()
		fx.dial = func() net.Conn { return must(net.Dial("tcp", srv.Listener.Addr().String())) }
		f(t, fx)
	})
	t.Run("TLS", func(t *testing.T) {
		fx, srv := setup(t)
		srv.StartTLS()
		defer srv.Close()
		fx.dial = func() net.Conn {
			return must(tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}))
		}
		f(t, fx)
	})
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			fx, srv := setup(t)
			l := testnet.Listen()
			srv.Listener.Close()
			var wg sync.WaitGroup
			wg.Go(func() { srv.Config.Serve(l) })
			fx.dial = func() net.Conn { return must(l.Dial(context.Background())) }
			f(t, fx)
			srv.Config.Close()
			wg.Wait()
		})
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// connect returns both ends of a new WebSocket.
func (fx *fixture) connect(t *testing.T, header http.Header) (*testnet.WS, *wsconn.Conn) {
	t.Helper()
	ws, _, err := testnet.NewWS(fx.dial(), "tailcast.test", "/", header)
	if err != nil {
		t.Fatal(err)
	}
	c := <-fx.accepted
	t.Cleanup(func() { ws.Close() })
	t.Cleanup(func() { finish(c) })
	return ws, c
}

// finish does what the owner of a connection does at its end.
func finish(c *wsconn.Conn) {
	c.NetConn().Close()
	c.Release()
}

// wantMessage checks the next message.
func wantMessage(t *testing.T, c *wsconn.Conn, want string, wantBinary bool) {
	t.Helper()
	data, binary, err := c.Read()
	if err != nil || string(data) != want || binary != wantBinary {
		t.Fatalf("Read = %.40q (%d bytes), binary %v, %v; want %.40q (%d bytes), binary %v", data, len(data), binary, err, want, len(want), wantBinary)
	}
}

func TestMessagesArriveAsTheyWereSent(t *testing.T) {
	overEach(t, wsconn.Options{Subprotocols: []string{"tailcast.v1", "other"}, ReadLimit: 100_000}, func(t *testing.T, fx *fixture) {
		ws, c := fx.connect(t, http.Header{"Sec-WebSocket-Protocol": {"other, tailcast.v1"}})
		if ws.Subprotocol() != "tailcast.v1" || c.Subprotocol() != "tailcast.v1" {
			t.Errorf("subprotocol %q at the client, %q at the server", ws.Subprotocol(), c.Subprotocol())
		}
		long := strings.Repeat("0123456789", 10_000) // as long as the limit allows
		go func() {
			ws.WriteText("grüße")
			ws.WriteFrame(true, testnet.OpBinary, []byte("\xff\x00"))
			ws.WriteText("")
			ws.WriteText(long)
			ws.WriteFrame(false, text, []byte("gr\xc3")) // a rune in two frames, a ping between them
			ws.WriteFrame(true, testnet.OpPing, []byte("now"))
			ws.WriteFrame(false, testnet.OpContinuation, nil)
			ws.WriteFrame(true, testnet.OpContinuation, []byte("\xbc"))
			ws.WriteText("short again")
		}()
		wantMessage(t, c, "grüße", false)
		wantMessage(t, c, "\xff\x00", true)
		wantMessage(t, c, "", false)
		wantMessage(t, c, long, false)
		wantMessage(t, c, "grü", false)
		wantMessage(t, c, "short again", false)
		fx.controls.want(t, "pong now")
	})
}

// Nothing here writes to the socket: what the client sees is what the owner of the write side sends.
func TestNothingReachesTheSocketButTheHandshake(t *testing.T) {
	overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
		ws, c := fx.connect(t, nil)
		go func() {
			ws.WriteFrame(true, testnet.OpPing, []byte("1"))
			ws.WriteFrame(true, testnet.OpPing, []byte(strings.Repeat("x", 125)))
			ws.WriteFrame(true, testnet.OpPing, nil)
			ws.WriteFrame(true, testnet.OpPong, []byte("unasked"))
			ws.WriteClose(4001, "bye")
		}()
		_, _, err := c.Read()
		var closed *wsconn.CloseError
		if !errors.As(err, &closed) || closed.Code != 4001 || closed.Reason != "bye" {
			t.Errorf("Read = %v, want the peer's Close", err)
		}
		fx.controls.want(t, "pong 1", "pong "+strings.Repeat("x", 125), "pong ", "close 4001 bye")
		if _, err := c.NetConn().Write(testnet.AppendFrame(nil, fin|testnet.OpClose, false, wsconn.ClosePayload(4001, "mine"))); err != nil {
			t.Errorf("the connection must still be open for the owner's Close frame: %v", err)
		}
		finish(c)
		if op, payload, err := ws.ReadFrame(); op != testnet.OpClose || string(payload) != "\x0f\xa1mine" || err != nil {
			t.Errorf("the client saw %d %q, %v first", op, payload, err)
		}
		if _, _, err := ws.ReadFrame(); err != io.EOF {
			t.Errorf("the client saw %v at the end", err)
		}
	})
}

func TestFramesInTheSamePacketAsTheRequestAreNotLost(t *testing.T) {
	overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
		conn := fx.dial()
		request, key := testnet.Handshake("tailcast.test", "/", nil)
		packet := testnet.AppendFrame(request, fin|text, true, []byte("early"))
		packet = testnet.AppendFrame(packet, fin|text, true, []byte(strings.Repeat("x", 2000)))
		rest := testnet.AppendFrame(nil, fin|text, true, []byte("late"))
		conn.Write(append(packet, rest[:3]...))
		ws, _, err := testnet.ReadHandshake(conn, key)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		c := <-fx.accepted
		defer finish(c)
		wantMessage(t, c, "early", false)
		wantMessage(t, c, strings.Repeat("x", 2000), false)
		conn.Write(rest[3:])
		wantMessage(t, c, "late", false)
	})
}

func TestTheHandshakeIsOutWhenAcceptReturns(t *testing.T) {
	l := testnet.Listen()
	unread := make(chan int)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := wsconn.Accept(w, r, wsconn.Options{})
		if err != nil {
			t.Error(err)
			return
		}
		unread <- c.NetConn().(*testnet.Conn).Unread()
		finish(c)
	})}
	go srv.Serve(l)
	defer srv.Close()
	conn, _ := l.Dial(t.Context())
	request, _ := testnet.Handshake("h", "/", nil)
	conn.Write(request)
	n := <-unread
	response, _ := io.ReadAll(conn)
	if n == 0 || n != len(response) || !strings.HasSuffix(string(response), "\r\n\r\n") {
		t.Errorf("%d bytes were out when Accept returned; the whole response is %q", n, response)
	}
}

func TestWhatEndsTheReading(t *testing.T) {
	frame := func(first byte, payload string) string {
		return string(testnet.AppendFrame(nil, first, true, []byte(payload)))
	}
	long := strings.Repeat("x", 1000)
	for name, test := range map[string]struct {
		send    string
		code    int
		control string
	}{
		"RSV1":                         {frame(fin|0x40|text, "x"), 1002, "received header with unexpected rsv bits set: true:false:false"},
		"RSV2":                         {frame(fin|0x20|text, "x"), 1002, "received header with unexpected rsv bits set: false:true:false"},
		"RSV3":                         {frame(fin|0x10|text, "x"), 1002, "received header with unexpected rsv bits set: false:false:true"},
		"a reserved data opcode":       {frame(fin|3, ""), 1002, "received unknown opcode opcode(3)"},
		"a reserved control opcode":    {frame(fin|0xf, ""), 1002, "received unknown opcode opcode(15)"},
		"a fragmented ping":            {frame(testnet.OpPing, "x"), 1002, "received fragmented control frame"},
		"a ping that is too long":      {frame(fin|testnet.OpPing, long[:126]), 1002, "received control frame payload with invalid length: 126"},
		"a stray continuation":         {frame(fin|testnet.OpContinuation, "x"), 1002, "received continuation frame without text or binary frame"},
		"a message inside another":     {frame(text, "x") + frame(fin|text, "x"), 1002, "received new data message without finishing the previous message"},
		"an unmasked frame":            {string(testnet.AppendFrame(nil, fin|text, false, []byte("x"))), 1002, "received unmasked frame from client"},
		"an unmasked continuation":     {frame(text, "x") + "\x80\x01x", 1002, "received unmasked frame from client"},
		"a negative length":            {"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1002, "received negative payload length: -1"},
		"16 bits for 125 bytes":        {"\x81\xfe\x00\x7d\x00\x00\x00\x00" + long[:125], 1002, "a length that is not written in its shortest form"},
		"64 bits for 65535 bytes":      {"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00", 1002, "a length that is not written in its shortest form"},
		"16 bits for a ping":           {"\x89\xfe\x00\x01\x00\x00\x00\x00x", 1002, "a length that is not written in its shortest form"},
		"half a close code":            {frame(fin|testnet.OpClose, "\x03"), 1002, `close payload "\x03" too small, cannot even contain the 2 byte status code`},
		"close code 1005":              {frame(fin|testnet.OpClose, "\x03\xed"), 1002, "invalid status code StatusNoStatusRcvd"},
		"close code 2000":              {frame(fin|testnet.OpClose, "\x07\xd0"), 1002, "invalid status code StatusCode(2000)"},
		"text that is not UTF-8":       {frame(fin|text, "a\xff"), 1007, "text that is not valid UTF-8"},
		"text that ends inside a rune": {frame(text, "a\xc3") + frame(fin|testnet.OpContinuation, ""), 1007, "text that is not valid UTF-8"},
		"a message over the limit":     {frame(fin|text, long+"x"), 1009, "a message may have 1000 bytes"},
		"fragments over the limit":     {frame(text, long) + frame(fin|testnet.OpContinuation, "x"), 1009, "a message may have 1000 bytes"},
		"a flood of empty fragments":   {frame(text, "") + strings.Repeat(frame(testnet.OpContinuation, ""), 20_000), 1008, "too many fragments for one message"},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, wsconn.Options{ReadLimit: 1000}, func(t *testing.T, fx *fixture) {
				ws, c := fx.connect(t, nil)
				go ws.Conn.Write([]byte(test.send + frame(fin|text, "more") + frame(fin|testnet.OpClose, "\x03\xe8")))
				_, _, err := c.Read()
				var broken *wsconn.ProtocolError
				if !errors.As(err, &broken) || broken.Code != test.code || broken.Reason == "" {
					t.Errorf("Read = %v, want a ProtocolError with %d", err, test.code)
				}
				if _, _, again := c.Read(); again != err {
					t.Errorf("a second Read = %v, want the same error", again)
				}
				if len(fx.controls) != 1 || !strings.HasPrefix(fx.controls[0], fmt.Sprintf("close %d ", test.code)) || !strings.HasSuffix(fx.controls[0], test.control) {
					t.Errorf("control frames %q, want one Close with %d and %q", fx.controls, test.code, test.control)
				}
			})
		})
	}
}

func TestThePeersClose(t *testing.T) {
	for name, test := range map[string]struct {
		payload string
		want    wsconn.CloseError
		control string
	}{
		"with a code":                      {"\x03\xe9away", wsconn.CloseError{Code: 1001, Reason: "away"}, "close 1001 away"},
		"without a code":                   {"", wsconn.CloseError{Code: 1005}, "close 1005 "},
		"with the longest reason":          {"\x03\xe8" + strings.Repeat("r", 123), wsconn.CloseError{Code: 1000, Reason: strings.Repeat("r", 123)}, "close 1000 " + strings.Repeat("r", 123)},
		"with a reason that is not UTF-8":  {"\x03\xe8a\xff", wsconn.CloseError{Code: 1000, Reason: "a\uFFFD"}, "close 1007 the reason of the Close frame is not valid UTF-8"},
		"with a reason that grows thereby": {"\x03\xe8" + strings.Repeat("r\xff", 61), wsconn.CloseError{Code: 1000, Reason: strings.Repeat("r\uFFFD", 30) + "r"}, "close 1007 the reason of the Close frame is not valid UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
				ws, c := fx.connect(t, nil)
				ws.WriteFrame(true, testnet.OpClose, []byte(test.payload))
				ws.WriteFrame(true, testnet.OpClose, []byte(test.payload)) // a second one must not be answered
				for range 2 {
					var closed *wsconn.CloseError
					if _, _, err := c.Read(); !errors.As(err, &closed) || *closed != test.want {
						t.Errorf("Read = %v, want %v", err, &test.want)
					}
				}
				fx.controls.want(t, test.control)
			})
		})
	}
}

// A connection can end anywhere. Whatever has arrived of a message until then must not pass for the whole of it.
func TestAConnectionThatEndsInsideAMessage(t *testing.T) {
	whole := testnet.AppendFrame(nil, text, true, []byte("half"))
	whole = testnet.AppendFrame(whole, fin|testnet.OpPing, true, []byte("ping"))
	whole = testnet.AppendFrame(whole, fin|testnet.OpContinuation, true, []byte("half"))
	overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
		for n := range whole {
			ws, c := fx.connect(t, nil)
			ws.Conn.Write(whole[:n])
			ws.Close()
			if data, _, err := c.Read(); err != io.EOF {
				t.Errorf("after %d of %d bytes Read = %q, %v; want io.EOF", n, len(whole), data, err)
			}
			finish(c)
		}
	})
}

func TestNetworkErrorsComeAsTheyAre(t *testing.T) {
	t.Run("RST over TCP", func(t *testing.T) {
		var fx fixture
		fx.accepted = make(chan *wsconn.Conn, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fx.accepted <- must(wsconn.Accept(w, r, wsconn.Options{Control: fx.controls.add}))
		}))
		defer srv.Close()
		fx.dial = func() net.Conn { return must(net.Dial("tcp", srv.Listener.Addr().String())) }
		ws, c := fx.connect(t, nil)
		ws.Conn.(*net.TCPConn).SetLinger(0)
		ws.Close()
		_, _, err := c.Read()
		var op *net.OpError
		if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) {
			t.Errorf("Read = %v, want ECONNRESET", err)
		}
		fx.controls.want(t)
	})
	overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
		_, c := fx.connect(t, nil)
		time.AfterFunc(10*time.Millisecond, func() { c.NetConn().Close() })
		if _, _, err := c.Read(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read = %v, want net.ErrClosed when the owner closes", err)
		}
		fx.controls.want(t)
	})
}

func TestReleaseWakesReadAndLeavesTheConnectionToItsOwner(t *testing.T) {
	overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
		ws, c := fx.connect(t, nil)
		read := make(chan error)
		go func() {
			_, _, err := c.Read()
			read <- err
		}()
		time.Sleep(5 * time.Millisecond)
		c.Release()
		c.Release()
		if err := <-read; err != net.ErrClosed {
			t.Errorf("Read = %v, want net.ErrClosed", err)
		}
		if _, _, err := c.Read(); err != net.ErrClosed {
			t.Errorf("Read after Release = %v, want net.ErrClosed", err)
		}
		fx.controls.want(t)
		go ws.Conn.Write([]byte("raw"))
		raw := make([]byte, 3)
		if _, err := io.ReadFull(c.NetConn(), raw); err != nil || string(raw) != "raw" {
			t.Errorf("reading from NetConn after Release: %q, %v", raw, err)
		}
		go c.NetConn().Write([]byte("\x82\x00"))
		if op, _, err := ws.ReadFrame(); op != testnet.OpBinary || err != nil {
			t.Errorf("writing to NetConn after Release: %d, %v", op, err)
		}
	})
}

func TestLastReadFollowsTheBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ws, srv := accept(t, wsconn.Options{})
		begin := time.Now()
		go c.Read()
		check := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got := c.LastRead().Sub(begin); got != want {
				t.Errorf("LastRead is %v after the beginning, want %v", got, want)
			}
		}
		check(0)
		time.Sleep(time.Minute)
		check(0)
		ws.WriteFrame(true, testnet.OpPong, nil)
		check(time.Minute)
		time.Sleep(time.Minute)
		ws.Conn.Write([]byte{fin | text}) // a part of a header is life too
		check(2 * time.Minute)
		finish(c)
		ws.Close()
		srv.Close()
	})
}

// A control frame whose payload has not come within five seconds is given up.
func TestAnUnfinishedPingEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got controls
		c, ws, srv := accept(t, wsconn.Options{Control: got.add})
		ws.Conn.Write(testnet.AppendFrame(nil, fin|testnet.OpPing, true, []byte("ping"))[:7])
		_, _, err := c.Read()
		var broken *wsconn.ProtocolError
		if !errors.As(err, &broken) || broken.Code != 1002 {
			t.Errorf("Read = %v", err)
		}
		got.want(t, "close 1002 a control frame was not finished in time")
		finish(c)
		ws.Close()
		srv.Close()
	})
}

// Closing a socket with bytes unread resets it, and a reset destroys what the peer has not read. Linger is the cure.
func TestLingerLetsTheCloseFrameArrive(t *testing.T) {
	overEach(t, wsconn.Options{ReadLimit: 10}, func(t *testing.T, fx *fixture) {
		ws, c := fx.connect(t, nil)
		const flood = 8 << 20
		sent := make(chan error, 1)
		go func() {
			_, err := ws.Conn.Write(testnet.AppendFrame(nil, fin|text, true, make([]byte, flood)))
			sent <- err
		}()
		var broken *wsconn.ProtocolError
		if _, _, err := c.Read(); !errors.As(err, &broken) {
			t.Fatalf("Read = %v", err)
		}
		c.NetConn().Write(testnet.AppendFrame(nil, fin|testnet.OpClose, false, wsconn.ClosePayload(broken.Code, broken.Reason)))
		lingered := make(chan struct{})
		go func() {
			c.Linger(10*time.Second, 2*flood)
			c.NetConn().Close()
			close(lingered)
		}()
		if err := <-sent; err != nil {
			t.Errorf("the client could not finish sending: %v", err)
		}
		if op, payload, err := ws.ReadFrame(); op != testnet.OpClose || string(payload[:2]) != "\x03\xf1" || err != nil {
			t.Errorf("the client saw %d %q, %v; want the Close frame", op, payload, err)
		}
		ws.Close()
		<-lingered
	})
}

func TestLingerHasItsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, ws, srv := accept(t, wsconn.Options{})
		begin := time.Now()
		c.Linger(time.Minute, 100)
		if got := time.Since(begin); got != time.Minute {
			t.Errorf("Linger took %v with a silent peer, want a minute", got)
		}
		ws.Conn.Write(make([]byte, 150))
		c.Linger(time.Minute, 100)
		if got := time.Since(begin); got != time.Minute {
			t.Errorf("Linger waited %v after its limit of bytes", got-time.Minute)
		}
		if left := ws.Conn.(*testnet.Conn).Unread(); left != 50 {
			t.Errorf("Linger left %d bytes, want 50", left)
		}
		if _, _, err := ws.ReadFrame(); err != io.EOF {
			t.Errorf("the client saw %v, want the end of the stream", err)
		}
		finish(c)
		ws.Close()
		srv.Close()
	})
}

// The wrappers that middleware puts around a ResponseWriter.
type (
	unwraps  struct{ http.ResponseWriter }
	opaque   struct{ http.ResponseWriter }
	asserts  struct{ unwraps } // as many do: a Hijack that works only over a writer that has one itself
	insists  struct{ unwraps } // as gin does: it panics over another one
	refuses  struct{ http.ResponseWriter }
	holdback struct{ unwraps } // as much does that compresses: there is no header before there is a body
)

func (w *unwraps) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *asserts) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := w.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, http.ErrNotSupported
	}
	return h.Hijack()
}

func (w *refuses) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.New("no hijacking here")
}

func (w *holdback) WriteHeader(int) {}

func (w *insists) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.ResponseWriter.(http.Hijacker).Hijack()
}

func TestMiddleware(t *testing.T) {
	wrap := func(with func(http.ResponseWriter) http.ResponseWriter) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(with(w), r) })
		}
	}
	for name, test := range map[string]struct {
		middleware func(http.Handler) http.Handler
		fault      string // "" if it works
	}{
		"none": {wrap(func(w http.ResponseWriter) http.ResponseWriter { return w }), ""},
		"that only unwraps": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &unwraps{w}
		}), ""},
		"that unwraps twice": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &unwraps{&unwraps{w}}
		}), ""},
		"whose Hijack asserts too much": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &asserts{unwraps{&unwraps{w}}}
		}), ""},
		"whose Hijack asserts too much and panics": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &insists{unwraps{&unwraps{w}}}
		}), ""},
		"that holds the status back": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &unwraps{&holdback{unwraps{w}}}
		}), ""},
		"that is opaque": {wrap(func(w http.ResponseWriter) http.ResponseWriter { return &opaque{w} }), "*wsconn_test.opaque"},
		"that is opaque behind one that unwraps": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &unwraps{&opaque{w}}
		}), "*wsconn_test.opaque"},
		"that is opaque behind one that has Hijack": {wrap(func(w http.ResponseWriter) http.ResponseWriter {
			return &insists{unwraps{&opaque{w}}}
		}), "*wsconn_test.opaque"},
		"http.TimeoutHandler": {func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }, "*http.timeoutWriter"},
	} {
		t.Run(name, func(t *testing.T) {
			failed := make(chan error, 1)
			srv := httptest.NewServer(test.middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				c, err := wsconn.Accept(w, r, wsconn.Options{})
				failed <- err
				if err == nil {
					defer finish(c)
					c.Read()
				}
			})))
			defer srv.Close()
			ws, resp, err := testnet.NewWS(must(net.Dial("tcp", srv.Listener.Addr().String())), "h", "/", nil)
			accepted := <-failed
			if test.fault == "" {
				if err != nil || accepted != nil {
					t.Fatalf("Accept: %v; the client: %v", accepted, err)
				}
				ws.Close()
				return
			}
			var refused *testnet.HandshakeError
			if !errors.As(err, &refused) || resp.StatusCode != 500 || !strings.Contains(refused.Body, test.fault+" hides it") {
				t.Errorf("the client got %v, want a 500 that names %s", err, test.fault)
			}
			if accepted == nil || !strings.Contains(accepted.Error(), test.fault) {
				t.Errorf("Accept = %v, want an error that names %s", accepted, test.fault)
			}
		})
	}
}

func TestAHijackThatFails(t *testing.T) {
	failed := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := wsconn.Accept(&refuses{w}, r, wsconn.Options{})
		failed <- err
	}))
	defer srv.Close()
	_, resp, err := testnet.NewWS(must(net.Dial("tcp", srv.Listener.Addr().String())), "h", "/", nil)
	const want = "*wsconn_test.refuses does not give it: no hijacking here"
	if accepted := <-failed; accepted == nil || !strings.Contains(accepted.Error(), want) {
		t.Errorf("Accept = %v, want an error with %q", accepted, want)
	}
	var refused *testnet.HandshakeError
	if !errors.As(err, &refused) || resp.StatusCode != 500 || !strings.Contains(refused.Body, want) || resp.Header.Get("Upgrade") != "" {
		t.Errorf("the client got %v, %v; want a 500 with %q", resp, err, want)
	}
}

func TestRequestsThatAreNoHandshakeGetASentence(t *testing.T) {
	for name, test := range map[string]struct {
		change func(r *http.Request)
		status int
		want   string
	}{
		"no Connection":        {func(r *http.Request) { r.Header.Del("Connection") }, 426, "came without the header Connection: Upgrade. A proxy in front must"},
		"no Upgrade":           {func(r *http.Request) { r.Header.Del("Upgrade") }, 426, "came without the header Upgrade: websocket. A proxy in front must"},
		"another upgrade":      {func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, 426, "came without the header Upgrade: websocket."},
		"a POST":               {func(r *http.Request) { r.Method = "POST" }, 405, "is not GET"},
		"version 8":            {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, 400, "only 13 is supported"},
		"no key":               {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, 400, "missing Sec-WebSocket-Key"},
		"a short key":          {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "eA==") }, 400, "16 byte"},
		"HTTP/1.0":             {func(r *http.Request) { r.Proto, r.ProtoMinor = "HTTP/1.0", 0 }, 426, "came over HTTP/1.0. A proxy"},
		"HTTP/2":               {func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0 }, 505, "needs HTTP/1.1 here, and this request came over HTTP/2.0"},
		"a writer of a test's": {func(r *http.Request) {}, 500, "*httptest.ResponseRecorder hides it"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, _ := testnet.Handshake("h", "/", nil)
			r := must(http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw)))))
			test.change(r)
			rec := httptest.NewRecorder()
			var w http.ResponseWriter = rec
			if test.status != 500 {
				w = &refuses{rec} // has a Hijack that must not be reached
			}
			c, err := wsconn.Accept(w, r, wsconn.Options{})
			if c != nil || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Accept = %v, %v; want an error with %q", c, err, test.want)
			}
			if rec.Code != test.status || !strings.Contains(rec.Body.String(), test.want) {
				t.Errorf("the answer is %d %q; want %d with %q", rec.Code, rec.Body, test.status, test.want)
			}
		})
	}
}

func TestClosePayload(t *testing.T) {
	for _, test := range []struct {
		code   int
		reason string
		want   string
	}{
		{1000, "", "\x03\xe8"},
		{4001, "own", "\x0f\xa1own"},
		{1005, "lost", ""},
		{1006, "lost", ""},
		{1015, "lost", ""},
		{0, "lost", ""},
		{70_000, "lost", ""},
		{1000, "a\xffb", "\x03\xe8a\uFFFDb"},
		{1000, strings.Repeat("x", 123), "\x03\xe8" + strings.Repeat("x", 123)},
		{1000, strings.Repeat("x", 124), "\x03\xe8" + strings.Repeat("x", 123)},
		{1000, strings.Repeat("ü", 62), "\x03\xe8" + strings.Repeat("ü", 61)},
		{1000, strings.Repeat("x", 121) + "\U0001F600", "\x03\xe8" + strings.Repeat("x", 121)},
		{1000, strings.Repeat("\xff\xfe", 200), "\x03\xe8\uFFFD"},
	} {
		if got := string(wsconn.ClosePayload(test.code, test.reason)); got != test.want {
			t.Errorf("ClosePayload(%d, %q) = %q, want %q", test.code, test.reason, got, test.want)
		}
	}
	for payload, want := range map[string]int{"": 1005, "\x03": 1005, "\x03\xe8": 1000, "\x03\xe9x": 1001} {
		if code, _ := wsconn.ParseClose([]byte(payload)); code != want {
			t.Errorf("ParseClose(%q) = %d, want %d", payload, code, want)
		}
	}
}

// What comes before a frame that breaks the protocol arrives, in whatever pieces it comes.
func TestALengthInALongForm(t *testing.T) {
	good := testnet.AppendFrame(nil, fin|text, true, []byte("before"))
	good = testnet.AppendFrame(good, fin|testnet.OpPing, true, []byte("ping"))
	all := append(good, "\x81\xfe\x00\x05\x00\x00\x00\x00hello"...)
	for step := 1; step <= len(all); step++ {
		synctest.Test(t, func(t *testing.T) {
			var got controls
			c, ws, srv := accept(t, wsconn.Options{Control: got.add})
			go func() {
				for p := all; len(p) > 0; p = p[min(step, len(p)):] {
					ws.Conn.Write(p[:min(step, len(p))])
					synctest.Wait()
				}
			}()
			wantMessage(t, c, "before", false)
			for range 2 {
				var broken *wsconn.ProtocolError
				if _, _, err := c.Read(); !errors.As(err, &broken) || broken.Code != 1002 {
					t.Errorf("in steps of %d Read = %v, want a ProtocolError with 1002", step, err)
				}
			}
			got.want(t, "pong ping", "close 1002 a length that is not written in its shortest form")
			finish(c)
			ws.Close()
			srv.Close()
		})
	}
}

// Text that is not UTF-8 is refused with the fragment that makes it so, whatever the peer means to send after it.
func TestTextFailsEarly(t *testing.T) {
	for name, test := range map[string]struct {
		fragments []string
		bad       bool
	}{
		"a fragment that is bad by itself":        {[]string{"good", "\xff"}, true},
		"a rune that goes on wrongly":             {[]string{"gr\xc3", "a"}, true},
		"the byte that makes it too large":        {[]string{"\xf4", "\x90"}, true},
		"the byte that makes it a surrogate":      {[]string{"\xed", "\xa0"}, true},
		"the byte that makes it overlong":         {[]string{"\xe0", "\x9f"}, true},
		"a rune in four fragments":                {[]string{"\xf0", "\x9f", "\x98", "\x80"}, false},
		"a rune of which one byte is missing":     {[]string{"x", "\xf0\x9f\x98"}, false},
		"a rune whose last byte begins the next":  {[]string{"\xf0\x9f\x98", "\xf0"}, true},
		"continuations after whole runes":         {[]string{"ü", "\xbc"}, true},
		"a long fragment before the one with bad": {[]string{strings.Repeat("ü", 5000) + "\xc3", "\xff"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, wsconn.Options{}, func(t *testing.T, fx *fixture) {
				ws, c := fx.connect(t, nil)
				op := text
				for _, f := range test.fragments {
					ws.WriteFrame(false, op, []byte(f))
					op = testnet.OpContinuation
				}
				if !test.bad {
					ws.WriteFrame(true, testnet.OpPing, nil)
					ws.WriteClose(1000, "")
				}
				var broken *wsconn.ProtocolError
				_, _, err := c.Read()
				if bad := errors.As(err, &broken) && broken.Code == 1007; bad != test.bad {
					t.Errorf("Read = %v", err)
				}
			})
		})
	}
}
