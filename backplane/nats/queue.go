package nats

import (
	"sync"

	"github.com/tailcast/tailcast"
)

const (
	// maxQueue and maxQueueBytes bound what waits for a hub.
	maxQueue      = 1 << 16
	maxQueueBytes = 16 << 20
	// messageBytes is what a message takes beside its payload.
	messageBytes = 256
)

// A queue holds what has come, until the hub takes it. What does not fit is counted by topic, and becomes a Gap where it would have stood.
type queue struct {
	some chan struct{} // has room for one: there may be something to take

	mu    sync.Mutex // guards the rest
	msgs  []tailcast.Message
	bytes int
	lost  map[string]*tailcast.Gap // by topic: after all of its messages in msgs
}

func newQueue() *queue {
	return &queue{some: make(chan struct{}, 1), lost: make(map[string]*tailcast.Gap)}
}

// put reports whether there was room for a message.
func (q *queue) put(m tailcast.Message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	defer func() {
		select {
		case q.some <- struct{}{}:
		default:
		}
	}()
	if n := len(m.Data) + messageBytes; len(q.msgs) < maxQueue && q.bytes+n <= maxQueueBytes || len(q.msgs) == 0 {
		if gap := q.lost[m.Topic]; gap != nil {
			delete(q.lost, m.Topic)
			q.add(tailcast.Message{Topic: m.Topic, Gap: gap})
		}
		q.add(m)
		return true
	}
	gap := q.lost[m.Topic]
	if gap == nil {
		if len(q.lost) >= maxTopics {
			return false // as a topic that is forgotten
		}
		gap = &tailcast.Gap{Reason: "messages came faster than the hub took them"}
		q.lost[m.Topic] = gap
	}
	if m.Gap != nil { // nobody knows how many more that was
		gap.Count, gap.Bytes = -1, -1
	}
	if gap.Count >= 0 {
		gap.Count++
		gap.Bytes += int64(len(m.Data))
	}
	return false
}

// add appends a message. mu is held.
func (q *queue) add(m tailcast.Message) {
	q.msgs = append(q.msgs, m)
	q.bytes += len(m.Data) + messageBytes
}

// take takes out the first messages, as many as buf has room for.
func (q *queue) take(buf []tailcast.Message) []tailcast.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.msgs) == 0 {
		for topic, gap := range q.lost {
			q.add(tailcast.Message{Topic: topic, Gap: gap})
		}
		clear(q.lost)
	}
	n := min(cap(buf), len(q.msgs))
	msgs := append(buf[:0], q.msgs[:n]...)
	clear(q.msgs[:n])
	for i := range msgs {
		q.bytes -= len(msgs[i].Data) + messageBytes
	}
	if q.msgs = q.msgs[n:]; len(q.msgs) == 0 {
		q.msgs = nil
	}
	return msgs
}
