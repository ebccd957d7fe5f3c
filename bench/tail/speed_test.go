package main

import (
	"strings"
	"testing"
	"time"
)

// BenchmarkTailThroughput reads 2 million lines of 100 bytes from the page cache, in all ways one after the other.
func BenchmarkTailThroughput(b *testing.B) {
	lines := 2_000_000
	if testing.Short() {
		lines = 100_000
	}
	b.ReportAllocs()
	dir := b.TempDir()
	all := make(map[string][]rate)
	for b.Loop() {
		rates, err := throughput(dir, lines, 1)
		if err != nil {
			b.Fatal(err)
		}
		for name, r := range rates {
			all[name] = append(all[name], r...)
		}
	}
	cpu := func(name string) float64 { return median(perCPU(all[name])) }
	for _, w := range ways {
		name := strings.ReplaceAll(w.name, " ", "-")
		b.ReportMetric(median(perSecond(all[w.name])), name+"-lines/s")
		b.ReportMetric(cpu(w.name), name+"-lines/cpu-s")
	}
	b.ReportMetric(cpu("tailcast")/cpu("nxadm"), "×nxadm-cpu")
	b.ReportMetric(cpu("tailcast")/cpu("bare loop"), "×bare-cpu")
}

// BenchmarkTailLatency appends 1000 lines a second.
func BenchmarkTailLatency(b *testing.B) {
	for _, name := range []string{"tailcast", "nxadm"} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			var took []time.Duration
			for b.Loop() {
				var err error
				if took, err = latencies(dir, name, 1000, 2*time.Second); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}
