package wsconn_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/internal/wsconn"
)

const (
	deflateAnswer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	windowAnswer  = deflateAnswer + "; server_max_window_bits=15"
)

var deflateOffers = []struct {
	offer  string // several headers are separated by a line end
	answer string // "" = none
}{
	{"", ""},
	{"permessage-deflate", deflateAnswer},
	{"permessage-deflate; client_max_window_bits", deflateAnswer}, // browsers
	{"permessage-deflate;client_max_window_bits", deflateAnswer},
	{" permessage-deflate ;\tclient_max_window_bits = 8 ", deflateAnswer},
	{"permessage-deflate; client_max_window_bits=15", deflateAnswer},
	{`permessage-deflate; client_max_window_bits="10"`, deflateAnswer},
	{"permessage-deflate; client_no_context_takeover", deflateAnswer},
	{"permessage-deflate; server_no_context_takeover", deflateAnswer},
	{"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits", deflateAnswer},
	{"permessage-deflate; server_max_window_bits=15", windowAnswer},
	{`permessage-deflate; server_max_window_bits="15"; client_max_window_bits`, windowAnswer},

	{"permessage-deflate; server_max_window_bits=14", ""},
	{"permessage-deflate; server_max_window_bits=8", ""},
	{"permessage-deflate; server_max_window_bits=015", ""},
	{"permessage-deflate; server_max_window_bits=16", ""},
	{"permessage-deflate; server_max_window_bits", ""},
	{"permessage-deflate; server_max_window_bits=", ""},
	{"permessage-deflate; client_max_window_bits=7", ""},
	{"permessage-deflate; client_max_window_bits=16", ""},
	{"permessage-deflate; client_max_window_bits=08", ""},
	{"permessage-deflate; client_max_window_bits=", ""},
	{"permessage-deflate; client_no_context_takeover=1", ""},
	{"permessage-deflate; server_no_context_takeover=", ""},
	{"permessage-deflate; unknown", ""},
	{"permessage-deflate; client_max_window_bits; unknown=1", ""},
	{"permessage-deflate; client_no_context_takeover; client_no_context_takeover", ""},
	{"permessage-deflate; client_max_window_bits; client_max_window_bits=15", ""},
	{"permessage-deflate; server_max_window_bits=15; server_max_window_bits=15", ""},
	{"permessage-deflate;", ""},
	{"Permessage-Deflate", ""},
	{"permessage-deflate2", ""},
	{"permessage-bzip2", ""},
	{"x-webkit-deflate-frame", ""},
	{`x; y="permessage-deflate"`, ""},
	{`x; y=", permessage-deflate, "`, ""},
	{`x; y="\", permessage-deflate`, ""},
	{`x; y=", permessage-deflate`, ""},

	{"permessage-deflate; server_max_window_bits=8, permessage-deflate", deflateAnswer},
	{"permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate; client_max_window_bits", deflateAnswer},
	{"permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=15, permessage-deflate", windowAnswer},
	{"permessage-deflate, permessage-deflate; server_max_window_bits=15", deflateAnswer},
	{"permessage-bzip2; a=1, , permessage-deflate", deflateAnswer},
	{`x; y=", z", permessage-deflate`, deflateAnswer},
	{"permessage-deflate; server_max_window_bits=8\npermessage-deflate; unknown\npermessage-deflate", deflateAnswer},
	{"permessage-deflate; server_max_window_bits=8\npermessage-deflate; unknown", ""},
}

func extensions(offer string) http.Header {
	if offer == "" {
		return nil
	}
	return http.Header{"Sec-Websocket-Extensions": strings.Split(offer, "\n")}
}

// The answer to each offer is on the wire, and what follows is read by what was agreed on.
func TestDeflateIsNegotiated(t *testing.T) {
	compressed := string(testnet.AppendFrame(nil, fin|testnet.RSV1|text, true, deflated(t, "hello")))
	for _, compress := range []bool{true, false} {
		overEach(t, wsconn.Options{Compress: compress}, func(t *testing.T, fx *fixture) {
			for _, o := range deflateOffers {
				want := o.answer
				if !compress {
					want = ""
				}
				ws, c := fx.connect(t, extensions(o.offer))
				if got := strings.Join(ws.Response.Header["Sec-Websocket-Extensions"], "\n"); got != want {
					t.Errorf("offer %q: answer %q, want %q", o.offer, got, want)
				}
				if c.Compressed() != (want != "") {
					t.Errorf("offer %q: Compressed is %v", o.offer, c.Compressed())
				}
				go ws.Conn.Write([]byte(compressed))
				data, _, err := c.Read()
				var broken *wsconn.ProtocolError
				if want != "" && string(data) != "hello" || want == "" && (!errors.As(err, &broken) || broken.Code != 1002) {
					t.Errorf("offer %q: a compressed message is read as %q, %v", o.offer, data, err)
				}
				finish(c)
				ws.Close()
				fx.controls = nil
			}
		})
	}
}

// deflated is what a client sends of a message (RFC 7692, 7.2.1).
func deflated(t testing.TB, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := must(flate.NewWriter(&b, 6))
	must(w.Write([]byte(s)))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

func TestCompressedMessagesArriveAsTheyWereSent(t *testing.T) {
	overEach(t, wsconn.Options{Compress: true, ReadLimit: 100_000}, func(t *testing.T, fx *fixture) {
		ws, c := fx.connect(t, extensions("permessage-deflate; client_max_window_bits"))
		long := strings.Repeat("a line of a log, ", 5000)
		send := func(first byte, p []byte) { ws.Conn.Write(testnet.AppendFrame(nil, first, true, p)) }
		go func() {
			send(fin|testnet.RSV1|text, deflated(t, "hello"))
			send(fin|text, []byte("plain")) // each message as the client likes
			send(fin|testnet.RSV1|testnet.OpBinary, deflated(t, "\xff\x00"))
			send(fin|testnet.RSV1|text, []byte{0}) // nothing (7.2.3.6)
			p := deflated(t, long)
			send(testnet.RSV1|text, p[:1])
			send(fin|testnet.OpPing, []byte("between"))
			send(testnet.OpContinuation, p[1:1])
			send(testnet.OpContinuation, p[1:100])
			send(fin|testnet.OpPing, []byte("again"))
			send(fin, p[100:])
			send(fin|testnet.RSV1|text, deflated(t, "日本"))
		}()
		wantMessage(t, c, "hello", false)
		wantMessage(t, c, "plain", false)
		wantMessage(t, c, "\xff\x00", true)
		wantMessage(t, c, "", false)
		wantMessage(t, c, long, false)
		wantMessage(t, c, "日本", false)
		fx.controls.want(t, "pong between", "pong again")
	})
}

func TestWhatEndsTheReadingOfCompressedMessages(t *testing.T) {
	frame := func(first byte, payload []byte) string { return string(testnet.AppendFrame(nil, first, true, payload)) }
	const packed = fin | testnet.RSV1
	zeros := strings.Repeat("\x00", 1001)
	for name, test := range map[string]struct {
		send string
		code int
	}{
		"one byte over the limit":            {frame(packed|testnet.OpBinary, deflated(t, zeros)), 1009},
		"over the limit in fragments":        {frame(testnet.RSV1|testnet.OpBinary, deflated(t, zeros)[:3]) + frame(fin, deflated(t, zeros)[3:]), 1009},
		"text that is not UTF-8":             {frame(packed|text, deflated(t, "a\xff")), 1007},
		"text that ends inside a rune":       {frame(packed|text, deflated(t, "a\xc3")), 1007},
		"RSV1 in a continuation":             {frame(testnet.RSV1|text, deflated(t, "x")) + frame(packed, nil), 1002},
		"RSV1 in a continuation of plain":    {frame(text, []byte("x")) + frame(packed, nil), 1002},
		"a compressed ping":                  {frame(packed|testnet.OpPing, deflated(t, "x")), 1002},
		"a compressed Close":                 {frame(packed|testnet.OpClose, deflated(t, "\x03\xe8")), 1002},
		"RSV2":                               {frame(packed|0x20|text, deflated(t, "x")), 1002},
		"what is no deflate":                 {frame(packed|text, []byte("\xff\xff\xff\xff")), 1007},
		"a distance before the beginning":    {frame(packed|text, []byte("\x04\x00\x00\x00\x00")), 1007},
		"a flood of empty fragments":         {frame(testnet.RSV1|text, nil) + strings.Repeat(frame(0, nil), 20_000), 1008},
		"a message over the limit, as it is": {frame(fin|testnet.OpBinary, []byte(zeros)), 1009},
	} {
		t.Run(name, func(t *testing.T) {
			overEach(t, wsconn.Options{Compress: true, ReadLimit: 1000}, func(t *testing.T, fx *fixture) {
				ws, c := fx.connect(t, extensions("permessage-deflate"))
				go ws.Conn.Write([]byte(test.send + frame(fin|text, []byte("more")) + frame(fin|testnet.OpClose, []byte("\x03\xe8"))))
				_, _, err := c.Read()
				var broken *wsconn.ProtocolError
				if !errors.As(err, &broken) || broken.Code != test.code {
					t.Errorf("Read = %v, want a ProtocolError with %d", err, test.code)
				}
			})
		})
	}
	t.Run("but not what has just the limit", func(t *testing.T) {
		overEach(t, wsconn.Options{Compress: true, ReadLimit: 1000}, func(t *testing.T, fx *fixture) {
			ws, c := fx.connect(t, extensions("permessage-deflate"))
			go ws.Conn.Write([]byte(frame(packed|testnet.OpBinary, deflated(t, zeros[:1000])) + frame(fin|text, []byte("more"))))
			wantMessage(t, c, zeros[:1000], true)
			wantMessage(t, c, "more", false)
		})
	})
}

// 64 KiB that are 64 MiB when they are inflated cost what a message may have, not more.
func TestADeflateBombCostsLittle(t *testing.T) {
	once := deflated(t, strings.Repeat("\x00", 1<<20))
	bomb := bytes.Repeat(append(once, "\x00\x00\xff\xff"...), 64) // its end is that of a message too: an empty block more
	overEach(t, wsconn.Options{Compress: true}, func(t *testing.T, fx *fixture) {
		ws, c := fx.connect(t, extensions("permessage-deflate"))
		go ws.Conn.Write(testnet.AppendFrame(nil, fin|testnet.RSV1|text, true, bomb))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := c.Read()
		runtime.ReadMemStats(&after)
		var broken *wsconn.ProtocolError
		if !errors.As(err, &broken) || broken.Code != 1009 {
			t.Errorf("Read = %v, want a ProtocolError with 1009", err)
		}
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 4<<20 {
			t.Errorf("%d bytes sent cost %d", len(bomb), cost)
		}
		fx.controls.want(t, "close 1009 a message may have 65536 bytes")
	})
}

func FuzzAcceptDeflate(f *testing.F) {
	for _, o := range deflateOffers {
		f.Add(o.offer)
	}
	f.Fuzz(func(t *testing.T, offer string) {
		answer, ok := wsconn.AcceptDeflate(strings.Split(offer, "\n"))
		switch {
		case !ok && answer != "", ok && answer != deflateAnswer && answer != windowAnswer:
			t.Fatalf("%q is answered %q, %v", offer, answer, ok)
		case ok && !strings.Contains(offer, "permessage-deflate"):
			t.Fatalf("%q was not offered", offer)
		case answer == windowAnswer && !strings.Contains(offer, "server_max_window_bits"):
			t.Fatalf("%q is answered with a window that was not asked for", offer)
		case answer == deflateAnswer && !strings.ContainsAny(offer, ",\n\"") && strings.Contains(offer, "server_max_window_bits"):
			t.Fatalf("%q asks for a window, and the answer has none", offer)
		}
		if !ok && utf8.ValidString(offer) && !strings.ContainsAny(offer, "\"\\") {
			if _, ok := wsconn.AcceptDeflate(append(strings.Split(offer, "\n"), "permessage-deflate")); !ok {
				t.Fatalf("after %q the next offer is not taken", offer)
			}
		}
	})
}
