//lint:file-ignore SA1019 The WebSocket library is the one that tailcast stands on: see its CONTRIBUTING.

package mqtt

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"nhooyr.io/websocket"
)

// A server is where a broker listens.
type server struct {
	url       *url.URL
	address   string // host and port
	tls       bool
	webSocket bool
}

// String leaves out what may be secret.
func (s *server) String() string { return s.url.Scheme + "://" + s.url.Host }

// parseServer reads a URL of Source.Servers. Its errors do not tell a password.
func parseServer(text string) (*server, error) {
	u, err := url.Parse(text)
	if err != nil { // which might tell the password
		return nil, errors.New("a server's URL is none; what is reserved in a password has to be percent-encoded")
	}
	s := &server{url: u}
	var port string
	switch strings.ToLower(u.Scheme) {
	case "mqtt", "tcp":
		port = "1883"
	case "mqtts", "tls", "ssl":
		port, s.tls = "8883", true
	case "ws":
		port, s.webSocket = "80", true
	case "wss":
		port, s.tls, s.webSocket = "443", true, true
	default:
		return nil, fmt.Errorf("server %s: the scheme must be mqtt, mqtts, ws or wss", s)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("server %s: no host", s)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	s.address = net.JoinHostPort(u.Hostname(), port)
	return s, nil
}

const dialTimeout = 10 * time.Second // for each server

// dial connects to the first server that can be reached, beginning with the one that has served last.
func (s *Source) dial(ctx context.Context, servers []*server) (*conn, *server, error) {
	var errs []error
	for range servers {
		to := servers[s.server%len(servers)]
		nc, err := s.dialServer(ctx, to)
		if err == nil {
			return newConn(nc), to, nil
		}
		errs = append(errs, fmt.Errorf("server %s: %w", to, err))
		s.server++
	}
	return nil, nil, errors.Join(errs...)
}

func (s *Source) dialServer(ctx context.Context, to *server) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := s.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if to.webSocket {
		return s.dialWebSocket(ctx, to, dial)
	}
	nc, err := dial(ctx, "tcp", to.address)
	if err != nil || !to.tls {
		return nc, err
	}
	config := s.TLS.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	if config.ServerName == "" {
		config.ServerName = to.url.Hostname()
	}
	tc := tls.Client(nc, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

// dialWebSocket does as section 6 of the MQTT standard says.
func (s *Source) dialWebSocket(ctx context.Context, to *server, dial func(context.Context, string, string) (net.Conn, error)) (net.Conn, error) {
	u := *to.url
	u.User = nil // that is for the broker
	transport := &http.Transport{DialContext: dial, TLSClientConfig: s.TLS, DisableKeepAlives: true}
	if s.Dial == nil {
		transport.Proxy = http.ProxyFromEnvironment
	}
	ws, _, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport},
		Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary), nil
}

// A conn is a connection to a broker. The client reads in crumbs and writes a packet in pieces, between Lock and Unlock: they
// are gathered here.
type conn struct {
	net.Conn
	in *bufio.Reader

	packet sync.Mutex // held while a packet is written; guards the rest
	out    bytes.Buffer
	err    error
}

var _ sync.Locker = (*conn)(nil)

func newConn(nc net.Conn) *conn { return &conn{Conn: nc, in: bufio.NewReaderSize(nc, 16<<10)} }

func (c *conn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *conn) Lock() { c.packet.Lock() }

// Write takes a piece of a packet. The caller holds the lock.
func (c *conn) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	return c.out.Write(p)
}

// Unlock writes the packet. If that fails the connection has ended, which its reader is told.
func (c *conn) Unlock() {
	defer c.packet.Unlock()
	if c.err == nil {
		_, c.err = c.Conn.Write(c.out.Bytes())
	}
	if c.err != nil {
		c.Conn.Close()
	}
	c.out.Reset()
}
