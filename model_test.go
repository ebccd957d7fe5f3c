package tailcast_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestModel runs random programs of publish, join, stall, leave and resume through the whole stack. The model is a slice:
// message n says "n" and some padding. Each viewer must see the numbers one after the other; where one is left out, a gap
// that says how many must stand there, and with a Replayer none may be.
func TestModel(t *testing.T) {
	for seed := range uint64(soak(25)) {
		synctest.Test(t, func(t *testing.T) {
			m := &modelRun{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7))}
			m.run(seed%2 == 0)
		})
	}
}

// soak is n in a usual run, and 40 times that where TAILCAST_SOAK is set.
func soak(n int) int {
	if os.Getenv("TAILCAST_SOAK") != "" {
		return 40 * n
	}
	return n
}

type modelRun struct {
	t         *testing.T
	seed      uint64
	rng       *rand.Rand
	site      *site
	published int
	tape      *tape // nil: the hub numbers
	viewers   []*modelViewer
}

// A modelViewer is a client that comes back with its last id.
type modelViewer struct {
	m     *modelRun
	name  string
	kind  string // "websocket" cannot come back
	nc    *testnet.Conn
	next  int    // the number that must come next; 0 = any
	id    string // the last one seen
	ended chan struct{}
}

func (m *modelRun) fatalf(v *modelViewer, format string, args ...any) {
	m.t.Errorf("seed %d, %s: %s", m.seed, v.name, fmt.Sprintf(format, args...))
	v.nc.Close()
}

func (m *modelRun) run(replay bool) {
	keep := tailcast.Retention{Messages: 1 + m.rng.IntN(60)}
	m.site = newSite(m.t, tailcast.WithRetention(keep), tailcast.WithBacklog(m.rng.IntN(5)))
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
		if m.rng.IntN(2) == 0 {
			synctest.Wait()
		}
	}
	for _, v := range m.viewers {
		v.nc.Peer().Resume()
	}
	synctest.Wait()
	for _, v := range m.viewers {
		if v.next != 0 && v.next != m.published+1 {
			m.fatalf(v, "ends before %d, %d are published", v.next, m.published)
		}
		v.leave()
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
		v := &modelViewer{m: m, name: fmt.Sprint("viewer ", len(m.viewers), " ", kind), kind: kind}
		m.viewers = append(m.viewers, v)
		v.join()
		return
	}
	v := m.viewers[m.rng.IntN(len(m.viewers))]
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
	since := ""
	if v.id != "" {
		since = "?since=" + v.id
	}
	switch v.kind {
	case "websocket":
		ws := v.dial("/?tail=0", nil)
		go func() { defer close(v.ended); v.readWS(ws) }()
	case "tailcast.v1":
		ws := v.dial("/"+since, http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		go func() { defer close(v.ended); v.readObjects(&objects{t: v.m.t, ws: ws, ids: make(map[string]string)}) }()
	case "ndjson":
		r := openStream(v.m.t, v.nc, "/"+since, "Accept: application/x-ndjson")
		go func() { defer close(v.ended); v.readObjects(&objects{t: v.m.t, line: r, ids: make(map[string]string)}) }()
	case "sse":
		header := []string{"Accept: text/event-stream"}
		if v.id != "" {
			header = append(header, "Last-Event-ID: "+v.id)
		}
		r := openStream(v.m.t, v.nc, "/", header...)
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
		case "pos", "bye":
		default:
			v.m.fatalf(v, "%v", o)
		}
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
		case op == 1:
			v.number(string(p))
		case op == 8:
			v.m.fatalf(v, "closed: %q", p)
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
	case v.next != 0 && n != v.next:
		v.m.fatalf(v, "%d comes, %d is next", n, v.next)
	}
	v.next = n + 1
}

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
	if v.m.tape != nil {
		v.m.fatalf(v, "a gap that a replay could have filled: %s", gap)
	}
	if v.next != 0 {
		v.next += int(count)
	}
}
