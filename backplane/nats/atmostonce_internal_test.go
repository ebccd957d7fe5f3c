package nats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

func message(topic string, bytes int) tailcast.Message {
	return tailcast.Message{Topic: topic, Data: make([]byte, bytes)}
}

// all takes everything out of a queue, n messages at a time.
func all(q *queue, n int) (msgs []tailcast.Message) {
	buf := make([]tailcast.Message, 0, n)
	for buf = q.take(buf); len(buf) > 0; buf = q.take(buf) {
		msgs = append(msgs, buf...)
	}
	return msgs
}

// What does not fit is declared where it would have stood in its topic, with its size.
func TestWhatDoesNotFitIsDeclaredInItsPlace(t *testing.T) {
	q := newQueue()
	const half = maxQueueBytes/2 - messageBytes
	for _, m := range []tailcast.Message{message("a", half), message("b", half)} {
		if !q.put(m) {
			t.Fatal("there is no room")
		}
	}
	for _, m := range []tailcast.Message{message("a", 1), message("b", 2), message("a", 3), {Topic: "c", Gap: &tailcast.Gap{Count: 7, Bytes: 7}}, message("c", 1)} {
		if q.put(m) {
			t.Fatalf("there is room for %s", m.Topic)
		}
	}
	got := q.take(make([]tailcast.Message, 0, 1))
	if len(got) != 1 || got[0].Topic != "a" || !q.put(message("a", 4)) {
		t.Fatalf("%+v", got)
	}
	msgs := all(q, 2)
	rest := make(map[string]tailcast.Gap)
	for i, m := range msgs {
		want := []struct {
			topic string
			bytes int
			gap   tailcast.Gap
		}{{"b", half, tailcast.Gap{}}, {"a", 0, tailcast.Gap{Count: 2, Bytes: 4}}, {"a", 4, tailcast.Gap{}}}
		if i >= len(want) {
			rest[m.Topic] = *m.Gap
			continue
		}
		w := want[i]
		if m.Topic != w.topic || len(m.Data) != w.bytes || (m.Gap != nil) != (w.gap.Count != 0) ||
			m.Gap != nil && (m.Gap.Count != w.gap.Count || m.Gap.Bytes != w.gap.Bytes || m.Gap.Possible || m.Gap.Reason == "") {
			t.Errorf("message %d: topic %s, %d bytes, %+v", i, m.Topic, len(m.Data), m.Gap)
		}
	}
	if b, c := rest["b"], rest["c"]; len(rest) != 2 || b.Count != 1 || b.Bytes != 2 || c.Count != -1 || c.Bytes != -1 {
		t.Errorf("at last %+v", rest)
	}
	if q.bytes != 0 || len(q.lost) != 0 {
		t.Errorf("it is empty, and has %d bytes and %d gaps", q.bytes, len(q.lost))
	}
}

// Whoever can publish can make messages and topics, so what is kept of them is bounded.
func TestAQueueIsBounded(t *testing.T) {
	q := newQueue()
	taken := 0
	for i := range maxQueue + 2*maxTopics {
		if q.put(message(fmt.Sprint(i), 0)) {
			taken++
		}
	}
	if taken > maxQueue || len(q.msgs) != taken || q.bytes > maxQueueBytes || len(q.lost) != maxTopics {
		t.Errorf("%d messages, %d bytes, %d topics", len(q.msgs), q.bytes, len(q.lost))
	}
	if n := len(all(q, 1000)); n != taken+maxTopics {
		t.Errorf("%d messages come out", n)
	}
	if big := message("", 2*maxQueueBytes); !q.put(big) || q.put(message("", 0)) {
		t.Error("a message that is larger than all of it goes alone")
	}
}

// What is remembered of topics is bounded, and what is owed to one that is forgotten is forgotten.
func TestWhatIsRememberedOfTopicsIsBounded(t *testing.T) {
	var known topics
	for i := range 2 * maxTopics {
		known.lost([]tailcast.Message{{Topic: fmt.Sprint(i)}})
	}
	known.note("the last one")
	if !known.known["the last one"] || len(known.known) != maxTopics || len(known.owed) > maxTopics {
		t.Errorf("%d topics are known, %d gaps owed", len(known.known), len(known.owed))
	}
}

// A gap is declared once, and if it was refused, later.
func TestGapsAreOwedUntilTheyAreTaken(t *testing.T) {
	var known topics
	known.interrupted()
	known.note("a")
	known.lost([]tailcast.Message{{Topic: "b"}})
	known.interrupted()
	refuse := true
	got := make(map[string]tailcast.Gap)
	pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		if refuse = !refuse; !refuse {
			return errors.New("not now")
		}
		for _, m := range msgs {
			if _, twice := got[m.Topic]; twice {
				t.Errorf("%s comes twice", m.Topic)
			}
			got[m.Topic] = *m.Gap
		}
		return nil
	})
	for n := 0; known.declare(t.Context(), pub) != nil; n++ {
		if n == 10 {
			t.Fatal("it does not end")
		}
	}
	if err := known.declare(t.Context(), nil); err != nil { // there is nothing more
		t.Error(err)
	}
	a, b := got["a"], got["b"]
	if len(got) != 2 || !a.Possible || b.Possible || a.Count != -1 || b.Count != -1 || a.Bytes != -1 || a.Reason == b.Reason {
		t.Errorf("%+v", got)
	}
}

// What no hub takes is not sent, and what is sent all hubs take; so what others send in its place is left out.
func FuzzFit(f *testing.F) {
	for _, s := range []string{"", "app", "ünï", "a\nb", "\xff", string(make([]byte, 256)), "\u0085"} {
		f.Add(s, "data", false, "")
		f.Add(s, "", true, "reason")
	}
	f.Add("", "data", true, string(make([]byte, 1025)))
	f.Add("\x00", "data", true, "two faults")
	hub := tailcast.New()
	f.Cleanup(func() { hub.Close() })
	f.Fuzz(func(t *testing.T, topic, data string, isGap bool, reason string) {
		m := tailcast.Message{Topic: topic, Data: []byte(data)}
		if isGap {
			m.Gap = &tailcast.Gap{Reason: reason}
		}
		own, hubs := fit(&m), hub.Publish(t.Context(), m)
		if (own == nil) != (hubs == nil) {
			t.Fatalf("%+v: %v, and the hub says %v", m, own, hubs)
		}
		for _, kind := range []error{tailcast.ErrMessage, tailcast.ErrTopicName} {
			if errors.Is(own, kind) != errors.Is(hubs, kind) {
				t.Fatalf("%+v: %v, and the hub says %v", m, own, hubs)
			}
		}
	})
}

// Where nats.go itself drops what has come nobody knows what that was, nor where: the connection ends, and the next one begins with gaps.
func TestWhatTheClientDropsEndsTheConnection(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, MaxPending: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	others, err := natsgo.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	a := NewAtMostOnce(Config{URL: s.ClientURL()})
	got := make(chan tailcast.Message, 1000)
	pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		for _, m := range msgs {
			got <- m
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, pub) }()
	for a.Publish(ctx, tailcast.Message{Data: []byte("first")}) != nil {
		time.Sleep(time.Millisecond) // it connects
	}
	if m := <-got; string(m.Data) != "first" {
		t.Fatalf("%+v", m)
	}
	a.mu.Lock()
	l := a.now
	a.mu.Unlock()
	l.queue.mu.Lock() // nothing gets in
	msg := natsgo.Msg{Subject: "tailcast.n.=", Header: natsgo.Header{headerName: {"1 - -"}}, Data: make([]byte, 1<<19)}
	for range natsgo.DefaultSubPendingBytesLimit>>19 + 2 {
		if err := others.PublishMsg(&msg); err != nil {
			t.Error(err)
		}
	}
	<-l.gone
	l.queue.mu.Unlock()
	if err := <-ended; !errors.Is(err, natsgo.ErrSlowConsumer) {
		t.Error(err)
	}
	for len(got) > 0 {
		<-got
	}
	go func() { ended <- a.Run(ctx, pub) }()
	if m := <-got; m.Gap == nil || !m.Gap.Possible {
		t.Errorf("%+v", m)
	}
	cancel()
	<-ended
}
