package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A checker reads the bytes that a server sends on one connection after the handshake, and checks each message in them.
type checker struct {
	framing framing
	size    int      // of a message
	chatty  bool     // the server's protocol has messages of its own, without one of ours
	next    []uint32 // of each topic: the number that should come
	want    uint32   // messages of each topic
	warm    uint32   // those of them whose latency does not count, the first
	open    int      // topics of which some are missing

	tally *tally
	pongs []byte // to be sent
	whole []byte // of a fragmented message, what has come
	body  []byte // of a chunked response, what has no whole message yet
	chunk int    // bytes left of the chunk that is being read, with the CRLF at its end
}

// A tally is what all checkers of a loop have found.
type tally struct {
	Delivered int64  // messages that were the next of their topic, or later than that
	Skipped   int64  // numbers that were passed over
	Back      int64  // messages with a number that was there before, or was passed over: repeated, or out of order
	Torn      int64  // what is not a message
	Closed    int64  // connections that ended
	Why       string // the first that ended
	lags      histogram
	first     int64 // the earliest time at which one was due
	last      int64 // when a message came last
}

// framing is how messages are embedded in a connection's bytes.
type framing uint8

const (
	frames  framing = iota // of RFC 6455
	chunks                 // of HTTP/1.1; events of SSE in them
	unbound                // a body of HTTP without chunks; events of SSE in it
)

func newChecker(f framing, s *spec, t *tally) *checker {
	c := &checker{framing: f, size: s.Size, chatty: s.chatty(), next: make([]uint32, s.Topics), want: uint32(s.Count), warm: uint32(s.Warm), tally: t}
	if c.want > 0 {
		c.open = s.Topics
	}
	return c
}

// feed reads what has come, at the time now, and returns what is to be put before what comes next.
func (c *checker) feed(b []byte, now int64) (rest []byte, err error) {
	switch c.framing {
	case frames:
		return c.feedFrames(b, now)
	case chunks:
		return c.feedChunks(b, now)
	}
	return c.scan(b, now), nil
}

var errFrame = errors.New("a frame that no server should send")

// Of RFC 6455, 5.2.
const (
	bitFin     = 0x80
	bitsRsv    = 0x70
	bitMask    = 0x80
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xA
	maxFrame   = 64 << 20
	length16   = 126
	length64   = 127
	maxControl = 125
)

// cutFrame takes a server's frame off b; ok is false where it is not whole yet.
func cutFrame(b []byte) (first byte, payload, rest []byte, ok bool, err error) {
	if len(b) < 2 {
		return 0, nil, b, false, nil
	}
	if b[0]&bitsRsv != 0 || b[1]&bitMask != 0 {
		return 0, nil, nil, false, fmt.Errorf("%w: %#x %#x", errFrame, b[0], b[1])
	}
	head, n := 2, uint64(b[1])
	switch {
	case n == length16 && len(b) >= 4:
		head, n = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case n == length64 && len(b) >= 10:
		head, n = 10, binary.BigEndian.Uint64(b[2:])
	case n >= length16:
		return 0, nil, b, false, nil
	}
	switch {
	case n > maxFrame:
		return 0, nil, nil, false, fmt.Errorf("%w: %d bytes", errFrame, n)
	case len(b) < head+int(n):
		return 0, nil, b, false, nil
	}
	return b[0], b[head : head+int(n)], b[head+int(n):], true, nil
}

func (c *checker) feedFrames(b []byte, now int64) ([]byte, error) {
	for {
		first, payload, rest, ok, err := cutFrame(b)
		if !ok || err != nil {
			return b, err
		}
		if err := c.frame(first, payload, now); err != nil {
			return nil, err
		}
		b = rest
	}
}

func (c *checker) frame(first byte, payload []byte, now int64) error {
	op, fin := first&^(bitFin|bitsRsv), first&bitFin != 0
	switch {
	case op >= opClose && (!fin || len(payload) > maxControl):
		return fmt.Errorf("%w: control frame %#x of %d bytes", errFrame, first, len(payload))
	case op == opPing:
		c.pongs = appendMasked(c.pongs, opPong, payload)
		return nil
	case op == opPong:
		return nil
	case op == opClose:
		return closedError(payload)
	case op > opBinary, (op == opContinue) != (c.whole != nil):
		return fmt.Errorf("%w: %#x", errFrame, first)
	case fin && c.whole == nil:
		c.message(payload, now)
		return nil
	}
	if c.whole = append(c.whole, payload...); c.whole == nil {
		c.whole = []byte{}
	}
	if len(c.whole) > maxFrame {
		return fmt.Errorf("%w: a message of more than %d bytes", errFrame, maxFrame)
	}
	if fin {
		c.message(c.whole, now)
		c.whole = nil
	}
	return nil
}

func closedError(payload []byte) error {
	if len(payload) < 2 {
		return errors.New("closed by the server")
	}
	return fmt.Errorf("closed by the server: %d %q", binary.BigEndian.Uint16(payload), payload[2:])
}

// message reads a whole WebSocket message.
func (c *checker) message(p []byte, now int64) {
	switch {
	case len(p) == c.size:
		c.check(p, now)
	case !c.chatty:
		c.tally.Torn++
	default: // one of ours, or several, in an envelope; or none
		if rest := c.scan(p, now); bytes.Contains(rest, []byte(messageMark)) {
			c.tally.Torn++
		}
		if string(p) == "{}" { // centrifuge's ping
			c.pongs = appendMasked(c.pongs, opText, p)
		}
	}
}

// scan checks all messages in p, and returns the end of p, in which one may have begun.
func (c *checker) scan(p []byte, now int64) []byte {
	for {
		i := bytes.Index(p, []byte(messageMark))
		if i < 0 {
			return p[max(0, len(p)-len(messageMark)+1):]
		}
		if p = p[i:]; len(p) < c.size {
			return p
		}
		c.check(p[:c.size], now)
		p = p[c.size:]
	}
}

// check notes a message.
func (c *checker) check(p []byte, now int64) {
	topic, seq, due, ok := parseMessage(p)
	if !ok || int(topic) >= len(c.next) || seq >= c.want {
		c.tally.Torn++
		return
	}
	next := c.next[topic]
	if seq < next {
		c.tally.Back++
		return
	}
	c.tally.Skipped += int64(seq - next)
	c.tally.Delivered++
	if seq >= c.warm {
		c.tally.lags.add(now - due)
	}
	c.tally.last = now
	if c.tally.first == 0 || due < c.tally.first {
		c.tally.first = due
	}
	if c.next[topic] = seq + 1; seq+1 == c.want {
		c.open--
	}
}

var (
	errChunk = errors.New("a chunk's size that cannot be read")
	errEnded = errors.New("the response has ended")
)

// maxChunkLine bounds the line before a chunk, its extensions included, which are not looked at.
const maxChunkLine = 64

// feedChunks takes chunks apart (RFC 9112, 7.1).
func (c *checker) feedChunks(b []byte, now int64) (rest []byte, err error) {
	for len(b) > 0 && err == nil {
		if c.chunk == 0 {
			line, after, ok := bytes.Cut(b, []byte("\r\n"))
			if !ok && len(b) <= maxChunkLine+1 {
				rest = b
				break
			}
			if c.chunk, err = chunkSize(line); err == nil {
				c.chunk, b = c.chunk+2, after
			}
			continue
		}
		n := min(len(b), c.chunk)
		c.body = append(c.body, b[:max(0, min(n, c.chunk-2))]...)
		c.chunk -= n
		b = b[n:]
	}
	body := c.scan(c.body, now)
	c.body = append(c.body[:0], body...)
	return rest, err
}

func chunkSize(line []byte) (n int, err error) {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	if len(digits) == 0 || len(digits) > 7 || len(line) > maxChunkLine {
		return 0, fmt.Errorf("%w: %.20q", errChunk, line)
	}
	for _, d := range digits {
		switch {
		case '0' <= d && d <= '9':
			n = n<<4 + int(d-'0')
		case 'a' <= d|0x20 && d|0x20 <= 'f':
			n = n<<4 + int(d|0x20-'a') + 10
		default:
			return 0, fmt.Errorf("%w: %.20q", errChunk, line)
		}
	}
	if n == 0 {
		return 0, errEnded
	}
	return n, nil
}

// appendMasked appends a client's frame of at most maxControl bytes. Its mask is zeros, which is a mask too.
func appendMasked(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, bitFin|op, bitMask|byte(len(payload)), 0, 0, 0, 0)
	return append(dst, payload...)
}

// appendHeader appends the header of a server's text frame of n bytes.
func appendHeader(dst []byte, n int) []byte {
	switch {
	case n <= maxControl:
		return append(dst, bitFin|opText, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, bitFin|opText, length16), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, bitFin|opText, length64), uint64(n))
}
