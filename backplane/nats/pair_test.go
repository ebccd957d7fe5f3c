package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

// newPair returns the addresses of two brokers that are a cluster, n0 and n1.
func newPair(t testing.TB, maxPayload int32) (urls []string) {
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
		urls = append(urls, fmt.Sprint("nats://127.0.0.1:", ports[i]))
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
	}
	return urls
}

// A batch's own headers count as well: messages that are as large as the server takes are stored one at a time.
func TestABatchOfTheLargestMessages(t *testing.T) {
	t.Parallel()
	plane := nats.New(nats.Config{URL: newPair(t, 1<<10)[0], Replicas: 2})
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

// A server that leads a stream of batches may be older than they are, in the midst of an upgrade. It stores each message by itself, and
// acknowledges the last one: what was lost on the way before that is not taken for stored.
func TestALeaderThatKnowsNoBatches(t *testing.T) {
	t.Parallel()
	old := new(oldServer)
	plane := nats.New(nats.Config{URL: newPair(t, 0)[0], Replicas: 2, Options: []natsgo.Option{natsgo.SetCustomDialer(old)}})
	defer plane.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := plane.Publish(ctx, tailcast.Message{Data: []byte("first")}); err != nil {
		t.Fatal(err)
	}
	old.loses.Store(true)
	msgs := []tailcast.Message{{Data: []byte("second")}, {Topic: "lost", Data: []byte("third")}, {Data: []byte("fourth")}}
	if err := plane.Publish(ctx, msgs...); err != nil {
		t.Fatal(err)
	}
	if old.loses.Load() {
		t.Fatal("nothing was lost")
	}
	for topic, want := range map[string]string{"": "first second fourth", "lost": "third"} {
		var got []string
		for m, err := range plane.Replay(ctx, topic, tailcast.Earliest()) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(m.Data))
			if len(got) == len(strings.Fields(want)) {
				break
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("topic %q has %q", topic, got)
		}
	}
}

// An oldServer is the way to one: it takes away what messages say of batches.
type oldServer struct{ loses atomic.Bool } // the next message of the topic "lost"

func (s *oldServer) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return &oldConn{c, s}, err
}

type oldConn struct {
	net.Conn
	s *oldServer
}

func (c *oldConn) Write(b []byte) (int, error) {
	out := bytes.ReplaceAll(b, []byte("Nats-Batch-"), []byte("Past-Batch-"))
	if to := []byte("HPUB tailcast.t.lost "); bytes.Contains(out, to) && c.s.loses.CompareAndSwap(true, false) {
		out = bytes.Replace(out, to, []byte("HPUB somebody.s.lost "), 1)
	}
	return c.Conn.Write(out)
}

// A stream gets replicas while a node is connected to the server that has had it for itself: its messages go as batches from then on.
func TestAStreamThatGetsReplicas(t *testing.T) {
	t.Parallel()
	urls := newPair(t, 0)
	first := nats.New(nats.Config{URL: urls[0]})
	defer first.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := first.Publish(ctx, tailcast.Message{Topic: "first"}); err != nil {
		t.Fatal(err)
	}
	js := jetStream(t, urls[0])
	stream, err := js.Stream(ctx, "tailcast")
	if err != nil {
		t.Fatal(err)
	}
	at := urls[0]
	if stream.CachedInfo().Cluster.Leader == "n1" {
		at = urls[1]
	}
	hub := hubAt(t, at, nil)
	prime(t, hub)
	batches := func() bool {
		if err := hub.Publish(ctx, tailcast.Message{Data: []byte("one")}, tailcast.Message{Data: []byte("two")}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.GetLastMsgForSubject(ctx, "tailcast.t.*")
		return err == nil && m.Header.Get("Nats-Batch-Id") != ""
	}
	if batches() {
		t.Error("it has a batch from a node that reaches it directly")
	}
	c := stream.CachedInfo().Config
	c.Replicas = 2
	if _, err := js.UpdateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
	waitFor(t, batches)
}
