// Package wsconn is the server's side of a WebSocket's handshake and reading. It is the only user of nhooyr.io/websocket.
//
// The library does the handshake, and this package reads (RFC 6455, and messages compressed after RFC 7692). Nothing here writes to the
// socket after that: the control frames that are due come out of Options.Control, for the one owner of the write side to send in its
// own time. The reading side belongs to this package, the write side and the closing of the socket to the caller.
package wsconn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"
)

// DefaultReadLimit is the largest message in bytes that Read accepts unless Options.ReadLimit says otherwise.
const DefaultReadLimit = 64 << 10

// Options configure a Conn.
type Options struct {
	// Subprotocols are those that the server speaks, the preferred one first.
	Subprotocols []string
	// ReadLimit is the largest payload of a message in bytes. A larger one ends the connection with 1009. 0 means DefaultReadLimit.
	ReadLimit int64
	// Compress lets clients that offer it send and get compressed messages: permessage-deflate (RFC 7692), without context takeover on
	// either side and with the full window for what they get. Conn.Compressed tells whether one has. ReadLimit counts inflated bytes.
	Compress bool
	// Control is called, during Read and on its goroutine, for each control frame that is due to be sent: a Pong for a Ping,
	// one Close at most. The payload is only valid during the call. It must not block, nor call Read, Release or Linger.
	Control func(op Opcode, payload []byte)
}

// Accept performs the server's handshake on a request and takes its connection over. On failure it has answered the request with a
// sentence that says why.
//
// It works behind any middleware that http.ResponseController can see through. When it returns a Conn, the 101 has been written
// to the socket, past the middleware: many a writer holds a status back until there is a body, and the client would wait forever.
// The caller must call Release on the Conn and close its NetConn.
func Accept(w http.ResponseWriter, r *http.Request, o Options) (*Conn, error) {
	if r.ProtoMajor > 1 {
		err := fmt.Errorf("a WebSocket needs HTTP/1.1 here, and this request came over %s", r.Proto)
		http.Error(w, err.Error(), http.StatusHTTPVersionNotSupported)
		return nil, err
	}
	if err := curtailed(r); err != nil {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, err.Error(), http.StatusUpgradeRequired)
		return nil, err
	}
	if in := innermost(w); in != nil {
		err := fmt.Errorf("a WebSocket needs the connection itself, and %T hides it: it has neither a Hijack nor an Unwrap method", in)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, err
	}
	h := &handshake{w: w}
	compressed := false
	if o.Compress {
		h.extensions, compressed = acceptDeflate(r.Header["Sec-Websocket-Extensions"])
	}
	subprotocol, err := libraryAccept(h, r, o.Subprotocols)
	if err != nil {
		if h.conn != nil {
			h.conn.Close()
		}
		return nil, err
	}
	c := newConn(h.conn, h.ahead, o)
	c.subprotocol, c.inflate = subprotocol, compressed
	return c, nil
}

// curtailed says what a handshake lacks that a proxy has not passed on. They drop both headers unless they are told otherwise (RFC 9110,
// 7.6.1), and some speak HTTP/1.0 to the server.
func curtailed(r *http.Request) error {
	var lacks []string
	if !r.ProtoAtLeast(1, 1) {
		lacks = append(lacks, "over "+r.Proto)
	}
	for _, h := range [][2]string{{"Connection", "Upgrade"}, {"Upgrade", "websocket"}} {
		if !names(r.Header[h[0]], h[1]) {
			lacks = append(lacks, "without the header "+h[0]+": "+h[1])
		}
	}
	if lacks == nil {
		return nil
	}
	return fmt.Errorf("The request for a WebSocket came %s. A proxy in front must speak HTTP/1.1 to the server and pass the headers Connection and Upgrade on.",
		strings.Join(lacks, ", "))
}

// names reports whether a comma-separated header has a token in it.
func names(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// innermost returns nil if w leads to an http.Hijacker, else the last writer on the way, the one at fault. A Hijack outside of it
// would not help: it asks the writer inside.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	w = last(w)
	if _, ok := w.(http.Hijacker); ok {
		return nil
	}
	return w
}

// last is the writer that w and its like are wrapped around.
func last(w http.ResponseWriter) http.ResponseWriter {
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = u.Unwrap()
	}
}

// handshake is the ResponseWriter that the library gets. A refusal goes on to the caller's writer; the 101 waits for the connection.
type handshake struct {
	w          http.ResponseWriter
	extensions string // those that are agreed on; "" for none
	switched   bool   // the library has given its 101: what it says after that is not for the client

	conn  net.Conn // once it is taken
	ahead []byte   // that the server had read with the handshake
}

func (h *handshake) Header() http.Header { return h.w.Header() }

func (h *handshake) Write(p []byte) (int, error) {
	if h.switched {
		return 0, http.ErrBodyNotAllowed
	}
	return h.w.Write(p)
}

func (h *handshake) WriteHeader(code int) {
	if h.switched {
		return
	}
	if h.switched = code == http.StatusSwitchingProtocols; !h.switched {
		h.w.WriteHeader(code)
	}
}

// Hijack takes the connection from the server, writes the 101, and gives the library another one in its place.
func (h *handshake) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := hijack(h.w)
	if err != nil {
		for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions"} {
			h.Header().Del(name)
		}
		err = fmt.Errorf("a WebSocket needs the connection itself, and %T does not give it: %w", last(h.w), err)
		http.Error(h.w, err.Error(), http.StatusInternalServerError)
		return nil, nil, err
	}
	h.conn = conn
	if brw != nil {
		h.ahead = drain(brw)
	}
	if h.extensions != "" {
		h.Header().Set("Sec-Websocket-Extensions", h.extensions) // the library's own answer is incomplete: see acceptDeflate
	}
	if err := writeSwitch(conn, h.Header()); err != nil {
		return nil, nil, fmt.Errorf("write the 101: %w", err)
	}
	return nowhere{}, bufio.NewReadWriter(bufio.NewReaderSize(eof{}, 1), bufio.NewWriterSize(io.Discard, 1)), nil
}

// nowhere is the connection that the library gets: its part is over with the handshake.
type nowhere struct{ net.Conn }

func (nowhere) Close() error { return nil }

// switchTime is how long the 101 may take: the socket has room for it, unless the client reads nothing of what it asked for before.
const switchTime = 10 * time.Second

func writeSwitch(conn net.Conn, header http.Header) error {
	header = header.Clone()
	header.Del("Content-Length")
	header.Del("Transfer-Encoding")
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = header.Write(&b) // it escapes line ends; a Buffer does not fail
	b.WriteString("\r\n")
	if err := conn.SetWriteDeadline(time.Now().Add(switchTime)); err != nil {
		return err
	}
	if _, err := conn.Write(b.Bytes()); err != nil {
		return err
	}
	return conn.SetWriteDeadline(time.Time{})
}

// hijack is http.ResponseController's Hijack. Where a wrapper has a Hijack method that fails, it tries the writer inside: many a
// wrapper asserts http.Hijacker on a writer that only has Unwrap.
func hijack(w http.ResponseWriter) (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := hijackOne(w)
	for err != nil {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil, nil, err
		}
		w = u.Unwrap()
		var inner error
		if conn, brw, inner = hijackOne(w); inner == nil {
			return conn, brw, nil
		} else if !errors.Is(inner, http.ErrNotSupported) {
			err = inner
		}
	}
	return conn, brw, nil
}

// hijackOne makes an error of the panic of a wrapper that is sure of the writer inside, as gin's is.
func hijackOne(w http.ResponseWriter) (conn net.Conn, brw *bufio.ReadWriter, err error) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *runtime.TypeAssertionError:
			err = v
		default:
			panic(v)
		}
	}()
	return http.NewResponseController(w).Hijack()
}

// drain returns a copy of what the server has read ahead of the handshake, sends what it has not flushed, and frees both buffers.
//
// Freed they must be by force. net/http's connection goes on to hold the reader and the writer, 4 KiB each, for as long as the
// handler runs, and that is the WebSocket's life. After Hijack they are ours; so put tiny ones in their place.
func drain(brw *bufio.ReadWriter) (ahead []byte) {
	if brw.Writer != nil {
		brw.Writer.Flush() // An error will be back at the first write.
		*brw.Writer = *bufio.NewWriterSize(io.Discard, 1)
	}
	if brw.Reader != nil {
		b, _ := brw.Reader.Peek(brw.Reader.Buffered())
		ahead = append(ahead, b...)
		*brw.Reader = *bufio.NewReaderSize(eof{}, 1)
	}
	return ahead
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }
