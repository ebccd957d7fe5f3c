package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// clientMain is the client of one run: it is told the spec and where the server is, says when its connections are there and when
// everything has come, and then what it has found.
func clientMain() int {
	w := newWire(os.Stdin, os.Stdout)
	var s spec
	var at address
	if err := errors.Join(w.hear(&s), w.hear(&at)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	r, err := runClient(&s, &at, w)
	if err != nil {
		r.Err = err.Error()
	}
	if err := w.tell(r); err != nil {
		return 2
	}
	return 0
}

// loops is how many goroutines read plain connections.
const loops = 2

func runClient(s *spec, at *address, w *wire) (*received, error) {
	c := &client{spec: s, addr: at, stop: make(chan struct{}), complete: make(chan struct{})}
	c.halt = sync.OnceFunc(func() { close(c.stop) })
	c.left.Store(int64(s.Conns))
	defer c.close()
	if err := c.dialAll(); err != nil {
		return &received{}, err
	}
	if err := w.tell(goOn); err != nil {
		return &received{}, err
	}
	if s.idle() {
		var order string
		err := w.hear(&order)
		return c.finish(), err
	}
	c.watch()
	if err := w.tell(goOn); err != nil {
		return &received{}, err
	}
	time.Sleep(repeatTime)
	return c.finish(), nil
}

// repeatTime is how long the client reads on when everything has come, since some of it may come again.
const repeatTime = 100 * time.Millisecond

// A client is all connections of a run.
type client struct {
	spec   *spec
	addr   *address
	groups []group
	stop   chan struct{} // closed when they are to stop
	halt   func()        // closes it

	left     atomic.Int64  // connections on which something is missing
	complete chan struct{} // closed when there is none

	mu      sync.Mutex
	stalled []int // descriptors
}

// settle notes that a connection has everything, or never will.
func (c *client) settle() {
	if c.left.Add(-1) == 0 {
		close(c.complete)
	}
}

// A group reads some of the connections.
type group interface {
	progress() int64 // messages so far
	finish() *tally  // after stop was closed
}

// watch waits until everything has come, or nothing has for too long.
func (c *client) watch() {
	const look = 250 * time.Millisecond
	before, since := int64(-1), time.Now()
	for {
		select {
		case <-c.complete:
			return
		case <-time.After(look):
		}
		var now int64
		for _, g := range c.groups {
			now += g.progress()
		}
		if now != before {
			before, since = now, time.Now()
		} else if time.Since(since) > c.spec.Patience {
			return
		}
	}
}

// finish stops reading, and returns what was found.
func (c *client) finish() *received {
	c.halt()
	t := &tally{}
	for _, g := range c.groups {
		t.add(g.finish())
	}
	r := &received{tally: *t}
	r.Missing = c.spec.deliveries() - t.Delivered
	r.P50, r.P99 = t.lags.quantile(0.5), t.lags.quantile(0.99)
	r.Took = time.Duration(t.last - t.first)
	user, system := cpu()
	r.CPU = user + system
	return r
}

func (t *tally) add(o *tally) {
	t.Delivered += o.Delivered
	t.Skipped += o.Skipped
	t.Back += o.Back
	t.Torn += o.Torn
	t.Closed += o.Closed
	if t.Why == "" {
		t.Why = o.Why
	}
	t.lags.merge(&o.lags)
	t.last = max(t.last, o.last)
	if t.first == 0 || o.first != 0 && o.first < t.first {
		t.first = o.first
	}
}

// request is what a client sends first.
func (s *spec) request(addr string) string {
	b := "GET /t HTTP/1.1\r\nHost: " + addr + "\r\n"
	if strings.HasPrefix(s.Transport, overWS) {
		return b + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	}
	return b + "Accept: text/event-stream\r\n\r\n"
}

// shake sends the request and what the protocol of the server wants before it sends messages, and returns what has come after the
// answers.
func (s *spec) shake(rw io.ReadWriter, addr string) (framing, []byte, error) {
	if _, err := io.WriteString(rw, s.request(addr)); err != nil {
		return 0, nil, err
	}
	head, rest, err := readUntil(rw, nil, "\r\n\r\n")
	if err != nil {
		return 0, nil, err
	}
	f, err := framingOf(head)
	if err != nil || !s.chatty() {
		return f, rest, err
	}
	// centrifuge: connect; the server subscribes the client to the channel before it answers.
	if _, err := rw.Write(appendMasked(nil, opText, []byte(`{"id":1,"connect":{}}`))); err != nil {
		return 0, nil, err
	}
	buf := make([]byte, 1024)
	for {
		_, answer, after, ok, err := cutFrame(rest)
		switch {
		case err != nil:
			return 0, nil, err
		case ok && !bytes.Contains(answer, []byte(`"connect"`)):
			return 0, nil, fmt.Errorf("the answer to connect is %q", answer)
		case ok:
			return f, after, nil
		}
		n, err := rw.Read(buf)
		if err != nil {
			return 0, nil, err
		}
		rest = append(rest, buf[:n]...)
	}
}

func readUntil(r io.Reader, b []byte, end string) (before, after []byte, err error) {
	buf := make([]byte, 4096)
	for {
		if before, after, ok := bytes.Cut(b, []byte(end)); ok {
			return before, after, nil
		}
		if len(b) > 64<<10 {
			return nil, nil, errors.New("a response without an end to its header")
		}
		n, err := r.Read(buf)
		if err != nil {
			return nil, nil, fmt.Errorf("handshake: %w", err)
		}
		b = append(b, buf[:n]...)
	}
}

func framingOf(head []byte) (framing, error) {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	fields := bytes.Fields(line)
	switch {
	case len(fields) >= 2 && string(fields[1]) == "101":
		return frames, nil
	case len(fields) < 2 || string(fields[1]) != "200":
		return 0, fmt.Errorf("the server answers %.100q", line)
	case bytes.Contains(bytes.ToLower(head), []byte("transfer-encoding: chunked")):
		return chunks, nil
	}
	return unbound, nil
}

// dialAll makes all connections, some at a time, and forms the groups.
func (c *client) dialAll() error {
	switch c.spec.Transport {
	case overWS, overSSE:
		for range min(loops, c.spec.Conns) {
			p, err := newPoller(c)
			if err != nil {
				return err
			}
			p.begin(c.stop)
			c.groups = append(c.groups, p)
		}
	default:
		c.groups = []group{&readers{client: c}}
	}
	const atATime = 32
	all := c.spec.Conns + c.spec.Stalled
	errs := make(chan error, atATime)
	for first := range atATime {
		go func() {
			for i := first; i < all; i += atATime {
				if err := c.dial(i); err != nil {
					errs <- fmt.Errorf("connection %d: %w", i, err)
					return
				}
			}
			errs <- nil
		}()
	}
	var err error
	for range atATime {
		err = errors.Join(err, <-errs)
	}
	if r, ok := c.groups[0].(*readers); ok && err == nil {
		r.begin(c.stop)
	}
	return err
}

// dial makes connection i; those that stall come after those that read.
func (c *client) dial(i int) error {
	if c.spec.tls() {
		return c.groups[0].(*readers).dial()
	}
	stalls := i >= c.spec.Conns
	fd, err := connect(c.addr.Addr, i, stalls)
	if err != nil {
		return err
	}
	f, rest, err := c.spec.shake(descriptor(fd), c.addr.Addr)
	if err != nil {
		unix.Close(fd)
		return err
	}
	if stalls {
		c.mu.Lock()
		c.stalled = append(c.stalled, fd)
		c.mu.Unlock()
		return nil
	}
	return c.groups[i%len(c.groups)].(*poller).add(fd, f, rest)
}

func (c *client) close() {
	c.halt()
	for _, g := range c.groups {
		g.finish()
		if p, ok := g.(*poller); ok {
			p.close()
		}
	}
	for _, fd := range c.stalled {
		unix.Close(fd)
	}
}
