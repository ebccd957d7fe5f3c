package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/tailcast/tailcast"
)

// A Relay is what Source returns.
type Relay struct {
	url string
	cfg config

	// Run's own.
	places places
	msgs   []tailcast.Message
}

var (
	_ tailcast.Source   = (*Relay)(nil)
	_ tailcast.Replayer = (*Relay)(nil)
)

// Source follows the hub at a URL for another hub: with Hub.Run that has the same topics, with the same Positions, Data and cuts, and gaps
// where the other one has them. What is in its memory no longer, or not yet, it reads from the other one when a viewer asks for it. So
// viewers may come back to either of the two, and are not cut off when the other one goes away: they wait for it.
//
// The topics are those of the options, or what the URL serves to a request that names none. A hub that has messages of a topic already
// goes on after them. Otherwise a topic begins with what is published from now on, or as WithSince and WithTail say: the past can be
// had anyhow. Options that filter count for the past as well.
//
// Each of its topics belongs to it: nobody else can publish there (tailcast.ErrTopicOwner). Messages that the other server has sent to
// this connection alone are left out. What is final for Follow is an error here, after which the hub runs it again, and longer and
// longer later: a relay outlives that somebody has mistaken the other server's configuration. A line that is too long, or a URL that
// is none, is tailcast.Permanent.
//
// It must not be given to two hubs.
func Source(url string, opts ...Option) *Relay {
	r := &Relay{url: url, cfg: newConfig(opts)}
	for topic, pos := range r.cfg.since {
		r.places.keep(topic, pos)
	}
	return r
}

// Run is tailcast.Source's.
func (r *Relay) Run(ctx context.Context, pub tailcast.Publisher) error {
	return fmt.Errorf("tailcast: relay: %w", permanently(r.run(ctx, pub)))
}

func (r *Relay) run(ctx context.Context, pub tailcast.Publisher) error {
	f, err := newFollower(r.url, &r.cfg)
	if err != nil {
		return err
	}
	defer f.close()
	if _, ok := f.asked("tail"); !ok {
		f.extra.Set("tail", "0")
	}
	f.places = r.places
	defer func() { r.places = f.places }()
	in := intake{Relay: r, f: f, pub: pub, met: make(map[string]bool), begun: make(map[string]bool)}
	in.hub, _ = pub.(tailcast.TopicPublisher)
	return f.run(ctx, func(objects []object) error { return in.take(ctx, objects) })
}

// An intake is one Run.
type intake struct {
	*Relay
	f   *follower
	pub tailcast.Publisher
	hub tailcast.TopicPublisher // pub, if it is one

	met   map[string]bool // topics whose place is one after what the hub has
	begun map[string]bool // topics that the hub knows to be this Source's
}

// take publishes what has come, and then takes note of where that leads.
func (in *intake) take(ctx context.Context, objects []object) error {
	if in.elsewhere(objects) {
		return errAgain
	}
	clear(in.msgs)
	in.msgs = in.msgs[:0]
	for i := range objects {
		o := &objects[i]
		if err := in.begin(o); err != nil {
			return finalError{err}
		}
		if m, ok := o.relayed(); ok {
			in.msgs = append(in.msgs, m)
		}
	}
	if err := in.publish(ctx); err != nil {
		return finalError{err}
	}
	for i := range objects {
		in.f.note(&objects[i])
	}
	return nil
}

// relayed returns what is to be published; not what has no place in the topic.
func (o *object) relayed() (m tailcast.Message, ok bool) {
	m = o.msg
	switch {
	case o.kind == message:
		return m, m.Pos.Epoch != 0
	case o.kind == gap && o.pos.Epoch != 0:
		m.Pos = o.pos
	}
	return m, o.kind == gap
}

// elsewhere reports whether the hub has messages of a topic already, and the stream does not go on after them. Then it must begin
// anew, there.
func (in *intake) elsewhere(objects []object) (again bool) {
	if in.hub == nil {
		return false
	}
	for i := range objects {
		o := &objects[i]
		topic := o.msg.Topic
		if !o.held || in.met[topic] {
			continue
		}
		in.met[topic] = true
		head, ok := in.hub.Head(topic)
		if !ok || o.kind == other && o.pos == head {
			continue
		}
		if at, _ := in.f.places.at(topic); at != head {
			in.f.places.keep(topic, head)
			again = true
		}
	}
	return again
}

// begin tells the hub where a topic begins, so that it can serve who comes back before there is a message.
func (in *intake) begin(o *object) error {
	topic := o.msg.Topic
	if in.hub == nil || in.begun[topic] || !o.held {
		return nil
	}
	switch {
	case o.kind != other:
		in.begun[topic] = true // Publish says it
	case o.pos.Epoch != 0: // where the other hub knows nothing yet, it is not the beginning
		in.begun[topic] = true
		return in.hub.Begin(topic, o.pos)
	}
	return nil
}

// publish publishes the messages. One that the hub cannot take, since its memory limit is smaller than the other's, becomes a gap.
func (in *intake) publish(ctx context.Context) error {
	if len(in.msgs) == 0 {
		return nil
	}
	err := in.pub.Publish(ctx, in.msgs...)
	if !errors.Is(err, tailcast.ErrMessage) {
		return err
	}
	for i := range in.msgs {
		m := &in.msgs[i]
		err := in.pub.Publish(ctx, *m)
		if errors.Is(err, tailcast.ErrMessage) {
			from, _ := in.f.places.at(m.Topic)
			err = in.pub.Publish(ctx, tailcast.Message{Topic: m.Topic, Time: m.Time, Pos: m.Pos, Gap: &tailcast.Gap{
				From: from, To: m.Pos, Count: 1, Bytes: int64(len(m.Data)), Reason: "the message is too large for the hub that relays it",
			}})
		}
		if err != nil {
			return err
		}
		if m.Pos.Epoch != 0 { // what follows may fail
			in.f.places.keep(m.Topic, m.Pos)
		}
	}
	return nil
}

// Replay is tailcast.Replayer's. While the other hub cannot be reached it waits. Data that it yields is valid until the next message.
func (r *Relay) Replay(ctx context.Context, topic string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		err := r.replay(ctx, topic, after, func(m tailcast.Message) bool { return yield(m, nil) })
		if !errors.Is(err, errBroken) {
			yield(tailcast.Message{}, fmt.Errorf("tailcast: relay: topic %q: %w", topic, permanently(err)))
		}
	}
}

func (r *Relay) replay(ctx context.Context, topic string, after tailcast.Position, yield func(tailcast.Message) bool) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f, err := newFollower(r.url, &r.cfg)
	if err != nil {
		return err
	}
	defer f.close()
	topics, named := f.asked("topic")
	if after.Epoch == 0 && after != tailcast.Earliest() || named && !slices.Contains(topics, topic) {
		return tailcast.ErrUnknownPosition
	}
	f.extra.Set("topic", topic)
	f.places.keep(topic, after)
	return f.run(ctx, func(objects []object) error {
		for i := range objects {
			o := &objects[i]
			f.note(o)
			m, ok := o.relayed()
			if !ok || m.Topic != topic {
				continue
			}
			if ctx.Err() != nil {
				return finalError{context.Cause(ctx)}
			}
			if !yield(m) {
				return finalError{errBroken}
			}
		}
		return nil
	})
}

// permanently says of what is Permanent that it is.
func permanently(err error) error {
	var p permanentError
	if errors.As(err, &p) {
		return tailcast.Permanent(p.error)
	}
	return err
}
