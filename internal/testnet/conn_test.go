package testnet_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

// both runs f in a bubble and outside of one: the conditions of a Conn must be durable in the one and plain in the other.
func both(t *testing.T, f func(t *testing.T)) {
	t.Run("in a bubble", func(t *testing.T) { synctest.Test(t, f) })
	t.Run("outside", f)
}

func TestConnCarriesBytesBothWays(t *testing.T) {
	both(t, func(t *testing.T) {
		client, server := testnet.Pipe(7) // smaller than the messages, so that writers must wait for readers
		defer client.Close()
		defer server.Close()
		var wg sync.WaitGroup
		for _, ends := range [][2]*testnet.Conn{{client, server}, {server, client}} {
			sent := make([]byte, 10_000)
			for i := range sent {
				sent[i] = byte(rand.Uint32())
			}
			wg.Go(func() {
				if n, err := ends[0].Write(sent); n != len(sent) || err != nil {
					t.Errorf("Write = %d, %v", n, err)
				}
				if err := ends[0].CloseWrite(); err != nil {
					t.Errorf("CloseWrite = %v", err)
				}
			})
			wg.Go(func() {
				got, err := io.ReadAll(ends[1])
				if err != nil || !bytes.Equal(got, sent) {
					t.Errorf("read %d bytes of %d, equal %v, error %v", len(got), len(sent), bytes.Equal(got, sent), err)
				}
			})
		}
		wg.Wait()
	})
}

func TestConnEnds(t *testing.T) {
	buf := make([]byte, 16)
	t.Run("after the peer's Close a Read returns the rest and then EOF, and a Write fails", func(t *testing.T) {
		client, server := testnet.Pipe(0)
		server.Write([]byte("rest"))
		server.Close()
		if got, err := io.ReadAll(client); string(got) != "rest" || err != nil {
			t.Errorf("ReadAll = %q, %v", got, err)
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write = %v, want EPIPE", err)
		}
		if _, err := client.TryWrite([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("TryWrite = %v, want EPIPE", err)
		}
	})
	t.Run("after CloseWrite this end still reads and the peer still writes", func(t *testing.T) {
		client, server := testnet.Pipe(0)
		server.CloseWrite()
		if _, err := client.Read(buf); err != io.EOF {
			t.Errorf("Read = %v, want EOF", err)
		}
		client.Write([]byte("late"))
		if n, err := server.Read(buf); string(buf[:n]) != "late" || err != nil {
			t.Errorf("Read = %q, %v", buf[:n], err)
		}
		if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write = %v, want EPIPE", err)
		}
	})
	t.Run("after its own Close everything is net.ErrClosed", func(t *testing.T) {
		client, _ := testnet.Pipe(0)
		client.Close()
		_, rerr := client.Read(buf)
		_, werr := client.Write(buf)
		_, terr := client.TryWrite(buf)
		_, serr := client.WriteSome(buf, time.Second)
		for _, err := range []error{rerr, werr, terr, serr, client.Close(), client.CloseWrite(), client.SetDeadline(time.Time{})} {
			var op *net.OpError
			if !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
				t.Errorf("got %v, want net.ErrClosed in an OpError", err)
			}
		}
	})
	t.Run("Reset drops what is under way and fails both ends", func(t *testing.T) {
		client, server := testnet.Pipe(0)
		client.Write([]byte("lost"))
		server.Reset()
		for _, c := range []*testnet.Conn{client, server} {
			if _, err := c.Read(buf); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read = %v, want ECONNRESET", err)
			}
			if _, err := c.Write(buf); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Write = %v, want ECONNRESET", err)
			}
		}
	})
}

func TestBlockedCallsAreWoken(t *testing.T) {
	calls := map[string]func(c *testnet.Conn) error{
		"Read":      func(c *testnet.Conn) error { _, err := c.Read(make([]byte, 1)); return err },
		"Write":     func(c *testnet.Conn) error { _, err := c.Write(make([]byte, 2)); return err },
		"WriteSome": func(c *testnet.Conn) error { _, err := c.WriteSome(make([]byte, 2), time.Hour); return err },
	}
	events := map[string]struct {
		event       func(c *testnet.Conn)
		read, write error
	}{
		"its Close":        {func(c *testnet.Conn) { c.Close() }, net.ErrClosed, net.ErrClosed},
		"the peer's Close": {func(c *testnet.Conn) { c.Peer().Close() }, io.EOF, syscall.EPIPE},
		"a Reset":          {func(c *testnet.Conn) { c.Reset() }, syscall.ECONNRESET, syscall.ECONNRESET},
		"a deadline":       {func(c *testnet.Conn) { c.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded},
	}
	for name, call := range calls {
		for cause, e := range events {
			t.Run(name+" by "+cause, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, server := testnet.Pipe(1)
					server.Write([]byte("x")) // the buffer is full now
					got := make(chan error, 1)
					go func() { got <- call(server) }()
					synctest.Wait()
					select {
					case err := <-got:
						t.Fatalf("it did not block: %v", err)
					default:
					}
					e.event(server)
					want := e.write
					if name == "Read" {
						want = e.read
					}
					if err := <-got; !errors.Is(err, want) {
						t.Errorf("got %v, want %v", err, want)
					}
				})
			})
		}
	}
}

func TestDeadlinesPassInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := testnet.Pipe(1)
		defer client.Close()
		defer server.Close()
		server.Write([]byte("x"))
		check := func(what string, want time.Duration, call func() (int, error)) {
			t.Helper()
			begin := time.Now()
			_, err := call()
			var ne net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
				t.Errorf("%s: %v, want os.ErrDeadlineExceeded", what, err)
			}
			if got := time.Since(begin); got != want {
				t.Errorf("%s took %v, want %v", what, got, want)
			}
		}
		server.SetReadDeadline(time.Now().Add(time.Minute))
		server.SetWriteDeadline(time.Now().Add(2 * time.Minute))
		one := make([]byte, 1)
		check("Read", time.Minute, func() (int, error) { return server.Read(one) })
		check("Read again", 0, func() (int, error) { return server.Read(one) })
		check("Write", time.Minute, func() (int, error) { return server.Write(one) })
		check("TryWrite", 0, func() (int, error) { return server.TryWrite(one) })
		server.SetDeadline(time.Time{})
		check("WriteSome", time.Hour, func() (int, error) { return server.WriteSome(one, time.Hour) })

		// A deadline that is moved while a call waits holds for that call.
		server.SetReadDeadline(time.Now().Add(time.Second))
		time.AfterFunc(time.Second/2, func() { server.SetReadDeadline(time.Now().Add(time.Second)) })
		check("Read with a moved deadline", 3*time.Second/2, func() (int, error) { return server.Read(one) })

		// One that is taken back does nothing.
		server.SetReadDeadline(time.Now().Add(time.Second))
		server.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { client.Write(one) })
		if _, err := server.Read(one); err != nil {
			t.Errorf("Read after the deadline was taken back: %v", err)
		}
	})
}

func TestTryWrite(t *testing.T) {
	_, server := testnet.Pipe(4)
	for _, step := range []struct {
		give string
		want int
	}{{"abc", 3}, {"def", 1}, {"x", 0}} {
		if n, err := server.TryWrite([]byte(step.give)); n != step.want || err != nil {
			t.Errorf("TryWrite(%q) = %d, %v; want %d", step.give, n, err, step.want)
		}
	}
	got := make([]byte, 9)
	n, _ := server.Peer().Read(got)
	if string(got[:n]) != "abcd" {
		t.Errorf("the peer read %q", got[:n])
	}
	if c := server.Counts(); c != (testnet.Counts{Writes: 2, Refused: 2, Bytes: 4}) {
		t.Errorf("Counts = %+v", c)
	}
}

func TestWriteSomeReturnsWithTheFirstBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := testnet.Pipe(4)
		server.Write([]byte("full"))
		time.AfterFunc(time.Minute, func() { client.Read(make([]byte, 3)) })
		begin := time.Now()
		n, err := server.WriteSome([]byte("abcdef"), time.Hour)
		if n != 3 || err != nil || time.Since(begin) != time.Minute {
			t.Errorf("WriteSome = %d, %v after %v; want 3 after a minute", n, err, time.Since(begin))
		}
	})
}

func TestScript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		_, server := testnet.Pipe(0)
		try := func(want int, wantErr error) {
			t.Helper()
			if n, err := server.TryWrite([]byte("hello")); n != want || !errors.Is(err, wantErr) {
				t.Errorf("TryWrite = %d, %v; want %d, %v", n, err, want, wantErr)
			}
		}
		server.Script(testnet.Take(3), testnet.Block(), testnet.Fail(boom), testnet.Take(9), testnet.Pause(time.Second))
		try(3, nil)
		try(0, nil)
		try(0, boom)
		try(5, nil)
		try(0, nil) // meets the pause
		try(0, nil)
		begin := time.Now()
		if n, err := server.WriteSome([]byte("hello"), time.Hour); n != 5 || err != nil || time.Since(begin) != time.Second {
			t.Errorf("WriteSome = %d, %v after %v; want 5 after the pause", n, err, time.Since(begin))
		}
		try(5, nil) // the script is over

		server.Script(testnet.Take(1), testnet.Block(), testnet.Take(1))
		if n, err := server.Write([]byte("hello")); n != 5 || err != nil {
			t.Errorf("a scripted Write = %d, %v; want all", n, err)
		}

		server.Stall()
		try(0, nil)
		time.AfterFunc(time.Minute, server.Resume)
		begin = time.Now()
		if _, err := server.Write([]byte("hello")); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("a stalled Write: %v after %v, want a minute", err, time.Since(begin))
		}
	})
}

// Many goroutines use every kind of write over pairs of connections with scripts; each side's bytes must arrive whole and in order.
func TestManyGoroutines(t *testing.T) {
	both(t, func(t *testing.T) {
		l := testnet.Listen()
		l.Buffer = 64
		const conns, size = 32, 20_000
		var wg sync.WaitGroup
		wg.Go(func() {
			var served sync.WaitGroup
			for {
				c, err := l.Accept()
				if err != nil {
					break
				}
				served.Go(func() { echo(t, c.(*testnet.Conn)) })
			}
			served.Wait()
		})
		var clients sync.WaitGroup
		for i := range conns {
			clients.Go(func() {
				c, err := l.Dial(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				rnd := rand.New(rand.NewPCG(1, uint64(i)))
				sent := make([]byte, size)
				for i := range sent {
					sent[i] = byte(rnd.Uint32())
				}
				go c.Write(sent)
				got := make([]byte, size)
				if _, err := io.ReadFull(c, got); err != nil || crc32.ChecksumIEEE(got) != crc32.ChecksumIEEE(sent) {
					t.Errorf("connection %d: the echo differs (%v)", i, err)
				}
			})
		}
		clients.Wait()
		l.Close()
		wg.Wait()
	})
}

// echo writes back what it reads, in turn by each of the three ways.
func echo(t *testing.T, c *testnet.Conn) {
	defer c.Close()
	c.Script(testnet.Take(3), testnet.Block(), testnet.Take(1), testnet.Pause(time.Millisecond))
	buf := make([]byte, 50)
	for turn := 0; ; turn++ {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		for p := buf[:n]; len(p) > 0 && err == nil; p = p[n:] {
			switch turn % 3 {
			case 0:
				n, err = c.Write(p)
			case 1:
				n, err = c.WriteSome(p, time.Minute)
			case 2:
				if n, err = c.TryWrite(p); n == 0 && err == nil {
					n, err = c.WriteSome(p, time.Minute)
				}
			}
		}
		if err != nil {
			t.Errorf("echo: %v", err)
			return
		}
	}
}

func ExampleConn_Script() {
	client, server := testnet.Pipe(0)
	server.Script(testnet.Take(3), testnet.Block())
	n, err := server.TryWrite([]byte("hello"))
	fmt.Println(n, err)
	n, err = server.TryWrite([]byte("lo"))
	fmt.Println(n, err)
	n, err = server.TryWrite([]byte("lo"))
	fmt.Println(n, err)
	server.Close()
	all, _ := io.ReadAll(client)
	fmt.Println(string(all))
	// Output:
	// 3 <nil>
	// 0 <nil>
	// 2 <nil>
	// hello
}
