package itest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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
	t      *testing.T
	kind   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr bytes.Buffer
	gone   chan struct{}

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
	bytes    [][]byte
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
	f := &jsFollower{t: t, kind: kind, gone: make(chan struct{}), streams: make(map[string]*followed), done: make(chan followedEvent, 10),
		asked: make(chan followedEvent, 10), answers: make(chan followedEvent, 100), backs: make(chan followedEvent, 10)}
	f.cmd = exec.Command("node_modules/node/bin/node", "clients/follower.mjs", kind, origin)
	f.cmd.Stderr = &f.stderr
	if bin, err := exec.LookPath("chromium"); err == nil {
		f.cmd.Env = append(os.Environ(), "CHROMIUM="+bin)
	}
	var err error
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(f.gone)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			var e followedEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Errorf("%s says %.200q: %v", kind, lines.Text(), err)
				continue
			}
			f.note(e)
		}
		f.cmd.Wait()
	}()
	t.Cleanup(func() {
		f.in.Close()
		kill := time.AfterFunc(patience, func() { f.cmd.Process.Kill() })
		defer kill.Stop()
		<-f.gone
		if f.stderr.Len() > 0 {
			t.Errorf("%s complains: %s", kind, &f.stderr)
		}
	})
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
		f.t.Fatalf("%s has ended before %s: %s", f.kind, what, &f.stderr)
	case <-time.After(patience):
		f.t.Fatalf("%s: %s does not come", f.kind, what)
	}
	return followedEvent{}
}

// order returns when the order has been carried out.
func (f *jsFollower) order(words ...any) {
	f.t.Helper()
	line, err := json.Marshal(words)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f.in, "%s\n", line); err != nil {
		f.t.Fatalf("%s: %v: %s", f.kind, err, &f.stderr)
	}
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

// flow publishes 1, 2, 3 and so on to each topic until it is told to stop. It returns how many there were.
func flow(t *testing.T, hub *tailcast.Hub, topics ...string) (stop func() map[string]int) {
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
			case <-time.After(5 * time.Millisecond):
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
	o := map[string]any{"minDelay": 1, "maxDelay": 10, "since": "earliest"}
	for k, v := range more {
		o[k] = v
	}
	return o
}

// TestTailcastJSCuts: connections are cut at random bytes, the handshakes too, and some of the WebSockets are refused: clients of
// each transport get each message of each topic once, in order.
func TestTailcastJSCuts(t *testing.T) {
	t.Parallel()
	cuts := int64(setting(t, "ITEST_CUTS", 200, 2000))
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
			stop := flow(t, hub, test.topics...)
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
			if test.refuses > 0 && (open["sse"] < 10 || open["websocket"] < 10) {
				t.Errorf("the mix is not what it should be: %v", open)
			}
		})
	}
}
