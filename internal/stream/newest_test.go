package stream

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Newest counts messages and no events, however they lie in blocks, and whatever is no longer kept.
func TestNewestAmongEvents(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		l := NewLog(Retention{Messages: 1 + rng.IntN(3*blockRecords)}, NewBudget(0))
		often := rng.IntN(5)
		var messages []uint64 // their seqs
		for seq := uint64(1); seq <= 3*blockRecords; seq++ {
			flags := Flags(0)
			if rng.IntN(4) < often {
				flags = Event
			} else {
				messages = append(messages, seq)
			}
			a := l.Begin()
			a.Add(Position{Epoch: 1, Offset: seq}, 0, flags, []byte("x"))
			a.End(time.Now())
		}
		first, next := l.Bounds()
		for range 200 {
			n := rng.IntN(len(messages) + 3)
			want := first
			switch {
			case n == 0:
				want = next
			case n <= len(messages):
				want = max(first, messages[len(messages)-n])
			}
			if got := l.Newest(n).Seq; got != want {
				t.Fatalf("seed %d: Newest(%d) is at %d, want %d; kept are %d to %d", seed, n, got, want, first, next)
			}
		}
	}
}
