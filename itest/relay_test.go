package itest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
)

// How many messages relays have in memory: the one in the middle few, so that it often has to ask the hub before it.
const (
	middleKeeps = 1_000
	lastKeeps   = 100_000
)

// relayMain is a process that relays the hub at ITEST_RELAY, on ITEST_RELAY_ADDR, with ITEST_RELAY_KEEPS messages in memory.
func relayMain() int {
	ln, err := net.Listen("tcp", os.Getenv("ITEST_RELAY_ADDR"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	keeps, err := strconv.Atoi(os.Getenv("ITEST_RELAY_KEEPS"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: keeps}))
	go func() {
		err := hub.Run(context.Background(), client.Source(os.Getenv("ITEST_RELAY"), client.WithBackoff(10*time.Millisecond, 200*time.Millisecond)))
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}()
	fmt.Println("ready")
	srv := http.Server{Handler: hub, ReadHeaderTimeout: 10 * time.Second}
	fmt.Fprintln(os.Stderr, srv.Serve(ln))
	return 1
}

// A relayProcess can be killed, and comes back at the same address.
type relayProcess struct {
	upstream, addr string
	keeps          int
	cmd            *exec.Cmd
	kills          int
}

func startRelay(t *testing.T, upstream string, keeps int) *relayProcess {
	t.Helper()
	p := &relayProcess{upstream: upstream, addr: freeAddr(t), keeps: keeps}
	p.start(t)
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

func (p *relayProcess) url() string { return "http://" + p.addr + "/" }

func (p *relayProcess) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), "ITEST_RELAY="+p.upstream, "ITEST_RELAY_ADDR="+p.addr, fmt.Sprint("ITEST_RELAY_KEEPS=", p.keeps))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "ready\n" {
		p.cmd.Wait()
		t.Fatalf("the relay says %q, %v", said, err)
	}
}

// kill ends it as a crash would.
func (p *relayProcess) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.kills++
}

// A relayed is client.Follow in this process.
type relayed struct {
	*account
	seq   atomic.Int64 // of the newest line
	dials atomic.Int64
}

// follow follows from the beginning, until the context ends.
func follow(t *testing.T, ctx context.Context, wg *sync.WaitGroup, name, url string) *relayed {
	f := &relayed{account: newAccount(name)}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			f.dials.Add(1)
		}
		return c, err
	}}
	wg.Go(func() {
		defer transport.CloseIdleConnections()
		for m, err := range client.Follow(ctx, url, client.WithHTTPClient(&http.Client{Transport: transport}),
			client.WithSince(map[string]tailcast.Position{"": tailcast.Earliest()}), client.WithBackoff(10*time.Millisecond, 200*time.Millisecond)) {
			switch {
			case err != nil && ctx.Err() == nil:
				t.Errorf("%s: %v", name, err)
			case err != nil:
			case m.Gap != nil:
				f.line(fmt.Appendf(nil, "# gap %+v", m.Gap))
			default:
				f.seq.Store(int64(f.line(m.Data)))
			}
		}
	})
	return f
}

// TestAChainOfHubs: logtail follows a file, a hub relays it, and another one relays that, each a process of its own. The hub in the
// middle is killed again and again, and every fourth time the last one instead, or the first one. Viewers of the last hub get each line
// once, in order; a dead hub in the middle does not cut them off; and who comes back to the last one meanwhile gets what that has.
func TestAChainOfHubs(t *testing.T) {
	t.Parallel()
	kills := setting(t, "ITEST_RELAY_KILLS", 8, 100)
	path := t.TempDir() + "/app.log"
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-addr", freeAddr(t), path}
	first := startLogtail(t, args...)
	middle := startRelay(t, first.url, middleKeeps)
	last := startRelay(t, middle.url(), lastKeeps)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	viewers := []*relayed{
		follow(t, ctx, &wg, "a viewer of the last hub", last.url()),
		follow(t, ctx, &wg, "a viewer of the middle hub", middle.url()),
	}
	viewer := viewers[0]
	w := (&writer{Name: "a", Path: path, Rate: setting(t, "ITEST_RATE", 5_000, 5_000), Width: 120}).start()
	comer := &reader{account: newAccount("an event stream that comes and goes"), url: last.url(), kind: "sse"}
	comesTo := func(seq int64) { // the event stream reads up to this line, and goes away
		t.Helper()
		if err := comer.read(0, func(at int) bool { return int64(at) >= seq }); err != nil {
			t.Errorf("%s, at line %d: %v", comer.name, comer.seq.Load(), err)
		}
	}
	more := func() {
		t.Helper()
		// What has been written by now: then it no longer reads what the last hub had to ask for.
		from := max(viewer.seq.Load()+200, w.seq.Load())
		eventually(t, "the viewer gets lines", func() bool { return viewer.seq.Load() > from })
	}
	written := func() {
		t.Helper()
		from := w.seq.Load()
		eventually(t, "lines are written", func() bool { return w.seq.Load() > from+2*middleKeeps })
	}
	firsts := 0
	for n := range kills {
		more()
		comesTo(viewer.seq.Load())
		more()
		switch n % 8 {
		case 3:
			last.kill()
			if n%16 == 3 {
				written()
			}
			last.start(t)
		case 7:
			first.kill(t)
			firsts++
			written()
			first = startLogtail(t, args...)
		default:
			dials, has := viewer.dials.Load(), viewer.seq.Load()
			middle.kill()
			comesTo(has) // which the last hub has
			if n%2 == 0 {
				written() // more than the others have in memory
			}
			if now := viewer.dials.Load(); now != dials {
				t.Errorf("kill %d: the last hub's viewer was cut off: %d connections, %d before", n, now, dials)
			}
			middle.start(t)
		}
		if t.Failed() {
			break
		}
	}
	more()
	if err := w.order("stop"); err != nil {
		t.Fatal(err)
	}
	end := w.seq.Load()
	comesTo(end)
	for _, v := range viewers {
		eventually(t, v.name+" gets everything", func() bool { return v.seq.Load() == end || t.Failed() })
	}
	cancel()
	wg.Wait()
	t.Logf("%d lines; kills: %d of the first hub, %d of the middle one, %d of the last one; connections: %d to the last one, %d to the middle one",
		end, firsts, middle.kills, last.kills, viewers[0].dials.Load(), viewers[1].dials.Load())
	all := map[string]int{"a": int(end)}
	for _, v := range viewers {
		v.check(t, all)
	}
	comer.check(t, all)
}
