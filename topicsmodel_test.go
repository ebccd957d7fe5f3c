package tailcast_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestModelOfSeveralTopics runs random programs in which viewers of three topics stall, leave, come back, and leave and join
// single topics by command. Message n of a topic says so; each viewer must see the numbers of a topic one after the other, and
// where some are left out a gap that says how many.
func TestModelOfSeveralTopics(t *testing.T) {
	for seed := range uint64(soak(25)) {
		synctest.Test(t, func(t *testing.T) {
			m := &topicsRun{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 11)), published: make(map[string]int)}
			m.run()
		})
	}
}

var modelTopics = []string{"a", "b,=%é\"", "c"}

type topicsRun struct {
	t         *testing.T
	seed      uint64
	rng       *rand.Rand
	site      *site
	published map[string]int
	viewers   []*topicsViewer
}

type topicsViewer struct {
	m     *topicsRun
	name  string
	kind  string
	nc    *testnet.Conn
	r     *objects          // of envelopes
	ids   map[string]string // of envelopes
	id    string            // of an event stream
	next  map[string]int
	left  map[string]bool // topics that it has left by command
	ended chan struct{}
}

func (m *topicsRun) run() {
	m.site = newSite(m.t, tailcast.WithRetention(tailcast.Retention{Messages: 1 + m.rng.IntN(40)}),
		tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}),
		tailcast.WithFlushInterval(time.Duration(m.seed%3)*10*time.Millisecond),
		tailcast.WithWriteTimeout(100*time.Hour), tailcast.WithPing(0, time.Second)) // it may stall for long
	for i, kind := range []string{"tailcast.v1", "tailcast.v1", "ndjson", "sse"} {
		v := &topicsViewer{
			m: m, name: fmt.Sprintf("viewer %d %s", i, kind), kind: kind, ids: make(map[string]string),
			next: make(map[string]int), left: make(map[string]bool),
		}
		for _, topic := range modelTopics { // none has a past: what comes first is number 1
			v.next[topic] = 1
		}
		m.viewers = append(m.viewers, v)
		v.join()
		synctest.Wait() // it has read where it stands
	}
	for range 150 {
		m.step()
		if m.rng.IntN(2) == 0 {
			synctest.Wait()
		}
	}
	for _, v := range m.viewers {
		v.nc.Peer().Resume()
	}
	time.Sleep(time.Second) // more than the flush interval
	synctest.Wait()
	for _, v := range m.viewers {
		for topic, n := range v.next {
			if n != m.published[topic]+1 && !v.left[topic] {
				v.fatalf("ends before %s %d, %d are published", topic, n, m.published[topic])
			}
		}
		v.leave()
	}
}

func (m *topicsRun) step() {
	v := m.viewers[m.rng.IntN(len(m.viewers))]
	switch m.rng.IntN(9) {
	case 0:
		v.nc.Peer().Stall()
	case 1, 2:
		v.nc.Peer().Resume()
	case 3:
		v.nc.Peer().Script(testnet.Take(1+m.rng.IntN(100)), testnet.Block(), testnet.Take(1))
	case 4:
		v.leave()
		v.join()
		if m.rng.IntN(2) == 0 {
			time.Sleep(16 * time.Second) // a heartbeat
		}
	case 5:
		if v.kind == "tailcast.v1" {
			v.toggle(modelTopics[m.rng.IntN(len(modelTopics))])
		}
	default:
		m.publish(1 + m.rng.IntN(40))
	}
}

// publish publishes n messages, in as many topics as chance will have it.
func (m *topicsRun) publish(n int) {
	msgs := make([]tailcast.Message, n)
	for i := range msgs {
		topic := modelTopics[m.rng.IntN(len(modelTopics))]
		m.published[topic]++
		msgs[i] = tailcast.Message{Topic: topic, Data: []byte(modelData(topic, m.published[topic]))}
	}
	if err := m.site.hub.Publish(m.t.Context(), msgs...); err != nil {
		m.t.Fatal(err)
	}
}

func modelData(topic string, n int) string {
	return fmt.Sprint(n, " ", topic, strings.Repeat("x", n*7919%900))
}

func (v *topicsViewer) fatalf(format string, args ...any) {
	v.m.t.Errorf("seed %d, %s: %s", v.m.seed, v.name, fmt.Sprintf(format, args...))
	v.nc.Close()
}

// query is what it asks for: the topics that it has not left, and since where.
func (v *topicsViewer) query() string {
	q := url.Values{}
	for _, topic := range modelTopics {
		if !v.left[topic] {
			q.Add("topic", topic)
		}
	}
	var since []string
	for _, topic := range slices.Sorted(maps.Keys(v.ids)) {
		since = append(since, url.QueryEscape(topic)+"="+v.ids[topic])
	}
	if len(since) > 0 {
		q.Set("since", strings.Join(since, ","))
	}
	return "/?" + q.Encode()
}

func (v *topicsViewer) join() {
	v.nc = v.m.site.dial()
	v.ended = make(chan struct{})
	v.r = &objects{t: v.m.t, ids: v.ids}
	switch v.kind {
	case "tailcast.v1":
		ws, _, err := testnet.NewWS(v.nc, "hub.example", v.query(), http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		if err != nil {
			v.m.t.Fatal(err)
		}
		v.r.ws = ws
	case "ndjson":
		v.r.line = openStream(v.m.t, v.nc, v.query(), "Accept: application/x-ndjson")
	case "sse":
		header := []string{"Accept: text/event-stream"}
		if v.id != "" {
			header = append(header, "Last-Event-ID: "+v.id)
		}
		stream := openStream(v.m.t, v.nc, v.query(), header...)
		go func() { defer close(v.ended); v.readSSE(stream) }()
		return
	}
	go func() { defer close(v.ended); v.readObjects() }()
}

func (v *topicsViewer) leave() {
	v.nc.Close()
	<-v.ended
}

// toggle leaves a topic, or joins it again where it has left it.
func (v *topicsViewer) toggle(topic string) {
	v.nc.Peer().Resume()
	synctest.Wait() // all is read
	command := map[string]any{"type": "unsubscribe", "topic": topic}
	if v.left[topic] {
		command["type"] = "subscribe"
		command["since"] = v.ids[topic]
	}
	b, _ := json.Marshal(command)
	v.r.say(string(b))
	v.left[topic] = !v.left[topic]
	synctest.Wait()
}

func (v *topicsViewer) readObjects() {
	for {
		o, err := v.r.read()
		if err != nil {
			return
		}
		switch o.Event {
		case "":
			v.number(o.Topic, o.Data)
		case "gap":
			v.gap(o.Topic, o.Count, o.String())
		case "pos", "bye", "ok":
		default:
			v.fatalf("%v", o)
		}
	}
}

func (v *topicsViewer) readSSE(r *reader) {
	for {
		e, err := r.event()
		if r.id != "" {
			v.id = r.id
		}
		if err != nil {
			return
		}
		switch e.name {
		case "":
			v.number(e.topic, e.data)
		case "gap":
			o := decode(v.m.t, []byte(e.data))
			v.gap(o.Topic, o.Count, e.data)
		case "bye":
		default:
			v.fatalf("event %+v", e)
		}
	}
}

func (v *topicsViewer) number(topic, data string) {
	first, _, _ := strings.Cut(data, " ")
	n, err := strconv.Atoi(first)
	switch {
	case err != nil || data != modelData(topic, n):
		v.fatalf("garbage in %s: %.60q", topic, data)
	case n != v.next[topic]:
		v.fatalf("%s %d comes, %d is next", topic, n, v.next[topic])
	}
	v.next[topic] = n + 1
}

func (v *topicsViewer) gap(topic string, count int64, gap string) {
	if count <= 0 {
		v.fatalf("gap %s", gap)
	}
	v.next[topic] += int(count)
}

// Each id of an event stream has all topics, from the first one on: with another the client would come back without a place in
// some, and miss what comes there meanwhile.
func TestEachIdHasAllTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithRetention(tailcast.Retention{Messages: 50}))
		var query, id []string
		for _, topic := range []string{"a", "b", "c", "d"} {
			s.tell(topic, numbered(1, 100)...)
			head, _ := s.hub.Head(topic)
			head.Offset -= uint64(10 + 20*len(id)) // some are no longer there
			query, id = append(query, "topic="+topic), append(id, topic+"="+head.String())
		}
		for range soak(200) {
			r := s.sse("?"+strings.Join(query, "&"), "Last-Event-ID: "+strings.Join(id, ","))
			for range 50 {
				e, err := r.event()
				if err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(r.id, "="); n != len(query) {
					t.Fatalf("%+v has %d positions", e, n)
				}
			}
			r.nc.Close()
		}
	})
}
