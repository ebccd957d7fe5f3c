package wire

import (
	"fmt"
	"strings"
)

// TopicPosition is a place in the log of a named topic.
type TopicPosition struct {
	Topic string
	Pos   Position
}

// What ParsePositions accepts at most. AppendPositions does not look at these limits; whoever let the topics in has.
const (
	MaxTopics     = 128       // topics in a joined form
	MaxTopicBytes = 255       // bytes of a topic's name, unescaped
	MaxPositions  = 128 << 10 // bytes of a joined form: room for as many topics, however long and odd their names are
)

// AppendPositions appends the joined form of tps in the order given: topic=position,topic=position. Server-sent events have one
// Last-Event-ID for all topics of a connection, so all of its positions must fit into one id.
//
// In a topic's name letters, digits, and any of -._~/: stand for themselves; every other byte is written as % and two hexadecimal
// digits in upper case. So the joined form is ASCII, safe in a header and in an id line, and an = tells it from a lone position.
func AppendPositions(dst []byte, tps []TopicPosition) []byte {
	for i, tp := range tps {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendEscapedTopic(dst, tp.Topic)
		dst = append(dst, '=')
		dst = tp.Pos.Append(dst)
	}
	return dst
}

func appendEscapedTopic(dst []byte, topic string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(topic) {
		if c := topic[i]; plainInTopic(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

func plainInTopic(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._~/:", c) >= 0
}

// ParsePositions reads a lone position (many is then nil) or the joined form (many then has at least one element, and single is
// zero). It refuses what is longer than the limits above, and a topic that comes twice.
//
// It is generous in one thing: any byte of a topic may be escaped, with hexadecimal digits of either case, and all of printable
// ASCII but the comma, the equals sign, and the percent sign may stand for itself. So a client may join the ids that it got for
// several topics with the escaping function of its own language, such as encodeURIComponent.
//
// Errors are like those of ParsePosition.
func ParsePositions(s string) (single Position, many []TopicPosition, err error) {
	if len(s) > MaxPositions {
		return Position{}, nil, fmt.Errorf("the joined positions %s are %d bytes long, more than the %d allowed", quote(s), len(s), MaxPositions)
	}
	if strings.IndexByte(s, '=') < 0 {
		single, err = ParsePosition(s)
		return single, nil, err
	}
	n := strings.Count(s, ",") + 1
	if n > MaxTopics {
		return Position{}, nil, fmt.Errorf("the joined positions %s name %d topics, more than the %d allowed", quote(s), n, MaxTopics)
	}
	many = make([]TopicPosition, 0, n)
	for entry := range strings.SplitSeq(s, ",") {
		tp, err := parseTopicPosition(entry)
		if err == nil && names(many, tp.Topic) {
			err = fmt.Errorf("topic %s comes a second time", quote(tp.Topic))
		}
		if err != nil {
			return Position{}, nil, fmt.Errorf("entry %d of the joined positions: %w", len(many)+1, err)
		}
		many = append(many, tp)
	}
	return Position{}, many, nil
}

// names reports whether tps has the topic. For at most 128 short strings a map is no faster.
func names(tps []TopicPosition, topic string) bool {
	for _, tp := range tps {
		if tp.Topic == topic {
			return true
		}
	}
	return false
}

func parseTopicPosition(entry string) (TopicPosition, error) {
	escaped, position, found := strings.Cut(entry, "=")
	if !found {
		return TopicPosition{}, fmt.Errorf("%s has no equals sign, want topic=position", quote(entry))
	}
	topic, err := unescapeTopic(escaped)
	if err != nil {
		return TopicPosition{}, err
	}
	if len(topic) > MaxTopicBytes {
		return TopicPosition{}, fmt.Errorf("topic %s is %d bytes long, more than the %d allowed", quote(topic), len(topic), MaxTopicBytes)
	}
	pos, err := ParsePosition(position)
	return TopicPosition{Topic: topic, Pos: pos}, err
}

func unescapeTopic(s string) (string, error) {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7F {
			return "", fmt.Errorf("topic %s has %s at byte %d, want it escaped with a percent sign", quote(s), quote(s[i:i+1]), i+1)
		}
	}
	if strings.IndexByte(s, '%') < 0 {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		c, ok := unhex(s[i+1:])
		if !ok {
			return "", fmt.Errorf("topic %s has a percent sign at byte %d without two hexadecimal digits after it", quote(s), i+1)
		}
		b = append(b, c)
		i += 2
	}
	return string(b), nil
}

// unhex returns the byte that the first two hexadecimal digits of s stand for.
func unhex(s string) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	high, ok1 := hexDigit(s[0])
	low, ok2 := hexDigit(s[1])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (digit byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
