package nats_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// collect reads n messages of a topic.
func collect(t testing.TB, hub *tailcast.Hub, topic string, from tailcast.Position, n int) (msgs []tailcast.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for m, err := range hub.Subscribe(ctx, topic, from) {
		if err != nil {
			t.Errorf("after %d messages: %v", len(msgs), err)
			break
		}
		if msgs = append(msgs, m); len(msgs) == n {
			break
		}
	}
	return msgs
}

// Two hubs have the same messages in the same places, and one that comes later reads them from the stream.
func TestTwoHubs(t *testing.T) {
	broker := newBroker(t)
	a, b := broker.hub(), broker.hub()
	const topic = "a topic.with > * and ünïcode"
	for i := range 10 {
		hub := []*tailcast.Hub{a, b}[i%2]
		if err := hub.Publish(t.Context(), tailcast.Message{Topic: topic, Data: fmt.Append(nil, i), Binary: i == 3, Partial: i == 4}); err != nil {
			t.Fatal(err)
		}
	}
	want := collect(t, a, topic, tailcast.Earliest(), 10)
	for _, hub := range []*tailcast.Hub{b, broker.hub()} {
		got := collect(t, hub, topic, tailcast.Earliest(), 10)
		for i, m := range got {
			w := want[i]
			if string(m.Data) != fmt.Sprint(i) || m.Pos != w.Pos || !m.Time.Equal(w.Time) || m.Binary != (i == 3) || m.Partial != (i == 4) {
				t.Errorf("message %d: %+v, and %+v", i, m, w)
			}
		}
		got = collect(t, hub, topic, want[6].Pos, 3)
		if len(got) != 3 || got[0].Pos != want[7].Pos {
			t.Errorf("%+v", got)
		}
	}
}
