package itest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// A jsFollower is clients/follower.mjs: tailcast.js in Node or on a page in Chromium.
type jsFollower struct {
	*nodeProgram

	mu      sync.Mutex
	streams map[string]*followed
	done    chan followedEvent // "ready", "done"
	asked   chan followedEvent
	answers chan followedEvent
	backs   chan followedEvent
}

// followed is what a stream of a jsFollower has got.
type followed struct {
	messages map[string][]string // by topic
	ids      []string
	gaps     []followedMessage
	batches  int
	states   []followedEvent
	errors   []followedEvent
	byes     []followedEvent
	presence []followedEvent
	over     []followedEvent
}

type followedMessage struct {
	ID, Topic, Time, Data, Event, From, To, Reason string
	Count                                          int
	Size                                           json.RawMessage `json:"bytes"` // of a gap the number, of a message the bytes
	Partial                                        bool
}

type followedEvent struct {
	Event, Name, State, Transport, Reason, Since, User, Topic string

	Messages             []followedMessage
	Positions            map[string]string
	Code, Status         int
	Wait                 *int
	Final, OK, Kept      bool
	Received, Duplicates int
}

// startJS starts one; origin is where a page is, for Chromium.
func startJS(t *testing.T, kind, origin string) *jsFollower {
	t.Helper()
	need(t, "npm/node")
	if kind == "chromium" {
		need(t, "chromium", "npm/playwright-core")
	}
	f := &jsFollower{streams: make(map[string]*followed), done: make(chan followedEvent, 10), asked: make(chan followedEvent, 10),
		answers: make(chan followedEvent, 100), backs: make(chan followedEvent, 10)}
	t.Cleanup(func() { // when it has ended
		if f.nodeProgram != nil && f.stderr.Len() > 0 {
			t.Errorf("%s complains: %s", kind, &f.stderr)
		}
	})
	f.nodeProgram = startNode(t, kind, func(line []byte) error {
		var e followedEvent
		err := json.Unmarshal(line, &e)
		if err == nil {
			f.note(e)
		}
		return err
	}, "node_modules/node/bin/node", "clients/follower.mjs", kind, origin)
	f.await(f.done, "ready")
	return f
}

func (f *jsFollower) note(e followedEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stream(e.Name)
	switch e.Event {
	case "ready", "done":
		f.done <- e
	case "asked":
		f.asked <- e
	case "answer":
		f.answers <- e
	case "back":
		f.backs <- e
	case "state":
		s.states = append(s.states, e)
	case "error":
		s.errors = append(s.errors, e)
	case "bye":
		s.byes = append(s.byes, e)
	case "join", "leave":
		s.presence = append(s.presence, e)
	case "over":
		s.over = append(s.over, e)
	case "batch":
		s.batches++
		for _, m := range e.Messages {
			if m.Event == "gap" {
				s.gaps = append(s.gaps, m)
				continue
			}
			if m.Size != nil {
				var ints []int
				if err := json.Unmarshal(m.Size, &ints); err != nil {
					f.t.Errorf("%s: %v", m.Size, err)
				}
				b := make([]byte, len(ints))
				for i, n := range ints {
					b[i] = byte(n)
				}
				m.Data = string(b)
			}
			s.messages[m.Topic] = append(s.messages[m.Topic], m.Data)
			s.ids = append(s.ids, m.ID)
		}
	}
}

func (f *jsFollower) stream(name string) *followed {
	s := f.streams[name]
	if s == nil {
		s = &followed{messages: make(map[string][]string)}
		f.streams[name] = s
	}
	return s
}

func (f *jsFollower) await(from chan followedEvent, what string) followedEvent {
	f.t.Helper()
	select {
	case e := <-from:
		return e
	case <-f.gone:
		f.t.Fatalf("%s has ended before %s: %s", f.name, what, &f.stderr)
	case <-time.After(patience):
		f.t.Fatalf("%s: %s does not come", f.name, what)
	}
	return followedEvent{}
}

// order returns when the order has been carried out.
func (f *jsFollower) order(words ...any) {
	f.t.Helper()
	f.send(words)
	f.await(f.done, "the end of "+fmt.Sprint(words...))
}

// ask returns what a stream says of itself.
func (f *jsFollower) ask(name string) followedEvent {
	f.t.Helper()
	f.order("ask", name)
	return f.await(f.asked, "an answer")
}

// do gives a command to the hub, and returns why it was not carried out.
func (f *jsFollower) do(words ...any) string {
	f.t.Helper()
	f.order(words...)
	e := f.await(f.answers, "an answer")
	if e.OK != (e.Reason == "") {
		f.t.Errorf("%v: %+v", words, e)
	}
	return e.Reason
}

// eventually waits until something is true of a stream.
func (f *jsFollower) eventually(name, what string, cond func(*followed) bool) {
	f.t.Helper()
	defer func() {
		if f.t.Failed() {
			f.mu.Lock()
			defer f.mu.Unlock()
			s := f.stream(name)
			f.t.Logf("states %+v\nerrors %+v\ngaps %+v", last(s.states, 10), last(s.errors, 10), last(s.gaps, 5))
			for topic, m := range s.messages {
				f.t.Logf("%s: %d messages, the last ones %.60q", topic, len(m), last(m, 3))
			}
		}
	}()
	eventually(f.t, what, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return cond(f.stream(name))
	})
}

func last[T any](s []T, n int) []T { return s[max(0, len(s)-n):] }

// follow begins, and returns when the stream is open.
func (f *jsFollower) follow(name, url string, options map[string]any) {
	f.t.Helper()
	f.order("follow", name, url, options)
	f.eventually(name, "the stream is open", func(s *followed) bool { return s.state() == "open" })
}

func (s *followed) state() string {
	if len(s.states) == 0 {
		return ""
	}
	return s.states[len(s.states)-1].State
}

// transports says which ones were open, as a set.
func (s *followed) transports() map[string]int {
	seen := make(map[string]int)
	for _, e := range s.states {
		if e.State == "open" {
			seen[e.Transport]++
		}
	}
	return seen
}

func (s *followed) got() (n int) {
	for _, m := range s.messages {
		n += len(m)
	}
	return n
}

// complete checks that a stream has got 1, 2, 3 and so on of each topic, once each and in order.
func (f *jsFollower) complete(name string, want map[string]int) {
	f.t.Helper()
	f.eventually(name, "all messages come", func(s *followed) bool {
		for topic, n := range want {
			if len(s.messages[topic]) < n {
				return false
			}
		}
		return true
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stream(name)
	for topic, n := range want {
		got := s.messages[topic]
		if len(got) != n {
			f.t.Errorf("%s, %s: %d messages, want %d", name, topic, len(got), n)
		}
		for i, m := range got {
			if number, _, _ := strings.Cut(m, " "); number != strconv.Itoa(i+1) {
				f.t.Errorf("%s, %s: message %d is %.40q, after %.40q", name, topic, i+1, m, got[max(0, i-1)])
				break
			}
		}
	}
	for topic := range s.messages {
		if _, ok := want[topic]; !ok {
			f.t.Errorf("%s: messages of the topic %q, which it did not ask for", name, topic)
		}
	}
	if len(s.gaps) > 0 {
		f.t.Errorf("%s: %d gaps: %+v", name, len(s.gaps), s.gaps[0])
	}
}

// A port serves one hub after the other at the same address, and the page.
type port struct {
	url    string
	hub    atomic.Pointer[http.Handler]
	cutter *cutter
}

// newPort serves, with a cutter before it.
func newPort(t *testing.T, seed uint64) *port {
	p := new(port)
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'")
		io.WriteString(w, `<!doctype html><title>follower</title><script type="module" src="page.js"></script>`)
	}
	mux.HandleFunc("/page", page)
	mux.HandleFunc("/other", page)
	mux.HandleFunc("/page.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		io.WriteString(w, `import * as tailcast from "./tailcast.js"; globalThis.tailcast = tailcast;`)
	})
	mux.HandleFunc("/tailcast.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "../viewer/tailcast/tailcast.js") })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) { (*p.hub.Load()).ServeHTTP(w, r) })
	server := httptest.NewServer(mux)
	p.url = server.URL
	t.Cleanup(server.Close)
	p.cutter = newCutter(t, server.Listener.Addr().String(), seed)
	return p
}

// open begins with a new hub, which serves these topics.
func (p *port) open(t *testing.T, topics []string, opts ...tailcast.Option) *tailcast.Hub {
	hub := tailcast.New(opts...)
	handler := hub.Handler(topics...)
	p.hub.Store(&handler)
	t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
	})
	return hub
}

// front is the address behind which the cutter is.
func (p *port) front() string { return "http://" + p.cutter.addr }

// flow publishes 1, 2, 3 and so on to each topic until it is told to stop, with a pause after twelve. It returns how many there were.
func flow(t *testing.T, hub *tailcast.Hub, pause time.Duration, topics ...string) (stop func() map[string]int) {
	quit, done := make(chan struct{}), make(chan struct{})
	published := make(map[string]int)
	go func() {
		defer close(done)
		for {
			for i := range 12 { // as many bytes, however many topics there are
				topic := topics[i%len(topics)]
				n := published[topic] + 1
				data := fmt.Sprintf("%d %s", n, strings.Repeat("x", n%100))
				if err := hub.Publish(context.Background(), tailcast.Message{Topic: topic, Data: []byte(data)}); err != nil {
					t.Error(err)
					return
				}
				published[topic] = n
			}
			select {
			case <-quit:
				return
			case <-time.After(pause):
			}
		}
	}()
	stop = sync.OnceValue(func() map[string]int { close(quit); <-done; return published })
	t.Cleanup(func() { stop() })
	return stop
}

func everything() []tailcast.Option {
	return append(unlimited(), tailcast.WithBacklog(0))
}

// quick are options for a client that comes back at once.
func quick(more map[string]any) map[string]any {
	o := map[string]any{"minDelay": 1, "maxDelay": 10, "connectTimeout": 2000, "since": "earliest"}
	for k, v := range more {
		o[k] = v
	}
	return o
}

// TestTailcastJSCuts: connections are cut at random bytes, the handshakes too, and some of the WebSockets are refused: clients of
// each transport get each message of each topic once, in order.
func TestTailcastJSCuts(t *testing.T) {
	t.Parallel()
	cuts := int64(setting(t, "ITEST_CUTS", 100, 2000))
	for _, test := range []struct {
		name    string
		refuses int64 // of a hundred WebSockets
		topics  []string
		options map[string]any
	}{
		{"WebSocket", 0, []string{"a", "b", "c/1, =2"}, map[string]any{"transport": "websocket"}},
		{"event stream", 0, []string{"a", "b", "c/1, =2"}, map[string]any{"transport": "sse"}},
		{"event stream of one topic", 0, []string{"a"}, map[string]any{"transport": "sse"}},
		{"whatever gets through", 60, []string{"a", "b", "ü"}, map[string]any{"transport": "auto"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newPort(t, 1)
			hub := p.open(t, test.topics, everything()...)
			f := startJS(t, "node", "")
			if test.refuses > 0 {
				p.cutter.refuses.Store(test.refuses)
				p.cutter.refuse.Store(426)
			}
			p.cutter.cut.Store(20_000)
			stop := flow(t, hub, 5*time.Millisecond, test.topics...)
			test.options["topics"] = test.topics
			f.order("follow", "s", p.front()+"/stream", quick(test.options))
			for got := int64(0); got < cuts; {
				now := got
				f.eventually("s", "connections are cut", func(*followed) bool { got = p.cutter.cuts.Load(); return got > now })
			}
			p.cutter.cut.Store(0)
			published := stop()
			f.complete("s", published)
			e := f.ask("s")
			f.mu.Lock()
			s := f.stream("s")
			open := s.transports()
			t.Logf("%d cuts, %d messages, open: %v; %d WebSockets and %d other requests got through", p.cutter.cuts.Load(), s.got(), open,
				p.cutter.sockets.Load(), p.cutter.others.Load())
			f.mu.Unlock()
			if e.Duplicates != 0 || e.Received != s.got() {
				t.Errorf("it says: %+v", e)
			}
			if least := int(cuts / 20); test.refuses > 0 && (open["sse"] < least || open["websocket"] < least) {
				t.Errorf("the mix is not what it should be: %v", open)
			}
		})
	}
}

// TestTailcastJSFallsBack: where WebSockets do not get through a client takes an event stream at once, or after its patience for a
// handshake that never ends; asks no WebSocket again when it comes back; and one that only wants WebSockets says why there is none.
func TestTailcastJSFallsBack(t *testing.T) {
	t.Parallel()
	for _, status := range []int64{400, 426, 200, 403, 502, -1} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			p := newPort(t, 2)
			topics := []string{"a", "b"}
			hub := p.open(t, topics, everything()...)
			p.cutter.refuse.Store(status)
			f := startJS(t, "node", "")
			stop := flow(t, hub, 5*time.Millisecond, topics...)
			f.follow("s", p.front()+"/stream", quick(nil))
			f.order("follow", "other", p.front()+"/stream", quick(map[string]any{"transport": "websocket"}))
			p.cutter.cutAll()
			f.eventually("s", "it comes back", func(s *followed) bool { return s.transports()["sse"] == 2 })
			f.complete("s", stop())
			if n := p.cutter.sockets.Load(); n != 0 {
				t.Errorf("%d WebSockets got through", n)
			}
			if status > 0 {
				f.eventually("other", "the other one waits", func(s *followed) bool { return len(s.errors) > 2 && !s.errors[0].Final })
			}
			p.cutter.refuse.Store(0)
			f.order("retry", "other") // it may wait for long, where nothing was said
			f.eventually("other", "the other one gets its WebSocket", func(s *followed) bool { return s.state() == "open" })
			if e := f.ask("other"); e.Transport != "websocket" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestTailcastJSGoesBackToWebSockets: a client that had a WebSocket, and found only an event stream when it came back, has a WebSocket
// again soon; at neither switch is anything lost or comes twice.
func TestTailcastJSGoesBackToWebSockets(t *testing.T) {
	t.Parallel()
	p := newPort(t, 3)
	topics := []string{"a", "b"}
	hub := p.open(t, topics, everything()...)
	f := startJS(t, "node", "")
	stop := flow(t, hub, 5*time.Millisecond, topics...)
	f.follow("s", p.front()+"/stream", quick(nil))
	p.cutter.refuse.Store(400)
	p.cutter.cutAll()
	f.eventually("s", "it takes an event stream", func(s *followed) bool { return s.transports()["sse"] == 1 })
	p.cutter.refuse.Store(0)
	f.eventually("s", "it takes a WebSocket", func(s *followed) bool { return s.transports()["websocket"] == 2 })
	f.complete("s", stop())
	if e := f.ask("s"); e.Transport != "websocket" || e.Duplicates != 0 {
		t.Errorf("%+v", e)
	}
}

// TestTailcastJSRefusals: what another attempt would not change ends the stream, with the server's sentence, whichever the transport;
// what it may change does not.
func TestTailcastJSRefusals(t *testing.T) {
	t.Parallel()
	p := newPort(t, 4)
	f := startJS(t, "node", "")
	names := 0
	begin := func(query string, options map[string]any) string {
		names++
		name := fmt.Sprint("s", names)
		f.order("follow", name, p.front()+"/stream"+query, quick(options))
		return name
	}
	for _, transport := range []string{"auto", "websocket", "sse"} {
		refused := func(query string, options map[string]any, status, code int, want string) {
			t.Helper()
			options["transport"] = transport
			name := begin(query, options)
			f.eventually(name, "the stream is closed", func(s *followed) bool { return s.state() == "closed" })
			f.mu.Lock()
			defer f.mu.Unlock()
			s := f.stream(name)
			e := last(s.errors, 1)[0]
			if !e.Final || e.Status != status || e.Code != code || !strings.Contains(e.Reason, want) || last(s.states, 1)[0].Reason != e.Reason {
				t.Errorf("%s %s: %+v", transport, query, e)
			}
		}
		p.open(t, []string{"a", "b"}, everything()...)
		refused("", map[string]any{"topics": []string{"a", "z"}}, 403, 0, `topic "z" is not served here.`)
		refused("", map[string]any{"grep": "("}, 400, 0, "grep")
		refused("", map[string]any{"since": "nonsense"}, 400, 0, "since")
		refused("/none", map[string]any{}, 404, 0, "404")
		for _, code := range []int{1008, 4401, 4403, 4408} {
			p.open(t, []string{"a"}, tailcast.WithOnConnect(func(c *tailcast.Conn) error {
				time.AfterFunc(time.Millisecond, func() { c.Close(&tailcast.CloseError{Code: code, Reason: "not any more"}) })
				return nil
			}))
			refused("", map[string]any{}, 0, code, "not any more")
		}

		hub := p.open(t, []string{"a"}, append(everything(), tailcast.WithLimits(tailcast.Limits{Connections: 1}))...)
		first := begin("", map[string]any{"transport": transport})
		f.eventually(first, "the first has a connection", func(s *followed) bool { return s.state() == "open" })
		second := begin("", map[string]any{"transport": transport})
		f.eventually(second, "the second waits as long as the server says", func(s *followed) bool {
			e := last(s.states, 1)
			return len(e) > 0 && e[0].State == "waiting" && e[0].Wait != nil && *e[0].Wait > 1000 && strings.Contains(e[0].Reason, "1 connections") &&
				len(s.errors) > 0 && !s.errors[0].Final
		})
		f.order("close", first)
		eventually(t, "the first has gone", func() bool { return len(hub.Stats().Connections) == 0 })
		f.order("retry", second)
		f.eventually(second, "there is room again", func(s *followed) bool { return s.state() == "open" })
		f.order("close", second)
	}
	f.order("loop", "loop", p.front()+"/stream", map[string]any{"topics": []string{"z"}}, 1, 0)
	f.eventually("loop", "the loop throws", func(s *followed) bool {
		return len(s.over) == 1 && s.over[0].Reason == `topic "z" is not served here.` && s.over[0].Status == 403
	})
}

// TestTailcastJSHonoursBye: when the hub shuts down, viewers are told when to come back, and do so not before; then another hub goes on.
func TestTailcastJSHonoursBye(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"websocket", "sse"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			p := newPort(t, 5)
			hub := p.open(t, []string{"a"}, everything()...)
			f := startJS(t, "node", "")
			f.follow("s", p.front()+"/stream", quick(map[string]any{"transport": transport}))
			p.open(t, []string{"a"}, everything()...)
			hub.Close()
			f.eventually("s", "the client is back", func(s *followed) bool { return s.transports()[transport] == 2 })
			f.mu.Lock()
			defer f.mu.Unlock()
			s := f.stream("s")
			if len(s.byes) != 1 || s.byes[0].Code != 1001 || len(s.errors) != 0 {
				t.Errorf("byes %+v, errors %+v", s.byes, s.errors)
			}
			for _, e := range s.states {
				if e.State == "waiting" && (e.Wait == nil || *e.Wait < 1500 || *e.Wait > 3100) {
					t.Errorf("it waits for %v ms", *e.Wait)
				}
			}
		})
	}
}

// TestTailcastJSCommands: publish, subscribe and unsubscribe, answers that refuse, what is binary, who comes and goes; and the topics stay
// as they are when the connection does not.
func TestTailcastJSCommands(t *testing.T) {
	t.Parallel()
	p := newPort(t, 6)
	hub := p.open(t, []string{"a", "b"}, append(everything(), tailcast.WithAuthorize(func(_ context.Context, a tailcast.Access) error {
		if a.Action == tailcast.ActionPublish && a.Topic == "b" {
			return errors.New("not to b")
		}
		return nil
	}))...)
	f := startJS(t, "node", "")
	f.follow("s", p.front()+"/stream", quick(map[string]any{"topics": []string{"a"}}))
	if why := f.do("publish", "s", "a", "1 é"); why != "" {
		t.Error(why)
	}
	if why := f.do("publish", "s", "a", "2", map[string]any{"others": true}); why != "" {
		t.Error(why)
	}
	if why := f.do("publish", "s", "a", "3", map[string]any{"binary": true}); why != "" {
		t.Error(why)
	}
	if why := f.do("publish", "s", "b", "1"); why == "" {
		t.Error("the topic b may not be published to")
	}
	if why := f.do("subscribe", "s", "a"); why == "" {
		t.Error("it has the topic a already")
	}
	send := func(topic, data string) {
		t.Helper()
		if err := hub.Publish(context.Background(), tailcast.Message{Topic: topic, Data: []byte(data)}); err != nil {
			t.Error(err)
		}
	}
	got := func(topic string, want ...string) {
		t.Helper()
		f.eventually("s", fmt.Sprintf("%s has %q", topic, want), func(s *followed) bool {
			return strings.Join(s.messages[topic], "|") == strings.Join(want, "|")
		})
	}
	got("a", "1 é", "3")
	send("b", "1")
	if why := f.do("subscribe", "s", "b", map[string]any{"since": "earliest"}); why != "" {
		t.Error(why)
	}
	got("b", "1")
	p.cutter.cutAll()
	f.eventually("s", "it is back", func(s *followed) bool { return s.transports()["websocket"] == 2 })
	send("b", "2")
	send("a", "\xff\x00")
	got("b", "1", "2")
	got("a", "1 é", "3", "\xff\x00")
	if why := f.do("unsubscribe", "s", "a"); why != "" {
		t.Error(why)
	}
	send("a", "5")
	p.cutter.cutAll()
	f.eventually("s", "it is back", func(s *followed) bool { return s.transports()["websocket"] == 3 })
	send("a", "6")
	send("b", "3")
	got("b", "1", "2", "3")
	got("a", "1 é", "3", "\xff\x00")
	if e := f.ask("s"); len(e.Positions) != 1 || e.Positions["b"] == "" || e.Since != "b="+e.Positions["b"] {
		t.Errorf("%+v", e)
	}
	if why := f.do("unsubscribe", "s", "b"); why != "" {
		t.Error(why)
	}
	p.cutter.cutAll()
	f.eventually("s", "it is back", func(s *followed) bool { return s.transports()["websocket"] == 4 })
	send("a", "7")
	send("b", "4")
	if why := f.do("subscribe", "s", "b", map[string]any{"since": "latest"}); why != "" {
		t.Error(why)
	}
	send("b", "5")
	got("b", "1", "2", "3", "5")
	got("a", "1 é", "3", "\xff\x00")
	f.follow("sse", p.front()+"/stream", map[string]any{"transport": "sse"})
	if why := f.do("publish", "sse", "a", "1"); !strings.Contains(why, "WebSocket") {
		t.Errorf("commands of an event stream: %q", why)
	}
}

// TestTailcastJSFilters: the server filters, also after the connection was cut.
func TestTailcastJSFilters(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"websocket", "sse"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			p := newPort(t, 7)
			hub := p.open(t, []string{"a"}, append(everything(), tailcast.WithFilter("size", func(value string) (func(*tailcast.Message) bool, error) {
				return func(m *tailcast.Message) bool { return value == strconv.Itoa(len(m.Data)) }, nil
			}))...)
			f := startJS(t, "node", "")
			f.follow("odd", p.front()+"/stream", quick(map[string]any{"topics": []string{"a"}, "transport": transport, "grep": "[13579]$"}))
			f.follow("even", p.front()+"/stream", quick(map[string]any{"topics": []string{"a"}, "transport": transport, "grep": "[13579]$", "invert": true}))
			f.follow("two", p.front()+"/stream", quick(map[string]any{"topics": []string{"a"}, "transport": transport, "params": map[string]any{"size": "2"}}))
			var odd, even, two []string
			for i := range 200 {
				n := strconv.Itoa(i)
				if err := hub.Publish(context.Background(), tailcast.Message{Topic: "a", Data: []byte(n)}); err != nil {
					t.Fatal(err)
				}
				if i%2 == 1 {
					odd = append(odd, n)
				} else {
					even = append(even, n)
				}
				if len(n) == 2 {
					two = append(two, n)
				}
				if i%40 == 20 {
					p.cutter.cutAll()
				}
			}
			for name, want := range map[string][]string{"odd": odd, "even": even, "two": two} {
				f.eventually(name, "what passes has come", func(s *followed) bool { return len(s.messages["a"]) >= len(want) })
				if got := f.stream(name).messages["a"]; strings.Join(got, " ") != strings.Join(want, " ") {
					t.Errorf("%s: %q", name, got)
				}
			}
		})
	}
}

// TestTailcastJSLoops: what a loop does not read in time becomes a gap with the exact count, and a loop that was broken off goes on
// where it was, in another stream.
func TestTailcastJSLoops(t *testing.T) {
	t.Parallel()
	const all, buffer = 1000, 100
	p := newPort(t, 8)
	hub := p.open(t, []string{"a"}, everything()...)
	for i := range all {
		if err := hub.Publish(context.Background(), tailcast.Message{Topic: "a", Data: fmt.Append(nil, i+1)}); err != nil {
			t.Fatal(err)
		}
	}
	f := startJS(t, "node", "")
	f.order("loop", "slow", p.front()+"/stream", map[string]any{"since": "earliest", "buffer": buffer}, 30, 20)
	f.eventually("slow", "it is over", func(s *followed) bool { return len(s.over) == 1 })
	f.mu.Lock()
	slow := f.stream("slow")
	read, missed, size, next := len(slow.messages["a"]), 0, 0, 1
	for _, g := range slow.gaps {
		missed += g.Count
		n := 0
		json.Unmarshal(g.Size, &n)
		size += n
		if g.Reason != "not read" || g.Topic != "a" || g.To == "" {
			t.Errorf("%+v", g)
		}
	}
	lost := 0
	for _, m := range slow.messages["a"] {
		n, _ := strconv.Atoi(m)
		for ; next < n; next++ {
			lost += len(strconv.Itoa(next))
		}
		next++
	}
	if len(slow.gaps) == 0 || missed+read != next-1 || lost != size {
		t.Errorf("%d read, %d missed in %d gaps, which are %d bytes and not %d; the next one is %d", read, missed, len(slow.gaps), size, lost, next)
	}
	since := slow.over[0].Since
	f.mu.Unlock()
	f.order("loop", "rest", p.front()+"/stream", map[string]any{"since": since}, all-next+1, 0)
	f.eventually("rest", "it is over", func(s *followed) bool { return len(s.over) == 1 && s.over[0].State == "closed" })
	for i, m := range f.stream("rest").messages["a"] {
		if m != strconv.Itoa(next+i) {
			t.Fatalf("after %d comes %s", next+i-1, m)
		}
	}
	// An event stream of one topic does not say what it is called.
	f.order("loop", "nameless", p.front()+"/stream", map[string]any{"since": "earliest", "transport": "sse"}, 30, 0)
	f.eventually("nameless", "it is over", func(s *followed) bool { return len(s.over) == 1 })
	f.mu.Lock()
	since = f.stream("nameless").over[0].Since
	f.mu.Unlock()
	f.order("loop", "named", p.front()+"/stream", map[string]any{"since": since}, all-30, 0)
	f.eventually("named", "it is over", func(s *followed) bool { return len(s.over) == 1 && s.over[0].State == "closed" })
	if m := f.stream("named").messages["a"]; len(m) != all-30 || m[0] != "31" {
		t.Errorf("after the 30th message of %q come %q", since, m[:min(3, len(m))])
	}
}

// TestTailcastJSOnThePage: a page in Chromium, and what happens to pages and networks: the connection is reset, the cable is pulled,
// there is no network for a while, the tab is hidden, frozen and shown, the page is left and comes back from the browser's cache.
// After all of it the list is complete, without duplicates, on either transport.
func TestTailcastJSOnThePage(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"websocket", "sse"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			p := newPort(t, 9)
			topics := []string{"a", "b"}
			hub := p.open(t, topics, append(everything(), tailcast.WithHosts(proxyHost), tailcast.WithHeartbeat(500*time.Millisecond))...)
			origin := strings.Replace(p.front(), "127.0.0.1", proxyHost, 1)
			f := startJS(t, "chromium", origin)
			stop := flow(t, hub, 20*time.Millisecond, topics...)
			// Nothing of what follows is done by the backoff in time: the page comes back at once, or it does not.
			f.follow("s", origin+"/stream", map[string]any{"transport": transport, "topics": topics, "since": "earliest", "idleTimeout": 4000, "minDelay": 20_000})
			count := func() (n int) {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.stream("s").got()
			}
			began := time.Now()
			goesOn := func(what string) {
				t.Helper()
				before := count()
				f.eventually("s", what+": messages come", func(s *followed) bool { return s.state() == "open" && s.got() > before+50 })
				t.Logf("%v: %s", time.Since(began).Round(100*time.Millisecond), what)
			}
			waits := func(why string) {
				t.Helper()
				f.eventually("s", "it waits: "+why, func(s *followed) bool {
					e := last(s.states, 1)[0]
					return e.State == "waiting" && strings.Contains(e.Reason, why)
				})
			}
			opened := func() int {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.stream("s").transports()[transport]
			}
			goesOn("the beginning")
			p.cutter.setDown(true)
			f.eventually("s", "it waits", func(s *followed) bool { return s.state() == "waiting" })
			f.order("visible", "hidden")
			p.cutter.setDown(false)
			f.order("visible", "visible")
			goesOn("the tab is shown")

			before := opened()
			f.order("visible", "hidden")
			f.order("lifecycle", "frozen")
			time.Sleep(7 * time.Second) // longer than nothing may come, so that its timers are late
			f.order("lifecycle", "active")
			f.order("visible", "visible")
			goesOn("the tab was frozen")
			if n := opened(); n != before {
				t.Errorf("a tab that was frozen has connected %d times more", n-before)
			}

			f.order("offline", true)
			p.cutter.cutAll()
			waits("offline")
			f.order("offline", false)
			goesOn("there is a network again")

			p.cutter.setDark(true)
			waits("dead")
			p.cutter.setDark(false)
			f.order("visible", "visible")
			goesOn("the cable is back")

			f.order("leave")
			f.order("back")
			if back := f.await(f.backs, "the page"); !back.Kept {
				t.Error("the browser has not kept the page")
			}
			f.eventually("s", "it has let go", func(s *followed) bool {
				return slices.ContainsFunc(s.states, func(e followedEvent) bool { return e.State == "waiting" && e.Reason == "the page is put away" })
			})
			goesOn("the page is back")

			f.complete("s", stop())
			if e := f.ask("s"); e.Duplicates != 0 || e.Transport != transport {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestTailcastJSServerKilled: logtail is killed and started again, behind a proxy that answers 502 meanwhile, while lines are written and
// the file is rotated: clients in Node and in Chromium get each line once.
func TestTailcastJSServerKilled(t *testing.T) {
	t.Parallel()
	kills := setting(t, "ITEST_KILLS", 2, 10)
	p := newPort(t, 10)
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	proxy := http.Handler(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.Out.URL.Path, r.Out.Host = "/logs", r.In.Host
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	})
	p.hub.Store(&proxy)
	args := []string{"-addr", addr, "-from-start", path}
	server := startLogtail(t, args...)
	quit, written := make(chan struct{}), make(chan int)
	go func() {
		lines := 0
		defer func() { written <- lines }()
		for {
			if lines%2000 == 1999 {
				os.Rename(path, fmt.Sprint(path, ".", lines))
			}
			file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			for range 10 {
				lines++
				fmt.Fprintln(file, lines, "xxxxxxxxxx")
			}
			file.Close()
			select {
			case <-quit:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	var names []string
	clients := make(map[string]*jsFollower)
	for _, kind := range []string{"node", "chromium"} {
		f := startJS(t, kind, p.front())
		for _, transport := range []string{"auto", "sse"} {
			name := kind + " " + transport
			names, clients[name] = append(names, name), f
			f.follow(name, p.front()+"/stream", map[string]any{"transport": transport, "topics": []string{""}, "since": "earliest", "maxDelay": 500})
		}
	}
	for range kills {
		for _, name := range names {
			before := 0
			clients[name].eventually(name, "lines come", func(s *followed) bool {
				if before == 0 {
					before = s.got()
				}
				return s.state() == "open" && s.got() > before+500
			})
		}
		server.kill(t)
		for _, name := range names {
			clients[name].eventually(name, "it notices", func(s *followed) bool { return s.state() != "open" })
		}
		server = startLogtail(t, args...)
	}
	close(quit)
	want := map[string]int{"": <-written}
	for _, name := range names {
		clients[name].complete(name, want)
	}
	t.Logf("%d kills, %d lines", kills, want[""])
	server.stop(t)
}

// TestTailcastJSUnits runs clients/tailcastjs.test.mjs: clocks that stand still, and a network that does what it is told.
func TestTailcastJSUnits(t *testing.T) {
	t.Parallel()
	need(t, "npm/node", "npm/eventsource-parser")
	out, err := exec.Command("node_modules/node/bin/node", "--test", "clients/tailcastjs.test.mjs").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("\n# fail 0\n")) || bytes.Contains(out, []byte("\n# pass 0\n")) {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "# pass") {
			t.Log(line)
		}
	}
}

// TestTailcastJSPackage: npm packs what belongs into the package and nothing else, TypeScript in its strictest form accepts its types and
// sees mistakes, and Node finds and runs it by its name.
func TestTailcastJSPackage(t *testing.T) {
	t.Parallel()
	need(t, "npm", "tar", "npm/node", "npm/typescript")
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		var stderr bytes.Buffer
		cmd := exec.Command(name, args...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s%s", name, args, err, out, &stderr)
		}
		return string(out)
	}
	const library = "../viewer/tailcast"
	var packed []struct {
		Filename string
		Files    []struct{ Path string }
	}
	if err := json.Unmarshal([]byte(run("npm", "pack", "--json", "--pack-destination", dir, "./"+library)), &packed); err != nil || len(packed) != 1 {
		t.Fatalf("%+v: %v", packed, err)
	}
	var files []string
	for _, f := range packed[0].Files {
		files = append(files, f.Path)
	}
	slices.Sort(files)
	if want := []string{"LICENSE", "README.md", "package.json", "tailcast.d.ts", "tailcast.js"}; !slices.Equal(files, want) {
		t.Errorf("the package has %q, want %q", files, want)
	}
	license, err := os.ReadFile("../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	if own, err := os.ReadFile(filepath.Join(library, "LICENSE")); !bytes.Equal(own, license) {
		t.Errorf("its license is not that of the repository: %v", err)
	}
	home := filepath.Join(dir, "node_modules", "tailcast")
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	run("tar", "xzf", filepath.Join(dir, packed[0].Filename), "--strip-components=1", "-C", home)
	source, err := os.ReadFile("clients/tailcastjs.types.mts")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "user.mts"), source, 0o644); err != nil {
		t.Fatal(err)
	}
	tsc := []string{"node_modules/typescript/bin/tsc", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--skipLibCheck", "false",
		"--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable,dom.asynciterable", filepath.Join(dir, "user.mts")}
	const node = "node_modules/node/bin/node"
	run(node, tsc...)
	if out := run(node, filepath.Join(dir, "user.mjs")); out != "message x app\nclosed app=earliest undefined\n" {
		t.Errorf("it says %q", out)
	}
}
