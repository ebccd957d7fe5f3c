package nats

import (
	"errors"
	"strings"
)

// A topic is one token of a subject: letters, digits, "-" and "_" stand for themselves, every other byte is "=" and two digits, and
// the empty topic is "=". So no topic has a dot, a space or a wildcard there, and each has one form only.

const hexDigits = "0123456789ABCDEF"

// token encodes a topic.
func token(topic string) string {
	if topic == "" {
		return "="
	}
	n := 0
	for i := range len(topic) {
		if !plain(topic[i]) {
			n++
		}
	}
	if n == 0 {
		return topic
	}
	b := make([]byte, 0, len(topic)+2*n)
	for i := range len(topic) {
		if c := topic[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '=', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return string(b)
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

var errToken = errors.New("it is no topic's")

// topicOf decodes what token returns, and nothing else.
func topicOf(token string) (string, error) {
	switch {
	case token == "=":
		return "", nil
	case token == "":
		return "", errToken
	}
	b := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		switch c := token[i]; {
		case plain(c):
			b = append(b, c)
		case c == '=' && i+2 < len(token):
			hi, lo := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
			if hi < 0 || lo < 0 || plain(byte(hi<<4|lo)) {
				return "", errToken
			}
			b = append(b, byte(hi<<4|lo))
			i += 2
		default:
			return "", errToken
		}
	}
	return string(b), nil
}
