package main

//lint:file-ignore SA1019 Its authors go on with the library under another path; CONTRIBUTING says why it stays here.

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nhooyr.io/websocket"
)

func open(t *testing.T, o *office) *websocket.Conn {
	t.Helper()
	srv := httptest.NewServer(o.hub)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	conn, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.CloseNow()
		cancel()
		srv.Close()
	})
	return conn
}

func TestEachJobHasItsResult(t *testing.T) {
	o := newOffice(1, 3, strings.ToUpper)
	conn := open(t, o)
	go func() {
		for i := range 1000 {
			if err := conn.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, "job %d", i)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for i := range 1000 {
		if _, data, err := conn.Read(t.Context()); string(data) != fmt.Sprint("JOB ", i) || err != nil {
			t.Fatalf("result %d is %q, %v", i, data, err)
		}
	}
	conn.CloseNow() // a client that is there would have to answer the goodbye
	if err := o.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// While the workers do nothing, a client gets rid of what the queue and the socket hold, and then waits; all of it is done later.
func TestAFullQueueHoldsItsClientsBack(t *testing.T) {
	begin := make(chan struct{})
	o := newOffice(1, 3, func(text string) string { <-begin; return text[:10] })
	conn := open(t, o)
	const jobs = 1000
	job := strings.Repeat("x", 32<<10) // 32 MiB in all
	var sent atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range jobs {
			if err := conn.Write(context.Background(), websocket.MessageText, []byte(job)); err != nil {
				t.Error(err)
				return
			}
			sent.Add(1)
		}
	}()
	for before := int64(-1); sent.Load() != before; time.Sleep(200 * time.Millisecond) { // until it stands still
		before = sent.Load()
	}
	if n := sent.Load(); n == jobs {
		t.Error("nothing held the client back")
	} else {
		t.Logf("the client waits after %d of %d jobs", n, jobs)
	}
	close(begin)
	for range jobs {
		if _, _, err := conn.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	conn.CloseNow() // a client that is there would have to answer the goodbye
	if err := o.close(t.Context()); err != nil {
		t.Error(err)
	}
}
