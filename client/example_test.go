package client_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
)

func ExampleFollow() {
	hub := tailcast.New()
	defer hub.Close()
	srv := httptest.NewServer(hub)
	ctx := context.Background()
	if err := hub.Publish(ctx, tailcast.Message{Data: []byte("one")}, tailcast.Message{Data: []byte("two")}); err != nil {
		log.Fatal(err)
	}

	for msg, err := range client.Follow(ctx, srv.URL, client.WithTail(2)) {
		if err != nil {
			log.Fatal(err) // ctx is over, or the server does not let us in
		}
		if msg.Gap != nil {
			fmt.Println("missing:", msg.Gap.Reason)
			continue
		}
		fmt.Printf("%s\n", msg.Data)
		if string(msg.Data) == "two" {
			break
		}
	}
	// Output:
	// one
	// two
}

// A hub near its viewers relays one far away: the past is read from there where it is asked for, and positions are the same.
func ExampleSource() {
	far := tailcast.New()
	defer far.Close()
	srv := httptest.NewServer(far)
	ctx := context.Background()
	if err := far.Publish(ctx, tailcast.Message{Data: []byte("one")}, tailcast.Message{Data: []byte("two")}); err != nil {
		log.Fatal(err)
	}

	near := tailcast.New()
	defer near.Close()
	go func() {
		if err := near.Run(ctx, client.Source(srv.URL)); err != nil {
			log.Print(err)
		}
	}()
	// near is an http.Handler, as every hub is. This viewer is in the same program:
	for msg, err := range near.Subscribe(ctx, "", tailcast.Earliest()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", msg.Data)
		if string(msg.Data) == "two" {
			break
		}
	}
	// Output:
	// one
	// two
}
