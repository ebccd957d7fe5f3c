package amqp

import (
	"context"

	"github.com/tailcast/tailcast"
)

// maxTopics bounds what is remembered. A topic that is forgotten gets no Gap.
const maxTopics = 1 << 14

// topics are those that the Source has published to, as far as they matter when a connection has been lost.
type topics struct {
	lossy map[string]bool   // by topic: whether a message has come that is lost when the broker is restarted
	owed  map[string]string // gaps that are not yet declared: the reason by topic
}

// note says that a message comes.
func (t *topics) note(topic string, lossy bool) {
	was, known := t.lossy[topic]
	if known && (was || !lossy) {
		return
	}
	if t.lossy == nil {
		t.lossy = make(map[string]bool)
	}
	if !known && len(t.lossy) >= maxTopics {
		for other := range t.lossy { // any one
			delete(t.lossy, other)
			break
		}
	}
	t.lossy[topic] = was || lossy
}

func (t *topics) forget(topic string) { delete(t.lossy, topic) }

const (
	reasonUnkept = "messages that are not persistent are lost when the AMQP broker is restarted"
	reasonGone   = "the queue of the AMQP broker was gone, and what was in it"
)

// interrupted says that there was no connection for a while. kept says that the queue has lasted.
func (t *topics) interrupted(kept bool) {
	if t.owed == nil {
		t.owed = make(map[string]string)
	}
	for topic, lossy := range t.lossy {
		switch {
		case !kept:
			t.owed[topic] = reasonGone
		case lossy && t.owed[topic] == "":
			t.owed[topic] = reasonUnkept
		}
	}
}

// declare publishes the gaps that are owed.
func (t *topics) declare(ctx context.Context, pub tailcast.Publisher) error {
	for topic, reason := range t.owed {
		gap := &tailcast.Gap{Count: -1, Bytes: -1, Possible: true, Reason: reason}
		if err := pub.Publish(ctx, tailcast.Message{Topic: topic, Gap: gap}); err != nil {
			return err
		}
		delete(t.owed, topic)
	}
	return nil
}
