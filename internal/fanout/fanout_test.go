package fanout_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A handler is a fanout.Handler whose lagged viewers go on at the oldest record, after a notice.
type handler struct{}

func (handler) Lagged(s *fanout.Sub, cur stream.Cursor) {
	n, _, resume := s.Encoding().Log().Missed(cur)
	s.Notice(fmt.Appendf(nil, "(missed %d)", n), stream.Position{})
	s.Resume(resume)
}
func (handler) Quiet(dst []byte) []byte { return append(dst, "(quiet)"...) }
func (handler) Place(dst []byte, s *fanout.Sub) []byte {
	return fmt.Appendf(dst, "(at %v)", s.Cursor().Pos.Offset)
}
func (handler) Dropped(dst []byte, n int) []byte { return fmt.Appendf(dst, "(dropped %d)", n) }
func (handler) Rewrite(dst []byte, s *fanout.Sub, c *stream.Chunk) []byte {
	for i := range c.Len() {
		dst = append(append(append(dst, s.Name...), ' '), c.Frame(i)...)
	}
	return dst
}

func encode(dst []byte, r *stream.Record) []byte { return fmt.Appendf(dst, "<%d %s>", r.Seq, r.Data) }

// A world is a pool with one topic.
type world struct {
	t      testing.TB
	budget *stream.Budget
	pool   *fanout.Pool
	log    *stream.Log
	topic  *fanout.Topic
	sent   int
}

func newWorld(t testing.TB, keep stream.Retention, cfg fanout.Config) *world {
	w := &world{t: t, budget: stream.NewBudget(0)}
	cfg.Budget = w.budget
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 10 * time.Second
	}
	if cfg.PrivateBytes == 0 {
		cfg.PrivateBytes = 1000
	}
	w.pool = fanout.NewPool(cfg)
	w.log = stream.NewLog(keep, w.budget)
	w.topic = w.pool.NewTopic(keep)
	return w
}

func (w *world) publish(data ...string) {
	a := w.log.Begin()
	for _, d := range data {
		w.sent++
		a.Add(stream.Position{Epoch: 1, Offset: uint64(w.sent)}, 1, 0, []byte(d))
	}
	a.End(time.Now())
	w.topic.Wake()
}

// connect adds a connection over memory; what the client reads goes through the returned conn.
func (w *world) connect(o fanout.Options) (*fanout.Conn, *testnet.Conn, *testnet.Conn) {
	client, server := testnet.Pipe(64 << 10)
	o.Socket, o.Direct = server, true
	if o.Handler == nil {
		o.Handler = handler{}
	}
	o.Abort = func() { server.Close() }
	o.Ping = func(dst []byte) []byte { return append(dst, "?!"...) }
	o.Pong = func(dst, data []byte) []byte { return fmt.Appendf(dst, "(pong %s)", data) }
	return w.pool.Add(o), client, server
}

func (w *world) subscribe(c *fanout.Conn, name string) *fanout.Sub {
	s := c.Subscribe(name, w.topic, w.log.Encoding("test", encode), nil)
	s.Resume(w.log.Oldest())
	return s
}

// expect reads exactly want.
func expect(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

func finish(c *fanout.Conn, subs ...*fanout.Sub) {
	c.Finish([]byte("(end)"))
	<-c.Done()
	for _, s := range subs {
		s.Remove()
	}
	c.Remove()
}

func TestMessagesArriveOnceAndInOrderThroughShortWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 2})
		c, client, server := w.connect(fanout.Options{})
		rng := rand.New(rand.NewPCG(1, 2))
		for range 300 {
			if rng.IntN(4) == 0 {
				server.Script(testnet.Block())
			} else {
				server.Script(testnet.Take(1 + rng.IntN(30)))
			}
		}
		s := w.subscribe(c, "t")
		var want bytes.Buffer
		for i := range 1000 {
			data := fmt.Sprint("message ", i)
			w.publish(data)
			fmt.Fprintf(&want, "<%d %s>", i+1, data)
			if i%50 == 0 {
				synctest.Wait()
			}
		}
		expect(t, client, want.String())
		finish(c, s)
		expect(t, client, "(end)")
		w.pool.Close()
	})
}

// A viewer that is far behind in one topic is not kept from another.
func TestTopicsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		quiet := &world{t: t, budget: w.budget, pool: w.pool, log: stream.NewLog(stream.Retention{}, w.budget)}
		quiet.topic = w.pool.NewTopic(stream.Retention{})
		c, client, _ := w.connect(fanout.Options{})
		loud, other := w.subscribe(c, "loud"), quiet.subscribe(c, "quiet")
		line := strings.Repeat("x", 1000)
		for range 2000 {
			w.publish(line)
		}
		quiet.publish("here")
		got := make([]byte, 400<<10) // of 2 MB: what the socket had already taken, and two turns
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Contains(got, []byte("here")) {
			t.Errorf("%v; the quiet topic's message is not among the first %d bytes", err, len(got))
		}
		c.Abort(io.ErrClosedPipe)
		<-c.Done()
		loud.Remove()
		other.Remove()
		c.Remove()
		w.pool.Close()
	})
}

func TestControlFramesOvertakeDataAtFrameBoundaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		c, client, server := w.connect(fanout.Options{})
		server.Script(testnet.Take(5), testnet.Pause(time.Second))
		s := w.subscribe(c, "t")
		w.publish("first", "second", "third")
		synctest.Wait() // five bytes of the first frame are out
		c.SendPong([]byte("old"))
		c.SendPong([]byte("new"))
		if err := c.Send([]byte("(direct)")); err != nil {
			t.Fatal(err)
		}
		expect(t, client, "<1 first>(pong new)(direct)<2 second><3 third>")
		finish(c, s)
		expect(t, client, "(end)")
		w.pool.Close()
	})
}

func TestNothingFollowsTheLastBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		c, client, _ := w.connect(fanout.Options{})
		s := w.subscribe(c, "t")
		w.publish("a")
		expect(t, client, "<1 a>")
		finish(c, s)
		w.publish("b")
		c.SendPong(nil)
		if err := c.Send([]byte("x")); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Send after the end: %v", err)
		}
		synctest.Wait()
		expect(t, client, "(end)")
		if n := client.Peer().Unread(); n != 0 {
			t.Errorf("%d bytes follow", n)
		}
		w.pool.Close()
	})
}

func TestAStalledPeerEndsWithErrWriteTimeoutAndHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		stalled, _, server := w.connect(fanout.Options{})
		server.Stall()
		s1 := w.subscribe(stalled, "t")
		healthy, client, _ := w.connect(fanout.Options{})
		s2 := w.subscribe(healthy, "t")
		start := time.Now()
		w.publish("a")
		expect(t, client, "<1 a>")
		if d := time.Since(start); d != 0 {
			t.Errorf("the healthy one waited %v", d)
		}
		<-stalled.Done()
		if err := stalled.Err(); !errors.Is(err, fanout.ErrWriteTimeout) {
			t.Errorf("Err = %v", err)
		}
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("it took %v", d)
		}
		finish(stalled, s1)
		finish(healthy, s2)
		w.pool.Close()
		if n := w.budget.Used() - logSize(w); n != 0 {
			t.Errorf("%d bytes are still accounted for", n)
		}
	})
}

// logSize frees the log and says how much that was.
func logSize(w *world) int64 {
	before := w.budget.Used()
	w.budget.Remove(w.log)
	return before - w.budget.Used()
}

func TestAViewerThatFallsOutOfTheLogIsToldOnceHowMuchItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{Messages: 10}, fanout.Config{Workers: 1})
		c, client, server := w.connect(fanout.Options{})
		server.Stall()
		s := w.subscribe(c, "t")
		w.publish("0")
		synctest.Wait()
		var last string
		for i := range 30 {
			w.publish(fmt.Sprint(i + 1))
			if i >= 20 {
				last += fmt.Sprintf("<%d %d>", i+2, i+1)
			}
		}
		server.Resume()
		expect(t, client, "<1 0>(missed 20)"+last)
		finish(c, s)
		w.pool.Close()
	})
}

func TestAFullPrivateQueueRefusesAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1, PrivateBytes: 10})
		c, client, server := w.connect(fanout.Options{})
		server.Stall()
		for i, want := range []error{nil, nil, fanout.ErrQueueFull, fanout.ErrQueueFull} {
			if err := c.Send([]byte("12345")); !errors.Is(err, want) {
				t.Errorf("Send %d: %v, want %v", i, err, want)
			}
		}
		synctest.Wait()
		server.Resume()
		expect(t, client, "1234512345(dropped 2)")
		synctest.Wait()
		if err := c.Send([]byte("again")); err != nil {
			t.Error(err)
		}
		expect(t, client, "again")
		finish(c)
		w.pool.Close()
	})
}

func TestASilentPeerIsPingedAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1, PingInterval: 25 * time.Second, PongTimeout: 10 * time.Second})
		var mu sync.Mutex
		heard := time.Now()
		c, client, _ := w.connect(fanout.Options{LastRead: func() int64 {
			mu.Lock()
			defer mu.Unlock()
			return heard.UnixNano()
		}})
		start := time.Now()
		expect(t, client, "?!")
		if d := time.Since(start); d < 25*time.Second || d > 26*time.Second {
			t.Errorf("pinged after %v", d)
		}
		time.Sleep(5 * time.Second)
		mu.Lock()
		heard = time.Now() // the pong
		mu.Unlock()
		expect(t, client, "?!")
		<-c.Done()
		if err := c.Err(); !errors.Is(err, fanout.ErrPingTimeout) {
			t.Errorf("Err = %v", err)
		}
		if d := time.Since(start); d < 65*time.Second || d > 69*time.Second {
			t.Errorf("given up after %v", d)
		}
		finish(c)
		w.pool.Close()
	})
}

func TestASlowPeerThatMovesIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1, PingInterval: 25 * time.Second, PongTimeout: 10 * time.Second})
		begin := time.Now().UnixNano()
		c, client, _ := w.connect(fanout.Options{LastRead: func() int64 { return begin }}) // never says a word
		s := w.subscribe(c, "t")
		data := string(bytes.Repeat([]byte("x"), 1000))
		for range 1000 {
			w.publish(data)
		}
		buf := make([]byte, 1000)
		for range 600 { // a megabyte at 2 KB/s takes 8 minutes
			time.Sleep(500 * time.Millisecond)
			if _, err := io.ReadFull(client, buf); err != nil {
				t.Fatalf("after %d reads: %v, %v", time.Now().UnixNano()-begin, err, c.Err())
			}
		}
		c.Abort(io.ErrClosedPipe)
		finish(c, s)
		w.pool.Close()
	})
}

// A backHandler lets a viewer that has come to the end of another log go on in its topic's own.
type backHandler struct{ handler }

func (backHandler) Lagged(s *fanout.Sub, cur stream.Cursor) {
	s.Leave()
	s.Resume(s.Encoding().Log().Oldest())
}

func TestAnotherLogComesBeforeTheTopicsOwnTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		w.publish("live")
		c, client, _ := w.connect(fanout.Options{Handler: backHandler{}})
		s := c.Subscribe("t", w.topic, w.log.Encoding("test", encode), nil)
		past, topic := stream.NewLog(stream.Retention{}, w.budget), w.pool.NewTopic(stream.Retention{})
		s.Follow(topic, past.Encoding("test", func(dst []byte, r *stream.Record) []byte {
			return fmt.Appendf(dst, "[%s]", r.Data)
		}), past.Oldest(), math.MaxUint64)
		drained := c.Drained()
		for i := range 100 {
			a := past.Begin()
			a.Add(stream.Position{Epoch: 9, Offset: uint64(i)}, 1, 0, fmt.Append(nil, i))
			a.End(time.Now())
			topic.Wake()
		}
		var want bytes.Buffer
		for i := range 100 {
			fmt.Fprintf(&want, "[%d]", i)
		}
		expect(t, client, want.String())
		synctest.Wait()
		if front, ok := topic.Front(); !ok || front != past.Bytes() || !s.Behind() {
			t.Errorf("it is at byte %d, %v, of %d", front, ok, past.Bytes())
		}
		select {
		case <-drained:
			t.Error("drained, while it follows a log that has not ended")
		default:
		}
		past.Close()
		topic.Wake()
		expect(t, client, "<1 live>")
		<-drained
		if _, bytes, ok := s.Lag(); bytes != 0 || !ok || s.Behind() || topic.Len() != 0 {
			t.Errorf("lag %d, %v; behind %v; %d follow the log that has ended", bytes, ok, s.Behind(), topic.Len())
		}
		finish(c, s)
		w.pool.Close()
	})
}

func TestDrainedWaitsForEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		c, client, server := w.connect(fanout.Options{})
		server.Stall()
		s := w.subscribe(c, "t")
		w.publish("a", "b")
		drained := c.Drained()
		synctest.Wait()
		select {
		case <-drained:
			t.Error("drained, and nothing was taken")
		default:
		}
		server.Resume()
		<-drained
		expect(t, client, "<1 a><2 b>")
		finish(c, s)
		w.pool.Close()
	})
}

// What a topic's log holds is sent before it is drained, though nobody has been told of it.
func TestDrainedLooksForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		c, client, _ := w.connect(fanout.Options{})
		s := w.subscribe(c, "t")
		synctest.Wait()
		a := w.log.Begin()
		a.Add(stream.Position{Epoch: 1, Offset: 1}, 1, 0, []byte("a"))
		a.End(time.Now())
		<-c.Drained()
		if _, n := c.Sent(); n != uint64(len("<1 a>")) {
			t.Errorf("%d bytes are sent", n)
		}
		expect(t, client, "<1 a>")
		finish(c, s)
		w.pool.Close()
	})
}

func TestARandomProgramReachesEveryViewer(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) { randomProgram(t, seed) })
	}
}

// randomProgram publishes, stalls, scripts short writes, sends and pings at random, over several connections, and checks
// that each viewer reads every message once, in order.
func randomProgram(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1 + rng.IntN(3), PrivateBytes: 1 << 20})
	type peer struct {
		c      *fanout.Conn
		s      *fanout.Sub
		server *testnet.Conn
		direct int
		got    bytes.Buffer
		done   chan struct{}
	}
	var peers []*peer
	for range 1 + rng.IntN(5) {
		p := &peer{done: make(chan struct{})}
		var client *testnet.Conn
		p.c, client, p.server = w.connect(fanout.Options{})
		p.s = w.subscribe(p.c, "t")
		go func() { io.Copy(&p.got, client); close(p.done) }()
		peers = append(peers, p)
	}
	for range 200 {
		p := peers[rng.IntN(len(peers))]
		switch rng.IntN(8) {
		case 0:
			p.server.Stall()
		case 1, 2:
			p.server.Resume()
		case 3:
			p.server.Script(testnet.Take(1+rng.IntN(20)), testnet.Block(), testnet.Take(1))
		case 4:
			p.direct++
			if err := p.c.Send(fmt.Appendf(nil, "{%d}", p.direct)); err != nil {
				t.Fatal(err)
			}
		default:
			for range rng.IntN(30) {
				w.publish("some text")
			}
		}
		if rng.IntN(3) == 0 {
			synctest.Wait()
		}
	}
	for _, p := range peers {
		p.server.Resume()
		<-p.c.Drained()
		finish(p.c, p.s)
		p.server.Close()
		<-p.done
		checkPeer(t, p.got.String(), w.sent, p.direct)
	}
	w.pool.Close()
}

func checkPeer(t *testing.T, got string, messages, direct int) {
	t.Helper()
	r := bytes.NewReader([]byte(got))
	for m, d := 0, 0; ; {
		var n int
		switch b, _ := r.ReadByte(); b {
		case '<':
			if _, err := fmt.Fscanf(r, "%d some text>", &n); err != nil || n != m+1 {
				t.Fatalf("message %d after %d, %v", n, m, err)
			}
			m++
		case '{':
			if _, err := fmt.Fscanf(r, "%d}", &n); err != nil || n != d+1 {
				t.Fatalf("direct message %d after %d, %v", n, d, err)
			}
			d++
		case '(':
			rest, _ := io.ReadAll(r)
			if string(rest) != "end)" || m != messages || d != direct {
				t.Fatalf("the end %q after %d of %d messages, %d of %d direct ones", rest, m, messages, d, direct)
			}
			return
		default:
			t.Fatalf("garbage %q after %d messages", b, m)
		}
	}
}

// TestAConnectionMayComeWhileThePoolCloses is one for the race detector: a request that has just begun finds its hub closed.
func TestAConnectionMayComeWhileThePoolCloses(t *testing.T) {
	for range 100 {
		w := newWorld(t, stream.Retention{}, fanout.Config{})
		var wg sync.WaitGroup
		wg.Go(func() {
			c, _, _ := w.connect(fanout.Options{})
			c.Cancel()
		})
		w.pool.Close()
		wg.Wait()
	}
}

// A placer tells its viewer with each heartbeat where it stands.
type placer struct {
	handler
	conn *fanout.Conn
}

func (p *placer) Quiet(dst []byte) []byte {
	for _, s := range p.conn.Subs() {
		dst = p.Place(dst, s)
	}
	return append(dst, "(quiet)"...)
}

// Release may come at any moment of a turn: what waits for it keeps its order, and what is drained has had it.
func TestReleaseAtAnyMoment(t *testing.T) {
	rounds := 10000
	if testing.Short() {
		rounds = 1000
	}
	w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
	w.publish("a")
	var spins atomic.Int64
	for i := range rounds {
		h := new(placer)
		client, server := testnet.Pipe(64 << 10)
		h.conn = w.pool.Add(fanout.Options{Socket: server, Direct: true, Handler: h, Hold: true, Abort: func() { server.Close() }})
		s := w.subscribe(h.conn, "t")
		h.conn.Beat()
		drained := h.conn.Drained()
		for range i % 500 { // so that it comes at another moment each time
			spins.Add(1)
		}
		h.conn.Release()
		<-drained
		if n, _ := h.conn.Sent(); n != 1 {
			t.Fatalf("round %d: it is drained after %d messages", i, n)
		}
		const want = "(at 0)(quiet)<1 a>"
		if _, n := h.conn.Sent(); n != uint64(len(want)) {
			t.Fatalf("round %d: %d bytes are sent", i, n)
		}
		expect(t, client, want)
		finish(h.conn, s)
		client.Close()
	}
	w.pool.Close()
}

// A filter that comes to know more is of no concern to the many who read without one: there is one for each message, at worst.
func TestWakingAFilterTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 2})
		var conns []*fanout.Conn
		var subs []*fanout.Sub
		for range 100 {
			c, _, _ := w.connect(fanout.Options{})
			conns, subs = append(conns, c), append(subs, w.subscribe(c, "t"))
		}
		f := new(stream.Filter)
		if n := testing.AllocsPerRun(10, func() { w.topic.WakeFiltered(f) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
		for i, c := range conns {
			finish(c, subs[i])
		}
		w.pool.Close()
	})
}

// What is woken before its flush interval is over leaves nothing behind until then.
func TestWakingWhatIsHeldTakesNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1, FlushInterval: time.Minute})
		c, _, _ := w.connect(fanout.Options{})
		s := w.subscribe(c, "t")
		synctest.Wait()
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		const rounds = 100_000
		before := heap()
		for range rounds {
			w.topic.Grow(1, 1)
			w.topic.Wake()
			synctest.Wait()
		}
		if grown := heap() - before; grown > 2*rounds {
			t.Errorf("%d rounds have left %d bytes", rounds, grown)
		}
		finish(c, s)
		w.pool.Close()
	})
}

// A tardySocket takes everything, but some time too. It says when it has got what.
type tardySocket struct {
	takes time.Duration
	began time.Time
	got   bytes.Buffer
	at    []time.Duration
}

func (s *tardySocket) TryWrite(p []byte) (int, error) {
	s.got.Write(p)
	s.at = append(s.at, time.Since(s.began))
	time.Sleep(s.takes)
	return len(p), nil
}

func (s *tardySocket) WriteSome(p []byte, _ time.Duration) (int, error) { return s.TryWrite(p) }

// A worker that is overtaken rests from that topic, for as long as it was busy; not from another one, nor when the pool closes.
func TestAnOvertakenWorkerRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, stream.Retention{}, fanout.Config{Workers: 1})
		other := *w
		other.log, other.topic, other.sent = stream.NewLog(stream.Retention{}, w.budget), w.pool.NewTopic(stream.Retention{}), 0
		began := time.Now()
		var conns []*fanout.Conn
		var subs []*fanout.Sub
		add := func(w *world, takes time.Duration) *tardySocket {
			s := &tardySocket{takes: takes, began: began}
			c := w.pool.Add(fanout.Options{Socket: s, Direct: true, Handler: handler{}, Abort: func() {}})
			conns, subs = append(conns, c), append(subs, w.subscribe(c, ""))
			return s
		}
		first := add(w, 400*time.Microsecond)
		for range 9 {
			add(w, 400*time.Microsecond)
		}
		quick := add(&other, 0)
		synctest.Wait()
		w.publish("m") // it is busy until 4.4 ms, since one gets the second message by itself
		time.Sleep(time.Millisecond)
		w.publish("m")
		time.Sleep(4 * time.Millisecond) // it rests until 8.8 ms
		w.publish("m")
		other.publish("o")
		time.Sleep(time.Second)
		synctest.Wait()
		if got := first.got.String(); got != "<1 m><2 m><3 m>" || first.at[1] != 8800*time.Microsecond {
			t.Errorf("the first of ten got %q at %v", got, first.at)
		}
		if got := quick.got.String(); got != "<1 o>" || quick.at[0] != 5*time.Millisecond {
			t.Errorf("the one of the other topic got %q at %v", got, quick.at)
		}
		w.publish("m")
		time.Sleep(time.Millisecond)
		w.publish("m")
		time.Sleep(4 * time.Millisecond) // it rests again
		for i, c := range conns {
			finish(c, subs[i])
		}
		w.pool.Close()
		if d := time.Since(began); d > 1020*time.Millisecond {
			t.Errorf("it ends after %v", d)
		}
	})
}

// countingSocket takes everything, and says so. It goes through as much memory as the kernel does, so that what a connection is made
// of is no longer in the cache when its next message comes.
type countingSocket struct {
	left *atomic.Int64
	all  chan struct{}
	mem  []byte
}

func (s *countingSocket) TryWrite(p []byte) (int, error) {
	for i := 0; i < len(s.mem); i += 64 {
		s.mem[i]++
	}
	if s.left.Add(-1) == 0 {
		s.all <- struct{}{}
	}
	return len(p), nil
}

func (s *countingSocket) WriteSome(p []byte, _ time.Duration) (int, error) { return s.TryWrite(p) }

// BenchmarkDelivery is what a worker spends on each message and connection besides the write.
func BenchmarkDelivery(b *testing.B) {
	for _, size := range []int{0, 4 << 10} {
		for _, conns := range []int{1, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("kernel=%d/conns=%d", size, conns), func(b *testing.B) { benchmarkDelivery(b, conns, 1, size) })
		}
	}
	for _, topics := range []int{10, 100} { // of which one grows
		b.Run(fmt.Sprintf("kernel=0/conns=1000/topics=%d", topics), func(b *testing.B) { benchmarkDelivery(b, 1000, topics, 0) })
	}
}

func benchmarkDelivery(b *testing.B, conns, topics, size int) {
	w := newWorld(b, stream.Retention{Messages: 100}, fanout.Config{Workers: 1})
	var quiet []*world // topics beside it
	for range topics - 1 {
		q := &world{t: b, budget: w.budget, pool: w.pool, log: stream.NewLog(stream.Retention{Messages: 100}, w.budget)}
		q.topic = w.pool.NewTopic(stream.Retention{Messages: 100})
		quiet = append(quiet, q)
	}
	left, all := new(atomic.Int64), make(chan struct{}, 1)
	for range conns {
		s := &countingSocket{left, all, make([]byte, size)}
		c := w.pool.Add(fanout.Options{Socket: s, Direct: true, Handler: handler{}, Abort: func() {}})
		subs := []*fanout.Sub{w.subscribe(c, "")}
		for _, q := range quiet {
			subs = append(subs, q.subscribe(c, ""))
		}
		defer finish(c, subs...)
	}
	b.ReportAllocs()
	for b.Loop() {
		left.Store(int64(conns))
		w.publish("a line of a log that is not too long, with some words")
		<-all
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(conns), "ns/delivery")
	left.Store(int64(2 * conns)) // the last bytes
}
