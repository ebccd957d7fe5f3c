package tailcast

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
)

// appendObject appends a control object in the form of a format that has objects.
func (f *format) appendObject(dst, object []byte) []byte {
	if f.transport == formatEnvelope.transport {
		return wire.AppendFrame(dst, wire.OpText, object)
	}
	return append(append(dst, object...), '\n')
}

// bye announces the end of a connection.
func (f *format) bye(ce *CloseError) []byte {
	return f.appendObject(nil, wire.AppendBye(nil, ce.Code, ce.Reason, reconnectAdvice()))
}

// An objectHandler writes what envelopes need beside messages, over a WebSocket or as lines. The messages themselves are the
// same bytes for all viewers, however many topics they have.
type objectHandler struct {
	lagger
	*Conn
}

// Quiet tells the client where it stands in each topic, so that it resumes from there, also if no message has come for long.
func (h *objectHandler) Quiet(dst []byte) []byte {
	for _, s := range h.fan.Subs() {
		dst = h.Place(dst, s)
	}
	return dst
}

// Place tells the client where it stands in a topic.
func (h *objectHandler) Place(dst []byte, s *fanout.Sub) []byte {
	return h.format.appendObject(dst, wire.AppendPos(nil, s.Name, wire.Position(place(s))))
}

// Dropped declares that direct messages found no room.
func (h *objectHandler) Dropped(dst []byte, n int) []byte {
	return h.dropped(dst, n)
}

// Rewrite is not used.
func (h *objectHandler) Rewrite(dst []byte, _ *fanout.Sub, _ *stream.Chunk) []byte { return dst }

// command does what a client of tailcast.v1 asks for, and answers it: with an error where it cannot be done, and the
// connection goes on. It runs on the connection's reader, so answers come in the order of the commands.
func (c *Conn) command(in Inbound) error {
	if in.Binary {
		return c.answer(wire.AppendError(nil, "A command is a text message, and this was a binary one."))
	}
	cmd, err := wire.ParseCommand(in.Data)
	switch {
	case err != nil:
	case cmd.Type == wire.Subscribe:
		return c.answerSubscribe(&cmd)
	case cmd.Type == wire.Unsubscribe:
		err = c.Unsubscribe(cmd.Topic)
	case cmd.Type == wire.Publish:
		err = c.publish(&cmd)
	default:
		err = errors.New("there is no registration here")
	}
	return c.outcome(&cmd, err)
}

// answerSubscribe adds a topic. Its answer comes before the topic's first message.
func (c *Conn) answerSubscribe(cmd *wire.Command) error {
	c.hub.plane.await(c.ctx)
	s, err := c.admitted(cmd)
	if err != nil {
		return c.outcome(cmd, err)
	}
	from := start{tail: cmd.Tail}
	if cmd.Since != nil {
		from.since, from.back = Position(*cmd.Since), true
		if from.since == (Position{}) {
			from.tail = 0 // from now on, as in a request
		}
	}
	s.topic.hold(&from)
	err = c.outcome(cmd, nil)
	s.place(from)
	s.fan.TellPlace()
	return err
}

func (c *Conn) admitted(cmd *wire.Command) (*subscription, error) {
	if no := c.may(ActionRead, cmd.Topic); no != nil {
		return nil, no
	}
	return c.join(cmd.Topic)
}

func (c *Conn) publish(cmd *wire.Command) error {
	if c.hub.cfg.authorize == nil {
		return errors.New("clients may not publish here")
	}
	if no := c.may(ActionPublish, cmd.Topic); no != nil {
		return no
	}
	m := Message{Topic: cmd.Topic, Data: cmd.Data, Binary: cmd.Binary}
	ctx := c.ctx
	if c.hub.plane != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, clientTime)
		defer cancel()
	}
	if cmd.Others {
		return c.PublishOthers(ctx, m)
	}
	return c.hub.Publish(ctx, m)
}

// may asks whether the client may do something in a topic. (The result is no error: a nil *refusal would not be a nil one.)
func (c *Conn) may(a Action, topic string) *refusal { return c.mayAs(c.Identity(), a, topic) }

func (c *Conn) mayAs(id Identity, a Action, topic string) *refusal {
	if no := c.mount.check(topic); no != nil {
		return no
	}
	return c.hub.authorize(c.ctx, Access{Identity: id, Action: a, Topic: topic, Remote: c.remote})
}

// outcome answers a command that was carried out, or could not be.
func (c *Conn) outcome(cmd *wire.Command, err error) error {
	if err == nil {
		return c.answer(wire.AppendOK(nil, cmd.Ref...))
	}
	return c.answer(wire.AppendError(nil, refusalText(cmd, err), cmd.Ref...))
}

// refusalText is the sentence that says why a command was not carried out.
func refusalText(cmd *wire.Command, err error) string {
	var no *refusal
	if errors.As(err, &no) {
		return no.sentence
	}
	for _, known := range []error{ErrNotSubscribed, ErrSubscribed, ErrTooManyTopics, ErrTooManyFilters, ErrTopicOwner, ErrMessage, ErrClosed, ErrBackplane} {
		if !errors.Is(err, known) {
			continue
		}
		reason := known.Error()
		switch known {
		case ErrTooManyTopics, ErrMessage: // they say the limit
			reason = strings.TrimPrefix(err.Error(), "tailcast: publish: message 0: ")
		}
		return fmt.Sprintf("%s: topic %s: %s.", cmd.Type, quote(cmd.Topic), reason)
	}
	return fmt.Sprintf("The command cannot be carried out: %v.", err)
}

// answer queues an object for the client. One that sends commands and does not read the answers is closed: an answer that is
// left out would leave it waiting.
func (c *Conn) answer(object []byte) error {
	err := c.fan.Answer(c.format.appendObject(nil, object))
	if errors.Is(err, ErrQueueFull) {
		return &CloseError{Code: 1013, Reason: "too slow: the answers to commands are not read", Err: err}
	}
	return nil // of a connection that ends nothing is expected
}
