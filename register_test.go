package tailcast_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// tokens know t-NAME for the user NAME.
func tokens(_ context.Context, token string) (tailcast.Identity, error) {
	user, ok := strings.CutPrefix(token, "t-")
	if !ok {
		return tailcast.Identity{}, errors.New("unknown token " + token)
	}
	return tailcast.Identity{User: user}, nil
}

func newPushSite(t *testing.T, opts ...tailcast.Option) *site {
	return newSite(t, append([]tailcast.Option{tailcast.WithRegistration(tokens), tailcast.WithAuthorize(tailcast.AllowAllTopics)}, opts...)...)
}

func say(t *testing.T, ws *testnet.WS, format string, args ...any) {
	t.Helper()
	if err := ws.WriteFrame(true, testnet.OpText, fmt.Appendf(nil, format, args...)); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func (s *site) pushed(user, topic, data string, want tailcast.PushResult) {
	s.t.Helper()
	got, err := s.hub.Push(s.t.Context(), user, topic, []byte(data))
	if err != nil || got != want {
		s.t.Errorf("Push(%s, %s) = %+v, %v; want %+v", user, topic, got, err, want)
	}
}

// wantClosed reads the Close frame.
func wantClosed(t *testing.T, ws *testnet.WS, code int, reason string) {
	t.Helper()
	_, data, err := ws.ReadMessage()
	var closed *testnet.ClosedError
	if !errors.As(err, &closed) || closed.Code != code || !strings.Contains(closed.Reason, reason) {
		t.Errorf("got %q, %v; want a close with %d, %q", data, err, code, reason)
	}
}

func one(n int) tailcast.PushResult { return tailcast.PushResult{Matched: n, Queued: n} }

func TestRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		a, b := s.ws(""), s.ws("")
		synctest.Wait()
		s.publish("nobody has registered yet")
		say(t, a, `{"token":"t-ann","event":"orders"}`)
		say(t, b, `{"token":"t-bob","event":"orders"}`)
		s.pushed("ann", "orders", "for ann", one(1))
		s.pushed("ann", "news", "not hers", one(0))
		s.pushed("eve", "orders", "who?", one(0))
		frames(t, a, "for ann")
		say(t, a, ` { "event" : "news", "more" : 1, "token" : "t-ann" } `) // a second one
		say(t, a, `{"token":"t-ann","event":"news"}`)                      // again
		s.pushed("ann", "news", "news for ann", one(1))
		s.pushed("ann", "orders", "still", one(1))
		frames(t, a, "news for ann", "still")
		if got := slices.Sorted(s.hub.Presence("orders")); !slices.Equal(got, []string{"ann", "bob"}) {
			t.Errorf("present: %q", got)
		}
		// What is published for all reaches those who have the topic.
		if err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "orders", Data: []byte("to all")}); err != nil {
			t.Fatal(err)
		}
		frames(t, a, "to all")
		frames(t, b, "to all")
		// Another token moves the connection: nothing of the former user's reaches it.
		say(t, a, `{"token":"t-cat","event":"orders"}`)
		s.pushed("ann", "orders", "for ann", one(0))
		s.pushed("ann", "news", "for ann", one(0))
		s.pushed("cat", "news", "ann had asked for it", one(0))
		s.pushed("cat", "orders", "for cat", one(1))
		frames(t, a, "for cat")
		// Several connections of a user.
		c := s.ws("?topic=orders")
		say(t, c, `{"token":"t-cat"}`) // for the topics of its request
		s.pushed("cat", "orders", "for both", one(2))
		frames(t, a, "for both")
		frames(t, c, "for both")
		if n, err := s.hub.Drop(t.Context(), "cat", "orders"); n != 2 || err != nil {
			t.Errorf("Drop: %d, %v", n, err)
		}
		s.pushed("cat", "orders", "dropped", one(0))
		say(t, c, `{"token":"t-cat","event":"orders"}`)
		s.pushed("cat", "orders", "back", one(1))
		frames(t, c, "back")
		if n, err := s.hub.Disconnect(t.Context(), "cat", &tailcast.CloseError{Code: 4001, Reason: "enough"}); n != 2 || err != nil {
			t.Errorf("Disconnect: %d, %v", n, err)
		}
		wantClosed(t, a, 4001, "enough")
		wantClosed(t, c, 4001, "enough")
		synctest.Wait()
		s.pushed("cat", "orders", "gone", one(0))
		if got := slices.Collect(s.hub.Presence("orders")); !slices.Equal(got, []string{"bob"}) {
			t.Errorf("present: %q", got)
		}
	})
}

func TestRegistrationWithEnvelopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var read []string
		s := newPushSite(t, tailcast.WithAfterRead(func(_ *tailcast.Conn, in tailcast.Inbound) error {
			read = append(read, string(in.Data))
			return nil
		}))
		ws := s.wsWith("?topic=orders", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		say(t, ws, `{"type":"subscribe","topic":"orders","ref":1}`)
		frames(t, ws, `{"event":"error","reason":"Register first: {\"type\":\"register\",\"token\":\"…\"}.","ref":1}`)
		say(t, ws, `{"type":"register","token":"t-ann","ref":2}`)
		frames(t, ws, `{"event":"ok","ref":2}`, `{"event":"pos","topic":"orders","id":"earliest"}`)
		s.pushed("ann", "orders", "x", one(1))
		frames(t, ws, `{"topic":"orders","data":"x"}`)
		say(t, ws, `{"type":"unsubscribe","topic":"orders","ref":3}`)
		frames(t, ws, `{"event":"ok","ref":3}`)
		s.pushed("ann", "orders", "x", one(0))
		if len(read) != 1 || !strings.Contains(read[0], "unsubscribe") {
			t.Errorf("AfterRead got %q", read)
		}
		say(t, ws, `{"type":"register","token":"wrong","event":"orders"}`)
		if _, data, _ := ws.ReadMessage(); !strings.HasPrefix(string(data), `{"event":"bye","code":4401`) {
			t.Errorf("got %s", data)
		}
		wantClosed(t, ws, 4401, "the token is not accepted")
	})
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		say    string
		code   int
		reason string
	}{
		{`{"token":"wrong","event":"orders"}`, 4401, "the token is not accepted"},
		{`{"token":"","event":"orders"}`, 4401, "token is empty"},
		{`{"token":5,"event":"orders"}`, 4401, "token is not a string"},
		{`{"token":"t-ann","event":5}`, 4401, "event is not a string"},
		{`{"token":"t-ann","event":"secret"}`, 4403, `You may not read topic "secret".`},
		{`{"token":"t-ann","event":"` + strings.Repeat("x", 300) + `"}`, 4403, "topic"},
		{`{"token":"t-ann","event":"full"}`, 4429, "the room is full"},
		{`{"token":"t-ann","event":"panic"}`, 1011, ""},
		{`{"event":"orders"}`, 4401, "the first message has to be"},
		{`hello`, 4401, "the first message has to be"},
		{``, 4401, "the first message has to be"},
		{`[]`, 4401, "the first message has to be"},
		{`{"token":"t-old","event":"orders"}`, 4401, "the token has expired"},
		{`{"token":"t-busy","event":"orders"}`, 1013, "come back later"},
		{`{"token":"t-panic","event":"orders"}`, 1011, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			var logged strings.Builder
			s := newSite(t, tailcast.WithLogger(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))),
				tailcast.WithAuthorize(func(_ context.Context, a tailcast.Access) error {
					switch a.Topic {
					case "secret":
						return errors.New("no")
					case "full":
						return fmt.Errorf("seats: %w", &tailcast.CloseError{Code: 4429, Reason: "the room is full"})
					case "panic":
						panic("no such topic")
					}
					return nil
				}),
				tailcast.WithRegistration(func(ctx context.Context, token string) (tailcast.Identity, error) {
					id, err := tokens(ctx, token)
					switch id.User {
					case "old":
						id.Expires = time.Now()
					case "busy":
						err = &tailcast.CloseError{Code: 1013, Reason: "come back later"}
					case "panic":
						panic("no such table")
					}
					return id, err
				}))
			ws := s.ws("")
			if err := ws.WriteFrame(true, testnet.OpText, []byte(c.say)); err != nil {
				t.Fatal(err)
			}
			wantClosed(t, ws, c.code, c.reason)
			synctest.Wait()
			if strings.Contains(logged.String(), "t-") {
				t.Errorf("the log has a token: %s", &logged)
			}
		})
	}
}

func TestRegistrationMayBeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		began := time.Now()
		late, inTime := s.ws(""), s.ws("")
		time.Sleep(15*time.Second - 1)
		say(t, inTime, `{"token":"t-ann","event":"orders"}`)
		wantClosed(t, late, 4408, "no registration within 15s")
		if d := time.Since(began); d != 15*time.Second {
			t.Errorf("closed after %v", d)
		}
		time.Sleep(20 * time.Second)
		s.pushed("ann", "orders", "x", one(1))
	})
}

func TestATokenInTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t)
		token := base64.RawURLEncoding.EncodeToString([]byte("t-ann"))
		offer := func(list ...string) http.Header {
			return http.Header{"Sec-Websocket-Protocol": {strings.Join(list, ", ")}}
		}
		ws := s.wsWith("?topic=orders", offer("tailcast.token", token))
		if got := ws.Subprotocol(); got != "tailcast.token" {
			t.Errorf("the subprotocol is %q", got)
		}
		v1 := s.wsWith("?topic=orders", offer("tailcast.v1", "tailcast.token", token))
		if got := v1.Subprotocol(); got != "tailcast.v1" {
			t.Errorf("the subprotocol is %q", got)
		}
		synctest.Wait()
		s.pushed("ann", "orders", "x", one(2))
		frames(t, ws, "x")
		wantClosed(t, s.wsWith("", offer("tailcast.token", base64.RawURLEncoding.EncodeToString([]byte("wrong")))), 4401, "the token is not accepted")
		for _, bad := range []http.Header{offer("tailcast.token"), offer("tailcast.token", "!"), offer("tailcast.token", "")} {
			if _, err := testnet.DialWS(t.Context(), s.l, "/", bad); err == nil || !strings.Contains(err.Error(), "400") {
				t.Errorf("%v: %v", bad, err)
			}
		}
		// What is no WebSocket cannot say who it is.
		if resp := s.get("?topic=orders").resp; resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a GET: %s", resp.Status)
		}
	})
}

// An identity that has ended by itself, and one whose place another has taken.
func TestRegistrationsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithPing(0, time.Second), tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithLimits(tailcast.Limits{ConnectionsPerUser: 1}),
			tailcast.WithRegistration(func(_ context.Context, token string) (tailcast.Identity, error) {
				d, err := time.ParseDuration(token)
				return tailcast.Identity{User: token, Expires: time.Now().Add(d)}, err
			}))
		began := time.Now()
		ws := s.ws("")
		say(t, ws, `{"token":"1m","event":"a"}`)
		time.Sleep(50 * time.Second)
		say(t, ws, `{"token":"2m","event":"a"}`)
		other, third := s.ws(""), s.ws("")
		say(t, other, `{"token":"1m","event":"a"}`) // its seat is free again
		say(t, third, `{"token":"2m","event":"a"}`)
		wantClosed(t, third, 1013, "You have 1 connections, which is the limit for a user")
		wantClosed(t, other, 4401, "expired")
		wantClosed(t, ws, 4401, "expired")
		if d := time.Since(began); d != 170*time.Second {
			t.Errorf("it ended after %v", d)
		}
	})
}

// A client that has not registered yet reaches no hook, whatever kind of message it sends.
func TestNothingBeforeRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := 0
		s := newPushSite(t, tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { read++; return nil }))
		ws := s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		for _, op := range []byte{testnet.OpBinary, testnet.OpText} {
			if err := ws.WriteFrame(true, op, []byte(`{"type":"publish","data":"x"}`)); err != nil {
				t.Fatal(err)
			}
			_, data, err := ws.ReadMessage()
			if err != nil || !strings.Contains(string(data), "Register first") {
				t.Errorf("got %q, %v", data, err)
			}
		}
		if read != 0 {
			t.Errorf("AfterRead was called %d times", read)
		}
	})
}

// A client that registers again and again, with tokens that end some day, leaves nothing behind of the earlier ones.
func TestRegisteringAgainKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}),
			tailcast.WithRegistration(func(_ context.Context, token string) (tailcast.Identity, error) {
				return tailcast.Identity{User: token, Expires: time.Now().Add(time.Hour)}, nil
			}))
		ws := s.ws("")
		register := func(n int) uint64 {
			for range n {
				if err := ws.WriteFrame(true, testnet.OpText, []byte(`{"token":"ann","event":"a"}`)); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		const times = 5000
		before := register(times)
		if after := register(times); after > before+times*50 {
			t.Errorf("%d bytes are kept of each registration", (after-before)/times)
		}
		s.pushed("ann", "a", "x", one(1))
	})
}

// A connection whose topics are all taken is closed because there is no room, and not because it may not read the next one.
func TestRegistrationsForTooManyTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPushSite(t, tailcast.WithLimits(tailcast.Limits{Topics: 1}))
		ws := s.ws("")
		say(t, ws, `{"token":"t-ann","event":"a"}`)
		say(t, ws, `{"token":"t-ann","event":"b"}`)
		wantClosed(t, ws, 1013, "too many topics")
		ws.Close()
		synctest.Wait()
		if ended := s.hub.Stats().Ended; ended["limit"] != 1 {
			t.Errorf("ended: %v", ended)
		}
	})
}

// What is done to a user's connections is never done to one that has become another user's meanwhile.
func TestAMoveBesideDropAndDisconnect(t *testing.T) {
	hub := tailcast.New(tailcast.WithRegistration(tokens), tailcast.WithAuthorize(tailcast.AllowAllTopics))
	defer hub.Close()
	for i := range 500 {
		var c *tailcast.Conn
		detach := hub.AttachUser(new(tailcast.DiscardSocket), "ann", "a")
		for c = range hub.Conns() {
		}
		done := make(chan struct{})
		var n int
		var as string
		go func() {
			defer close(done)
			if i%2 == 0 {
				n, _ = hub.Drop(t.Context(), "ann", "a")
			} else {
				c.BeforeClose(func(c *tailcast.Conn, _ error) { as = c.Identity().User })
				n, _ = hub.Disconnect(t.Context(), "ann", nil)
			}
		}()
		moved := c.Become("bob", "a")
		<-done
		if i%2 == 0 && moved && !slices.Equal(c.Topics(), []string{"a"}) {
			t.Fatalf("bob has %q, %d connections of ann were dropped", c.Topics(), n)
		}
		detach()
		if i%2 == 1 && n == 1 && as != "ann" {
			t.Fatalf("%q was disconnected in ann's place", as)
		}
	}
}

// A token is not logged in the forms either that errors have it in.
func TestTokensAreNotLoggedInOtherForms(t *testing.T) {
	const token = "s+cr/t=\"ü\" x"
	for _, form := range []string{token, fmt.Sprintf("%q", token), fmt.Sprintf("%+q", token), url.QueryEscape(token), url.PathEscape(token)} {
		synctest.Test(t, func(t *testing.T) {
			var logged strings.Builder
			s := newSite(t, tailcast.WithLogger(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))),
				tailcast.WithRegistration(func(context.Context, string) (tailcast.Identity, error) {
					return tailcast.Identity{}, errors.New("no answer: " + form)
				}))
			ws := s.ws("")
			data, _ := json.Marshal(map[string]string{"token": token})
			say(t, ws, "%s", data)
			wantClosed(t, ws, 4401, "the token is not accepted")
			synctest.Wait()
			if got := logged.String(); !strings.Contains(got, "no answer: ") || strings.Contains(got, "cr/t") || strings.Contains(got, "cr%2Ft") {
				t.Errorf("with %s: %s", form, got)
			}
		})
	}
}

// The time that the application takes for a token does not count as the client's silence, wherever the token came.
func TestTokensThatTakeLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithPing(time.Second, time.Second),
			tailcast.WithRegistration(func(ctx context.Context, token string) (tailcast.Identity, error) {
				time.Sleep(10 * time.Second)
				return tokens(ctx, token)
			}))
		inBand := s.ws("?topic=a")
		say(t, inBand, `{"token":"t-ann","event":"a"}`)
		offer := "tailcast.token, " + base64.RawURLEncoding.EncodeToString([]byte("t-ann"))
		handshake := s.wsWith("?topic=a", http.Header{"Sec-Websocket-Protocol": {offer}})
		for _, ws := range []*testnet.WS{inBand, handshake} {
			go func() {
				for {
					if _, _, err := ws.ReadMessage(); err != nil {
						return
					}
				}
			}()
		}
		time.Sleep(15 * time.Second)
		s.pushed("ann", "a", "x", one(2))
	})
}
