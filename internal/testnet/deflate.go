package testnet

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// ReadInflated is ReadMessage for a WebSocket with Deflate: it inflates what is compressed, each message by itself and with the full
// window, and tells whether it was. It fails where a client that has negotiated that would, and where compressing has saved nothing.
func (ws *WS) ReadInflated() (op byte, data []byte, compressed bool, err error) {
	op, data, err = ws.ReadMessage()
	if err != nil || !ws.raw {
		return op, data, false, err
	}
	in := bytes.NewReader(append(bytes.Clone(data), "\x00\x00\xff\xff"...)) // RFC 7692, 7.2.2
	out, err := io.ReadAll(io.LimitReader(flate.NewReader(in), maxFrame))
	switch {
	case !errors.Is(err, io.ErrUnexpectedEOF) || in.Len() > 0: // no block is marked as the last one
		return op, nil, true, fmt.Errorf("testnet: a compressed message of %d bytes, of which %d are left over after %d inflated: %v", len(data), in.Len(), len(out), err)
	case len(out) <= len(data):
		return op, nil, true, fmt.Errorf("testnet: a message of %d bytes was compressed to %d", len(out), len(data))
	case op == OpText && !utf8.Valid(out):
		return op, nil, true, errors.New("testnet: a compressed text message is not valid UTF-8")
	}
	return op, out, true, nil
}
