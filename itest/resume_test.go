package itest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// A reader is a client that comes back with the id of the last event it saw whenever its connection ends.
type reader struct {
	*account
	kind  string // sse, which is also the default, ndjson, or tailcast.v1
	url   string
	id    string
	seq   atomic.Int64 // of the newest line of writer a
	slack atomic.Int64 // how many lines the writer may be ahead of it; while it reads, that falls to least, by one for two lines
	least int64
}

// read reads n lines, or until until says so, and breaks the connection.
func (r *reader) read(n int, until func(seq int) bool) error {
	url := r.url
	if r.id == "" {
		url = since(url, "earliest")
	}
	stream, err := r.open(url)
	if err != nil {
		return err
	}
	defer stream.close()
	watchdog := time.AfterFunc(patience, stream.close)
	defer watchdog.Stop()
	for i := 0; ; i++ {
		name, data, err := stream.event()
		r.id = stream.last()
		if err != nil {
			return err
		}
		watchdog.Reset(patience)
		if name != "" {
			data = fmt.Appendf(nil, "# %s %s", name, data)
		}
		if seq := r.line(data); seq > int(r.seq.Load()) && data[0] == 'a' {
			r.seq.Store(int64(seq))
		}
		if i%2 == 0 && r.slack.Load() > r.least { // so that it catches up, however slow it is
			r.slack.Add(-1)
		}
		if seq := int(r.seq.Load()); i >= n && until(seq) {
			return nil
		}
	}
}

func (r *reader) open(url string) (interface {
	event() (name string, data []byte, err error)
	last() string
	close()
}, error) {
	switch r.kind {
	case "ndjson":
		return openNDJSON(url, r.id)
	case "tailcast.v1":
		return openV1(url, r.id)
	}
	return openSSE(url, r.id)
}

// TestReconnects: viewers of a stream at full speed break off at random and come back with the last id: event streams, of one topic and
// of three, NDJSON and envelopes. Every third time they come so late that only the file still has what they missed. The files are
// rotated meanwhile.
func TestReconnects(t *testing.T) {
	const (
		keep  = 1_000 // lines of each topic in memory
		chunk = 300   // lines read in a connection, at most
	)
	kinds := []string{"sse", "ndjson", "tailcast.v1", "sse of three"}
	reconnects := setting(t, "ITEST_RECONNECTS", 100, 10_000)
	s := newSites(t, tailcast.WithRetention(tailcast.Retention{Messages: keep}),
		tailcast.WithLimits(tailcast.Limits{ReplayBytes: -1})) // who is done with its reconnects waits for the others, and has more than 1 GiB to read then
	readers := make([]*reader, len(kinds))
	for i, kind := range kinds {
		readers[i] = &reader{account: newAccount(kind), url: s.url + "/?topic=a.log", kind: kind}
		if kind == "sse of three" {
			readers[i].url += "&topic=b.log&topic=c.log"
		}
		readers[i].least = keep / 4
		readers[i].slack.Store(keep / 4)
	}
	dir := filepath.Dir(s.path)
	w := &writer{Name: "a", Path: s.path, Width: 120}
	// The stream is as fast as its slowest viewer takes it, but for those that stay away on purpose: otherwise all of them
	// would soon be in the file for good.
	w.hold = func(seq int) bool {
		for _, r := range readers {
			if seq-int(r.seq.Load()) > int(r.slack.Load()) {
				return false
			}
		}
		return true
	}
	writers := []*writer{w, {Name: "b", Path: dir + "/b.log", Rate: 1000, Width: 120}, {Name: "c", Path: dir + "/c.log", Rate: 1000, Width: 120}}
	var stops []func()
	for _, w := range writers {
		stops = append(stops, rotateEvery(t, w.start(), 20_000))
	}

	var wg sync.WaitGroup
	var fromMemory, fromFile, catchUps atomic.Int64
	stopSampling := sample(func() { catchUps.Store(max(catchUps.Load(), s.hub.Stats().CatchUps)) })
	began := time.Now()
	for i, r := range readers {
		rng := rand.New(rand.NewPCG(7, uint64(i)))
		behind := func() int64 { return w.seq.Load() - r.seq.Load() }
		wg.Go(func() {
			for n := range reconnects / len(readers) {
				caughtUp := func(int) bool { return behind() < keep/2 }
				if err := r.read(1+rng.IntN(chunk), caughtUp); err != nil {
					t.Errorf("%s, connection %d: %v", r.name, n, err)
					r.slack.Store(1 << 40)
					return
				}
				if n%3 == 0 { // stays away until the hub's memory has lost its place
					r.slack.Store(4 * keep)
					eventually(t, "the stream goes on", func() bool { return behind() > 2*keep })
				} else {
					r.slack.Store(r.least)
				}
				if behind() > keep {
					fromFile.Add(1)
				} else {
					fromMemory.Add(1)
				}
			}
			r.slack.Store(1 << 40)
		})
	}
	wg.Wait()
	stopSampling()
	written := make(map[string]int)
	rotations, total := 0, 0
	for i, w := range writers {
		stops[i]()
		if err := w.order("stop"); err != nil {
			t.Fatal(err)
		}
		written[w.Name] = int(w.seq.Load())
		rotations += w.gen
		total += written[w.Name]
	}
	t.Logf("%d reconnects, %d to memory and %d to the file; %d rotations, %.0f lines/s",
		fromMemory.Load()+fromFile.Load(), fromMemory.Load(), fromFile.Load(), rotations, float64(total)/time.Since(began).Seconds())
	if least := int64(reconnects / 4); fromFile.Load() < least || fromMemory.Load() < least || catchUps.Load() == 0 {
		t.Errorf("the mix is not what it should be: at most %d viewers were in the file at once", catchUps.Load())
	}
	for _, r := range readers {
		own := map[string]int{"a": written["a"]}
		all := written["a"]
		if r.kind == "sse of three" {
			own, all = written, total
		}
		if err := r.read(0, func(int) bool { return r.got() >= all }); err != nil && r.got() < all {
			t.Errorf("%s, at the end: %v", r.name, err)
		}
		r.check(t, own)
	}
}

// rotateEvery rotates the writer's file every n lines, until stop is called.
func rotateEvery(t *testing.T, w *writer, n int) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for next := n; ; {
			select {
			case <-quit:
				return
			case <-time.After(time.Millisecond):
			}
			if int(w.seq.Load()) < next {
				continue
			}
			rotate(t, w.Path)
			if err := w.order("reopen"); err != nil {
				t.Error(err)
				return
			}
			next = int(w.seq.Load()) + n
		}
	}()
	return func() { close(quit); <-done }
}

// TestKillAndResume: logtail is killed and comes back on the same port. Meanwhile lines are written, and the file is rotated three
// times; the first of the rotated ones, where the viewers have their place, is compressed. An event stream and a WebSocket with
// envelopes go on with their last ids, and get each line once, in order.
func TestKillAndResume(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"-from-start"}} {
		t.Run(fmt.Sprintf("logtail %v", args), func(t *testing.T) { killAndResume(t, args) })
	}
}

func killAndResume(t *testing.T, args []string) {
	kills := setting(t, "ITEST_KILLS", 2, 10)
	path := t.TempDir() + "/app.log"
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-addr", freeAddr(t)}, append(args, path)...)
	server := startLogtail(t, args...)
	rate := lineRate(t)
	w := (&writer{Name: "a", Path: path, Rate: rate, Width: 120}).start()
	readers := []*reader{
		{account: newAccount("event stream"), url: server.url, kind: "sse"},
		{account: newAccount("envelopes"), url: server.url, kind: "tailcast.v1"},
	}
	var wg sync.WaitGroup
	over := func(seq int) bool { last := int(w.limit.Load()); return last > 0 && seq >= last }
	for _, r := range readers {
		wg.Go(func() {
			resumed := 0
			for deadline := time.Now(); !over(int(r.seq.Load())); {
				before := r.got()
				r.read(0, over) // what ends it is the kill
				if r.got() > before {
					resumed++
					deadline = time.Now().Add(patience)
				}
				if time.Now().After(deadline) && resumed > 0 {
					t.Errorf("%s: it has stopped at line %d", r.name, r.seq.Load())
					return
				}
				time.Sleep(20 * time.Millisecond) // between two attempts
			}
			t.Logf("%s: %d connections", r.name, resumed)
			if resumed != kills+1 {
				t.Errorf("%s: %d connections, %d kills", r.name, resumed, kills)
			}
		})
	}
	more := func() {
		t.Helper()
		for _, r := range readers {
			from := r.seq.Load()
			eventually(t, "the viewers get lines", func() bool { return r.seq.Load() > from+int64(rate/2) })
		}
	}
	written := func() {
		t.Helper()
		from := w.seq.Load()
		eventually(t, "lines are written", func() bool { return w.seq.Load() > from+int64(rate/10) })
	}
	for range kills {
		more()
		server.kill(t)
		for i := range 3 {
			written()
			rotate(t, path)
			if err := w.order("reopen"); err != nil {
				t.Fatal(err)
			}
			if i == 1 { // as with logrotate's delaycompress
				compress(t, path+".2")
			}
		}
		written()
		server = startLogtail(t, args...)
	}
	more()
	w.limit.Store(w.seq.Load() + int64(rate/2))
	wg.Wait()
	if err := w.order("stop"); err != nil {
		t.Fatal(err)
	}
	server.stop(t)
	t.Logf("%d kills, %d lines", kills, w.seq.Load())
	for _, r := range readers {
		r.check(t, map[string]int{"a": int(w.seq.Load())})
	}
}

// compress does to a file what gzip does.
func compress(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	zw.ModTime = info.ModTime()
	zw.Write(data)
	zw.Close()
	if err := os.WriteFile(path+".gz", packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path+".gz", time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
