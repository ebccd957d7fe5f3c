package nats_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
	"github.com/tailcast/tailcast/tailcasttest"
)

// hubAt returns a hub with a Backplane at a URL.
func hubAt(t testing.TB, url string, change func(*nats.Config), opts ...tailcast.Option) *tailcast.Hub {
	t.Helper()
	c := nats.Config{URL: url, Node: t.Name()}
	if change != nil {
		change(&c)
	}
	p := nats.New(c)
	hub := tailcast.New(append(opts, tailcast.WithBackplane(p))...)
	t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return hub
}

// A history is what somebody has seen: messages "publisher number", of publishers that count from 0.
type history struct {
	mu   sync.Mutex
	next map[string]int
	sum  uint64 // of all positions and data, in their order
	n    int
	bad  []string
	gaps int
	away int           // how often it was told of something that is degraded
	full chan struct{} // closed when it has goal messages
	goal int
}

func newHistory(goal int) *history {
	return &history{next: make(map[string]int), full: make(chan struct{}), goal: goal}
}

func (h *history) see(pos, data string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	who, number, _ := strings.Cut(data, " ")
	if n, err := strconv.Atoi(number); err != nil {
		h.bad = append(h.bad, fmt.Sprintf("%q: %v", data, err))
	} else if n != h.next[who] {
		h.bad = append(h.bad, fmt.Sprintf("%q came, and %s %d was due", data, who, h.next[who]))
		h.next[who] = n + 1
	} else {
		h.next[who] = n + 1
	}
	for _, s := range []string{pos, data} {
		for i := range len(s) {
			h.sum = (h.sum ^ uint64(s[i])) * 1099511628211 // FNV-1a
		}
	}
	if h.n++; h.n == h.goal {
		close(h.full)
	}
}

func (h *history) gap(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gaps++
	h.bad = append(h.bad, "a gap: "+what)
}

func (h *history) seen() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

// watch reads the default topic's messages, until ctx is done.
func (h *history) watch(ctx context.Context, hub *tailcast.Hub, from tailcast.Position) {
	for m, err := range hub.Subscribe(ctx, "", from) {
		switch {
		case err != nil:
			return
		case m.Gap != nil:
			h.gap(fmt.Sprintf("%+v", *m.Gap))
		default:
			h.see(m.Pos.String(), string(m.Data))
		}
	}
}

// wait waits until all has come, and reports what was wrong.
func (h *history) wait(t testing.TB, name string) {
	t.Helper()
	select {
	case <-h.full:
	case <-time.After(2 * time.Minute):
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n != h.goal || len(h.bad) > 0 {
		t.Errorf("%s: %d of %d messages; wrong: %.3q", name, h.n, h.goal, h.bad)
	}
}

// publishAll publishes messages of one publisher in order, in calls of random size.
func publishAll(ctx context.Context, hub *tailcast.Hub, topic, who string, n int, done *atomic.Int64) error {
	for i := 0; i < n; {
		msgs := make([]tailcast.Message, min(1+rand.IntN(40), n-i))
		for j := range msgs {
			msgs[j] = tailcast.Message{Topic: topic, Data: fmt.Appendf(nil, "%s %d", who, i+j)}
		}
		if err := hub.Publish(ctx, msgs...); err != nil {
			return err
		}
		i += len(msgs)
		done.Add(int64(len(msgs)))
	}
	return nil
}

// The broker is killed under load, again and again: nothing is lost, nothing comes twice, and all nodes have the same order, that of
// each publisher in it.
func TestTheBrokerIsKilled(t *testing.T) {
	t.Parallel()
	kills := soak(5, 100)
	broker := newBrokerProcess(t)
	url := "nats://" + broker.addr
	hubs := []*tailcast.Hub{hubAt(t, url, nil), hubAt(t, url, nil)}
	from := prime(t, hubs[0])
	prime(t, hubs[1])
	l := newLoad(t, hubs, from)
	for range kills {
		time.Sleep(time.Duration(20+rand.IntN(200)) * time.Millisecond)
		broker.kill()
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		broker.start()
	}
	t.Logf("%d kills, %d messages", kills, l.end())
}

// A load is publishers that go on and on, in calls of random size, and who sees what becomes of that, on two nodes.
type load struct {
	t          testing.TB
	cancel     context.CancelFunc
	stop       atomic.Bool
	published  [4]int
	publishing sync.WaitGroup
	histories  []*history
	watching   sync.WaitGroup
}

func newLoad(t testing.TB, hubs []*tailcast.Hub, from tailcast.Position) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, cancel: cancel}
	for p := range l.published {
		l.publishing.Go(func() {
			for !l.stop.Load() {
				n := 1 + rand.IntN(300)
				msgs := make([]tailcast.Message, n)
				for j := range msgs {
					msgs[j] = tailcast.Message{Data: fmt.Appendf(nil, "p%d %d", p, l.published[p]+j)}
				}
				if err := hubs[p%2].Publish(ctx, msgs...); err != nil {
					t.Errorf("publisher %d: %v", p, err)
					return
				}
				l.published[p] += n
				time.Sleep(time.Millisecond)
			}
		})
	}
	for _, hub := range hubs {
		h := newHistory(-1)
		l.histories = append(l.histories, h)
		l.watching.Go(func() { h.watch(ctx, hub, from) })
	}
	return l
}

// end ends the load, sees that all is as it should be, and returns how many messages there were.
func (l *load) end() (total int) {
	l.t.Helper()
	l.stop.Store(true)
	l.publishing.Wait()
	for _, n := range l.published {
		total += n
	}
	for i, h := range l.histories {
		h.mu.Lock()
		h.goal = total
		if h.n >= total {
			close(h.full)
		}
		h.mu.Unlock()
		h.wait(l.t, fmt.Sprint("node ", i))
	}
	l.cancel()
	l.watching.Wait()
	if l.histories[0].sum != l.histories[1].sum {
		l.t.Error("the nodes have seen different orders")
	}
	return total
}

// publishOneByOne publishes messages of one publisher in order, each in a call of its own.
func publishOneByOne(ctx context.Context, hub *tailcast.Hub, who string, n int) error {
	for i := range n {
		if err := hub.Publish(ctx, tailcast.Message{Data: fmt.Appendf(nil, "%s %d", who, i)}); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// prime makes a hub join its log, and returns a place in that.
func prime(t testing.TB, hub *tailcast.Hub) tailcast.Position {
	t.Helper()
	if err := hub.Publish(t.Context(), tailcast.Message{Topic: "prime", Data: []byte("prime")}); err != nil {
		t.Fatal(err)
	}
	got := collect(t, hub, "prime", tailcast.Earliest(), 1)
	if len(got) != 1 {
		t.Fatal("it does not come back")
	}
	return got[0].Pos
}

// Three nodes, many viewers, ten publishers: all see the same order.
func TestAllViewersSeeOneOrder(t *testing.T) {
	t.Parallel()
	viewers, each := soak(60, 3000), soak(100, 500)
	const publishers = 10
	broker := newBroker(t)
	var hubs []*tailcast.Hub
	var servers []*tailcasttest.Server
	for range 3 {
		hub := hubAt(t, broker.url(), nil)
		hubs, servers = append(hubs, hub), append(servers, tailcasttest.Serve(t, hub))
	}
	histories := make([]*history, viewers)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range histories {
		h := newHistory(publishers * each)
		histories[i] = h
		req, _ := http.NewRequestWithContext(ctx, "GET", servers[i%3].URL+"/", nil)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := servers[i%3].Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer resp.Body.Close()
			readEvents(resp, h)
		})
	}
	var publishing sync.WaitGroup
	var done atomic.Int64
	for p := range publishers {
		publishing.Go(func() {
			if err := publishAll(t.Context(), hubs[p%3], "", fmt.Sprint("p", p), each, &done); err != nil {
				t.Error(err)
			}
		})
	}
	publishing.Wait()
	for i, h := range histories {
		h.wait(t, fmt.Sprint("viewer ", i))
		if h.sum != histories[0].sum {
			t.Errorf("viewer %d has seen another order", i)
		}
		if t.Failed() {
			break
		}
	}
	cancel()
	wg.Wait()
	t.Logf("%d viewers, %d messages each", viewers, publishers*each)
}

// readEvents reads an event stream, and returns the last id.
func readEvents(resp *http.Response, h *history) (id string) {
	r := bufio.NewReader(resp.Body)
	data, event := "", ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return id
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "data: "):
			data = line[len("data: "):]
		case strings.HasPrefix(line, "event: "):
			event = line[len("event: "):]
		case strings.HasPrefix(line, "id: "):
			id = line[len("id: "):]
		case line == "":
			if event == "gap" {
				h.gap(data)
			} else if event == "degraded" && !strings.Contains(data, `"over":true`) {
				h.mu.Lock()
				h.away++
				h.mu.Unlock()
			} else if data != "" && event == "" {
				h.see(id, data)
			}
			data, event = "", ""
		}
	}
}

// A node is killed: its viewers go on at another one, and miss nothing.
func TestANodeIsKilled(t *testing.T) {
	t.Parallel()
	viewers, n := soak(40, 1000), soak(2000, 20000)
	broker := newBroker(t)
	publisher := hubAt(t, broker.url(), nil)
	prime(t, publisher)
	nodes := []*child{newChild(t, "node", urlEnv+"="+broker.url()), newChild(t, "node", urlEnv+"="+broker.url())}
	addrs := []string{nodes[0].addr, nodes[1].addr}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	histories := make([]*history, viewers)
	var wg, there sync.WaitGroup
	var resumed atomic.Int64
	there.Add(viewers)
	transport := &http.Transport{MaxIdleConnsPerHost: -1}
	for i := range histories {
		h := newHistory(n)
		histories[i] = h
		wg.Go(func() {
			once := sync.OnceFunc(there.Done)
			defer once()
			id := ""
			for try := i % 2; ctx.Err() == nil; try++ {
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+addrs[try%2]+"/", nil)
				req.Header.Set("Accept", "text/event-stream")
				if id != "" {
					req.Header.Set("Last-Event-ID", id)
					resumed.Add(1)
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					time.Sleep(20 * time.Millisecond)
					continue
				}
				once()
				if last := readEvents(resp, h); last != "" {
					id = last
				}
				resp.Body.Close()
			}
		})
	}
	there.Wait()
	var done atomic.Int64
	errs := make(chan error, 1)
	go func() { errs <- publishAll(t.Context(), publisher, "", "p", n, &done) }()
	for done.Load() < int64(n/3) {
		time.Sleep(time.Millisecond)
	}
	nodes[0].kill()
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
	for i, h := range histories {
		h.wait(t, fmt.Sprint("viewer ", i))
		if t.Failed() {
			break
		}
	}
	cancel()
	wg.Wait()
	if resumed.Load() < int64(viewers/2) {
		t.Errorf("%d viewers have come back", resumed.Load())
	}
}

// Where the acknowledgements are lost, messages are sent again, and stored once.
func TestLostAcknowledgements(t *testing.T) {
	t.Parallel()
	broker := newBroker(t)
	direct := hubAt(t, broker.url(), nil)
	from := prime(t, direct)
	p := newProxy(t, broker.url()[len("nats://"):])
	plane := nats.New(nats.Config{URL: p.url(), Node: "proxied", AckTimeout: 200 * time.Millisecond})
	defer plane.Close()
	n := soak(200, 2000)
	h := newHistory(n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { h.watch(ctx, direct, from) })
	for i := 0; i < n; {
		msgs := make([]tailcast.Message, min(20, n-i))
		for j := range msgs {
			msgs[j] = tailcast.Message{Data: fmt.Appendf(nil, "p %d", i+j)}
		}
		lost := i/20%3 == 0
		if lost {
			p.set(func() { p.swallow = true })
		}
		errs := make(chan error, 1)
		go func() { errs <- plane.Publish(t.Context(), msgs...) }()
		if lost {
			p.mu.Lock()
			for p.thrown == 0 { // the acknowledgements
				p.changed.Wait()
			}
			p.thrown, p.swallow = 0, false
			p.mu.Unlock()
			if i/20%2 == 0 {
				p.cut()
			}
		}
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
		i += len(msgs)
	}
	h.wait(t, "the other node")
	if s := plane.Stats(); s.Repeated == 0 || s.Duplicates == 0 {
		t.Errorf("nothing was sent again: %+v", s)
	}
}

// Nothing goes through a node's connection any more, though it stands: when it goes on, both sides have the same.
func TestAConnectionThatPauses(t *testing.T) {
	t.Parallel()
	pause := time.Duration(soak(1, 10)) * time.Second
	broker := newBroker(t)
	p := newProxy(t, broker.url()[len("nats://"):])
	hubs := []*tailcast.Hub{hubAt(t, broker.url(), nil), hubAt(t, p.url(), nil)}
	const each = 500
	histories := []*history{newHistory(2 * each), newHistory(2 * each)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	from := prime(t, hubs[0])
	for i, h := range histories {
		prime(t, hubs[i])
		wg.Go(func() { h.watch(ctx, hubs[i], from) })
	}
	var publishing sync.WaitGroup
	for i, hub := range hubs {
		publishing.Go(func() {
			if err := publishOneByOne(t.Context(), hub, fmt.Sprint("p", i), each); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return histories[1].seen() > each/4 })
	p.set(func() { p.frozen = true })
	time.Sleep(pause)
	p.set(func() { p.frozen = false })
	publishing.Wait()
	for i, h := range histories {
		h.wait(t, fmt.Sprint("node ", i))
	}
	if histories[0].sum != histories[1].sum {
		t.Error("the nodes have seen different orders")
	}
	cancel()
	wg.Wait()
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for range 3000 {
		if what() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not come")
}

// The stream is deleted: a gap is declared, the Epoch is another one, and it goes on.
func TestTheStreamIsDeleted(t *testing.T) {
	broker := newBroker(t)
	hub, other := hubAt(t, broker.url(), nil), hubAt(t, broker.url(), nil)
	prime(t, hub)
	prime(t, other)
	if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte("before")}); err != nil {
		t.Fatal(err)
	}
	old := collect(t, other, "", tailcast.Earliest(), 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range soak(1, 20) {
		deleteStream(t, broker.url())
		if err := hub.Publish(ctx, tailcast.Message{Data: []byte("after")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range []*tailcast.Hub{hub, other, hubAt(t, broker.url(), nil)} {
		got := collect(t, h, "", old[0].Pos, 2)
		for len(got) == 2 && got[1].Gap != nil { // it was deleted more than once
			got = append(got[1:], collect(t, h, "", got[1].Pos, 1)...)
		}
		if len(got) != 2 || got[0].Gap == nil || got[0].Gap.Count != -1 || string(got[1].Data) != "after" || got[1].Pos.Epoch == old[0].Pos.Epoch {
			t.Errorf("%+v", got)
		}
	}
}

func deleteStream(t testing.TB, url string) {
	t.Helper()
	js := jetStream(t, url)
	if err := js.DeleteStream(t.Context(), "tailcast"); err != nil {
		t.Fatal(err)
	}
}

func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	nc, err := natsgo.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// What is too large for the server is refused before anything is stored; what others put into the stream is left out.
func TestUnfitMessages(t *testing.T) {
	broker := newBroker(t)
	plane := broker.plane()
	hub := tailcast.New(tailcast.WithBackplane(plane))
	defer hub.Close()
	prime(t, hub)
	err := hub.Publish(t.Context(), tailcast.Message{Data: []byte("small")}, tailcast.Message{Data: make([]byte, 1<<20)})
	var large *tailcast.TooLargeError
	if !errors.As(err, &large) || large.Index != 1 || !strings.Contains(err.Error(), "max_payload") {
		t.Error(err)
	}
	js := jetStream(t, broker.url())
	for _, subject := range []string{"tailcast.t.=", "tailcast.t.app", "tailcast.t.=2A", "tailcast.t.$"} {
		if _, err := js.Publish(t.Context(), subject, []byte("foreign")); err != nil {
			t.Fatal(err)
		}
	}
	if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte("ours")}); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, hub, "", tailcast.Earliest(), 1); len(got) != 1 || string(got[0].Data) != "ours" {
		t.Errorf("%+v", got)
	}
	if n := plane.Stats().Foreign; n < 4 {
		t.Errorf("%d foreign messages", n)
	}
}

// A line that does not fit into the server comes in parts, also where all of them are the same, and its file is followed on.
func TestALineThatIsTooLongForTheServer(t *testing.T) {
	broker := newBroker(t)
	broker.stop()
	broker.opts.MaxPayload = 1 << 10
	broker.start()
	long := strings.Repeat("a", 10_000)
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("first\n"+long+"\nlast\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hub, other := hubAt(t, broker.url(), nil), hubAt(t, broker.url(), nil)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(ctx, &tailcast.Tail{Path: path, Start: tailcast.FromStart}) }()
	var lines []string
	part, parts := "", 0
	for _, m := range collect(t, other, "", tailcast.Earliest(), 2+12) {
		parts++
		if part += string(m.Data); !m.Partial {
			lines, part = append(lines, part), ""
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(lines) != 3 || lines[0] != "first" || lines[1] != long || lines[2] != "last" {
		t.Errorf("%d messages, lines %.80q", parts, lines)
	}
}

// A stream takes less than it did when the node connected: what it refuses is refused once, and comes in parts when it is tried again.
func TestAStreamThatTakesLess(t *testing.T) {
	t.Parallel()
	broker := newBroker(t)
	hub := broker.hub()
	prime(t, hub)
	js := jetStream(t, broker.url())
	stream, err := js.Stream(t.Context(), "tailcast")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.MaxMsgSize = 500
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 1000)
	tries := 0
	err = hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
		for {
			err := pub.Publish(ctx, tailcast.Message{Data: []byte(long), Pos: tailcast.Position{Epoch: 1, Offset: 1}})
			if tries++; err == nil || tries == 3 || !errors.Is(err, tailcast.ErrMessage) {
				return err
			}
		}
	}))
	if err != nil || tries > 2 {
		t.Fatalf("after %d tries: %v", tries, err)
	}
	line := ""
	for _, m := range collect(t, hub, "", tailcast.Earliest(), 3) {
		line += string(m.Data)
	}
	if line != long {
		t.Errorf("the line is %q", line)
	}
}

// A stream that would lose messages silently is refused, with the reason.
func TestUnfitStreams(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]jetstream.StreamConfig{
		"its subjects have no tailcast.t.*": {Subjects: []string{"other.>"}},
		"its limit of messages":             {Subjects: []string{"tailcast.t.*"}, MaxMsgsPerSubject: 5},
		"it refuses new messages":           {Subjects: []string{"tailcast.t.*"}, Discard: jetstream.DiscardNew},
		"its retention is not by limits":    {Subjects: []string{"tailcast.t.*"}, Retention: jetstream.InterestPolicy},
		"it does not acknowledge":           {Subjects: []string{"tailcast.t.*"}, NoAck: true},
		"it allows direct gets":             {Subjects: []string{"tailcast.t.*"}, AllowDirect: true},
	} {
		broker := newBroker(t)
		c.Name = "tailcast"
		if _, err := jetStream(t, broker.url()).CreateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		hub := broker.hub()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := hub.Publish(ctx, tailcast.Message{})
		cancel()
		if !errors.Is(err, tailcast.ErrBackplane) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
		waitFor(t, func() bool { return hub.Stats().Backplane.State == "failed" })
	}
}

// What has fallen off the front of the stream is a gap.
func TestWhatFellOffTheStream(t *testing.T) {
	broker := newBroker(t)
	limit := func(c *nats.Config) { c.MaxMessages = 10 }
	hub := hubAt(t, broker.url(), limit)
	for i := range 30 {
		if err := hub.Publish(t.Context(), tailcast.Message{Data: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	all := collect(t, hub, "", tailcast.Earliest(), 10)
	first := all[0].Pos
	first.Offset = 5
	got := collect(t, hubAt(t, broker.url(), limit), "", first, 11)
	if len(got) != 11 || got[0].Gap == nil || !got[0].Gap.Possible || string(got[1].Data) != "20" || string(got[10].Data) != "29" {
		t.Errorf("%+v", got)
	}
}

// The n newest messages of a topic are found among those of others, wherever they are.
func TestTheNewestMessagesOfATopic(t *testing.T) {
	t.Parallel()
	broker := newBroker(t)
	plane := broker.plane()
	var all []tailcast.Message
	rare := 0
	for i := range soak(3000, 30000) {
		m := tailcast.Message{Topic: "busy", Data: fmt.Append(nil, i)}
		if i%97 == 0 || i > 1000 && i < 1600 {
			m.Topic = "rare"
			rare++
		}
		all = append(all, m)
	}
	if err := plane.Publish(t.Context(), all...); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"busy", "rare", "none"} {
		for _, n := range []int{0, 1, 2, 10, 100, 300, 400, 590, rare - 1, rare, rare + 1, 2000, 100000} {
			at, err := plane.Last(t.Context(), topic, n)
			if err != nil {
				t.Fatal(err)
			}
			behind, there := 0, 0
			for i := range all {
				if all[i].Topic == topic {
					if there++; uint64(i+1) > at.Offset {
						behind++
					}
				}
			}
			if behind != min(n, there) {
				t.Errorf("%d of %s: behind %d there are %d", n, topic, at.Offset, behind)
			}
		}
	}
}

// A user's connections on other nodes are reached; a node that was killed is waited for, and said to be missing.
func TestPushReachesAllNodes(t *testing.T) {
	broker := newBroker(t)
	auth := tailcast.WithAuthenticate(func(*http.Request) (tailcast.Identity, error) { return tailcast.Identity{User: "ann"}, nil })
	var hubs []*tailcast.Hub
	for range 3 {
		hub := hubAt(t, broker.url(), func(c *nats.Config) { c.CallTimeout = 5 * time.Second }, auth)
		s := tailcasttest.Serve(t, hub)
		resp, err := s.Client().Get(s.URL + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		hubs = append(hubs, hub)
	}
	r, err := hubs[0].Push(t.Context(), "ann", "", []byte("hello"))
	if err != nil || r.Queued != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	mute := nats.New(nats.Config{URL: broker.url()}) // it is there, and nobody has told it what to answer
	defer mute.Close()
	if _, err := mute.Last(t.Context(), "", 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { // until the hub has heard of it
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if r, err = hubs[0].Push(ctx, "ann", "", []byte("hello")); r.Queued != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		return errors.Is(err, tailcast.ErrBackplane)
	})
	mute.Close()
	if n, err := hubs[2].Disconnect(t.Context(), "ann", nil); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
}

// A server that takes a connection and says nothing holds up nobody for longer than their context.
func TestAServerThatIsSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	plane := nats.New(nats.Config{URL: "nats://" + l.Addr().String()})
	defer plane.Close()
	soon := func(what string, f func(ctx context.Context) error) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := f(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: after %v", what, took)
		}
	}
	soon("Publish", func(ctx context.Context) error { return plane.Publish(ctx, tailcast.Message{}) })
	soon("Call", func(ctx context.Context) error { _, err := plane.Call(ctx, nil); return err })
	hub := tailcast.New(tailcast.WithBackplane(plane))
	soon("Hub.Publish", func(ctx context.Context) error { return hub.Publish(ctx, tailcast.Message{}) })
	began := time.Now()
	if err := hub.Close(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("Close: %v after %v", err, time.Since(began))
	}
}

// A connection that takes no more bytes holds up a Publish for a moment beyond its context, and not for the minute of nats.go.
func TestAConnectionThatIsStuck(t *testing.T) {
	t.Parallel()
	broker := newBroker(t)
	p := newProxy(t, broker.url()[len("nats://"):])
	plane := nats.New(nats.Config{URL: p.url(), Node: "stuck"})
	defer plane.Close()
	if err := plane.Publish(t.Context(), tailcast.Message{}); err != nil {
		t.Fatal(err)
	}
	p.set(func() { p.frozen = true })
	defer p.set(func() { p.frozen = false })
	msgs := make([]tailcast.Message, 32)
	for i := range msgs {
		msgs[i].Data = make([]byte, 1<<19)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := plane.Publish(ctx, msgs...); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("after %v", took)
	}
}

// Where a node may not publish, and reads the log well, a Publish that is given up leaves nobody waiting.
func TestAPublishThatIsGivenUp(t *testing.T) {
	broker := newBroker(t)
	broker.stop()
	broker.opts.Users = []*server.User{{Username: "all", Password: "x"}, {Username: "reader", Password: "x", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Deny: []string{"tailcast.t.>"}},
	}}}
	broker.start()
	as := func(user string) func(*nats.Config) {
		return func(c *nats.Config) {
			c.Options, c.AckTimeout = []natsgo.Option{natsgo.UserInfo(user, "x")}, 100*time.Millisecond
		}
	}
	if err := hubAt(t, broker.url(), as("all")).Publish(t.Context(), tailcast.Message{Data: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	hub := hubAt(t, broker.url(), as("reader"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := hub.Publish(ctx, tailcast.Message{}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, tailcast.ErrBackplane) {
		t.Error(err)
	}
	if got := collect(t, hub, "", tailcast.Earliest(), 1); len(got) != 1 || string(got[0].Data) != "1" {
		t.Errorf("%+v", got)
	}
	if s := hub.Stats().Backplane; !s.Connected || s.Degraded == 0 {
		t.Errorf("%+v", s)
	}
}

// A server has lost the end of the stream, where nothing was tailcast's: what comes in its place is read.
func TestTheStreamHasLostWhatWasForeign(t *testing.T) {
	broker := newBroker(t)
	p := newProxy(t, broker.url()[len("nats://"):])
	reader := nats.New(nats.Config{URL: p.url()})
	hub := tailcast.New(tailcast.WithBackplane(reader))
	defer reader.Close()
	defer hub.Close()
	from := prime(t, hub)
	p.set(func() { p.frozen = true })
	const each = 100
	publisher := broker.plane()
	publish := func(what string) {
		t.Helper()
		msgs := make([]tailcast.Message, each)
		for i := range msgs {
			msgs[i].Data = []byte(what)
		}
		if err := publisher.Publish(t.Context(), msgs...); err != nil {
			t.Fatal(err)
		}
	}
	publish("kept")
	broker.stop()
	saved := t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(broker.opts.StoreDir)); err != nil {
		t.Fatal(err)
	}
	broker.start()
	js := jetStream(t, broker.url())
	for range each {
		if _, err := js.Publish(t.Context(), "tailcast.t.x", []byte("foreign")); err != nil {
			t.Fatal(err)
		}
	}
	p.set(func() { p.frozen = false })
	if got := collect(t, hub, "", from, each); len(got) != each || string(got[each-1].Data) != "kept" {
		t.Fatalf("%d: %+v", len(got), got)
	}
	waitFor(t, func() bool { return reader.Stats().Foreign == each })
	broker.stop()
	waitFor(t, func() bool { return !hub.Stats().Backplane.Connected })
	broker.opts.StoreDir = saved
	broker.start()
	waitFor(t, func() bool { return hub.Stats().Backplane.Connected })
	head, _ := hub.Head("")
	publish("new")
	if got := collect(t, hub, "", head, each); len(got) != each || string(got[0].Data) != "new" || got[0].Pos.Offset != head.Offset+1 {
		t.Errorf("%d: %+v", len(got), got[:min(len(got), 1)])
	}
}
