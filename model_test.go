package tailcast_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestModel runs random programs of publish, join, stall, leave and resume through the whole stack, with each policy for those
// who lag, for the hub or for the topic. The model is a slice: message n says "n" and some padding. Each viewer must see the
// numbers one after the other; where one is left out, a gap that says how many must stand there, and with a Replayer and
// LagCatchUp none may be. Some viewers have a filter. LagClose closes; who comes back then gets the rest.
func TestModel(t *testing.T) {
	var seen modelSeen
	for seed := range uint64(soak(48)) {
		synctest.Test(t, func(t *testing.T) {
			m := &modelRun{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), seen: &seen}
			m.policy = tailcast.LagPolicy(1 + seed/2%3)
			m.run(seed%2 == 0, seed/6%2 == 0)
		})
	}
	if seen.gaps.Load() == 0 || seen.closed.Load() == 0 || seen.replays.Load() == 0 {
		t.Errorf("%d gaps, %d viewers closed, %d replays: the programs do not reach what they are for",
			seen.gaps.Load(), seen.closed.Load(), seen.replays.Load())
	}
}

// modelSeen counts what the programs have come upon.
type modelSeen struct{ gaps, closed, replays atomic.Int32 }

// soak is n in a usual run, and 40 times that where TAILCAST_SOAK is set.
func soak(n int) int {
	if os.Getenv("TAILCAST_SOAK") != "" {
		return 40 * n
	}
	if raced {
		return n / 6
	}
	return n
}

type modelRun struct {
	t         *testing.T
	seed      uint64
	rng       *rand.Rand
	site      *site
	policy    tailcast.LagPolicy
	published int
	tape      *tape // nil: the hub numbers
	viewers   []*modelViewer
	seen      *modelSeen
}

// A modelViewer is a client that comes back with its last id.
type modelViewer struct {
	m     *modelRun
	name  string
	kind  string // "websocket" cannot come back
	nc    *testnet.Conn
	next  int    // the number that must come next; 0 = any
	slack int    // it may be as many more, since a gap counts what its filter leaves out
	step  int    // its filter passes the multiples of this
	id    string // the last one seen
	ended chan struct{}
}

func (m *modelRun) fatalf(v *modelViewer, format string, args ...any) {
	m.t.Errorf("seed %d, %s: %s", m.seed, v.name, fmt.Sprintf(format, args...))
	v.nc.Close()
}

func (m *modelRun) run(replay, byTopic bool) {
	keep, backlog := tailcast.Retention{Messages: 1 + m.rng.IntN(60)}, m.rng.IntN(5)
	opts := []tailcast.Option{
		tailcast.WithRetention(keep), tailcast.WithBacklog(backlog), tailcast.WithLagPolicy(m.policy),
		tailcast.WithMaxReplays(1 + m.rng.IntN(3)), tailcast.WithFlushInterval(time.Duration(m.seed%3) * 10 * time.Millisecond),
	}
	if byTopic {
		opts = append(opts, tailcast.WithBacklog(100), tailcast.WithRetention(tailcast.Retention{}),
			tailcast.WithLagPolicy(1+m.policy%3),
			tailcast.WithTopicConfig("*", tailcast.TopicConfig{Retention: keep, Backlog: max(backlog, -1), Lag: m.policy}))
		if backlog == 0 {
			opts = append(opts, tailcast.WithTopicConfig("", tailcast.TopicConfig{Backlog: -1}))
		}
	}
	m.site = newSite(m.t, opts...)
	ctx, cancel := context.WithCancel(m.t.Context())
	stopped := make(chan error, 1)
	if replay {
		m.tape = &tape{next: make(chan int)}
		for i := range 20_000 {
			m.tape.data = append(m.tape.data, m.data(i+1))
		}
		go func() { stopped <- m.site.hub.Run(ctx, m.tape) }()
	} else {
		stopped <- nil
	}
	m.publish(1)
	for range 150 {
		m.step()
		switch m.rng.IntN(4) {
		case 0:
			synctest.Wait()
		case 1:
			time.Sleep(time.Duration(m.rng.IntN(30)) * time.Millisecond) // all in all less than the write timeout
		}
	}
	for _, v := range m.viewers {
		v.nc.Peer().Resume()
	}
	time.Sleep(9 * time.Second)
	synctest.Wait()
	for _, v := range m.viewers {
		if v.kind != "websocket" && v.over() { // closed for its lag
			v.join()
		}
	}
	time.Sleep(9 * time.Second)
	synctest.Wait()
	for _, v := range m.viewers {
		if !v.over() && v.next != 0 && v.up(v.next+v.slack) <= m.published {
			m.fatalf(v, "ends before %d, %d are published", v.next, m.published)
		}
		v.leave()
	}
	if m.tape != nil {
		m.seen.replays.Add(m.tape.replays.Load())
	}
	cancel()
	if err := <-stopped; err != nil {
		m.t.Errorf("seed %d: Run = %v", m.seed, err)
	}
}

func (m *modelRun) data(n int) string {
	return strconv.Itoa(n) + " " + strings.Repeat("x", n*7919%1500)
}

func (m *modelRun) publish(n int) {
	if m.tape != nil {
		m.tape.next <- n
		m.published += n
		synctest.Wait()
		return
	}
	msgs := make([]tailcast.Message, n)
	for i := range msgs {
		m.published++
		msgs[i].Data = []byte(m.data(m.published))
	}
	if err := m.site.hub.Publish(m.t.Context(), msgs...); err != nil {
		m.t.Fatal(err)
	}
}

func (m *modelRun) step() {
	if len(m.viewers) < 4 {
		kinds := []string{"sse", "tailcast.v1", "ndjson", "websocket"}
		if m.tape == nil {
			kinds = kinds[:3] // a lag would close a bare WebSocket
		}
		kind := kinds[m.rng.IntN(len(kinds))]
		v := &modelViewer{m: m, name: fmt.Sprint("viewer ", len(m.viewers), " ", kind), kind: kind, step: 1}
		if m.rng.IntN(2) == 0 {
			v.step = 5
			v.name += " with a filter"
		}
		m.viewers = append(m.viewers, v)
		v.join()
		return
	}
	v := m.viewers[m.rng.IntN(len(m.viewers))]
	if v.over() {
		v.join()
		return
	}
	switch m.rng.IntN(8) {
	case 0:
		v.nc.Peer().Stall()
	case 1, 2:
		v.nc.Peer().Resume()
	case 3:
		v.nc.Peer().Script(testnet.Take(1+m.rng.IntN(100)), testnet.Block(), testnet.Take(1))
	case 4:
		if v.kind != "websocket" {
			v.leave()
			v.join()
		}
	default:
		m.publish(1 + m.rng.IntN(80))
	}
}

func (v *modelViewer) join() {
	v.nc = v.m.site.dial()
	v.ended = make(chan struct{})
	since := "?"
	if v.kind == "websocket" {
		v.next, v.slack = 0, 0
	}
	if v.id != "" {
		since = "?since=" + v.id + "&"
	}
	filter := ""
	if v.step > 1 {
		filter = "grep=" + url.QueryEscape(`^\d*[05] `)
	}
	switch v.kind {
	case "websocket":
		ws := v.dial("/?tail=0&"+filter, nil)
		go func() { defer close(v.ended); v.readWS(ws) }()
	case "tailcast.v1":
		ws := v.dial("/"+since+filter, http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		go func() { defer close(v.ended); v.readObjects(&objects{t: v.m.t, ws: ws, ids: make(map[string]string)}) }()
	case "ndjson":
		r := openStream(v.m.t, v.nc, "/"+since+filter, "Accept: application/x-ndjson")
		go func() { defer close(v.ended); v.readObjects(&objects{t: v.m.t, line: r, ids: make(map[string]string)}) }()
	case "sse":
		header := []string{"Accept: text/event-stream"}
		if v.id != "" {
			header = append(header, "Last-Event-ID: "+v.id)
		}
		r := openStream(v.m.t, v.nc, "/?"+filter, header...)
		go func() { defer close(v.ended); v.readSSE(r) }()
	}
}

func (v *modelViewer) dial(path string, header http.Header) *testnet.WS {
	ws, _, err := testnet.NewWS(v.nc, "hub.example", path, header)
	if err != nil {
		v.m.t.Fatal(err)
	}
	return ws
}

// readObjects reads until the connection ends. A line or frame that the end has cut is not there.
func (v *modelViewer) readObjects(r *objects) {
	for {
		o, err := r.read()
		if err != nil {
			return
		}
		if id := r.ids[""]; id != "" {
			v.id = id
		}
		switch o.Event {
		case "":
			v.number(o.Data)
		case "gap":
			v.lost(o.Count, o.String())
		case "pos":
		case "bye":
			if v.m.policy == tailcast.LagClose {
				v.m.seen.closed.Add(1)
				v.nc.Close()
			}
		default:
			v.m.fatalf(v, "%v", o)
		}
	}
}

// over reports whether the hub has closed the connection.
func (v *modelViewer) over() bool {
	select {
	case <-v.ended:
		return true
	default:
		return false
	}
}

// leave closes the connection after what is on its way has been read or lost: either must do.
func (v *modelViewer) leave() {
	v.nc.Close()
	<-v.ended
}

func (v *modelViewer) readWS(ws *testnet.WS) {
	for {
		op, p, err := ws.ReadFrame()
		switch {
		case err != nil:
			return
		case op == 1 && v.m.policy == tailcast.LagSkip && strings.HasPrefix(string(p), "# tailcast gap: "):
			var n int
			if _, err := fmt.Sscanf(string(p), "# tailcast gap: %d message", &n); err != nil {
				v.m.fatalf(v, "gap %q: %v", p, err)
			}
			v.skip(n)
		case op == 1:
			v.number(string(p))
		case op == 8:
			if v.m.policy != tailcast.LagClose || binary.BigEndian.Uint16(p) != 1013 {
				v.m.fatalf(v, "closed: %q", p)
			}
			v.m.seen.closed.Add(1)
			v.nc.Close()
		}
	}
}

func (v *modelViewer) readSSE(r *reader) {
	for {
		e, err := r.event()
		if err != nil {
			if r.id != "" {
				v.id = r.id // also that of a block of only an id
			}
			return
		}
		v.id = r.id
		switch e.name {
		case "":
			v.number(e.data)
		case "gap":
			v.gap(e.data)
		case "bye":
			if v.m.policy == tailcast.LagClose && strings.Contains(e.data, `"code":1013,`) {
				v.m.seen.closed.Add(1)
			} else {
				v.m.fatalf(v, "bye %s", e.data)
			}
			v.nc.Close()
		default:
			v.m.fatalf(v, "event %+v", e)
		}
	}
}

func (v *modelViewer) number(data string) {
	first, _, _ := strings.Cut(data, " ")
	n, err := strconv.Atoi(first)
	switch {
	case err != nil || data != v.m.data(n):
		v.m.fatalf(v, "garbage %.60q", data)
	case n%v.step != 0 || v.next != 0 && (n < v.up(v.next) || n > v.up(v.next+v.slack)):
		v.m.fatalf(v, "%d comes, %d to %d is next", n, v.next, v.next+v.slack)
	}
	v.next, v.slack = n+1, 0
}

// up is the first number from n on that passes.
func (v *modelViewer) up(n int) int { return (n + v.step - 1) / v.step * v.step }

func (v *modelViewer) gap(data string) {
	var gap struct{ Count, Bytes int64 }
	if err := json.Unmarshal([]byte(data), &gap); err != nil {
		v.m.fatalf(v, "gap %s, %v", data, err)
		return
	}
	v.lost(gap.Count, data)
}

func (v *modelViewer) lost(count int64, gap string) {
	if count <= 0 {
		v.m.fatalf(v, "gap %s", gap)
	}
	if v.m.tape != nil && v.m.policy != tailcast.LagSkip {
		v.m.fatalf(v, "a gap that a replay could have filled: %s", gap)
	}
	v.skip(int(count))
}

func (v *modelViewer) skip(n int) {
	v.m.seen.gaps.Add(1)
	if v.next != 0 { // it stood anywhere before the next one that passes
		v.slack = v.up(v.next+v.slack) - v.next
		v.next += n
	}
}
