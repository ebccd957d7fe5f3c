package tailcast_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// consistent holds a snapshot to what has to be true of each.
func consistent(t testing.TB, s tailcast.Stats) {
	t.Helper()
	now, ended, gaps := 0, int64(0), int64(0)
	for _, n := range s.Connections {
		now += n
	}
	for _, n := range s.Ended {
		ended += n
	}
	for _, n := range s.GapsByReason {
		gaps += n
	}
	if ended != s.Accepted-int64(now) {
		t.Errorf("%d connections have ended, %d were accepted, %d are there: %v", ended, s.Accepted, now, s.Ended)
	}
	if gaps != s.Gaps {
		t.Errorf("%d gaps: %v", s.Gaps, s.GapsByReason)
	}
	if s.PushMatched != s.PushQueued+s.PushDropped {
		t.Errorf("%d matched, %d queued, %d dropped", s.PushMatched, s.PushQueued, s.PushDropped)
	}
}

// gauges are what may fall.
var gauges = []string{"Connections", "Users", "Topics", "CatchUps", "Memory", "MemoryLimit", "LagMessages", "LagBytes", "Sources", "Backplane"}

// fallen names the counters of which after has less than before.
func fallen(before, after tailcast.Stats) (names []string) {
	b, a := reflect.ValueOf(before), reflect.ValueOf(after)
	for i := range b.NumField() {
		name := b.Type().Field(i).Name
		less := false
		switch was, is := b.Field(i), a.Field(i); {
		case slices.Contains(gauges, name):
		case was.CanInt():
			less = is.Int() < was.Int()
		case was.CanUint():
			less = is.Uint() < was.Uint()
		default:
			for key, n := range was.Interface().(map[string]int64) {
				less = less || is.Interface().(map[string]int64)[key] < n
			}
		}
		if less {
			names = append(names, fmt.Sprintf("%s from %v to %v", name, b.Field(i), a.Field(i)))
		}
	}
	return names
}

// table returns the rows of a table in the package's documentation that begins with the words of head, as columns.
func table(t *testing.T, head ...string) (rows [][]string) {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	columns := regexp.MustCompile(`\s{2,}`)
	in := false
	for line := range strings.Lines(string(doc)) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "//\t")
		row := columns.Split(text, -1)
		switch {
		case in && !ok:
			return rows
		case in:
			rows = append(rows, row)
		case ok && len(row) >= len(head) && slices.Equal(row[:len(head)], head):
			in = true
		}
	}
	t.Fatalf("doc.go has no table %q", head)
	return nil
}

// The maps have the keys that are documented, from the beginning on and whatever happens.
func TestReasonsAreDocumented(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	s := hub.Stats()
	for name, m := range map[string]map[string]int64{"Ended": s.Ended, "GapsByReason": s.GapsByReason} {
		var want []string
		for _, row := range table(t, name) {
			want = append(want, row[0])
		}
		if got := slices.Sorted(maps.Keys(m)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s: %q, documented are %q", name, got, want)
		}
	}
}

// An ending is a way in which one connection ends.
type ending struct {
	reason string
	name   string
	opts   []tailcast.Option
	wrap   func(http.Handler) http.Handler
	run    func(*testing.T, *site)
}

// late ends a request's context after a minute.
func late(wrap func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		if wrap != nil {
			h = wrap(h)
		}
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeoutCause(r.Context(), time.Minute, errors.New("enough"))
			defer cancel()
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}

func endings() []ending {
	ws := func(_ *testing.T, s *site) { s.ws("") }
	opens := func(query string, f func(*testing.T, *testnet.WS)) func(*testing.T, *site) {
		return func(t *testing.T, s *site) {
			ws := s.ws(query)
			synctest.Wait()
			f(t, ws)
		}
	}
	text := func(data string) func(*testing.T, *testnet.WS) {
		return func(_ *testing.T, ws *testnet.WS) { ws.WriteText(data) }
	}
	streams := func(end func(r *reader)) func(*testing.T, *site) {
		return func(_ *testing.T, s *site) {
			r := s.sse("")
			synctest.Wait()
			end(r)
		}
	}
	ends := func(f func(*tailcast.Conn)) tailcast.Option {
		return tailcast.WithOnConnect(func(c *tailcast.Conn) error { f(c); return nil })
	}
	registers := tailcast.WithRegistration(tokens)
	few := tailcast.WithRetention(tailcast.Retention{Messages: 10})
	opts := func(o ...tailcast.Option) []tailcast.Option { return o }
	return []ending{
		{"client", "a Close frame", nil, nil, opens("", func(_ *testing.T, ws *testnet.WS) { ws.WriteClose(4001, "bye") })},
		{"client", "a Close frame with a code of the hub's", nil, nil, opens("", func(_ *testing.T, ws *testnet.WS) { ws.WriteClose(1011, "") })},
		{"client", "FIN of an event stream", nil, nil, streams(func(r *reader) { r.nc.Close() })},
		{"client", "RST of an event stream", nil, nil, streams(func(r *reader) { r.nc.(*testnet.Conn).Reset() })},
		{"client", "FIN of an event stream behind middleware", nil, zwrap, streams(func(r *reader) { r.nc.Close() })},
		{"lost", "FIN of a WebSocket", nil, nil, opens("", func(_ *testing.T, ws *testnet.WS) { ws.Close() })},
		{"lost", "RST of a WebSocket", nil, nil, opens("", func(_ *testing.T, ws *testnet.WS) { ws.Conn.(*testnet.Conn).Reset() })},
		{"application", "Conn.Close", opts(ends(func(c *tailcast.Conn) { c.Close(nil) })), nil, ws},
		{"application", "Conn.Close with a cause of the hub's", opts(ends(func(c *tailcast.Conn) { c.Close(tailcast.ErrPingTimeout) })), nil, ws},
		{"application", "Disconnect", opts(registers), nil, func(t *testing.T, s *site) {
			ws := s.ws("")
			ws.WriteText(`{"token":"t-ann","event":""}`)
			synctest.Wait()
			if n, err := s.hub.Disconnect(t.Context(), "ann", nil); n != 1 || err != nil {
				t.Errorf("Disconnect: %d, %v", n, err)
			}
		}},
		{"shutdown", "Close", nil, nil, func(t *testing.T, s *site) { s.ws(""); synctest.Wait(); s.hub.Close() }},
		{"shutdown", "Shutdown", nil, nil, func(t *testing.T, s *site) { s.get(""); synctest.Wait(); s.hub.Shutdown(t.Context()) }},
		{"too_slow", "it has fallen out of memory", opts(few), nil, func(_ *testing.T, s *site) {
			ws := s.ws("")
			flood(s)
			for op := byte(0); op != testnet.OpClose; {
				op, _, _ = ws.ReadFrame()
			}
		}},
		{"too_slow", "answers are not read", opts(mayDo(tailcast.ActionRead), tailcast.WithLimits(tailcast.Limits{MessageRate: -1})), nil,
			func(t *testing.T, s *site) {
				ws := s.envelopes("?topic=free%20too").ws
				ws.Conn.(*testnet.Conn).Peer().Stall()
				go sendMany(ws, 20_000)
			}},
		{"write_timeout", "a WebSocket", nil, nil, func(_ *testing.T, s *site) { s.ws(""); flood(s) }},
		{"write_timeout", "an event stream behind middleware", nil, zwrap, func(_ *testing.T, s *site) { s.sse(""); flood(s) }},
		{"ping_timeout", "it is silent", nil, nil, opens("", func(*testing.T, *testnet.WS) { time.Sleep(time.Hour) })},
		{"expired", "its identity", opts(tailcast.WithAuthenticate(users)), nil, func(_ *testing.T, s *site) {
			s.sse("", "User: bob until 60")
			time.Sleep(2 * time.Minute)
		}},
		{"unregistered", "it is late", opts(registers), nil, opens("", func(*testing.T, *testnet.WS) { time.Sleep(16 * time.Second) })},
		{"unregistered", "its token", opts(registers), nil, opens("", text(`{"token":"x","event":""}`))},
		{"unregistered", "its token in the handshake", opts(registers), nil, func(_ *testing.T, s *site) {
			s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.token, eA"}})
		}},
		{"unregistered", "what it says", opts(registers), nil, opens("", text(`hello`))},
		{"protocol", "a broken frame", nil, nil, opens("", func(_ *testing.T, ws *testnet.WS) { ws.WriteFrame(true, 3, nil) })},
		{"protocol", "text that is none", nil, nil, opens("", text("\xff"))},
		{"limit", "the size of a message", opts(tailcast.WithLimits(tailcast.Limits{MessageBytes: 100})), nil, opens("", text(strings.Repeat("x", 101)))},
		{"limit", "the rate of messages", opts(tailcast.WithLimits(tailcast.Limits{MessageBurst: 1, MessageRate: 0.1})), nil, opens("", func(_ *testing.T, ws *testnet.WS) {
			ws.WriteText("one")
			ws.WriteText("two")
		})},
		{"limit", "topics", opts(tailcast.WithLimits(tailcast.Limits{Topics: 1}), ends(func(c *tailcast.Conn) { c.Subscribe(context.Background(), "other", tailcast.Position{}) })), nil, ws},
		{"limit", "connections of a user", opts(registers, tailcast.WithLimits(tailcast.Limits{ConnectionsPerUser: 1})), nil, func(_ *testing.T, s *site) {
			for range 2 {
				s.ws("").WriteText(`{"token":"t-ann","event":""}`)
				synctest.Wait()
			}
		}},
		{"hook", "OnConnect", opts(tailcast.WithOnConnect(func(*tailcast.Conn) error { return tailcast.ErrWriteTimeout })), nil, ws},
		{"hook", "AfterRead", opts(tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { return errors.New("no") })), nil, opens("", text("x"))},
		{"panic", "OnConnect", opts(tailcast.WithOnConnect(func(*tailcast.Conn) error { panic("a bug") })), nil, ws},
		{"panic", "AfterRead", opts(tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { panic("a bug") })), nil, opens("", text("x"))},
		{"panic", "WithRegistration", opts(tailcast.WithRegistration(func(context.Context, string) (tailcast.Identity, error) { panic("a bug") })), nil,
			opens("", text(`{"token":"x","event":""}`))},
		{"panic", "a filter", opts(tailcast.WithFilter("f", func(string) (func(*tailcast.Message) bool, error) {
			return func(*tailcast.Message) bool { panic("a bug") }, nil
		})), nil, func(_ *testing.T, s *site) { s.ws("?f=1"); flood(s) }},
		{"context", "of a WebSocket", opts(tailcast.WithPing(0, time.Second)), late(nil), opens("", func(*testing.T, *testnet.WS) { time.Sleep(time.Hour) })},
		{"context", "of an event stream", nil, late(nil), streams(func(*reader) { time.Sleep(time.Hour) })},
		{"context", "of an event stream behind middleware", nil, late(zwrap), streams(func(*reader) { time.Sleep(time.Hour) })},
	}
}

// flood publishes more than a client has room for that does not read.
func flood(s *site) {
	for range 100 {
		synctest.Wait()
		s.publish(strings.Repeat("x", 20_000))
	}
}

func TestEndedSaysWhy(t *testing.T) {
	seen := make(map[string]bool)
	for _, e := range endings() {
		seen[e.reason] = true
		t.Run(e.reason+" "+e.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := tailcast.New(append(e.opts, tailcast.WithLogger(quiet()))...)
				var h http.Handler = hub
				if e.wrap != nil {
					h = e.wrap(h)
				}
				s := serveSite(t, hub, h)
				e.run(t, s)
				time.Sleep(20 * time.Second) // clients that do not answer a Close frame have 5 s
				synctest.Wait()
				st := s.hub.Stats()
				consistent(t, st)
				for reason, n := range st.Ended {
					if want := int64(1); reason == e.reason && n != want || reason != e.reason && n != 0 {
						t.Errorf("%d by %s; want one by %s", n, reason, e.reason)
					}
				}
			})
		})
	}
	for _, row := range table(t, "Ended") {
		if !seen[row[0]] {
			t.Errorf("there is no test for %s", row[0])
		}
	}
}

func TestGapsByReason(t *testing.T) {
	few := tailcast.WithRetention(tailcast.Retention{Messages: 10})
	publish := func(s *site, n int) {
		for i := range n {
			s.publish(fmt.Sprint("message ", i))
			synctest.Wait()
		}
	}
	seen := make(map[string]bool)
	for _, c := range []struct {
		reason string
		name   string
		want   int64
		opts   []tailcast.Option
		run    func(*testing.T, *site)
	}{
		{"source", "whatever a Source writes into it", 3, nil, func(t *testing.T, s *site) {
			for _, reason := range []string{"", "too_slow", strings.Repeat("my own ", 100)} {
				if err := s.hub.Publish(t.Context(), tailcast.Message{Gap: &tailcast.Gap{Reason: reason}}); err != nil {
					t.Error(err)
				}
			}
		}},
		{"not_kept", "a viewer comes back", 2, []tailcast.Option{few}, func(t *testing.T, s *site) {
			publish(s, 1)
			head, _ := s.hub.Head("")
			publish(s, 30)
			s.sse("", "Last-Event-ID: "+head.String())
			s.get("?gaps=0&since=" + head.String())
		}},
		{"unknown_position", "a viewer comes back", 1, []tailcast.Option{few}, func(t *testing.T, s *site) {
			publish(s, 30)
			s.sse("", "Last-Event-ID: "+tailcast.Position{Epoch: 77, Offset: 7}.String())
		}},
		{"too_slow", "a viewer", 1, []tailcast.Option{few}, func(t *testing.T, s *site) {
			nc := s.dial()
			openStream(t, nc, "/", "Accept: text/event-stream")
			synctest.Wait()
			nc.Peer().Stall()
			publish(s, 30)
			time.Sleep(time.Second)
			nc.Peer().Resume()
		}},
		{"too_slow", "a loop", 1, []tailcast.Option{few}, func(t *testing.T, s *site) {
			publish(s, 1)
			for m, err := range s.hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
				if err != nil || m.Gap != nil {
					break
				}
				publish(s, 30)
			}
		}},
		{"queue_full", "an event stream", 1, nil, func(t *testing.T, s *site) { fill(t, s, s.sse("").nc.(*testnet.Conn)) }},
		{"queue_full", "a bare WebSocket is not told", 0, nil, func(t *testing.T, s *site) { fill(t, s, s.ws("").Conn.(*testnet.Conn)) }},
	} {
		seen[c.reason] = true
		t.Run(c.reason+" "+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, c.opts...)
				c.run(t, s)
				synctest.Wait()
				wantGaps(t, s, c.reason, c.want)
			})
		})
	}

	// Those of Replayers.
	replays := func(reason string, want int64, a *archive, opts ...tailcast.Option) {
		seen[reason] = true
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a.more = make(chan int)
				s := newArchiveSite(t, a, append(opts, tailcast.WithLogger(quiet()))...)
				r := s.sse("?since=earliest")
				go func() {
					for {
						if _, err := r.event(); err != nil {
							return
						}
					}
				}()
				time.Sleep(time.Minute)
				synctest.Wait()
				wantGaps(t, s, reason, want)
			})
		})
	}
	failing := newArchive(3000, 1000)
	failing.fail = func(i int) error {
		if i == 2000 {
			return tailcast.Permanent(errors.New("a bad sector"))
		}
		return nil
	}
	replays("replay_failed", 1, failing)
	replays("replay_limit", 1, newArchive(5000, 1000), tailcast.WithLimits(tailcast.Limits{ReplayBytes: 1 << 20}))
	seen["replayer"] = true
	t.Run("replayer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, few)
			b := &badReplayer{tape: tape{data: numbered(1, 100), next: make(chan int)}}
			b.f = func(y func(tailcast.Message, error) bool) {
				if y(tailcast.Message{Gap: &tailcast.Gap{To: tailcast.Position{Epoch: 5, Offset: 20}, Count: 20, Bytes: -1, Reason: "gone"}}, nil) {
					b.tape.Replay(t.Context(), "", tailcast.Position{Epoch: 5, Offset: 20})(y)
				}
			}
			go s.hub.Run(t.Context(), b)
			b.next <- 50
			synctest.Wait()
			r := s.sse("?since=earliest")
			if e, err := r.event(); err != nil || e.name != "gap" {
				t.Errorf("%+v, %v", e, err)
			}
			r.events(numbered(21, 50)...)
			synctest.Wait()
			wantGaps(t, s, "replayer", 1)
		})
	})
	for _, row := range table(t, "GapsByReason") {
		if !seen[row[0]] {
			t.Errorf("there is no test for %s", row[0])
		}
	}
}

// fill sends more to a client than its queue has room for.
func fill(t *testing.T, s *site, nc *testnet.Conn) {
	synctest.Wait() // until the connection is there
	nc.Peer().Stall()
	for c := range s.hub.Conns() {
		for range 100 {
			if err := c.Send(tailcast.Message{Data: make([]byte, 10_000)}); err != nil && !errors.Is(err, tailcast.ErrQueueFull) {
				t.Error(err)
			}
			synctest.Wait()
		}
	}
	nc.Peer().Resume()
	go io.Copy(io.Discard, nc)
	synctest.Wait()
	if n := s.hub.Stats(); n.Private == 0 || n.PrivateDropped == 0 || n.Private+n.PrivateDropped != 100 {
		t.Errorf("%d queued, %d dropped", n.Private, n.PrivateDropped)
	}
}

func wantGaps(t *testing.T, s *site, reason string, want int64) {
	t.Helper()
	st := s.hub.Stats()
	consistent(t, st)
	for name, n := range st.GapsByReason {
		if name == reason && n != want || name != reason && n != 0 {
			t.Errorf("%d gaps by %s; want %d by %s", n, name, want, reason)
		}
	}
}

// TestStatsModel: a random program of all that counts, against a model that counts.
func TestStatsModel(t *testing.T) {
	steps := 3000
	if raced {
		steps = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		conns := make(chan *tailcast.Conn, 1)
		s := newPushSite(t, tailcast.WithPing(0, time.Second), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}),
			tailcast.WithOnConnect(func(c *tailcast.Conn) error { conns <- c; return nil }),
			tailcast.WithAfterRead(func(_ *tailcast.Conn, in tailcast.Inbound) error {
				if string(in.Data) == "fail" {
					return errors.New("it asked for it")
				}
				return nil
			}))
		push := s.hub.PushHandler(everybody)
		type client struct {
			ws   *testnet.WS
			conn *tailcast.Conn
			user string
		}
		var clients []*client
		var want tailcast.Stats
		want.Ended, want.GapsByReason = make(map[string]int64), make(map[string]int64)
		rng := rand.New(rand.NewPCG(2, 9))
		users := make(map[string]int)
		drop := func(i int, reason string) {
			c := clients[i]
			if users[c.user]--; users[c.user] == 0 {
				delete(users, c.user)
			}
			clients = slices.Delete(clients, i, i+1)
			want.Ended[reason]++
			c.ws.Close()
		}
		says := func(c *client, text string) {
			c.ws.WriteText(text)
			want.Received++
			want.ReceivedBytes += int64(len(text))
			synctest.Wait()
		}
		stall := func(user string, on bool) {
			for _, c := range clients {
				if server := c.ws.Conn.(*testnet.Conn).Peer(); c.user == user && on {
					server.Stall()
				} else if c.user == user {
					server.Resume()
				}
			}
		}
		var before tailcast.Stats
		for step := range steps {
			if len(clients) == 0 || len(clients) < 30 && rng.IntN(4) == 0 {
				c := &client{ws: s.ws(""), user: fmt.Sprint("u", rng.IntN(10))}
				c.conn = <-conns
				want.Accepted++
				go func() {
					for {
						if _, _, err := c.ws.ReadFrame(); err != nil {
							return
						}
					}
				}()
				says(c, `{"token":"t-`+c.user+`","event":""}`)
				clients = append(clients, c)
				users[c.user]++
			}
			i := rng.IntN(len(clients))
			c := clients[i]
			data := bytes.Repeat([]byte("x"), rng.IntN(3000))
			switch rng.IntN(12) {
			case 0, 1:
				says(c, string(data))
			case 2, 3:
				n := rng.IntN(5)
				msgs := slices.Repeat([]tailcast.Message{{Data: data}}, n)
				if rng.IntN(4) == 0 {
					msgs = append(msgs, tailcast.Message{Gap: &tailcast.Gap{Reason: fmt.Sprint("trouble ", step)}})
					want.Gaps++
					want.GapsByReason["source"]++
				}
				if err := s.hub.Publish(t.Context(), msgs...); err != nil {
					t.Fatal(err)
				}
				want.Published += int64(len(msgs))
				want.PublishedBytes += int64(n * len(data))
				want.Delivered += uint64(len(msgs) * len(clients))
			case 4:
				if err := s.hub.Publish(t.Context(), tailcast.Message{Data: data}, tailcast.Message{Topic: "\n"}); err == nil {
					t.Fatal("it was published")
				}
			case 5:
				if err := c.conn.Send(tailcast.Message{Data: data}); err != nil {
					t.Fatal(err)
				}
				want.Private++
				want.Delivered++
			case 6: // the second one finds no room
				stall(c.user, true)
				if err := c.conn.Send(tailcast.Message{Data: make([]byte, 200_000)}); err != nil {
					t.Fatal(err)
				}
				r, err := s.hub.Push(t.Context(), c.user, "", make([]byte, 200_000))
				if n := users[c.user]; err != nil || r != (tailcast.PushResult{Matched: n, Queued: n - 1, Dropped: 1}) {
					t.Fatalf("%+v, %v; want %d", r, err, n)
				}
				stall(c.user, false)
				want.Private += 1 + uint64(r.Queued)
				want.PrivateDropped++
				want.Delivered += 1 + uint64(r.Queued)
				want.Pushes++
				want.PushMatched += int64(r.Matched)
				want.PushQueued += int64(r.Queued)
				want.PushDropped++
			case 7:
				user := fmt.Sprint("u", rng.IntN(12))
				r, err := s.hub.Push(t.Context(), user, "", data)
				if n := users[user]; err != nil || r != one(n) {
					t.Fatalf("%+v, %v; want %d", r, err, n)
				}
				want.Pushes++
				want.Private += uint64(r.Queued)
				want.PushQueued += int64(r.Queued)
				want.PushMatched += int64(r.Queued)
				want.Delivered += uint64(r.Queued)
			case 8:
				push.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "/push", strings.NewReader(`{"userId":""}`)))
				want.Refused++
			case 9:
				if rng.IntN(3) == 0 {
					says(c, "fail")
					drop(i, "hook")
				}
			case 10:
				if rng.IntN(3) == 0 {
					c.conn.Close(nil)
					synctest.Wait()
					drop(i, "application")
				}
			case 11:
				if rng.IntN(3) == 0 {
					reason := "lost"
					if rng.IntN(2) == 0 {
						reason = "client"
						c.ws.WriteClose(1000, "")
						synctest.Wait()
					}
					drop(i, reason)
				}
			}
			synctest.Wait()
			time.Sleep(2 * time.Second) // what has ended is gone
			synctest.Wait()
			got := s.hub.Stats()
			consistent(t, got)
			if less := fallen(before, got); less != nil {
				t.Fatalf("step %d: %s", step, less)
			}
			before = got
			if got.Connections["websocket"] != len(clients) || got.Users != len(users) {
				t.Fatalf("step %d: %v, %d users; want %d, %d", step, got.Connections, got.Users, len(clients), len(users))
			}
			if a, b := counted(got), counted(want); a != b {
				t.Fatalf("step %d:\ngot  %s\nwant %s", step, a, b)
			}
		}
		if want.Ended["hook"] == 0 || want.Ended["client"] == 0 || want.PrivateDropped == 0 || want.PushQueued == 0 {
			t.Errorf("the program is too tame: %s", counted(want))
		}
	})
}

// counted shows what the model counts.
func counted(s tailcast.Stats) string {
	nonzero := func(m map[string]int64) map[string]int64 {
		out := maps.Clone(m)
		maps.DeleteFunc(out, func(_ string, n int64) bool { return n == 0 })
		return out
	}
	return fmt.Sprint("accepted ", s.Accepted, " refused ", s.Refused, " ended ", nonzero(s.Ended), " received ", s.Received, " ", s.ReceivedBytes,
		" published ", s.Published, " ", s.PublishedBytes, " delivered ", s.Delivered, " private ", s.Private, " ", s.PrivateDropped,
		" pushes ", s.Pushes, " ", s.PushMatched, " ", s.PushQueued, " ", s.PushDropped, " gaps ", s.Gaps, " ", nonzero(s.GapsByReason))
}

// Connections come and go while somebody looks all the time: each look has at least what the last one had.
func TestCountersNeverFall(t *testing.T) {
	rounds := 300
	if raced {
		rounds = 100
	}
	hub := tailcast.New()
	defer hub.Close()
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		looks := 0
		for before := hub.Stats(); ; looks++ {
			select {
			case <-over:
				t.Logf("%d looks", looks)
				return
			default:
			}
			got := hub.Stats()
			consistent(t, got)
			if less := fallen(before, got); less != nil {
				t.Errorf("after %d looks: %s", looks, less)
				return
			}
			before = got
		}
	})
	for range rounds {
		var detach []func()
		for range 20 {
			detach = append(detach, hub.Attach(new(tailcast.DiscardSocket)))
		}
		for range 20 {
			if err := hub.Publish(context.Background(), tailcast.Message{Data: []byte("x")}); err != nil {
				t.Error(err)
			}
		}
		for _, f := range detach {
			f()
		}
	}
	close(over)
	wg.Wait()
	if n := hub.Stats(); n.Ended["application"] != int64(20*rounds) || n.Accepted != int64(20*rounds) {
		t.Errorf("%d accepted, %v", n.Accepted, n.Ended)
	}
}

func TestStatsAreJSON(t *testing.T) {
	l := newLogFile(t, "a\n")
	hub := tailcast.New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- hub.Run(ctx, tailcast.NewTail(l.path)) }()
	for len(hub.Stats().Sources) == 0 {
		time.Sleep(time.Millisecond)
	}
	b, err := json.Marshal(hub.Stats())
	var back tailcast.Stats
	if err != nil || json.Unmarshal(b, &back) != nil || back.Ended["client"] != 0 || len(back.Ended) == 0 || len(back.Sources) != 1 {
		t.Errorf("%s, %v", b, err)
	}
	cancel()
	<-done
	hub.Close()
}

func BenchmarkStats(b *testing.B) {
	hub := tailcast.New()
	defer hub.Close()
	for range 1000 {
		defer hub.Attach(new(tailcast.DiscardSocket))()
	}
	b.ReportAllocs()
	for b.Loop() {
		hub.Stats()
	}
}
