package nats_test

import (
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
	"github.com/tailcast/tailcast/tailcasttest"
)

// The Backplane holds to the contract.
func TestConformance(t *testing.T) {
	var now *broker
	open := func(t testing.TB) func(string) tailcast.Backplane {
		broker := newBroker(t)
		now = broker
		return func(name string) tailcast.Backplane {
			return broker.plane(func(c *nats.Config) { c.Node = name })
		}
	}
	tailcasttest.TestBackplane(t, open,
		tailcasttest.Away(func(testing.TB) { now.stop() }, func(testing.TB) { now.start() }),
		tailcasttest.TooLarge(1<<20),
		tailcasttest.Anew(func(t testing.TB) { deleteStream(t, now.url()) }),
		tailcasttest.IgnoreGoroutines("nats.go.(*Conn)", "nats.go.(*asyncCallbacksHandler)", "nats%2ego")) // the connection lives until Close
}
