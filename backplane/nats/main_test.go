package nats_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

// The test's program is also what is killed: a nats-server, or a node. It says where it listens, and goes on until it is killed, or
// whoever has started it is gone.
const (
	roleEnv  = "TAILCAST_TEST_ROLE"
	portEnv  = "TAILCAST_TEST_PORT"
	storeEnv = "TAILCAST_TEST_STORE"
	urlEnv   = "TAILCAST_TEST_URL"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "broker":
		beBroker()
	case "node":
		beNode()
	default:
		os.Exit(m.Run())
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // its end is that of the test
}

func beBroker() {
	port, _ := strconv.Atoi(os.Getenv(portEnv))
	opts := &server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true, JetStream: true, StoreDir: os.Getenv(storeEnv)}
	s, err := server.NewServer(opts)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		os.Exit(1)
	}
	fmt.Println("listens", s.Addr())
}

func beNode() {
	hub := tailcast.New(tailcast.WithBackplane(nats.New(nats.Config{URL: os.Getenv(urlEnv)})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	go http.Serve(l, hub)
	fmt.Println("listens", l.Addr())
}

// A child is such a program.
type child struct {
	t    testing.TB
	env  []string
	cmd  *exec.Cmd
	addr string
}

func newChild(t testing.TB, role string, env ...string) *child {
	t.Helper()
	c := &child{t: t, env: append(os.Environ(), append(env, roleEnv+"="+role)...)}
	c.start()
	t.Cleanup(c.kill)
	return c
}

func (c *child) start() {
	c.t.Helper()
	c.cmd = exec.Command(os.Args[0], "-test.run=^$")
	c.cmd.Env, c.cmd.Stderr = c.env, os.Stderr
	if _, err := c.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listens ")
	if !ok {
		c.t.Fatalf("%q, %v", line, err)
	}
	c.addr = addr
}

// kill kills it, with SIGKILL.
func (c *child) kill() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.cmd = nil
}

// newBrokerProcess returns a broker that can be killed, on a port that stays the same.
func newBrokerProcess(t testing.TB) *child {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	return newChild(t, "broker", fmt.Sprint(portEnv, "=", port), storeEnv+"="+t.TempDir())
}

// soak chooses what is done: a little in the gate, and all of it with ITEST_SOAK=1.
func soak(gate, full int) int {
	if os.Getenv("ITEST_SOAK") == "1" {
		return full
	}
	return gate
}
