package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A bench is one run of everything.
type bench struct {
	sizes   sizes
	rounds  int
	only    string // servers, with commas; "" = all
	profile string
	out     string // file for the page; "" = none
	args    []string
	log     io.Writer
	began   time.Time
	load    string
	played  []*played
}

// played is a work with what has come of it.
type played struct {
	*work
	results map[string][]result // by leg, a round each
}

// A result is one run.
type result struct {
	*outcome
	err error
}

// play runs the works of these sections, with commas; without any, all.
func (b *bench) play(sections string) error {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	for _, w := range b.sizes.works() {
		if sections != "" && !slices.Contains(strings.Split(sections, ","), strconv.Itoa(w.section)) {
			continue
		}
		w.legs = slices.DeleteFunc(w.legs, func(l leg) bool { return !chosen(b.only, l.Server) })
		if len(w.legs) > 0 {
			b.played = append(b.played, b.work(w))
			if err := b.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// work runs each leg once in each round. Rounds begin with another leg each, and every other one goes backwards.
func (b *bench) work(w *work) *played {
	p := &played{work: w, results: make(map[string][]result)}
	rounds := b.rounds
	if w.once {
		rounds = 1
	}
	for round := range rounds {
		for i := range w.legs {
			if i = (i + round/2) % len(w.legs); round%2 == 1 {
				i = len(w.legs) - 1 - i
			}
			l := &w.legs[i]
			r := b.leg(l)
			p.results[l.name] = append(p.results[l.name], r)
			fmt.Fprintf(b.log, "%d. %s: round %d: %-16s %s\n", w.section, w.title, round+1, l.name, r)
		}
	}
	return p
}

func (b *bench) leg(l *leg) (r result) {
	if r.err = kindOf(l.Server).missing(); r.err != nil {
		return r
	}
	s := l.spec
	if chosen("tailcast", s.Server) {
		s.Profile = b.profile
	}
	if r.outcome, r.err = run(&s); r.err == nil {
		r.err = r.right()
	}
	return r
}

// String is a line about one run.
func (r result) String() string {
	switch {
	case r.err != nil:
		return "FAILED: " + r.err.Error()
	case r.Delivered == 0:
		return fmt.Sprintf("%.0f bytes, %.2f goroutines", r.Idle.RSS, r.Idle.Goroutines)
	}
	return fmt.Sprintf("%.3f µs, p50 %v, p99 %v, server %v CPU, client %v CPU, in %v, load %s", perMessage(r.outcome, r.User+r.System), r.P50, r.P99,
		(r.User + r.System).Round(time.Millisecond), r.CPU.Round(time.Millisecond), r.Took.Round(time.Millisecond), r.Load)
}

func (p *played) outcome(leg string, round int) *outcome {
	if all := p.results[leg]; round < len(all) && all[round].err == nil {
		return all[round].outcome
	}
	return nil
}

func (p *played) against() string { return p.base }

func (p *played) names() (names []string) {
	for _, l := range p.legs {
		names = append(names, l.name)
	}
	return names
}

// spread is that of all rounds in which there is a value.
func (p *played) spread(leg string, m measure) (spread, bool) {
	most := 0
	for _, all := range p.results {
		most = max(most, len(all))
	}
	var values []float64
	for round := range most {
		if v, ok := m.of(p, leg, round); ok {
			values = append(values, v)
		}
	}
	return spreadOf(values)
}

// failures are what went wrong in a leg, or in all.
func (p *played) failures(leg string) (list []string) {
	for _, name := range p.names() {
		if leg != "" && leg != name {
			continue
		}
		for round, r := range p.results[name] {
			if r.err != nil {
				list = append(list, fmt.Sprintf("round %d: %v", round+1, r.err))
			}
		}
	}
	return list
}
