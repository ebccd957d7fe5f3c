package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nxadm/tail"
	"github.com/tailcast/tailcast"
)

const lineSize = 100 // bytes, with its end

// quietConfig is that of the README of nxadm/tail, but it does not log.
func quietConfig() tail.Config {
	return tail.Config{Follow: true, ReOpen: true, Logger: tail.DiscardingLogger}
}

// makeLines writes a file of n lines, which is in the page cache then.
func makeLines(path string, n int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range n {
		w.Write(lineText("a", 0, i, lineSize-1))
		w.WriteByte('\n')
	}
	return errors.Join(w.Flush(), f.Close())
}

// A way reads a file of n lines from its start, until it has all of them, and takes so long.
type way struct {
	name string
	read func(path string, n int) (time.Duration, error)
}

var ways = []way{
	{"tailcast", readTailcast},
	{"nxadm", readNxadm},
	{"bare loop", readBare},
}

func readTailcast(path string, n int) (time.Duration, error) {
	t := tailcast.NewTail(path)
	t.Start = tailcast.FromStart
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	began, left := time.Now(), n
	var took time.Duration
	err := t.Run(ctx, tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		if left -= len(msgs); left <= 0 {
			took = time.Since(began)
			cancel()
		}
		return nil
	}))
	if left != 0 {
		return 0, fmt.Errorf("tailcast: %d lines left: %w", left, err)
	}
	return took, nil
}

func readNxadm(path string, n int) (time.Duration, error) {
	began := time.Now()
	t, err := tail.TailFile(path, quietConfig())
	if err != nil {
		return 0, err
	}
	defer t.Cleanup()
	left := n
	for range t.Lines {
		if left--; left == 0 {
			break
		}
	}
	took := time.Since(began)
	t.Kill(nil)
	for range t.Lines {
	}
	if left != 0 {
		return 0, fmt.Errorf("nxadm/tail: %d lines left: %w", left, t.Err())
	}
	return took, t.Wait()
}

// readBare is the limit: blocks of 256 KiB, and IndexByte for each line.
func readBare(path string, n int) (time.Duration, error) {
	began := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf, got := make([]byte, 256<<10), 0
	for {
		m, err := f.Read(buf)
		for rest := buf[:m]; ; got++ {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			rest = rest[i+1:]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if got != n {
		return 0, fmt.Errorf("bare loop: %d lines, not %d", got, n)
	}
	return time.Since(began), nil
}

// A rate is what one round of a way has done, in lines.
type rate struct{ perSecond, perCPU float64 }

// throughput reads the same file in all ways, round after round.
func throughput(dir string, lines, rounds int) (map[string][]rate, error) {
	path := filepath.Join(dir, "speed.log")
	defer os.Remove(path)
	if err := makeLines(path, lines); err != nil {
		return nil, err
	}
	rates := make(map[string][]rate)
	for range rounds {
		for _, w := range ways {
			began := cpuTime()
			took, err := w.read(path, lines)
			if err != nil {
				return nil, err
			}
			cpu := cpuTime() - began
			rates[w.name] = append(rates[w.name], rate{float64(lines) / took.Seconds(), float64(lines) / cpu.Seconds()})
		}
	}
	return rates, nil
}

func perSecond(rates []rate) []float64 {
	var v []float64
	for _, r := range rates {
		v = append(v, r.perSecond)
	}
	return v
}

func perCPU(rates []rate) []float64 {
	var v []float64
	for _, r := range rates {
		v = append(v, r.perCPU)
	}
	return v
}

// cpuTime is what this process has used so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// latencies appends lines at a rate, each with the time at which it was written, and returns how long each took to be
// delivered, sorted. Lines that do not arrive whole have none.
func latencies(dir, follower string, rate int, d time.Duration) (took []time.Duration, err error) {
	path := filepath.Join(dir, "latency.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	defer f.Close()
	var (
		base = time.Now()
		n    = int(d.Seconds() * float64(rate))
		all  = make(chan struct{})
		mu   sync.Mutex
	)
	took = make([]time.Duration, 0, n)
	arrived := func(line []byte) {
		now := time.Since(base)
		at, err := strconv.ParseInt(string(bytes.TrimLeft(line, " ")), 10, 64)
		if err != nil || len(line) != lineSize-1 {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if took = append(took, now-time.Duration(at)); len(took) == n {
			close(all)
		}
	}
	switch follower {
	case "tailcast":
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		defer func() { cancel(); <-ended }()
		go func() {
			defer close(ended)
			tailcast.NewTail(path).Run(ctx, tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
				for _, m := range msgs {
					arrived(m.Data)
				}
				return nil
			}))
		}()
	case "nxadm":
		t, err := tail.TailFile(path, quietConfig())
		if err != nil {
			return nil, err
		}
		defer t.Cleanup()
		defer t.Stop()
		go func() {
			for line := range t.Lines {
				arrived([]byte(line.Text))
			}
		}()
	}
	time.Sleep(500 * time.Millisecond)
	begin, step := time.Now(), time.Second/time.Duration(rate)
	for i := range n {
		time.Sleep(time.Until(begin.Add(time.Duration(i) * step)))
		if _, err := fmt.Fprintf(f, "%*d\n", lineSize-1, time.Since(base)); err != nil {
			return nil, err
		}
	}
	select {
	case <-all:
	case <-time.After(2 * time.Second):
	}
	mu.Lock()
	defer mu.Unlock()
	took = slices.Sorted(slices.Values(took))
	if len(took) == 0 {
		return nil, fmt.Errorf("%s: no line of %d arrives", follower, n)
	}
	return took, nil
}

// An idleness is what it costs to follow files in which nothing happens.
type idleness struct {
	CPU      float64 // seconds per second
	Notified int     // files of whose changes the system tells; -1 = unknown
	RSS      int64   // bytes
}

const (
	idleFiles  = 1000
	idleBefore = 15 * time.Second // until all are followed, and nothing has happened for a while
)

// idle measures a process of its own that follows quiet files, all of one directory.
func idle(dir, follower string, d time.Duration) (idleness, error) {
	dir = filepath.Join(dir, "idle-"+follower)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return idleness{}, err
	}
	defer os.RemoveAll(dir)
	for i := range idleFiles {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.log", i)), []byte("a line\n"), 0o644); err != nil {
			return idleness{}, err
		}
	}
	cmd := exec.Command(self(), "child", "idle-"+follower, dir)
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		return idleness{}, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	time.Sleep(idleBefore)
	r := bufio.NewReader(out)
	ask := func() (cpu time.Duration, s idleness, err error) {
		if _, err := fmt.Fprintln(in, "count"); err != nil {
			return 0, s, err
		}
		var ns int64
		_, err = fmt.Fscan(r, &ns, &s.Notified, &s.RSS)
		return time.Duration(ns), s, err
	}
	before, _, errBefore := ask()
	began := time.Now()
	time.Sleep(d)
	after, s, err := ask()
	s.CPU = (after - before).Seconds() / time.Since(began).Seconds()
	return s, errors.Join(errBefore, err)
}

// idleMain is the other side of idle.
func idleMain(what string, orders <-chan string, dir string) {
	notified := func() int { return -1 }
	paths, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	switch strings.TrimPrefix(what, "idle-") {
	case "tailcast":
		hub := tailcast.New()
		var sources []tailcast.Source
		for _, path := range paths {
			t := tailcast.NewTail(path)
			t.Topic = filepath.Base(path)
			sources = append(sources, t)
		}
		go hub.Run(context.Background(), sources...)
		notified = func() (n int) {
			for _, s := range hub.Stats().Sources {
				if detail, ok := s.Detail.(tailcast.TailStats); ok && detail.Notified {
					n++
				}
			}
			return n
		}
	case "nxadm":
		var lines atomic.Int64
		for _, path := range paths {
			t, err := tail.TailFile(path, quietConfig())
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			go func() {
				for range t.Lines {
					lines.Add(1)
				}
			}()
		}
	}
	for range orders {
		fmt.Println(cpuTime().Nanoseconds(), notified(), resident())
	}
}

// resident is how much memory this process has. Maxrss of getrusage would be its parent's, if that one is larger.
func resident() int64 {
	var size, pages int64
	fmt.Sscan(firstLine("/proc/self/statm"), &size, &pages)
	return pages * int64(os.Getpagesize())
}
