package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/tailcast/tailcast"
)

// A kind is a server that takes part.
type kind struct {
	name, about string
	make        func(*spec) (server, error)
	module      string                 // whose version is told
	option      func() tailcast.Option // what a variant of tailcast needs
}

// flushInterval is that of the variants with names in -flush.
const flushInterval = 20 * time.Millisecond

func withFlush() tailcast.Option { return tailcast.WithFlushInterval(flushInterval) }

// kinds are all of them, in the order of the tables.
var kinds = []*kind{
	{name: "tailcast", make: newTailcast(nil),
		about: "`tailcast.New()` with no options; `Publish` of each message. Many at once: `WaitLag(ctx, topic, 4 MiB)` after each MiB"},
	{name: "tailcast-flush", make: newTailcast(withFlush), option: withFlush,
		about: "the same, `WithFlushInterval(20ms)`"},
	{name: "tailcast-detach", make: newTailcast(tailcast.WithDetach), option: tailcast.WithDetach,
		about: "the same, `WithDetach()`"},
	{name: "gws", make: newGws, module: "github.com/lxzan/gws",
		about: "a `Broadcaster` for each message, over a slice of the connections; `go socket.ReadLoop()` after the upgrade, as its README has it, but without the deadline that clients have to put off with pings"},
	{name: "gorilla", make: newGorilla, module: "github.com/gorilla/websocket",
		about: "its chat example, with a `PreparedMessage` for all. It closes a client with 256 messages in its queue. Many at once: the hub waits for the client instead"},
	{name: "melody", make: newMelody, module: "github.com/olahol/melody",
		about: "`Broadcast`. It drops what finds a queue of 256 full. Many at once: `MessageBufferSize` has room for all, since it cannot wait"},
	{name: "gobwas", make: newGobwas, module: "github.com/gobwas/ws",
		about: "`ws.Upgrade` on the accepted connection, `CompileFrame` for all, a channel of 256 and a writing goroutine for each connection; the publisher waits where one is full"},
	{name: "centrifuge", make: newCentrifuge, module: "github.com/centrifugal/centrifuge",
		about: "a node with the broker in memory, the server subscribes, its JSON protocol: a message is a JSON string in an envelope. Many at once: `ClientQueueMaxSize` has room for all, since it closes a client with 1 MiB in its queue"},
	{name: "nhooyr", make: newNhooyr, module: "nhooyr.io/websocket",
		about: "its chat example: a channel for each handler, here of 256 messages, not 16. It closes a client whose channel is full. Many at once: the publisher waits instead"},
	{name: "raw", make: newRaw(0),
		about: "the limit: two goroutines write prepared frames to sockets without blocking, what has queued up meanwhile with one write, and nobody reads. Many at once: one slab of adjacent frames, in pieces of 64 KiB"},
	{name: "raw-flush", make: newRaw(flushInterval), about: "the same, the frames of 20 ms with one write"},
	{name: "loop", make: newLoop,
		about: "written by hand: a channel of 256 and a goroutine for each connection, each message made ready for the wire once for all; `Write` of a frame, or `Write` and `Flush` of an event in a handler of net/http"},
}

// missing reports why this server cannot take part.
func (k *kind) missing() (err error) {
	if k.option == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	k.option()
	return nil
}

func kindOf(name string) *kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	return nil
}

// chosen reports whether a list of names, with commas, has this one, or the one that it is a variant of. An empty list has all.
func chosen(list, name string) bool {
	if list == "" {
		return true
	}
	for _, n := range strings.Split(list, ",") {
		if n == name || strings.HasPrefix(name, n+"-") {
			return true
		}
	}
	return false
}
