package tailcast_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestFlushInterval: what is published within the interval goes with one write, in every format, at its end.
func TestFlushInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithFlushInterval(20*time.Millisecond), tailcast.WithPing(0, time.Second))
		ws, sse, text := s.ws(""), s.sse(""), s.get("")
		out := ws.Conn.(*testnet.Conn).Peer()
		synctest.Wait()
		for round := range 3 {
			before := out.Counts().Writes
			began := time.Now()
			s.publish("one")
			time.Sleep(19 * time.Millisecond)
			s.publish("two", "three")
			synctest.Wait()
			if n := out.Counts().Writes - before; n != 0 {
				t.Fatalf("round %d: %d writes before the interval is over", round, n)
			}
			frames(t, ws, "one", "two", "three")
			sse.events("one", "two", "three")
			text.lines("one", "two", "three")
			if d, n := time.Since(began), out.Counts().Writes-before; d != 20*time.Millisecond || n != 1 {
				t.Errorf("round %d: %d writes, %v after the first message", round, n, d)
			}
			time.Sleep(time.Duration(round) * 15 * time.Millisecond)
		}
	})
}

// TestFlushIntervalHoldsNothingElse: what waits goes with whatever is sent, with much, and at the end.
func TestFlushIntervalHoldsNothingElse(t *testing.T) {
	for name, test := range map[string]func(s *site) (more []string){
		"much in one message": func(s *site) []string {
			big := strings.Repeat("x", 16<<10)
			s.publish(big)
			return []string{big}
		},
		"much in many": func(s *site) (more []string) {
			for range 16 {
				more = append(more, strings.Repeat("x", 1<<10))
				s.publish(more[len(more)-1])
			}
			return more
		},
		"a direct message": func(s *site) []string {
			for c := range s.hub.Conns() {
				c.Send(tailcast.Message{Data: []byte("direct")})
			}
			return nil
		},
		"WaitLag": func(s *site) []string {
			go s.hub.WaitLag(s.t.Context(), "", 0)
			return nil
		},
		"shutdown": func(s *site) []string {
			go s.hub.Shutdown(s.t.Context())
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, tailcast.WithFlushInterval(time.Minute), tailcast.WithPing(0, time.Second))
				ws := s.ws("")
				synctest.Wait()
				began := time.Now()
				s.publish("small")
				synctest.Wait()
				want := append([]string{"small"}, test(s)...)
				if name == "a direct message" {
					want = []string{"direct", "small"}
				}
				frames(t, ws, want...)
				if d := time.Since(began); d > time.Second {
					t.Errorf("it came after %v", d)
				}
			})
		})
	}
}

// TestFlushIntervalWaitsForNoLoss: what is kept no longer than the interval, or is less than what a topic gathers, is sent before it is
// forgotten.
func TestFlushIntervalWaitsForNoLoss(t *testing.T) {
	for name, kept := range map[string]tailcast.Retention{
		"messages":        {Messages: 10},
		"one message":     {Messages: 1},
		"bytes":           {Bytes: 100},
		"age":             {Age: 2 * time.Second},
		"bytes or so old": {Bytes: 100, Age: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, tailcast.WithFlushInterval(time.Minute), tailcast.WithPing(0, time.Second), tailcast.WithRetention(kept))
				ws := s.ws("")
				synctest.Wait()
				var want []string
				for i := range 100 {
					want = append(want, fmt.Sprint("message ", i))
					s.publish(want[i])
					synctest.Wait()
					time.Sleep(100 * time.Millisecond)
				}
				frames(t, ws, want...)
			})
		})
	}
}

// TestWaitLagWaitsForNoInterval: nor does what others publish meanwhile.
func TestWaitLagWaitsForNoInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithFlushInterval(time.Minute), tailcast.WithPing(0, time.Second))
		s.ws("")
		synctest.Wait()
		began := time.Now()
		s.publish("one")
		go func() {
			time.Sleep(100 * time.Microsecond)
			s.publish("two")
		}()
		if err := s.hub.WaitLag(t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// TestFlushIntervalDoesNotHoldLoops: Subscribe's loops are not connections, and nothing is saved by waiting.
func TestFlushIntervalDoesNotHoldLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithFlushInterval(time.Minute))
		s.publish("one")
		began := time.Now()
		go func() {
			time.Sleep(time.Second)
			s.publish("two")
		}()
		for m, err := range s.hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Data) == "two" {
				break
			}
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("it came after %v", d)
		}
	})
}
