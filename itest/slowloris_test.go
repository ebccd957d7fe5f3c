package itest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

// TestSlowloris: 800 clients that only want to be a burden. Who comes as a viewer is served at once nevertheless; the memory
// does not grow without bound; and none of them stays for good: those that have not made a request are gone after
// ReadHeaderTimeout, 5 s.
func TestSlowloris(t *testing.T) {
	t.Parallel()
	const (
		halfOpen, mute, posts = 500, 200, 100

		headerTimeout = 5 * time.Second // of logtail
		atOnce        = 500 * time.Millisecond
		memory        = 64 << 20
	)
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte("the first line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startLogtail(t, "-addr", "127.0.0.1:0", path)
	if p.descriptors() == 0 {
		t.Skip("descriptors of a process cannot be counted here")
	}
	addr := strings.TrimSuffix(strings.TrimPrefix(p.url, "http://"), "/logs")
	eventually(t, "the first line is there", func() bool { _, err := firstEvent(p.url); return err == nil })
	alone := bestOf(t, p.url)
	before, base := p.descriptors(), p.resident(t)
	for since := time.Now(); time.Since(since) < time.Second; time.Sleep(10 * time.Millisecond) { // until all those have gone
		if n := p.descriptors(); n != before {
			before, since = n, time.Now()
		}
	}

	head := "GET /logs HTTP/1.1\r\nHost: " + addr + "\r\nAccept: text/event-stream\r\nX-Padding: " + strings.Repeat("x", 1000) + "\r\n\r\n"
	upgrade, _ := testnet.Handshake(addr, "/logs", nil)
	began := time.Now()
	stop := make(chan struct{})
	defer close(stop)
	var opening, posting atomic.Int64
	for i := range halfOpen {
		nc := burden(t, addr)
		untilEnd(nc, &opening)
		switch i % 4 {
		case 0: // one byte at a time
			go func() {
				for j := range len(head) {
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
					if _, err := nc.Write([]byte(head[j : j+1])); err != nil {
						return
					}
				}
			}()
		case 1:
			io.WriteString(nc, head[:len(head)/2])
		case 2: // nothing at all
		case 3:
			nc.Write(upgrade[:len(upgrade)-2])
		}
	}
	for range posts {
		nc := burden(t, addr)
		untilEnd(nc, &posting)
		fmt.Fprintf(nc, "POST /logs HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n\r\n", addr)
	}
	for range mute {
		burden(t, addr).Write(upgrade)
	}
	all := halfOpen + mute + posts
	eventually(t, "all burdens are there, or some have gone already", func() bool { return p.descriptors() >= before+all || time.Since(began) > headerTimeout })
	most := p.resident(t)
	stopSampling := sample(func() { most = max(most, p.resident(t)) })

	besides := bestOf(t, p.url)
	if time.Since(began) > headerTimeout {
		t.Log("the machine is too busy: some burdens have gone already")
	}
	feed(t, path, 2000) // the mute ones do not read it
	eventually(t, "the half-open ones are gone", func() bool { return opening.Load() == 0 && p.descriptors() <= before+mute+posts })
	gone := time.Since(began)
	t.Logf("%d burdens; first event after %.1f ms besides them, %.1f ms alone; half-open ones gone after %.1f s (ReadHeaderTimeout %v)",
		all, ms(besides), ms(alone), gone.Seconds(), headerTimeout)
	eventually(t, "the bodies are no longer waited for", func() bool { return posting.Load() == 0 })
	t.Logf("POSTs without their body gone after %.1f s", time.Since(began).Seconds())
	eventually(t, "the mute ones are gone", func() bool { return p.descriptors() <= before })
	t.Logf("mute WebSockets gone after %.1f s", time.Since(began).Seconds())
	stopSampling()
	t.Logf("memory of the process: %.1f MiB before, %.1f MiB at most, %.1f KiB for each burden",
		float64(base)/(1<<20), float64(most)/(1<<20), float64(most-base)/1024/float64(all))
	if besides > atOnce {
		t.Errorf("a viewer has to wait for %v", besides)
	}
	if most-base > memory {
		t.Errorf("the process has grown by %d bytes", most-base)
	}
	if gone > 2*headerTimeout {
		t.Errorf("the half-open ones were there for %v", gone)
	}
	p.stop(t)
}

// TestExamplesBoundTheirRequests: a program that is copied from should set what bounds a request that never comes.
func TestExamplesBoundTheirRequests(t *testing.T) {
	files, err := filepath.Glob("../examples/*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	servers := 0
	for _, path := range files {
		code, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := strings.Count(string(code), "http.Server{")
		servers += n
		for _, field := range []string{"ReadHeaderTimeout:", "ReadTimeout:"} {
			if got := strings.Count(string(code), field); !strings.HasSuffix(path, "_test.go") && got != n {
				t.Errorf("%s: %d times http.Server, %d times %s", path, n, got, field)
			}
		}
		if strings.Contains(string(code), "http.ListenAndServe") {
			t.Errorf("%s: http.ListenAndServe bounds nothing", path)
		}
	}
	t.Logf("%d servers", servers)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// burden connects, and stays until the end of the test.
func burden(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	return nc
}

// untilEnd counts a connection until the other side has closed it.
func untilEnd(nc net.Conn, count *atomic.Int64) {
	count.Add(1)
	go func() {
		io.Copy(io.Discard, nc)
		count.Add(-1)
	}()
}

// feed writes lines.
func feed(t *testing.T, path string, n int) {
	t.Helper()
	var lines []byte
	for seq := range n {
		lines = appendLine(lines, "a", 0, seq+1, 200)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(lines); err != nil {
		t.Fatal(err)
	}
}

// bestOf is how long a new viewer takes from its connect to its first event, at best.
func bestOf(t *testing.T, url string) time.Duration {
	t.Helper()
	best := time.Hour
	for range 20 {
		d, err := firstEvent(url)
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, d)
	}
	return best
}

func firstEvent(url string) (time.Duration, error) {
	began := time.Now()
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/logs")
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(nc, "GET /logs?tail=1 HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", addr)
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		return 0, err
	}
	s := &sse{br: bufio.NewReader(resp.Body)}
	_, _, err = s.event()
	return time.Since(began), err
}

// descriptors is how many the process has open, 0 where nobody can tell.
func (p *logtailProcess) descriptors() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	return len(entries)
}

// resident is how many bytes of memory the process has.
func (p *logtailProcess) resident(t *testing.T) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest + " ?")[0], 10, 64)
	if err != nil {
		t.Error(err)
	}
	return kib << 10
}
