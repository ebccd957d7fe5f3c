//go:build linux && (amd64 || arm64)

package fanout_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
)

// tcp returns the two ends of a connection of the system's.
func tcp(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

type roomy interface {
	fanout.Socket
	Room() int
}

// TestRoom: what the kernel says that it has room for it takes without waiting, in pieces as TLS makes them too; and a peer that does not
// read leads to none.
func TestRoom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 30 {
		client, server := tcp(t)
		if rng.IntN(2) == 0 {
			server.(*net.TCPConn).SetWriteBuffer(4096 << rng.IntN(6))
		}
		if rng.IntN(2) == 0 {
			client.(*net.TCPConn).SetReadBuffer(2048 << rng.IntN(6))
		}
		s, _ := fanout.NewSocket(server)
		writes := 0
		for ; writes < 1_000_000; writes++ {
			room := s.(roomy).Room()
			if room < 4<<10+3*100 {
				break
			}
			p := make([]byte, min(1+rng.IntN(200<<rng.IntN(8)), (room-4<<10)/3))
			most := []int{len(p), 1230}[rng.IntN(2)]
			for piece := range slices.Chunk(p, most) {
				if n, err := s.TryWrite(piece); n != len(piece) || err != nil {
					t.Fatalf("after %d writes there was room for %d, and of %d in pieces of %d it took only %d of one, %v",
						writes, room, len(p), most, n, err)
				}
			}
		}
		if writes == 1_000_000 {
			t.Error("there is no end of room, and nobody reads")
		}
	}
}

// TestNoRoomWhileSomebodyWaits: the kernel wakes who waits to write only when there is a good deal of room. That may be the reader of TLS,
// who answers the peer and holds the lock of the writing side; so until then there is none for a worker either.
func TestNoRoomWhileSomebodyWaits(t *testing.T) {
	client, server := tcp(t)
	server.(*net.TCPConn).SetWriteBuffer(40_000)
	client.(*net.TCPConn).SetReadBuffer(4096)
	s, _ := fanout.NewSocket(server)
	for p := make([]byte, 700); ; {
		if n, err := s.TryWrite(p); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			break
		}
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		server.Write([]byte("an answer"))
	}()
	for p := make([]byte, 512); ; {
		if _, err := client.Read(p); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond) // for the kernel to say that there is room again
		room := s.(roomy).Room()
		select {
		case <-answered:
			return
		default:
		}
		if room <= 0 {
			continue
		}
		select {
		case <-answered:
			return
		case <-time.After(5 * time.Second):
			t.Fatalf("there is room for %d, and who waits for room waits", room)
		}
	}
}

// secured returns the ends of a TLS connection over the ends of another one.
func secured(t *testing.T, c, s net.Conn) (client, server *tls.Conn) {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil) // for its certificate
	srv.StartTLS()
	config := srv.TLS.Clone()
	config.NextProtos = nil
	srv.Close()
	client, server = tls.Client(c, &tls.Config{InsecureSkipVerify: true}), tls.Server(s, config)
	go client.Handshake()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// TestTLSOverAUnixSocketHoldsUpNoWorker: of a unix socket the kernel does not tell how much it would take.
func TestTLSOverAUnixSocketHoldsUpNoWorker(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_, server := secured(t, c, nc)
	s, direct := fanout.NewSocket(server)
	if direct {
		t.Error("a worker is to write")
	}
	for range 1000 { // nobody reads
		began := time.Now()
		n, err := s.TryWrite(make([]byte, 4000))
		if d := time.Since(began); err != nil || d > 2*time.Second {
			t.Fatalf("TryWrite = %d, %v, after %v", n, err, d)
		}
		if n == 0 {
			break
		}
	}
}

// TestTLSIsWrittenByWorkers: what there is room for is written at once, and where there is none a goroutine waits.
func TestTLSIsWrittenByWorkers(t *testing.T) {
	w := newWorld(t, stream.Retention{Bytes: 100 << 20}, fanout.Config{Workers: 1, WriteTimeout: time.Minute})
	var conns []*fanout.Conn
	var subs []*fanout.Sub
	var clients []*tls.Conn
	for range 2 {
		c, sc := tcp(t)
		client, server := secured(t, c, sc)
		s, direct := fanout.NewSocket(server)
		if n, err := s.TryWrite([]byte("hello")); !direct || n != 5 || err != nil {
			t.Fatalf("TryWrite = %d, %v, of use: %v", n, err, direct)
		}
		expect(t, client, "hello")
		conn := w.pool.Add(fanout.Options{Socket: s, Direct: direct, Handler: handler{}, Abort: func() { server.Close() }})
		conns, subs, clients = append(conns, conn), append(subs, w.subscribe(conn, "")), append(clients, client)
	}
	// The first does not read. The worker serves the second one nevertheless, and later both have all.
	var want bytes.Buffer
	line := string(bytes.Repeat([]byte("x"), 5000))
	for i := range 3000 {
		w.publish(line)
		n := want.Len()
		want.Write(encode(nil, &stream.Record{Seq: uint64(i + 1), Data: []byte(line)}))
		got := make([]byte, want.Len()-n)
		if _, err := io.ReadFull(clients[1], got); err != nil || !bytes.Equal(got, want.Bytes()[n:]) {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if _, sent := conns[0].Sent(); sent >= uint64(want.Len()) {
		t.Fatalf("%d bytes were taken by one that reads nothing", sent)
	}
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(clients[0], got); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Fatalf("what it gets when it reads is not the same: %v", err)
	}
	for i, c := range conns {
		go io.Copy(io.Discard, clients[i])
		finish(c, subs[i])
	}
	w.pool.Close()
}
