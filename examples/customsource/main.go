// Customsource has two Sources of its own: a Ticker, as small as a Source can be, and a Journal, which can also read its past,
// so that viewers get what the hub no longer has in memory.
//
//	go run ./examples/customsource
//	curl -N http://127.0.0.1:8080/time
//	curl -N 'http://127.0.0.1:8080/journal?since=earliest'
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/tailcast/tailcast"
)

// A Ticker publishes the time to the default topic, as often as it says.
type Ticker time.Duration

func (t Ticker) Run(ctx context.Context, pub tailcast.Publisher) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-time.After(time.Duration(t)):
			if err := pub.Publish(ctx, tailcast.Message{Data: now.AppendFormat(nil, time.RFC3339)}); err != nil {
				return err
			}
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	journal := NewJournal("journal")
	for n := range 1000 {
		journal.Append(fmt.Sprintf("entry %d, written before anybody came", n+1))
	}
	// The hub keeps only ten messages: whoever wants more gets it from Journal.Replay.
	hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 10}))
	http.Handle("GET /time", hub)
	http.Handle("GET /journal", hub.Handler("journal"))
	srv := &http.Server{Addr: "127.0.0.1:8080", ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	go func() { log.Fatal(srv.ListenAndServe()) }()
	go func() {
		for now := range time.Tick(2 * time.Second) {
			journal.Append("written at " + now.Format(time.TimeOnly))
		}
	}()
	if err := hub.Run(ctx, Ticker(time.Second), journal); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := hub.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
