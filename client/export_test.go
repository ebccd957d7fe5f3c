package client

import (
	"bytes"
	"io"

	"github.com/tailcast/tailcast"
)

// A Line is what a line says, as both ways of reading it see it.
type Line struct {
	Kind   uint8
	Msg    tailcast.Message
	Pos    tailcast.Position
	Held   bool
	Code   int
	Reason string
}

func shown(o object) Line { return Line{uint8(o.kind), o.msg, o.pos, o.held, o.code, o.reason} }

// ParseLine reads a line as the client does, and says whether that was the fast way.
func ParseLine(line []byte) (l Line, fast bool, err error) {
	p := parser{places: new(places)}
	fast = p.scan(bytes.Clone(line))
	o, err := p.parse(line)
	return shown(o), fast, err
}

// ParseSlowly reads a line with encoding/json.
func ParseSlowly(line []byte) (Line, error) {
	p := parser{places: new(places)}
	if err := p.decode(line); err != nil {
		return Line{}, err
	}
	o, err := p.object()
	return shown(o), err
}

// ReadStream reads a response's body, and returns the messages and gaps in it, and the place where it leads.
func ReadStream(r io.Reader, maxLine int) (msgs []tailcast.Message, since string, err error) {
	f := &follower{cfg: &config{}}
	l := lines{r: r, max: maxLine}
	p := parser{places: &f.places}
	for {
		batch, err := l.next()
		if err != nil {
			return msgs, f.places.since(), err
		}
		end := f.parse(&p, batch)
		for i := range f.objects {
			o := &f.objects[i]
			f.note(o)
			if o.kind == message || o.kind == gap {
				o.msg.Data = bytes.Clone(o.msg.Data)
				msgs = append(msgs, o.msg)
			}
		}
		if end != nil {
			return msgs, f.places.since(), end
		}
	}
}

// ErrNoObject is what a line matches that cannot be read.
var ErrNoObject = errNoObject

// A Parser is one that is used again.
type Parser struct {
	f follower
	p parser
}

func (p *Parser) Parse(batch []byte) (int, error) {
	p.p.places = &p.f.places
	err := p.f.parse(&p.p, batch)
	for i := range p.f.objects {
		p.f.note(&p.f.objects[i])
	}
	return len(p.f.objects), err
}
