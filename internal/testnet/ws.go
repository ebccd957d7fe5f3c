package testnet

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"unicode/utf8"
)

// The opcodes of RFC 6455, section 5.2.
const (
	OpContinuation byte = 0
	OpText         byte = 1
	OpBinary       byte = 2
	OpClose        byte = 8
	OpPing         byte = 9
	OpPong         byte = 10
)

// Fin is the bit of a frame's first byte that marks the last frame of a message; RSV1 marks a compressed one.
const (
	Fin  byte = 0x80
	RSV1 byte = 0x40
)

const maxFrame = 64 << 20 // a test that gets a larger frame has gone wrong

// WS is a WebSocket client that hides no frame. It sends whatever the test wants, right or wrong, and is strict about what it
// receives: its ReadFrame fails where RFC 6455 tells a client to fail the connection.
//
// One goroutine may read while another writes.
type WS struct {
	Conn     net.Conn
	Response *http.Response // of the handshake
	Deflate  bool           // permessage-deflate was negotiated: RSV1 may mark a message, whose bytes are then left as they are

	br      *bufio.Reader
	message byte   // read side: opcode of the message that is under way, 0 for none
	raw     bool   // read side: that message is compressed
	text    []byte // read side: an unfinished rune at the end of the last text frame
	closed  bool   // read side: a Close frame has come
}

// A HandshakeError is a response other than 101. Its Body has been read and is there to be read again.
type HandshakeError struct {
	Response *http.Response
	Body     string
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("testnet: the server answered the handshake with %s: %s", e.Response.Status, strings.TrimSpace(e.Body))
}

// A ClosedError is the server's Close frame, as ReadMessage reports it. Code is 1005 if the frame had none.
type ClosedError struct {
	Code   int
	Reason string
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("testnet: the server closed with %d %q", e.Code, e.Reason)
}

// NewWS performs the handshake over conn, which may be any connection. On failure it closes conn.
func NewWS(conn net.Conn, host, path string, header http.Header) (*WS, *http.Response, error) {
	request, key := Handshake(host, path, header)
	if _, err := conn.Write(request); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("testnet: write the handshake: %w", err)
	}
	return ReadHandshake(conn, key)
}

// Handshake returns the bytes of an upgrade request and the key in it, for tests that send frames in the same packet.
// Fields in header replace those of the same name.
func Handshake(host, path string, header http.Header) (request []byte, key string) {
	var nonce [16]byte
	rand.Read(nonce[:])
	key = base64.StdEncoding.EncodeToString(nonce[:])
	h := http.Header{
		"Connection":            {"Upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {key},
	}
	for name, values := range header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	h.Write(&b)
	b.WriteString("\r\n")
	return []byte(b.String()), key
}

// ReadHandshake reads the response to a request that Handshake made. On failure it closes conn.
func ReadHandshake(conn net.Conn, key string) (*WS, *http.Response, error) {
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("testnet: read the handshake: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		resp.Body = io.NopCloser(strings.NewReader(string(body)))
		conn.Close()
		return nil, resp, &HandshakeError{resp, string(body)}
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	switch accept := base64.StdEncoding.EncodeToString(sum[:]); {
	case !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket"):
		err = errors.New("testnet: the 101 has no Upgrade: websocket")
	case !strings.EqualFold(resp.Header.Get("Connection"), "upgrade"):
		err = errors.New("testnet: the 101 has no Connection: Upgrade")
	case resp.Header.Get("Sec-Websocket-Accept") != accept:
		err = errors.New("testnet: the 101 has a wrong Sec-WebSocket-Accept")
	}
	if err != nil {
		conn.Close()
		return nil, resp, err
	}
	return &WS{Conn: conn, Response: resp, br: br}, resp, nil
}

// Subprotocol returns what the server chose.
func (ws *WS) Subprotocol() string { return ws.Response.Header.Get("Sec-Websocket-Protocol") }

// Close closes the connection without a Close frame.
func (ws *WS) Close() error { return ws.Conn.Close() }

// AppendFrame appends a frame to dst: first holds Fin, the RSV bits and the opcode. The payload is masked if masked is set.
func AppendFrame(dst []byte, first byte, masked bool, payload []byte) []byte {
	var mask byte
	if masked {
		mask = 0x80
	}
	dst = append(dst, first)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, mask|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, mask|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, mask|127), uint64(n))
	}
	if !masked {
		return append(dst, payload...)
	}
	var key [4]byte
	rand.Read(key[:])
	dst = append(dst, key[:]...)
	for i, b := range payload {
		dst = append(dst, b^key[i%4])
	}
	return dst
}

// WriteFrame sends one masked frame.
func (ws *WS) WriteFrame(fin bool, op byte, payload []byte) error {
	if fin {
		op |= Fin
	}
	_, err := ws.Conn.Write(AppendFrame(nil, op, true, payload))
	return err
}

// WriteText sends a text message in one frame.
func (ws *WS) WriteText(s string) error { return ws.WriteFrame(true, OpText, []byte(s)) }

// WriteClose sends a Close frame; with code 1005 one without a payload.
func (ws *WS) WriteClose(code int, reason string) error {
	var payload []byte
	if code != 1005 {
		payload = append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
	}
	return ws.WriteFrame(true, OpClose, payload)
}

// ReadFrame returns the next frame as it came. After a Close frame only the end of the connection may come.
func (ws *WS) ReadFrame() (op byte, payload []byte, err error) {
	_, op, payload, err = ws.readFrame()
	return op, payload, err
}

func (ws *WS) readFrame() (fin bool, op byte, payload []byte, err error) {
	first, err := ws.br.ReadByte()
	if err != nil {
		return false, 0, nil, err
	}
	fin, op = first&Fin != 0, first&0xf
	if err := ws.checkFirst(first); err != nil {
		return fin, op, nil, err
	}
	size, err := ws.readLength(op)
	if err != nil {
		return fin, op, nil, err
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(ws.br, payload); err != nil {
		return fin, op, nil, fmt.Errorf("testnet: a frame of %d bytes ends early: %w", size, io.ErrUnexpectedEOF)
	}
	return fin, op, payload, ws.checkPayload(fin, op, payload)
}

// checkFirst checks a frame's first byte against what may come now, and notes the message that it begins.
func (ws *WS) checkFirst(first byte) error {
	fin, op := first&Fin != 0, first&0xf
	control := op >= 8
	switch {
	case ws.closed:
		return fmt.Errorf("testnet: a frame with opcode %d came after the Close frame", op)
	case first&0x30 != 0, first&RSV1 != 0 && (!ws.Deflate || control || op == OpContinuation):
		return fmt.Errorf("testnet: reserved bits are set in a frame's first byte %#x", first)
	case op > OpBinary && !control, op > OpPong:
		return fmt.Errorf("testnet: reserved opcode %d", op)
	case control && !fin:
		return fmt.Errorf("testnet: a control frame with opcode %d is fragmented", op)
	case op == OpContinuation && ws.message == 0:
		return errors.New("testnet: a continuation continues nothing")
	case (op == OpText || op == OpBinary) && ws.message != 0:
		return errors.New("testnet: a message begins inside another one")
	}
	if op == OpText || op == OpBinary {
		ws.message, ws.raw = op, first&RSV1 != 0
	}
	return nil
}

func (ws *WS) readLength(op byte) (uint64, error) {
	second, err := ws.br.ReadByte()
	if err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	size, least, width := uint64(second&0x7f), uint64(0), 0
	switch size {
	case 126:
		least, width = 126, 2
	case 127:
		least, width = 1<<16, 8
	}
	if width > 0 {
		var wide [8]byte
		if _, err := io.ReadFull(ws.br, wide[8-width:]); err != nil {
			return 0, io.ErrUnexpectedEOF
		}
		size = binary.BigEndian.Uint64(wide[:])
	}
	switch {
	case second&0x80 != 0:
		return 0, errors.New("testnet: a frame from the server is masked")
	case size < least:
		return 0, fmt.Errorf("testnet: the length %d is not written in its shortest form", size)
	case op >= 8 && size > 125:
		return 0, fmt.Errorf("testnet: a control frame has %d bytes", size)
	case size > maxFrame:
		return 0, fmt.Errorf("testnet: a frame has %d bytes", size)
	}
	return size, nil
}

func (ws *WS) checkPayload(fin bool, op byte, payload []byte) error {
	switch op {
	case OpPing, OpPong:
		return nil
	case OpClose:
		ws.closed = true
		return checkClose(payload)
	}
	if ws.message == OpText && !ws.raw {
		if err := ws.checkText(fin, payload); err != nil {
			return err
		}
	}
	if fin {
		ws.message, ws.text = 0, nil
	}
	return nil
}

// checkText checks UTF-8 across the frames of a message.
func (ws *WS) checkText(fin bool, payload []byte) error {
	text := append(ws.text, payload...)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			if !fin && !utf8.FullRune(text) {
				break
			}
			return fmt.Errorf("testnet: a text message is not valid UTF-8 at %q", text[:min(len(text), 8)])
		}
		text = text[n:]
	}
	ws.text = append([]byte(nil), text...)
	return nil
}

func checkClose(payload []byte) error {
	if len(payload) == 0 {
		return nil
	}
	if len(payload) == 1 {
		return errors.New("testnet: a Close frame has half a code")
	}
	switch code := binary.BigEndian.Uint16(payload); {
	case code < 1000, code > 4999, code >= 1004 && code <= 1006, code > 1014 && code < 3000:
		return fmt.Errorf("testnet: a Close frame has the code %d", code)
	}
	if !utf8.Valid(payload[2:]) {
		return fmt.Errorf("testnet: the reason %q of a Close frame is not valid UTF-8", payload[2:])
	}
	return nil
}

// ReadMessage returns the next data message, put together from its frames. It answers pings, skips pongs, and returns a Close frame
// as a *ClosedError after echoing it.
func (ws *WS) ReadMessage() (op byte, data []byte, err error) {
	for {
		fin, frame, payload, err := ws.readFrame()
		if err != nil {
			return 0, nil, err
		}
		switch frame {
		case OpPong:
			continue
		case OpPing:
			if err := ws.WriteFrame(true, OpPong, payload); err != nil {
				return 0, nil, err
			}
			continue
		case OpClose:
			ws.WriteFrame(true, OpClose, payload) // The server may be gone already, and the Close is what counts.
			if len(payload) == 0 {
				return 0, nil, &ClosedError{Code: 1005}
			}
			return 0, nil, &ClosedError{int(binary.BigEndian.Uint16(payload)), string(payload[2:])}
		case OpText, OpBinary:
			op = frame
		}
		if data = append(data, payload...); fin {
			return op, data, nil
		}
	}
}
