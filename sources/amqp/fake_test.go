package amqp_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/tailcast/tailcast/sources/internal/sourcetest"
)

// A fake is as much of an AMQP broker as the Source needs, in this process: one virtual host, queues that any key is routed to, and
// faults on demand.
type fake struct {
	t   testing.TB
	l   net.Listener
	url string

	mu     sync.Mutex // guards the rest
	conns  map[*fakeConn]bool
	queues map[string]*fakeQueue
	binds  []string // queue, exchange and key, each
	acks   int      // so far
	deaf   bool     // new connections do not hear acknowledgements
	mute   bool     // nothing is answered
	served sync.WaitGroup
}

type fakeMessage struct {
	key, contentType, encoding string
	body                       []byte
	transient                  bool
	redelivered                bool
}

type fakeQueue struct {
	ready    []fakeMessage
	bits     byte // 2 is durable
	args     string
	consumer *fakeChannel
	rejected int
}

func newFake(t testing.TB, queues ...string) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, l: l, url: "amqp://guest:guest@" + l.Addr().String(), conns: make(map[*fakeConn]bool), queues: make(map[string]*fakeQueue)}
	for _, q := range queues {
		f.queues[q] = new(fakeQueue)
	}
	f.serve(l)
	t.Cleanup(func() {
		l.Close()
		f.cut()
		f.served.Wait()
	})
	return f
}

// serve takes connections until the listener is closed.
func (f *fake) serve(l net.Listener) {
	f.served.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := &fakeConn{fake: f, Conn: nc, channels: make(map[uint16]*fakeChannel)}
			f.mu.Lock()
			c.ignores = f.deaf
			f.conns[c] = true
			f.mu.Unlock()
			f.served.Go(c.serve)
		}
	})
}

// cut breaks all connections.
func (f *fake) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.Close()
	}
}

func (f *fake) publish(queue string, msgs ...fakeMessage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queues[queue]
	q.ready = append(q.ready, msgs...)
	q.deliver()
}

// do changes the broker.
func (f *fake) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// remove deletes a queue, as an administrator does, and tells its consumer.
func (f *fake) remove(queue string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ch := f.queues[queue].consumer; ch != nil {
		ch.unacked = nil
		ch.queue = nil
		ch.send(method(60, 30).str(ch.tag).octet(1))
	}
	delete(f.queues, queue)
}

// consumed waits for a consumer.
func (f *fake) consumed(queue string) {
	f.t.Helper()
	sourcetest.Eventually(f.t, "a consumer of "+queue, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.queues[queue] != nil && f.queues[queue].consumer != nil
	})
}

// settled waits until nothing is unacknowledged.
func (f *fake) settled(queue string) {
	f.t.Helper()
	sourcetest.Eventually(f.t, "acknowledgements", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		q := f.queues[queue]
		return len(q.ready) == 0 && (q.consumer == nil || len(q.consumer.unacked) == 0)
	})
}

type fakeConn struct {
	*fake
	net.Conn
	ignores  bool // acknowledgements
	channels map[uint16]*fakeChannel
}

type fakeChannel struct {
	conn     *fakeConn
	id       uint16
	prefetch int
	tag      string
	queue    *fakeQueue
	sent     uint64
	unacked  []unacked
}

type unacked struct {
	tag uint64
	fakeMessage
}

func (c *fakeConn) serve() {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, ch := range c.channels {
			ch.close()
		}
		delete(c.conns, c)
		c.Close()
	}()
	in := bufio.NewReader(c)
	if _, err := io.ReadFull(in, make([]byte, 8)); err != nil {
		return
	}
	c.mu.Lock()
	mute := c.mute
	if !mute {
		c.send(0, method(10, 10).octet(0).octet(9).long(0).longstr("PLAIN").longstr("en_US"))
	}
	c.mu.Unlock()
	for {
		var head [7]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		if head[0] != 1 { // a heartbeat
			continue
		}
		c.mu.Lock()
		ended := c.method(binary.BigEndian.Uint16(head[1:]), args(payload))
		c.mu.Unlock()
		if ended {
			return
		}
	}
}

// method does what a client wants, and reports whether the connection has ended.
func (c *fakeConn) method(channel uint16, a args) (ended bool) {
	if c.mute {
		return false
	}
	ch := c.channels[channel]
	switch class, id := a.short(), a.short(); [2]uint16{class, id} {
	case [2]uint16{10, 11}: // connection.start-ok
		c.send(0, method(10, 30).short(2047).long(131072).short(0))
	case [2]uint16{10, 31}: // tune-ok
	case [2]uint16{10, 40}: // open
		c.send(0, method(10, 41).str(""))
	case [2]uint16{10, 50}: // close
		c.send(0, method(10, 51))
		return true
	case [2]uint16{20, 10}: // channel.open
		c.channels[channel] = &fakeChannel{conn: c, id: channel}
		c.send(channel, method(20, 11).longstr(""))
	case [2]uint16{20, 40}: // close
		ch.close()
		ch.send(method(20, 41))
	case [2]uint16{20, 41}: // close-ok
	case [2]uint16{50, 10}: // queue.declare
		a.short()
		ch.declare(a.str(), a.octet(), string(a))
	case [2]uint16{50, 20}: // bind
		a.short()
		c.binds = append(c.binds, a.str(), a.str(), a.str())
		ch.send(method(50, 21))
	case [2]uint16{50, 40}: // delete
		a.short()
		delete(c.queues, a.str())
		ch.send(method(50, 41).long(0))
	case [2]uint16{60, 10}: // basic.qos
		a.long()
		ch.prefetch = int(a.short())
		ch.send(method(60, 11))
	case [2]uint16{60, 20}: // consume
		a.short()
		ch.queue, ch.tag = c.queues[a.str()], a.str()
		ch.send(method(60, 21).str(ch.tag))
		ch.queue.consumer = ch
		ch.queue.deliver()
	case [2]uint16{60, 80}, [2]uint16{60, 90}: // ack, reject
		ch.settle(a.longlong(), id == 90)
	default:
		c.t.Errorf("method %d.%d is not known here", class, id)
	}
	return false
}

func (ch *fakeChannel) send(w *writer) { ch.conn.send(ch.id, w) }

func (ch *fakeChannel) declare(name string, bits byte, args string) {
	if bits&1 != 0 && // passive
		ch.conn.queues[name] == nil {
		ch.send(method(20, 40).short(404).str("NOT_FOUND").short(50).short(10))
		return
	}
	if ch.conn.queues[name] == nil {
		ch.conn.queues[name] = &fakeQueue{bits: bits, args: args}
	}
	ch.send(method(50, 11).str(name).long(0).long(0))
}

func (ch *fakeChannel) settle(tag uint64, reject bool) {
	i := slices.IndexFunc(ch.unacked, func(u unacked) bool { return u.tag == tag })
	if i < 0 {
		if ch.queue != nil {
			ch.conn.t.Errorf("delivery tag %d is acknowledged, which is not known", tag)
		}
		return
	}
	if ch.conn.ignores {
		return
	}
	ch.conn.acks++
	if reject {
		ch.queue.rejected++
	}
	ch.unacked = slices.Delete(ch.unacked, i, i+1)
	ch.queue.deliver()
}

// close puts back what is not acknowledged.
func (ch *fakeChannel) close() {
	if ch == nil || ch.queue == nil {
		return
	}
	var back []fakeMessage
	for _, u := range ch.unacked {
		u.redelivered = true
		back = append(back, u.fakeMessage)
	}
	ch.queue.ready = append(back, ch.queue.ready...)
	if ch.queue.consumer == ch {
		ch.queue.consumer = nil
	}
	ch.queue, ch.unacked = nil, nil
}

// deliver sends what the consumer may have.
func (q *fakeQueue) deliver() {
	for ch := q.consumer; ch != nil && len(q.ready) > 0 && (ch.prefetch == 0 || len(ch.unacked) < ch.prefetch); {
		m := q.ready[0]
		q.ready = q.ready[1:]
		ch.sent++
		ch.unacked = append(ch.unacked, unacked{ch.sent, m})
		again := byte(0)
		if m.redelivered {
			again = 1
		}
		ch.send(method(60, 60).str(ch.tag).longlong(ch.sent).octet(again).str("exchange").str(m.key))
		mode := byte(2)
		if m.transient {
			mode = 1
		}
		head := new(writer).short(60).short(0).longlong(uint64(len(m.body))).short(1<<15 | 1<<14 | 1<<12).str(m.contentType).str(m.encoding).octet(mode)
		ch.conn.frame(2, ch.id, head.Bytes())
		for body := range slices.Chunk(m.body, 100_000) {
			ch.conn.frame(3, ch.id, body)
		}
	}
}

func (c *fakeConn) send(channel uint16, w *writer) { c.frame(1, channel, w.Bytes()) }

func (c *fakeConn) frame(kind byte, channel uint16, payload []byte) {
	w := new(writer).octet(kind).short(channel).long(uint32(len(payload)))
	w.Write(payload)
	_, _ = c.Write(w.octet(206).Bytes())
}

// A writer writes what AMQP calls fields.
type writer struct{ bytes.Buffer }

func method(class, id uint16) *writer { return new(writer).short(class).short(id) }

func (w *writer) octet(v byte) *writer {
	w.WriteByte(v)
	return w
}

func (w *writer) short(v uint16) *writer {
	w.Write(binary.BigEndian.AppendUint16(nil, v))
	return w
}

func (w *writer) long(v uint32) *writer {
	w.Write(binary.BigEndian.AppendUint32(nil, v))
	return w
}

func (w *writer) longlong(v uint64) *writer {
	w.Write(binary.BigEndian.AppendUint64(nil, v))
	return w
}

func (w *writer) str(v string) *writer {
	w.octet(byte(len(v)))
	w.WriteString(v)
	return w
}

func (w *writer) longstr(v string) *writer {
	w.long(uint32(len(v)))
	w.WriteString(v)
	return w
}

// args are what is left of a method's fields.
type args []byte

func (a *args) take(n int) []byte {
	b := (*a)[:n]
	*a = (*a)[n:]
	return b
}

func (a *args) octet() byte      { return a.take(1)[0] }
func (a *args) short() uint16    { return binary.BigEndian.Uint16(a.take(2)) }
func (a *args) long() uint32     { return binary.BigEndian.Uint32(a.take(4)) }
func (a *args) longlong() uint64 { return binary.BigEndian.Uint64(a.take(8)) }
func (a *args) str() string      { return string(a.take(int(a.octet()))) }
