package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// A Command is what a client of tailcast.v1 asks for, one JSON object in a text message:
//
//	{"type":"subscribe","topic":"app","since":"1abc.zz","tail":10,"ref":1}
//	{"type":"unsubscribe","topic":"app","ref":2}
//	{"type":"publish","topic":"app","data":"…","b64":true,"others":true,"ref":3}
//	{"type":"register","token":"…","event":"app","ref":4}
type Command struct {
	Type   string // one of the constants below
	Topic  string // whatever the client has sent: to be checked
	Since  *Position
	Tail   int // −1 = not said
	Data   []byte
	Binary bool    // Data came in base64
	Others bool    // Data is for everybody but the client itself
	Token  string  // of a registration, whose Topic comes as event
	Named  bool    // event was there
	Ref    []int64 // what its answer has to carry: one number, or none
}

// The types of commands.
const (
	Subscribe   = "subscribe"
	Unsubscribe = "unsubscribe"
	Publish     = "publish"
	Register    = "register"
)

// ParseCommand reads a command. Names of members count letter by letter, unknown ones are ignored, null stands for a member
// that is left out, and of members with the same name the last counts. The error is a sentence that is fit for the client; the
// Command beside it has the Ref, if that could be read.
func ParseCommand(b []byte) (Command, error) {
	c := Command{Tail: -1}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return c, commandError(err)
	}
	if members == nil {
		return c, errors.New("a command is a JSON object, and this is null")
	}
	m := commandReader{members: members}
	if ref, ok := m.integer("ref", 64); ok {
		c.Ref = []int64{ref}
	}
	c.Type, _ = m.text("type")
	c.Topic, _ = m.text("topic")
	switch c.Type {
	case Subscribe:
		c.since(&m)
	case Unsubscribe:
	case Publish:
		c.data(&m)
	case Register:
		c.token(&m)
		c.Topic, c.Named = m.text("event")
	default:
		m.fail(fmt.Errorf("type is %s, want subscribe, unsubscribe, publish or register", quote(c.Type)))
	}
	return c, m.err
}

// commandError says where b is no JSON object.
func commandError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("a command is a JSON object, and this is not JSON at byte %d: %w", syntax.Offset, err)
	}
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("a command is a JSON object, and this is of type %s", kind.Value)
	}
	return fmt.Errorf("a command is a JSON object: %w", err)
}

// token does not quote what it finds: it may be one.
func (c *Command) token(m *commandReader) {
	raw, _ := m.member("token")
	if json.Unmarshal(raw, &c.Token) != nil || c.Token == "" {
		m.fail(errors.New("token is missing, empty, or not a string"))
	}
}

func (c *Command) since(m *commandReader) {
	if s, ok := m.text("since"); ok {
		p, err := ParsePosition(s)
		if err != nil {
			m.fail(fmt.Errorf("since: %w", err))
		}
		c.Since = &p
	}
	if n, ok := m.integer("tail", 32); ok {
		if n < 0 {
			m.fail(fmt.Errorf("tail is %d, want a whole number from 0 to 2147483647", n))
		}
		c.Tail = int(n)
	}
}

func (c *Command) data(m *commandReader) {
	s, ok := m.text("data")
	if !ok {
		m.fail(errors.New("data is missing"))
	}
	c.Data, c.Others = []byte(s), m.flag("others")
	if c.Binary = m.flag("b64"); !c.Binary {
		return
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		m.fail(fmt.Errorf("data is not base64: %w", err))
	}
	c.Data = raw
}

// A commandReader reads members until one of them is wrong; the first error counts.
type commandReader struct {
	members map[string]json.RawMessage
	err     error
}

func (m *commandReader) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

func (m *commandReader) member(name string) (json.RawMessage, bool) {
	raw := m.members[name]
	return raw, len(raw) > 0 && raw[0] != 'n' // as null does
}

func (m *commandReader) text(name string) (s string, ok bool) {
	raw, ok := m.member(name)
	if !ok {
		return "", false
	}
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		m.fail(fmt.Errorf("%s is %s, want a string", name, quote(string(raw))))
	}
	return s, true
}

func (m *commandReader) integer(name string, bits int) (int64, bool) {
	raw, ok := m.member(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, bits)
	if err != nil {
		m.fail(fmt.Errorf("%s is %s, want a whole number of %d bits", name, quote(string(raw)), bits))
		return 0, false
	}
	return n, true
}

func (m *commandReader) flag(name string) bool {
	raw, ok := m.member(name)
	switch {
	case !ok || string(raw) == "false":
		return false
	case string(raw) != "true":
		m.fail(fmt.Errorf("%s is %s, want true or false", name, quote(string(raw))))
	}
	return true
}
