package tailcast_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/tailcast/tailcast"
)

// BenchmarkFanout publishes 128-byte messages to sockets that take everything at once: what is left is the hub's own work.
// An operation is one message to all connections.
func BenchmarkFanout(b *testing.B) {
	for _, conns := range []int{1, 100, 10_000} {
		for _, burst := range []int{1, 64} {
			b.Run(fmt.Sprintf("conns=%d/burst=%d", conns, burst), func(b *testing.B) { benchmarkFanout(b, conns, burst) })
		}
	}
}

func benchmarkFanout(b *testing.B, conns, burst int) {
	hub := tailcast.New()
	defer hub.Close()
	sockets := make([]*tailcast.DiscardSocket, conns)
	for i := range sockets {
		sockets[i] = new(tailcast.DiscardSocket)
		defer hub.Attach(sockets[i])()
	}
	ctx := context.Background()
	msgs := make([]tailcast.Message, burst)
	for i := range msgs {
		msgs[i].Data = make([]byte, 128)
	}
	const frame = 4 + 128
	b.ReportAllocs()
	b.ResetTimer()
	sent := int64(0)
	for b.Loop() {
		if err := hub.Publish(ctx, msgs...); err != nil {
			b.Fatal(err)
		}
		sent += int64(burst) * frame
		for _, s := range sockets { // the next message goes when all have this one
			for s.Bytes.Load() < sent {
				runtime.Gosched()
			}
		}
	}
	perOp := float64(conns * burst)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/perOp, "ns/delivery")
}
