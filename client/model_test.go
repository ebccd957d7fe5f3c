package client_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A journal is what outlives a server's process: each hub that runs it goes on with what is new, and can replay the rest.
type journal struct {
	mu    sync.Mutex // guards the rest
	lines [2]int     // of each topic; a line is its number
	more  chan struct{}
}

func newJournal() *journal { return &journal{more: make(chan struct{})} }

var journalTopics = [2]string{"a", "b"}

func (j *journal) append(topic int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines[topic]++
	close(j.more)
	j.more = make(chan struct{})
}

func (j *journal) state() ([2]int, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines, j.more
}

func journalLine(topic, n int) tailcast.Message {
	return tailcast.Message{Topic: journalTopics[topic], Data: fmt.Appendf(nil, "%d", n), Pos: tailcast.Position{Epoch: 7, Offset: uint64(n)}}
}

func (j *journal) Run(ctx context.Context, pub tailcast.Publisher) error {
	at, _ := j.state()
	for topic, name := range journalTopics {
		if err := pub.(tailcast.TopicPublisher).Begin(name, tailcast.Position{Epoch: 7, Offset: uint64(at[topic])}); err != nil {
			return err
		}
	}
	for {
		lines, more := j.state()
		for topic := range lines {
			for ; at[topic] < lines[topic]; at[topic]++ {
				if err := pub.Publish(ctx, journalLine(topic, at[topic]+1)); err != nil {
					return err
				}
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (j *journal) Replay(ctx context.Context, name string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		topic, n := 0, int(after.Offset)
		if name == journalTopics[1] {
			topic = 1
		}
		if after == tailcast.Earliest() {
			n = 0
		} else if after.Epoch != 7 {
			yield(tailcast.Message{}, tailcast.ErrUnknownPosition)
			return
		}
		for {
			lines, more := j.state()
			for ; n < lines[topic]; n++ {
				if !yield(journalLine(topic, n+1), nil) {
					return
				}
			}
			select {
			case <-more:
			case <-ctx.Done():
				yield(tailcast.Message{}, context.Cause(ctx))
				return
			}
		}
	}
}

// A node is a hub that can be killed and comes back as a new process would: with nothing but what its Source makes of it.
type node struct {
	t      testing.TB
	source func() tailcast.Source
	l      *testnet.Listener
	hub    atomic.Pointer[tailcast.Hub]
	links  sync.Map // of net.Conn: clients' ends
	ran    chan struct{}
	cut    atomic.Int64 // connections are cut after at most that many bytes; 0 for never
	cuts   atomic.Int64
}

func newNode(t testing.TB, source func() tailcast.Source) *node {
	n := &node{t: t, source: source, l: testnet.Listen()}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.hub.Load().ServeHTTP(w, r) })}
	served := make(chan struct{})
	go func() { srv.Serve(n.l); close(served) }()
	n.start()
	t.Cleanup(func() {
		n.stop()
		srv.Close()
		<-served
	})
	return n
}

func (n *node) start() {
	hub := tailcast.New(tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithRetention(tailcast.Retention{Messages: 20}))
	n.hub.Store(hub)
	n.ran = make(chan struct{})
	go func() {
		defer close(n.ran)
		if err := hub.Run(context.Background(), n.source()); err != nil && !errors.Is(err, tailcast.ErrClosed) {
			n.t.Error(err)
		}
	}()
}

// stop is no goodbye: connections are reset first.
func (n *node) stop() {
	n.links.Range(func(c, _ any) bool { c.(*testnet.Conn).Reset(); return true })
	n.links.Clear()
	n.hub.Load().Close()
	<-n.ran
}

// client returns one whose connections are cut.
func (n *node) client() *http.Client {
	hc := testnet.HTTPClient(n.l)
	hc.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := n.l.Dial(ctx)
		if err != nil {
			return nil, err
		}
		n.links.Store(c, nil)
		cc := &cutConn{Conn: c, n: n}
		if most := n.cut.Load(); most > 0 {
			cc.left = 1 + rand.N(int(most)) // the seeds of tests do not reach here: goroutines of net/http dial
		}
		return cc, nil
	}
	return hc
}

// A cutConn is reset after some bytes.
type cutConn struct {
	*testnet.Conn
	n    *node
	left int // 0 if it is not
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return c.Conn.Read(p)
	}
	if c.left == 1 {
		c.n.cuts.Add(1)
		c.Conn.Reset()
		return 0, syscall.ECONNRESET
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left-1)])
	c.left -= n
	return n, err
}

// A ledger holds what comes to what was written.
type ledger struct {
	t   testing.TB
	who string
	got [2]atomic.Int64
}

// take is false after a fault.
func (l *ledger) take(m tailcast.Message, err error) bool {
	topic := 0
	if m.Topic == journalTopics[1] {
		topic = 1
	}
	want := int(l.got[topic].Load()) + 1
	switch {
	case err != nil:
		l.t.Errorf("%s: %v", l.who, err)
	case m.Gap != nil:
		l.t.Errorf("%s: in topic %s, before line %d: %+v", l.who, m.Topic, want, m.Gap)
	case string(m.Data) != fmt.Sprint(want) || m.Pos != (tailcast.Position{Epoch: 7, Offset: uint64(want)}):
		l.t.Errorf("%s: in topic %s: %q at %v, want %d", l.who, m.Topic, m.Data, m.Pos, want)
	default:
		l.got[topic].Store(int64(want))
		return true
	}
	return false
}

// write appends n lines over some time, and calls between now and then.
func (j *journal) write(rng *rand.Rand, n int, between func(i int)) {
	for i := range n {
		j.append(rng.IntN(2))
		switch rng.IntN(8) {
		case 0:
			time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
		case 1:
			synctest.Wait()
		}
		between(i)
	}
}

// await waits for all that the journal has to have come.
func (l *ledger) await(j *journal) {
	for deadline := time.Now().Add(time.Hour); ; time.Sleep(time.Second) {
		lines, _ := j.state()
		if int(l.got[0].Load()) == lines[0] && int(l.got[1].Load()) == lines[1] {
			return
		}
		if time.Now().After(deadline) || l.t.Failed() {
			l.t.Errorf("%s has stopped at %d and %d of %v lines", l.who, l.got[0].Load(), l.got[1].Load(), lines)
			return
		}
	}
}

// TestAThousandCuts: the connection is cut at a thousand places, and the server is killed now and then; each line comes once, in order.
func TestAThousandCuts(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				j := newJournal()
				n := newNode(t, func() tailcast.Source { return j })
				n.cut.Store(1000)
				ctx, cancel := context.WithCancel(t.Context())
				l := &ledger{t: t, who: "the client"}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for m, err := range client.Follow(ctx, "http://hub.example/", client.WithHTTPClient(n.client()), client.WithTopics("a", "b"), client.WithBackoff(50*time.Millisecond, 400*time.Millisecond),
						client.WithSince(map[string]tailcast.Position{"a": tailcast.Earliest(), "b": tailcast.Earliest()})) {
						if ctx.Err() != nil || !l.take(m, err) {
							return
						}
					}
				}()
				kills := 0
				for n.cuts.Load() < 500 && !t.Failed() {
					j.write(rng, 20, func(int) {
						if rng.IntN(20) == 0 {
							n.stop()
							j.append(0)
							time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
							n.start()
							kills++
						}
					})
				}
				n.cut.Store(0)
				l.await(j)
				cancel()
				<-done
				t.Logf("%d cuts, %d kills, %d and %d lines", n.cuts.Load(), kills, l.got[0].Load(), l.got[1].Load())
			})
		})
	}
}

// TestAChainOfHubs: three hubs, each relays the one before. The one in the middle is killed and comes back with an empty memory, and so
// is the last one; a viewer of the last one goes on meanwhile.
func TestAChainOfHubs(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 3))
				j := newJournal()
				relay := func(of *node) func() tailcast.Source {
					of.cut.Store(20_000)
					return func() tailcast.Source {
						return client.Source("http://hub.example/", client.WithHTTPClient(of.client()), client.WithTopics("a", "b"))
					}
				}
				first := newNode(t, func() tailcast.Source { return j })
				middle := newNode(t, relay(first))
				last := newNode(t, relay(middle))
				last.cut.Store(5000)
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				var ledgers []*ledger
				for _, of := range []*node{last, last, middle} {
					l := &ledger{t: t, who: fmt.Sprint("viewer ", len(ledgers)+1)}
					ledgers = append(ledgers, l)
					hc := of.client()
					wg.Go(func() {
						for m, err := range client.Follow(ctx, "http://hub.example/", client.WithHTTPClient(hc), client.WithTopics("a", "b"),
							client.WithSince(map[string]tailcast.Position{"a": tailcast.Earliest(), "b": tailcast.Earliest()})) {
							if ctx.Err() != nil || !l.take(m, err) {
								return
							}
						}
					})
				}
				kills := 0
				j.write(rng, 600, func(int) {
					if rng.IntN(25) != 0 {
						return
					}
					kills++
					victim := middle
					if rng.IntN(3) == 0 {
						victim = last
					}
					victim.stop()
					if rng.IntN(2) == 0 {
						j.append(rng.IntN(2))
						time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
					}
					victim.start()
				})
				for _, l := range ledgers {
					l.await(j)
				}
				cancel()
				wg.Wait()
				t.Logf("%d kills, cuts: %d, %d, %d", kills, first.cuts.Load(), middle.cuts.Load(), last.cuts.Load())
			})
		})
	}
}
