package nats_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
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
	// What a member of a cluster has in addition: its name, the port for the others, and theirs.
	nameEnv   = "TAILCAST_TEST_NAME"
	memberEnv = "TAILCAST_TEST_MEMBER"
	routesEnv = "TAILCAST_TEST_ROUTES"
	// listenEnv is where a node listens, if not on a free port: the path of a socket.
	listenEnv = "TAILCAST_TEST_LISTEN"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "broker":
		beBroker()
	case "node":
		beNode()
		return
	default:
		os.Exit(m.Run())
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // its end is that of the test
}

func beBroker() {
	port, _ := strconv.Atoi(os.Getenv(portEnv))
	opts := &server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true, JetStream: true, StoreDir: os.Getenv(storeEnv)}
	if name := os.Getenv(nameEnv); name != "" {
		opts.ServerName = name
		opts.Cluster.Name, opts.Cluster.Host = "tailcast", "127.0.0.1"
		opts.Cluster.Port, _ = strconv.Atoi(os.Getenv(memberEnv))
		opts.Routes = server.RoutesFromStr(os.Getenv(routesEnv))
	}
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
	network, address := "tcp", "127.0.0.1:0"
	if path := os.Getenv(listenEnv); path != "" {
		network, address = "unix", path
	}
	l, err := net.Listen(network, address)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	go http.Serve(l, hub)
	fmt.Println("listens", l.Addr())
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() { // "who n": publish n messages
		who, number, _ := strings.Cut(orders.Text(), " ")
		n, _ := strconv.Atoi(number)
		go func() {
			if err := publishOneByOne(context.Background(), hub, who, n); err != nil {
				fmt.Fprintln(os.Stderr, "publish:", err)
				os.Exit(1)
			}
		}()
	}
}

// A child is such a program.
type child struct {
	t    testing.TB
	env  []string
	wrap []string // what the program is started with, before its own name
	cmd  *exec.Cmd
	in   io.Writer // its standard input
	addr string
}

func childEnv(role string) []string { return append(os.Environ(), roleEnv+"="+role) }

func newChild(t testing.TB, role string, env ...string) *child {
	t.Helper()
	c := &child{t: t, env: append(childEnv(role), env...)}
	t.Cleanup(c.kill)
	c.start()
	return c
}

func (c *child) start() {
	c.t.Helper()
	if err := c.tryStart(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *child) tryStart() error {
	args := append(c.wrap[:len(c.wrap):len(c.wrap)], os.Args[0], "-test.run=^$")
	c.cmd = exec.Command(args[0], args[1:]...)
	c.cmd.Env, c.cmd.Stderr = c.env, os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return err
	}
	c.in = in
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listens ")
	if !ok {
		return fmt.Errorf("it says %q: %w", line, err)
	}
	c.addr = addr
	return nil
}

// kill kills it, with SIGKILL.
func (c *child) kill() {
	if c.cmd == nil || c.cmd.Process == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.cmd = nil
}

// newBrokerProcess returns a broker that can be killed, on a port that stays the same.
func newBrokerProcess(t testing.TB) *child {
	return newChild(t, "broker", fmt.Sprint(portEnv, "=", freePorts(t, 1)[0]), storeEnv+"="+t.TempDir())
}

// freePorts returns ports that nobody listens on, at present, and that the system gives to nobody who does not ask for them: what is
// killed has to get its port again.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for tries := 0; len(ports) < n; tries++ {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			if tries == 1000 {
				t.Fatal(err)
			}
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	return ports
}

// soak chooses what is done: a little in the gate, and all of it with ITEST_SOAK=1.
func soak(gate, full int) int {
	if os.Getenv("ITEST_SOAK") == "1" {
		return full
	}
	return gate
}
