package wsconn_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"nhooyr.io/websocket"

	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/internal/wsconn"
)

// A verdict is what a reader has made of a stream.
type verdict struct {
	messages, pongs []string
	code            int  // of the Close frame that the peer gets; 0 for none
	stricter        bool // it ends for a reason that the library does not know, or not yet
	early           bool // of the library: it ends for a length that it looks at before the mask has come
}

// libraryConn is a script that keeps what the library writes.
type libraryConn struct {
	*script
	wrote []byte
}

func (c *libraryConn) Write(p []byte) (int, error) {
	c.wrote = append(c.wrote, p...)
	return len(p), nil
}
func (c *libraryConn) Close() error                     { return nil }
func (c *libraryConn) SetDeadline(time.Time) error      { return nil }
func (c *libraryConn) SetWriteDeadline(time.Time) error { return nil }
func (c *libraryConn) Header() http.Header              { return make(http.Header) }
func (c *libraryConn) WriteHeader(int)                  {}
func (c *libraryConn) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), nil
}

// frames returns the control frames that the library wrote.
func (c *libraryConn) frames(t *testing.T) (pongs []string, code int) {
	for p := c.wrote; len(p) > 0; {
		if len(p) < 2 || p[1] > 125 || len(p) < 2+int(p[1]) {
			t.Fatalf("the library wrote %x", c.wrote)
		}
		payload := p[2 : 2+p[1]]
		switch p[0] {
		case fin | testnet.OpPong:
			pongs = append(pongs, string(payload))
		case fin | testnet.OpClose:
			if code = 1005; len(payload) >= 2 {
				code = int(binary.BigEndian.Uint16(payload))
			}
		}
		p = p[2+len(payload):]
	}
	return pongs, code
}

// byLibrary has the library read a stream.
func byLibrary(t *testing.T, s *script, limit int64) (v verdict) {
	r := httptest.NewRequest("GET", "/", nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(name, value)
	}
	conn := &libraryConn{script: s}
	lib, err := websocket.Accept(conn, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		t.Fatal(err)
	}
	defer lib.CloseNow()
	lib.SetReadLimit(limit)
	for {
		typ, mr, err := lib.Reader(context.Background())
		var data []byte
		if err == nil {
			data, err = io.ReadAll(mr)
			if err == nil && s.ended {
				err = io.EOF // it reports a stream that ends inside a message as if the message were whole
			}
		}
		if err != nil {
			v.pongs, v.code = conn.frames(t)
			v.early = strings.Contains(err.Error(), "negative payload length")
			if v.code == 0 && !s.ended {
				v.code = 1002 // it says nothing to who sends a frame without a mask, or a negative length
			}
			return v
		}
		v.messages = append(v.messages, fmt.Sprintf("message %v %q", typ == websocket.MessageBinary, data))
	}
}

// byReader has Conn read a stream.
func byReader(s *script, limit int64) (v verdict) {
	c := wsconn.NewConn(s, wsconn.Options{ReadLimit: limit, Control: func(op wsconn.Opcode, payload []byte) {
		if op == wsconn.OpPong {
			v.pongs = append(v.pongs, string(payload))
		} else {
			v.code, _ = wsconn.ParseClose(payload)
		}
	}})
	for {
		data, binary, err := c.Read()
		if err != nil {
			var broken *wsconn.ProtocolError
			v.stricter = errors.As(err, &broken) && (broken.Code != 1002 || strings.Contains(broken.Reason, "shortest form")) || v.code == 1007
			return v
		}
		v.messages = append(v.messages, fmt.Sprintf("message %v %q", binary, data))
	}
}

// FuzzAgainstLibrary compares the reader with that of nhooyr.io/websocket, which reads the same stream in the same pieces. They are to
// agree on all messages, pongs, and the code of the Close frame, but for this:
//
//   - a length that is not written in its shortest form is 1002 here, and all right there;
//   - text, and the reason of a Close frame, that is not UTF-8 is 1007 here, and all right there;
//   - a message that is too large is 1009 here with the header that says so, and there when as much has come; a stream may end, or
//     another fault come, before that;
//   - too many fragments are 1008 here, and all right there;
//   - a length of 2^63 or more is 1002 here when the header is there, and there before its mask has come.
//
// So where this reader is stricter, the other one must have come as far at least.
func FuzzAgainstLibrary(f *testing.F) {
	seed(func(s []byte) {
		f.Add([]byte("\x81\x05hello\x01\x01x\x89\x03now\x80\x02yz"), s, []byte{0})
		f.Add([]byte("\x82\x00\x01\x02gr\x00\x01\xc3\x80\x01\xbc"), s, []byte{6, 0, 200})
	})
	const limit = 1000
	f.Fuzz(func(t *testing.T, plan, stream, cuts []byte) {
		stream = append(planned(plan), stream...)
		got, want := byReader(cut(stream, cuts), limit), byLibrary(t, cut(stream, cuts), limit)
		if got.stricter {
			want.code = got.code
			want.messages = want.messages[:min(len(want.messages), len(got.messages))]
			want.pongs = want.pongs[:min(len(want.pongs), len(got.pongs))]
		}
		if want.early && got.code == 0 {
			want.code = 0
		}
		if got.code != want.code || !slices.Equal(got.messages, want.messages) || !slices.Equal(got.pongs, want.pongs) {
			t.Fatalf("stream %x, cut %v:\nhere  %+v\nthere %+v", stream, cuts, got, want)
		}
	})
}
