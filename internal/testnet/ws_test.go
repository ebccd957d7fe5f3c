package testnet_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

// upgrade answers the handshake as RFC 6455 says and returns the connection.
func upgrade(w http.ResponseWriter, r *http.Request) io.ReadWriteCloser {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
		base64.StdEncoding.EncodeToString(sum[:])+"\r\nSec-WebSocket-Protocol: p\r\n\r\n")
	return struct {
		io.Reader
		io.WriteCloser
	}{brw.Reader, conn}
}

func TestDialWS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "topic=app" || r.Header.Get("Origin") != "http://tailcast.test" || r.Host != "tailcast.test" {
				http.Error(w, "not so", http.StatusForbidden)
				return
			}
			c := upgrade(w, r)
			defer c.Close()
			head := make([]byte, 6)
			io.ReadFull(c, head)
			body := make([]byte, head[1]&0x7f)
			io.ReadFull(c, body)
			for i := range body {
				body[i] ^= head[2+i%4]
			}
			c.Write(testnet.AppendFrame(nil, testnet.OpText, false, body[:1]))
			c.Write(testnet.AppendFrame(nil, testnet.Fin|testnet.OpPing, false, []byte("?")))
			c.Write(testnet.AppendFrame(nil, testnet.Fin, false, body[1:]))
			io.ReadFull(c, make([]byte, 7)) // the pong
			c.Write(testnet.AppendFrame(nil, testnet.Fin|testnet.OpClose, false, []byte("\x03\xe9bye")))
		}))
		ws, err := testnet.DialWS(t.Context(), l, "/logs?topic=app", http.Header{"Origin": {"http://tailcast.test"}})
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		if ws.Subprotocol() != "p" {
			t.Errorf("Subprotocol = %q", ws.Subprotocol())
		}
		ws.WriteText("grüße")
		if op, data, err := ws.ReadMessage(); op != testnet.OpText || string(data) != "grüße" || err != nil {
			t.Errorf("ReadMessage = %d, %q, %v", op, data, err)
		}
		var closed *testnet.ClosedError
		if _, _, err := ws.ReadMessage(); !errors.As(err, &closed) || closed.Code != 1001 || closed.Reason != "bye" {
			t.Errorf("ReadMessage = %v, want the Close", err)
		}
		if _, _, err := ws.ReadFrame(); err != io.EOF {
			t.Errorf("ReadFrame at the end = %v", err)
		}

		_, err = testnet.DialWS(t.Context(), l, "/other", nil)
		var refused *testnet.HandshakeError
		if !errors.As(err, &refused) || refused.Response.StatusCode != http.StatusForbidden || refused.Body != "not so\n" {
			t.Errorf("a refused handshake: %v", err)
		}
	})
}

func TestDialWSHonoursItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		l := testnet.Listen() // nobody accepts
		if _, err := testnet.DialWS(ctx, l, "/", nil); err != context.DeadlineExceeded {
			t.Errorf("DialWS = %v", err)
		}
	})
}

// A server that breaks the protocol must not pass any test: each of these frames is an error to the client.
func TestTheClientIsStrict(t *testing.T) {
	frame := func(first byte, payload string) []byte {
		return testnet.AppendFrame(nil, first, false, []byte(payload))
	}
	const fin, text, binary, cont = testnet.Fin, testnet.OpText, testnet.OpBinary, testnet.OpContinuation
	long := strings.Repeat("x", 126)
	for name, bytes := range map[string][]byte{
		"a masked frame":               testnet.AppendFrame(nil, fin|text, true, []byte("x")),
		"RSV1 without a negotiation":   frame(fin|testnet.RSV1|text, "x"),
		"RSV2":                         frame(fin|0x20|text, "x"),
		"RSV3":                         frame(fin|0x10|text, "x"),
		"a reserved data opcode":       frame(fin|3, "x"),
		"a reserved control opcode":    frame(fin|11, "x"),
		"a fragmented ping":            frame(testnet.OpPing, "x"),
		"a ping of 126 bytes":          frame(fin|testnet.OpPing, long),
		"a stray continuation":         frame(fin|cont, "x"),
		"a message inside a message":   append(frame(text, "x"), frame(fin|text, "x")...),
		"text that is not UTF-8":       frame(fin|text, "a\xff"),
		"text that ends inside a rune": append(frame(text, "a\xc3"), frame(fin|cont, "")...),
		"text broken over two frames":  append(frame(text, "a\xc3"), frame(fin|cont, "a")...),
		"16 bits for a short length":   {fin | binary, 126, 0, 1, 'x'},
		"64 bits for a short length":   {fin | binary, 127, 0, 0, 0, 0, 0, 0, 0, 1, 'x'},
		"an absurd length":             {fin | binary, 127, 1, 0, 0, 0, 0, 0, 0, 0},
		"half a close code":            frame(fin|testnet.OpClose, "\x03"),
		"close code 1005":              frame(fin|testnet.OpClose, "\x03\xed"),
		"close code 999":               frame(fin|testnet.OpClose, "\x03\xe7"),
		"a close reason not in UTF-8":  frame(fin|testnet.OpClose, "\x03\xe8\xff"),
		"a frame after Close":          append(frame(fin|testnet.OpClose, ""), frame(fin|testnet.OpClose, "")...),
		"a frame cut short":            frame(fin|binary, "abc")[:4],
		"a length cut short":           {fin | binary, 126, 0},
		"a header cut short":           {fin | binary},
	} {
		t.Run(name, func(t *testing.T) {
			ws := receive(t, bytes)
			var err error
			for err == nil {
				_, _, err = ws.ReadFrame()
			}
			if err == io.EOF {
				t.Error("the client accepted it")
			}
		})
	}
	t.Run("and yet accepts what is right", func(t *testing.T) {
		var good []byte
		for _, f := range [][]byte{
			frame(fin|text, ""), frame(fin|text, "grüße"), frame(text, "gr\xc3"), frame(fin|testnet.OpPing, long[:125]), frame(cont, ""),
			frame(fin|cont, "\xbc"), frame(fin|binary, "\xff"), frame(fin|binary, strings.Repeat("x", 70_000)), frame(fin|binary, long),
			frame(fin|testnet.OpPong, ""), frame(fin|testnet.OpClose, "\x0f\xa0own code"),
		} {
			good = append(good, f...)
		}
		ws := receive(t, good)
		for n := 0; ; n++ {
			if _, _, err := ws.ReadFrame(); err != nil {
				if err != io.EOF || n != 11 {
					t.Errorf("after %d frames: %v", n, err)
				}
				return
			}
		}
	})
	t.Run("and leaves compressed messages alone where they were negotiated", func(t *testing.T) {
		ws := receive(t, append(frame(testnet.RSV1|text, "\xff"), frame(fin|cont, "\xfe")...))
		ws.Deflate = true
		if _, data, err := ws.ReadMessage(); string(data) != "\xff\xfe" || err != nil {
			t.Errorf("ReadMessage = %q, %v", data, err)
		}
	})
}

func TestReadInflated(t *testing.T) {
	frame := func(first byte, payload string) []byte {
		return testnet.AppendFrame(nil, first, false, []byte(payload))
	}
	const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00" // RFC 7692, 7.2.3.1
	const zeros = "\x62\x60\xa0\x3d\x00\x00"     // 100 of them
	first := testnet.Fin | testnet.RSV1
	for name, test := range map[string]struct {
		frames     []byte
		want       string
		compressed bool
		wrong      bool
	}{
		"plain":                             {frame(testnet.Fin|testnet.OpText, "hello"), "hello", false, false},
		"compressed":                        {frame(first|testnet.OpBinary, zeros), strings.Repeat("\x00", 100), true, false},
		"in fragments":                      {append(frame(testnet.RSV1|testnet.OpText, zeros[:2]), frame(testnet.Fin, zeros[2:])...), strings.Repeat("\x00", 100), true, false},
		"compressed to more than it was":    {frame(first|testnet.OpText, hello), "", true, true},
		"no deflate":                        {frame(first|testnet.OpText, "\xff\xff\xff"), "", true, true},
		"with a last block, and more":       {frame(first|testnet.OpText, "\x03\x00more"), "", true, true},
		"text that is not UTF-8 when it is": {frame(first|testnet.OpText, "\xfa\xff\x9f\xf6\x00\x00"), "", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			ws := receive(t, test.frames)
			ws.Deflate = true
			_, data, compressed, err := ws.ReadInflated()
			if string(data) != test.want || compressed != test.compressed || (err != nil) != test.wrong {
				t.Errorf("ReadInflated = %q, compressed %v, %v", data, compressed, err)
			}
		})
	}
}

// receive returns a client to whom a server sends exactly these bytes.
func receive(t *testing.T, frames []byte) *testnet.WS {
	t.Helper()
	client, server := testnet.Pipe(1 << 20)
	go func() {
		defer server.Close()
		r, err := http.ReadRequest(bufio.NewReader(server))
		if err != nil {
			return
		}
		upgrade(&hijackable{server}, r)
		server.Write(frames)
	}()
	ws, _, err := testnet.NewWS(client, "h", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	return ws
}

func TestNewWSRefusesABadHandshake(t *testing.T) {
	for name, response := range map[string]string{
		"no HTTP":       "hello\r\n\r\n",
		"a wrong key":   "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"no upgrade":    "HTTP/1.1 101 x\r\nConnection: Upgrade\r\n\r\n",
		"a 200":         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
		"a dead server": "",
	} {
		t.Run(name, func(t *testing.T) {
			client, server := testnet.Pipe(0)
			io.WriteString(server, response)
			server.CloseWrite()
			ws, _, err := testnet.NewWS(client, "h", "/", nil)
			if err == nil || ws != nil {
				t.Errorf("NewWS = %v, %v", ws, err)
			}
			if _, err := client.Write([]byte("x")); err == nil {
				t.Error("the connection is still open")
			}
		})
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte("\x81\x02hi\x89\x01?\x88\x02\x03\xe8"))
	f.Add([]byte("\x01\x01\xc3\x80\x01\xbc"))
	f.Add([]byte("\x82\x7e\x00\x7e"))
	f.Fuzz(func(t *testing.T, frames []byte) {
		ws := receive(t, frames)
		var sent bytes.Buffer
		for {
			op, payload, err := ws.ReadFrame()
			if err != nil {
				break
			}
			sent.Write(payload)
			if op > testnet.OpPong {
				t.Fatalf("opcode %d", op)
			}
		}
		if sent.Len() > len(frames) {
			t.Fatalf("%d bytes of payload from %d bytes", sent.Len(), len(frames))
		}
	})
}

// hijackable is a ResponseWriter for upgrade, over a bare connection.
type hijackable struct{ conn *testnet.Conn }

func (h *hijackable) Header() http.Header         { return nil }
func (h *hijackable) Write(p []byte) (int, error) { return h.conn.Write(p) }
func (h *hijackable) WriteHeader(int)             {}
func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}
