package tailcast_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// deflating connects a WebSocket as a browser does, which reads compressed messages.
func (s *site) deflating(query string, subprotocols ...string) *testnet.WS {
	s.t.Helper()
	h := http.Header{"Sec-Websocket-Extensions": {"permessage-deflate; client_max_window_bits"}}
	if len(subprotocols) > 0 {
		h["Sec-Websocket-Protocol"] = subprotocols
	}
	ws := s.wsWith(query, h)
	const want = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	if got := ws.Response.Header.Get("Sec-WebSocket-Extensions"); got != want {
		s.t.Fatalf("permessage-deflate is answered with %q", got)
	}
	ws.Deflate = true
	return ws
}

// deflatingEnvelopes is deflating for tailcast.v1.
func (s *site) deflatingEnvelopes(query string) *objects {
	return &objects{t: s.t, ws: s.deflating(query, "tailcast.v1"), ids: make(map[string]string)}
}

// inflated expects these text messages next, compressed if they are large enough.
func inflated(t testing.TB, ws *testnet.WS, want ...string) {
	t.Helper()
	for _, w := range want {
		op, p, compressed, err := ws.ReadInflated()
		if err != nil || op != 1 || string(p) != w || compressed != (len(w) >= 512) {
			t.Fatalf("message %d %.80q of %d bytes, compressed %v, %v; want %.80q of %d bytes", op, p, len(p), compressed, err, w, len(w))
		}
	}
}

// sized returns messages of many sizes around 512 bytes, from n to m.
func sized(n, m int) (out []string) {
	sizes := []int{20, 511, 512, 513, 3000, 30, 10_000}
	for i := n; i <= m; i++ {
		s := fmt.Sprintf("message %d ", i)
		for len(s) < sizes[i%len(sizes)] {
			s += "and so on, "
		}
		out = append(out, s[:max(sizes[i%len(sizes)], len("message 1000"))])
	}
	return out
}

func matching(list []string, part string) (out []string) {
	for _, s := range list {
		if strings.Contains(s, part) {
			out = append(out, s)
		}
	}
	return out
}

func TestViewersGetTheSameCompressedOrNot(t *testing.T) {
	for _, level := range []int{flate.BestSpeed, flate.DefaultCompression} {
		t.Run(fmt.Sprint("level ", level), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, tailcast.WithCompression(level))
				past, live := sized(1, 30), sized(31, 44)
				s.publish(past...)
				resumed := s.deflatingEnvelopes("?tail=7")
				resumed.expect(prefixed(": ", past[23:])...)
				resumed.ws.Close()
				type viewers struct {
					plain, packed             *testnet.WS
					envelopes, packedEnvelope *objects
					want                      []string
				}
				var all []viewers
				for query, want := range map[string][]string{
					"?tail=15":                 slices.Concat(past[15:], live),
					"?since=earliest":          slices.Concat(past, live),
					"?tail=0":                  live,
					"?tail=0&gaps=0":           live,
					"?tail=30&grep=7%20":       slices.Concat(matching(past, "7 "), matching(live, "7 ")),
					"?tail=30&grep=x&invert=1": slices.Concat(past, live),
				} {
					all = append(all, viewers{s.ws(query), s.deflating(query), s.envelopes(query), s.deflatingEnvelopes(query), want})
				}
				synctest.Wait()
				for _, m := range live {
					s.publish(m)
				}
				for _, v := range all {
					frames(t, v.plain, v.want...)
					inflated(t, v.packed, v.want...)
					v.envelopes.expect(prefixed(": ", v.want)...)
					v.packedEnvelope.expect(prefixed(": ", v.want)...)
				}
				s.deflatingEnvelopes("?since=" + url.QueryEscape(resumed.ids[""])).expect(prefixed(": ", live)...)
			})
		})
	}
}

func TestAMessageIsCompressedOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithCompression(1))
		var bare, plain []*testnet.WS
		var envelopes []*objects
		for range 30 {
			bare = append(bare, s.deflating(""))
			plain = append(plain, s.ws(""))
			envelopes = append(envelopes, s.deflatingEnvelopes(""))
		}
		synctest.Wait()
		var want []string
		total := 0
		for i := range 50 {
			want = append(want, fmt.Sprint("message ", i, strings.Repeat(" and on", 200)))
			s.publish(want[i])
			total += len(want[i])
			if i%2 == 0 {
				synctest.Wait()
			}
		}
		for i := range bare {
			inflated(t, bare[i], want...)
			frames(t, plain[i], want...)
			envelopes[i].expect(prefixed(": ", want)...)
		}
		n := s.hub.Stats()
		if n.Compressed != 2*50 { // in each of the two formats
			t.Errorf("50 messages were compressed %d times", n.Compressed)
		}
		if n.CompressedFrom < 2*int64(total) || n.CompressedTo > n.CompressedFrom/5 || n.CompressedTo == 0 {
			t.Errorf("%d bytes of them were made %d", n.CompressedFrom, n.CompressedTo)
		}
		// One viewer in three reads all of it.
		if most := uint64(30*total + 60*total/5); n.SentBytes > most {
			t.Errorf("%d bytes were sent, want at most %d", n.SentBytes, most)
		}
	})
}

// What one client has negotiated is not for the others of its format: not for what they subscribe to later, and in no other hub.
func TestWhoDidNotNegotiateGetsPlainMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("on and on, ", 100)
		conns, onConnect := connected()
		other, s := newSite(t, onConnect), newSite(t, onConnect, tailcast.WithCompression(6))
		var plain []*testnet.WS
		var mine []*tailcast.Conn
		for _, site := range []*site{other, s} {
			plain, mine = append(plain, site.ws("")), append(mine, <-conns)
		}
		packed := s.deflating("")
		<-conns
		for i, site := range []*site{other, s} {
			if err := mine[i].Subscribe(t.Context(), "later", tailcast.Position{}); err != nil {
				t.Fatal(err)
			}
			if err := site.hub.Publish(t.Context(), tailcast.Message{Topic: "later", Data: []byte(long)}); err != nil {
				t.Fatal(err)
			}
			frames(t, plain[i], long)
		}
		s.publish(long)
		inflated(t, packed, long)
	})
}

// What cannot be made smaller is sent as it is, and binary messages stay binary.
func TestCompressionOfBinaryMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithCompression(6))
		ws := s.deflating("")
		r := rand.New(rand.NewPCG(1, 2))
		noise := make([]byte, 5000)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		zeros := make([]byte, 3<<20)
		for _, m := range []struct {
			data       []byte
			compressed bool
		}{{noise, false}, {zeros[:5000], true}, {nil, false}, {zeros[:2<<20], true}, {zeros[:2<<20+1], false}} {
			if err := s.hub.Publish(t.Context(), tailcast.Message{Data: m.data, Binary: true}); err != nil {
				t.Fatal(err)
			}
			op, p, compressed, err := ws.ReadInflated()
			if err != nil || op != testnet.OpBinary || !bytes.Equal(p, m.data) || compressed != m.compressed {
				t.Errorf("%d bytes: opcode %d, %d bytes, compressed %v, %v", len(m.data), op, len(p), compressed, err)
			}
		}
	})
}

// Parts of a cut line are messages; those who do not get their own messages do not get them compressed either; what is sent to one
// connection goes as it is.
func TestWhatIsCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, tailcast.WithCompression(6), onConnect)
		speaker := s.deflating("")
		c := <-conns // of two it would not be known whose comes first
		other := s.deflating("")
		<-conns
		synctest.Wait()
		long := strings.Repeat("on and on, ", 100)
		for _, m := range []tailcast.Message{
			{Data: []byte("1 " + long), Partial: true}, {Data: []byte("2 " + long)}, {Data: []byte("a\xff" + long)},
			{Gap: &tailcast.Gap{Count: 1, Bytes: -1, Reason: long[:1000]}},
		} {
			if err := s.hub.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.PublishOthers(t.Context(), tailcast.Message{Data: []byte("3 " + long)}); err != nil {
			t.Fatal(err)
		}
		s.publish("4 " + long)
		for _, ws := range []*testnet.WS{speaker, other} {
			inflated(t, ws, "1 "+long, "2 "+long, "a\uFFFD"+long)
			if _, p, compressed, err := ws.ReadInflated(); err != nil || compressed || !strings.HasPrefix(string(p), "# tailcast gap: ") {
				t.Errorf("the gap is %.40q, compressed %v, %v", p, compressed, err)
			}
		}
		inflated(t, other, "3 "+long)
		inflated(t, speaker, "4 "+long)
		inflated(t, other, "4 "+long)
		if err := c.Send(tailcast.Message{Data: []byte("sent " + long)}); err != nil {
			t.Fatal(err)
		}
		frames(t, speaker, "sent "+long) // plain
	})
}

func TestCompressedCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past, viewers = 200, 10
		a := newArchive(past, 2000)
		s := newArchiveSite(t, a, tailcast.WithCompression(1))
		results := make(chan error, 2*viewers)
		for i := range 2 * viewers {
			read := s.ws("?since=earliest").ReadMessage
			if i%2 == 0 {
				packed := s.deflating("?since=earliest")
				read = func() (byte, []byte, error) {
					op, p, compressed, err := packed.ReadInflated()
					if err == nil && !compressed {
						err = errors.New("not compressed")
					}
					return op, p, err
				}
			}
			go func() {
				for n := 1; n <= past+10; n++ {
					if _, p, err := read(); err != nil || string(p) != a.text(n) {
						results <- fmt.Errorf("%.60q, %v; want message %d", p, err, n)
						return
					}
				}
				results <- nil
			}()
		}
		for range 2 * viewers {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		// Of the last 10, the topic's log and that of the replay may both have had viewers.
		if n := s.hub.Stats().Compressed; n < past+10 || n > past+20 {
			t.Errorf("%d messages were compressed %d times", past+10, n)
		}
	})
}

// What a client sends may be compressed too, and its limit is that of what it is then.
func TestInboundCompression(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithCompression(1), tailcast.WithAfterRead(echo))
		pack := func(data []byte) []byte {
			var out bytes.Buffer
			fw, _ := flate.NewWriter(&out, 6)
			fw.Write(data)
			fw.Flush()
			return testnet.AppendFrame(nil, testnet.Fin|testnet.RSV1|testnet.OpText, true, bytes.TrimSuffix(out.Bytes(), []byte("\x00\x00\xff\xff")))
		}
		long := strings.Repeat("on and on, ", 5000)
		ws := s.deflating("")
		for _, data := range []string{"short", long, ""} {
			ws.Conn.Write(pack([]byte(data)))
			frames(t, ws, data)
		}
		synctest.Wait()
		bomb := testnet.AppendFrame(nil, testnet.Fin|testnet.RSV1|testnet.OpText, true, deflateBomb())
		cost := allocated(func() {
			go ws.Conn.Write(bomb)
			closed(t, ws, 1009)
			synctest.Wait()
		})
		if cost > 4<<20 {
			t.Errorf("%d bytes sent cost %d", len(bomb), cost)
		}
		if cause := <-w.ended; code(cause) != 1009 {
			t.Errorf("the cause is %v", cause)
		}
		bad := s.deflating("")
		bad.Conn.Write(pack([]byte("a\xff")))
		closed(t, bad, 1007)
	})
}

// Who has been told to go, for sending too much, say, may send on for some seconds until it has answered. That is not unpacked any
// more: a few bytes would cost the server 64 KiB of work each time, at no rate.
func TestNothingIsUnpackedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithCompression(1), tailcast.WithLimits(tailcast.Limits{MessageBurst: 5}))
		ws := s.deflating("")
		nothing := testnet.AppendFrame(nil, testnet.Fin|testnet.RSV1|testnet.OpText, true, []byte{0})
		ws.Conn.Write(bytes.Repeat(nothing, 6))
		if cause := <-w.ended; code(cause) != 1008 {
			t.Errorf("the cause is %v", cause)
		}
		ws.Conn.Write(nothing)
		ws.Conn.Write(testnet.AppendFrame(nil, testnet.Fin|testnet.RSV1|testnet.OpText, true, []byte("\xff\xff\xff")))
		time.Sleep(3 * time.Second) // what cannot be unpacked would have ended it by now
		if n := s.hub.Stats().Connections["websocket"]; n != 1 {
			t.Error("it was unpacked")
		}
		closed(t, ws, 1008)
		ws.Close()
		synctest.Wait()
		if n := len(s.hub.Stats().Connections); n != 0 {
			t.Error("it has answered, and is still there")
		}
	})
}

func TestCompressionLevels(t *testing.T) {
	for level := -4; level <= 12; level++ {
		want := level >= -2 && level <= 9 && level != 0
		func() {
			defer func() {
				if v := recover(); (v == nil) != want {
					t.Errorf("level %d: %v", level, v)
				}
			}()
			tailcast.New(tailcast.WithCompression(level)).Close()
		}()
	}
}

// What one client has negotiated is nothing to those that were there before it: what they subscribe to later comes as it is.
func TestCompressionIsNegotiatedByEachClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithCompression(1), tailcast.WithAuthorize(tailcast.AllowAllTopics))
		s := serveSite(t, hub, hub)
		plain := s.envelopes("?topic=a")
		packed := s.deflatingEnvelopes("?topic=a")
		late := s.envelopes("?topic=a")
		long := strings.Repeat("on and on, ", 100)
		synctest.Wait()
		for c := range hub.Conns() {
			if err := c.Subscribe(t.Context(), "b", tailcast.Position{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for i, topic := range []string{"a", "b"} {
			if err := hub.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte(long)}); err != nil {
				t.Fatal(err)
			}
			plain.expect(topic + ": " + long)
			packed.expect(topic + ": " + long)
			late.expect(topic + ": " + long)
			if n := hub.Stats().Compressed; n != int64(i+1) {
				t.Errorf("%d messages were compressed %d times", i+1, n)
			}
		}
	})
}
