package main

import (
	"context"
	"fmt"

	"github.com/tailcast/tailcast"
)

// tailcastServer is a hub. Its connections have all topics of the run.
type tailcastServer struct {
	web
	hub    *tailcast.Hub
	topics []string
	burst  bool
	ahead  int64 // bytes published since it was last waited for viewers
}

// How far the slowest viewer may be behind, of the 8 MiB that are kept by default, and after how much more that is asked.
const (
	lagBytes  = 4 << 20
	lagLooked = 1 << 20
)

// newTailcast makes a hub with an option, or with none.
func newTailcast(option func() tailcast.Option) func(*spec) (server, error) {
	return func(s *spec) (server, error) {
		var opts []tailcast.Option
		if option != nil {
			opts = append(opts, option())
		}
		t := &tailcastServer{hub: tailcast.New(opts...), topics: topicNames(s.Topics), burst: s.burst()}
		t.web = web{t.hub}
		if s.Topics > 1 {
			t.web = web{t.hub.Handler(t.topics...)}
		}
		return t, nil
	}
}

// topicNames are the names of n topics: one is the default topic.
func topicNames(n int) []string {
	names := []string{""}
	if n > 1 {
		names[0] = "t0"
	}
	for i := 1; i < n; i++ {
		names = append(names, fmt.Sprintf("t%d", i))
	}
	return names
}

func (t *tailcastServer) viewers() (n int) {
	for range t.hub.Conns() {
		n++
	}
	return n
}

func (t *tailcastServer) lag() uint64 { return t.hub.Stats().LagBytes }

func (t *tailcastServer) publish(topic uint8, m []byte) error {
	ctx := context.Background()
	if t.burst {
		if t.ahead += int64(len(m)); t.ahead >= lagLooked {
			t.ahead = 0
			if err := t.hub.WaitLag(ctx, t.topics[topic], lagBytes); err != nil {
				return err
			}
		}
	}
	return t.hub.Publish(ctx, tailcast.Message{Topic: t.topics[topic], Data: m})
}
