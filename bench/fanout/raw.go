package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// rawServer is what the kernel allows: after the handshake it only writes.
type rawServer struct {
	slab            []byte
	once            sync.Once
	queues          [rawWriters]chan []byte
	held            []byte // frames that go out together
	together, count int    // messages that do; all messages
	published       int

	mu    sync.Mutex
	conns []*rawConn
}

type rawConn struct {
	net.Conn
	syscall.RawConn
	sent int // bytes of the slab
}

// newRaw makes one that holds messages back for the time d, so that several go out with one write.
func newRaw(d time.Duration) func(*spec) (server, error) {
	return func(s *spec) (server, error) {
		return &rawServer{together: max(1, int(d.Seconds()*float64(s.Rate))), count: s.Count}, nil
	}
}

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

const (
	rawWriters = 2    // goroutines that write
	rawQueue   = 1024 // messages that may wait for each of them
	rawPiece   = 64 << 10
)

// share is the part of the connections that a writer has.
func (r *rawServer) share(i int) []*rawConn {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns[i*len(r.conns)/rawWriters : (i+1)*len(r.conns)/rawWriters]
}

func (r *rawServer) publish(_ uint8, m []byte) error {
	r.once.Do(func() {
		for i := range rawWriters {
			r.queues[i] = make(chan []byte, rawQueue)
			go r.writer(r.queues[i], r.share(i))
		}
	})
	r.published++
	r.held = append(r.held, frameOf(m)...)
	if r.published%r.together != 0 && r.published != r.count {
		return nil
	}
	for _, q := range r.queues {
		q <- r.held
	}
	r.held = nil
	return nil
}

// writer writes frames to its connections: each when it comes, and those that have come meanwhile with one write. Where a connection
// fails, the client will miss something.
func (r *rawServer) writer(queue <-chan []byte, conns []*rawConn) {
	for frames := range queue {
		for more := true; more && len(frames) < rawPiece; {
			select {
			case f := <-queue:
				frames = append(slices.Clip(frames), f...)
			default:
				more = false
			}
		}
		for _, c := range conns {
			for left := frames; len(left) > 0; {
				n, err := c.write(left, true)
				if err != nil {
					break
				}
				left = left[n:]
			}
		}
	}
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
func (r *rawServer) prepare(messages [][]byte) (there [][]byte) {
	for _, m := range messages {
		r.slab = append(r.slab, frameOf(m)...)
	}
	end := 0
	for _, m := range messages {
		end += len(frameOf(m))
		there = append(there, r.slab[end-len(m):end])
	}
	return there
}

func (r *rawServer) sendAll() error {
	errs := make(chan error, rawWriters)
	for i := range rawWriters {
		go func() { errs <- r.sendSlab(r.share(i)) }()
	}
	var err error
	for range rawWriters {
		err = errors.Join(err, <-errs)
	}
	return err
}

// sendSlab writes pieces of the slab to each connection in turn, and waits where all are full.
func (r *rawServer) sendSlab(conns []*rawConn) error {
	step := func(c *rawConn, wait bool) (n int, err error) {
		n, err = c.write(r.slab[c.sent:min(len(r.slab), c.sent+rawPiece)], wait)
		c.sent += n
		return n, err
	}
	done := func(c *rawConn) bool { return c.sent == len(r.slab) }
	for conns = slices.Clone(conns); len(conns) > 0; conns = slices.DeleteFunc(conns, done) {
		moved := 0
		for _, c := range conns {
			n, err := step(c, false)
			if err != nil {
				return err
			}
			moved += n
		}
		if moved == 0 {
			if _, err := step(conns[0], true); err != nil {
				return err
			}
		}
	}
	return nil
}
