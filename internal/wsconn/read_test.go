package wsconn_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/internal/wsconn"
)

// A script is a connection of which a test says what each Read finds. At the end comes io.EOF.
type script struct {
	net.Conn
	pieces [][]byte
	ended  bool // somebody has been told of the end
}

// cut returns stream in pieces, whose lengths the bytes of cuts say, over and over.
func cut(stream, cuts []byte) *script {
	s := new(script)
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if len(cuts) > 0 {
			n = min(n, int(cuts[i%len(cuts)])+1)
		}
		s.pieces = append(s.pieces, slices.Clone(stream[:n])) // it is unmasked in place
		stream = stream[n:]
	}
	return s
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		s.ended = true
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// SetReadDeadline has no meaning: a script never waits.
func (s *script) SetReadDeadline(time.Time) error { return nil }

// outcome is all that a stream of bytes leads to.
func outcome(s *script, limit int64, inflate bool) (events []string) {
	o := wsconn.Options{ReadLimit: limit, Control: func(op wsconn.Opcode, payload []byte) {
		events = append(events, fmt.Sprintf("%v %q", op, payload))
	}}
	c := wsconn.NewConn(s, o)
	if inflate {
		c.Inflate()
	}
	for {
		data, binary, err := c.Read()
		if err != nil {
			return append(events, err.Error())
		}
		events = append(events, fmt.Sprintf("message %v %q", binary, data))
	}
}

var masks = []string{"mask", "\x00\x00\x00\x00", "\xff\x00\x80\x01"}

// masked returns a client's frame.
func masked(first byte, payload string) []byte {
	return testnet.AppendFrame(nil, first, true, []byte(payload))
}

// streams are seeds: what clients send, right and wrong.
func streams() (all [][]byte) {
	add := func(frames ...[]byte) { all = append(all, bytes.Join(frames, nil)) }
	const cont, bin, ping, pong, cl = testnet.OpContinuation, testnet.OpBinary, testnet.OpPing, testnet.OpPong, testnet.OpClose
	add(masked(fin|text, "hello"), masked(fin|bin, "\xff\x00"), masked(fin|cl, "\x03\xe8bye"))
	add(masked(text, "gr\xc3"), masked(fin|ping, "now"), masked(cont, ""), masked(fin|cont, "\xbc"), masked(fin|pong, ""), masked(fin|text, ""))
	add(masked(fin|text, strings.Repeat("x", 126)), masked(fin|bin, strings.Repeat("y", 300)), masked(fin|cl, ""))
	add(masked(fin|bin, strings.Repeat("z", 70_000)), masked(fin|text, "after"))
	add(masked(fin|text, "a\xff"), masked(fin|text, "more"))
	add(masked(text, "x"), masked(fin|text, "y"))
	add(masked(fin|cont, "x"))
	add(masked(ping, "x"))
	add(masked(fin|ping, strings.Repeat("p", 126)))
	add(masked(fin|0x40|text, "x"))
	add(masked(fin|3, "x"))
	add(masked(fin|0xb, "x"))
	add(masked(fin|cl, "\x03"))
	add(masked(fin|cl, "\x03\xed"))
	add(masked(fin|cl, "\x03\xe8\xff"))
	add([]byte("\x81\x01x"))
	add([]byte("\x81\xfe\x00\x05maskhello"))
	add([]byte("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00mask"))
	return all
}

// seed calls f with the streams that are short enough for a fuzzer.
func seed(f func(s []byte)) {
	for _, s := range streams() {
		if len(s) < 2000 {
			f(s)
		}
	}
}

// planned makes whole frames of a plan, which a fuzzer would seldom hit upon: of each its first byte, its length, and its payload.
func planned(plan []byte) (stream []byte) {
	for len(plan) >= 2 {
		n := min(int(plan[1]), len(plan)-2)
		stream = testnet.AppendFrame(stream, plan[0], true, plan[2:2+n])
		plan = plan[2+n:]
	}
	return stream
}

// FuzzReadInPieces: what a stream means does not depend on the pieces in which it comes.
func FuzzReadInPieces(f *testing.F) {
	seed(func(s []byte) {
		f.Add([]byte("\x81\x05hello\x01\x01x\x89\x03now\x80\x02yz"), s, []byte{0}, false)
		f.Add([]byte("\xc2\x03\x4a\x04\x00\x41\x02\x4a\x04\x80\x01\x00"), s, []byte{6, 0, 200}, true)
	})
	f.Fuzz(func(t *testing.T, plan, stream, cuts []byte, inflate bool) {
		stream = append(planned(plan), stream...)
		const limit = 1000
		want := outcome(cut(stream, nil), limit, inflate)
		for _, cuts := range [][]byte{cuts, {0}} {
			if got := outcome(cut(stream, cuts), limit, inflate); !slices.Equal(got, want) {
				t.Fatalf("cut %v:\n%q\nas a whole:\n%q", cuts, got, want)
			}
		}
		closes := 0
		for _, e := range want {
			if strings.HasPrefix(e, "close ") {
				closes++
			}
		}
		if last := want[len(want)-1]; closes > 1 || (closes == 0) != (last == "EOF") {
			t.Fatalf("%d Close frames, and then %s", closes, last)
		}
	})
}

func TestEveryPieceOfAStream(t *testing.T) {
	for _, s := range streams() {
		want := outcome(cut(s, nil), 100_000, false)
		for _, n := range []byte{0, 1, 2, 3, 6, 12, 13, 255} {
			if got := outcome(cut(s, []byte{n}), 100_000, false); !slices.Equal(got, want) {
				t.Errorf("%.40q in pieces of %d: %.200q, as a whole %.200q", s, n+1, got, want)
			}
		}
	}
}

func TestUnmask(t *testing.T) {
	for offset := range 9 {
		for n := range 100 {
			for _, mask := range masks {
				plain := make([]byte, n)
				for i := range plain {
					plain[i] = byte(i * 7)
				}
				mem := make([]byte, offset+n)
				p := mem[offset:]
				for i := range p {
					p[i] = plain[i] ^ mask[i%4]
				}
				// In two parts, so that the second begins anywhere in the key.
				at := (n*offset + offset) % (n + 1)
				key := binary.LittleEndian.Uint32([]byte(mask))
				key = wsconn.Unmask(p[:at], key)
				key = wsconn.Unmask(p[at:], key)
				if !bytes.Equal(p, plain) {
					t.Fatalf("offset %d, %d bytes, cut at %d: %x, want %x", offset, n, at, p, plain)
				}
				for i := range 4 {
					if got := byte(key >> (8 * i)); got != mask[(n+i)%4] {
						t.Fatalf("after %d bytes the key is %08x", n, key)
					}
				}
			}
		}
	}
}

// The memory that a message takes is given back before the next one is waited for.
func TestAnIdleConnectionHoldsNoBuffer(t *testing.T) {
	for name, frames := range map[string][]byte{
		"nothing":              nil,
		"a message":            masked(fin|text, "hello"),
		"a long message":       masked(fin|text, strings.Repeat("x", 50_000)),
		"a message in parts":   append(masked(text, "hel"), masked(fin|testnet.OpContinuation, "lo")...),
		"a ping":               masked(fin|testnet.OpPing, "ping"),
		"more than one buffer": bytes.Repeat(masked(fin|text, strings.Repeat("x", 100)), 200),
	} {
		stream := append(slices.Clone(frames), masked(fin|text, "end")...)
		t.Run(name+", over TCP", func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			client := must(net.Dial("tcp", l.Addr().String()))
			defer client.Close()
			c := wsconn.NewConn(must(l.Accept()), wsconn.Options{})
			defer finish(c)
			ended, waits := false, make(chan bool, 1000)
			if !c.OnWait(func() {
				if ended {
					waits <- c.Holds()
				}
			}) {
				t.Skip("no descriptor can be waited for here")
			}
			go client.Write(stream)
			readToEnd(t, c)
			ended = true
			go c.Read()
			if <-waits {
				t.Error("it waits with memory in its hands")
			}
		})
		t.Run(name+", over anything else", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, ws, srv := accept(t, wsconn.Options{})
				go ws.Conn.Write(stream)
				readToEnd(t, c)
				go c.Read()
				synctest.Wait()
				if c.Holds() {
					t.Error("it waits with memory in its hands")
				}
				finish(c)
				ws.Close()
				srv.Close()
			})
		})
	}
}

func readToEnd(t *testing.T, c *wsconn.Conn) {
	t.Helper()
	for {
		data, _, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if string(data) == "end" {
			return
		}
	}
}

// Many small frames that come together cost one call of the system.
func TestFramesThatComeTogetherAreReadTogether(t *testing.T) {
	const n = 300 // of 7 bytes: they fit into a buffer
	s := cut(bytes.Repeat(masked(fin|text, "x"), n), nil)
	calls := 0
	c := wsconn.NewConn(counted{s, &calls}, wsconn.Options{})
	for range n {
		wantMessage(t, c, "x", false)
	}
	if calls > 2 {
		t.Errorf("%d reads for %d frames", calls, n)
	}
}

type counted struct {
	*script
	calls *int
}

func (c counted) Read(p []byte) (int, error) {
	*c.calls++
	return c.script.Read(p)
}
