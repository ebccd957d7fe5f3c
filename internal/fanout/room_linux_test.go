//go:build linux && (amd64 || arm64)

package fanout_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
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

// TestRoom: what the kernel says that it has room for it takes without waiting, in a hundred pieces too; and a peer that does not read leads to
// none.
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
		for room := 0; writes < 1_000_000; writes++ {
			p := make([]byte, 1+rng.IntN(200<<rng.IntN(8)))
			if room -= 3<<10 + 3*len(p); room < 0 {
				if room = s.(roomy).Room() - (3<<10 + 3*len(p)); room < 0 {
					break
				}
			}
			if n, err := s.TryWrite(p); n != len(p) || err != nil {
				t.Fatalf("after %d writes there should be room for %d, and it took %d, %v", writes, len(p), n, err)
			}
		}
		if writes == 1_000_000 {
			t.Error("there is no end of room, and nobody reads")
		}
	}
}

// TestTLSIsWrittenByWorkers: what there is room for is written at once, and where there is none a goroutine waits.
func TestTLSIsWrittenByWorkers(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil) // for its certificate
	srv.StartTLS()
	config := srv.TLS.Clone()
	config.NextProtos = nil
	srv.Close()
	secure := func() (client, server *tls.Conn) {
		c, s := tcp(t)
		client, server = tls.Client(c, &tls.Config{InsecureSkipVerify: true}), tls.Server(s, config)
		go client.Handshake()
		if err := server.Handshake(); err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	w := newWorld(t, stream.Retention{Bytes: 100 << 20}, fanout.Config{Workers: 1, WriteTimeout: time.Minute})
	var conns []*fanout.Conn
	var subs []*fanout.Sub
	var clients []*tls.Conn
	for range 2 {
		client, server := secure()
		s, direct := fanout.NewSocket(server)
		if n, err := s.TryWrite([]byte("hello")); !direct || n != 5 || err != nil {
			t.Fatalf("TryWrite = %d, %v, of use: %v", n, err, direct)
		}
		expect(t, client, "hello")
		c := w.pool.Add(fanout.Options{Socket: s, Direct: direct, Handler: handler{}, Abort: func() { server.Close() }})
		conns, subs, clients = append(conns, c), append(subs, w.subscribe(c, "")), append(clients, client)
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
