package tailcast_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// newChat is a hub whose users are named by ?user=, and may do everything.
func newChat(t *testing.T, opts ...tailcast.Option) *site {
	return newSite(t, append(opts,
		tailcast.WithAuthenticate(func(r *http.Request) (tailcast.Identity, error) {
			return tailcast.Identity{User: r.URL.Query().Get("user")}, nil
		}),
		tailcast.WithAuthorize(func(context.Context, tailcast.Access) error { return nil }))...)
}

func TestAllButTheSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var speaker *tailcast.Conn
		s := newChat(t, tailcast.WithOnConnect(func(c *tailcast.Conn) error {
			if c.Identity().User == "speaker" {
				speaker = c
			}
			return nil
		}))
		ann, bob, sse := s.ws("?user=speaker&topic=a&topic=b"), s.ws("?topic=a"), s.sse("?topic=a")
		synctest.Wait()
		publish := func(f func(context.Context, ...tailcast.Message) error, msgs ...string) {
			t.Helper()
			for _, m := range msgs {
				topic, data, _ := strings.Cut(m, ":")
				if err := f(t.Context(), tailcast.Message{Topic: topic, Data: []byte(data)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		publish(s.hub.Publish, "a:1")
		publish(speaker.PublishOthers, "a:2", "a:3")
		publish(s.hub.Publish, "a:4")
		publish(speaker.PublishOthers, "a:5", "b:6")
		frames(t, bob, "1", "2", "3", "4", "5")
		sse.events("1", "2", "3", "4", "5")
		frames(t, ann, "1", "4")
		publish(s.hub.Publish, "b:7") // between topics there is no order
		frames(t, ann, "7")
		// The newest of all is its own: it still counts as seen.
		publish(speaker.PublishOthers, "a:8")
		synctest.Wait()
		if n := s.hub.Stats().LagMessages; n != 0 {
			t.Errorf("somebody is %d messages behind", n)
		}
		v1 := s.wsWith("?topic=a&since=latest", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		say(t, v1, `{"type":"publish","topic":"a","data":"from v1","others":true,"ref":1}`)
		say(t, v1, `{"type":"publish","topic":"a","data":"to all","ref":2}`)
		frames(t, bob, "8", "from v1", "to all")
		frames(t, ann, "from v1", "to all")
		var got []string
		for len(got) < 4 {
			_, data, err := v1.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(data))
		}
		if all := strings.Join(got, "\n"); strings.Contains(all, "from v1") || !strings.Contains(all, "to all") {
			t.Errorf("the sender got %s", all)
		}
	})
}

// Random publishers in one topic, some of them slow: each gets what the others say, and nothing of its own, in the topic's order.
func TestAllButTheSenderAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const viewers, messages = 20, 3000
		conns := make(map[string]*tailcast.Conn)
		s := newChat(t, tailcast.WithPing(0, time.Second), tailcast.WithOnConnect(func(c *tailcast.Conn) error {
			conns[c.Identity().User] = c
			return nil
		}))
		rng := rand.New(rand.NewPCG(4, 6))
		got := make([][]string, viewers)
		for i := range viewers {
			ws := s.ws(fmt.Sprintf("?user=%d", i))
			if i%4 == 0 {
				ws.Conn.(*testnet.Conn).Peer().Script(testnet.Take(1+rng.IntN(100)), testnet.Block(), testnet.Take(1))
			}
			go func() {
				for {
					_, data, err := ws.ReadMessage()
					if err != nil {
						return
					}
					got[i] = append(got[i], string(data))
				}
			}()
			synctest.Wait()
		}
		want := make([][]string, viewers)
		for n := range messages {
			from := rng.IntN(viewers + 5)
			m := fmt.Sprint(from, " says ", n, strings.Repeat("x", rng.IntN(300)))
			publish := s.hub.Publish
			if from < viewers {
				publish = conns[fmt.Sprint(from)].PublishOthers
			}
			if err := publish(t.Context(), tailcast.Message{Data: []byte(m)}); err != nil {
				t.Fatal(err)
			}
			for i := range viewers {
				if i != from {
					want[i] = append(want[i], m)
				}
			}
			if rng.IntN(50) == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		for i := range viewers {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("viewer %d got %d messages, want %d", i, len(got[i]), len(want[i]))
			}
		}
	})
}

func TestJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newChat(t, tailcast.WithTopicConfig("room*", tailcast.TopicConfig{Presence: true}))
		envelopes := http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}}
		watcher, text := s.sse("?topic=room"), s.get("?topic=room") // nobody in particular
		lines := s.get("?topic=room", "Accept: application/x-ndjson")
		synctest.Wait()
		say := func(data string) {
			t.Helper()
			if err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "room", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
		ann := s.wsWith("?user=ann&topic=room", envelopes)
		ann2 := s.ws("?user=ann&topic=room&topic=other")
		synctest.Wait()
		say("hello")
		ann.Close()
		synctest.Wait()
		say("still there")
		ann2.Close()
		synctest.Wait()
		say("alone")
		for _, want := range []struct{ name, data string }{
			{"join", `"user":"ann"`}, {"", "hello"}, {"", "still there"}, {"leave", `"user":"ann"`}, {"", "alone"},
		} {
			e, err := watcher.event()
			for err == nil && e.name == "" && e.data == "" {
				e, err = watcher.event()
			}
			if err != nil || e.name != want.name || !strings.Contains(e.data, want.data) || !strings.HasPrefix(watcher.id, "1") {
				t.Errorf("%+v, %v, id %q; want %v", e, err, watcher.id, want)
			}
		}
		text.lines("hello", "still there", "alone")
		var all []byte
		for range 6 {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, line...)
		}
		for _, want := range []string{`{"event":"join","topic":"room","user":"ann","id":"`, `{"event":"leave","topic":"room","user":"ann","id":"`} {
			if strings.Count(string(all), want) != 1 {
				t.Errorf("NDJSON: %s\nwant %s once", all, want)
			}
		}
		if got := slices.Collect(s.hub.Presence("room")); len(got) > 0 {
			t.Errorf("present: %q", got)
		}
		for m, err := range s.hub.Subscribe(t.Context(), "room", tailcast.Earliest()) {
			if err != nil || len(m.Data) == 0 || m.Gap != nil {
				t.Errorf("%+v, %v", m, err)
			}
			if string(m.Data) == "alone" {
				break
			}
		}
	})
}

// Users come and go at random; what the events say at the end is what Presence says.
func TestPresenceAtRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newChat(t, tailcast.WithPing(0, time.Second), tailcast.WithTopicConfig("*", tailcast.TopicConfig{Presence: true}), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}))
		told := make(map[string]int)
		events := s.sse("?topic=room")
		go func() {
			for {
				e, err := events.event()
				if err != nil {
					return
				}
				_, user, _ := strings.Cut(e.data, `"user":"`)
				user, _, _ = strings.Cut(user, `"`)
				switch e.name {
				case "join":
					told[user]++
				case "leave":
					told[user]--
				}
				if told[user] < 0 || told[user] > 1 {
					t.Errorf("%s is there %d times", user, told[user])
				}
			}
		}()
		rng := rand.New(rand.NewPCG(1, 9))
		conns := make([]*testnet.WS, 30)
		for range 2000 {
			i := rng.IntN(len(conns))
			switch {
			case conns[i] == nil:
				conns[i] = s.wsWith(fmt.Sprintf("?user=u%d&topic=room", rng.IntN(8)), http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
				ws := conns[i]
				go func() {
					for {
						if _, _, err := ws.ReadMessage(); err != nil {
							return
						}
					}
				}()
			case rng.IntN(2) == 0:
				conns[i].WriteFrame(true, testnet.OpText, []byte(`{"type":"unsubscribe","topic":"room"}`))
			case rng.IntN(2) == 0:
				conns[i].WriteFrame(true, testnet.OpText, []byte(`{"type":"subscribe","topic":"room"}`))
			default:
				conns[i].Close()
				conns[i] = nil
			}
			if rng.IntN(3) == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		var there []string
		for user, n := range told {
			if n > 0 {
				there = append(there, user)
			}
		}
		slices.Sort(there)
		if got := slices.Sorted(s.hub.Presence("room")); !slices.Equal(got, there) {
			t.Errorf("present are %q, told was %q", got, there)
		}
		for _, ws := range conns {
			if ws != nil {
				ws.Close()
			}
		}
	})
}

// A topic that a hook has given to a connection before it registered: its user comes with the registration.
func TestPresenceOfWhoWasThereBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRegistration(tokens), tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithTopicConfig("*", tailcast.TopicConfig{Presence: true}),
			tailcast.WithOnConnect(func(c *tailcast.Conn) error { return c.Subscribe(t.Context(), "lobby", tailcast.Position{}) }))
		ws := s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		synctest.Wait()
		other := s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		synctest.Wait()
		read := func(want string) {
			t.Helper()
			for {
				_, data, err := other.ReadMessage()
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(data), want) {
					return
				}
				if strings.Contains(string(data), `"user"`) {
					t.Fatalf("got %s, want %s", data, want)
				}
			}
		}
		say(t, ws, `{"type":"register","token":"t-ann","event":"desk"}`)
		read(`{"event":"join","topic":"lobby","user":"ann"`)
		say(t, ws, `{"type":"register","token":"t-ann","event":"desk"}`) // says nothing new
		if got := slices.Collect(s.hub.Presence("lobby")); !slices.Equal(got, []string{"ann"}) {
			t.Errorf("present: %q", got)
		}
		say(t, ws, `{"type":"register","token":"t-bob","event":"lobby"}`)
		read(`{"event":"leave","topic":"lobby","user":"ann"`)
		read(`{"event":"join","topic":"lobby","user":"bob"`)
	})
}

// Who comes and goes is no message: a viewer that wants the newest ones gets so many of them.
func TestPresenceIsNotCountedAsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newChat(t, tailcast.WithTopicConfig("*", tailcast.TopicConfig{Presence: true, Backlog: 2}))
		publish := func(data string) {
			t.Helper()
			if err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "room", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
		publish("1")
		publish("2")
		publish("3")
		for i := range 20 {
			if i == 10 {
				publish("4")
			}
			s.ws(fmt.Sprintf("?user=u%d&topic=room&tail=0", i)).Close()
			synctest.Wait()
		}
		frames(t, s.ws("?user=ann&topic=room"), "3", "4")
		frames(t, s.ws("?user=ann&topic=room&tail=1"), "4")
		frames(t, s.ws("?topic=room&tail=9"), "1", "2", "3", "4")
		v1 := s.wsWith("?user=bob&topic=else", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		say(t, v1, `{"type":"subscribe","topic":"room","tail":1,"ref":1}`) // its own join comes first
		for {
			_, data, err := v1.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), `"data":"4"`) {
				break
			}
		}
	})
}

// Who may read any topic cannot fill the memory with topics in which there was never a message.
func TestPresenceKeepsNoTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newChat(t, tailcast.WithTopicConfig("*", tailcast.TopicConfig{Presence: true}))
		ws := s.wsWith("?user=ann&topic=home", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		go func() {
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					return
				}
			}
		}()
		before := s.hub.MemoryUsed()
		for i := range 50 {
			say(t, ws, `{"type":"subscribe","topic":"t%d"}`, i)
			if i == 7 {
				if err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "t7", Data: []byte("x")}); err != nil {
					t.Fatal(err)
				}
			}
			say(t, ws, `{"type":"unsubscribe","topic":"t%d"}`, i)
		}
		time.Sleep(30 * time.Second)
		if n := len(s.hub.TopicNames()); n != 51 {
			t.Errorf("%d topics are left after half a minute", n)
		}
		time.Sleep(time.Minute)
		if got := s.hub.TopicNames(); !slices.Equal(got, []string{"home", "t7"}) {
			t.Errorf("%q are left", got)
		}
		if used := s.hub.MemoryUsed(); used > before+10<<10 {
			t.Errorf("the budget has %d bytes, %d before", used, before)
		}
	})
}
