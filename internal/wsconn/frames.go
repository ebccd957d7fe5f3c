package wsconn

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Opcode is the opcode of a control frame.
type Opcode byte

// The control frames of RFC 6455, section 5.5.
const (
	OpClose Opcode = 8
	OpPing  Opcode = 9
	OpPong  Opcode = 10
)

func (op Opcode) String() string {
	switch op {
	case OpClose:
		return "close"
	case OpPing:
		return "ping"
	case OpPong:
		return "pong"
	}
	return "data"
}

const (
	maxControl = 125 // bytes of a control frame's payload
	maxReason  = maxControl - 2
	maxHeader  = 14
)

// The opcodes of data frames.
const (
	opContinuation Opcode = 0
	opText         Opcode = 1
	opBinary       Opcode = 2
)

func (op Opcode) control() bool { return op >= OpClose }

// The bits of a frame's first two bytes.
const (
	bitFin  = 0x80
	bitRSV1 = 0x40
	bitRSV2 = 0x20
	bitRSV3 = 0x10
	bitMask = 0x80
)

// A frame is the one that is being read.
type frame struct {
	head  [maxHeader]byte
	have  uint8 // bytes of head
	whole bool  // the header is there; what follows is of its frame
	op    Opcode
	key   uint32 // of the mask, for the next byte
	left  int64  // bytes of payload still to come
}

func (f *frame) begun() bool { return f.have > 0 }
func (f *frame) fin() bool   { return f.head[0]&bitFin != 0 }
func (f *frame) rsv() byte   { return f.head[0] & (bitRSV1 | bitRSV2 | bitRSV3) }

// size is how long the header is, as far as what is there of it tells.
func (f *frame) size() uint8 {
	if f.have < 2 {
		return 2
	}
	n := uint8(2)
	switch f.head[1] &^ bitMask {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&bitMask != 0 {
		n += 4
	}
	return n
}

// feed takes from p what is missing of the header, and returns the rest of p.
func (f *frame) feed(p []byte) []byte {
	for f.have < f.size() && len(p) > 0 {
		n := copy(f.head[f.have:f.size()], p)
		f.have += uint8(n)
		p = p[n:]
	}
	f.whole = f.have == f.size()
	return p
}

// parse reads the header that is there. It reports whether the length is written in its shortest form (RFC 6455, 5.2).
func (f *frame) parse() (shortest bool) {
	f.op = Opcode(f.head[0] & 0xf)
	shortest = true
	switch n := f.head[1] &^ bitMask; n {
	case 126:
		f.left = int64(binary.BigEndian.Uint16(f.head[2:]))
		shortest = f.left >= 126
	case 127:
		f.left = int64(binary.BigEndian.Uint64(f.head[2:]))
		shortest = uint64(f.left) >= 1<<16
	default:
		f.left = int64(n)
	}
	if f.masked() {
		f.key = binary.LittleEndian.Uint32(f.head[f.size()-4:])
	}
	return shortest
}

func (f *frame) masked() bool { return f.head[1]&bitMask != 0 }

// end lets the next frame begin.
func (f *frame) end() { f.have, f.whole = 0, false }

// validCode reports whether a Close frame may carry the code (RFC 6455, 7.4, and the registry that it makes).
func validCode(code int) bool {
	switch code {
	case 1004, 1005, 1006:
		return false
	}
	return 1000 <= code && code <= 1014 || 3000 <= code && code <= 4999
}

// codeName is how a code that is not valid is named to the peer that has sent it.
func codeName(code int) string {
	switch code {
	case 1005:
		return "StatusNoStatusRcvd"
	case 1006:
		return "StatusAbnormalClosure"
	case 1015:
		return "StatusTLSHandshake"
	}
	return fmt.Sprintf("StatusCode(%d)", code)
}

// ClosePayload returns the payload of a Close frame. The reason is made valid UTF-8 and cut to 123 bytes between two runes. The codes
// that RFC 6455 keeps off the wire (1005, 1006, 1015) and those below 1000 give an empty payload.
func ClosePayload(code int, reason string) []byte {
	switch {
	case code < 1000, code == 1005, code == 1006, code == 1015, code > 4999:
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), validReason(reason)...)
}

func validReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= maxReason {
		return reason
	}
	end := maxReason
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}

// ParseClose returns what a Close frame's payload says: 1005 if it says nothing.
func ParseClose(payload []byte) (code int, reason string) {
	if len(payload) < 2 {
		return 1005, ""
	}
	return int(binary.BigEndian.Uint16(payload)), string(payload[2:])
}
