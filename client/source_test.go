package client_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/tailcasttest"
)

// An upstream is a hub and a Source that relays it.
type upstream struct {
	*client.Relay
	hub *tailcast.Hub
	n   int
}

func newUpstream(t testing.TB, opts ...tailcast.Option) *upstream {
	u := &upstream{hub: tailcast.New(append([]tailcast.Option{tailcast.WithAuthorize(tailcast.AllowAllTopics)}, opts...)...)}
	t.Cleanup(func() { u.hub.Close() })
	srv := tailcasttest.Serve(t, u.hub)
	u.Relay = client.Source(srv.URL, client.WithHTTPClient(srv.Client()), client.WithTopics("a", "b"),
		client.WithSince(map[string]tailcast.Position{"a": tailcast.Earliest(), "b": tailcast.Earliest()}))
	for range 4 {
		u.more(t)
	}
	return u
}

// more publishes messages of all kinds.
func (u *upstream) more(t testing.TB) {
	u.n++
	line := fmt.Sprintf("line %d: \"\\\u2028\u0001\t", u.n)
	err := u.hub.Publish(context.Background(),
		tailcast.Message{Topic: "a", Data: []byte(line)},
		tailcast.Message{Topic: "a", Data: []byte(line), Partial: true},
		tailcast.Message{Topic: "b", Data: []byte{0xff, byte(u.n)}},
		tailcast.Message{Topic: "b", Data: fmt.Append(nil, u.n), Binary: true})
	if err != nil {
		t.Fatal(err)
	}
}

func TestARelayIsASource(t *testing.T) {
	tailcasttest.TestSource(t, func(t testing.TB) *upstream { return newUpstream(t) },
		tailcasttest.Messages(8), tailcasttest.Bubble())
}

func TestARelayIsAReplayer(t *testing.T) {
	tailcasttest.TestReplayer(t, func(t testing.TB) *upstream {
		return newUpstream(t, tailcast.WithRetention(tailcast.Retention{Messages: 1000}))
	},
		func(t testing.TB, u *upstream) { u.more(t) },
		tailcasttest.Messages(8), tailcasttest.Bubble(),
		tailcasttest.Expire(func(t testing.TB, u *upstream) {
			for range 497 {
				u.more(t)
			}
		}))
}
