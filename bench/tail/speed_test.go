package main

import (
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
	all := make(map[string][]float64)
	for b.Loop() {
		rates, err := throughput(dir, lines, 1)
		if err != nil {
			b.Fatal(err)
		}
		for name, r := range rates {
			all[name] = append(all[name], r...)
		}
	}
	for _, w := range ways {
		unit := map[string]string{"bare loop": "bare-lines/s"}[w.name]
		if unit == "" {
			unit = w.name + "-lines/s"
		}
		b.ReportMetric(median(all[w.name]), unit)
	}
	b.ReportMetric(median(all["tailcast"])/median(all["nxadm"]), "×nxadm")
	b.ReportMetric(median(all["tailcast"])/median(all["bare loop"]), "×bare")
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
