package itest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestSlowAmongMany: of 100 viewers one reads 10 KB/s until the hub's memory has lost its place, and one reads nothing. The
// others do not notice; the slow one gets the rest from the file; the other one is cut off.
func TestSlowAmongMany(t *testing.T) {
	const (
		viewers = 98
		limit   = 32 << 20
		keep    = 2 << 20
	)
	messages := setting(t, "ITEST_MESSAGES", 50_000, 100_000)
	var mu sync.Mutex
	causes := make(map[string]error)
	s := newSite(t, tailcast.WithMemoryLimit(limit), tailcast.WithRetention(tailcast.Retention{Bytes: keep}),
		tailcast.WithBeforeClose(func(c *tailcast.Conn, err error) {
			mu.Lock()
			defer mu.Unlock()
			causes[c.Remote()] = err
		}))
	cause := func(addr string) error {
		mu.Lock()
		defer mu.Unlock()
		return causes[addr]
	}
	var most atomic.Int64
	stopSampling := sample(func() { most.Store(max(most.Load(), s.hub.Stats().Memory)) })

	// Everything is known beforehand, so that 98 viewers can compare bytes instead of parsing lines.
	var lines [][]byte
	for seq := 1; seq <= messages; seq++ {
		lines = append(lines, bytes.TrimSuffix(appendLine(nil, "a", 0, seq, 200), []byte("\n")))
	}
	results := make(chan error, viewers)
	for range viewers {
		conn := dialWS(t, s, 0)
		go func() { results <- conn.expect(lines) }()
	}
	stalled := dialWS(t, s, 16<<10)
	slow := dialWS(t, s, 16<<10)
	crawl := atomic.Bool{}
	crawl.Store(true)
	slow.throttle = func(n int) {
		if crawl.Load() {
			time.Sleep(time.Duration(n) * time.Second / 10_000)
		}
	}
	slowResult := make(chan error, 1)
	go func() { slowResult <- slow.expect(lines) }()

	began := time.Now()
	w := &writer{Name: "a", Path: s.path, Width: 200, Rate: setting(t, "ITEST_MANY_RATE", 20_000, 20_000)}
	w.limit.Store(int64(messages))
	w.start()
	for i := range viewers {
		select {
		case err := <-results:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(2 * patience):
			t.Fatalf("%d of %d viewers have everything", i, viewers)
		}
	}
	if err := w.order("stop"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d viewers got %d messages each in %.1f s; the slow one is at message %d", viewers, messages, time.Since(began).Seconds(), slow.at.Load())
	if behind := len(lines) - int(slow.at.Load()); behind*100 < keep {
		t.Errorf("the slow viewer is only %d messages behind: the hub still has them", behind)
	}
	if err := cause(slow.LocalAddr().String()); err != nil {
		t.Errorf("the slow viewer was cut off: %v", err)
	}
	crawl.Store(false)
	select {
	case err := <-slowResult:
		if err != nil {
			t.Errorf("the slow viewer: %v", err)
		}
	case <-time.After(2 * patience):
		t.Errorf("the slow viewer has stopped at message %d", slow.at.Load())
	}
	eventually(t, "the stalled viewer is cut off", func() bool { return cause(stalled.LocalAddr().String()) != nil })
	if err := cause(stalled.LocalAddr().String()); !errors.Is(err, tailcast.ErrWriteTimeout) {
		t.Errorf("the stalled viewer ended with: %v", err)
	}
	stopSampling()
	t.Logf("written %d, delivered %d to each of %d viewers, lost 0; memory at most %.1f of %d MiB; stalled: %v",
		messages, messages, viewers+1, float64(most.Load())/(1<<20), limit>>20, cause(stalled.LocalAddr().String()))
	if most.Load() > limit {
		t.Errorf("the hub used %d bytes of memory, its limit is %d", most.Load(), limit)
	}
}

// sample calls f every 10 ms until stop is called.
func sample(f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				f()
				return
			case <-time.After(10 * time.Millisecond):
				f()
			}
		}
	}()
	return func() { close(quit); <-done }
}

// A rawWS is the reading side of a WebSocket, for many of them in one process: it allocates nothing for a message.
type rawWS struct {
	net.Conn
	br       *bufio.Reader
	throttle func(n int) // called before n bytes are read
	at       atomic.Int64
	seen     func(i int) // called for message i, if it is set
}

// dialWS connects; window bounds the kernel's receive buffer, if it is not 0.
func dialWS(t *testing.T, s *site, window int) *rawWS {
	t.Helper()
	conn, err := net.Dial("tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if window > 0 {
		if err := conn.(*net.TCPConn).SetReadBuffer(window); err != nil {
			t.Fatal(err)
		}
	}
	request, _ := testnet.Handshake(s.address(), "/?since=earliest", nil)
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	ws := &rawWS{Conn: conn, throttle: func(int) {}}
	ws.br = bufio.NewReaderSize(ws, 8<<10)
	resp, err := http.ReadResponse(ws.br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %v", resp, err)
	}
	return ws
}

// Read is what br reads from.
func (ws *rawWS) Read(p []byte) (int, error) {
	n, err := ws.Conn.Read(p[:min(len(p), 8<<10)])
	ws.throttle(n)
	return n, err
}

// expect reads exactly these messages.
func (ws *rawWS) expect(lines [][]byte) error {
	var payload [1024]byte
	for i := 0; i < len(lines); {
		op, n, err := ws.header()
		if err != nil {
			return fmt.Errorf("after message %d of %d: %w", i, len(lines), err)
		}
		if n > len(payload) {
			return fmt.Errorf("after message %d: a frame of %d bytes", i, n)
		}
		if _, err := io.ReadFull(ws.br, payload[:n]); err != nil {
			return fmt.Errorf("after message %d of %d: %w", i, len(lines), err)
		}
		switch op {
		case testnet.Fin | testnet.OpText:
			if !bytes.Equal(payload[:n], lines[i]) {
				return fmt.Errorf("message %d: got %.100q, want %.100q", i, payload[:n], lines[i])
			}
			if ws.seen != nil {
				ws.seen(i)
			}
			i++
			ws.at.Store(int64(i))
		case testnet.Fin | testnet.OpPing:
			if _, err := ws.Write(testnet.AppendFrame(nil, testnet.Fin|testnet.OpPong, true, payload[:n])); err != nil {
				return err
			}
		default:
			return fmt.Errorf("after message %d: a frame that begins with %#x: %q", i, op, payload[:n])
		}
	}
	return nil
}

func (ws *rawWS) header() (first byte, size int, err error) {
	head, err := ws.br.Peek(2)
	if err != nil {
		return 0, 0, err
	}
	first, size = head[0], int(head[1])
	skip := 2
	if size >= 126 {
		skip = 4
		if head, err = ws.br.Peek(4); err != nil {
			return 0, 0, err
		}
		if size = int(binary.BigEndian.Uint16(head[2:])); head[1] == 127 {
			size = 1 << 30 // none of ours
		}
	}
	_, err = ws.br.Discard(skip)
	return first, size, err
}
