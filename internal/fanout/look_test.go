package fanout_test

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/testnet"
)

// veiled is a connection such as TLS, over one that the kernel has room for.
type veiled struct {
	net.Conn
	below direct
}

func (v veiled) NetConn() net.Conn { return v.below }

// whileLookedAt calls f when a worker has the turn of a connection that is new, to look after its deadline. until is what that is held
// up for.
func whileLookedAt(t *testing.T, o fanout.Options, f func(c *fanout.Conn), until func(c *fanout.Conn) bool) (w *world, client *testnet.Conn, c *fanout.Conn) {
	w = newWorld(t, stream.Retention{}, fanout.Config{Workers: 1, Heartbeat: 100 * time.Millisecond})
	client, server := testnet.Pipe(64 << 10)
	o.Socket, o.Direct = fanout.NewSocket(veiled{server, direct{server}})
	if !o.Direct {
		t.Fatal("it is not written by workers")
	}
	o.Handler, o.Abort = handler{}, func() { server.Close() }
	o.LastRead = func() int64 { return time.Now().UnixNano() }
	c = w.pool.Add(o)
	c.Locked(func() {
		for had := false; !had; had, _ = c.Turn() {
			runtime.Gosched()
		}
		go f(c)
		for deadline := time.Now().Add(100 * time.Millisecond); !until(c) && time.Now().Before(deadline); {
			runtime.Gosched()
		}
	})
	return w, client, c
}

func noted(c *fanout.Conn) bool { _, noted := c.Turn(); return noted }

// A worker that looks at a connection nobody has served yet, and finds a note when it is done, has to look at all of it.
func TestAConnectionIsWokenWhileItIsLookedAt(t *testing.T) {
	w, client, c := whileLookedAt(t, fanout.Options{}, (*fanout.Conn).Wake, noted)
	for had := true; had; had, _ = c.Turn() { // nothing is asked of it meanwhile
		runtime.Gosched()
	}
	s := w.subscribe(c, "t")
	w.publish("a")
	expect(t, client, "<1 a>")
	finish(c, s)
	w.pool.Close()
}

// What is taken back has sent nothing and holds nothing, also where a worker looks at it at that moment.
func TestAConnectionIsTakenBackWhileItIsLookedAt(t *testing.T) {
	back := make(chan struct{})
	w, client, c := whileLookedAt(t, fanout.Options{Hello: []byte("hello")}, func(c *fanout.Conn) { c.Cancel(); close(back) }, noted)
	<-back
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it has not ended")
	}
	w.pool.Close()
	if n := client.Peer().Unread(); n != 0 {
		t.Errorf("%d bytes are sent", n)
	}
	if n := w.budget.Used(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}
