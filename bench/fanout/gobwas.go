package main

import (
	"net"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// gobwasQueue is how many frames may wait for a connection; beyond it, the publisher waits.
const gobwasQueue = 256

// gobwasServer upgrades without net/http, compiles each frame once, and has two goroutines for each connection.
type gobwasServer struct {
	mu    sync.Mutex
	conns []chan []byte
}

func newGobwas(*spec) (server, error) { return &gobwasServer{}, nil }

func (g *gobwasServer) serve(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go g.conn(nc)
	}
}

func (g *gobwasServer) conn(nc net.Conn) {
	defer nc.Close()
	if _, err := ws.Upgrade(nc); err != nil {
		return
	}
	send := make(chan []byte, gobwasQueue)
	g.mu.Lock()
	g.conns = append(g.conns, send)
	g.mu.Unlock()
	go func() {
		var err error
		for frame := range send { // after an error too, or the publisher would wait for ever
			if err == nil {
				_, err = nc.Write(frame)
			}
		}
	}()
	for {
		if _, _, err := wsutil.ReadClientData(nc); err != nil {
			return
		}
	}
}

func (g *gobwasServer) viewers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

func (g *gobwasServer) publish(_ uint8, m []byte) error {
	frame, err := ws.CompileFrame(ws.NewTextFrame(m))
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c <- frame
	}
	return nil
}
