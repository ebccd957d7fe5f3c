package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations, each to within 1/64 of itself.
type histogram struct {
	counts [58*64 + 128]uint32
	all    uint64
}

func (h *histogram) add(d int64) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.all++
}

func bucket(v uint64) int {
	if v < 128 {
		return int(v)
	}
	e := bits.Len64(v) - 7
	return e<<6 + int(v>>e)
}

// bucketValue is the least value of a bucket.
func bucketValue(i int) uint64 {
	if i < 128 {
		return uint64(i)
	}
	e := i>>6 - 1
	return uint64(i&63+64) << e
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.all += o.all
}

// quantile returns the duration that the share q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	rank, sum := uint64(q*float64(h.all)), uint64(0)
	for i, n := range h.counts {
		sum += uint64(n)
		if n > 0 && sum >= max(rank, 1) {
			return time.Duration(bucketValue(i))
		}
	}
	return 0
}
