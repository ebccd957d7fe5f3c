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

// Behind a place that is no record's own, a log whose positions grow goes on at the next record; and nowhere where something is missing.
func TestBeyond(t *testing.T) {
	at := func(epoch, offset uint64) Position { return Position{Epoch: epoch, Offset: offset} }
	newLog := func(keep int, places ...Position) *Log {
		l := NewLog(Retention{Messages: keep}, NewBudget(0))
		l.SetBase(at(1, 10))
		for _, p := range places {
			a := l.Begin()
			a.Add(p, 1, 0, make([]byte, 20<<10)) // three to a block
			a.End(time.Now())
		}
		return l
	}
	l := newLog(0, at(1, 12), at(1, 15), at(1, 20), at(1, 21), at(1, 30), at(2, 5), at(2, 9))
	for p, want := range map[Position]uint64{
		at(1, 9): 0, at(1, 10): 1, at(1, 11): 1, at(1, 12): 2, at(1, 14): 2, at(1, 15): 3, at(1, 19): 3, at(1, 20): 4, at(1, 29): 5, at(1, 30): 6, at(1, 99): 6,
		at(2, 4): 0, at(2, 5): 7, at(2, 8): 7, at(2, 9): 8, at(3, 1): 0,
	} {
		if cur, ok := l.Beyond(p); ok != (want > 0) || cur.Seq != want {
			t.Errorf("%v: %d, %v; want %d", p, cur.Seq, ok, want)
		}
	}
	l = newLog(2, at(1, 12), at(1, 15), at(1, 20), at(1, 21), at(1, 30))
	for p, want := range map[Position]uint64{at(1, 10): 0, at(1, 19): 0, at(1, 20): 4, at(1, 25): 5} {
		if cur, ok := l.Beyond(p); ok != (want > 0) || cur.Seq != want {
			t.Errorf("some are gone, %v: %d, %v; want %d", p, cur.Seq, ok, want)
		}
	}
	l.Extend(at(1, 3))
	if _, ok := l.Beyond(at(1, 5)); ok {
		t.Error("a log whose beginning is gone was extended")
	}
	l = newLog(0, at(1, 12))
	l.Extend(at(1, 3))
	l.Extend(at(2, 1))
	l.Extend(at(1, 8))
	for p, want := range map[Position]uint64{at(1, 2): 0, at(1, 3): 1, at(1, 11): 1, at(1, 12): 2} {
		if cur, ok := l.Beyond(p); ok != (want > 0) || cur.Seq != want {
			t.Errorf("extended, %v: %d, %v; want %d", p, cur.Seq, ok, want)
		}
	}
}
