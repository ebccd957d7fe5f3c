package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/wire"
)

// An object is one line of the stream.
type object struct {
	kind kind
	msg  tailcast.Message // of a message or a gap; of what has a place, its Topic. Data may be a part of the line
	pos  tailcast.Position
	held bool // pos is to be kept

	code   int // of a bye
	reason string
	retry  time.Duration
}

type kind uint8

const (
	other kind = iota // to be ignored, but for its place
	message
	gap
	bye
)

// Members of an object that are known.
type member uint8

const (
	mID member = iota
	mTopic
	mTime
	mData
	mB64
	mBinary
	mPartial
	mEvent
	mFrom
	mTo
	mCount
	mBytes
	mPossible
	mReason
	mCode
	mRetry
	members
)

// known returns which member a name is of. Names count letter by letter.
func known(name []byte) (member, bool) {
	switch string(name) {
	case "id":
		return mID, true
	case "topic":
		return mTopic, true
	case "time":
		return mTime, true
	case "data":
		return mData, true
	case "b64":
		return mB64, true
	case "binary":
		return mBinary, true
	case "partial":
		return mPartial, true
	case "event":
		return mEvent, true
	case "from":
		return mFrom, true
	case "to":
		return mTo, true
	case "count":
		return mCount, true
	case "bytes":
		return mBytes, true
	case "possible":
		return mPossible, true
	case "reason":
		return mReason, true
	case "code":
		return mCode, true
	case "retry":
		return mRetry, true
	}
	return 0, false
}

// wants is the kind of value that a member has.
func (m member) wants() valueKind {
	switch m {
	case mB64, mBinary, mPartial, mPossible:
		return isBool
	case mCount, mBytes, mCode, mRetry:
		return isNumber
	}
	return isString
}

type valueKind uint8

const (
	absent valueKind = iota
	isString
	isBool
	isNumber
)

// A value is that of a member: its text, of a string what is between the quotes.
type value struct {
	text    []byte
	kind    valueKind
	escaped bool // text has escapes, which are sound
}

// A parser reads lines. It is not safe for concurrent use.
type parser struct {
	values [members]value
	places *places // whose names of topics are used again
}

var errNoObject = errors.New("this is no line of a hub's stream")

// parse reads one line, without its end, and may change it. Everything that is JSON is read; what hubs write is read fast.
func (p *parser) parse(line []byte) (object, error) {
	clear(p.values[:])
	if !p.scan(line) {
		clear(p.values[:])
		if err := p.decode(line); err != nil {
			return object{}, fmt.Errorf("%w: %.80q: %w", errNoObject, line, err)
		}
	}
	o, err := p.object()
	if err != nil {
		return object{}, fmt.Errorf("%w: %.80q: %w", errNoObject, line, err)
	}
	return o, nil
}

// decode reads any JSON object.
func (p *parser) decode(line []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(line, &all); err != nil {
		return err
	}
	if all == nil {
		return errors.New("null")
	}
	for name, raw := range all {
		m, ok := known([]byte(name))
		if !ok || string(raw) == "null" {
			continue
		}
		v := value{kind: m.wants()}
		var err error
		switch v.kind {
		case isString:
			var s string
			err = json.Unmarshal(raw, &s)
			v.text = []byte(s)
		case isBool:
			var b bool
			err = json.Unmarshal(raw, &b)
			v.text = strconv.AppendBool(nil, b)
		case isNumber:
			var n int64
			err = json.Unmarshal(raw, &n)
			v.text = strconv.AppendInt(nil, n, 10)
		}
		if err != nil {
			return err
		}
		p.values[m] = v
	}
	return nil
}

// object makes an object of the members.
func (p *parser) object() (o object, err error) {
	if v := &p.values[mTopic]; v.kind != absent {
		o.msg.Topic = p.places.named(v.bytes())
	}
	if v := &p.values[mID]; v.kind != absent {
		if o.pos, err = v.position(); err != nil {
			return o, err
		}
		o.held = p.values[mTopic].kind != absent
	}
	if p.values[mEvent].kind == absent {
		return o, p.message(&o)
	}
	switch string(p.values[mEvent].bytes()) {
	case "gap":
		return o, p.gap(&o)
	case "bye":
		o.kind = bye
		o.reason = string(p.values[mReason].bytes())
		o.code = int(p.values[mCode].number(0))
		const most = time.Hour
		o.retry = min(time.Duration(min(max(p.values[mRetry].number(0), 0), int64(most/time.Millisecond)))*time.Millisecond, most)
	}
	return o, nil
}

func (p *parser) message(o *object) error {
	data := &p.values[mData]
	if data.kind == absent || p.values[mTopic].kind == absent {
		return errors.New("a message has topic and data")
	}
	o.kind = message
	m := &o.msg
	m.Pos, m.Partial, m.Binary = o.pos, p.values[mPartial].bool(), p.values[mBinary].bool()
	if v := &p.values[mTime]; v.kind != absent {
		if err := m.Time.UnmarshalText(v.bytes()); err != nil {
			return err
		}
	}
	if !p.values[mB64].bool() {
		m.Data = data.bytes()
		return nil
	}
	var err error
	m.Data, err = base64.StdEncoding.AppendDecode(nil, data.bytes())
	m.Binary = m.Binary || utf8.Valid(m.Data) // text would not have come like this
	return err
}

func (p *parser) gap(o *object) (err error) {
	if p.values[mTopic].kind == absent {
		return errors.New("a gap has a topic")
	}
	g := &tailcast.Gap{Count: p.values[mCount].number(-1), Bytes: p.values[mBytes].number(-1), Possible: p.values[mPossible].bool()}
	g.Reason = string(p.values[mReason].bytes())
	if v := &p.values[mFrom]; v.kind != absent {
		if g.From, err = v.position(); err != nil {
			return err
		}
	}
	if v := &p.values[mTo]; v.kind != absent {
		if g.To, err = v.position(); err != nil {
			return err
		}
		o.pos, o.held = g.To, true
	}
	o.kind, o.msg.Gap = gap, g
	return nil
}

func (v *value) position() (tailcast.Position, error) {
	p, err := wire.ParsePosition(string(v.bytes()))
	return tailcast.Position(p), err
}

func (v *value) bool() bool { return string(v.text) == "true" }

func (v *value) number(absently int64) int64 {
	if v.kind == absent {
		return absently
	}
	n, err := strconv.ParseInt(string(v.text), 10, 64)
	if err != nil { // no more than 64 bits have come this far
		return math.MaxInt64
	}
	return n
}

// bytes returns a string's bytes, and resolves its escapes in place.
func (v *value) bytes() []byte {
	if v.escaped {
		v.text, v.escaped = unescape(v.text), false
	}
	return v.text[:len(v.text):len(v.text)]
}

// unescape resolves sound escapes: what they stand for is shorter.
func unescape(s []byte) []byte {
	dst := s[:0]
	for i := 0; i < len(s); {
		c := s[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		c = s[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			dst = utf8.AppendRune(dst, hex4(s[i:]))
			i += 4
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// hex4 reads four hexadecimal digits; −1 if they are not there.
func hex4(s []byte) (r rune) {
	if len(s) < 4 {
		return -1
	}
	for _, c := range s[:4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return -1
		}
	}
	return r
}
