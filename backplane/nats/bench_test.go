package nats_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

// What one stream takes: publishers at a time, and messages in each of their calls. The broker is a process of its own on this
// machine, so it shares the processors; its stream is a file.
func BenchmarkPublish(b *testing.B) {
	for _, c := range []struct{ publishers, batch int }{{1, 1}, {10, 1}, {100, 1}, {1, 256}, {10, 256}} {
		b.Run(fmt.Sprintf("publishers=%d/batch=%d", c.publishers, c.batch), func(b *testing.B) {
			plane := planeAt(b, "nats://"+newBrokerProcess(b).addr)
			publish(b, func(ctx context.Context, msgs []tailcast.Message) error { return plane.Publish(ctx, msgs...) }, c.publishers, c.batch)
		})
	}
}

// The same with a cluster of three, which keep the stream three times, and share the processors as well.
func BenchmarkPublishReplicated(b *testing.B) {
	c := newCluster(b)
	plane := planeAt(b, c.url(), replicated)
	for { // until the cluster has a leader of its own
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		err := plane.Publish(ctx, tailcast.Message{})
		cancel()
		if err == nil {
			break
		}
	}
	for _, n := range []struct{ publishers, batch int }{{1, 1}, {10, 1}, {100, 1}, {1, 256}, {10, 256}} {
		b.Run(fmt.Sprintf("publishers=%d/batch=%d", n.publishers, n.batch), func(b *testing.B) {
			publish(b, func(ctx context.Context, msgs []tailcast.Message) error { return plane.Publish(ctx, msgs...) }, n.publishers, n.batch)
		})
	}
}

// publish publishes b.N messages of 128 bytes.
func publish(b *testing.B, to func(context.Context, []tailcast.Message) error, publishers, batch int) {
	b.ReportAllocs()
	data := make([]byte, 128)
	if err := to(b.Context(), []tailcast.Message{{Data: data}}); err != nil { // connects
		b.Fatal(err)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	each := b.N/publishers + 1
	for range publishers {
		wg.Go(func() {
			for left := each; left > 0; left -= batch {
				msgs := make([]tailcast.Message, min(batch, left))
				for i := range msgs {
					msgs[i].Data = data
				}
				if err := to(b.Context(), msgs); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(publishers*each)/b.Elapsed().Seconds(), "msgs/s")
}

// From Publish at one node until all nodes have it in their logs.
func BenchmarkNodes(b *testing.B) {
	const publishers = 4
	for _, n := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			broker := newBrokerProcess(b)
			var hubs []*tailcast.Hub
			for range n {
				hubs = append(hubs, hubAt(b, "nats://"+broker.addr, nil))
			}
			from := prime(b, hubs[0])
			each := b.N/publishers + 1
			var wg sync.WaitGroup
			for _, hub := range hubs {
				wg.Go(func() {
					got := 0
					for m, err := range hub.Subscribe(b.Context(), "", from) {
						if err != nil || m.Gap != nil {
							b.Error(err, m.Gap)
							return
						}
						if got++; got == publishers*each+1 { // and the first one: see publish
							return
						}
					}
				})
			}
			publish(b, func(ctx context.Context, msgs []tailcast.Message) error { return hubs[0].Publish(ctx, msgs...) }, publishers, 256)
			wg.Wait()
			b.ReportMetric(float64(publishers*each)/b.Elapsed().Seconds(), "all/s")
		})
	}
}

// A past of which nothing is in memory, as a node has it that has just begun.
func BenchmarkReplay(b *testing.B) {
	plane := planeAt(b, "nats://"+newBrokerProcess(b).addr)
	msgs := make([]tailcast.Message, 1000)
	for i := range msgs {
		msgs[i].Data = make([]byte, 128)
	}
	for left := b.N; left > 0; left -= len(msgs) {
		if err := plane.Publish(b.Context(), msgs[:min(left, len(msgs))]...); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	n := 0
	for _, err := range plane.Replay(b.Context(), "", tailcast.Earliest()) {
		if err != nil {
			b.Fatal(err)
		}
		if n++; n == b.N {
			break
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msgs/s")
}

func planeAt(b *testing.B, url string, change ...func(*nats.Config)) *nats.Backplane {
	c := nats.Config{URL: url}
	for _, f := range change {
		f(&c)
	}
	plane := nats.New(c)
	b.Cleanup(func() { plane.Close() })
	return plane
}
