package itest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

// logtailDeadline is how long logtail gives its viewers after SIGTERM.
const logtailDeadline = 5 * time.Second

// TestSIGTERM: viewers, 1000 in a soak, of a process that is told to end while lines are being written. Whoever reads, however slowly, gets
// every line up to the last one that the hub has taken, once, and a goodbye. Who never reads is cut off. It runs alone: whose reader
// gets no processor for WithWriteTimeout is cut off as well.
func TestSIGTERM(t *testing.T) {
	t.Run("all read", func(t *testing.T) { testSIGTERM(t, 0) })
	t.Run("some never read", func(t *testing.T) { testSIGTERM(t, 20) })
}

func testSIGTERM(t *testing.T, stalled int) {
	const (
		slow  = 50      // of the others, read some of them this fast:
		speed = 250_000 // bytes a second
		burst = 400     // lines just before the signal, after others
	)
	lines := setting(t, "ITEST_SIGTERM_LINES", 1000, 5000)
	tenth := setting(t, "ITEST_SIGTERM_VIEWERS", 300, 1000) / 10 // what logtail can send within its 5 s, on a machine with other things to do
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := startLogtail(t, "-addr", "127.0.0.1:0", "-from-start", path)
	var viewers []*leaver
	for i, tenths := range []int{4, 3, 3} {
		for range tenths * tenth {
			v := newLeaver(t, p.url, []string{"WebSocket", "SSE", "text"}[i])
			viewers = append(viewers, v)
		}
	}
	for i := range slow {
		v := viewers[i*len(viewers)/slow]
		v.speed = speed
		v.nc.(*net.TCPConn).SetReadBuffer(64 << 10)
	}
	for i := range stalled {
		v := viewers[i*len(viewers)/stalled+1]
		v.stalled = true
		v.nc.(*net.TCPConn).SetReadBuffer(16 << 10)
	}
	var reading sync.WaitGroup
	for _, v := range viewers {
		if !v.stalled {
			reading.Go(v.read)
		}
	}
	// Lines for all, more than a stalled client's kernel takes, then a burst that the slow ones have not read at the signal.
	w := &writer{Name: "a", Path: path, Width: 200, Rate: 5000}
	w.limit.Store(int64(lines))
	w.start()
	for _, v := range viewers {
		switch {
		case v.stalled:
		case v.speed > 0:
			v.await(t, int64(lines-200))
		default:
			v.await(t, int64(lines))
		}
	}
	w.limit.Store(int64(lines + 2*burst))
	eventually(t, "the burst is being written", func() bool { return w.seq.Load() >= int64(lines+burst) })
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	err := p.cmd.Wait()
	took := time.Since(began)
	if err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, &p.stderr)
	}
	if err := w.order("stop"); err != nil {
		t.Error(err)
	}
	reading.Wait()
	summarize(t, viewers, int(w.seq.Load()), took)
	if took > logtailDeadline+time.Second {
		t.Errorf("it took %v", took)
	}
}

// summarize checks what the viewers have got, and prints it.
func summarize(t *testing.T, viewers []*leaver, written int, took time.Duration) {
	t.Helper()
	last, told, slow, stalled := 0, make(map[string]int), 0, 0
	retries := make(map[int]int)
	for _, v := range viewers {
		if v.stalled {
			stalled++
			continue
		}
		if v.speed > 0 {
			slow++
		}
		last = max(last, v.got())
		if v.err != nil {
			t.Errorf("%s (%d bytes/s) was not told: %v", v.name, v.speed, v.err)
		}
		told[v.name+": "+v.told]++
		if v.name == "SSE" {
			retries[v.retry]++
		}
	}
	for _, v := range viewers {
		if text, missing, ok := v.report(map[string]int{"a": last}); !v.stalled && !ok {
			t.Errorf("%s (%d bytes/s)\n\t%s; missing %v", text, v.speed, v.first, missing)
		}
	}
	advice := slices.Sorted(maps.Keys(retries))
	if len(advice) < len(viewers)/10 || advice[0] < 2000 || advice[len(advice)-1] > 3000 {
		t.Errorf("the advice when to come back is not spread: %d values, %v", len(advice), advice)
	}
	for _, text := range slices.Sorted(maps.Keys(told)) {
		t.Logf("%d × %s", told[text], text)
	}
	t.Logf("written %d, taken %d and delivered to each of %d viewers that read, %d of them slowly; %d never read; exit after %.2f s; retry from %d to %d ms, %d values",
		written, last, len(viewers)-stalled, slow, stalled, took.Seconds(), advice[0], advice[len(advice)-1], len(advice))
}

// A leaver reads a stream until its server sends it away.
type leaver struct {
	*account
	nc      net.Conn
	br      *bufio.Reader
	key     string
	speed   int // bytes a second; 0 = as they come
	stalled bool
	seq     atomic.Int64 // lines so far

	over  atomic.Bool // what follows is known
	ended time.Time
	told  string // how it was sent away
	retry int    // ms
	err   error
}

func newLeaver(t *testing.T, url, name string) *leaver {
	t.Helper()
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/logs")
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	v := &leaver{account: newAccount(name), nc: nc}
	v.br = bufio.NewReader(v)
	path := "/logs?since=earliest"
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n")
	switch name {
	case "WebSocket":
		request, v.key = testnet.Handshake(addr, path, nil)
	case "SSE":
		request = append(request, "Accept: text/event-stream\r\n\r\n"...)
	default:
		request = append(request, "\r\n"...)
	}
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	return v
}

// Read is what br reads from.
func (v *leaver) Read(p []byte) (int, error) {
	v.nc.SetReadDeadline(time.Now().Add(patience))
	if v.speed == 0 {
		return v.nc.Read(p)
	}
	n, err := v.nc.Read(p[:min(len(p), 4<<10)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(v.speed))
	return n, err
}

func (v *leaver) read() {
	defer func() { v.ended = time.Now(); v.over.Store(true) }()
	resp, err := http.ReadResponse(v.br, nil)
	switch {
	case err != nil:
		v.err = err
	case v.name == "WebSocket":
		v.err = v.readWS(resp)
	case resp.StatusCode != http.StatusOK:
		v.err = errors.New(resp.Status)
	case v.name == "SSE":
		v.err = v.readSSE(resp.Body)
	default:
		v.err = v.readText(resp.Body)
	}
}

func (v *leaver) take(line []byte) {
	v.line(line)
	v.seq.Add(1)
}

func (v *leaver) readWS(resp *http.Response) error {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New(resp.Status)
	}
	ws := &rawWS{Conn: v.nc, br: v.br}
	for {
		first, n, err := ws.header()
		if err != nil {
			return err
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(v.br, payload); err != nil {
			return err
		}
		switch first {
		case testnet.Fin | testnet.OpText:
			v.take(payload)
		case testnet.Fin | testnet.OpPing:
			v.nc.Write(testnet.AppendFrame(nil, testnet.Fin|testnet.OpPong, true, payload))
		case testnet.Fin | testnet.OpClose:
			v.told = fmt.Sprintf("Close %d %s", int(payload[0])<<8|int(payload[1]), payload[2:])
			if !strings.HasPrefix(v.told, "Close 1001 ") {
				return errors.New(v.told)
			}
			v.nc.Write(testnet.AppendFrame(nil, first, true, payload))
			if _, err := v.br.ReadByte(); err != io.EOF {
				return fmt.Errorf("after the Close frame: %w", err)
			}
			return nil
		default:
			return fmt.Errorf("a frame that begins with %#x", first)
		}
	}
}

func (v *leaver) readSSE(body io.Reader) error {
	s := &sse{br: bufio.NewReaderSize(body, 4<<10)}
	for {
		name, data, err := s.event()
		switch {
		case v.told != "" && errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case name == "":
			v.take(data)
		case name != "bye" || v.told != "":
			return fmt.Errorf("event %s %s", name, data)
		default:
			var bye struct {
				Code, Retry int
				Reason      string
			}
			if err := json.Unmarshal(data, &bye); err != nil || bye.Code != 1001 {
				return fmt.Errorf("bye %s %w", data, err)
			}
			v.retry, v.told = bye.Retry, fmt.Sprintf("bye %d %s", bye.Code, bye.Reason)
		}
	}
}

func (v *leaver) readText(body io.Reader) error {
	br := bufio.NewReaderSize(body, 4<<10)
	for {
		line, err := br.ReadSlice('\n')
		switch {
		case err == nil:
			v.take(bytes.TrimSuffix(line, []byte("\n")))
		case errors.Is(err, io.EOF) && len(line) == 0:
			v.told = "the end"
			return nil
		default:
			return fmt.Errorf("%q: %w", line, err)
		}
	}
}

// await waits until n lines have come, or nothing for long.
func (v *leaver) await(t *testing.T, n int64) {
	t.Helper()
	for last, since := int64(-1), time.Now(); v.seq.Load() < n; time.Sleep(5 * time.Millisecond) {
		if got := v.seq.Load(); got > last {
			last, since = got, time.Now()
		}
		if v.over.Load() && v.seq.Load() < n {
			t.Fatalf("%s has ended at %d of %d lines: %s %v", v.name, v.seq.Load(), n, v.told, v.err)
		}
		if time.Since(since) > patience {
			t.Fatalf("%s (%d bytes/s) has stopped at %d of %d lines", v.name, v.speed, v.seq.Load(), n)
		}
	}
}
