package tailcast_test

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

func TestLimitsOfConnections(t *testing.T) {
	const here, there = "192.0.2.1:1000", "192.0.2.2:1000"
	for _, test := range []struct {
		name     string
		limits   tailcast.Limits
		let      []string // requests that are let in: address and user
		refused  []string
		let2     []string // and after the first has left
		sentence string
	}{
		{
			"in total", tailcast.Limits{Connections: 2},
			[]string{here + " alice", there + " bob"}, []string{here + " carol", there + " alice"}, []string{here + " carol"},
			"There are 2 connections, which is the limit",
		},
		{
			"per user", tailcast.Limits{ConnectionsPerUser: 2},
			[]string{here + " alice", there + " alice", here + " bob"}, []string{"192.0.2.3:1 alice"}, []string{there + " alice"},
			"You have 2 connections",
		},
		{
			"per address", tailcast.Limits{ConnectionsPerAddress: 2},
			[]string{here + " alice", "192.0.2.1:2000 bob", there + " bob"}, []string{"192.0.2.1:3000 carol", "[::ffff:192.0.2.1]:1 dave"}, []string{"192.0.2.1:1 dave"},
			"There are 2 connections from your address",
		},
		{
			"per address of IPv6, by /64", tailcast.Limits{ConnectionsPerAddress: 1},
			[]string{"[2001:db8::1]:1 alice", "[2001:db8:0:1::1]:1 bob"}, []string{"[2001:db8::ffff:2]:1 carol"}, []string{"[2001:db8::3]:1 carol"},
			"There are 1 connections from your address",
		},
	} {
		for _, format := range []string{"", asSSE, asWS} {
			t.Run(fmt.Sprintf("%s/%.6s", test.name, format), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					conns, onConnect := connected()
					s := newSite(t, onConnect, tailcast.WithLimits(test.limits), tailcast.WithAuthenticate(users))
					enter := func(who string) (*http.Response, string) {
						from, user, _ := strings.Cut(who, " ")
						return s.ask(from, "", format+"User: "+user)
					}
					for _, who := range test.let {
						if resp, body := enter(who); !accepted(resp) {
							t.Fatalf("%s: %s %q", who, resp.Status, body)
						}
					}
					for _, who := range test.refused {
						resp, body := enter(who)
						if !strings.Contains(body, test.sentence) {
							t.Errorf("%s: %s %q", who, resp.Status, body)
						}
						if format == asSSE {
							if resp.StatusCode != 200 || !strings.HasPrefix(body, "retry: ") || !strings.Contains(body, "event: error\ndata: {") {
								t.Errorf("%s: %s %q", who, resp.Status, body)
							}
							continue
						}
						if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != 503 || err != nil || after < 1 {
							t.Errorf("%s: %s, Retry-After %q", who, resp.Status, resp.Header.Get("Retry-After"))
						}
					}
					if n := s.hub.Stats().Refused; n != int64(len(test.refused)) {
						t.Errorf("%d refused", n)
					}
					(<-conns).Close(nil)
					time.Sleep(time.Minute) // its peer does not answer
					for _, who := range test.let2 {
						if resp, body := enter(who); !accepted(resp) || strings.Contains(body, "error") {
							t.Errorf("%s: %s %q", who, resp.Status, body)
						}
					}
				})
			})
		}
	}
}

// A request that fails, in whatever way, must not keep its seat.
func TestRefusedRequestsKeepNoSeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithLimits(tailcast.Limits{Connections: 1, ConnectionsPerAddress: 1}))
		for _, header := range []string{
			"Upgrade: websocket", "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 8", "Origin: http://evil.example",
		} {
			for range 3 {
				if resp, _ := s.ask("", "", header); accepted(resp) || resp.StatusCode == 503 {
					t.Errorf("%s: %s", header, resp.Status)
				}
			}
		}
		if resp, body := s.ask("", "", ""); !accepted(resp) {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
}

func TestLimitOfTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect, tailcast.WithLimits(tailcast.Limits{Topics: 2}), tailcast.WithAuthorize(tailcast.AllowAllTopics))
		if resp, body := s.ask("", "?topic=a&topic=b&topic=c", ""); resp.StatusCode != 400 || !strings.Contains(body, "limit is 2") {
			t.Errorf("%s %q", resp.Status, body)
		}
		s.get("?topic=a&topic=b")
		c := <-conns
		synctest.Wait()
		if err := c.Subscribe(t.Context(), "c", tailcast.Position{}); err == nil || !strings.Contains(err.Error(), "limit is 2") {
			t.Errorf("a third topic: %v", err)
		}
	})
}

func TestRateOfInboundMessages(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration // between two messages
		ping  bool
		hook  time.Duration // that AfterRead takes
		send  int
		pass  int // that are let through; −1 = all
	}{
		{"at the rate", 100 * time.Millisecond, false, 0, 300, -1},
		{"in a burst", 0, false, 0, 20, -1},
		{"more than a burst", 0, false, 0, 30, 20},
		{"twice the rate", 50 * time.Millisecond, false, 0, 300, 39},
		{"pings count", 0, true, 0, 30, 20},
		{"while a hook runs nobody reads", 10 * time.Millisecond, false, time.Second, 60, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, got := newWatch(), 0
				s := newSite(t, w.option(), tailcast.WithLimits(tailcast.Limits{MessageRate: 10, MessageBurst: 20}),
					tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error {
						got++
						time.Sleep(test.hook)
						return nil
					}))
				ws := s.ws("")
				pongs := 0
				read := make(chan struct{})
				go func() {
					defer close(read)
					for {
						switch op, p, err := ws.ReadFrame(); {
						case err != nil:
							return
						case op == 8:
							_ = ws.WriteFrame(true, 8, p)
							return
						case op == 10:
							pongs++
						}
					}
				}()
				op := byte(1)
				if test.ping {
					op = 9
				}
				for range test.send {
					if ws.WriteFrame(true, op, []byte("x")) != nil {
						break
					}
					synctest.Wait()
					time.Sleep(test.every)
				}
				time.Sleep(time.Duration(test.send) * test.hook)
				synctest.Wait()
				if test.ping {
					got = pongs
				}
				if test.pass < 0 {
					if got != test.send || w.count() != 0 {
						t.Errorf("%d of %d came through, %d closed: %v", got, test.send, w.count(), w.causes)
					}
					return
				}
				if err := <-w.ended; code(err) != 1008 || !strings.Contains(err.Error(), "10 messages a second") {
					t.Errorf("cause %v", err)
				}
				<-read
				if got < test.pass || got > test.pass+1 {
					t.Errorf("%d came through, want %d", got, test.pass)
				}
			})
		})
	}
}

func TestLimitsThatCannotBeMeant(t *testing.T) {
	for _, l := range []tailcast.Limits{
		{Connections: -2}, {ConnectionsPerUser: -2}, {ConnectionsPerAddress: -2}, {Topics: -1}, {Topics: 129},
		{MessageBytes: -1}, {MessageRate: -2}, {MessageRate: math.Inf(1)}, {MessageRate: math.NaN()}, {MessageBurst: -1},
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.HasPrefix(fmt.Sprint(v), "tailcast: WithLimits: ") {
					t.Errorf("%+v: %v", l, v)
				}
			}()
			tailcast.New(tailcast.WithLimits(l))
		}()
	}
}
