package itest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// A burst is 100 viewers that want all of a file at once.
type burst struct {
	past    bool // the file was there before: they come back to its beginning. Else it is news
	options []tailcast.Option

	cpu    time.Duration // of the hub's process
	took   time.Duration
	read   float64 // bytes that the hub's process has read, as a multiple of the file
	memory int64   // the most that the hub accounted for
}

const burstViewers = 100

// run lets a process of viewers read a file of that size.
func (b *burst) run(tb testing.TB, megabytes int) {
	path := filepath.Join(tb.TempDir(), "app.log")
	size := writeLines(tb, path, megabytes<<20)
	hub := tailcast.New(b.options...)
	server := httptest.NewServer(hub)
	defer server.Close()
	tail := &tailcast.Tail{Path: path}
	query := "/?since=earliest"
	if !b.past {
		tail.Start, query = tailcast.FromStart, "/?tail=0"
	}
	ctx, cancel := context.WithCancel(tb.Context())
	ran := make(chan error, 1)
	begin := func() { go func() { ran <- hub.Run(ctx, tail) }() }
	if b.past {
		begin()
		time.Sleep(200 * time.Millisecond)
	}

	var most atomic.Int64
	stopSampling := sample(func() { most.Store(max(most.Load(), hub.Stats().Memory)) })
	cpu, read, began := cpuTime(tb), bytesRead(tb), time.Now()
	viewers := exec.Command(os.Args[0])
	viewers.Env = append(os.Environ(), fmt.Sprintf("ITEST_VIEWERS=%s %s %s", strings.TrimPrefix(server.URL, "http://"), query, path))
	viewers.Stderr = os.Stderr
	said, err := viewers.StdoutPipe()
	if err == nil {
		err = viewers.Start()
	}
	if err != nil {
		tb.Fatal(err)
	}
	lines := bufio.NewScanner(said)
	if !lines.Scan() || lines.Text() != "connected" {
		tb.Fatalf("the viewers say %q", lines.Text())
	}
	if !b.past {
		begin()
	}
	lines.Scan() // "done"; what they have read counts as ours once they have ended
	b.cpu, b.took = cpuTime(tb)-cpu, time.Since(began)
	b.read = float64(bytesRead(tb)-read) / float64(size)
	if err := viewers.Wait(); err != nil {
		tb.Fatalf("the viewers: %v", err)
	}
	stopSampling()
	b.memory = most.Load()
	cancel()
	if err := <-ran; err != nil {
		tb.Error(err)
	}
	if err := hub.Close(); err != nil {
		tb.Error(err)
	}
}

// writeLines makes a file of lines of 128 bytes.
func writeLines(tb testing.TB, path string, size int) int {
	var data []byte
	for seq := 1; len(data) < size; seq++ {
		data = appendLine(data, "a", 0, seq, 127)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	return len(data)
}

// viewersMain is the process of viewers: each compares what it gets with the file, byte for byte.
func viewersMain() int {
	var addr, query, path string
	if _, err := fmt.Sscan(os.Getenv("ITEST_VIEWERS"), &addr, &query, &path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	want, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	results := make(chan error, burstViewers)
	for range burstViewers {
		body, err := openText(addr, query)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		go func() { results <- compare(body, want) }()
	}
	fmt.Println("connected")
	code := 0
	for range burstViewers {
		if err := <-results; err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	fmt.Println("done")
	return code
}

func openText(addr, query string) (io.Reader, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", query, addr); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 64<<10), nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func compare(r io.Reader, want []byte) error {
	buf := make([]byte, 64<<10)
	for at := 0; at < len(want); {
		n, err := r.Read(buf)
		if at+n > len(want) || !bytes.Equal(buf[:n], want[at:at+n]) {
			return fmt.Errorf("at byte %d comes something else than what is in the file", at)
		}
		if at += n; err != nil && at < len(want) {
			return fmt.Errorf("after byte %d of %d: %w", at, len(want), err)
		}
	}
	return nil
}

func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bytesRead is what this process has read so far, mostly of files: its peers say nothing.
func bytesRead(tb testing.TB) int64 {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		tb.Fatal(err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	n, err := strconv.ParseInt(strings.TrimPrefix(first, "rchar: "), 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// unlimited keeps everything in memory: what a burst is compared with.
func unlimited() []tailcast.Option {
	return []tailcast.Option{tailcast.WithRetention(tailcast.Retention{}), tailcast.WithMemoryLimit(0)}
}

// TestBurst: with the default retention, 100 viewers of a burst, or of a file that was there before, get each byte; and in the
// soak, where the file is large and nothing else runs, they read it less than three times, all of them together, and cost at most
// three times the CPU of a hub that keeps everything in memory.
func TestBurst(t *testing.T) {
	megabytes := setting(t, "ITEST_BURST_MB", 10, 256)
	measured := megabytes >= 128
	base := burst{options: unlimited()}
	if measured {
		base.run(t, megabytes)
		t.Logf("unlimited retention: %.2f s of CPU, %.1f s, %.2f times the file read", base.cpu.Seconds(), base.took.Seconds(), base.read)
	}
	for name, b := range map[string]*burst{"burst": {}, "past": {past: true}} {
		b.run(t, megabytes)
		ratio := b.cpu.Seconds() / base.cpu.Seconds()
		t.Logf("%s: %.2f s of CPU; %.1f s; %.2f times the file of %d MB read; memory at most %.1f MiB",
			name, b.cpu.Seconds(), b.took.Seconds(), b.read, megabytes, float64(b.memory)/(1<<20))
		if measured {
			t.Logf("%s: %.2f times the CPU of unlimited retention", name, ratio)
			if b.read > 3 || ratio > 3 {
				t.Errorf("%s: the file is read %.2f times, for %.2f times the CPU", name, b.read, ratio)
			}
		}
		if b.memory > 256<<20 {
			t.Errorf("%s: %d bytes of memory", name, b.memory)
		}
	}
}

func BenchmarkBurst(b *testing.B) {
	const megabytes = 32
	for name, make := range map[string]func() *burst{
		"unlimited": func() *burst { return &burst{options: unlimited()} },
		"burst":     func() *burst { return &burst{} },
		"past":      func() *burst { return &burst{past: true} },
	} {
		b.Run(name, func(b *testing.B) {
			var cpu time.Duration
			var read float64
			for b.Loop() {
				one := make()
				one.run(b, megabytes)
				cpu += one.cpu
				read += one.read
			}
			b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
			b.ReportMetric(read/float64(b.N), "files-read/op")
			b.SetBytes(burstViewers * megabytes << 20)
		})
	}
}
