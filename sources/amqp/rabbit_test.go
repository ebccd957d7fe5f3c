package amqp_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast/sources/internal/sourcetest"
)

// A rabbit is Debian's RabbitMQ, on ports and with files of its own.
type rabbit struct {
	dir, server, port, epmd string
	url                     string
	cmd                     *exec.Cmd
	stdin                   io.Closer // which ends it
}

var theRabbit struct {
	sync.Mutex
	*rabbit
}

func TestMain(m *testing.M) {
	code := m.Run()
	if r := theRabbit.rabbit; r != nil {
		r.kill()
		_ = exec.Command("epmd", "-port", r.epmd, "-kill").Run() // the daemon that Erlang has left behind
		os.RemoveAll(r.dir)
	}
	os.Exit(code)
}

// newRabbit returns the server that all tests share. It takes some 10 s to start.
func newRabbit(t testing.TB) *rabbit {
	t.Helper()
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("RabbitMQ takes long to start")
	}
	server := sourcetest.Component(t, "/usr/lib/rabbitmq/bin/rabbitmq-server") // the one in the PATH changes the user
	theRabbit.Lock()
	defer theRabbit.Unlock()
	if theRabbit.rabbit == nil {
		dir, err := os.MkdirTemp("", "rabbit")
		if err != nil {
			t.Fatal(err)
		}
		r := &rabbit{dir: dir, server: server, port: freePort(t), epmd: freePort(t)}
		r.url = "amqp://guest:guest@127.0.0.1:" + r.port
		theRabbit.rabbit = r
		r.start(t)
	}
	return theRabbit.rabbit
}

// freePort returns one below those that the system gives to outgoing connections. Otherwise, while RabbitMQ is being started again, one of
// these may have its port: even one that was dialled to it, and has reached itself.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20_000 + rand.IntN(12_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (r *rabbit) start(t testing.TB) {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(r.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	plugins := filepath.Join(r.dir, "plugins")
	if err := os.WriteFile(plugins, []byte("[]."), 0o644); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command("sh", "-c", `"$0" </dev/null & read end; kill -9 0`, r.server) // it ends with this process, however that ends
	r.cmd.Env = append(os.Environ(),
		"HOME="+r.dir, // for Erlang's cookie
		"RABBITMQ_NODENAME=test"+r.port+"@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+r.port, "RABBITMQ_DIST_PORT="+freePort(t),
		"ERL_EPMD_PORT="+r.epmd, "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_RELAXED_COMMAND_CHECK=1",
		"RABBITMQ_MNESIA_BASE="+r.dir+"/db", "RABBITMQ_LOG_BASE="+r.dir+"/log", "RABBITMQ_CONFIG_FILE="+r.dir+"/none",
		"RABBITMQ_GENERATED_CONFIG_DIR="+r.dir+"/config", "RABBITMQ_ENABLED_PLUGINS_FILE="+plugins, "RABBITMQ_LOGS=-",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1:1 +sbwt none", // no busy waiting
	)
	r.cmd.Stdout, r.cmd.Stderr = out, out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if r.stdin, err = r.cmd.StdinPipe(); err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(sourcetest.Patience); ; time.Sleep(50 * time.Millisecond) { // until it listens, of which nothing tells
		c, err := amqp091.Dial(r.url)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(out.Name())
			t.Fatalf("RabbitMQ does not start: %v\n%s", err, said)
		}
	}
}

// kill ends the broker with SIGKILL.
func (r *rabbit) kill() {
	r.stdin.Close()
	_ = r.cmd.Wait()
}

// A publisher publishes persistent messages, each until the broker has confirmed it.
type publisher struct {
	t    testing.TB
	url  string
	conn *amqp091.Connection
	ch   *amqp091.Channel
}

func (p *publisher) connect() (err error) {
	if p.conn, err = amqp091.Dial(p.url); err != nil {
		return err
	}
	if p.ch, err = p.conn.Channel(); err == nil {
		err = p.ch.Confirm(false)
	}
	return err
}

func (p *publisher) publish(exchange, key, data string) {
	p.t.Helper()
	for deadline := time.Now().Add(sourcetest.Patience); ; time.Sleep(10 * time.Millisecond) { // the broker may be away
		err := p.try(exchange, key, data)
		if err == nil {
			return
		}
		p.close()
		if time.Now().After(deadline) {
			p.t.Errorf("publish: %v", err)
			return
		}
	}
}

func (p *publisher) try(exchange, key, data string) error {
	if p.conn == nil {
		if err := p.connect(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), sourcetest.Patience)
	defer cancel()
	confirm, err := p.ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false,
		amqp091.Publishing{Body: []byte(data), DeliveryMode: amqp091.Persistent, ContentType: "text/plain"})
	if err != nil {
		return err
	}
	ok, err := confirm.WaitContext(ctx)
	if err == nil && !ok {
		err = fmt.Errorf("not confirmed")
	}
	return err
}

func (p *publisher) close() {
	if p.conn != nil {
		p.conn.Close()
	}
	p.conn = nil
}

// setUp is for exchanges and queues.
func setUp(t testing.TB, url string, f func(ch *amqp091.Channel) error) {
	t.Helper()
	conn, err := amqp091.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err == nil {
		err = f(ch)
	}
	if err != nil {
		t.Fatal(err)
	}
}
