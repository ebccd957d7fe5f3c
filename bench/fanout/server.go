package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/pprof"
	"time"
)

// A server is what is measured. It is served on a listener; its connections come before its messages.
type server interface {
	// serve serves until the listener is closed.
	serve(l net.Listener) error
	// viewers is how many connections would get what is published now.
	viewers() int
	// publish sends a message to all viewers of the topic, and may wait for them. The server may keep it.
	publish(topic uint8, m []byte) error
}

// An atOnce is a server that has a way of its own for many messages at once.
type atOnce interface {
	// prepare comes before the measuring. It returns the messages where they are sent from, since their time is set once more.
	prepare(messages [][]byte) [][]byte
	sendAll() error
}

// A lagger is a server that can tell how far behind the slowest connection is, in bytes.
type lagger interface{ lag() uint64 }

// serverMain is the server of one run: it is told the spec, says where it listens, is told to begin and when to stop measuring,
// and says what it has used.
func serverMain() int {
	w := newWire(os.Stdin, os.Stdout)
	var s spec
	if err := w.hear(&s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	r, err := runServer(&s, w)
	if err != nil {
		r = &sent{Err: err.Error()}
	}
	if err := w.tell(r); err != nil {
		return 2
	}
	_, _ = w.in.ReadByte() // the client looks for what comes twice: the connections stay until the driver is done
	return 0
}

func runServer(s *spec, w *wire) (*sent, error) {
	k := kindOf(s.Server)
	if k == nil {
		return nil, fmt.Errorf("there is no server %q", s.Server)
	}
	srv, err := k.make(s)
	if err != nil {
		return nil, err
	}
	l, at, err := listen(s)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.serve(l) }()
	before, err := measureMemory()
	if err != nil {
		return nil, err
	}
	if err := w.tell(at); err != nil {
		return nil, err
	}
	var order string
	if err := w.hear(&order); err != nil {
		return nil, err
	}
	if err := await(srv, s.Conns+s.Stalled, failed); err != nil {
		return nil, err
	}
	var idle *idleCost
	if s.idle() || s.Weigh {
		after, err := measureMemory()
		if err != nil {
			return nil, err
		}
		idle = after.since(before, s.Conns)
	}
	if s.idle() {
		return &sent{Idle: idle}, nil
	}
	r, err := measureSending(s, srv, w)
	if err == nil {
		r.Idle = idle
	}
	return r, err
}

// await waits until the server has all connections: each has been answered, but that may be before it is entered.
func await(srv server, n int, failed <-chan error) error {
	for began := time.Now(); srv.viewers() != n; {
		select {
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(began) > 30*time.Second {
			return fmt.Errorf("%d connections of %d", srv.viewers(), n)
		}
	}
	return nil
}

// measureSending sends, and measures until the client says that it has everything.
func measureSending(s *spec, srv server, w *wire) (*sent, error) {
	runtime.GC() // what the handshakes have left
	if err := forgetPeak(); err != nil {
		return nil, err
	}
	send := func() error { return produce(s, srv) }
	if s.burst() {
		send = prepare(s, srv)
	}
	if s.Profile != "" {
		f, err := os.Create(s.Profile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	user, system := cpu()
	if err := send(); err != nil {
		return nil, fmt.Errorf("sending: %w", err)
	}
	if l, ok := srv.(lagger); ok && s.Stalled > 0 && l.lag() == 0 {
		return nil, errors.New("no connection has stalled: there is room for all in the buffers")
	}
	var order string
	if err := w.hear(&order); err != nil {
		return nil, err
	}
	u, sys := cpu()
	now, peak, err := rss()
	return &sent{User: u - user, System: sys - system, RSS: now, PeakRSS: peak}, err
}

// prepare makes all messages, which are due at once, and returns what sends them.
func prepare(s *spec, srv server) (send func() error) {
	messages := make([][]byte, s.Count)
	for seq := range messages {
		messages[seq] = newMessage(0, uint32(seq), 0, s.Size)
	}
	there := messages
	all, ok := srv.(atOnce)
	if ok {
		there = all.prepare(messages)
	}
	runtime.GC()
	now := time.Now().UnixNano()
	for _, m := range there {
		setDue(m, now)
	}
	if ok {
		return all.sendAll
	}
	return func() error {
		for _, m := range messages {
			if err := srv.publish(0, m); err != nil {
				return err
			}
		}
		return nil
	}
}

// produce publishes to a schedule. The topics take turns.
func produce(s *spec, srv server) error {
	step := time.Second / time.Duration(s.Rate)
	due := time.Now()
	for seq := range s.Count {
		for topic := range s.Topics {
			time.Sleep(time.Until(due))
			if err := srv.publish(uint8(topic), newMessage(uint8(topic), uint32(seq), due.UnixNano(), s.Size)); err != nil {
				return err
			}
			due = due.Add(step)
		}
	}
	return nil
}

// listen listens, with TLS where the spec says so.
func listen(s *spec) (net.Listener, *address, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	at := &address{Addr: l.Addr().String()}
	if !s.tls() {
		return l, at, nil
	}
	cert, err := newCertificate()
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	at.Cert = cert.Certificate[0]
	c := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	if s.Transport == overSSEh2 {
		c.NextProtos = []string{"h2"}
	}
	return tls.NewListener(l, c), at, nil
}

func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// web serves a handler of net/http, as all of them do that have one.
type web struct{ handler http.Handler }

func (w *web) serve(l net.Listener) error {
	s := &http.Server{Handler: w.handler, ReadHeaderTimeout: time.Minute}
	return s.Serve(l)
}
