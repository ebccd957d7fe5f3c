package fanout_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A roomHandler takes who has come to the end of a replay to where its topic's own log was then.
type roomHandler struct{ handler }

func (roomHandler) Lagged(s *fanout.Sub, _ stream.Cursor) {
	s.Leave()
	s.Resume(s.Owner.(*stand).from)
}

func (roomHandler) Rewrite(dst []byte, _ *fanout.Sub, c *stream.Chunk) []byte {
	return append(dst, c.Bytes...)
}

// A room is one of several topics.
type room struct {
	name   string
	log    *stream.Log
	topic  *fanout.Topic
	sent   []uint32 // whose each message is
	stands []*stand
}

// message is the text of the nth one.
func (r *room) message(n int) string { return fmt.Sprintf("%s:%d", r.name, n) }

// A stand is one viewer's subscription, and what it is to get.
type stand struct {
	room     *room
	g        *guest
	sub      *fanout.Sub
	from     stream.Cursor
	filtered bool
	past     *room // what it follows first
	rests    bool  // it has not been resumed yet
	removed  bool
	first    []string // of past
	then     []string
}

// A guest is a connection.
type guest struct {
	c      *fanout.Conn
	server *testnet.Conn
	author uint32
	held   bool
	stands []*stand
	direct int
	over   chan struct{}

	mu  sync.Mutex
	got bytes.Buffer
}

func (g *guest) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got.Write(p)
}

// TestNothingIsLeftLying: a worker looks at what it was told of. When all has come to rest, and nobody has asked for anything more (as
// Drained would), each viewer has all that there is for it.
func TestNothingIsLeftLying(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { randomRooms(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// A house is what randomRooms does things to.
type house struct {
	*world
	rng    *rand.Rand
	even   *stream.Filter
	mu     sync.Mutex // guards what is expected, and the order of a room's messages
	rooms  []*room
	guests []*guest
}

func randomRooms(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	cfg := fanout.Config{Workers: 1 + rng.IntN(2), PrivateBytes: 1 << 20}
	if rng.IntN(4) == 0 {
		cfg.FlushInterval = 5 * time.Millisecond
	}
	h := &house{world: newWorld(t, stream.Retention{}, cfg), rng: rng}
	h.even = &stream.Filter{Key: "even", Go: func(f func()) { go f() }, Match: func(r *stream.Record) (pass, ok bool) {
		return (r.Data[len(r.Data)-1]-'0')%2 == 0, true
	}}
	for i := range 2 + rng.IntN(4) {
		h.rooms = append(h.rooms, h.room(fmt.Sprint("r", i)))
	}
	for i := range 2 + rng.IntN(5) {
		h.guests = append(h.guests, h.guest(i))
	}
	for range 60 {
		var wg sync.WaitGroup
		for range 1 + rng.IntN(6) {
			wg.Go(h.act())
		}
		wg.Wait()
		if rng.IntN(3) == 0 {
			synctest.Wait()
		}
		if rng.IntN(5) == 0 {
			h.rest()
		}
	}
	h.rest()
	for _, g := range h.guests {
		var subs []*fanout.Sub
		for _, s := range g.stands {
			if !s.removed {
				subs = append(subs, s.sub)
			}
		}
		finish(g.c, subs...)
		g.server.Close()
		<-g.over
	}
	h.pool.Close()
}

func (h *house) room(name string) *room {
	return &room{name: name, log: stream.NewLog(stream.Retention{}, h.budget), topic: h.pool.NewTopic(stream.Retention{})}
}

func (h *house) guest(i int) *guest {
	g := &guest{author: uint32(i + 1), over: make(chan struct{}), held: h.rng.IntN(3) == 0}
	client, server := testnet.Pipe(64 << 10)
	g.server = server
	o := fanout.Options{
		Socket: server, Direct: h.rng.IntN(4) > 0, Resident: h.rng.IntN(6) == 0, Rewrite: h.rng.IntN(4) == 0, Hold: g.held, Handler: roomHandler{},
		Abort: func() { server.Close() }, Pong: func(dst, data []byte) []byte { return append(dst, "{pong}"...) },
	}
	g.c = h.pool.Add(o)
	if o.Resident {
		go g.c.Run(context.Background())
	}
	if h.rng.IntN(2) == 0 {
		g.c.Author(g.author)
	} else {
		g.author = 0
	}
	go func() { io.Copy(g, client); close(g.over) }()
	return g
}

// act chooses something to be done beside other things.
func (h *house) act() func() {
	g, r := h.guests[h.rng.IntN(len(h.guests))], h.rooms[h.rng.IntN(len(h.rooms))]
	switch n := 1 + h.rng.IntN(3); h.rng.IntN(20) {
	case 0:
		return g.server.Stall
	case 1:
		return g.server.Resume
	case 2:
		steps := []testnet.Step{testnet.Take(n), testnet.Block(), testnet.Take(10 * n)}
		return func() { g.server.Script(steps...) }
	case 3:
		return func() {
			h.mu.Lock()
			g.direct++
			h.mu.Unlock()
			_ = g.c.Send([]byte("{direct}"))
		}
	case 4:
		return func() { g.c.SendPong(nil) }
	case 5:
		filtered, follows := h.rng.IntN(4) == 0, h.rng.IntN(3) == 0
		return func() { h.subscribe(g, r, filtered, follows, n-1) }
	case 6:
		return func() { h.remove(g, r) }
	case 7:
		return func() { h.release(g) }
	case 10, 11:
		return func() { h.resume(g, n-1) }
	case 8, 9:
		return func() { h.replay(g, n == 1) }
	default:
		from := h.guests[h.rng.IntN(len(h.guests))].author
		return func() { h.say(r, n, from) }
	}
}

func (h *house) say(r *room, n int, from uint32) {
	h.mu.Lock()
	a := r.log.Begin()
	a.From = from
	for range n {
		r.sent = append(r.sent, from)
		n := len(r.sent)
		a.Add(stream.Position{Epoch: 1, Offset: uint64(n)}, 1, 0, []byte(r.message(n)))
		for _, s := range r.stands {
			if !s.rests { // one that is removed may still get it, until the worker comes to that
				s.expect(n)
			}
		}
	}
	a.End(time.Now())
	h.mu.Unlock()
	r.topic.Grow(n, 10*n)
}

// begin settles how many messages of the past it is to get.
func (s *stand) begin(back int) {
	begin := max(0, len(s.room.sent)-back)
	s.from = s.room.log.At(uint64(begin + 1))
	for n := begin; n < len(s.room.sent); n++ {
		s.expect(n + 1)
	}
}

// expect notes that its viewer is to get the nth message of its room, unless it is not for it.
func (s *stand) expect(n int) {
	if from := s.room.sent[n-1]; from != 0 && s.g.author == from || s.filtered && n%2 == 1 {
		return
	}
	s.then = append(s.then, s.room.message(n))
}

func bracket(dst []byte, r *stream.Record) []byte { return fmt.Appendf(dst, "<%s>", r.Data) }

func (h *house) subscribe(g *guest, r *room, filtered, follows bool, back int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(g.stands, func(s *stand) bool { return s.room == r }) {
		return
	}
	s := &stand{room: r, g: g, filtered: filtered && !follows}
	enc := func() *stream.Encoding { return r.log.Encoding("test", bracket) }
	if s.filtered {
		enc = func() *stream.Encoding {
			return r.log.Filtered("test", bracket, h.even, func() { r.topic.WakeFiltered(h.even) })
		}
	}
	s.sub = g.c.Subscribe(r.name, r.topic, enc(), s)
	if s.rests = !follows; follows {
		s.begin(back)
		s.past = h.room("past of " + r.name)
		s.sub.Follow(s.past.topic, s.past.log.Encoding("test", bracket), s.past.log.Oldest(), math.MaxUint64)
	}
	g.stands, r.stands = append(g.stands, s), append(r.stands, s)
}

// replay goes on with a replay, or ends it.
func (h *house) replay(g *guest, end bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range g.stands {
		if s.past == nil || s.removed {
			continue
		}
		p := s.past
		if end {
			p.log.Close()
			s.past = nil
		} else {
			a := p.log.Begin()
			p.sent = append(p.sent, 0)
			text := fmt.Sprintf("%s:past%d", s.room.name, len(p.sent))
			a.Add(stream.Position{Epoch: 2, Offset: uint64(len(p.sent))}, 1, 0, []byte(text))
			a.End(time.Now())
			s.first = append(s.first, text)
		}
		p.topic.Grow(1, 10)
	}
}

func (h *house) remove(g *guest, r *room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range g.stands {
		if s.room == r && !s.removed && s.past == nil {
			s.removed = true
			s.sub.Remove()
		}
	}
}

func (h *house) release(g *guest) {
	h.mu.Lock()
	held := g.held
	g.held = false
	h.mu.Unlock()
	if held {
		g.c.Release()
	}
}

func (h *house) resume(g *guest, back int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range g.stands {
		if s.rests && !s.removed {
			s.rests = false
			s.begin(back)
			s.sub.Resume(s.from)
		}
	}
}

// rest lets all come to rest, and looks what the viewers have.
func (h *house) rest() {
	h.t.Helper()
	for _, g := range h.guests {
		g.server.Resume()
		h.release(g)
		synctest.Wait()
		h.resume(g, 1)
	}
	synctest.Wait()
	time.Sleep(100 * time.Millisecond) // a flush interval, a worker's rest
	synctest.Wait()
	for i, g := range h.guests {
		got := make(map[string][]string) // by room
		direct := 0
		for _, f := range strings.FieldsFunc(g.got.String(), func(r rune) bool { return r == '<' || r == '>' || r == '{' || r == '}' }) {
			if f == "direct" {
				direct++
			} else if name, _, ok := strings.Cut(f, ":"); ok {
				got[name] = append(got[name], f)
			}
		}
		g.got.Reset()
		if direct != g.direct {
			h.t.Errorf("connection %d has %d of %d direct messages", i, direct, g.direct)
		}
		g.direct = 0
		g.stands = slices.DeleteFunc(g.stands, func(s *stand) bool {
			want := s.first
			if s.past == nil {
				want = append(want, s.then...)
				s.then = nil
			}
			s.first = nil
			has := got[s.room.name]
			delete(got, s.room.name)
			if s.removed && len(has) < len(want) {
				want = want[:len(has)]
			}
			if !slices.Equal(has, want) {
				h.t.Errorf("connection %d, filtered %v: it has %q; want %q", i, s.filtered, has, want)
			}
			if s.removed {
				s.room.stands = slices.DeleteFunc(s.room.stands, func(o *stand) bool { return o == s })
			}
			return s.removed
		})
		if len(got) > 0 {
			h.t.Errorf("connection %d has what nobody has sent to it: %v", i, got)
		}
	}
}
