package main

import (
	"strings"
)

// A kind is a server that takes part.
type kind struct {
	name, about string
	make        func(*spec) (server, error)
	module      string // whose version is told
}

// kinds are all of them, in the order of the tables.
var kinds = []*kind{
	{"tailcast", "`tailcast.New()` with no options; `Publish` of each message. Many at once: `WaitLag(ctx, topic, 4 MiB)` after each MiB", newTailcast(), ""},
	{"gws", "a `Broadcaster` for each message, over a slice of the connections; `go socket.ReadLoop()` after the upgrade", newGws, "github.com/lxzan/gws"},
	{"raw", "the limit: a goroutine for each processor writes prepared frames to sockets without blocking; reads nothing. Many at once: one slab of adjacent frames, made before the measuring, in pieces of 64 KiB", newRaw, ""},
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
