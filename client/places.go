package client

import (
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/wire"
)

// places are where a client stands in its topics.
type places struct {
	list []wire.TopicPosition
	last int // the index that was looked up last: mostly it is asked for again
}

func (p *places) find(topic string) int {
	if p.last < len(p.list) && p.list[p.last].Topic == topic {
		return p.last
	}
	for i := range p.list {
		if p.list[i].Topic == topic {
			p.last = i
			return i
		}
	}
	return -1
}

// keep notes where the client stands in a topic.
func (p *places) keep(topic string, pos tailcast.Position) {
	if i := p.find(topic); i >= 0 {
		p.list[i].Pos = wire.Position(pos)
		return
	}
	p.list = append(p.list, wire.TopicPosition{Topic: topic, Pos: wire.Position(pos)})
}

func (p *places) at(topic string) (pos tailcast.Position, ok bool) {
	if i := p.find(topic); i >= 0 {
		return tailcast.Position(p.list[i].Pos), true
	}
	return tailcast.Position{}, false
}

// since is the form of a query.
func (p *places) since() string { return string(wire.AppendPositions(nil, p.list)) }

// named returns the name of a topic that the client stands in as a string that is there already.
func (p *places) named(topic []byte) string {
	if p.last < len(p.list) && p.list[p.last].Topic == string(topic) {
		return p.list[p.last].Topic
	}
	for i := range p.list {
		if p.list[i].Topic == string(topic) {
			p.last = i
			return p.list[i].Topic
		}
	}
	return string(topic)
}
