// Package intake is what the Sources of brokers share: they publish what comes, leave out what the hub will never take, and tell
// topics that something may be missing.
package intake

import (
	"context"
	"sync/atomic"

	"github.com/tailcast/tailcast"
)

// maxTopics bounds what is remembered. A topic that is forgotten gets no Gap.
const maxTopics = 1 << 14

// Topics are those that a Source has published to, as far as they matter when a connection has been lost. They live as long as the
// Source. The zero value has none. Only Skipped may be called concurrently.
type Topics struct {
	lossy   map[string]bool   // by topic: whether a message has come that nobody keeps while the Source is away
	owed    map[string]string // gaps that are not yet declared: the reason by topic
	skipped atomic.Int64
}

// Skipped returns how many messages the hub would not take.
func (t *Topics) Skipped() int64 { return t.skipped.Load() }

// Interrupted says that the Source was away for a while, and that the broker has kept what it keeps. A Gap is owed to the topics that
// have other messages as well.
func (t *Topics) Interrupted(reason string) {
	for topic, lossy := range t.lossy {
		if lossy && t.owed[topic] == "" {
			t.owe(topic, reason)
		}
	}
}

// Lost says that what the broker has kept is gone. A Gap is owed to all topics.
func (t *Topics) Lost(reason string) {
	for topic := range t.lossy {
		t.owe(topic, reason)
	}
}

func (t *Topics) owe(topic, reason string) {
	if t.owed == nil {
		t.owed = make(map[string]string)
	}
	t.owed[topic] = reason
}

// Declare publishes the gaps that are owed. After an error those that are left stay owed.
func (t *Topics) Declare(ctx context.Context, pub tailcast.Publisher) error {
	for topic, reason := range t.owed {
		gap := &tailcast.Gap{Count: -1, Bytes: -1, Possible: true, Reason: reason}
		if err := pub.Publish(ctx, tailcast.Message{Topic: topic, Gap: gap}); err != nil {
			return err
		}
		delete(t.owed, topic)
	}
	return nil
}

// note says that a message comes.
func (t *Topics) note(topic string, lossy bool) {
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

func (t *Topics) forget(topic string) { delete(t.lossy, topic) }
