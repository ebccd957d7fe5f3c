package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

// TestHistogram: a quantile is within 1/64 of what sorting says.
func TestHistogram(t *testing.T) {
	var h, other histogram
	var sorted []int64
	for i := range 10_000 {
		d := int64(i) * int64(i) * 1000
		sorted = append(sorted, d)
		if i%2 == 0 {
			h.add(d)
		} else {
			other.add(d)
		}
	}
	h.merge(&other)
	slices.Sort(sorted)
	for _, q := range []float64{0.01, 0.5, 0.99, 1} {
		want := float64(sorted[max(int(q*float64(len(sorted)))-1, 0)])
		if got := float64(h.quantile(q)); got > want || got < want*(1-1.0/64) {
			t.Errorf("quantile %v is %v, want %v", q, time.Duration(got), time.Duration(want))
		}
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func FuzzBucket(f *testing.F) {
	for _, v := range []int64{0, 1, 127, 128, 129, 1 << 40, math.MaxInt64} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v int64) {
		var h histogram
		h.add(v)
		want := uint64(max(v, 0))
		if low := bucketValue(bucket(want)); low > want || want-low > want/64 {
			t.Errorf("%d is in the bucket of %d", v, low)
		}
	})
}

// a work of three legs in two rounds; one run has failed.
func testPlayed() *played {
	run := func(cpu, p99 time.Duration) result {
		return result{outcome: &outcome{sent: &sent{User: cpu}, received: &received{tally: tally{Delivered: 1000}, P99: p99}}}
	}
	return &played{
		work: &work{base: "b", legs: []leg{{name: "a"}, {name: "b"}, {name: "c"}}},
		results: map[string][]result{
			"a": {run(time.Millisecond, 10), run(3*time.Millisecond, 20)},
			"b": {run(2*time.Millisecond, 10), run(4*time.Millisecond, 10)},
			"c": {run(time.Millisecond, 1), {err: errChunk}},
		},
	}
}

func TestMeasures(t *testing.T) {
	p := testPlayed()
	for _, test := range []struct {
		name, leg string
		m         measure
		want      spread
	}{
		{"a number", "a", cpuAll, spread{2, 1, 3}},
		{"a ratio, in each round", "a", cpuRatio, spread{0.625, 0.5, 0.75}},
		{"of latencies", "a", p99Ratio, spread{1.5, 1, 2}},
		{"the base itself", "b", cpuRatio, spread{1, 1, 1}},
		{"a round has failed", "c", cpuRatio, spread{0.5, 0.5, 0.5}},
		{"all legs, of rounds that have them", "", within("", cpuAll), spread{2, 2, 2}},
	} {
		if got, ok := p.spread(test.leg, test.m); !ok || got != test.want {
			t.Errorf("%s: %v, %v, want %v", test.name, got, ok, test.want)
		}
	}
	p.base = "none"
	if got, ok := p.spread("a", cpuRatio); ok {
		t.Errorf("without a base: %v", got)
	}
	if n := len(p.failures("c")); n != 1 {
		t.Errorf("%d failures", n)
	}
	if n := len(p.failures("")); n != 1 {
		t.Errorf("%d failures of all", n)
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		atLeast, wanted, median float64
		measured                bool
		want                    verdict
	}{
		{0.95, 0.85, 0.85, true, reached},
		{0.95, 0.85, 0.86, true, enough},
		{0.95, 0.85, 0.95, true, enough},
		{0.95, 0.85, 0.96, true, short},
		{0, 1, 1.01, true, short},
		{0.95, 0.85, 0.1, false, unknown},
	} {
		g := goal{atLeast: test.atLeast, wanted: test.wanted}
		if got := g.judge(spread{median: test.median}, test.measured); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
