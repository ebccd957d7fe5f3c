package client_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A pad is a hub's own topics: what is written there while a hub runs is published without positions, and gone with it.
type pad struct{ *journal }

func (p pad) Run(ctx context.Context, pub tailcast.Publisher) error {
	at, _ := p.state()
	for {
		lines, more := p.state()
		for topic, name := range journalTopics {
			for ; at[topic] < lines[topic]; at[topic]++ {
				if err := pub.Publish(ctx, tailcast.Message{Topic: name, Data: fmt.Append(nil, at[topic]+1)}); err != nil {
					return err
				}
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A chain of three hubs of which the first numbers its topics itself, and begins anew each time: lines come in order, none comes twice,
// where one is missing there is a gap, and nobody is left behind.
func TestHubsThatForget(t *testing.T) {
	seeds := uint64(12)
	if os.Getenv("TAILCAST_SOAK") != "" {
		seeds = 700
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hubsThatForget(t, rand.New(rand.NewPCG(seed, 5))) })
		})
	}
}

func hubsThatForget(t *testing.T, rng *rand.Rand) {
	j := newJournal()
	relay := func(of *node) func() tailcast.Source {
		of.cut.Store(20_000)
		return func() tailcast.Source {
			return client.Source("http://hub.example/", client.WithHTTPClient(of.client()), client.WithTopics("a", "b"))
		}
	}
	first := newNode(t, func() tailcast.Source { return pad{j} })
	middle := newNode(t, relay(first))
	last := newNode(t, relay(middle))
	last.cut.Store(5000)
	nodes := []*node{first, middle, last}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var newest [4][2]atomic.Int64
	for i, of := range []*node{first, middle, last, last} {
		hc := of.client()
		naps := rand.New(rand.NewPCG(rng.Uint64(), 1))
		wg.Go(func() {
			var missing [2]bool
			for m, err := range client.Follow(ctx, "http://hub.example/", client.WithHTTPClient(hc), client.WithTopics("a", "b")) {
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("viewer %d: %v", i, err)
					return
				}
				topic := 0
				if m.Topic == journalTopics[1] {
					topic = 1
				}
				if i == 3 && naps.IntN(50) == 0 {
					time.Sleep(time.Minute)
				}
				if m.Gap != nil {
					missing[topic] = true
					continue
				}
				n, _ := strconv.ParseInt(string(m.Data), 10, 64)
				had := newest[i][topic].Load()
				if n <= had || n != had+1 && had > 0 && !missing[topic] {
					t.Errorf("viewer %d: topic %s: line %d after line %d, a gap between: %v", i, m.Topic, n, had, missing[topic])
				}
				missing[topic] = false
				newest[i][topic].Store(n)
			}
		})
	}
	j.write(rng, 1000, func(int) {
		if rng.IntN(25) != 0 {
			return
		}
		victim := nodes[rng.IntN(3)]
		victim.stop()
		if rng.IntN(2) == 0 {
			j.append(rng.IntN(2))
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
		}
		victim.start()
	})
	for range 3 {
		time.Sleep(5 * time.Minute)
		j.append(0)
		j.append(1)
	}
	time.Sleep(5 * time.Minute)
	lines, _ := j.state()
	for i := range newest {
		for topic, n := range lines {
			if got := newest[i][topic].Load(); got != int64(n) {
				t.Errorf("viewer %d: topic %d: stopped at %d of %d", i, topic, got, n)
			}
		}
	}
	cancel()
	wg.Wait()
}

// Who comes back to a relay with the position before a gap that has none is told of it, as by the first hub.
func TestARelayThatBeginsAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New()
		defer first.Close()
		pos := func(n uint64) tailcast.Position { return tailcast.Position{Epoch: 1, Offset: n} }
		next := make(chan struct{})
		go first.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			if err := pub.Publish(ctx, tailcast.Message{Pos: pos(1), Data: []byte("one")},
				tailcast.Message{Gap: &tailcast.Gap{From: pos(1), Count: -1, Bytes: -1}}); err != nil {
				return err
			}
			<-next
			if err := pub.Publish(ctx, tailcast.Message{Pos: pos(9), Data: []byte("nine")}); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}))
		synctest.Wait()
		srv := tailcasttest.Serve(t, first)
		second := relaying(t, client.Source(srv.URL, client.WithHTTPClient(srv.Client())))
		time.AfterFunc(time.Second, func() { close(next) })
		for name, hub := range map[string]*tailcast.Hub{"the relay": second, "the first hub": first} {
			if got := data(watch(t, hub, "", pos(1))); len(got) != 2 || got[0] != "gap" || got[1] != "nine" {
				t.Errorf("%s: %q", name, got)
			}
		}
	})
}
