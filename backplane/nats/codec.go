package nats

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

// headerName is the header that holds what is to be said of a message beside its topic and payload: the version, flags, the time in
// nanoseconds and the origin, with spaces between them. The payload of a gap is its object.
const headerName = "Tailcast"

const version = "1"

// What the flags are; "-" is none.
const (
	flagBinary  = 'b'
	flagPartial = 'p'
	flagGap     = 'g'
)

// A gap is what of a tailcast.Gap goes into the log: its places are given by where it stands there.
type gap struct {
	Count    int64  `json:"count"`
	Bytes    int64  `json:"bytes"`
	Possible bool   `json:"possible,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// encode returns a message's header and payload.
func encode(m *tailcast.Message) (header string, data []byte, err error) {
	b := make([]byte, 0, 64)
	b = append(b, version+" "...)
	n := len(b)
	if m.Binary {
		b = append(b, flagBinary)
	}
	if m.Partial {
		b = append(b, flagPartial)
	}
	if m.Gap != nil {
		b = append(b, flagGap)
	}
	if len(b) == n {
		b = append(b, '-')
	}
	b = append(b, ' ')
	if !m.Time.IsZero() {
		b = strconv.AppendInt(b, m.Time.UnixNano(), 10)
	} else {
		b = append(b, '-')
	}
	if m.Origin != "" {
		if strings.ContainsAny(m.Origin, " \r\n") {
			return "", nil, fmt.Errorf("%w: its Origin has a space or a line end", tailcast.ErrMessage)
		}
		b = append(b, ' ')
		b = append(b, m.Origin...)
	}
	if m.Gap == nil {
		return string(b), m.Data, nil
	}
	data, err = json.Marshal(gap{m.Gap.Count, m.Gap.Bytes, m.Gap.Possible, m.Gap.Reason})
	return string(b), data, err
}

var errForeign = errors.New("it is not one of ours")

// decode makes a message of a header and a payload; its Topic and Pos are left to the caller.
func decode(header string, data []byte) (m tailcast.Message, err error) {
	fields := strings.Split(header, " ")
	if len(fields) < 3 || len(fields) > 4 || fields[0] != version {
		return m, errForeign
	}
	isGap := false
	if fields[1] != "-" {
		for i, f := range fields[1] {
			seen := strings.IndexRune(fields[1], f) < i
			switch {
			case f == flagBinary && !seen:
				m.Binary = true
			case f == flagPartial && !seen:
				m.Partial = true
			case f == flagGap && !seen:
				isGap = true
			default:
				return m, errForeign
			}
		}
	}
	if fields[1] == "" {
		return m, errForeign
	}
	if fields[2] != "-" {
		nanos, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return m, errForeign
		}
		m.Time = time.Unix(0, nanos)
	}
	if len(fields) == 4 {
		if m.Origin = fields[3]; m.Origin == "" {
			return m, errForeign
		}
	}
	if !isGap {
		m.Data = data
		return m, nil
	}
	var g gap
	if json.Unmarshal(data, &g) != nil || m.Binary || m.Partial {
		return m, errForeign
	}
	m.Gap = &tailcast.Gap{Count: g.Count, Bytes: g.Bytes, Possible: g.Possible, Reason: g.Reason}
	return m, nil
}

// message decodes a message of the stream.
func (b *Backplane) message(msg interface {
	Subject() string
	Headers() natsgo.Header
	Data() []byte
}, pos tailcast.Position) (tailcast.Message, error) {
	tok, ok := strings.CutPrefix(msg.Subject(), b.topics)
	if !ok {
		return tailcast.Message{}, errForeign
	}
	topic, err := topicOf(tok)
	if err != nil {
		return tailcast.Message{}, err
	}
	m, err := decode(msg.Headers().Get(headerName), msg.Data())
	m.Topic, m.Pos = topic, pos
	if m.Gap != nil {
		m.Gap.To = pos
	}
	return m, err
}
