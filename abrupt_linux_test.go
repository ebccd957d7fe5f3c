package tailcast_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tailcast/tailcast"
)

// onTCP is serveVictim on a port of the loopback interface.
func onTCP(t *testing.T, way string, opts ...tailcast.Option) *victim {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts = append(opts, tailcast.WithHosts("hub.example"), tailcast.WithBacklog(1))
	v := serveVictim(t, way, l, func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) }, opts...)
	v.readBeginning(way)
	return v
}

// readBeginning reads all that comes until a first message has come: whoever closes with bytes unread sends a RST.
func (v *victim) readBeginning(way string) {
	v.t.Helper()
	v.publish(1)
	want := map[string]int{wayWS: 10_004, wayText: 10_001}[way]
	got := make([]byte, 0, 64<<10)
	v.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		if want > 0 && len(got) == want {
			return
		}
		const blocks = 3 // the advice to come back, where the viewer stands, and the message, in either order
		if want == 0 && bytes.Count(got, []byte("\n\n")) == blocks {
			return
		}
		n, err := v.stream.Read(got[len(got):cap(got)])
		if err != nil {
			v.t.Fatalf("%v after %.1000q", err, got)
		}
		got = got[:len(got)+n]
	}
}

// ended waits for the cause, and until nothing of the connection is left.
func (v *victim) ended() error {
	v.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	select {
	case cause := <-v.watch.ended:
		for len(v.hub.Stats().Connections) > 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		v.settled()
		return cause
	case <-time.After(time.Until(deadline)):
		v.t.Error("nobody has noticed the end")
		return nil
	}
}

// read reads n bytes of the stream.
func (v *victim) read(n int64) {
	v.t.Helper()
	v.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.CopyN(io.Discard, v.stream, n); err != nil {
		v.t.Fatal(err)
	}
}

// deafen takes the client off the network: its kernel drops what comes, and acknowledges nothing.
func (g *gate) deafen(t *testing.T) {
	raw, err := g.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAbruptEndsOnTheKernelsSockets(t *testing.T) {
	const (
		eof   = "io.ErrUnexpectedEOF"
		reset = "ECONNRESET"
		pipe  = "EPIPE"
	)
	// A kernel tells of an error once, to a reader or to a writer: which word the cause has depends on what is under way. A
	// response's is io.ErrUnexpectedEOF in any case.
	anyOf := []string{eof, reset, pipe}
	held := []string{eof, eof + ", " + reset, eof + ", " + pipe}
	var r report
	for _, e := range []struct {
		name   string
		flow   bool // while messages are on their way
		end    func(*victim)
		plain  []string // what may be the cause of a WebSocket's end, and of a stream's that was taken over; nil for none
		except string   // a way that cannot end so
	}{
		{"FIN", false, func(v *victim) { v.nc.Close() }, []string{eof}, ""},
		{"half close", false, func(v *victim) { v.nc.closeWrite() }, []string{eof}, ""},
		{"RST", false, func(v *victim) { v.nc.reset() }, []string{reset}, ""},
		{"closed with bytes unread", false, func(v *victim) { v.publish(1); v.nc.Read(make([]byte, 1)); v.nc.Close() }, []string{reset}, wayH2},
		{"RST_STREAM", false, func(v *victim) { v.cancel() }, nil, wayWrapped},
		{"http.Server.Close", false, func(v *victim) { v.srv.Close() }, nil, ""},
		{"FIN in the flow", true, func(v *victim) { v.nc.Close() }, anyOf, ""},
		{"half close in the flow", true, func(v *victim) { v.nc.closeWrite() }, []string{eof}, ""},
		{"RST in the flow", true, func(v *victim) { v.nc.reset() }, anyOf, ""},
		{"RST_STREAM in the flow", true, func(v *victim) { v.cancel() }, nil, wayWrapped},
		{"http.Server.Close in the flow", true, func(v *victim) { v.srv.Close() }, nil, ""},
	} {
		for _, way := range ways {
			want := e.plain
			if way == wayWrapped || way == wayH2 {
				want = held
			}
			if want == nil || way == e.except {
				continue
			}
			t.Run(way+"/"+e.name, func(t *testing.T) {
				v := onTCP(t, way)
				if e.flow {
					v.flow()
				}
				e.end(v)
				cause := v.ended()
				r.row(e.name, way, kinds(cause), cause)
				if !slices.Contains(want, kinds(cause)) {
					t.Errorf("the cause is %v: %s, want one of %q", cause, kinds(cause), want)
				}
			})
		}
	}
	r.log(t, "end", "way", "matches", "cause")
}

// flow lets messages flow until the end of the test, and returns when some of them have arrived.
func (v *victim) flow() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			v.publish(1)
			time.Sleep(50 * time.Microsecond) // a flow, and no flood
		}
	}()
	v.t.Cleanup(func() { cancel(); <-done })
	v.read(100_000)
	go io.Copy(io.Discard, v.stream)
}

// TestANetworkThatIsGoneWithoutAWord: the kernel sends, and nothing comes back, neither an answer nor an acknowledgement.
func TestANetworkThatIsGoneWithoutAWord(t *testing.T) {
	var r report
	for _, c := range []struct {
		way   string
		send  bool
		cause error
	}{
		{wayWS, false, tailcast.ErrPingTimeout},
		{wayWS, true, tailcast.ErrPingTimeout},
		{wayTaken, false, tailcast.ErrWriteTimeout}, // of a heartbeat
		{wayTaken, true, tailcast.ErrWriteTimeout},
		{wayText, true, tailcast.ErrWriteTimeout},
	} {
		t.Run(c.way, func(t *testing.T) {
			v := onTCP(t, c.way, tailcast.WithPing(200*time.Millisecond, 200*time.Millisecond),
				tailcast.WithHeartbeat(200*time.Millisecond), tailcast.WithWriteTimeout(300*time.Millisecond))
			v.nc.deafen(t)
			if c.send {
				v.publish(1)
			}
			cause := v.ended()
			r.row(c.way, c.send, kinds(cause), cause)
			if !errors.Is(cause, c.cause) {
				t.Errorf("the cause is %v, want %v", cause, c.cause)
			}
		})
	}
	r.log(t, "way", "a message was sent", "matches", "cause")
}
