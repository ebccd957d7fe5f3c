package tailcast_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

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

// BenchmarkEnvelopes is BenchmarkFanout with viewers of tailcast.v1 and of NDJSON.
func BenchmarkEnvelopes(b *testing.B) {
	for _, conns := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			hub := tailcast.New()
			b.Cleanup(func() { hub.Close() })
			sockets := attach(b, hub, conns)
			msg := tailcast.Message{Data: []byte(strings.Repeat("a line of a log ", 8))}
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				deliver(b, hub, sockets, msg)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(conns), "ns/delivery")
		})
	}
}

// BenchmarkCompression sends JSON log text to 100 viewers, compressed and as it is. An operation is one message to all of them, from
// Publish until the last one has it, over sockets that cost nothing: so it shows what compressing costs, and B/delivery what it saves.
func BenchmarkCompression(b *testing.B) {
	const conns = 100
	for _, size := range []int{1 << 10, 16 << 10} {
		for _, level := range []int{0, 1, 6, 9} {
			b.Run(fmt.Sprintf("bytes=%d/level=%d", size, level), func(b *testing.B) {
				var opts []tailcast.Option
				if level != 0 {
					opts = append(opts, tailcast.WithCompression(level))
				}
				hub := tailcast.New(opts...)
				b.Cleanup(func() { hub.Close() })
				sockets := make([]*tailcast.DiscardSocket, conns)
				for i := range sockets {
					sockets[i] = new(tailcast.DiscardSocket)
					if level == 0 {
						b.Cleanup(hub.Attach(sockets[i]))
					} else {
						b.Cleanup(hub.AttachDeflating(sockets[i]))
					}
				}
				messages := make([]tailcast.Message, 64)
				for i := range messages {
					messages[i].Data = jsonLog(uint64(i), size)
				}
				before, sent := make([]int64, conns), int64(0)
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					if err := hub.Publish(b.Context(), messages[n%len(messages)]); err != nil {
						b.Fatal(err)
					}
					for i, s := range sockets {
						for s.Bytes.Load() == before[i] {
							runtime.Gosched()
						}
						sent += s.Bytes.Load() - before[i]
						before[i] = s.Bytes.Load()
					}
				}
				b.ReportMetric(float64(sent)/float64(b.N)/conns, "B/delivery")
			})
		}
	}
}

// jsonLog returns lines of JSON as a service logs them, n bytes of them.
func jsonLog(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, `{"time":"2026-01-02T15:%02d:%02d.%09dZ","level":"%s","msg":"request served","method":"GET","path":"%s","status":%d,"bytes":%d,"remote":"10.%d.%d.%d:%d","trace":"%016x","duration_ms":%.3f}`+"\n",
			r.IntN(60), r.IntN(60), r.IntN(1e9), pick("INFO", "WARN", "ERROR", "DEBUG"), pick("/api/v1/users", "/api/v1/orders/checkout", "/healthz", "/static/app.js", "/login"),
			200+r.IntN(300), r.IntN(100_000), r.IntN(256), r.IntN(256), r.IntN(256), r.IntN(65536), r.Uint64(), 100*r.Float64())
	}
	return b[:n]
}

// attach adds as many viewers, one half of tailcast.v1 and the other of NDJSON, and waits until they have been told where they
// stand.
func attach(t testing.TB, hub *tailcast.Hub, conns int) []*tailcast.DiscardSocket {
	sockets := make([]*tailcast.DiscardSocket, conns)
	for i := range sockets {
		sockets[i] = new(tailcast.DiscardSocket)
		f := hub.AttachEnvelopes
		if i%2 == 1 {
			f = hub.AttachNDJSON
		}
		t.Cleanup(f(sockets[i], "", "another topic"))
	}
	for _, s := range sockets {
		for s.Bytes.Load() < 80 { // two pos objects
			runtime.Gosched()
		}
	}
	return sockets
}

// deliver publishes a message and waits until all have it.
func deliver(t testing.TB, hub *tailcast.Hub, sockets []*tailcast.DiscardSocket, msg tailcast.Message) {
	before := make([]int64, 0, 16)
	for _, s := range sockets {
		before = append(before, s.Bytes.Load())
	}
	if err := hub.Publish(context.Background(), msg); err != nil {
		t.Fatal(err)
	}
	for i, s := range sockets {
		for s.Bytes.Load() < before[i]+int64(len(msg.Data)) {
			runtime.Gosched()
		}
	}
}

// A message costs its viewers nothing that grows with their number but the write.
func TestEnvelopesAreMadeOnceForAll(t *testing.T) {
	const conns, messages = 1000, 50
	hub := tailcast.New(tailcast.WithHeartbeat(0), tailcast.WithPing(0, time.Second))
	t.Cleanup(func() { hub.Close() })
	sockets := attach(t, hub, conns)
	msg := tailcast.Message{Data: []byte(strings.Repeat("a line of a log ", 8))}
	deliver(t, hub, sockets, msg)
	used := hub.MemoryUsed()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range messages {
		deliver(t, hub, sockets, msg)
	}
	runtime.ReadMemStats(&after)
	perDelivery := float64(after.Mallocs-before.Mallocs) / (conns * messages)
	if t.Logf("%.4f allocations a delivery", perDelivery); perDelivery > 0.05 {
		t.Errorf("%.2f allocations for each message and viewer", perDelivery)
	}
	if grown := hub.MemoryUsed() - used; grown > messages*1000 {
		t.Errorf("%d messages take %d bytes", messages, grown)
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

// BenchmarkPush pushes to one of 10 000 connected users, each with one connection and so many of so many topics, and to users who are not
// there: of those nothing is kept, so it is all the same whether there are a million of them. With -short 500 users are connected: a
// million topics of users take most of the time.
func BenchmarkPush(b *testing.B) {
	const strangers = 1_000_000
	users := 10_000
	if testing.Short() {
		users = 500
	}
	for _, c := range []struct{ topics, of int }{{1, 1}, {1, 100}, {1, 10_000}, {10, 100}, {100, 100}} {
		hub := tailcast.New(tailcast.WithLimits(tailcast.Limits{Topics: 128}))
		name := func(user, i int) string { return fmt.Sprint("topic", (user+i)%c.of) }
		before := heapInUse()
		var detach []func()
		for u := range users {
			names := make([]string, c.topics)
			for i := range names {
				names[i] = name(u, i)
			}
			detach = append(detach, hub.AttachUser(new(tailcast.DiscardSocket), fmt.Sprint("user", u), names...))
		}
		each := float64(heapInUse()-before) / float64(users)
		data := []byte(strings.Repeat("x", 128))
		run := func(what string, want int, user func(i int) (string, int)) {
			b.Run(fmt.Sprintf("topics=%d of %d/%s", c.topics, c.of, what), func(b *testing.B) {
				all := make([][2]string, 4096)
				for i := range all {
					u, n := user(i)
					all[i] = [2]string{u, name(n, i%c.topics)}
				}
				b.ReportAllocs()
				defer b.ReportMetric(each, "heap-B/conn") // the loop forgets what was reported before
				for i := 0; b.Loop(); i++ {
					to := &all[i%len(all)]
					r, err := hub.Push(b.Context(), to[0], to[1], data)
					if err != nil || r.Matched != want {
						b.Fatal(r, err)
					}
				}
			})
		}
		run("connected", 1, func(i int) (string, int) { n := i * 7919 % users; return fmt.Sprint("user", n), n })
		run("not connected", 0, func(i int) (string, int) { n := i * 7919 % strangers; return fmt.Sprint("stranger", n), n })
		for _, f := range detach {
			f()
		}
		hub.Close()
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
