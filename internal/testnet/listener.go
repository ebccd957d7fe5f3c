// Package testnet is a network in memory, for tests of whole stacks (an http.Server, a hub, its clients) inside testing/synctest.
//
// Everything that blocks here blocks on a sync.Cond, which is durable in the sense of synctest wherever the value was made, and
// every timeout is a timer of package time. So a bubble goes idle when its connections do, and time passes at once.
package testnet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// DefaultBuffer is the number of bytes that a direction of a connection holds unless Listener.Buffer or Conn.SetBuffer says otherwise.
const DefaultBuffer = 64 << 10

// A Listener accepts connections that Dial makes. Its fields may be set before the first Dial.
type Listener struct {
	// Buffer is what each direction of a new connection holds; 0 means DefaultBuffer.
	Buffer int
	// Local is the address of the listener and of the server's end; nil means 192.0.2.1:80, which is not a loopback address.
	Local net.Addr

	mu     sync.Mutex
	cond   sync.Cond
	queue  []*Conn // server ends that wait for Accept
	dialed int
	closed bool
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a Listener.
func Listen() *Listener {
	l := new(Listener)
	l.cond.L = &l.mu
	return l
}

// Accept waits for a connection and returns the server's end of it, a *Conn. After Close the error is net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: network, Addr: l.local(), Err: net.ErrClosed}
		}
		l.cond.Wait()
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// Close ends Accept. Connections that nobody has accepted are reset, the others live on.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return &net.OpError{Op: "close", Net: network, Addr: l.local(), Err: net.ErrClosed}
	}
	l.closed = true
	queue := l.queue
	l.queue = nil
	l.cond.Broadcast()
	l.mu.Unlock()
	for _, c := range queue {
		c.Reset()
	}
	return nil
}

// Addr returns the listener's address.
func (l *Listener) Addr() net.Addr { return l.local() }

func (l *Listener) local() net.Addr {
	if l.Local != nil {
		return l.Local
	}
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}
}

// Dial returns the client's end of a new connection. It does not wait for Accept: the queue has no bound. Each Dial comes from a
// port of its own on 198.51.100.1.
func (l *Listener) Dial(ctx context.Context) (*Conn, error) { return l.DialFrom(ctx, nil) }

// DialFrom is Dial from an address that the test chooses, for limits that count by address.
func (l *Listener) DialFrom(ctx context.Context, from net.Addr) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: l.local(), Err: syscall.ECONNREFUSED}
	}
	if from == nil {
		from = &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1024 + l.dialed%64000}
	}
	l.dialed++
	client, server := pair(from, l.local(), l.Buffer)
	l.queue = append(l.queue, server)
	l.cond.Signal()
	return client, nil
}

// Pipe returns the two ends of a connection without a Listener. A buffer of 0 means DefaultBuffer.
func Pipe(buffer int) (client, server *Conn) {
	return pair(&net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 1024}, new(Listener).local(), buffer)
}

// HTTPClient returns a client whose every request goes to l over a connection of its own, whatever its URL names. It keeps no
// connection for later, so it leaves no goroutine in a bubble once the response bodies are closed, and follows no redirect.
func HTTPClient(l *Listener) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) },
			DisableKeepAlives:  true,
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// DialWS dials l and performs a WebSocket handshake for path ("/logs?topic=app"), with the given extra header fields.
// A refusal is a *HandshakeError, which holds the response.
func DialWS(ctx context.Context, l *Listener, path string, header http.Header) (*WS, error) {
	conn, err := l.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("testnet: dial: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Reset() })
	ws, _, err := NewWS(conn, "tailcast.test", path, header)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return ws, err
}
