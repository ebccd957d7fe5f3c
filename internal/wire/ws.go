package wire

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Opcodes of frames (RFC 6455, 5.2), and the bit that marks a compressed message (RFC 7692, 6).
const (
	OpText   byte = 0x1
	OpBinary byte = 0x2
	OpClose  byte = 0x8
	OpPing   byte = 0x9
	OpPong   byte = 0xA

	OpCompressed byte = 0x40 // RSV1: or-ed to OpText or OpBinary
)

// AppendWS appends r as one unmasked frame for a WebSocket that speaks no subprotocol: a binary frame with Data if Binary is set,
// else a text frame. A text frame is always valid UTF-8, since a browser fails the whole connection over one that is not.
// A Gap is a text frame with its GapLine.
func AppendWS(dst []byte, r *Record) []byte {
	switch {
	case r.Gap != nil:
		start := len(dst)
		return endFrame(AppendGapLine(startFrame(dst), r.Gap), start)
	case r.Binary:
		return AppendFrame(dst, OpBinary, r.Data)
	case utf8.Valid(r.Data):
		return AppendFrame(dst, OpText, r.Data)
	}
	start := len(dst)
	return endFrame(appendValid(startFrame(dst), r.Data), start)
}

// AppendWSEnvelope appends r as one text frame that holds what AppendEnvelope appends.
func AppendWSEnvelope(dst []byte, r *Record) []byte {
	start := len(dst)
	return endFrame(AppendEnvelope(startFrame(dst), r), start)
}

// AppendFrame appends one unmasked, final frame, as a server sends it. It panics if op has a bit beyond an opcode and OpCompressed,
// and if a control frame's payload is longer than the 125 bytes that RFC 6455, 5.5 allows.
func AppendFrame(dst []byte, op byte, payload []byte) []byte {
	if op&^(0xF|OpCompressed) != 0 {
		panic(fmt.Sprintf("wire: %#x is not an opcode", op))
	}
	if op&0x8 != 0 && len(payload) > 125 {
		panic(fmt.Sprintf("wire: control frame %#x of %d bytes, at most 125 are allowed", op, len(payload)))
	}
	return append(appendFrameHeader(dst, op, len(payload)), payload...)
}

func appendFrameHeader(dst []byte, op byte, n int) []byte {
	const final = 0x80
	switch {
	case n <= 125:
		return append(dst, final|op, byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, final|op, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, final|op, 127), uint64(n))
	}
}

// frameRoom is what startFrame leaves free: the header of a payload of 126 to 65535 bytes, the common one. A payload of another
// size is moved when it is known.
const frameRoom = 4

// startFrame leaves room in dst for the header of a frame whose length is not known yet; its payload is to be appended.
func startFrame(dst []byte) []byte { return append(dst, make([]byte, frameRoom)...) }

// endFrame turns what was appended since startFrame, when dst was start bytes long, into a text frame.
func endFrame(dst []byte, start int) []byte {
	var room [10]byte
	payload := len(dst) - start - frameRoom
	header := appendFrameHeader(room[:0], OpText, payload)
	if len(header) != frameRoom {
		dst = append(dst, header...) // only to have room: the move overwrites it
		copy(dst[start+len(header):], dst[start+frameRoom:start+frameRoom+payload])
	}
	copy(dst[start:], header)
	return dst[:start+len(header)+payload]
}
