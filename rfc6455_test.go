package tailcast_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestRFC6455 plays the cases of testdata/rfc6455 against a hub that sends each message back to who sent it. They follow the
// categories of the Autobahn test suite. To run one: go test -run 'TestRFC6455/close/7.3.5_'
func TestRFC6455(t *testing.T) {
	files, err := filepath.Glob("testdata/rfc6455/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	seen := make(map[string]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := parseScript(file, string(text))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			for _, c := range cases {
				if other := seen[c.number]; other != "" {
					t.Errorf("%s: case %s is at %s too", c.at, c.number, other)
				}
				seen[c.number] = c.at
				t.Run(c.number+" "+c.title, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { c.play(t) })
					synctest.Test(t, func(t *testing.T) { c.play(t, tailcast.WithDetach()) })
				})
			}
		})
	}
}

// A player plays one case from the client's side. Whatever a case expects must be there without any time passing: what the
// hub does, it does at once.
type player struct {
	*testing.T
	at   string // the line that is being played
	conn *tailcast.Conn
	ws   *testnet.WS

	pending []byte // what the > lines since the last other line send
	chop    int    // into pieces of how many bytes; 0 = none
	pause   time.Duration

	cause   int // the code that BeforeClose must be given; −1 = that of the Close frame
	dropped bool
	closing bool // the hub's Close has been checked
	code    int  // its code

	mu      sync.Mutex
	data    []incoming // messages, not yet expected
	control []incoming // pings and pongs
	closed  *incoming
	end     error // what the reading ended with
}

// An incoming frame is one of the hub's.
type incoming struct {
	op      byte
	payload []byte
}

func (f incoming) String() string {
	return fmt.Sprintf("frame %d of %d bytes %.60q", f.op, len(f.payload), f.payload)
}

func (c *scriptCase) play(t *testing.T, opts ...tailcast.Option) {
	w := newWatch()
	conns, onConnect := connected()
	opts = append(opts, w.option(), onConnect, tailcast.WithAfterRead(echo))
	opts = append(opts, tailcast.WithLimits(tailcast.Limits{MessageBytes: c.limit, MessageRate: -1}))
	if c.answer != "" {
		opts = append(opts, tailcast.WithCompression(1))
	}
	s := newSite(t, opts...)
	header := http.Header{}
	if c.offer != "" {
		header.Set("Sec-WebSocket-Extensions", c.offer)
	}
	ws, resp, err := testnet.NewWS(s.dial(), "hub.example", "/", header)
	if err != nil {
		t.Fatalf("%s: %v", c.at, err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != c.answer {
		t.Errorf("%s: the hub answers the offer %q with %q, want %q", c.at, c.offer, got, c.answer)
	}
	p := &player{T: t, at: c.at, conn: <-conns, ws: ws, cause: -1}
	go p.read()
	for _, step := range c.steps {
		p.at = step.at
		step.do(p)
	}
	p.at = c.at
	p.finish()
	synctest.Wait()
	if n := w.count(); n != 1 {
		t.Fatalf("%s: BeforeClose was called %d times", c.at, n)
	}
	switch cause := <-w.ended; {
	case p.dropped && p.cause < 0:
		if !errors.Is(cause, io.ErrUnexpectedEOF) {
			t.Errorf("%s: the cause is %v, want that of a connection that ends", c.at, cause)
		}
	case code(cause) != p.cause:
		t.Errorf("%s: the cause is %v, want the code %d", c.at, cause, p.cause)
	}
	if left := s.hub.Stats().Connections; len(left) != 0 {
		t.Errorf("%s: connections are left: %v", c.at, left)
	}
}

// echo is an AfterRead hook.
func echo(c *tailcast.Conn, in tailcast.Inbound) error {
	return c.Send(tailcast.Message{Data: in.Data, Binary: in.Binary})
}

// read takes what comes from the hub. testnet.WS fails at anything that a server must not send.
func (p *player) read() {
	for {
		op, payload, err := p.ws.ReadFrame()
		p.mu.Lock()
		switch f := (incoming{op, payload}); {
		case err != nil:
			p.end = err
			p.mu.Unlock()
			return
		case op == testnet.OpClose:
			p.closed = &f
		case op > testnet.OpClose:
			p.control = append(p.control, f)
		default:
			p.data = append(p.data, f)
		}
		p.mu.Unlock()
	}
}

func (p *player) fatalf(format string, args ...any) {
	p.Helper()
	p.Fatalf("%s: %s", p.at, fmt.Sprintf(format, args...))
}

// flush sends what is pending, and lets the hub deal with each piece.
func (p *player) flush() {
	out := p.pending
	p.pending = nil
	for len(out) > 0 {
		n := len(out)
		if p.chop > 0 {
			n = min(n, p.chop)
		}
		if _, err := p.ws.Conn.Write(out[:n]); err != nil {
			break // The hub has closed. Whether it should have, the next lines tell.
		}
		out = out[n:]
		synctest.Wait()
		if p.pause > 0 {
			time.Sleep(p.pause)
		}
	}
	synctest.Wait()
}

// want expects a frame: a message next among messages, a ping or pong next among those. Between the two kinds there is no order.
func (p *player) want(verb string, f *scriptFrame) {
	p.Helper()
	p.flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	queue := &p.data
	if f.op > testnet.OpClose {
		queue = &p.control
	}
	want := incoming{f.op, f.bytes()}
	is := func() bool {
		return len(*queue) > 0 && (*queue)[0].op == want.op && bytes.Equal((*queue)[0].payload, want.payload)
	}
	for range f.repeat {
		if is() {
			*queue = (*queue)[1:]
			for verb == "<+" && is() {
				*queue = (*queue)[1:]
			}
		} else if verb != "<?" {
			p.fatalf("want %v; there is %v", want, p.state())
		}
	}
}

// state describes what the hub has sent and nobody has expected.
func (p *player) state() string {
	var b strings.Builder
	for _, f := range append(p.data, p.control...) {
		fmt.Fprintf(&b, "%v, ", f)
	}
	if p.closed != nil {
		fmt.Fprintf(&b, "%v, ", *p.closed)
	}
	if p.end == nil {
		return b.String() + "and nothing more"
	}
	return b.String() + "and the end: " + p.end.Error()
}

// wantClose expects the hub's Close frame with this code, and with this reason if there is one. Everything before it must have been expected.
func (p *player) wantClose(want []byte) {
	p.Helper()
	p.flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.data)+len(p.control) > 0 || p.closed == nil {
		p.fatalf("want the Close frame %q; there is %v", want, p.state())
	}
	got := p.closed.payload
	if len(want) != 2 && !bytes.Equal(got, want) || len(want) == 2 && !bytes.HasPrefix(got, want) {
		p.fatalf("want the Close frame %q; there is %v", want, p.state())
	}
	p.closing, p.code = true, 1005
	if len(got) > 0 {
		p.code = int(got[0])<<8 | int(got[1])
	}
}

// wantEOF expects the end of what the hub sends.
func (p *player) wantEOF() {
	p.Helper()
	p.flush()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != io.EOF {
		p.fatalf("want the end of the connection; there is %v", p.state())
	}
}

// quiet lets time pass, in which nothing may come.
func (p *player) quiet(d time.Duration) {
	p.Helper()
	p.flush()
	check := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.data)+len(p.control) > 0 || p.closed != nil && !p.closing || p.end != nil {
			p.fatalf("want silence; there is %v", p.state())
		}
	}
	check()
	time.Sleep(d)
	synctest.Wait()
	check()
}

func (p *player) drop() {
	p.flush()
	p.dropped = true
	p.ws.Close()
}

func (p *player) hubCloses(code int, reason string) {
	p.flush()
	p.conn.Close(&tailcast.CloseError{Code: code, Reason: reason})
	synctest.Wait()
}

// finish sees the connection to its end: with a goodbye, if the case has not ended it.
func (p *player) finish() {
	p.Helper()
	p.flush()
	switch {
	case p.dropped:
		return
	case !p.closing:
		p.mu.Lock()
		if p.closed != nil {
			p.fatalf("want an open connection at the end; there is %v", p.state())
		}
		p.mu.Unlock()
		p.chop, p.pause = 0, 0
		p.pending = testnet.AppendFrame(nil, testnet.Fin|testnet.OpClose, true, []byte("\x03\xe8"))
		p.wantClose([]byte("\x03\xe8"))
	}
	p.wantEOF()
	if p.cause < 0 {
		p.cause = p.code
	}
	// The hub ends the connection, also if the client does nothing for it.
	time.Sleep(2 * time.Second)
	if _, err := p.ws.Conn.Write([]byte{0}); err == nil {
		p.fatalf("the connection is still open")
	}
	p.ws.Close()
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// deflateBomb returns 64 KiB that are 64 MiB when they are inflated.
func deflateBomb() []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression)
	zeros := make([]byte, 1<<20)
	w.Write(zeros)
	w.Flush()
	first := out.Len()
	w.Write(zeros)
	w.Flush()
	return append(bytes.Clone(out.Bytes()), bytes.Repeat(out.Bytes()[first:], 62)...)
}

// What a client sends never costs much more than its own bytes, and never more than the limit for a message allows.
func TestRFC6455HostileClientsCostLittle(t *testing.T) {
	frame := func(first byte, payload []byte) []byte { return testnet.AppendFrame(nil, first, true, payload) }
	bomb := deflateBomb()
	empty := frame(testnet.OpText, nil)
	single := frame(testnet.OpBinary, []byte("x"))
	for range 100_000 {
		empty = append(empty, frame(testnet.OpContinuation, nil)...)
		single = append(single, frame(testnet.OpContinuation, []byte("x"))...)
	}
	huge := append([]byte("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04"), make([]byte, 8<<20)...)
	for _, test := range []struct {
		name string
		send []byte
		code int
	}{
		{"64 MiB in a compressed frame", frame(testnet.Fin|testnet.RSV1|testnet.OpText, bomb), 1002},
		{"100,000 empty fragments", empty, 1008},
		{"100,000 fragments of a byte", single, 1008},
		{"a frame of 2^63−1 bytes", huge, 1009},
		{"a ping of 2^63−1 bytes", append([]byte{0x89}, huge[1:]...), 1002},
		{"a frame of 2^63 bytes", append([]byte("\x82\xff\x80"), huge[3:]...), 1002},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatch()
				s := newSite(t, w.option(), tailcast.WithAfterRead(echo))
				ws := s.ws("")
				synctest.Wait()
				began := time.Now()
				cost := allocated(func() {
					go ws.Conn.Write(test.send) // The hub stops reading at some point.
					closed(t, ws, test.code)
					synctest.Wait()
				})
				if cost > 4<<20 {
					t.Errorf("%d bytes sent cost %d", len(test.send), cost)
				}
				if cause := <-w.ended; code(cause) != test.code {
					t.Errorf("the cause is %v", cause)
				}
				if took := time.Since(began); took > lingers {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// lingers is how long the hub goes on reading after its Close frame.
const lingers = time.Second

// Any byte is life: a client that sends one each second is served, and one that goes on like that for ever inside one message is not
// kept waiting for it: its fragments have a limit.
func TestRFC6455OneByteASecond(t *testing.T) {
	t.Run("is served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch()
			s := newSite(t, w.option(), tailcast.WithAfterRead(echo))
			ws := s.ws("")
			message := strings.Repeat("slow ", 100)
			began := time.Now()
			for _, b := range testnet.AppendFrame(nil, testnet.Fin|testnet.OpText, true, []byte(message)) {
				time.Sleep(time.Second)
				if _, err := ws.Conn.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			frames(t, ws, message) // and no ping: the client was never silent
			if took := time.Since(began); took != 508*time.Second {
				t.Errorf("it took %v", took)
			}
			ws.WriteClose(1000, "")
			closed(t, ws, 1000)
		})
	})
	t.Run("has a limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWatch()
			s := newSite(t, w.option(), tailcast.WithAfterRead(echo), tailcast.WithLimits(tailcast.Limits{MessageBytes: 100}))
			ws := s.ws("")
			ws.WriteFrame(false, testnet.OpText, nil)
			header := testnet.AppendFrame(nil, testnet.OpContinuation, true, nil)
			sent := 0
			cost := allocated(func() {
				for ; w.count() == 0 && sent < 200_000; sent++ {
					if time.Sleep(time.Second); sent >= 1000*len(header) { // and faster, for the sake of the test's time
						ws.Conn.Write(bytes.Repeat(header, 100))
						sent += 100*len(header) - 1
					} else {
						ws.Conn.Write(header[sent%len(header):][:1])
					}
					synctest.Wait()
				}
			})
			closed(t, ws, 1008)
			if sent > 80_000 || cost > 8<<20 {
				t.Errorf("it ended after %d bytes, which cost %d", sent, cost)
			}
			if cause := <-w.ended; code(cause) != 1008 {
				t.Errorf("the cause is %v", cause)
			}
		})
	})
}
