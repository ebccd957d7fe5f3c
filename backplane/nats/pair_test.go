package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

// newPair returns the address of one of two brokers that are a cluster, and that have the stream both.
func newPair(t testing.TB, maxPayload int32) string {
	t.Helper()
	ports := freePorts(t, 4)
	var routes []string
	for _, port := range ports[2:] {
		routes = append(routes, fmt.Sprint("nats://127.0.0.1:", port))
	}
	for i := range 2 {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: ports[i], NoLog: true, NoSigs: true, MaxPayload: maxPayload,
			JetStream: true, StoreDir: t.TempDir(), Routes: server.RoutesFromStr(strings.Join(routes, ",")),
			Cluster: server.ClusterOpts{Name: "pair", Host: "127.0.0.1", Port: ports[2+i]},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
	}
	return fmt.Sprint("nats://127.0.0.1:", ports[0])
}

// A batch's own headers count as well: messages that are as large as the server takes are stored one at a time.
func TestABatchOfTheLargestMessages(t *testing.T) {
	t.Parallel()
	plane := nats.New(nats.Config{URL: newPair(t, 1<<10), Replicas: 2})
	defer plane.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var large *tailcast.TooLargeError
	if err := plane.Publish(ctx, tailcast.Message{Data: make([]byte, 1<<10)}); !errors.As(err, &large) {
		t.Fatal(err)
	}
	message := func(n int) tailcast.Message { return tailcast.Message{Data: make([]byte, n)} }
	if err := plane.Publish(ctx, message(1), message(large.Limit), message(2), message(large.Limit)); err != nil {
		t.Error(err)
	}
}
