package testnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const network = "tcp" // what OpErrors name, as code under test may look at it

// A Conn is one end of a connection in memory: full duplex, each direction a queue of bytes with a bound. It behaves as a TCP socket
// does where the code under test can tell: errors come in a *net.OpError, deadlines are os.ErrDeadlineExceeded, and after the peer's Close
// a Read first returns the rest. It differs in one point: a Write after the peer's Close fails at once.
//
// All methods may be called concurrently.
type Conn struct {
	pair          *link
	peer          *Conn
	in, out       *flow
	local, remote net.Addr
}

var _ net.Conn = (*Conn)(nil)

// link is what the two ends of a connection share.
type link struct {
	mu    sync.Mutex // guards all of both flows
	reset bool
}

// flow is one direction. Its writer's and its reader's state are both guarded by link.mu.
type flow struct {
	cond   sync.Cond // broadcast at every change of what follows
	buf    []byte    // accepted from the writer, not read yet
	bound  int       // len(buf) at most
	fin    bool      // the writer will write no more
	gone   bool      // the reader will read no more
	read   deadline
	write  deadline
	script []Step
	stall  bool     // takes nothing, whatever the room
	pause  deadline // takes nothing before it has expired
	counts Counts
}

// Counts says what a Conn's writers have done so far.
type Counts struct {
	Writes  int64 // calls and parts of calls that took at least one byte
	Refused int64 // TryWrite calls that took fewer bytes than they were given
	Bytes   int64
}

// pair makes the two ends of a connection.
func pair(clientAddr, serverAddr net.Addr, bound int) (client, server *Conn) {
	if bound <= 0 {
		bound = DefaultBuffer
	}
	l := new(link)
	up, down := &flow{bound: bound}, &flow{bound: bound}
	up.cond.L, down.cond.L = &l.mu, &l.mu
	client = &Conn{pair: l, in: down, out: up, local: clientAddr, remote: serverAddr}
	server = &Conn{pair: l, in: up, out: down, local: serverAddr, remote: clientAddr}
	client.peer, server.peer = server, client
	return client, server
}

// Peer returns the other end, so that a test that holds the client's end can script the server's.
func (c *Conn) Peer() *Conn { return c.peer }

func (c *Conn) LocalAddr() net.Addr  { return c.local }
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read returns what the peer has written, as soon as there is a byte of it.
func (c *Conn) Read(p []byte) (int, error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	f := c.in
	for {
		switch {
		case f.gone:
			return 0, c.fault("read", net.ErrClosed)
		case c.pair.reset:
			return 0, c.fault("read", os.NewSyscallError("read", syscall.ECONNRESET))
		case f.read.expired:
			return 0, c.fault("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(f.buf) > 0:
			n := copy(p, f.buf)
			if f.buf = f.buf[n:]; len(f.buf) == 0 {
				f.buf = nil
			}
			f.cond.Broadcast()
			return n, nil
		case f.fin:
			return 0, io.EOF
		}
		f.cond.Wait()
	}
}

// Write returns when all of p has been taken, or with the error that ended it.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	for {
		if err := c.writable(); err != nil {
			return n, err
		}
		m, blocked, err := c.out.take(p[n:])
		n += m
		switch {
		case err != nil:
			return n, c.fault("write", err)
		case n == len(p):
			return n, nil
		case m == 0 && !blocked:
			c.out.cond.Wait()
		}
	}
}

// TryWrite takes what fits and never waits. n < len(p) with a nil error means that a Write would have to wait.
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if err := c.writable(); err != nil {
		return 0, err
	}
	n, _, err = c.out.take(p)
	if err != nil {
		return n, c.fault("write", err)
	}
	if n < len(p) {
		c.out.counts.Refused++
	}
	return n, nil
}

// WriteSome waits until at least one byte of p has been taken. If timeout passes first, the error is os.ErrDeadlineExceeded.
func (c *Conn) WriteSome(p []byte, timeout time.Duration) (n int, err error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if len(p) == 0 {
		return 0, c.writable()
	}
	var limit deadline
	limit.set(&c.out.cond, time.Now().Add(timeout))
	defer limit.stop()
	for {
		if err := c.writable(); err != nil {
			return 0, err
		}
		n, blocked, err := c.out.take(p)
		switch {
		case err != nil:
			return n, c.fault("write", err)
		case n > 0:
			return n, nil
		case blocked:
			// Such a step answers a TryWrite; to a writer that waits it is over at once.
		case limit.expired:
			return 0, c.fault("write", os.ErrDeadlineExceeded)
		default:
			c.out.cond.Wait()
		}
	}
}

// writable returns the error that any write would have now, be there room or not.
func (c *Conn) writable() error {
	switch f := c.out; {
	case c.in.gone:
		return c.fault("write", net.ErrClosed)
	case c.pair.reset:
		return c.fault("write", os.NewSyscallError("write", syscall.ECONNRESET))
	case f.fin, f.gone:
		return c.fault("write", os.NewSyscallError("write", syscall.EPIPE))
	case f.write.expired:
		return c.fault("write", os.ErrDeadlineExceeded)
	}
	return nil
}

func (c *Conn) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Source: c.local, Addr: c.remote, Err: err}
}

// Close ends both directions from this side: the peer reads what is left and then io.EOF, and its writes fail with EPIPE.
// What this end had not read is dropped.
func (c *Conn) Close() error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.in.gone {
		return c.fault("close", net.ErrClosed)
	}
	c.in.gone, c.in.buf = true, nil
	c.out.fin = true
	c.in.read.stop()
	c.out.write.stop()
	c.wake()
	return nil
}

// CloseWrite tells the peer that this end writes no more. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.in.gone {
		return c.fault("close", net.ErrClosed)
	}
	c.out.fin = true
	c.wake()
	return nil
}

// Reset breaks the connection: both ends get ECONNRESET at once, and what was under way is dropped.
func (c *Conn) Reset() {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	c.pair.reset = true
	for _, f := range []*flow{c.in, c.out} {
		f.buf = nil
		f.read.stop()
		f.write.stop()
		f.pause.stop()
	}
	c.wake()
}

func (c *Conn) wake() {
	c.in.cond.Broadcast()
	c.out.cond.Broadcast()
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline holds for blocked and for future Reads; the zero time means none.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(c.in, &c.in.read, t) }

// SetWriteDeadline holds for blocked and for future writes of all three kinds; the zero time means none.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(c.out, &c.out.write, t) }

func (c *Conn) setDeadline(f *flow, d *deadline, t time.Time) error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.in.gone {
		return c.fault("set", net.ErrClosed)
	}
	d.set(&f.cond, t)
	f.cond.Broadcast()
	return nil
}

// SetBuffer sets how many bytes the direction that c writes to holds. What is in it already stays.
func (c *Conn) SetBuffer(n int) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	c.out.bound = n
	c.out.cond.Broadcast()
}

// Unread returns how many bytes c has written that the peer has not read.
func (c *Conn) Unread() int {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	return len(c.out.buf)
}

// Counts returns what has been written to c so far.
func (c *Conn) Counts() Counts {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	return c.out.counts
}

// deadline is a time after which waiting is over. It is guarded by the lock of the cond that it wakes.
type deadline struct {
	expired bool
	timer   *time.Timer
	turn    int // counts the settings, so that a timer that was stopped too late does nothing
}

func (d *deadline) set(cond *sync.Cond, t time.Time) {
	d.stop()
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		return
	}
	turn := d.turn
	d.timer = time.AfterFunc(left, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		if d.turn == turn {
			d.expired = true
			cond.Broadcast()
		}
	})
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.turn++
	d.expired, d.timer = false, nil
}
