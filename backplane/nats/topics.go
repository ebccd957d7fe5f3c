package nats

import (
	"context"

	"github.com/tailcast/tailcast"
)

// maxTopics bounds what is remembered: whoever can publish can make topics. One that is forgotten gets no Gap.
const maxTopics = 1 << 14

// topics are those that an AtMostOnce has published to.
type topics struct {
	known map[string]bool
	owed  map[string]*tailcast.Gap // that are not declared yet
}

// note says that a message has come.
func (t *topics) note(topic string) {
	if t.known[topic] {
		return
	}
	if t.known == nil {
		t.known, t.owed = make(map[string]bool), make(map[string]*tailcast.Gap)
	}
	if len(t.known) >= maxTopics {
		for other := range t.known { // any one
			delete(t.known, other)
			delete(t.owed, other)
			break
		}
	}
	t.known[topic] = true
}

// lost says that messages have come, and the hub has not taken them, nor what came after them.
func (t *topics) lost(msgs []tailcast.Message) {
	for i := range msgs {
		t.note(msgs[i].Topic)
		t.owed[msgs[i].Topic] = &tailcast.Gap{Count: -1, Bytes: -1, Reason: "the hub has refused what came over core NATS"}
	}
}

// interrupted says that there was no connection for a while.
func (t *topics) interrupted() {
	for topic := range t.known {
		if t.owed[topic] == nil {
			t.owed[topic] = &tailcast.Gap{
				Count: -1, Bytes: -1, Possible: true, Reason: "messages over core NATS are lost while there is no connection to the server",
			}
		}
	}
}

// declare publishes the gaps that are owed.
func (t *topics) declare(ctx context.Context, pub tailcast.Publisher) error {
	for topic, gap := range t.owed {
		if err := pub.Publish(ctx, tailcast.Message{Topic: topic, Gap: gap}); err != nil {
			return err
		}
		delete(t.owed, topic)
	}
	return nil
}
