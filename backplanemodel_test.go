package tailcast_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A wanderer is a viewer of all topics that goes from node to node, and writes down what it sees.
type wanderer struct {
	id   string
	seen map[string][]string // by topic
	gaps int
}

const wanderTopics = "?topic=a&topic=b"

// read reads until the stream ends.
func (w *wanderer) read(r *reader, note func(data string)) {
	topic, data, event := "", "", ""
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "topic":
			topic = value
		case "data":
			data = value
		case "event":
			event = value
		case "id":
			w.id = value
		case "":
			switch {
			case event == "gap":
				w.gaps++
			case event == "" && data != "":
				w.seen[topic] = append(w.seen[topic], data)
				note(data)
			}
			topic, data, event = "", "", ""
		}
	}
}

// Viewers go from node to node, nodes are cut off and come late, memory holds nearly nothing: each viewer sees everything once, in order.
func TestWanderingViewersMissNothing(t *testing.T) {
	for seed := range uint64(seeds(60)) {
		synctest.Test(t, func(t *testing.T) { wander(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// seeds is how many seeds a test of random programs tries.
func seeds(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

func wander(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var story []string // what has happened
	var mu sync.Mutex
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		story = append(story, fmt.Sprintf(format, args...))
	}
	shared := tailcasttest.NewSharedLog()
	keep := tailcast.WithRetention(tailcast.Retention{Messages: 1 + rng.IntN(8)})
	anyTopic := tailcast.WithAuthorize(tailcast.AllowAllTopics)
	sites, planes := nodes(t, shared, 2, keep, anyTopic)
	cut := make([]bool, 2)
	const viewers = 4
	all := make([]*wanderer, viewers)
	streams := make([]*reader, viewers)
	move := func(i int) {
		header := []string{"Accept: text/event-stream"}
		if all[i].id != "" {
			header = append(header, "Last-Event-ID: "+all[i].id)
		}
		node := rng.IntN(len(sites))
		note("viewer %d to node %d with %s; cut off: %v", i, node, all[i].id, cut)
		streams[i] = sites[node].get(wanderTopics, header...)
	}
	reading := make([]chan struct{}, viewers)
	start := func(i int) {
		done := make(chan struct{})
		reading[i] = done
		r := streams[i]
		go func() {
			defer close(done)
			all[i].read(r, func(data string) { note("viewer %d: %s %s", i, data, all[i].id) })
		}()
	}
	for i := range all {
		all[i] = &wanderer{seen: make(map[string][]string)}
		move(i)
		start(i)
	}
	synctest.Wait()
	published := make(map[string][]string)
	for range 120 {
		switch n := rng.IntN(20); {
		case n < 10:
			topic := []string{"a", "b"}[rng.IntN(5)/4] // b is quiet
			node := rng.IntN(len(sites))
			if cut[node] {
				continue
			}
			var msgs []tailcast.Message
			for range 1 + rng.IntN(4) {
				text := fmt.Sprint(topic, len(published[topic]))
				published[topic] = append(published[topic], text)
				msgs = append(msgs, tailcast.Message{Topic: topic, Data: []byte(text)})
			}
			note("%s from node %d", msgs[len(msgs)-1].Data, node)
			if err := sites[node].hub.Publish(t.Context(), msgs...); err != nil {
				t.Fatal(err)
			}
		case n < 14:
			i := rng.IntN(viewers)
			streams[i].nc.Close()
			<-reading[i]
			move(i)
			start(i)
		case n < 16:
			if node := rng.IntN(len(sites)); cut[node] {
				note("restore %d", node)
				planes[node].Restore()
				cut[node] = false
			} else if !cut[1-min(node, 1)] || node > 1 {
				note("cut %d", node)
				planes[node].Cut()
				cut[node] = true
			}
		case n == 16 && len(sites) < 4:
			more, plane := nodes(t, shared, 1, keep, anyTopic)
			sites, planes, cut = append(sites, more...), append(planes, plane...), append(cut, false)
		case n == 17:
			time.Sleep(time.Duration(rng.IntN(40)) * time.Second) // heartbeats, housekeeping
		default:
			synctest.Wait()
		}
	}
	for _, p := range planes {
		p.Restore()
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	for i := range all {
		streams[i].nc.Close()
		<-reading[i]
	}
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(story, "\n"))
		}
	}()
	for i, w := range all {
		for topic, want := range published {
			if got := w.seen[topic]; fmt.Sprint(got) != fmt.Sprint(want) || w.gaps > 0 {
				t.Errorf("seed %d: viewer %d has seen %d of %d in %s, and %d gaps:\n%v\n%v", seed, i, len(got), len(want), topic, w.gaps, got, want)
			}
		}
	}
}
