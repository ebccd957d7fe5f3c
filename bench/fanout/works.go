package main

import (
	"fmt"
	"time"
)

// A work is what several servers do, one after another, round for round.
type work struct {
	section int
	title   string
	about   string
	legs    []leg
	base    string // the leg that the others are compared with; "" = none
	goals   []goal
	once    bool // it is long, and compares nothing: one round will do
}

// A leg is one run of a round.
type leg struct {
	name string // of its row
	spec
}

// sizes are how large the works are.
type sizes struct {
	conns, idle, many    int
	seconds, manySeconds float64
	share                float64 // of the messages at once
}

var (
	fullSizes  = sizes{conns: 1000, idle: 5000, many: 19_000, seconds: 5, manySeconds: 60, share: 1}
	quickSizes = sizes{conns: 50, idle: 100, many: 200, seconds: 0.3, manySeconds: 0.3, share: 0.05} // that it works
)

func (z sizes) atOnce(n int) int { return max(1, int(z.share*float64(n))) }

// during is how many messages there are in a time.
func during(rate int, seconds float64) int { return max(1, int(float64(rate)*seconds)) }

func (z sizes) few() int { return max(1, z.conns/10) }

const (
	messageSize = 128
	patience    = 15 * time.Second
)

// legs are runs of the same spec by several servers.
func legs(s spec, servers ...string) []leg {
	var out []leg
	for _, name := range servers {
		s.Server = name
		out = append(out, leg{name, s.filled()})
	}
	return out
}

// filled sets what most runs have in common.
func (s spec) filled() spec {
	if s.Transport == "" {
		s.Transport = overWS
	}
	if s.Topics == 0 {
		s.Topics = 1
	}
	if s.Size == 0 {
		s.Size = messageSize
	}
	s.Patience = patience
	return s
}

// paced is a spec at a rate.
func (z sizes) paced(conns, rate int) spec {
	return spec{Conns: conns, Rate: rate, Count: during(rate, z.seconds)}
}

// peers are all servers of plain WebSockets, but for variants.
var peers = []string{"tailcast", "gws", "gorilla", "melody", "gobwas", "centrifuge", "nhooyr", "raw"}

// works are all of them.
func (z sizes) works() []*work {
	flushed := append([]string{"tailcast-flush"}, peers[1:]...)
	burst := func(section, conns, n int, atLeast, wanted float64) *work {
		n = z.atOnce(n)
		return &work{
			section: section, title: fmt.Sprintf("%d × %d messages at once", conns, n),
			legs: legs(spec{Conns: conns, Count: n}, peers...), base: "gws",
			goals: []goal{{"tailcast", cpuRatio, atLeast, wanted}},
		}
	}
	all := []*work{
		{
			section: 1, title: fmt.Sprintf("%d connections × 200 messages/s, %v s", z.conns, z.seconds),
			legs: legs(z.paced(z.conns, 200), peers...), base: "gws",
			goals: []goal{{"tailcast", cpuRatio, 0.95, 0.85}, {"tailcast", p99Ratio, 0, 1}},
		}, {
			section: 2, title: fmt.Sprintf("%d connections × 200 messages/s, %v s, held for 20 ms", z.conns, z.seconds),
			about: "The servers that have nothing of the kind do what they did before.",
			legs:  legs(z.paced(z.conns, 200), append(flushed, "raw-flush")...), base: "gws",
			goals: []goal{{"tailcast-flush", cpuRatio, 0.35, 0.30}},
		}, {
			section: 3, title: fmt.Sprintf("%d connections × 50 messages/s, %v s", z.conns, z.seconds),
			legs: legs(z.paced(z.conns, 50), peers...), base: "gws",
			goals: []goal{{"tailcast", cpuRatio, 0.90, 0.75}, {"tailcast", p99Ratio, 0, 1}},
		},
		burst(4, z.conns, 2000, 0.08, 0.03),
		burst(5, z.few(), 20_000, 0.08, 0.03),
		burst(6, 1, 200_000, 0.12, 0.08),
		{
			section: 7, title: fmt.Sprintf("%d idle connections", z.idle),
			legs: legs(spec{Conns: z.idle}, append([]string{"tailcast", "tailcast-detach"}, peers[1:]...)...),
			goals: []goal{
				{"tailcast", idleKB, 14, 10},
				{"tailcast-detach", idleKB, 7.5, 5}, {"tailcast-detach", idleGoroutines, 1, 1},
			},
		},
	}
	all = append(all, z.transports()...)
	all = append(all, &work{
		section: 9, title: fmt.Sprintf("%d connections, idle, then 10 messages/s for %v s", z.many, z.manySeconds),
		legs:  legs(spec{Conns: z.many, Rate: 10, Count: during(10, z.manySeconds), Weigh: true}, "tailcast"),
		about: "In one round.", once: true,
	})
	all = append(all, z.growth()...)
	return append(all, z.stalled())
}

// transports are what is not a plain WebSocket, against a loop written by hand.
func (z sizes) transports() (works []*work) {
	for _, t := range []struct {
		transport, name string
		servers         []string
	}{
		{overWSS, "WebSocket over TLS", []string{"tailcast", "loop", "gws"}},
		{overSSE, "SSE over HTTP/1.1", []string{"tailcast", "loop"}},
		{overSSEh2, "SSE over HTTP/2 with TLS", []string{"tailcast", "loop"}},
	} {
		s := z.paced(z.conns, 50)
		s.Transport = t.transport
		works = append(works, &work{
			section: 8, title: fmt.Sprintf("%s: %d connections × 50 messages/s, %v s", t.name, z.conns, z.seconds),
			legs: legs(s, t.servers...), base: "loop",
			goals: []goal{{"tailcast", cpuRatio, 1, 1}},
		})
	}
	return works
}

// growth has as many deliveries in each leg.
func (z sizes) growth() []*work {
	const perConn = 50
	conns := &work{
		section: 10, title: fmt.Sprintf("growing: connections, %d deliveries/s", perConn*z.conns),
		about: "What raw's rows grow by is the kernel's: of more sockets less is in the processor's caches, and fewer bytes go with one wake-up.",
		goals: []goal{{"", within("tailcast,", cpuAll), 2, 2}},
	}
	for _, server := range []string{"tailcast", "raw"} {
		for _, n := range []int{max(1, z.conns/100), z.few(), z.conns, 10 * z.conns} {
			l := legs(z.paced(n, perConn*z.conns/n), server)[0]
			l.name = fmt.Sprintf("%s, %d connections", server, n)
			conns.legs = append(conns.legs, l)
		}
	}
	conns.base = conns.legs[2].name
	topics := &work{
		section: 10, title: fmt.Sprintf("growing: topics of each connection, %d deliveries/s to %d connections", perConn*z.conns, z.conns),
		goals: []goal{{"", within("tailcast,", cpuAll), 2, 2}},
	}
	for _, n := range []int{1, 10, 100} {
		s := spec{Conns: z.conns, Topics: n, Rate: perConn, Count: (during(perConn, z.seconds) + n - 1) / n}
		l := legs(s, "tailcast")[0]
		l.name = fmt.Sprintf("tailcast, %d topics", n)
		topics.legs = append(topics.legs, l)
	}
	topics.base = topics.legs[0].name
	return []*work{conns, topics}
}

// stalled has connections that read nothing beside those that do. The messages are large, so that the kernel's buffers are full soon; until
// then those that will stall take messages as all others do, and there are twice as many of them.
func (z sizes) stalled() *work {
	const filling = 2 // seconds
	seconds := filling + max(z.seconds, 1)
	s := spec{Conns: z.conns, Rate: 20, Count: during(20, seconds), Size: 8 << 10, Warm: during(20, filling)}
	alone := legs(s, "tailcast")[0]
	alone.name = "tailcast, nobody stalls"
	s.Stalled = z.conns
	beside := legs(s, "tailcast")[0]
	beside.name = fmt.Sprintf("tailcast, %d stall", s.Stalled)
	return &work{
		section: 11, title: fmt.Sprintf("%d connections × 20 messages/s of 8 KiB, %v s, beside as many that read nothing", z.conns, seconds),
		about: "The latencies are those of the connections that read, after the first 2 s, in which the others' buffers fill.",
		legs:  []leg{alone, beside}, base: alone.name,
		goals: []goal{{beside.name, p99Ratio, 1.5, 1.5}},
	}
}
