package main

import (
	"encoding/binary"
	"encoding/hex"
)

// A message is text, the same for all servers: a mark, its topic, its number in the topic, the time when it was due (ns since
// 1970: client and server are on one machine), letters to the size wanted, and a mark at its end.
const (
	messageMark = "#~"
	messageHead = len(messageMark) + 2*(1+4+8)
	messageEnd  = '$'
)

// newMessage makes a message of size bytes, at least messageHead+1.
func newMessage(topic uint8, seq uint32, due int64, size int) []byte {
	return appendMessage(make([]byte, 0, size), topic, seq, due, size)
}

func appendMessage(dst []byte, topic uint8, seq uint32, due int64, size int) []byte {
	var b [1 + 4 + 8]byte
	b[0] = topic
	binary.BigEndian.PutUint32(b[1:], seq)
	binary.BigEndian.PutUint64(b[5:], uint64(due))
	dst = append(dst, messageMark...)
	dst = hex.AppendEncode(dst, b[:])
	for range size - messageHead - 1 {
		dst = append(dst, 'x')
	}
	return append(dst, messageEnd)
}

// setDue sets the time of a message.
func setDue(m []byte, due int64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(due))
	hex.Encode(m[messageHead-2*len(b):], b[:])
}

// parseMessage reads what appendMessage has made; b is all of it.
func parseMessage(b []byte) (topic uint8, seq uint32, due int64, ok bool) {
	if len(b) <= messageHead || string(b[:len(messageMark)]) != messageMark || b[len(b)-1] != messageEnd {
		return 0, 0, 0, false
	}
	var raw [1 + 4 + 8]byte
	if _, err := hex.Decode(raw[:], b[len(messageMark):messageHead]); err != nil {
		return 0, 0, 0, false
	}
	return raw[0], binary.BigEndian.Uint32(raw[1:]), int64(binary.BigEndian.Uint64(raw[5:])), true
}
