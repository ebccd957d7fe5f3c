package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
	"github.com/tailcast/tailcast/tailcasttest"
)

// running has a hub run an AtMostOnce until the test ends, and waits until it is connected.
func running(t testing.TB, hub *tailcast.Hub, core *nats.AtMostOnce) {
	t.Helper()
	before := core.Stats().Connects
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx, core) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
	})
	connected(t, core, before)
}

// connected waits until an AtMostOnce has connected once more, and messages go through it.
func connected(t testing.TB, core *nats.AtMostOnce, before int64) {
	t.Helper()
	waitFor(t, func() bool {
		return core.Stats().Connects > before && core.Publish(context.Background(), tailcast.Message{Topic: "to see whether it is there"}) == nil
	})
}

// core returns an AtMostOnce at the broker.
func (b *broker) core(opts ...natsgo.Option) *nats.AtMostOnce {
	return nats.NewAtMostOnce(nats.Config{URL: b.url(), Options: opts})
}

// alone returns an AtMostOnce at the broker with a hub that runs it.
func (b *broker) alone(opts ...tailcast.Option) (*nats.AtMostOnce, *tailcast.Hub) {
	core, hub := b.core(), tailcast.New(opts...)
	running(b.t, hub, core)
	return core, hub
}

// raw returns a connection to the broker without anything of tailcast's.
func (b *broker) raw(t testing.TB, opts ...natsgo.Option) *natsgo.Conn {
	t.Helper()
	nc, err := natsgo.Connect(b.url(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// steady publishes "line 0", "line 1" and so on, to those that are there, until the test ends.
func (b *broker) steady(t testing.TB) {
	nc := b.raw(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = nc.PublishMsg(&natsgo.Msg{
				Subject: "tailcast.n.log", Header: natsgo.Header{"Tailcast": {"1 - -"}}, Data: fmt.Append(nil, "line ", i),
			})
			_ = nc.Flush()
			time.Sleep(time.Millisecond) // the rate of a publisher; nothing waits for it
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// A Source that brings only what is published while it is there keeps the contract: what the hub has refused becomes a Gap.
func TestAtMostOnceKeepsTheContract(t *testing.T) {
	tailcasttest.TestSource(t, func(t testing.TB) *nats.AtMostOnce {
		broker := newBroker(t)
		broker.steady(t)
		return broker.core()
	}, tailcasttest.Messages(20), tailcasttest.Identity(func(m tailcast.Message) string { return string(m.Data) }))
}

// Two hubs pass each other messages, which are as they were published and in each publisher's order.
func TestAtMostOncePassesMessagesBothWays(t *testing.T) {
	broker := newBroker(t)
	const topic, n = "a topic.with > * and ünïcode", 500
	a, hubA := broker.alone()
	b, hubB := broker.alone()
	when := time.Unix(1700000000, 123456789)
	var wg sync.WaitGroup
	for who, core := range map[string]*nats.AtMostOnce{"a": a, "b": b} {
		wg.Go(func() {
			for i := 0; i < n; {
				var msgs []tailcast.Message
				for range min(1+i%7, n-i) {
					msgs = append(msgs, tailcast.Message{
						Topic: topic, Data: fmt.Append(nil, who, " ", i), Binary: i%3 == 1, Partial: i%5 == 1, Time: when.Add(time.Duration(i)),
						Pos: tailcast.Position{Epoch: 9, Offset: uint64(i)}, Origin: "nobody's",
					})
					i++
				}
				if err := core.Publish(t.Context(), msgs...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for name, hub := range map[string]*tailcast.Hub{"a": hubA, "b": hubB} {
		next := make(map[string]int)
		for _, m := range collect(t, hub, topic, tailcast.Earliest(), 2*n) {
			who, number, _ := strings.Cut(string(m.Data), " ")
			i := next[who]
			next[who]++
			if number != strconv.Itoa(i) || m.Binary != (i%3 == 1) || m.Partial != (i%5 == 1) || !m.Time.Equal(when.Add(time.Duration(i))) ||
				m.Pos.Epoch == 9 || m.Gap != nil || m.Origin != "" {
				t.Fatalf("hub %s: %q, %d was due: %+v", name, m.Data, i, m)
			}
		}
		if next["a"] != n || next["b"] != n {
			t.Errorf("hub %s: %v", name, next)
		}
	}
	wg.Wait()
	gap := &tailcast.Gap{Count: 3, Bytes: 5, Possible: true, Reason: "the publisher's"}
	if err := a.Publish(t.Context(), tailcast.Message{Gap: gap}, tailcast.Message{Data: []byte("after")}); err != nil {
		t.Fatal(err)
	}
	one, other := collect(t, hubA, "", tailcast.Earliest(), 2), collect(t, hubB, "", tailcast.Earliest(), 2)
	if len(one) != 2 || len(other) != 2 || one[1].Time.IsZero() || !one[1].Time.Equal(other[1].Time) {
		t.Fatalf("%+v, and %+v", one, other)
	}
	if g := other[0].Gap; g == nil || g.Count != 3 || g.Bytes != 5 || !g.Possible || g.Reason != gap.Reason {
		t.Errorf("%+v", g)
	}
}

// The broker is restarted: each topic that messages have come in gets one gap, and then messages come again.
func TestAtMostOnceAfterThePauseIsAGap(t *testing.T) {
	broker := newBroker(t)
	core, hub := broker.alone()
	other, _ := broker.alone()
	for _, topic := range []string{"x", "y"} {
		if err := other.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte("before")}); err != nil {
			t.Fatal(err)
		}
		collect(t, hub, topic, tailcast.Earliest(), 1)
	}
	before, others := core.Stats().Connects, other.Stats().Connects
	broker.stop()
	waitFor(t, func() bool {
		return errors.Is(core.Publish(t.Context(), tailcast.Message{Topic: "x", Data: []byte("never")}), tailcast.ErrBackplane)
	})
	broker.start()
	connected(t, core, before)
	connected(t, other, others)
	for _, topic := range []string{"x", "z", "y", "y"} {
		if err := other.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte("after")}); err != nil {
			t.Fatal(err)
		}
	}
	for topic, want := range map[string]string{"x": "before, gap, after", "y": "before, gap, after, after", "z": "after"} {
		var got []string
		for _, m := range collect(t, hub, topic, tailcast.Earliest(), strings.Count(want, ",")+1) {
			if m.Gap != nil {
				if !m.Gap.Possible || m.Gap.Count != -1 || m.Gap.Bytes != -1 || m.Gap.Reason == "" {
					t.Errorf("%+v", m.Gap)
				}
				m.Data = []byte("gap")
			}
			got = append(got, string(m.Data))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("topic %s: %s, want %s", topic, s, want)
		}
	}
	if n := core.Stats().Connects; n != before+1 {
		t.Errorf("%d connections", n)
	}
}

// A hub that is slower than messages come gets a gap that says how many are missing, where they are; the connection stays.
func TestAtMostOnceWithASlowHub(t *testing.T) {
	broker := newBroker(t)
	core, publisher := broker.core(), broker.core()
	running(t, tailcast.New(), publisher)
	const n, size = 100, 200_000 // 20 MB
	called, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var rec tailcasttest.Recorder
	rec.Fail(func(_ context.Context, msgs []tailcast.Message) error {
		once.Do(func() { close(called) })
		<-release
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- core.Run(ctx, &rec) }()
	defer func() { cancel(); <-done }()
	connected(t, core, 0)
	<-called // with what connected has published
	publish := func(i int) {
		t.Helper()
		data := fmt.Append(make([]byte, 0, size), i, " ")
		if err := publisher.Publish(t.Context(), tailcast.Message{Topic: "log", Data: data[:size]}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		publish(i)
	}
	waitFor(t, func() bool { return core.Stats().Dropped > 0 })
	close(release)
	next, gaps := 0, 0
	look := func() {
		next, gaps = 0, 0
		for _, m := range rec.Messages() {
			if m.Topic != "log" {
				continue
			}
			if m.Gap != nil {
				gaps++
				next += int(m.Gap.Count)
				if m.Gap.Possible || m.Gap.Bytes != m.Gap.Count*size {
					t.Errorf("%+v", m.Gap)
				}
				continue
			}
			if !bytes.HasPrefix(m.Data, fmt.Append(nil, next, " ")) {
				t.Fatalf("%.10q, and %d was due", m.Data, next)
			}
			next++
		}
	}
	waitFor(t, func() bool { look(); return next == n })
	publish(n)
	waitFor(t, func() bool { look(); return next == n+1 })
	if s := core.Stats(); gaps == 0 || s.Connects != 1 || s.Dropped == 0 {
		t.Errorf("%d gaps, %+v", gaps, s)
	}
}

// Publish has to do with the connection of a Run that goes on, and nothing waits for another one.
func TestAtMostOnceIsAway(t *testing.T) {
	broker := newBroker(t)
	core := broker.core()
	away := func(when string) {
		t.Helper()
		if err := core.Publish(t.Context(), tailcast.Message{Data: []byte(when)}); !errors.Is(err, tailcast.ErrBackplane) {
			t.Errorf("%s: %v", when, err)
		}
	}
	away("before Run")
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		var rec tailcasttest.Recorder
		before := core.Stats().Connects
		go func() { done <- core.Run(ctx, &rec) }()
		connected(t, core, before)
		if err := core.Run(t.Context(), &rec); err == nil || !strings.Contains(err.Error(), "running already") {
			t.Errorf("a second Run: %v", err)
		}
		over := errors.New("over")
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			t.Error(err)
		}
		away("after Run")
	}
	broker.stop()
	var rec tailcasttest.Recorder
	if err := core.Run(t.Context(), &rec); err == nil || !strings.Contains(err.Error(), "connect") {
		t.Errorf("without a server: %v", err)
	}
	away("without a server")
	if n := len(rec.Messages()); n != 0 {
		t.Errorf("%d messages without a connection", n)
	}
}

// What holds up the connection holds up nobody for longer than his context.
func TestAtMostOnceHeedsContexts(t *testing.T) {
	broker := newBroker(t)
	p := newProxy(t, broker.url()[len("nats://"):])
	core := nats.NewAtMostOnce(nats.Config{URL: p.url()})
	_, hub := broker.alone()
	running(t, tailcast.New(), core)
	over := errors.New("over")
	done, cancelDone := context.WithCancelCause(t.Context())
	cancelDone(over)
	if err := core.Publish(done, tailcast.Message{Data: []byte("never")}); !errors.Is(err, over) {
		t.Error(err)
	}
	p.set(func() { p.frozen = true })
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, over)
	defer cancel()
	if err := core.Publish(ctx, tailcast.Message{Data: []byte("late")}); !errors.Is(err, over) {
		t.Error(err)
	}
	p.set(func() { p.frozen = false })
	if err := core.Publish(t.Context(), tailcast.Message{Data: []byte("soon")}); err != nil {
		t.Error(err)
	}
	got := collect(t, hub, "", tailcast.Earliest(), 2)
	if len(got) != 2 || string(got[0].Data) != "late" || string(got[1].Data) != "soon" {
		t.Errorf("%+v", got)
	}
}

// A connection that takes no more bytes is closed, and who has published gets an error; Run then ends for another one.
func TestAtMostOnceOverAConnectionThatIsStuck(t *testing.T) {
	broker := newBroker(t)
	p := newProxy(t, broker.url()[len("nats://"):])
	core := nats.NewAtMostOnce(nats.Config{URL: p.url()})
	var rec tailcasttest.Recorder
	ended := make(chan error, 1)
	go func() { ended <- core.Run(t.Context(), &rec) }()
	connected(t, core, 0)
	p.set(func() { p.frozen = true })
	defer p.set(func() { p.frozen = false })
	msgs := make([]tailcast.Message, 64)
	for i := range msgs {
		msgs[i].Data = make([]byte, 1<<19)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := core.Publish(t.Context(), msgs...); !errors.Is(err, tailcast.ErrBackplane) {
				t.Error(err)
			}
		})
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the connection has ended") {
		t.Error(err)
	}
	wg.Wait()
}

// While connections break, what Publish returns nil for comes to a hub that is there, once, and what it returns an error for at most once.
func TestAtMostOnceWhileConnectionsBreak(t *testing.T) {
	broker := newBroker(t)
	p := newProxy(t, broker.url()[len("nats://"):])
	core := nats.NewAtMostOnce(nats.Config{URL: p.url()})
	var rec, own tailcasttest.Recorder
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	receiver := broker.core()
	wg.Go(func() { _ = receiver.Run(ctx, &rec) })
	wg.Go(func() {
		for ctx.Err() == nil { // as a hub does, but without its pauses
			_ = core.Run(ctx, &own)
			time.Sleep(time.Millisecond)
		}
	})
	connected(t, receiver, 0)
	connected(t, core, 0)
	const cuts = 30
	taken := make(map[string]bool) // by data: whether Publish has returned nil
	failed := 0
	for i := 0; failed < cuts; i++ {
		data := fmt.Sprint("line ", i)
		if i%20 == 10 {
			wg.Go(p.cut)
		}
		err := core.Publish(ctx, tailcast.Message{Topic: "log", Data: []byte(data)})
		if taken[data] = err == nil; err != nil {
			if !errors.Is(err, tailcast.ErrBackplane) {
				t.Fatal(err)
			}
			failed++
			waitFor(t, func() bool { return core.Publish(ctx, tailcast.Message{Topic: "to see whether it is there"}) == nil })
		}
	}
	waitFor(t, func() bool { return core.Publish(ctx, tailcast.Message{Topic: "log", Data: []byte("end")}) == nil })
	seen := make(map[string]bool)
	last := -1
	waitFor(t, func() bool {
		return slices.ContainsFunc(rec.Messages(), func(m tailcast.Message) bool { return string(m.Data) == "end" })
	})
	for _, m := range rec.Messages() {
		n, err := strconv.Atoi(strings.TrimPrefix(string(m.Data), "line "))
		if m.Topic != "log" || err != nil {
			continue
		}
		if n <= last {
			t.Errorf("line %d came after line %d", n, last)
		}
		last, seen[string(m.Data)] = n, true
	}
	for data, ok := range taken {
		if ok && !seen[data] {
			t.Errorf("%s has not come", data)
		}
	}
	if s := receiver.Stats(); s.Connects != 1 || core.Stats().Connects < cuts/3 {
		t.Errorf("%+v, %+v", s, core.Stats())
	}
}

// A server that takes a connection and says nothing does not hold up the end of Run, which leaves nothing behind.
func TestAtMostOnceAtAServerThatIsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel(over)
			_, _ = c.Read(make([]byte, 1)) // until it is closed from there
			c.Close()
		}
	}()
	core := nats.NewAtMostOnce(nats.Config{URL: "nats://" + l.Addr().String(), Options: []natsgo.Option{
		natsgo.Timeout(time.Hour), natsgo.SetCustomDialer(new(countingDialer)), // which knows no context
	}})
	ended := make(chan error, 1)
	go func() { ended <- core.Run(ctx, new(tailcasttest.Recorder)) }()
	waitFor(t, func() bool { return len(ended) > 0 })
	if err := <-ended; !errors.Is(err, over) {
		t.Error(err)
	}
	noClient(t)
}

// noClient waits until no goroutine of a connection is left.
func noClient(t testing.TB) {
	t.Helper()
	waitFor(t, func() bool {
		buf := make([]byte, 4<<20)
		stacks := string(buf[:runtime.Stack(buf, true)])
		return !strings.Contains(stacks, "nats-io/nats.go.") && !strings.Contains(stacks, "nats.(*AtMostOnce)")
	})
}

// However a Run ends, nothing of it is left.
func TestAtMostOnceLeavesNothing(t *testing.T) {
	broker := newBroker(t)
	core := broker.core()
	var rec tailcasttest.Recorder
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- core.Run(ctx, &rec) }()
	connected(t, core, 0)
	waitFor(t, func() bool { return len(rec.Messages()) > 0 })
	cancel()
	<-ended
	noClient(t)
	rec.Fail(func(context.Context, []tailcast.Message) error { return errors.New("not this one") })
	go func() { ended <- core.Run(t.Context(), &rec) }()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "not this one") { // of the gap that is owed
		t.Error(err)
	}
	noClient(t)
	rec.Fail(nil)
	before := core.Stats().Connects
	go func() { ended <- core.Run(t.Context(), &rec) }()
	connected(t, core, before)
	broker.stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the connection has ended") {
		t.Error(err)
	}
	noClient(t)
}

// What is not fit is refused before anything is sent.
func TestAtMostOnceRefusesWhatIsUnfit(t *testing.T) {
	broker := newBroker(t)
	core, hub := broker.alone()
	fine := tailcast.Message{Data: []byte("never")}
	err := core.Publish(t.Context(), fine, tailcast.Message{Data: make([]byte, 1<<20)})
	var large *tailcast.TooLargeError
	if !errors.As(err, &large) || large.Index != 1 || !errors.Is(err, tailcast.ErrMessage) || !strings.Contains(err.Error(), "max_payload") {
		t.Fatal(err)
	}
	for _, c := range []struct {
		m    tailcast.Message
		want error
	}{
		{tailcast.Message{Topic: strings.Repeat("x", 256)}, tailcast.ErrTopicName},
		{tailcast.Message{Topic: "a\nb"}, tailcast.ErrTopicName},
		{tailcast.Message{Topic: "\xff"}, tailcast.ErrTopicName},
		{tailcast.Message{Data: []byte("x"), Gap: &tailcast.Gap{}}, tailcast.ErrMessage},
		{tailcast.Message{Gap: &tailcast.Gap{Reason: strings.Repeat("x", 1025)}}, tailcast.ErrMessage},
	} {
		if err := core.Publish(t.Context(), fine, c.m); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "message 1") {
			t.Errorf("%+v: %v", c.m, err)
		}
	}
	largest := tailcast.Message{Topic: strings.Repeat("é", 127), Data: make([]byte, large.Limit), Time: time.Unix(1, 0)}
	if err := core.Publish(t.Context(), largest); err != nil && !errors.As(err, &large) {
		t.Error(err)
	}
	largest.Data = make([]byte, large.Limit)
	if err := core.Publish(t.Context(), largest, tailcast.Message{Data: []byte("now")}); err != nil {
		t.Error(err)
	}
	if got := collect(t, hub, largest.Topic, tailcast.Earliest(), 1); len(got) != 1 || len(got[0].Data) != large.Limit {
		t.Errorf("%d messages", len(got))
	}
	if got := collect(t, hub, "", tailcast.Earliest(), 1); len(got) != 1 || string(got[0].Data) != "now" {
		t.Errorf("%+v", got)
	}
}

// What others send to its subjects is left out and counted.
func TestAtMostOnceLeavesOutWhatIsForeign(t *testing.T) {
	broker := newBroker(t)
	core, hub := broker.alone()
	nc := broker.raw(t)
	ours := natsgo.Header{"Tailcast": {"1 - -"}}
	for _, m := range []natsgo.Msg{
		{Subject: "tailcast.n.="}, {Subject: "tailcast.n.app", Header: natsgo.Header{"Tailcast": {"2 - -"}}},
		{Subject: "tailcast.n.=2A", Header: natsgo.Header{"Other": {"1 - -"}}}, {Subject: "tailcast.n.$", Header: ours},
		{Subject: "tailcast.n.=0A", Header: ours}, {Subject: "tailcast.n.=FF", Header: ours}, {Subject: "tailcast.n." + strings.Repeat("x", 256), Header: ours},
	} {
		m.Data = []byte("foreign")
		if err := nc.PublishMsg(&m); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range []natsgo.Msg{{Subject: "tailcast.n.a.b", Header: ours}, {Subject: "tailcast.n", Header: ours}} { // not even its subjects
		if err := nc.PublishMsg(&m); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.PublishMsg(&natsgo.Msg{Subject: "tailcast.n.=", Header: natsgo.Header{"Tailcast": {"1 - - elsewhere"}}, Data: []byte("ours")}); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, hub, "", tailcast.Earliest(), 1); len(got) != 1 || string(got[0].Data) != "ours" {
		t.Errorf("%+v", got)
	}
	if n := core.Stats().Foreign; n != 7 {
		t.Errorf("%d foreign messages", n)
	}
}

// A Backplane with the same broker and the same name has nothing to do with it.
func TestAtMostOnceBesideABackplane(t *testing.T) {
	broker := newBroker(t)
	logged := broker.hub()
	prime(t, logged)
	core, hub := broker.alone()
	if err := core.Publish(t.Context(), tailcast.Message{Topic: "t", Data: []byte("core")}); err != nil {
		t.Fatal(err)
	}
	if err := logged.Publish(t.Context(), tailcast.Message{Topic: "t", Data: []byte("log")}); err != nil {
		t.Fatal(err)
	}
	for want, h := range map[string]*tailcast.Hub{"core": hub, "log": logged} {
		if got := collect(t, h, "t", tailcast.Earliest(), 1); len(got) != 1 || string(got[0].Data) != want {
			t.Errorf("%s: %+v", want, got)
		}
	}
	stream, err := jetStream(t, broker.url()).Stream(t.Context(), "tailcast")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head, _ := logged.Head("t")
	if info.State.LastSeq != head.Offset || core.Stats().Foreign != 0 {
		t.Errorf("the stream has %d messages, and the log's is number %d; %+v", info.State.LastSeq, head.Offset, core.Stats())
	}
}

// A message that is too large for a hub is a gap there, and those that came with it come.
func TestAtMostOnceWithAMessageThatTheHubCannotTake(t *testing.T) {
	broker := newBroker(t)
	broker.stop()
	broker.opts.MaxPayload = 4 << 20
	broker.start()
	small, hub := broker.alone(tailcast.WithMemoryLimit(4 << 20))
	core, _ := broker.alone()
	err := core.Publish(t.Context(), tailcast.Message{Data: []byte("before")}, tailcast.Message{Data: make([]byte, 2<<20)}, tailcast.Message{Data: []byte("after")})
	if err != nil {
		t.Fatal(err)
	}
	got := collect(t, hub, "", tailcast.Earliest(), 3)
	if len(got) != 3 || string(got[0].Data) != "before" || got[1].Gap == nil || got[1].Gap.Count != 1 || got[1].Gap.Bytes != 2<<20 || string(got[2].Data) != "after" {
		t.Errorf("%+v", got)
	}
	if s := small.Stats(); s.Refused != 1 || s.Connects != 1 {
		t.Errorf("%+v", s)
	}
}

// What the server does not let a program do it is told.
func TestAtMostOnceWithoutPermission(t *testing.T) {
	broker := newBroker(t)
	broker.stop()
	broker.opts.Users = []*server.User{
		{Username: "reader", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"tailcast.n.prices"}}}},
		{Username: "nobody", Password: "x", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"tailcast.n.*"}}}},
	}
	broker.start()
	var rec tailcasttest.Recorder
	if err := broker.core(natsgo.UserInfo("nobody", "x")).Run(t.Context(), &rec); err == nil || !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
		t.Error(err)
	}
	if err := broker.core(natsgo.UserInfo("nobody", "y")).Run(t.Context(), &rec); !errors.Is(err, natsgo.ErrAuthorization) {
		t.Error(err)
	}
	core := broker.core(natsgo.UserInfo("reader", "x"), natsgo.NoEcho())
	hub := tailcast.New()
	running(t, hub, core)
	err := core.Publish(t.Context(), tailcast.Message{Topic: "prices"})
	if !errors.Is(err, tailcast.ErrBackplane) || !errors.Is(err, natsgo.ErrPermissionViolation) {
		t.Error(err)
	}
	if err := core.Publish(t.Context(), tailcast.Message{Topic: "other", Data: []byte("own")}); err != nil {
		t.Error(err)
	}
	if got := collect(t, hub, "other", tailcast.Earliest(), 1); len(got) != 1 || string(got[0].Data) != "own" {
		t.Errorf("%+v", got)
	}
}

// A dialer in Options is used.
func TestAtMostOnceThroughADialer(t *testing.T) {
	broker := newBroker(t)
	d := &countingDialer{}
	core := broker.core(natsgo.SetCustomDialer(d))
	running(t, tailcast.New(), core)
	if d.n.Load() == 0 {
		t.Error("it was not asked")
	}
}

type countingDialer struct{ n atomic.Int64 }

func (d *countingDialer) Dial(network, address string) (net.Conn, error) {
	d.n.Add(1)
	return net.Dial(network, address)
}

func TestAtMostOncePanicsOnAStreamThatCannotBe(t *testing.T) {
	defer func() {
		if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), "a.b") {
			t.Error(v)
		}
	}()
	nats.NewAtMostOnce(nats.Config{Stream: "a.b"})
}

// What a message costs that goes to a hub and comes from there, by the broker: a process of its own on this machine.
func BenchmarkAtMostOnce(b *testing.B) {
	for _, c := range []struct{ publishers, batch int }{{1, 1}, {10, 1}, {100, 1}, {1, 256}} {
		b.Run(fmt.Sprintf("publishers=%d/batch=%d", c.publishers, c.batch), func(b *testing.B) {
			core := nats.NewAtMostOnce(nats.Config{URL: "nats://" + newBrokerProcess(b).addr})
			running(b, tailcast.New(), core)
			publish(b, func(ctx context.Context, msgs []tailcast.Message) error { return core.Publish(ctx, msgs...) }, c.publishers, c.batch)
		})
	}
}
