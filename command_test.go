package tailcast_test

import (
	"context"
	"errors"
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

// mayDo lets everybody do what is said with a topic that begins with "free", and nothing with others.
func mayDo(actions ...tailcast.Action) tailcast.Option {
	return tailcast.WithAuthorize(func(_ context.Context, a tailcast.Access) error {
		if strings.HasPrefix(a.Topic, "free") && slices.Contains(actions, a.Action) {
			return nil
		}
		return errors.New("a secret reason")
	})
}

func TestCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, mayDo(tailcast.ActionRead, tailcast.ActionPublish))
		s.tell("free b", "old 1", "old 2", "old 3")
		r := s.envelopes("?topic=free")
		r.expect("pos free")
		for _, c := range []struct{ say, want string }{
			{`{"type":"publish","topic":"free","data":"hello","ref":1}`, "ok #1|free: hello"},
			{`{"type":"publish","topic":"free","data":"/w==","b64":true}`, "ok|free: /w=="},
			{`{"type":"publish","topic":"free","data":"\u2028"}`, "ok|free: \u2028"},
			{`{"type":"subscribe","topic":"free b","tail":2,"ref":2}`, "ok #2|free b: old 2|free b: old 3"},
			{`{"type":"subscribe","topic":"free b","ref":3}`, `error subscribe: topic "free b": already subscribed. #3`},
			{`{"type":"publish","topic":"free b","data":"new","ref":0}`, "ok #0|free b: new"},
			{`{"type":"unsubscribe","topic":"free b","ref":4}`, "ok #4"},
			{`{"type":"unsubscribe","topic":"free b","ref":5}`, `error unsubscribe: topic "free b": not subscribed. #5`},
			{`{"type":"publish","topic":"free b","data":"unseen"}`, "ok"},
			{`{"type":"subscribe","topic":"free b","since":"earliest"}`, "ok|free b: old 1|free b: old 2|free b: old 3|free b: new|free b: unseen"},
			{`{"type":"unsubscribe","topic":"free"}`, "ok"},
			{`{"type":"publish","topic":"free","data":"unheard"}`, "ok"},
			{`{"type":"subscribe","topic":"free","since":"latest"}`, "ok|pos free"},
			{`{"type":"publish","topic":"free","data":"heard"}`, "ok|free: heard"},
			{`{"type":"subscribe","topic":"secret","ref":6}`, `error You may not read topic "secret". #6`},
			{`{"type":"publish","topic":"secret","data":"","ref":7}`, `error You may not publish topic "secret". #7`},
			{`{"type":"subscribe","topic":"free\n"}`, `error topic "free\n": bad topic name: control character at byte 4.`},
			{`{"type":"subscribe","topic":"free` + strings.Repeat("x", 300) + `"}`, `error topic "freexxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…: bad topic name: 304 bytes, the limit is 255.`},
			{`{"type":"dance","ref":8}`, `error The command cannot be carried out: type is "dance", want subscribe, unsubscribe, publish or register. #8`},
			{`{"type":"publish","topic":"free"}`, `error The command cannot be carried out: data is missing.`},
			{`hello`, `error The command cannot be carried out: a command is a JSON object, and this is not JSON at byte 1: invalid character 'h' looking for beginning of value.`},
			{``, `error The command cannot be carried out: a command is a JSON object, and this is not JSON at byte 0: unexpected end of JSON input.`},
		} {
			r.say(c.say)
			want := strings.Split(c.want, "|")
			if strings.Contains(c.say, "publish") && len(want) == 2 { // the message may overtake the answer
				slices.Sort(want)
				r.expectAll(want...)
				continue
			}
			r.expect(want...)
		}
		r.ws.WriteFrame(true, testnet.OpBinary, []byte(`{"type":"publish","topic":"free","data":"a"}`))
		r.expect("error A command is a text message, and this was a binary one.")
		if n := s.hub.Stats().Connections["tailcast.v1"]; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestCommandsReachNoFurtherThanTheMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New()
		s := serveSite(t, hub, hub.Handler("a", "b"))
		r := s.envelopes("?topic=a")
		r.say(`{"type":"subscribe","topic":"b"}`)
		r.expect("ok")
		r.say(`{"type":"subscribe","topic":"c"}`)
		r.expect(`error topic "c" is not served here.`)
		r.say(`{"type":"publish","topic":"a","data":"x","ref":1}`)
		r.expect("error The command cannot be carried out: clients may not publish here. #1")
		if got := hub.Stats().Published; got != 0 {
			t.Errorf("%d messages were published", got)
		}
	})
}

func TestCommandsForTopicsThatAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(func(context.Context, tailcast.Access) error { return nil }),
			tailcast.WithLimits(tailcast.Limits{Topics: 3}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tp := &tape{data: []string{"0", "1"}, next: make(chan int)}
		go s.hub.Run(ctx, tp)
		tp.next <- 2
		synctest.Wait()
		r := s.envelopes("")
		r.say(`{"type":"publish","topic":"","data":"x"}`)
		r.expect(`error publish: topic "": the topic is numbered by another publisher.`)
		for i := range 2 {
			r.say(fmt.Sprintf(`{"type":"subscribe","topic":"%d"}`, i))
			r.expect("ok")
		}
		r.say(`{"type":"subscribe","topic":"one more"}`)
		r.expect(`error subscribe: topic "one more": too many topics: the limit is 3.`)
		s.hub.Shutdown(ctx)
	})
}

// A hook sees each message before it is carried out, and may close the connection instead.
func TestAfterReadSeesCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(chan string, 10)
		s := newSite(t, mayDo(tailcast.ActionRead, tailcast.ActionPublish), tailcast.WithAfterRead(func(_ *tailcast.Conn, in tailcast.Inbound) error {
			seen <- string(in.Data)
			if strings.Contains(string(in.Data), "swear") {
				return &tailcast.CloseError{Code: 4000, Reason: "language"}
			}
			return nil
		}))
		r := s.envelopes("?topic=free")
		for _, data := range []string{"hello", "swear"} {
			synctest.Wait()
			cmd := `{"type":"publish","topic":"free","data":"` + data + `"}`
			r.say(cmd)
			if got := <-seen; got != cmd {
				t.Errorf("the hook got %s", got)
			}
		}
		r.expectAll("free: hello", "ok")
		r.expect("bye 4000 language")
		closed(t, r.ws, 4000)
		if n := s.hub.Stats().Published; n != 1 {
			t.Errorf("%d messages were published", n)
		}
	})
}

// What is no command for this connection ends it where RFC 6455 or a limit says so.
func TestInputThatEndsAnEnvelopeConnection(t *testing.T) {
	for name, c := range map[string]struct {
		send func(ws *testnet.WS)
		code int
	}{
		"too large":    {func(ws *testnet.WS) { ws.WriteText(strings.Repeat(" ", 64<<10+1)) }, 1009},
		"not UTF-8":    {func(ws *testnet.WS) { ws.WriteText("\xff") }, 1007},
		"too many":     {func(ws *testnet.WS) { sendMany(ws, 300) }, 1008},
		"not masked":   {func(ws *testnet.WS) { ws.Conn.Write([]byte{0x81, 0}) }, 1002},
		"the client's": {func(ws *testnet.WS) { ws.WriteClose(1000, "") }, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				r := s.envelopes("")
				go c.send(r.ws)
				closed(t, r.ws, c.code)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		r := s.envelopes("")
		r.say(strings.Repeat(" ", 64<<10)) // just not too large
		r.expect("error The command cannot be carried out: a command is a JSON object, and this is not JSON at byte 65536: unexpected end of JSON input.")
	})
}

func sendMany(ws *testnet.WS, n int) {
	for range n {
		if ws.WriteText(`{"type":"unsubscribe","topic":"x"}`) != nil {
			return
		}
	}
}

// One that asks and does not read the answers is closed when 256 KiB of them are waiting.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	answersThatNobodyReads(t, []string{`{"type":"unsubscribe","topic":"x"}`}, 1000)
	answersThatNobodyReads(t, []string{`{"type":"subscribe","topic":"free"}`, `{"type":"unsubscribe","topic":"free"}`}, 1000)
}

func answersThatNobodyReads(t *testing.T, commands []string, least int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		heard := 0
		s := newSite(t, w.option(), mayDo(tailcast.ActionRead), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}), tailcast.WithWriteTimeout(time.Hour),
			tailcast.WithAfterRead(func(*tailcast.Conn, tailcast.Inbound) error { heard++; return nil }))
		r := s.envelopes("?topic=free%20too")
		r.ws.Conn.(*testnet.Conn).Peer().Stall()
		go func() {
			for i := 0; r.ws.WriteText(commands[i%len(commands)]) == nil; i++ {
			}
		}()
		cause := <-w.ended
		if code(cause) != 1013 || !errors.Is(cause, tailcast.ErrQueueFull) {
			t.Errorf("it ends with %v", cause)
		}
		if used := s.hub.MemoryUsed(); used > 1<<20 {
			t.Errorf("%d bytes are queued", used)
		}
		r.ws.Close()
		synctest.Wait()
		if t.Logf("%d commands", heard); heard < least || heard > 20_000 {
			t.Errorf("it ended after %d commands", heard)
		}
	})
}

func TestUnknownSubprotocolsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for _, offer := range []string{"chat", "tailcast.v2, tailcast", "TAILCAST.V1", "tailcast.v1x, xtailcast.v1"} {
			ws := s.wsWith("", http.Header{"Sec-Websocket-Protocol": {offer}})
			if v, ok := ws.Response.Header["Sec-Websocket-Protocol"]; ok {
				t.Errorf("%s: answered with %q", offer, v)
			}
			synctest.Wait()
			s.publish(offer)
			frames(t, ws, offer)
		}
		for _, offer := range [][]string{{"tailcast.v1"}, {"chat,tailcast.v1"}, {"chat", " tailcast.v1 "}} {
			ws := s.wsWith("", http.Header{"Sec-Websocket-Protocol": offer})
			if ws.Subprotocol() != "tailcast.v1" {
				t.Errorf("%q: answered with %q", offer, ws.Subprotocol())
			}
		}
	})
}

// TestNothingFollowsTheAnswerToUnsubscribe: also while a replay is feeding.
func TestNothingFollowsTheAnswerToUnsubscribe(t *testing.T) {
	for seed := range uint64(soak(20)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 5}), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}))
			tp := &tape{next: make(chan int)}
			for i := range 1000 {
				tp.data = append(tp.data, strings.Repeat("x", rng.IntN(300))+fmt.Sprint(i))
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go s.hub.Run(ctx, tp)
			tp.next <- 900
			synctest.Wait()
			r := s.envelopes("?since=earliest")
			for n := range 5 {
				for range 1 + rng.IntN(200) {
					if _, err := r.read(); err != nil {
						t.Fatal(err)
					}
				}
				go func() {
					r.ws.WriteText(fmt.Sprintf(`{"type":"unsubscribe","topic":"","ref":%d}`, 2*n))
					r.ws.WriteText(fmt.Sprintf(`{"type":"subscribe","topic":"","since":"earliest","ref":%d}`, 2*n+1))
				}()
				for {
					o, err := r.read()
					if err != nil {
						t.Fatal(err)
					}
					if o.Ref != nil && *o.Ref == int64(2*n) {
						break
					}
				}
				if o, err := r.read(); err != nil || o.String() != fmt.Sprintf("ok #%d", 2*n+1) {
					t.Fatalf("seed %d: after the answer: %v, %v", seed, o, err)
				}
			}
			s.hub.Shutdown(ctx)
		})
	}
}

// FuzzCommands: whatever a client says, its connection lives and gets an answer to it.
func FuzzCommands(f *testing.F) {
	for _, c := range []string{`{"type":"subscribe","topic":"free","ref":1}`, `{"type":"publish","topic":"free\u0000","data":"x"}`, `[]`, `{"type":"unsubscribe","topic":""}`} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, say string) {
		if say = strings.ToValidUTF8(say, "?"); len(say) > 64<<10 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, mayDo(tailcast.ActionRead, tailcast.ActionPublish))
			r := s.envelopes("?topic=free")
			r.say(say)
			r.say(`{"type":"unsubscribe","topic":"nowhere","ref":424242}`)
			for answers := 0; ; {
				o, err := r.read()
				if err != nil {
					t.Fatal(err)
				}
				if o.Ref != nil && *o.Ref == 424242 && o.Event == "error" && strings.Contains(o.Reason, "nowhere") {
					if answers != 1 {
						t.Fatalf("%d answers", answers)
					}
					return
				}
				if o.Event == "ok" || o.Event == "error" {
					answers++
				}
			}
		})
	})
}
