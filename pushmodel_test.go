package tailcast_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A pushClient is a connection of the model: whose it is, what it has, and how much it must have got.
type pushClient struct {
	ws     *testnet.WS
	user   string
	topics map[string]bool
	got    int
	want   int
	wrong  string
}

func (c *pushClient) read() {
	for {
		_, data, err := c.ws.ReadMessage()
		if err != nil {
			return
		}
		user, topic, _ := strings.Cut(string(data), " ")
		if c.got++; (user != c.user || !c.topics[topic]) && c.wrong == "" {
			c.wrong = fmt.Sprintf("%q reached a connection of %s with %v", data, c.user, c.topics)
		}
	}
}

// TestPushModel: random pushes, while connections come, go, register for more, move to other users, are dropped and
// disconnected. No message reaches a connection of another user or topic, each reaches all it should, and the counts say so.
func TestPushModel(t *testing.T) {
	pushes := 20_000
	if os.Getenv("TAILCAST_SOAK") != "" {
		pushes = 1_000_000
	}
	synctest.Test(t, func(t *testing.T) {
		const users, topics, connections = 1000, 10, 1500
		s := newPushSite(t, tailcast.WithPing(0, time.Second), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}))
		rng := rand.New(rand.NewPCG(1, 6))
		user := func() string { return fmt.Sprint("u", rng.IntN(users)) }
		topic := func() string { return fmt.Sprint("topic", rng.IntN(topics)) }
		var clients []*pushClient
		of := make(map[string][]*pushClient)
		leave := func(c *pushClient) {
			of[c.user] = slices.DeleteFunc(of[c.user], func(o *pushClient) bool { return o == c })
		}
		register := func(c *pushClient, user, topic string) {
			say(t, c.ws, `{"token":"t-%s","event":%q}`, user, topic)
			if c.user != user {
				leave(c)
				of[user] = append(of[user], c)
				c.user, c.topics = user, make(map[string]bool)
			}
			c.topics[topic] = true
		}
		come := func() *pushClient {
			c := &pushClient{ws: s.ws("")}
			go c.read()
			register(c, user(), topic())
			return c
		}
		var sum tailcast.PushResult
		var actions [6]int
		check := func() {
			t.Helper()
			synctest.Wait()
			for _, c := range clients {
				if c.got != c.want || c.wrong != "" {
					t.Fatalf("a connection of %s with %v got %d messages, want %d; %s", c.user, c.topics, c.got, c.want, c.wrong)
				}
			}
		}
		for range connections {
			clients = append(clients, come())
		}
		for i := range pushes {
			u, name := user(), topic()
			want := tailcast.PushResult{}
			for _, c := range of[u] {
				if c.topics[name] {
					want.Matched++
					want.Queued++
					c.want++
				}
			}
			if got, err := s.hub.Push(t.Context(), u, name, fmt.Appendf(nil, "%s %s", u, name)); err != nil || got != want {
				t.Fatalf("push %d: %+v, %v; want %+v", i, got, err, want)
			}
			sum.Matched += want.Matched
			if rng.IntN(20) > 0 {
				continue
			}
			synctest.Wait() // all have read what was for them
			at := rng.IntN(len(clients))
			c := clients[at]
			action := rng.IntN(len(actions))
			actions[action]++
			switch action {
			case 0: // gone without a word, and another comes
				c.ws.Close()
				leave(c)
				synctest.Wait()
				clients[at] = come()
			case 1, 2:
				register(c, c.user, topic())
			case 3:
				register(c, user(), topic())
			case 4:
				n := 0
				for _, o := range of[c.user] {
					if o.topics[name] {
						n++
						delete(o.topics, name)
					}
				}
				if got, err := s.hub.Drop(t.Context(), c.user, name); err != nil || got != n {
					t.Fatalf("Drop: %d, %v; want %d", got, err, n)
				}
			case 5:
				gone := of[c.user]
				delete(of, c.user)
				if got, err := s.hub.Disconnect(t.Context(), c.user, nil); err != nil || got != len(gone) {
					t.Fatalf("Disconnect: %d, %v; want %d", got, err, len(gone))
				}
				for _, o := range gone {
					clients[slices.Index(clients, o)] = come()
				}
			}
			if i%1000 < 20 {
				check()
			}
		}
		check()
		t.Logf("%d pushes, %d times to a connection; registrations for more %d, as others %d, connections gone %d, users dropped %d, disconnected %d",
			pushes, sum.Matched, actions[1]+actions[2], actions[3], actions[0], actions[4], actions[5])
		for _, c := range clients {
			c.ws.Close()
		}
	})
}
