package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A poller reads plain connections: one epoll, one goroutine, one buffer for all of them. What the client uses is not counted, but
// it is the same machine.
type poller struct {
	client *client
	epoll  int
	tally  tally
	seen   atomic.Int64
	done   chan struct{}
	peers  []atomic.Pointer[peer] // by descriptor
}

type peer struct {
	*checker
	rest []byte
}

func newPoller(c *client) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	most, err := fileLimit()
	if err != nil {
		return nil, err
	}
	return &poller{client: c, epoll: fd, done: make(chan struct{}), peers: make([]atomic.Pointer[peer], most)}, nil
}

func (p *poller) add(fd int, f framing, rest []byte) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	if fd >= len(p.peers) {
		return fmt.Errorf("descriptor %d: the limit is %d", fd, len(p.peers))
	}
	c := &peer{checker: newChecker(f, p.client.spec, &p.tally), rest: slices.Clone(rest)} // a message, even a part of one, comes later
	p.peers[fd].Store(c)
	return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (p *poller) begin(stop <-chan struct{}) {
	go func() {
		defer close(p.done)
		p.loop(stop)
	}()
}

func (p *poller) progress() int64 { return p.seen.Load() }

func (p *poller) finish() *tally {
	<-p.done
	return &p.tally
}

func (p *poller) loop(stop <-chan struct{}) {
	const lookMillis = 20
	buf := make([]byte, 256<<10)
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(p.epoll, events, lookMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(err) // it is our descriptor
		}
		for _, e := range events[:max(n, 0)] {
			buf = p.read(e.Fd, buf)
		}
		p.seen.Store(p.tally.Delivered)
		select {
		case <-stop:
			return
		default:
		}
	}
}

// read reads once from a connection, and returns the buffer, or a larger one.
func (p *poller) read(fd int32, buf []byte) []byte {
	c := p.peers[fd].Load()
	if c == nil {
		return buf // it has been closed
	}
	if len(c.rest) > len(buf)/2 { // a frame is larger than what was foreseen
		buf = make([]byte, 4*len(c.rest))
	}
	held := copy(buf, c.rest)
	n, err := unix.Read(int(fd), buf[held:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return buf
	}
	if n == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		missed := c.open > 0
		var rest []byte
		rest, err = c.feed(buf[:held+n], time.Now().UnixNano())
		c.rest = append(c.rest[:0], rest...)
		if missed && c.open == 0 {
			p.client.settle()
		}
	}
	if err == nil && len(c.pongs) > 0 {
		_, err = unix.Write(int(fd), c.pongs) // it has room for the few that there are
		c.pongs = c.pongs[:0]
	}
	if err != nil {
		p.lose(fd, err)
	}
	return buf
}

// lose notes that a connection has ended, which none should.
func (p *poller) lose(fd int32, err error) {
	if p.peers[fd].Swap(nil).open > 0 {
		p.client.settle()
	}
	p.tally.closed(err)
	unix.Close(int(fd))
}

func (t *tally) closed(err error) {
	t.Closed++
	if t.Why == "" {
		t.Why = err.Error()
	}
}

func (p *poller) close() {
	for fd := range p.peers {
		if p.peers[fd].Load() != nil {
			unix.Close(fd)
		}
	}
	unix.Close(p.epoll)
}

// A descriptor is a blocking socket.
type descriptor int

func (d descriptor) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case n == 0 && err == nil && len(b) > 0:
			err = io.ErrUnexpectedEOF
		}
		return max(n, 0), err
	}
}

func (d descriptor) Write(b []byte) (int, error) {
	for {
		n, err := unix.Write(int(d), b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return max(n, 0), err
	}
}

const (
	// An address has some 28 000 ports for the same destination, of which others are in use.
	connsPerAddress = 10_000
	shakeSeconds    = 60
	stalledBuffer   = 4 << 10
)

// connect connects, from an address of the loopback that i says.
func connect(addr string, i int, stalls bool) (fd int, err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, err
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if stalls {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, stalledBuffer); err != nil {
			return 0, err
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: shakeSeconds}); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return 0, err
	}
	from := unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + i/connsPerAddress)}}
	if err := unix.Bind(fd, &from); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
		switch {
		case err == nil || errors.Is(err, unix.EISCONN):
			return fd, nil
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EALREADY):
			return 0, fmt.Errorf("connect: %w", err)
		}
	}
}
