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
	base    string // the leg that the others are compared with
	goals   []goal
}

// A leg is one run of a round.
type leg struct {
	name string // of its row
	spec
}

// A goal is what one leg should reach.
type goal struct {
	leg     string
	what    measure
	atLeast float64
	wanted  float64
}

// sizes are how large the works are.
type sizes struct {
	conns, idle, many    int
	seconds, manySeconds int
	share                float64 // of the messages at once
}

var fullSizes = sizes{conns: 1000, idle: 5000, many: 19_000, seconds: 5, manySeconds: 60, share: 1}

func (z sizes) atOnce(n int) int { return max(1, int(z.share*float64(n))) }

const (
	messageSize = 128
	patience    = 15 * time.Second
)

// paced is a run of all servers named at a rate.
func (z sizes) paced(conns, rate int, servers ...string) []leg {
	return legs(spec{Conns: conns, Rate: rate, Count: rate * z.seconds}, servers...)
}

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

// works are all of them.
func (z sizes) works() []*work {
	all := []string{"tailcast", "gws", "raw"}
	return []*work{
		{
			section: 1, title: fmt.Sprintf("%d connections × 200 messages/s, %d s", z.conns, z.seconds),
			legs: z.paced(z.conns, 200, all...), base: "gws",
			goals: []goal{{"tailcast", cpuRatio, 0.95, 0.85}, {"tailcast", p99Ratio, 0, 1}},
		}, {
			section: 3, title: fmt.Sprintf("%d connections × 50 messages/s, %d s", z.conns, z.seconds),
			legs: z.paced(z.conns, 50, all...), base: "gws",
			goals: []goal{{"tailcast", cpuRatio, 0.90, 0.75}, {"tailcast", p99Ratio, 0, 1}},
		}, {
			section: 4, title: fmt.Sprintf("%d connections, %d messages at once", z.conns, z.atOnce(2000)),
			legs: legs(spec{Conns: z.conns, Count: z.atOnce(2000)}, all...), base: "gws",
			goals: []goal{{"tailcast", cpuRatio, 0.08, 0.03}},
		}, {
			section: 7, title: fmt.Sprintf("%d idle connections", z.idle),
			legs:  legs(spec{Conns: z.idle}, all...),
			goals: []goal{{"tailcast", idleBytes, 14 << 10, 10 << 10}},
		},
	}
}
