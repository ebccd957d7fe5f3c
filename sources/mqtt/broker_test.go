package mqtt_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"

	"github.com/tailcast/tailcast/sources/internal/sourcetest"
)

type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// An embedded broker lives in this process.
type embedded struct {
	*mochi.Server
	url    string
	l      net.Listener
	served sync.WaitGroup // its own has a race with Close

	mu    sync.Mutex // guards the rest
	over  bool
	conns []net.Conn
}

// newEmbedded starts a broker that lets everybody in, unless it gets hooks of its own; with TLS if config is set.
func newEmbedded(t testing.TB, config *tls.Config, caps func(*mochi.Capabilities), hooks ...mochi.Hook) *embedded {
	t.Helper()
	opts := &mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler), Capabilities: mochi.NewDefaultServerCapabilities()}
	if caps != nil {
		caps(opts.Capabilities)
	}
	b := &embedded{Server: mochi.New(opts)}
	if len(hooks) == 0 {
		hooks = []mochi.Hook{new(auth.AllowHook)}
	}
	for _, h := range hooks {
		if err := b.AddHook(h, nil); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.url = "mqtt://" + l.Addr().String()
	if config != nil {
		l = tls.NewListener(l, config)
		b.url = "mqtts://" + l.Addr().String()
	}
	b.l = l
	if err := b.Serve(); err != nil {
		t.Fatal(err)
	}
	b.served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.served.Go(func() { b.attach(c) })
		}
	})
	t.Cleanup(func() {
		b.kill()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// attach serves a connection.
func (b *embedded) attach(c net.Conn) {
	b.mu.Lock()
	over := b.over
	b.conns = append(b.conns, c)
	b.mu.Unlock()
	if over {
		c.Close()
	}
	_ = b.EstablishConnection("main", c)
}

// kill ends the broker as far as its clients can see.
func (b *embedded) kill() {
	b.l.Close()
	b.mu.Lock()
	b.over = true
	for _, c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.served.Wait()
}

// publish publishes when all is acknowledged: the broker has a deadlock if it does both at the same time.
func (b *embedded) publish(t testing.TB, topic, data string, retain bool, qos byte) {
	t.Helper()
	b.acknowledged(t)
	if err := b.Publish(topic, []byte(data), retain, qos); err != nil {
		t.Fatal(err)
	}
}

// subscribed waits until a client has a subscription.
func (b *embedded) subscribed(t testing.TB, filter string) {
	t.Helper()
	sourcetest.Eventually(t, "a subscription to "+filter, func() bool {
		for _, c := range b.Clients.GetAll() {
			if _, ok := c.State.Subscriptions.Get(filter); ok && !c.Closed() {
				return true
			}
		}
		return false
	})
}

// acknowledged waits until no client owes an acknowledgement.
func (b *embedded) acknowledged(t testing.TB) {
	t.Helper()
	sourcetest.Eventually(t, "the acknowledgements", func() bool {
		for _, c := range b.Clients.GetAll() {
			if c.State.Inflight.Len() > 0 {
				return false
			}
		}
		return true
	})
}

// A mosquitto is Debian's broker, which keeps what it has in a file when it is told to stop.
type mosquitto struct {
	dir, path string
	cmd       *exec.Cmd
	stdin     io.Closer // which ends it
	out       bytes.Buffer
}

func newMosquitto(t testing.TB) *mosquitto {
	t.Helper()
	path := sourcetest.Component(t, "mosquitto", "/usr/sbin/mosquitto") // which is not in everybody's PATH
	dir, err := os.MkdirTemp("", "mqtt")                                // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &mosquitto{dir: dir, path: path}
	config := fmt.Sprintf("listener 0 %s\nuser root\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\n",
		b.socket(), dir)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	t.Cleanup(func() { b.stop(t) })
	return b
}

func (b *mosquitto) socket() string { return filepath.Join(b.dir, "s") }

func (b *mosquitto) start(t testing.TB) {
	t.Helper()
	// It ends with this process, however that ends.
	b.cmd = exec.Command("sh", "-c", `"$0" -c "$1" </dev/null & read end; kill $!; wait $!`, b.path, filepath.Join(b.dir, "conf"))
	b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
	var err error
	if b.stdin, err = b.cmd.StdinPipe(); err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	sourcetest.Eventually(t, "mosquitto to listen", func() bool {
		c, err := net.Dial("unix", b.socket())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// stop ends the broker as its init system would.
func (b *mosquitto) stop(t testing.TB) {
	t.Helper()
	if b.cmd.ProcessState != nil {
		return
	}
	b.stdin.Close()
	if err := b.cmd.Wait(); err != nil {
		t.Errorf("mosquitto: %v\n%s", err, &b.out)
	}
}

func (b *mosquitto) restart(t testing.TB) {
	t.Helper()
	b.stop(t)
	b.start(t)
}

func (b *mosquitto) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", b.socket())
}

// A client publishes, and makes sessions for others to find.
type client struct {
	t      testing.TB
	dial   dialer
	id     string
	expiry uint32
	c      *paho.Client
}

func (c *client) connect() error {
	conn, err := c.dial(context.Background(), "", "")
	if err != nil {
		return err
	}
	c.c = paho.NewClient(paho.ClientConfig{Conn: packets.NewThreadSafeConn(conn), PacketTimeout: sourcetest.Patience})
	_, err = c.c.Connect(context.Background(), &paho.Connect{ClientID: c.id, Properties: &paho.ConnectProperties{SessionExpiryInterval: &c.expiry}})
	if err != nil {
		c.c = nil // which can't be closed
	}
	return err
}

// publish publishes until the broker says that it has the message.
func (c *client) publish(topic, data string, qos byte) {
	c.t.Helper()
	for deadline := time.Now().Add(sourcetest.Patience); ; time.Sleep(2 * time.Millisecond) { // the broker may be away
		var err error
		if c.c == nil {
			err = c.connect()
		}
		if err == nil {
			_, err = c.c.Publish(context.Background(), &paho.Publish{Topic: topic, Payload: []byte(data), QoS: qos})
		}
		if err == nil {
			return
		}
		c.close()
		if time.Now().After(deadline) {
			c.t.Errorf("publish: %v", err)
			return
		}
	}
}

func (c *client) close() {
	if c.c != nil {
		_ = c.c.Disconnect(new(paho.Disconnect))
	}
	c.c = nil
}

// leaveSession makes a session with a subscription, so that the broker keeps what comes.
func leaveSession(t testing.TB, dial dialer, id, filter string, qos byte) {
	t.Helper()
	c := &client{t: t, dial: dial, id: id, expiry: 3600}
	if err := c.connect(); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	_, err := c.c.Subscribe(context.Background(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	if err != nil {
		t.Fatal(err)
	}
}

// A line is a network that somebody cuts.
type line struct {
	to dialer

	mu     sync.Mutex // guards the rest
	conns  map[net.Conn]bool
	dials  int // so far
	writes int // after which a new connection becomes deaf, and then breaks; 0 for never
}

func (l *line) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := l.to(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[net.Conn]bool)
	}
	l.dials++
	fc := &frailConn{Conn: c, line: l, writes: l.writes}
	l.conns[fc] = true
	return fc, nil
}

// cut breaks all connections.
func (l *line) cut() {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.Close()
	}
}

// A frailConn loses what is written, after some writes, and then breaks.
type frailConn struct {
	net.Conn
	line   *line
	mu     sync.Mutex // guards the rest
	writes int
	done   int
}

const lastWords = 3 // writes that are lost before the connection breaks

func (c *frailConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.done++
	deaf, broken := c.writes > 0 && c.done > c.writes, c.writes > 0 && c.done > c.writes+lastWords
	c.mu.Unlock()
	switch {
	case broken:
		c.Close()
		return 0, io.ErrClosedPipe
	case deaf:
		return len(p), nil
	}
	return c.Conn.Write(p)
}
