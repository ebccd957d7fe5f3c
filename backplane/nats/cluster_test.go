package nats_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

// A cluster is three brokers, each a program that can be killed.
type cluster struct {
	t       testing.TB
	members []*child
	urls    []string
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	ports := freePorts(t, 6)
	var routes []string
	for _, port := range ports[3:] {
		routes = append(routes, fmt.Sprint("nats://127.0.0.1:", port))
	}
	c := &cluster{t: t}
	starting := make(chan error, 3)
	for i := range 3 {
		m := &child{t: t, env: append(childEnv("broker"), fmt.Sprint(portEnv, "=", ports[i]), fmt.Sprint(memberEnv, "=", ports[3+i]),
			fmt.Sprint(nameEnv, "=", "n", i), routesEnv+"="+strings.Join(routes, ","), storeEnv+"="+t.TempDir())}
		t.Cleanup(m.kill)
		c.members = append(c.members, m)
		c.urls = append(c.urls, fmt.Sprint("nats://127.0.0.1:", ports[i]))
		go func() { starting <- m.tryStart() }()
	}
	for range c.members {
		if err := <-starting; err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) url() string { return strings.Join(c.urls, ",") }

// leader returns the member that leads the stream. It waits until there is one.
func (c *cluster) leader() (leader int) {
	c.t.Helper()
	js := jetStream(c.t, c.url())
	waitFor(c.t, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
		defer cancel()
		stream, err := js.Stream(ctx, "tailcast")
		if err != nil {
			return false
		}
		info := stream.CachedInfo().Cluster
		if info == nil || info.Leader == "" {
			return false
		}
		_, err = fmt.Sscanf(info.Leader, "n%d", &leader)
		return err == nil
	})
	return leader
}

// stepDown makes the stream's leader give way to another.
func (c *cluster) stepDown() {
	c.t.Helper()
	nc, err := natsgo.Connect(c.url())
	if err != nil {
		c.t.Fatal(err)
	}
	defer nc.Close()
	m, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.tailcast", nil, 5*time.Second)
	if err != nil || !strings.Contains(string(m.Data), `"success":true`) {
		c.t.Logf("step down: %v %s", err, m.Data) // there may be no leader at this moment
	}
}

// The stream is replicated. Its leader changes under load, because it steps down or is killed, again and again: nothing is lost, nothing
// comes twice, and all nodes have the same order, that of each publisher in it.
func TestTheLeaderChanges(t *testing.T) {
	t.Parallel()
	changes := soak(2, 60)
	c := newCluster(t)
	hubs := []*tailcast.Hub{hubAt(t, c.url(), replicated), hubAt(t, c.url(), replicated)}
	waitFor(t, func() bool { // until the cluster has a leader of its own
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return hubs[0].Publish(ctx, tailcast.Message{Topic: "first"}) == nil
	})
	from := prime(t, hubs[0])
	prime(t, hubs[1])
	l := newLoad(t, hubs, from)
	for i := range changes {
		time.Sleep(time.Duration(50+rand.IntN(300)) * time.Millisecond) // whatever they are at then
		if i%2 == 0 {
			c.stepDown()
			continue
		}
		m := c.members[c.leader()]
		m.kill()
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		m.start()
		c.leader()
	}
	t.Logf("%d changes, %d messages", changes, l.end())
}

// replicated is for a cluster. What is lost with a leader is sent again soon, so that there is more to lose.
func replicated(c *nats.Config) { c.Replicas, c.AckTimeout = 3, time.Second }
