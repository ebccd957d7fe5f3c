package nats_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailcast/tailcast/tailcasttest"
)

// A host is a network namespace of this machine, with a cable to the one that the test is in.
type host struct {
	t       testing.TB
	name    string
	cable   string // this end of it
	address string // of this end
}

// newHost skips the test where it may not make one, but in CI, which has to.
func newHost(t testing.TB) *host {
	t.Helper()
	unable := t.Skipf
	if os.Getenv("CI") == "true" {
		unable = t.Fatalf
	}
	n := os.Getpid() % 4096
	h := &host{t: t, name: fmt.Sprint("tailcast-", n), cable: fmt.Sprint("tailcast", n), address: fmt.Sprintf("10.213.%d.%d", n>>4, n&15<<4+1)}
	there := fmt.Sprintf("10.213.%d.%d/28", n>>4, n&15<<4+2)
	_ = exec.Command("ip", "netns", "delete", h.name).Run() // of a test that was killed
	if out, err := exec.Command("ip", "netns", "add", h.name).CombinedOutput(); err != nil {
		unable("network namespaces need root and ip(8): %v %s", err, out)
	}
	t.Cleanup(func() { h.ip("netns", "delete", h.name) }) // its end of the cable goes with it, and this one with that
	h.ip("link", "add", h.cable, "type", "veth", "peer", "name", "cable", "netns", h.name)
	h.ip("address", "add", h.address+"/28", "dev", h.cable)
	h.ip("link", "set", h.cable, "up")
	h.ip("-n", h.name, "address", "add", there, "dev", "cable")
	h.ip("-n", h.name, "link", "set", "cable", "up")
	h.ip("-n", h.name, "link", "set", "lo", "up")
	return h
}

func (h *host) ip(args ...string) {
	h.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		h.t.Fatalf("ip %s: %v %s", strings.Join(args, " "), err, out)
	}
}

// plug puts this end of the cable in, or out. At the other end no more than the carrier is gone.
func (h *host) plug(in bool) {
	h.t.Helper()
	h.ip("link", "set", h.cable, map[bool]string{true: "up", false: "down"}[in])
}

// A node on another host is cut off from the broker: no packet comes through, and no connection ends. Messages go on to be published on
// both sides. When it is back, both have all of them in the same order, and only who was away was told so.
func TestANodeIsCutOff(t *testing.T) {
	t.Parallel()
	pause := time.Duration(soak(2, 10)) * time.Second
	h := newHost(t)
	broker := newBroker(t)
	broker.stop()
	broker.opts.Host = h.address
	broker.start()
	here := hubAt(t, broker.url(), nil)
	server := tailcasttest.Serve(t, here)
	socket := filepath.Join(t.TempDir(), "node")
	there := &child{t: t, wrap: []string{"ip", "netns", "exec", h.name}, env: append(childEnv("node"), urlEnv+"="+broker.url(), listenEnv+"="+socket)}
	t.Cleanup(there.kill)
	there.start()
	throughSocket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}

	each := soak(600, 3000)
	histories := []*history{newHistory(2 * each), newHistory(2 * each)}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, client := range []*http.Client{server.Client(), throughSocket} {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", []string{server.URL, "http://there"}[i]+"/", nil)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		wg.Go(func() { readEvents(resp, histories[i]) })
	}
	var publishing sync.WaitGroup
	publishing.Go(func() {
		if err := publishOneByOne(t.Context(), here, "here", each); err != nil {
			t.Error(err)
		}
	})
	fmt.Fprintln(there.in, "there", each)
	waitFor(t, func() bool { return histories[1].seen() > each/4 })

	h.plug(false)
	began := time.Now()
	behind := histories[1].seen()
	time.Sleep(pause) // the time that it is cut off is what is tested
	before := histories[0].seen()
	if n := histories[1].seen(); n > behind+each/10 { // what was on its way
		t.Errorf("%d messages have come to who is cut off", n-behind)
	}
	h.plug(true)
	again := time.Now()
	publishing.Wait()
	for i, h := range histories {
		h.wait(t, []string{"here", "there"}[i])
	}
	t.Logf("cut off for %v, when %d messages of %d were here and %d there; all were, on both sides, %v later",
		again.Sub(began).Round(time.Millisecond), before, 2*each, behind, time.Since(again).Round(time.Millisecond))
	if histories[0].sum != histories[1].sum {
		t.Error("the two have seen different orders")
	}
	if n := histories[0].away; n > 0 {
		t.Errorf("whose node was not cut off was told %d times that it was", n)
	}
	if n := histories[1].away; n == 0 && pause >= 10*time.Second {
		t.Error("who was cut off was told nothing of it")
	}
}
