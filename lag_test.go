package tailcast_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

func TestLagPolicies(t *testing.T) {
	for name, options := range map[string]func(tailcast.LagPolicy) []tailcast.Option{
		"of the hub": func(p tailcast.LagPolicy) []tailcast.Option { return []tailcast.Option{tailcast.WithLagPolicy(p)} },
		"of the topic": func(p tailcast.LagPolicy) []tailcast.Option {
			return []tailcast.Option{
				tailcast.WithLagPolicy(1 + p%3), tailcast.WithTopicConfig("other", tailcast.TopicConfig{Lag: 1 + p%3}),
				tailcast.WithTopicConfig("*", tailcast.TopicConfig{Lag: p}),
			}
		},
	} {
		for policy := tailcast.LagCatchUp; policy <= tailcast.LagClose; policy++ {
			t.Run(fmt.Sprint(policy, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testLagPolicy(t, policy, options(policy)) })
			})
		}
	}
}

func testLagPolicy(t *testing.T, policy tailcast.LagPolicy, opts []tailcast.Option) {
	const last = 4010
	a := newArchive(0, 1000)
	s := newArchiveSite(t, a, opts...)
	wsConn, sseConn := s.dial(), s.dial()
	ws, _, err := testnet.NewWS(wsConn, "hub.example", "/?tail=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	sse := openStream(t, sseConn, "/?tail=0", "Accept: text/event-stream")
	synctest.Wait()
	wsConn.Peer().Stall()
	sseConn.Peer().Stall()
	a.more <- last - 10
	time.Sleep(time.Second)
	wsConn.Peer().Resume()
	sseConn.Peer().Resume()

	n, gaps := 10, 0 // the last message before they were there; the gaps since
	for n < last {
		op, p, err := ws.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		var missed, bytes int
		if op == 1 && string(p) == a.text(n+1) {
			n++
		} else if k, _ := fmt.Sscanf(string(p), "# tailcast gap: %d messages, %d bytes lost", &missed, &bytes); k == 2 && op == 1 && policy == tailcast.LagSkip && bytes == 1000*missed {
			n += missed
			gaps++
		} else if k, _ := fmt.Sscanf(string(p), "\x03\xf5too slow: missed %d messages, %d bytes", &missed, &bytes); k == 2 && op == 8 && policy == tailcast.LagClose && bytes == 1000*missed {
			gaps++
			break
		} else {
			t.Fatalf("after message %d: %d %.100q", n, op, p)
		}
	}
	if (gaps == 0) != (policy == tailcast.LagCatchUp) {
		t.Errorf("the WebSocket got messages up to %d, with %d gaps", n, gaps)
	}

	n, gaps = 10, 0
	for n < last {
		e, err := sse.event()
		if err != nil {
			t.Fatal(err)
		}
		var gap struct{ Count, Bytes int }
		switch {
		case e.data == a.text(n+1):
			n++
		case e.name == "gap" && policy == tailcast.LagSkip && json.Unmarshal([]byte(e.data), &gap) == nil && gap.Bytes == 1000*gap.Count:
			n += gap.Count
			gaps++
		case e.name == "bye" && policy == tailcast.LagClose && strings.Contains(e.data, `"code":1013,`):
			gaps++
			sseConn.Close() // and it comes back
			sse = s.sse("", "Last-Event-ID: "+cmp.Or(sse.id, a.pos(10).String()))
		default:
			t.Fatalf("after message %d: %.200v", n, e)
		}
	}
	if (gaps == 0) != (policy == tailcast.LagCatchUp) {
		t.Errorf("the event stream got messages up to %d, with %d gaps", n, gaps)
	}
}

func TestTopicConfig(t *testing.T) {
	for query, want := range map[string]string{
		"?topic=app.log":           "6 7 8 9 end",
		"?topic=app.quiet":         "end",
		"?topic=app.quiet&tail=10": "6 7 8 9 end",
		"?topic=else":              "8 9 end",
		"?topic=else&tail=10":      "0 1 2 3 4 5 6 7 8 9 end",
	} {
		synctest.Test(t, func(t *testing.T) {
			hub := tailcast.New(tailcast.WithBacklog(2),
				tailcast.WithTopicConfig("app*", tailcast.TopicConfig{Backlog: 5, Retention: tailcast.Retention{Messages: 4}}),
				tailcast.WithTopicConfig("app.quiet", tailcast.TopicConfig{Backlog: -1}))
			s := serveSite(t, hub, hub.Handler("app.log", "app.quiet", "else"))
			topic, _, _ := strings.Cut(strings.TrimPrefix(query, "?topic="), "&")
			publish := func(text string) {
				if err := hub.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte(text)}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 10 {
				publish(strconv.Itoa(i))
			}
			r := s.get(query)
			for _, line := range strings.Fields(strings.TrimSuffix(want, "end")) {
				r.lines(line)
			}
			synctest.Wait()
			publish("end")
			r.lines("end")
		})
	}
}

func TestImpossibleTopicConfigsPanic(t *testing.T) {
	for _, c := range []struct {
		pattern string
		config  tailcast.TopicConfig
	}{
		{pattern: "[a"},
		{"*", tailcast.TopicConfig{Backlog: -2}},
		{"*", tailcast.TopicConfig{Lag: 4}},
		{"*", tailcast.TopicConfig{Retention: tailcast.Retention{Bytes: -1}}},
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.HasPrefix(v, "tailcast: WithTopicConfig: ") {
					t.Errorf("%+v: %v", c, v)
				}
			}()
			tailcast.WithTopicConfig(c.pattern, c.config)
		}()
	}
}

func TestWaitLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithWriteTimeout(time.Hour), tailcast.WithPing(0, time.Second))
		if err := s.hub.WaitLag(t.Context(), "nobody knows it", 0); err != nil {
			t.Error(err)
		}
		fast, slow := s.ws(""), s.ws("")
		go func() {
			for {
				if _, _, err := fast.ReadFrame(); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		msg := strings.Repeat("x", 1000)
		for range 1000 {
			s.publish(msg)
		}
		synctest.Wait()
		if err := s.hub.WaitLag(t.Context(), "", 1<<20); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.hub.WaitLag(ctx, "", 500_000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitLag = %v, and a viewer has taken nothing", err)
		}
		done := make(chan error, 1)
		go func() { done <- s.hub.WaitLag(t.Context(), "", 500_000) }()
		for range 300 {
			frames(t, slow, msg)
		}
		time.Sleep(time.Second)
		select {
		case err := <-done:
			t.Errorf("WaitLag = %v at 700 KB", err)
		default:
		}
		for range 300 {
			frames(t, slow, msg)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		go func() { done <- s.hub.WaitLag(t.Context(), "", 0) }()
		time.Sleep(time.Second)
		slow.Close()
		if err := <-done; err != nil {
			t.Errorf("the slow viewer has left: %v", err)
		}
	})
}

// A viewer that has fallen out of memory, or has come back from long ago, counts until it has caught up.
func TestWaitLagWaitsForThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newArchive(2000, 1000)
		s := newArchiveSite(t, a, tailcast.WithWriteTimeout(time.Hour), tailcast.WithPing(0, time.Second))
		ws := s.ws("?since=earliest")
		frames(t, ws, a.text(1))
		done := make(chan error, 1)
		go func() { done <- s.hub.WaitLag(t.Context(), "", 100_000) }()
		time.Sleep(10 * time.Minute)
		select {
		case err := <-done:
			t.Errorf("WaitLag = %v", err)
		default:
		}
		for i := 2; i <= 2010; i++ {
			frames(t, ws, a.text(i))
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// paced measures how long a Source takes for 16 MiB with these viewers.
func paced(t *testing.T, viewers, slow int) time.Duration {
	a := newArchive(0, 1000)
	s := newSite(t, tailcast.WithRetention(tailcast.Retention{Bytes: 2 << 20}), tailcast.WithWriteTimeout(time.Hour), tailcast.WithPing(0, time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.hub.Run(ctx, a) }()
	var readers sync.WaitGroup
	defer readers.Wait()
	for i := range viewers {
		ws := s.ws("?tail=0")
		defer ws.Close()
		readers.Go(func() {
			for {
				if _, _, err := ws.ReadFrame(); err != nil {
					return
				}
				if i < slow {
					time.Sleep(200 * time.Microsecond) // 5 MB/s
				}
			}
		})
	}
	synctest.Wait()
	began := time.Now()
	a.more <- 16 << 10
	a.more <- 0
	took := time.Since(began)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return took
}

func TestASourceThatCanReplayIsPacedWhileMostViewersLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if d := paced(t, 5, 0); d > 100*time.Millisecond {
			t.Errorf("with viewers that keep up it took %v", d)
		}
		if d := paced(t, 5, 2); d > 100*time.Millisecond {
			t.Errorf("for 2 of 5 viewers it was held up for %v", d)
		}
		if d := paced(t, 5, 4); d < 2*time.Second || d > 5*time.Second {
			t.Errorf("with 4 of 5 viewers at 5 MB/s, 16 MB took %v", d)
		}
	})
}
