package nats_test

import (
	"net"
	"sync"
	"testing"
)

// A proxy stands between a node and the broker, and is a bad network.
type proxy struct {
	to string
	l  net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	frozen  bool // nothing goes through: it waits
	swallow bool // what the broker says is thrown away
	thrown  int  // bytes of that
	conns   map[net.Conn]bool
	closed  bool
}

func newProxy(t testing.TB, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{to: to, l: l, conns: make(map[net.Conn]bool)}
	p.changed = sync.NewCond(&p.mu)
	p.wg.Go(p.serve)
	t.Cleanup(func() {
		p.l.Close()
		p.set(func() { p.closed = true })
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.changed.Broadcast()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.set(func() {
		for c := range p.conns {
			c.Close()
		}
	})
}

func (p *proxy) url() string { return "nats://" + p.l.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		broker, err := net.Dial("tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		p.set(func() { p.conns[client], p.conns[broker] = true, true })
		p.wg.Go(func() { p.copy(broker, client, false) })
		p.wg.Go(func() { p.copy(client, broker, true) })
	}
}

func (p *proxy) copy(to, from net.Conn, fromBroker bool) {
	defer p.set(func() { delete(p.conns, to); delete(p.conns, from) })
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		for p.frozen && !p.closed {
			p.changed.Wait()
		}
		swallow := p.swallow && fromBroker
		if swallow {
			p.thrown += n
			p.changed.Broadcast()
		}
		p.mu.Unlock()
		if swallow {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
