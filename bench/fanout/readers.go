package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Readers read connections with TLS, each on a goroutine, since crypto/tls cannot be polled.
type readers struct {
	client *client
	seen   atomic.Int64
	wg     sync.WaitGroup

	mu   sync.Mutex
	list []*reader
}

type reader struct {
	*checker
	tally
	rest []byte
	src  io.Reader
	end  func()
}

// dial makes a connection.
func (r *readers) dial() error {
	trust, err := r.client.addr.trust()
	if err != nil {
		return err
	}
	c := &reader{}
	var f framing
	if r.client.spec.Transport == overSSEh2 {
		f = unbound
		c.src, c.end, err = dialH2(r.client.addr.Addr, trust)
	} else {
		f, err = c.dialTLS(r.client, trust)
	}
	if err != nil {
		return err
	}
	c.checker = newChecker(f, r.client.spec, &c.tally)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, c)
	return nil
}

func (c *reader) dialTLS(cl *client, trust *tls.Config) (framing, error) {
	trust.NextProtos = []string{"http/1.1"}
	nc, err := tls.Dial("tcp4", cl.addr.Addr, trust)
	if err != nil {
		return 0, err
	}
	var f framing
	if f, c.rest, err = cl.spec.shake(nc, cl.addr.Addr); err != nil {
		return 0, errors.Join(err, nc.Close())
	}
	c.src, c.end = nc, func() { nc.Close() }
	return f, nil
}

// dialH2 asks for an event stream on a connection of its own.
func dialH2(addr string, trust *tls.Config) (io.Reader, func(), error) {
	t := &http.Transport{
		TLSClientConfig: trust, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp4", addr)
		},
	}
	req, err := http.NewRequest(http.MethodGet, "https://localhost/t", nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	ctx, cancel := context.WithCancel(context.Background())
	resp, err := t.RoundTrip(req.WithContext(ctx))
	if err == nil && (resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2) {
		err = fmt.Errorf("the server answers %s %s", resp.Proto, resp.Status)
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return resp.Body, func() { cancel(); t.CloseIdleConnections() }, nil
}

func (r *readers) begin(stop <-chan struct{}) {
	for _, c := range r.list {
		r.wg.Go(func() { r.read(c, stop) })
	}
}

func (r *readers) read(c *reader, stop <-chan struct{}) {
	buf := make([]byte, 16<<10)
	for {
		if len(c.rest) > len(buf)/2 {
			buf = make([]byte, 4*len(c.rest))
		}
		held := copy(buf, c.rest)
		n, err := c.src.Read(buf[held:])
		missed, before := c.open > 0, c.Delivered
		if n > 0 {
			var rest []byte
			var ferr error
			rest, ferr = c.feed(buf[:held+n], time.Now().UnixNano())
			c.rest = append(c.rest[:0], rest...)
			err = errors.Join(ferr, err)
		}
		r.seen.Add(c.Delivered - before)
		if missed && (c.open == 0 || err != nil) {
			r.client.settle()
		}
		if err != nil {
			select {
			case <-stop:
			default:
				c.closed(err)
			}
			return
		}
	}
}

func (r *readers) progress() int64 { return r.seen.Load() }

func (r *readers) finish() *tally {
	for _, c := range r.list {
		c.end()
	}
	r.wg.Wait()
	sum := &tally{}
	for _, c := range r.list {
		sum.add(&c.tally)
	}
	return sum
}

// trust is the configuration of a client of the server's.
func (a *address) trust() (*tls.Config, error) {
	cert, err := x509.ParseCertificate(a.Cert)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}, nil
}
