package follow_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast/internal/follow"
)

// Back from any position: the replay from there begins with the lines that stand before it.
func TestBack(t *testing.T) {
	seeds := uint64(6)
	if raced {
		seeds = 2
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			defer r.close()
			rng := rand.New(rand.NewPCG(seed, 3))
			for i := 5; i >= 0; i-- {
				name := fmt.Sprint("app.log.", i)
				if i == 0 {
					name = "app.log"
				}
				if seed%3 == 0 {
					r.write(name, "the same\n")
				}
				for n := range 1 + rng.IntN(5) {
					r.write(name, fmt.Sprintf("%d-%d%s\n", i, n, strings.Repeat("x", rng.IntN(200))))
				}
				if i == 2 {
					r.write(name, "unterminated")
				}
			}
			for i := 5; i > 2; i-- {
				if rng.IntN(2) == 0 {
					r.gzip(fmt.Sprint("app.log.", i), 1, false)
				}
			}
			r.cfg.Start = follow.LastLines(rng.IntN(3))
			r.run()
			var lines []item
			for i, d := range r.disk() {
				if lines = append(lines, d.items...); i < 5 {
					lines = append(lines, d.rest...)
				}
			}
			f := r.follower(follow.Config{Path: r.cfg.Path})
			for end := range len(lines) + 1 {
				from := follow.Position{}
				if end < len(lines) && end > 0 {
					from = lines[end-1].pos
				} else if end == 0 {
					continue
				}
				if slices.ContainsFunc(lines[end:], func(it item) bool { return it.pos == from }) {
					continue // of two alike
				}
				have := len(lines) - end
				if from == (follow.Position{}) {
					have = 0
				}
				for n := 1; n < end+3; n++ {
					for _, f := range []*follow.Follower{f, r.f} {
						at, found := f.Back(context.Background(), from, n+have, have)
						if found != min(n, end) {
							t.Fatalf("%d lines back from %d of %d: %d", n, end, len(lines), found)
						}
						got := r.replays(f, []follow.Position{at})[0].items
						if more := len(got) - len(lines) + end - found; more > 0 && seed%3 == 0 {
							got = got[more:] // to begin after a line that several files begin with would be ambiguous
						}
						if want := lines[end-found:]; !slices.Equal(got, want) {
							t.Fatalf("seed %d: %d lines back from %d\ngot  %v\nwant %v", seed, n, end, got, want)
						}
					}
				}
			}
			r.stop()
		})
	}
}

// Who wants the last n lines when the stream has just begun gets those that it begins with, and as many before them as are missing.
func TestBackFromWhereTheStreamBegan(t *testing.T) {
	for _, start := range []follow.Start{follow.FromEnd, follow.LastLines(1), follow.LastLines(3), follow.LastLines(9)} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			defer r.close()
			r.write("app.log.1", "1\n2\n3\n")
			r.write("app.log", "4\n5\n6\n7\nunfinished")
			first := map[follow.Start]int{follow.FromEnd: 4, follow.LastLines(1): 3, follow.LastLines(3): 1}[start]
			r.cfg.Start = start
			r.run()
			began := r.begins[0].pos
			for n := range 9 {
				for have := range 6 {
					want := max(0, min(n-max(have, 4-first), 3+first))
					at, found := r.f.Back(t.Context(), began, n, have)
					if found != want || found == 0 && at != began {
						t.Errorf("start %v: the last %d lines, %d are there: back %d to %v, want %d", start, n, have, found, at, want)
					}
				}
			}
			r.stop()
		})
	}
}
