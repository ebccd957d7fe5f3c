package wsconn_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/internal/wsconn"
)

const clientsEnv = "WSCONN_TEST_CLIENTS" // "ADDRESS COUNT": be a process of idle clients

func TestMain(m *testing.M) {
	if os.Getenv(clientsEnv) != "" {
		idleClients(os.Getenv(clientsEnv))
		return
	}
	os.Exit(m.Run())
}

// idleClients opens connections, says so, and holds them until its standard input ends.
func idleClients(arg string) {
	var addr string
	var count int
	must(fmt.Sscan(arg, &addr, &count))
	held := make([]*testnet.WS, count) // the collector closes what nobody holds
	for i := range held {
		ws, _, err := testnet.NewWS(must(net.Dial("tcp", addr)), "h", "/", nil)
		held[i] = must(ws, err)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(held)
}

// settle waits until no more than want goroutines run.
func settle(t testing.TB, want int) {
	t.Helper()
	for range 200 {
		if runtime.NumGoroutine() <= want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<20)
	t.Errorf("%d goroutines are left of %d:\n%s", runtime.NumGoroutine(), want, stacks[:runtime.Stack(stacks, true)])
}

// However a connection ends, Release leaves no goroutine, and no finalizer that closes the descriptor of another connection.
func TestReleaseLeavesNothingBehind(t *testing.T) {
	accepted := make(chan *wsconn.Conn, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted <- must(wsconn.Accept(w, r, wsconn.Options{}))
	}))
	defer srv.Close()
	time.Sleep(10 * time.Millisecond)
	baseline := runtime.NumGoroutine()
	kept := []net.Conn{}
	for i := range 100 {
		conn := must(net.Dial("tcp", srv.Listener.Addr().String()))
		ws, _, err := testnet.NewWS(conn, "h", "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		c := <-accepted
		switch i % 6 {
		case 0: // the peer closes
			ws.WriteClose(1000, "")
			c.Read()
		case 1: // the peer breaks the protocol
			ws.Conn.Write(testnet.AppendFrame(nil, 0xff, true, nil))
			c.Read()
		case 2: // the peer goes away
			ws.Close()
			c.Read()
		case 3: // the owner closes, and Read was never called
			c.NetConn().Close()
		case 4: // Release comes during a Read
			go c.Read()
		case 5: // the connection outlives the Conn
			kept = append(kept, c.NetConn())
			c.Release()
			continue
		}
		c.Release()
		c.NetConn().Close()
		ws.Close()
	}
	runtime.GC()
	runtime.GC()
	settle(t, baseline)
	for _, conn := range kept {
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Errorf("a connection that its owner has not closed: %v", err)
		}
		conn.Close()
	}
}

// BenchmarkIdle reports what an idle connection costs the server's process, its handler returned ("detached") or blocked.
func BenchmarkIdle(b *testing.B) {
	const conns = 1000
	for _, detached := range []bool{true, false} {
		name := "blocked"
		if detached {
			name = "detached"
		}
		b.Run(name, func(b *testing.B) {
			for range b.N {
				measureIdle(b, conns, detached)
			}
		})
	}
}

func measureIdle(b *testing.B, conns int, detached bool) {
	var reading, ended sync.WaitGroup
	var over atomic.Int64
	reading.Add(conns)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := must(wsconn.Accept(w, r, wsconn.Options{}))
		read := func() {
			reading.Done()
			c.Read()
			over.Add(1)
			finish(c)
		}
		if detached {
			ended.Go(read)
		} else {
			read()
		}
	}))
	defer srv.Close()
	before, goroutines := memory(), runtime.NumGoroutine()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientsEnv+"="+srv.Listener.Addr().String()+" "+strconv.Itoa(conns))
	stdin, stdout := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	must(0, cmd.Start())
	must(bufio.NewReader(stdout).ReadString('\n'))
	reading.Wait()
	time.Sleep(100 * time.Millisecond) // so that net/http's goroutines end
	heap, stack := memory().minus(before)
	if n := over.Load(); n != 0 {
		b.Fatalf("%d of %d connections have ended: the figures would mean nothing", n, conns)
	}
	b.ReportMetric(float64(heap)/float64(conns), "heap-B/conn")
	b.ReportMetric(float64(stack)/float64(conns), "stack-B/conn")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(conns), "goroutines/conn")
	stdin.Close()
	must(0, cmd.Wait())
	ended.Wait()
}

type usage runtime.MemStats

func memory() *usage {
	runtime.GC()
	runtime.GC()
	m := new(runtime.MemStats)
	runtime.ReadMemStats(m)
	return (*usage)(m)
}

func (u *usage) minus(v *usage) (heap, stack int64) {
	return int64(u.HeapAlloc) - int64(v.HeapAlloc), int64(u.StackInuse) - int64(v.StackInuse)
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{10, 1000, 60_000} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			l := testnet.Listen()
			accepted := make(chan *wsconn.Conn, 1)
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				accepted <- must(wsconn.Accept(w, r, wsconn.Options{}))
			})}
			go srv.Serve(l)
			defer srv.Close()
			ws := must(testnet.DialWS(b.Context(), l, "/", nil))
			defer ws.Close()
			c := <-accepted
			defer finish(c)
			frame := testnet.AppendFrame(nil, fin|text, true, make([]byte, size))
			go func() {
				for range b.N {
					ws.Conn.Write(frame)
				}
			}()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, _, err := c.Read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAccept(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := must(wsconn.Accept(w, r, wsconn.Options{}))
		c.Read()
		finish(c)
	}))
	defer srv.Close()
	b.ReportAllocs()
	for b.Loop() {
		ws, _, err := testnet.NewWS(must(net.Dial("tcp", srv.Listener.Addr().String())), "h", "/", nil)
		if err != nil {
			b.Fatal(err)
		}
		ws.Close()
	}
}
