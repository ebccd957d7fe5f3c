package itest

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// A cutter stands between clients and a server, and does to their connections what networks and proxies do.
type cutter struct {
	addr   string // where it listens
	target string // where the server is
	ln     net.Listener

	// What happens to connections, each of which is asked for when a connection begins.
	cut     atomic.Int64 // after at most so many bytes of the server it is cut; 0: never
	refuse  atomic.Int64 // a handshake of a WebSocket is answered with this status, or with nothing at all if it is -1
	refuses atomic.Int64 // of a hundred; 0 means all
	cuts    atomic.Int64 // how many were cut
	sockets atomic.Int64 // handshakes of WebSockets that went through
	others  atomic.Int64 // other requests

	mu    sync.Mutex
	rng   *rand.Rand
	dark  bool // nothing goes through, and nobody is told
	down  bool // new connections are refused, by a reset
	conns map[net.Conn]struct{}
	light chan struct{} // closed when it is not dark any more
}

func newCutter(t *testing.T, target string, seed uint64) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{addr: ln.Addr().String(), target: target, ln: ln, rng: rand.New(rand.NewPCG(seed, 8)), conns: make(map[net.Conn]struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		c.setDark(false)
		c.cutAll()
		wg.Wait()
	})
	return c
}

// setDark lets nothing through, as when a cable is pulled: nobody's connection ends.
func (c *cutter) setDark(dark bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dark == c.dark {
		return
	}
	if c.dark = dark; dark {
		c.light = make(chan struct{})
	} else {
		close(c.light)
	}
}

// setDown resets all connections, and those to come.
func (c *cutter) setDown(down bool) {
	c.mu.Lock()
	c.down = down
	c.mu.Unlock()
	if down {
		c.cutAll()
	}
}

func (c *cutter) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.conns {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

func (c *cutter) add(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = struct{}{}
	return !c.down
}

func (c *cutter) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
	conn.Close()
}

func (c *cutter) random(n int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rng.Int64N(n)
}

// wait returns when it is not dark.
func (c *cutter) wait() {
	c.mu.Lock()
	light, dark := c.light, c.dark
	c.mu.Unlock()
	if dark {
		<-light
	}
}

func (c *cutter) serve(client net.Conn) {
	defer c.remove(client)
	if !c.add(client) {
		client.(*net.TCPConn).SetLinger(0)
		return
	}
	head := make([]byte, 0, 4096)
	for !bytes.Contains(head, []byte("\r\n\r\n")) {
		n, err := client.Read(head[len(head):cap(head)])
		if head = head[:len(head)+n]; err != nil || len(head) == cap(head) {
			return
		}
	}
	c.wait()
	if strings.Contains(strings.ToLower(string(head)), "upgrade: websocket") {
		share := c.refuses.Load()
		if status := int(c.refuse.Load()); status != 0 && (share == 0 || c.random(100) < share) {
			if status < 0 {
				io.Copy(io.Discard, client) // until the client gives up
				return
			}
			io.WriteString(client, "HTTP/1.1 "+strconv.Itoa(status)+" No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			return
		}
		c.sockets.Add(1)
	} else {
		c.others.Add(1)
	}
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer c.remove(server)
	if !c.add(server) {
		return
	}
	if _, err := server.Write(head); err != nil {
		return
	}
	budget := int64(1) << 60
	if most := c.cut.Load(); most > 0 {
		budget = 1 + c.random(1+c.random(most)) // often few: the head of the answer is cut too
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.copy(server, client, 1<<60)
		server.Close()
	}()
	if c.copy(client, server, budget) {
		c.cuts.Add(1)
		if c.random(2) == 0 {
			client.(*net.TCPConn).SetLinger(0) // a reset
		}
	}
	client.Close()
	server.Close()
	<-done
}

// copy reports whether the budget is used up.
func (c *cutter) copy(to, from net.Conn, budget int64) bool {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf[:min(budget, int64(len(buf)))])
		c.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return false
			}
		}
		if budget -= int64(n); budget == 0 {
			return true
		}
		if err != nil {
			return false
		}
	}
}
