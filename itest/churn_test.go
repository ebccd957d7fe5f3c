package itest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestChurn: clients of every format come, and go in every way, while messages are published. Each has its OnConnect and its
// BeforeClose once, and nothing is left of any of them: no goroutine, no descriptor, no memory.
func TestChurn(t *testing.T) {
	cycles := setting(t, "ITEST_CHURN", 3_000, 100_000)
	last := setting(t, "ITEST_CHURN_LAST", 20, 100) * len(churnFormats) // are there when the hub is shut down
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skipf("descriptors cannot be counted: %v", err)
	}
	empty := takeStock()
	c := newChurn(t)
	warm := 40 * len(c.cells)
	c.round(t, warm) // caches fill
	base := c.settled(t, stock{})
	began := time.Now()
	c.round(t, cycles-last)
	took := time.Since(began)
	after := c.settled(t, base)
	c.shutdown(t, last)
	gone := rested(t, empty)

	t.Logf("%d cycles after %d for the baseline, in %.1f s, %.0f a second; %d messages published meanwhile\n%s", cycles, warm, took.Seconds(),
		float64(cycles-last)/took.Seconds(), c.patient.stats.Published+c.impatient.stats.Published, c.table())
	t.Logf("\n| | goroutines | descriptors | heap in use by objects, KiB | by spans, KiB |\n|---|---|---|---|---|\n%s%s%s%s",
		empty.row("before the hubs"), base.row("baseline: hubs idle after the first round"), after.row("hubs idle after all cycles"), gone.row("after the hubs"))
	c.check(t)
	after.compare(t, "the cycles", base)
	gone.compare(t, "the hubs", empty)
}

// A churnFormat is what a client asks for, and over what.
type churnFormat struct {
	name string
	path string
	ws   bool
	sse  bool
	tls  bool
	h2   bool
}

var churnFormats = []*churnFormat{
	{name: "WebSocket", ws: true},
	{name: "WebSocket over TLS", ws: true, tls: true},
	{name: "SSE, taken over", sse: true},
	{name: "SSE behind Unwrap", path: "wrapped", sse: true},
	{name: "SSE over HTTP/2", sse: true, tls: true, h2: true},
	{name: "text"},
}

// The ways to go.
const (
	byCloseFrame = "client: Close frame"
	byFIN        = "client: FIN"
	byRST        = "client: RST"
	byEarlyRST   = "client: RST before the answer is read"
	byCancel     = "client: RST_STREAM"
	bySilence    = "server: timeout"
	byConnClose  = "server: Conn.Close"
	byShutdown   = "server: Hub.Shutdown"
)

func (f *churnFormat) ends() []string {
	switch {
	case f.ws:
		return []string{byCloseFrame, byFIN, byRST, byEarlyRST, bySilence, byConnClose}
	case f.h2:
		return []string{byCancel, byFIN, byRST, bySilence, byConnClose}
	}
	return []string{byFIN, byRST, byEarlyRST, bySilence, byConnClose}
}

// A churnCell counts the clients of one format that go in one way.
type churnCell struct {
	*churnFormat
	end                       string
	cycles, connected, closed atomic.Int64

	mu     sync.Mutex // guards the rest
	causes map[string]int
}

// A cycle is one client, from its request to its end.
type cycle struct {
	cell   *churnCell
	nth    int64               // in its cell
	conn   chan *tailcast.Conn // from OnConnect
	closed chan struct{}       // closed by BeforeClose
	ends   atomic.Int32        // calls of BeforeClose
	known  atomic.Bool         // OnConnect was called
	served chan struct{}       // closed when the handler has returned
}

type cycleKey struct{}

// A churn is two hubs, one of which has no patience with silent clients, and everybody who comes and goes.
type churn struct {
	patient, impatient *churnHub
	cells              []*churnCell // but those of byShutdown
	last               []*churnCell
	number             atomic.Int64
	source             atomic.Uint32
	cycles             sync.Map // by number, while a request may still come
	twice              atomic.Int64
}

// A churnHub is a hub on a port of its own for HTTP, and on another one for HTTPS.
type churnHub struct {
	hub       *tailcast.Hub  // nil after stop
	stats     tailcast.Stats // the last ones
	addr, tls string
	h2        *http.Transport
	clients   *tls.Config
	stop      func() // the servers and the publisher
}

func newChurn(t *testing.T) *churn {
	c := &churn{}
	for _, f := range churnFormats {
		for _, end := range f.ends() {
			c.cells = append(c.cells, &churnCell{churnFormat: f, end: end, causes: make(map[string]int)})
		}
		c.last = append(c.last, &churnCell{churnFormat: f, end: byShutdown, causes: make(map[string]int)})
	}
	c.patient = c.newHub(t, 0)
	c.impatient = c.newHub(t, 8<<10, tailcast.WithPing(150*time.Millisecond, 150*time.Millisecond), tailcast.WithWriteTimeout(300*time.Millisecond))
	return c
}

// newHub starts a hub, with messages. buffer bounds the kernel's send buffers of its connections, if it is not 0.
func (c *churn) newHub(t *testing.T, buffer int, opts ...tailcast.Option) *churnHub {
	hub := tailcast.New(append(opts, tailcast.WithRetention(tailcast.Retention{Bytes: 128 << 10}),
		tailcast.WithOnConnect(c.onConnect), tailcast.WithBeforeClose(c.beforeClose))...)
	h := &churnHub{hub: hub}
	mux := http.NewServeMux()
	mux.Handle("/", c.named(hub))
	mux.Handle("/wrapped", c.named(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { hub.ServeHTTP(seeThrough{w}, r) })))
	quiet := log.New(io.Discard, "", 0) // of handshakes that were reset
	var stops []func()
	serve := func(serve func(*http.Server, net.Listener) error, config *tls.Config) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: mux, ErrorLog: quiet, TLSConfig: config, ReadHeaderTimeout: patience}
		done := make(chan struct{})
		go func() { serve(srv, &bufferedListener{ln, buffer}); close(done) }()
		stops = append(stops, func() { srv.Close(); <-done })
		return ln.Addr().String()
	}
	h.addr = serve((*http.Server).Serve, nil)
	h.tls = serve(func(s *http.Server, ln net.Listener) error { return s.ServeTLS(ln, "", "") }, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	h.clients = &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	h.h2 = c.transport(h, nil)

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	msgs := make([]tailcast.Message, 20)
	for i := range msgs {
		msgs[i].Data = bytes.Repeat([]byte{'a' + byte(i)}, 200)
	}
	for range 100 { // more than is kept
		hub.Publish(ctx, msgs...)
	}
	go func() {
		defer close(done)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				hub.Publish(ctx, msgs...) // in vain, after Shutdown
			}
		}
	}()
	h.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		h.hub.Close()
		for _, stop := range stops {
			stop()
		}
		h.h2.CloseIdleConnections()
		h.stats, h.hub = h.hub.Stats(), nil // so that it can be collected
	})
	t.Cleanup(h.stop)
	return h
}

// A bufferedListener bounds what the kernel takes for its connections.
type bufferedListener struct {
	net.Listener
	bytes int
}

func (l *bufferedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil && l.bytes > 0 {
		nc.(*net.TCPConn).SetWriteBuffer(l.bytes)
	}
	return nc, err
}

// seeThrough is a wrapper as middleware has it.
type seeThrough struct{ http.ResponseWriter }

func (s seeThrough) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func certificate(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// named puts the cycle that a request belongs to into its context.
func (c *churn) named(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("cycle"), 10, 64)
		cy, ok := c.cycles.LoadAndDelete(n)
		if !ok { // its client has gone
			http.NotFound(w, r)
			return
		}
		defer close(cy.(*cycle).served)
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), cycleKey{}, cy)))
	})
}

func (c *churn) onConnect(conn *tailcast.Conn) error {
	cy := conn.Context().Value(cycleKey{}).(*cycle)
	cy.known.Store(true)
	cy.cell.connected.Add(1)
	cy.conn <- conn
	return nil
}

var (
	addresses = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`)
	counts    = regexp.MustCompile(`\d+ (messages|bytes)`)
)

func (c *churn) beforeClose(conn *tailcast.Conn, cause error) {
	cy := conn.Context().Value(cycleKey{}).(*cycle)
	if cy.ends.Add(1) > 1 {
		c.twice.Add(1)
		return
	}
	text := "none"
	if cause != nil {
		text = counts.ReplaceAllString(addresses.ReplaceAllString(cause.Error(), "ADDR"), "N $1")
	}
	cy.cell.mu.Lock()
	cy.cell.causes[text]++
	cy.cell.mu.Unlock()
	cy.cell.closed.Add(1)
	close(cy.closed)
}

// round runs n cycles, a part of them in each cell.
func (c *churn) round(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	run := func(workers int, cells []*churnCell, n int) {
		var next atomic.Int64
		for range workers {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < n && !t.Failed(); i = int(next.Add(1)) - 1 {
					cell := cells[i%len(cells)]
					if err := c.cycle(cell, nil); err != nil {
						t.Errorf("%s, %s: %v", cell.name, cell.end, err)
					}
				}
			})
		}
	}
	isSilent := func(cell *churnCell) bool { return cell.end == bySilence }
	silent := slices.DeleteFunc(slices.Clone(c.cells), func(cell *churnCell) bool { return !isSilent(cell) })
	others := slices.DeleteFunc(slices.Clone(c.cells), isSilent)
	waiting := n * len(silent) / len(c.cells)
	run(150, silent, waiting) // they only wait
	run(16, others, n-waiting)
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// cycle runs one client of the cell. With stay it tells that it is there, and then waits for the hub to say goodbye.
func (c *churn) cycle(cell *churnCell, stay chan<- *cycle) error {
	number := c.number.Add(1)
	cy := &cycle{cell: cell, nth: cell.cycles.Add(1), conn: make(chan *tailcast.Conn, 1), closed: make(chan struct{}), served: make(chan struct{})}
	c.cycles.Store(number, cy)
	defer c.cycles.Delete(number)
	hub := c.patient
	query := fmt.Sprintf("/%s?tail=2&cycle=%d", cell.path, number)
	if cell.end == bySilence {
		hub, query = c.impatient, fmt.Sprintf("/%s?tail=100000&cycle=%d", cell.path, number)
	}
	if cell.h2 {
		return c.cycleH2(cy, hub, query, stay)
	}
	return c.cycleH1(cy, hub, query, stay)
}

// dial connects from one of many addresses, so that ports suffice.
func (c *churn) dial(ctx context.Context, addr string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+c.source.Add(1)%100))}}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
}

// transport speaks HTTP/2 with a hub. It hands each connection to dialed, unless that is nil.
func (c *churn) transport(h *churnHub, dialed func(*net.TCPConn)) *http.Transport {
	return &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   h.clients.Clone(),
		HTTP2:             &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			nc, err := c.dial(ctx, addr)
			if err == nil && dialed != nil {
				dialed(nc)
			}
			return nc, err
		},
	}
}

func (c *churn) cycleH1(cy *cycle, h *churnHub, query string, stay chan<- *cycle) error {
	addr := h.addr
	if cy.cell.tls {
		addr = h.tls
	}
	raw, err := c.dial(context.Background(), addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(patience))
	if cy.cell.end == bySilence {
		raw.SetReadBuffer(4 << 10)
	}
	nc := net.Conn(raw)
	if cy.cell.tls {
		config := h.clients.Clone()
		config.ServerName = "churn"
		nc = tls.Client(raw, config)
	}
	request, key := []byte("GET "+query+" HTTP/1.1\r\nHost: "+addr+"\r\nAccept: "+cy.cell.accept()+"\r\n\r\n"), ""
	if cy.cell.ws {
		request, key = testnet.Handshake(addr, query, nil)
	}
	if _, err := nc.Write(request); err != nil {
		return err
	}
	switch cy.cell.end {
	case byEarlyRST: // every other one so early that the hub may not have seen it
		seen := cy.nth%2 == 0
		if seen {
			<-cy.conn
		}
		raw.SetLinger(0)
		raw.Close()
		if seen {
			return cy.wait()
		}
		return nil
	case bySilence:
		return cy.wait()
	}
	var s told
	if cy.cell.ws {
		ws, _, err := testnet.ReadHandshake(nc, key)
		if err != nil {
			return err
		}
		s = &toldWS{ws: ws}
	} else {
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		s = &toldStream{sse: cy.cell.sse, br: bufio.NewReader(resp.Body)}
	}
	if err := s.message(); err != nil {
		return err
	}
	switch cy.cell.end {
	case byCloseFrame:
		if err := s.(*toldWS).ws.WriteClose(1000, ""); err != nil {
			return err
		}
		if err := s.goodbye(1000); err != nil {
			return err
		}
	case byFIN:
		raw.CloseWrite()
		io.Copy(io.Discard, nc) // closing with unread bytes would be a reset
	case byRST:
		raw.SetLinger(0)
		raw.Close()
	default:
		if err := cy.dismissed(s, stay); err != nil {
			return err
		}
	}
	return cy.wait()
}

func (c *churn) cycleH2(cy *cycle, h *churnHub, query string, stay chan<- *cycle) error {
	transport, raw := h.h2, (*net.TCPConn)(nil)
	if cy.cell.end == byFIN || cy.cell.end == byRST { // they end a connection of their own
		transport = c.transport(h, func(nc *net.TCPConn) { raw = nc })
		defer transport.CloseIdleConnections()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+h.tls+query, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", cy.cell.accept())
	resp, err := transport.RoundTrip(req)
	switch {
	case err != nil && cy.cell.end == bySilence:
		return cy.wait()
	case err != nil:
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		return errors.New(resp.Proto + " " + resp.Status)
	}
	if cy.cell.end == bySilence {
		return cy.wait()
	}
	s := &toldStream{sse: true, br: bufio.NewReader(resp.Body)}
	if err := s.message(); err != nil {
		return err
	}
	switch cy.cell.end {
	case byCancel:
		cancel()
	case byFIN:
		raw.CloseWrite()
		io.Copy(io.Discard, resp.Body)
	case byRST:
		raw.SetLinger(0)
		raw.Close()
	default:
		if err := cy.dismissed(s, stay); err != nil {
			return err
		}
	}
	return cy.wait()
}

func (f *churnFormat) accept() string {
	if f.sse {
		return "text/event-stream"
	}
	return "*/*"
}

// dismissed is for a client that goes when it is told to.
func (cy *cycle) dismissed(s told, stay chan<- *cycle) error {
	if stay != nil {
		stay <- cy
		return s.goodbye(1001)
	}
	if err := (<-cy.conn).Close(nil); err != nil {
		return err
	}
	return s.goodbye(1000)
}

// wait waits for BeforeClose, or for the hub to refuse the client: on a busy machine an impatient hub may not even get the
// head of its answer out in time.
func (cy *cycle) wait() error {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-cy.closed:
	case <-cy.served:
		if cy.known.Load() && cy.ends.Load() == 0 {
			return errors.New("the handler has returned before BeforeClose")
		}
	case <-late.C:
		return fmt.Errorf("the hub does not notice the end (OnConnect: %t)", cy.known.Load())
	}
	return nil
}

// told is what a client is told.
type told interface {
	message() error         // reads one
	goodbye(code int) error // reads to the end, which must be in order
}

type toldWS struct{ ws *testnet.WS }

func (s *toldWS) message() error {
	_, _, err := s.ws.ReadMessage()
	return err
}

func (s *toldWS) goodbye(code int) error {
	var closed *testnet.ClosedError
	for {
		_, _, err := s.ws.ReadMessage() // answers the Close frame
		switch {
		case err == nil:
			continue
		case !errors.As(err, &closed) || closed.Code != code:
			return fmt.Errorf("want to be closed with %d: %w", code, err)
		}
		if op, _, err := s.ws.ReadFrame(); !errors.Is(err, io.EOF) {
			return fmt.Errorf("after the Close frame: opcode %d, %w", op, err)
		}
		return nil
	}
}

type toldStream struct {
	sse bool
	br  *bufio.Reader
}

func (s *toldStream) message() error {
	for {
		line, err := s.br.ReadString('\n')
		if err != nil || !s.sse || strings.HasPrefix(line, "data: ") {
			return err
		}
	}
}

func (s *toldStream) goodbye(code int) error {
	bye := !s.sse
	for {
		line, err := s.br.ReadString('\n')
		switch {
		case line == "event: bye\n":
			line, err = s.br.ReadString('\n')
			if bye = strings.Contains(line, fmt.Sprintf(`"code":%d,`, code)); !bye {
				return fmt.Errorf("bye with %s, want %d", line, code)
			}
		case errors.Is(err, io.EOF) && line == "" && bye:
			return nil
		}
		if err != nil {
			return fmt.Errorf("%q: bye %t: %w", line, bye, err)
		}
	}
}

// settled takes stock when all clients have gone.
func (c *churn) settled(t *testing.T, want stock) stock {
	t.Helper()
	for _, h := range []*churnHub{c.patient, c.impatient} {
		h.h2.CloseIdleConnections()
		eventually(t, "all connections have ended", func() bool { return len(h.hub.Stats().Connections) == 0 })
	}
	return rested(t, want)
}

// shutdown lets n clients be there when the hub is shut down.
func (c *churn) shutdown(t *testing.T, n int) {
	t.Helper()
	stay := make(chan *cycle, n)
	var wg sync.WaitGroup
	for i := range n {
		cell := c.last[i%len(c.last)]
		wg.Go(func() {
			if err := c.cycle(cell, stay); err != nil {
				t.Errorf("%s, %s: %v", cell.name, cell.end, err)
			}
		})
	}
	for range n {
		select {
		case <-stay:
		case <-time.After(patience):
			t.Fatal("not all clients have come")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, h := range []*churnHub{c.patient, c.impatient} {
		if err := h.hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	c.patient.stop()
	c.impatient.stop()
}

// check compares what was counted.
func (c *churn) check(t *testing.T) {
	t.Helper()
	var connected int64
	for _, cell := range slices.Concat(c.cells, c.last) {
		n := cell.connected.Load()
		connected += n
		if closed := cell.closed.Load(); closed != n {
			t.Errorf("%s, %s: %d calls of OnConnect, %d of BeforeClose", cell.name, cell.end, n, closed)
		}
	}
	if accepted := c.patient.stats.Accepted + c.impatient.stats.Accepted; accepted != connected {
		t.Errorf("%d connections were accepted, %d calls of OnConnect", accepted, connected)
	}
	if n := c.twice.Load(); n > 0 {
		t.Errorf("BeforeClose was called again, %d times", n)
	}
}

// table shows each cell.
func (c *churn) table() string {
	var b strings.Builder
	b.WriteString("\n| format | end | cycles | OnConnect | BeforeClose | causes |\n|---|---|---|---|---|---|\n")
	for _, cell := range slices.Concat(c.cells, c.last) {
		var causes []string
		for _, text := range slices.Sorted(maps.Keys(cell.causes)) {
			causes = append(causes, fmt.Sprintf("%s (%d)", text, cell.causes[text]))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %s |\n", cell.name, cell.end,
			cell.cycles.Load(), cell.connected.Load(), cell.closed.Load(), strings.Join(causes, "; "))
	}
	return b.String()
}

// A stock is what this process holds.
type stock struct {
	goroutines, descriptors int
	alloc, inuse            uint64
}

func takeStock() stock {
	runtime.GC()
	runtime.GC() // what pools have kept through the first one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	descriptors, _ := os.ReadDir("/proc/self/fd")
	return stock{runtime.NumGoroutine(), len(descriptors), m.HeapAlloc, m.HeapInuse}
}

func (s stock) row(name string) string {
	return fmt.Sprintf("| %s | %d | %d | %d | %d |\n", name, s.goroutines, s.descriptors, s.alloc>>10, s.inuse>>10)
}

// compare expects that no more is held than before. Of memory 4 MiB are noise; it is 40 bytes a connection in 100 000.
func (s stock) compare(t *testing.T, what string, before stock) {
	t.Helper()
	if s.goroutines > before.goroutines || s.descriptors > before.descriptors {
		t.Errorf("%s have left %d goroutines and %d descriptors", what, s.goroutines-before.goroutines, s.descriptors-before.descriptors)
	}
	if s.alloc > before.alloc+4<<20 || s.inuse > before.inuse+8<<20 {
		t.Errorf("%s have left %d KiB in objects, %d in spans", what, int64(s.alloc-before.alloc)>>10, int64(s.inuse-before.inuse)>>10)
	}
}

// rested takes stock when there is no more than want, or, if that is zero or does not come true, when nothing has gone for long.
func rested(t *testing.T, want stock) stock {
	t.Helper()
	const long = 2 * time.Second
	s, since := takeStock(), time.Now()
	for want == (stock{}) || s.goroutines > want.goroutines || s.descriptors > want.descriptors {
		time.Sleep(100 * time.Millisecond)
		now := takeStock()
		if now.goroutines < s.goroutines || now.descriptors < s.descriptors {
			since = time.Now()
		}
		s = now
		if time.Since(since) > long {
			if want != (stock{}) {
				var dump bytes.Buffer
				pprof.Lookup("goroutine").WriteTo(&dump, 1)
				t.Logf("%.20000s", &dump)
			}
			break
		}
	}
	return s
}
