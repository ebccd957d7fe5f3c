package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A goal is what a leg should reach in the median: at most these.
type goal struct {
	leg     string // "" = all of them together
	what    measure
	atLeast float64 // 0 = there is only the goal
	wanted  float64
}

// A measure is a number that a leg has in each round.
type measure struct {
	name   string // {base} in it is the leg that others are compared with
	unit   string
	digits int
	of     func(r rounds, leg string, round int) (float64, bool)
}

// rounds are the outcomes of a work that were right.
type rounds interface {
	outcome(leg string, round int) *outcome // nil where it was not
	against() string
	names() []string
}

// simple makes a measure of one outcome.
func simple(name, unit string, digits int, of func(*outcome) float64) measure {
	return measure{name, unit, digits, func(r rounds, leg string, round int) (float64, bool) {
		o := r.outcome(leg, round)
		if o == nil {
			return 0, false
		}
		return of(o), true
	}}
}

// ratio is a measure over that of the base in the same round.
func ratio(name string, m measure) measure {
	return measure{name + " / {base}", "", 3, func(r rounds, leg string, round int) (float64, bool) {
		a, ok := m.of(r, leg, round)
		b, based := m.of(r, r.against(), round)
		return a / b, ok && based && b > 0
	}}
}

// within is the largest value of a round over its smallest, of the legs whose names begin so.
func within(prefix string, m measure) measure {
	return measure{m.name + ", largest / smallest", "", 2, func(r rounds, _ string, round int) (float64, bool) {
		var all []float64
		for _, leg := range r.names() {
			if !strings.HasPrefix(leg, prefix) {
				continue
			}
			v, ok := m.of(r, leg, round)
			if !ok {
				return 0, false
			}
			all = append(all, v)
		}
		if len(all) == 0 {
			return 0, false
		}
		return slices.Max(all) / slices.Min(all), slices.Min(all) > 0
	}}
}

func perMessage[D ~int64](o *outcome, d D) float64 {
	return float64(d) / 1e3 / float64(max(o.Delivered, 1))
}

var (
	cpuAll    = simple("CPU per delivered message", "µs", 3, func(o *outcome) float64 { return perMessage(o, o.User+o.System) })
	cpuUser   = simple("user", "µs", 3, func(o *outcome) float64 { return perMessage(o, o.User) })
	cpuSystem = simple("system", "µs", 3, func(o *outcome) float64 { return perMessage(o, o.System) })
	perSecond = simple("deliveries/s", "", 0, func(o *outcome) float64 { return float64(o.Delivered) / o.Took.Seconds() })
	p50       = simple("p50", "ms", 2, func(o *outcome) float64 { return o.P50.Seconds() * 1e3 })
	p99       = simple("p99", "ms", 2, func(o *outcome) float64 { return o.P99.Seconds() * 1e3 })
	peakRSS   = simple("peak RSS", "MiB", 1, func(o *outcome) float64 { return float64(o.PeakRSS) / (1 << 20) })
	cpuRatio  = ratio("CPU", cpuAll)
	p99Ratio  = ratio("p99", p99)

	idleKB         = simple("RSS per connection", "KiB", 1, func(o *outcome) float64 { return o.Idle.RSS / 1024 })
	idleInuse      = simple("heap and stacks per connection", "KiB", 1, func(o *outcome) float64 { return o.Idle.Inuse / 1024 })
	idleGoroutines = simple("goroutines per connection", "", 2, func(o *outcome) float64 { return o.Idle.Goroutines })
)

// A spread is the median of the rounds, and what they lie between.
type spread struct{ median, least, most float64 }

// spreadOf sorts values.
func spreadOf(values []float64) (s spread, ok bool) {
	if len(values) == 0 {
		return spread{}, false
	}
	slices.Sort(values)
	n := len(values)
	return spread{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}, true
}

// A verdict is what has become of a goal.
type verdict int

const (
	unknown verdict = iota // it was not measured, or something was wrong
	short                  // of what it should have at least
	enough                 // but short of the goal
	reached
)

func (v verdict) String() string {
	return [...]string{"not measured", "**falls short**", "at least", "reached"}[v]
}

// judge compares the median with the goal.
func (g *goal) judge(s spread, measured bool) verdict {
	switch {
	case !measured:
		return unknown
	case s.median <= g.wanted:
		return reached
	case g.atLeast > 0 && s.median <= g.atLeast:
		return enough
	}
	return short
}

func (g *goal) bound(v float64) string {
	if v == 0 {
		return "–"
	}
	return "≤ " + strconv.FormatFloat(v, 'g', -1, 64) + g.unitOf()
}

func (g *goal) unitOf() string {
	if g.what.unit == "" {
		return ""
	}
	return " " + g.what.unit
}

// format is a spread as it stands in a cell.
func (m *measure) format(s spread) string {
	if s.least == s.most {
		return fmt.Sprintf("%.*f", m.digits, s.median)
	}
	return fmt.Sprintf("**%.*f** (%.*f–%.*f)", m.digits, s.median, m.digits, s.least, m.digits, s.most)
}
