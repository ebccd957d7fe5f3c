// Queue puts queues between the sockets and the program. What clients send goes into one bounded queue, from which workers take it; when it is
// full, the sockets wait, and their clients with them. What the program sends goes into a bounded queue of each connection.
//
//	go run ./examples/queue
//	websocat ws://127.0.0.1:8080/jobs      and type: each line is a job, and its result comes back
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tailcast/tailcast"
)

// A job is a message, and whose it is.
type job struct {
	conn *tailcast.Conn
	text string
}

// An office does jobs.
type office struct {
	hub  *tailcast.Hub
	jobs chan job
	work func(text string) string
	wg   sync.WaitGroup
}

func newOffice(workers, queue int, work func(string) string) *office {
	o := &office{jobs: make(chan job, queue), work: work}
	o.hub = tailcast.New(tailcast.WithAfterRead(o.take), tailcast.WithLimits(tailcast.Limits{MessageRate: -1}))
	for range workers {
		o.wg.Go(o.serve)
	}
	return o
}

// take waits where the queue is full. Meanwhile nothing more is read from this client: its socket fills, and it has to wait. It is not
// taken for dead, and nobody else is held up.
func (o *office) take(c *tailcast.Conn, in tailcast.Inbound) error {
	select {
	case o.jobs <- job{c, string(in.Data)}: // Data is lent: string copies it
		return nil
	case <-c.Context().Done():
		return context.Cause(c.Context())
	}
}

func (o *office) serve() {
	for j := range o.jobs {
		if j.conn.Context().Err() != nil {
			continue // nobody waits for it any more
		}
		err := j.conn.Send(tailcast.Message{Data: []byte(o.work(j.text))})
		if errors.Is(err, tailcast.ErrQueueFull) { // it sends jobs and does not read the results
			j.conn.Close(&tailcast.CloseError{Code: 1013, Reason: "read your results"})
		}
	}
}

// close ends the connections, and then the workers.
func (o *office) close(ctx context.Context) error {
	err := o.hub.Shutdown(ctx)
	close(o.jobs) // all hooks have returned
	o.wg.Wait()
	return err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := newOffice(4, 100, func(text string) string {
		time.Sleep(100 * time.Millisecond) // hard work
		return strings.ToUpper(text)
	})
	http.Handle("GET /jobs", o.hub)
	srv := &http.Server{Addr: "127.0.0.1:8080", ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	log.Print("ws://", srv.Addr, "/jobs")
	err := srv.ListenAndServe()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := errors.Join(o.close(ctx), err); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
