package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// rawServer is what the kernel allows: after the handshake it only writes.
type rawServer struct {
	slab []byte

	mu    sync.Mutex
	conns []*rawConn
}

type rawConn struct {
	net.Conn
	syscall.RawConn
	sent int // bytes of the slab
}

func newRaw(*spec) (server, error) { return &rawServer{}, nil }

func (r *rawServer) serve(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			if err := r.shake(nc); err != nil {
				nc.Close()
			}
		}()
	}
}

func (r *rawServer) shake(nc net.Conn) error {
	req, err := http.ReadRequest(bufio.NewReaderSize(nc, 1024))
	if err != nil {
		return err
	}
	if err := answerUpgrade(nc, req.Header.Get("Sec-WebSocket-Key")); err != nil {
		return err
	}
	rc, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, &rawConn{Conn: nc, RawConn: rc})
	return nil
}

// answerUpgrade answers a handshake (RFC 6455, 4.2.2).
func answerUpgrade(nc net.Conn, key string) error {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err := fmt.Fprintf(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return err
}

func (r *rawServer) viewers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

func frameOf(m []byte) []byte { return append(appendHeader(make([]byte, 0, len(m)+10), len(m)), m...) }

// rawWriters is how many goroutines write.
const rawWriters = 2

// split lets each writer have its share of the connections.
func (r *rawServer) split(write func([]*rawConn) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := make(chan error, rawWriters)
	for i := range rawWriters {
		go func() { errs <- write(r.conns[i*len(r.conns)/rawWriters : (i+1)*len(r.conns)/rawWriters]) }()
	}
	var err error
	for range rawWriters {
		if e := <-errs; e != nil {
			err = e
		}
	}
	return err
}

func (r *rawServer) publish(_ uint8, m []byte) error {
	frame := frameOf(m)
	return r.split(func(conns []*rawConn) error {
		for _, c := range conns {
			for left := frame; len(left) > 0; {
				n, err := c.write(left, true)
				if err != nil {
					return err
				}
				left = left[n:]
			}
		}
		return nil
	})
}

// write writes what the socket takes; where that is nothing, it waits for room, or returns 0.
func (c *rawConn) write(b []byte, wait bool) (n int, err error) {
	werr := c.RawConn.Write(func(fd uintptr) bool {
		n, err = syscall.Write(int(fd), b)
		if err == syscall.EAGAIN {
			n, err = 0, nil
			return !wait
		}
		return true
	})
	if err == nil {
		err = werr
	}
	return n, err
}

// prepare puts all frames into one slab.
func (r *rawServer) prepare(messages [][]byte) {
	var b bytes.Buffer
	for _, m := range messages {
		b.Write(frameOf(m))
	}
	r.slab = b.Bytes()
}

func (r *rawServer) sendAll() error {
	const piece = 64 << 10
	return r.split(func(conns []*rawConn) error {
		for left := len(conns); left > 0; {
			var stuck *rawConn
			moved := false
			for _, c := range conns {
				if c.sent == len(r.slab) {
					continue
				}
				n, err := c.write(r.slab[c.sent:min(len(r.slab), c.sent+piece)], false)
				if err != nil {
					return err
				}
				if c.sent += n; c.sent == len(r.slab) {
					left--
				} else if n == 0 {
					stuck = c
				}
				moved = moved || n > 0
			}
			if !moved && left > 0 { // all are full
				n, err := stuck.write(r.slab[stuck.sent:min(len(r.slab), stuck.sent+piece)], true)
				if err != nil {
					return err
				}
				if stuck.sent += n; stuck.sent == len(r.slab) {
					left--
				}
			}
		}
		return nil
	})
}
