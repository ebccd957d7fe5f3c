package tailcast_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

const idleClients = "TAILCAST_TEST_IDLE" // "ADDRESS COUNT": be a process of idle clients

// TestIdleClients is the other process of BenchmarkIdle.
func TestIdleClients(t *testing.T) {
	var addr string
	var count int
	if _, err := fmt.Sscan(os.Getenv(idleClients), &addr, &count); err != nil {
		t.Skip("this is a part of BenchmarkIdle")
	}
	held := make([]*testnet.WS, count) // the collector closes what nobody holds
	for i := range held {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			held[i], _, err = testnet.NewWS(nc, addr, "/", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(held)
}

// BenchmarkIdle reports what a WebSocket costs over which nothing goes, in memory of the process (where the system tells), and in what
// of it Go's heap and stacks are. Time means nothing here. With -short there are so few connections that the figures mean little too.
func BenchmarkIdle(b *testing.B) {
	conns := 5000
	if testing.Short() {
		conns = 100
	}
	for _, detach := range []bool{false, true} {
		name, opts := "default", []tailcast.Option(nil)
		if detach {
			name, opts = "WithDetach", []tailcast.Option{tailcast.WithDetach()}
		}
		b.Run(name, func(b *testing.B) {
			for range b.N {
				measureIdle(b, conns, opts...)
			}
		})
	}
}

func measureIdle(b *testing.B, conns int, opts ...tailcast.Option) {
	hub := tailcast.New(opts...)
	defer hub.Close()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	before := usedMemory()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestIdleClients$")
	cmd.Env = append(os.Environ(), fmt.Sprint(idleClients, "=", srv.Listener.Addr(), " ", conns))
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		b.Fatal(line, err)
	}
	eventually(b, "all connections", func() bool { return hub.Stats().Connections["websocket"] == conns })
	time.Sleep(200 * time.Millisecond) // for net/http's goroutines to end
	after := usedMemory()
	if n := hub.Stats().Connections["websocket"]; n != conns {
		b.Fatalf("%d of %d connections have ended: the figures would mean nothing", conns-n, conns)
	}
	each := func(what func(m *memory) int64) float64 { return float64(what(after)-what(before)) / float64(conns) }
	if after.rss > 0 {
		b.ReportMetric(each(func(m *memory) int64 { return m.rss }), "rss-B/conn")
	}
	b.ReportMetric(each(func(m *memory) int64 { return m.heap }), "heap-B/conn")
	b.ReportMetric(each(func(m *memory) int64 { return m.stacks }), "stack-B/conn")
	b.ReportMetric(each(func(m *memory) int64 { return m.goroutines }), "goroutines/conn")
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		b.Error(err)
	}
}

// memory is what the process uses of it.
type memory struct{ rss, heap, stacks, goroutines int64 }

func usedMemory() *memory {
	for range 2 { // what pools hold goes with the second collection
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	used := &memory{heap: int64(m.HeapAlloc), stacks: int64(m.StackInuse), goroutines: int64(runtime.NumGoroutine())}
	status, _ := os.ReadFile("/proc/self/status")
	if _, rest, ok := strings.Cut(string(status), "VmRSS:"); ok {
		fmt.Sscan(rest, &used.rss)
		used.rss <<= 10 // it is told in KiB
	}
	return used
}
