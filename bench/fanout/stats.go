package main

import "slices"

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

// A measure is a number that a leg has in each round; base is the outcome of the leg that it is compared with, in the same round.
type measure struct {
	name string
	unit string
	of   func(l *leg, o, base *outcome) (float64, bool)
}

// simple makes a measure that needs no base.
func simple(name, unit string, of func(l *leg, o *outcome) float64) measure {
	return measure{name, unit, func(l *leg, o, _ *outcome) (float64, bool) { return of(l, o), true }}
}

// ratio is a measure over that of the base.
func ratio(name string, m measure) measure {
	return measure{name, "", func(l *leg, o, base *outcome) (float64, bool) {
		if base == nil {
			return 0, false
		}
		a, _ := m.of(l, o, nil)
		b, _ := m.of(l, base, nil)
		return a / b, b > 0
	}}
}

var (
	cpuAll    = simple("CPU per delivered message", "µs", func(_ *leg, o *outcome) float64 { return perMessage(o, o.User+o.System) })
	cpuUser   = simple("user", "µs", func(_ *leg, o *outcome) float64 { return perMessage(o, o.User) })
	cpuSystem = simple("system", "µs", func(_ *leg, o *outcome) float64 { return perMessage(o, o.System) })
	perSecond = simple("deliveries/s", "", func(_ *leg, o *outcome) float64 { return float64(o.Delivered) / o.Took.Seconds() })
	p50       = simple("p50", "ms", func(_ *leg, o *outcome) float64 { return o.P50.Seconds() * 1e3 })
	p99       = simple("p99", "ms", func(_ *leg, o *outcome) float64 { return o.P99.Seconds() * 1e3 })
	peakRSS   = simple("peak RSS", "MiB", func(_ *leg, o *outcome) float64 { return float64(o.PeakRSS) / (1 << 20) })
	cpuRatio  = ratio("CPU to that of gws", cpuAll)
	p99Ratio  = ratio("p99 to that of gws", p99)

	idleBytes      = simple("bytes/connection", "", func(_ *leg, o *outcome) float64 { return o.Idle.RSS })
	idleInuse      = simple("of these in heap and stacks", "", func(_ *leg, o *outcome) float64 { return o.Idle.Inuse })
	idleGoroutines = simple("goroutines/connection", "", func(_ *leg, o *outcome) float64 { return o.Idle.Goroutines })
)

func perMessage[D ~int64](o *outcome, d D) float64 {
	return float64(d) / 1e3 / float64(max(o.Delivered, 1))
}
