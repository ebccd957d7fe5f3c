package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// cpu is what the process has used.
func cpu() (user, system time.Duration) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // it has no reason to
	}
	return time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
}

// rss is the process's memory, now and at most, in bytes.
func rss() (now, peak int64, err error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0, err
	}
	if now, err = statusField(b, "VmRSS:"); err == nil {
		peak, err = statusField(b, "VmHWM:")
	}
	return now, peak, err
}

func statusField(status []byte, name string) (int64, error) {
	_, after, ok := bytes.Cut(status, []byte("\n"+name))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	fields := bytes.Fields(line)
	if !ok || len(fields) != 2 {
		return 0, fmt.Errorf("/proc/self/status: no %s", name)
	}
	n, err := strconv.ParseInt(string(fields[0]), 10, 64)
	return n << 10, err
}

// forgetPeak lets the most begin anew.
func forgetPeak() error { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// A memory is what a process has, garbage apart.
type memory struct {
	rss, inuse int64
	goroutines int
}

func measureMemory() (memory, error) {
	for range 2 { // what finalizers and pools let go of takes two
		runtime.GC()
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	now, _, err := rss()
	return memory{now, int64(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()}, err
}

// since is what each of n connections has added.
func (m memory) since(before memory, n int) *idleCost {
	per := func(a, b int64) float64 { return float64(a-b) / float64(n) }
	goroutines := per(int64(m.goroutines), int64(before.goroutines))
	return &idleCost{per(m.rss, before.rss), per(m.inuse, before.inuse), math.Round(100*goroutines) / 100} // a few are not for one connection
}

// fileLimit is how many files the process may open, but no more than is ever needed.
func fileLimit() (int, error) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return int(min(l.Cur, 1<<20)), err
}

// raiseFileLimit lets the process, and those that it starts, open as many files as it may.
func raiseFileLimit() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}
