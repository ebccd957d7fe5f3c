package tailcast_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// Viewers with and without filters read a topic at random paces, fall out of what is kept, go away and come back; the topic has lines
// that were cut, and gaps with and without a position. All of it can be replayed, so each viewer gets exactly what passes its filter.
func TestJoinsModel(t *testing.T) {
	seeds := 40
	if raced || testing.Short() {
		seeds = 6
	}
	for seed := 200; seed < 200+seeds; seed++ { // 203 comes to the end of a replay at a gap
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { joinsModel(t, uint64(seed)) })
		})
	}
}

// lines are n records of a topic. Letters say what filters pass.
func randomLines(rng *rand.Rand, n int) (list []tailcast.Message) {
	for i := 1; i <= n; i++ {
		if rng.IntN(12) == 0 {
			gap := tailcast.Message{Gap: &tailcast.Gap{Count: int64(i), Bytes: -1, Reason: fmt.Sprint("gap ", i)}}
			if rng.IntN(2) == 0 {
				gap.Pos = entryPos(i)
				gap.Gap.To = gap.Pos
			}
			list = append(list, gap)
			continue
		}
		m := entry(i, fmt.Sprint(string("abc"[rng.IntN(3)]), " ", i, " ", strings.Repeat("-", rng.IntN(2000))))
		if rng.IntN(30) == 0 {
			m.Data = append(m.Data, strings.Repeat("x", 70_000)...)
		}
		m.Partial = rng.IntN(4) == 0 && i < n
		list = append(list, m)
	}
	return list
}

// passing are the indexes of what a viewer gets.
func passing(list []tailcast.Message, letter string) (want []int) {
	pass := false
	for i, m := range list {
		if m.Gap != nil {
			want, pass = append(want, i), false
			continue
		}
		if i == 0 || !list[i-1].Partial {
			pass = strings.HasPrefix(string(m.Data), letter)
		}
		if pass {
			want = append(want, i)
		}
	}
	return want
}

func joinsModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	list := randomLines(rng, 400)
	list = append(list, entry(1000, "abc"), entry(1001, "a end"), entry(1002, "b end"), entry(1003, "c end"))
	s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 1 + rng.IntN(30)}),
		tailcast.WithWriteTimeout(time.Hour), tailcast.WithMemoryLimit(4<<20), tailcast.WithMaxReplays(1+rng.IntN(3)),
		tailcast.WithFlushInterval(time.Duration(seed%3)*10*time.Millisecond))
	l := newLedger()
	s.runs(t, l)
	l.give <- list[:1]
	synctest.Wait()
	results := make(chan error)
	const viewers = 6
	for v := range viewers {
		rng := rand.New(rand.NewPCG(seed, uint64(v)+2))
		letter := []string{"", "a", "b", "c"}[rng.IntN(4)]
		go func() { results <- joinsViewer(s, rng, list, letter) }()
	}
	for at := 1; at < len(list); {
		n := min(1+rng.IntN(20), len(list)-at)
		l.give <- list[at : at+n]
		at += n
		time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
	}
	for range viewers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func joinsViewer(s *site, rng *rand.Rand, list []tailcast.Message, letter string) error {
	want := passing(list, letter)
	since, next := "earliest", 0
	for next < len(want) {
		q := "?since=" + since
		if letter != "" {
			q += "&grep=" + url.QueryEscape("^"+letter)
		}
		nc, err := s.l.Dial(s.t.Context())
		if err != nil {
			return err
		}
		r := openStream(s.t, nc, "/"+q, "Accept: application/x-ndjson")
		in := bufio.NewReader(r.Reader)
		for leave := rng.IntN(150); next < len(want); leave-- {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return fmt.Errorf("%s: at %d: %w", q, next, err)
			}
			var o struct {
				Event, ID, Data, Reason, To string
				Partial                     bool
			}
			if err := json.Unmarshal(line, &o); err != nil {
				return err
			}
			if o.Event == "pos" {
				continue
			}
			for i := next - 1; o.Event == "gap" && i >= 0 && list[want[i]].Gap != nil; i-- {
				if o.Reason == list[want[i]].Gap.Reason { // rather twice than not at all
					next = i
				}
			}
			m := list[want[next]]
			if got := o.Data + o.Reason; m.Gap == nil && got != string(m.Data) || m.Gap != nil && got != m.Gap.Reason {
				return fmt.Errorf("%s: after %d %.120s, want %d: %.50s %+v", q, next-1, line, want[next], m.Data, m.Gap)
			}
			next++
			if id := o.ID + o.To; id != "" {
				since = id
				if leave <= 0 && !m.Partial && rng.IntN(2) == 0 {
					break
				}
			}
			if rng.IntN(10) == 0 {
				time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
			}
		}
		nc.Close()
	}
	return nil
}
