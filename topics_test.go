package tailcast_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// heap is what the program holds, and how many goroutines it has.
func heap() (bytes int64, goroutines int) {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}

// TestTopicsThatWereLeftCostNothing: 100 000 topics, one after the other and then all at the same time.
func TestTopicsThatWereLeftCostNothing(t *testing.T) {
	topics, each := 100_000, 125
	if raced {
		topics = 10_000
	}
	conns := make(chan *tailcast.Conn, 1)
	hub := tailcast.New(tailcast.WithOnConnect(func(c *tailcast.Conn) error { conns <- c; return nil }))
	defer hub.Close()
	ctx := t.Context()
	subscribe := func(c *tailcast.Conn, from, to int) {
		for i := from; i < to; i++ {
			if err := c.Subscribe(ctx, fmt.Sprint("topic ", i), tailcast.Position{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := hub.Publish(ctx, tailcast.Message{Topic: "one that stays", Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	defer hub.AttachEnvelopes(new(tailcast.DiscardSocket), "another")()
	stays := <-conns
	time.Sleep(10 * time.Millisecond)
	before, goroutines := heap()
	used := hub.MemoryUsed()

	for i := range topics {
		subscribe(stays, i, i+1)
		if err := stays.Unsubscribe(fmt.Sprint("topic ", i)); err != nil {
			t.Fatal(err)
		}
	}
	var detach []func()
	for i := 0; i < topics; i += each {
		detach = append(detach, hub.AttachEnvelopes(new(tailcast.DiscardSocket)))
		subscribe(<-conns, i, i+each)
	}
	during, _ := heap()
	if n := len(hub.TopicNames()); n != topics+2 {
		t.Errorf("%d topics", n)
	}
	for i, f := range detach {
		f()
		detach[i] = nil
	}
	if names := hub.TopicNames(); len(names) != 2 {
		t.Errorf("%d topics are left", len(names))
	}
	left, running := int64(0), 0
	for range 100 { // workers may still have a look at what has gone
		left, running = heap()
		if left -= before; left < 1<<20 && running <= goroutines {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("%d MB with them, %d KB without, %d goroutines more", (during-before)>>20, left>>10, running-goroutines)
	if left > 1<<20 {
		t.Errorf("%d bytes are left", left)
	}
	if running > goroutines {
		t.Errorf("%d goroutines more", running-goroutines)
	}
	if n := hub.MemoryUsed(); n != used {
		t.Errorf("%d bytes are accounted for, want %d", n, used)
	}
	runtime.KeepAlive(hub)
}

// What somebody needs of a topic does not go with its last viewer.
func TestTopicsThatAreOfUseStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics))
		r := s.envelopes("?topic=read&topic=only%20looked%20at")
		synctest.Wait()
		s.tell("read", "1")
		r.expect("read: 1")
		r.close()
		time.Sleep(time.Hour)
		if got := s.hub.TopicNames(); len(got) != 1 || got[0] != "read" {
			t.Errorf("%q stay", got)
		}
		s.tell("read", "2")
		s.envelopes("?topic=read&since=" + r.ids["read"]).expect("read: 2")
	})
}

// Topics come and go while messages are published there: each viewer that is there sees what is published after it has come.
func TestTopicsComeAndGoWhileOthersPublish(t *testing.T) {
	conns := make(chan *tailcast.Conn, 1)
	hub := tailcast.New(tailcast.WithOnConnect(func(c *tailcast.Conn) error { conns <- c; return nil }))
	defer hub.Close()
	sock := new(tailcast.DiscardSocket)
	defer hub.AttachNDJSON(sock)()
	c := <-conns
	for i := range soak(300) {
		topic := fmt.Sprint("topic ", i)
		if err := c.Subscribe(t.Context(), topic, tailcast.Earliest()); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			done <- hub.Publish(context.Background(), tailcast.Message{Topic: topic, Data: []byte("1")})
		}()
		if err := c.Unsubscribe(topic); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, ok := hub.Head(topic); !ok {
			t.Fatalf("what was published in %s is lost", topic)
		}
	}
}

// A topic's first message is not lost though the hub tidies up before it is appended.
func TestTidyingLosesNoMessage(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				hub.Tidy()
			}
		}
	}()
	defer func() { close(stop); <-done }()
	for i := range soak(1000) {
		topic := fmt.Sprint(i)
		if err := hub.Publish(t.Context(), tailcast.Message{Topic: topic}); err != nil {
			t.Fatal(err)
		}
		if _, ok := hub.Head(topic); !ok {
			t.Fatalf("the message in topic %s is lost", topic)
		}
	}
}

func TestNamesOfTopicsAreChecked(t *testing.T) {
	conns := make(chan *tailcast.Conn, 1)
	hub := tailcast.New(tailcast.WithOnConnect(func(c *tailcast.Conn) error { conns <- c; return nil }))
	defer hub.Close()
	defer hub.AttachEnvelopes(new(tailcast.DiscardSocket))()
	c := <-conns
	for name, want := range map[string]string{
		strings.Repeat("x", 256): "256 bytes, the limit is 255",
		"a\x00b":                 "control character at byte 1",
		"a\r\n":                  "control character at byte 1",
		"\u0085":                 "control character at byte 0",
		"a\x7f":                  "control character at byte 1",
		"\xff":                   "it is not UTF-8",
	} {
		errs := map[string]error{
			"Subscribe": c.Subscribe(t.Context(), name, tailcast.Position{}),
			"Publish":   hub.Publish(t.Context(), tailcast.Message{Topic: name}),
		}
		for call, err := range errs {
			if !errors.Is(err, tailcast.ErrTopicName) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s(%.10q) = %v, want %s", call, name, err, want)
			}
		}
	}
	for i := range 128 {
		if err := c.Subscribe(t.Context(), fmt.Sprint(i, strings.Repeat("é", 120)), tailcast.Position{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Subscribe(t.Context(), "one more", tailcast.Position{}); !errors.Is(err, tailcast.ErrTooManyTopics) {
		t.Errorf("topic 129: %v", err)
	}
}

// A viewer has its place before it is answered: what is published after that it gets, though its connection is not yet set up.
func TestWhoIsAnsweredIsHeard(t *testing.T) {
	for _, query := range []string{"", "?tail=0", "?tail=1", "?topic=&topic=b&tail=0"} {
		synctest.Test(t, func(t *testing.T) {
			var hub *tailcast.Hub
			hub = tailcast.New(tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithOnConnect(func(*tailcast.Conn) error {
				return hub.Publish(t.Context(), tailcast.Message{Data: []byte("meanwhile")}) // the answer is out, the topics are not there yet
			}))
			s := serveSite(t, hub, hub)
			s.publish("before")
			want := []string{"meanwhile"}
			if strings.Contains(query, "tail=1") {
				want = []string{"before", "meanwhile"}
			}
			ws := s.ws(query)
			frames(t, ws, want...)
			s.publish("then")
			frames(t, ws, "then")
			if want[0] == "before" {
				want[0] = "then" // the newest by now
			}
			s.sse(query).events(want...)
		})
	}
}
