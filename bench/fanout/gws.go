package main

import (
	"net/http"
	"sync"

	"github.com/lxzan/gws"
)

// gwsServer is gws as its README has it. (The deadline that its example sets for each connection is left out, and with it the pings
// that the client would have to send.)
type gwsServer struct {
	gws.BuiltinEventHandler
	web
	upgrader *gws.Upgrader

	mu    sync.Mutex
	conns []*gws.Conn
}

func newGws(*spec) (server, error) {
	g := &gwsServer{}
	g.upgrader = gws.NewUpgrader(g, &gws.ServerOption{ParallelEnabled: true, Recovery: gws.Recovery})
	g.web = web{http.HandlerFunc(g.upgrade)}
	return g, nil
}

func (g *gwsServer) upgrade(w http.ResponseWriter, r *http.Request) {
	socket, err := g.upgrader.Upgrade(w, r)
	if err != nil {
		return
	}
	g.mu.Lock()
	g.conns = append(g.conns, socket)
	g.mu.Unlock()
	go socket.ReadLoop()
}

func (g *gwsServer) viewers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

func (g *gwsServer) publish(_ uint8, m []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := gws.NewBroadcaster(gws.OpcodeText, m)
	defer b.Close()
	for _, c := range g.conns {
		if err := b.Broadcast(c); err != nil {
			return err
		}
	}
	return nil
}
