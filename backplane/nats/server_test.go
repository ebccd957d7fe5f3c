package nats_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

// A broker is a nats-server within the test's process.
type broker struct {
	t    testing.TB
	opts server.Options

	mu sync.Mutex
	s  *server.Server
}

func newBroker(t testing.TB) *broker {
	t.Helper()
	b := &broker{t: t, opts: server.Options{Host: "127.0.0.1", Port: freePorts(t, 1)[0], NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir()}}
	b.start()
	t.Cleanup(b.stop)
	return b
}

// start starts it, on the port that it had before.
func (b *broker) start() {
	b.t.Helper()
	opts := b.opts
	s, err := server.NewServer(&opts)
	if err != nil {
		b.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		b.t.Fatal("the server is not ready")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s = s
}

func (b *broker) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Shutdown()
	b.s.WaitForShutdown()
}

func (b *broker) url() string { return fmt.Sprintf("nats://%s:%d", b.opts.Host, b.opts.Port) }

// plane returns a Backplane at it, which is closed after the test.
func (b *broker) plane(change ...func(*nats.Config)) *nats.Backplane {
	c := nats.Config{URL: b.url(), Node: fmt.Sprint(len(change))}
	for _, f := range change {
		f(&c)
	}
	p := nats.New(c)
	b.t.Cleanup(func() { p.Close() })
	return p
}

// hub returns one with a Backplane at the broker.
func (b *broker) hub(opts ...tailcast.Option) *tailcast.Hub {
	hub := tailcast.New(append(opts, tailcast.WithBackplane(b.plane()))...)
	b.t.Cleanup(func() {
		if err := hub.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return hub
}
