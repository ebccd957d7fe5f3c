package wsconn

import (
	"encoding/binary"
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

// dissector takes apart the frames that the library writes, however it splits them into writes, and drops all but whole control frames.
type dissector struct {
	part []byte // of a frame's header, or of a control frame; shorter than the whole of it
	skip uint64 // bytes of a data frame's payload still to come
}

func (d *dissector) feed(p []byte, emit func(op Opcode, payload []byte)) {
	for {
		n := min(d.skip, uint64(len(p)))
		d.skip -= n
		if p = p[n:]; len(p) == 0 {
			return
		}
		// A control frame usually comes whole and is taken from p as it is.
		frame, had := p, len(d.part)
		if had > 0 {
			frame = append(d.part, p[:min(len(p), maxHeader+maxControl)]...)
		}
		header, size, ok := parseHeader(frame)
		if !ok {
			d.part = append([]byte(nil), frame...)
			return
		}
		control := frame[0]&0x8f >= 0x88 && size <= maxControl && frame[1]&0x80 == 0
		if !control {
			d.part, d.skip, p = nil, size, p[header-had:]
			continue
		}
		whole := header + int(size)
		if len(frame) < whole {
			d.part = append([]byte(nil), frame...)
			return
		}
		d.part, p = nil, p[whole-had:]
		emit(Opcode(frame[0]&0xf), frame[header:whole])
	}
}

// parseHeader returns the length of a frame's header and of its payload, if the header is there.
func parseHeader(frame []byte) (header int, size uint64, ok bool) {
	if len(frame) < 2 {
		return 0, 0, false
	}
	header, size = 2, uint64(frame[1]&0x7f)
	switch size {
	case 126:
		header += 2
	case 127:
		header += 8
	}
	wide := header
	if frame[1]&0x80 != 0 {
		header += 4
	}
	if len(frame) < header {
		return 0, 0, false
	}
	switch wide {
	case 4:
		size = uint64(binary.BigEndian.Uint16(frame[2:]))
	case 10:
		size = binary.BigEndian.Uint64(frame[2:])
	}
	return header, size, true
}

// lengths follows the frames of the client as they come, in whatever pieces, from header to header.
type lengths struct {
	head [maxHeader]byte
	have int    // bytes of a header that has not ended
	skip uint64 // bytes of payload still to come
}

// feed returns how many bytes of p may go on, and false if the frame that comes next has a length that is not written in its
// shortest form (RFC 6455, 5.2).
func (l *lengths) feed(p []byte) (n int, ok bool) {
	for n < len(p) {
		if l.skip > 0 {
			pass := min(l.skip, uint64(len(p)-n))
			l.skip -= pass
			n += int(pass)
			continue
		}
		l.head[l.have] = p[n]
		l.have++
		if _, size, whole := parseHeader(l.head[:l.have]); whole {
			if wide := l.head[1] & 0x7f; wide == 126 && size < 126 || wide == 127 && size < 1<<16 {
				return n, false // without its last byte the header is of no use to the library
			}
			l.have, l.skip = 0, size
		}
		n++
	}
	return n, true
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
