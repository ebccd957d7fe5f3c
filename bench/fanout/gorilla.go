package main

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// What the chat example of gorilla/websocket sets.
const (
	gorillaWriteWait  = 10 * time.Second
	gorillaPongWait   = 60 * time.Second
	gorillaPingPeriod = gorillaPongWait * 9 / 10
	gorillaReadLimit  = 512
	gorillaQueue      = 256
)

// gorillaServer is that chat: a goroutine that owns the set of clients, a channel and two goroutines for each of them. A message is
// prepared once for all, as the package's documentation recommends; so those that wait are not put into one, as the example does.
type gorillaServer struct {
	web
	upgrader   websocket.Upgrader
	broadcast  chan []byte
	register   chan *gorillaClient
	unregister chan *gorillaClient
	waits      bool // for a slow client, instead of closing it
	count      atomic.Int64
}

type gorillaClient struct {
	conn *websocket.Conn
	send chan *websocket.PreparedMessage
}

func newGorilla(s *spec) (server, error) {
	g := &gorillaServer{
		upgrader:  websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024},
		broadcast: make(chan []byte), register: make(chan *gorillaClient), unregister: make(chan *gorillaClient),
		waits: s.burst(),
	}
	g.web = web{http.HandlerFunc(g.upgrade)}
	go g.run()
	return g, nil
}

func (g *gorillaServer) run() {
	clients := make(map[*gorillaClient]bool)
	for {
		select {
		case c := <-g.register:
			clients[c] = true
			g.count.Add(1)
		case c := <-g.unregister:
			if clients[c] {
				delete(clients, c)
				close(c.send)
				g.count.Add(-1)
			}
		case m := <-g.broadcast:
			pm, err := websocket.NewPreparedMessage(websocket.TextMessage, m)
			if err != nil {
				panic(err) // it is text
			}
			for c := range clients {
				if g.waits {
					c.send <- pm
					continue
				}
				select {
				case c.send <- pm:
				default:
					close(c.send)
					delete(clients, c)
					g.count.Add(-1)
				}
			}
		}
	}
}

func (g *gorillaServer) upgrade(w http.ResponseWriter, r *http.Request) {
	conn, err := g.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &gorillaClient{conn, make(chan *websocket.PreparedMessage, gorillaQueue)}
	g.register <- c
	go c.write()
	go g.read(c)
}

func (g *gorillaServer) read(c *gorillaClient) {
	defer func() {
		g.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(gorillaReadLimit)
	c.conn.SetReadDeadline(time.Now().Add(gorillaPongWait))
	c.conn.SetPongHandler(func(string) error { return c.conn.SetReadDeadline(time.Now().Add(gorillaPongWait)) })
	for {
		if _, _, err := c.conn.ReadMessage(); err != nil {
			return
		}
	}
}

func (c *gorillaClient) write() {
	ticker := time.NewTicker(gorillaPingPeriod)
	defer ticker.Stop()
	defer c.conn.Close()
	for {
		select {
		case pm, ok := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(gorillaWriteWait))
			if !ok {
				_ = c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			if err := c.conn.WritePreparedMessage(pm); err != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(gorillaWriteWait))
			if err := c.conn.WriteMessage(websocket.PingMessage, nil); err != nil {
				return
			}
		}
	}
}

func (g *gorillaServer) viewers() int { return int(g.count.Load()) }

func (g *gorillaServer) publish(_ uint8, m []byte) error {
	g.broadcast <- m
	return nil
}
