package nxtail_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/nxadm/tail"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/nxtail"
)

// A service that has a Tail gives its lines to a hub. It stops the Tail itself.
func ExampleSource() {
	dir, err := os.MkdirTemp("", "nxtail")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.log")
	if err := os.WriteFile(path, []byte("one\ntwo\n"), 0o644); err != nil {
		log.Fatal(err)
	}

	t, err := tail.TailFile(path, tail.Config{CompleteLines: true}) // Follow and ReOpen, for a log
	if err != nil {
		log.Fatal(err)
	}
	defer t.Cleanup()
	defer t.Stop()
	hub := tailcast.New()
	defer hub.Close()
	err = hub.Run(context.Background(), nxtail.Source(t, "app"))
	head, _ := hub.Head("app")
	fmt.Println(err, head.Offset)
	// Output: <nil> 2
}
