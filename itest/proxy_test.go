package itest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A proxy is nginx or haproxy with a configuration, in which LISTEN and HUB stand for addresses, DIR for a directory and QUIET
// for how long nothing may happen before the proxy cuts a stream, "" for what nginx has by default.
type proxy struct {
	name   string
	config string
	tls    bool   // ends TLS, with HTTP/2
	gzip   bool   // compresses
	host   bool   // passes on what lets a browser's page in, and so the clients say that they are one
	ws     bool   // passes WebSockets on
	text   string // what becomes of quiet text, which has no heartbeat: it "is cut", "lives", or it depends on the version
}

const nginx = `daemon off;
master_process off;
error_log stderr;
pid DIR/pid;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	proxy_read_timeout QUIET;
	upstream named { server HUB; }
	server {
		`

// nginxWith is nginx with these lines in its server.
func nginxWith(lines ...string) string { return nginx + strings.Join(lines, "\n") + "\n}}\n" }

const (
	onTCP = "listen LISTEN;"
	onTLS = "listen LISTEN ssl http2; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem;"
)

const haproxyTCP = `
listen hub
    mode tcp
    bind LISTEN
    timeout connect 5s
    timeout client QUIET
    timeout server QUIET
    server hub HUB
`

// readmeBlock returns the configuration that README recommends.
func readmeBlock(t *testing.T, language string) string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```"+language+"\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatalf("README has no block of %s", language)
	}
	return block
}

// replaced replaces what must be there.
func replaced(t *testing.T, s string, oldnew ...string) string {
	t.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(s, oldnew[i]) {
			t.Fatalf("README's configuration has no %q:\n%s", oldnew[i], s)
		}
		s = strings.ReplaceAll(s, oldnew[i], oldnew[i+1])
	}
	return s
}

// readmeNginx is README's location for nginx.
func readmeNginx(t *testing.T) string {
	return replaced(t, readmeBlock(t, "nginx"), "127.0.0.1:8080", "HUB")
}

// without leaves out the lines that begin with a directive.
func without(t *testing.T, config, directive string) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^\s*` + directive + `\s.*\n`)
	if !line.MatchString(config) {
		t.Fatalf("README's configuration has no %q:\n%s", directive, config)
	}
	return line.ReplaceAllString(config, "")
}

func proxies(t *testing.T) []*proxy {
	location := readmeNginx(t)
	usual := without(t, location, "proxy_read_timeout")
	haproxy := replaced(t, readmeBlock(t, "haproxy"),
		"bind :80", "bind LISTEN", "127.0.0.1:8080", "HUB", "timeout client 30s", "timeout client QUIET")
	short := replaced(t, haproxy, "timeout server 1h", "timeout server QUIET")
	tunnel := replaced(t, short, "mode http", "mode http\n timeout tunnel 1h")
	const bare, gzip = "location / { proxy_pass http://HUB; }", "gzip on; gzip_types *; gzip_proxied any;"
	return []*proxy{
		{name: "nginx, only proxy_pass", text: "is cut", config: nginxWith(onTCP, bare)},
		{name: "nginx, gzip", text: "is cut", gzip: true, config: nginxWith(onTCP, gzip, bare)},
		{name: "nginx, Upgrade", text: "is cut", host: true, ws: true, config: nginxWith(onTCP, usual)},
		{name: "nginx, TLS, HTTP/2", text: "is cut", host: true, ws: true, tls: true, config: nginxWith(onTLS, usual)},
		{name: "nginx, as in README", host: true, ws: true, text: "lives", config: nginxWith(onTCP, location)},
		{name: "haproxy, http", text: "is cut", host: true, ws: true, config: short},
		{name: "haproxy, timeout tunnel", host: true, ws: true, config: tunnel},
		{name: "haproxy, as in README", host: true, ws: true, text: "lives", config: haproxy},
		{name: "haproxy, tcp", text: "is cut", host: true, ws: true, config: haproxyTCP},
	}
}

// A front is a running proxy.
type front struct {
	*proxy
	url  string
	ca   *x509.CertPool
	addr string // where it listens, whatever the URL says
}

// start runs the proxy before a hub until the test ends.
func (p *proxy) start(t *testing.T, hub, quiet string) *front {
	t.Helper()
	for try := 1; ; try++ {
		f, err := p.tryStart(t, hub, quiet)
		if err == nil {
			return f
		}
		if try == 3 { // somebody else may have taken the port meanwhile
			t.Fatal(err)
		}
	}
}

func (p *proxy) tryStart(t *testing.T, hub, quiet string) (*front, error) {
	t.Helper()
	dir := t.TempDir()
	f := &front{proxy: p, addr: freeAddr(t), ca: writeCertificate(t, dir)}
	_, port, _ := net.SplitHostPort(f.addr)
	f.url = "http://" + proxyHost + ":" + port + "/logs"
	if p.tls {
		f.url = strings.Replace(f.url, "http:", "https:", 1)
	}
	config := p.config
	if quiet == "" {
		config = strings.Replace(config, "proxy_read_timeout QUIET;", "", 1)
	}
	config = strings.NewReplacer("LISTEN", f.addr, "HUB", hub, "DIR", dir, "QUIET", quiet).Replace(config)
	path := filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-f", path)
	if strings.HasPrefix(p.config, nginx) {
		cmd = exec.Command("nginx", "-e", "stderr", "-p", dir, "-c", path)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-done })
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case <-done:
			return nil, fmt.Errorf("%s has ended: %v\n%s\n%s", p.name, cmd.ProcessState, &said, config)
		default:
		}
		if conn, err := net.Dial("tcp", f.addr); err == nil {
			conn.Close()
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s does not listen on %s", p.name, f.addr)
}

// proxyHost is where the browsers think they are. The certificate of httptest is for it.
const proxyHost = "example.com"

// writeCertificate writes what a proxy needs for TLS, and returns what its clients need.
func writeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	cert := srv.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return pool
}

// A guest is a client behind a proxy. It reads until its end.
type guest struct {
	messages chan string            // at most 100 unread ones
	done     chan struct{}          // closed at its end
	err      error                  // what that was: nil if the hub has said goodbye, as far as the format can tell
	id       atomic.Pointer[string] // of the last event, if they have ids
	close    func()
}

// connect opens a stream as a browser's page does, if the proxy lets pages in.
func (f *front) connect(format, query string, header http.Header) (*guest, error) {
	h := header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	if f.host {
		h.Set("Origin", strings.TrimSuffix(f.url, "/logs"))
	}
	g := &guest{messages: make(chan string, 100), done: make(chan struct{})}
	var read func(*guest) error
	var err error
	if format == "WebSocket" {
		read, err = f.webSocket(g, query, h)
	} else {
		read, err = f.stream(g, format, query, h)
	}
	if err != nil {
		return nil, err
	}
	go func() { g.err = read(g); close(g.done) }()
	return g, nil
}

func (f *front) webSocket(g *guest, query string, h http.Header) (read func(*guest) error, err error) {
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		return nil, err
	}
	if f.tls {
		conn = tls.Client(conn, &tls.Config{RootCAs: f.ca, ServerName: proxyHost})
	}
	host := strings.TrimSuffix(f.url[strings.Index(f.url, "//")+2:], "/logs")
	ws, _, err := testnet.NewWS(conn, host, "/logs"+query, h)
	if err != nil {
		return nil, err
	}
	g.close = func() { ws.Close() }
	return func(g *guest) error {
		for {
			_, data, err := ws.ReadMessage()
			var closed *testnet.ClosedError
			switch {
			case errors.As(err, &closed) && closed.Code == 1001:
				return nil
			case err != nil:
				return err
			}
			g.messages <- string(data)
		}
	}, nil
}

func (f *front) stream(g *guest, format, query string, h http.Header) (read func(*guest) error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: f.ca},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, f.addr)
		},
	}
	g.close = func() { cancel(); transport.CloseIdleConnections() }
	req, err := http.NewRequestWithContext(ctx, "GET", f.url+query, nil)
	if err != nil {
		return nil, err
	}
	req.Header = h
	if format == "SSE" {
		h.Set("Accept", "text/event-stream")
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != 200 || resp.Uncompressed != f.gzip || (resp.ProtoMajor == 2) != f.tls {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		g.close()
		return nil, fmt.Errorf("%s %s, compressed: %v: %s", resp.Proto, resp.Status, resp.Uncompressed, body)
	}
	br := bufio.NewReader(resp.Body)
	if format == "text" {
		return func(g *guest) error {
			for {
				line, err := br.ReadString('\n')
				if errors.Is(err, io.EOF) && line == "" {
					return nil
				}
				if err != nil {
					return err
				}
				g.messages <- strings.TrimSuffix(line, "\n")
			}
		}, nil
	}
	events := &sse{resp: resp, br: br}
	return func(g *guest) error {
		for {
			name, data, err := events.event()
			switch {
			case err != nil:
				return err
			case name == "bye" && bytes.Contains(data, []byte(`"code":1001`)):
				return nil
			}
			id := events.id
			g.id.Store(&id)
			g.messages <- string(data)
		}
	}, nil
}

// expect receives these messages, and says what came instead.
func (g *guest) expect(want ...string) error {
	for _, w := range want {
		select {
		case got := <-g.messages:
			if got != w {
				return fmt.Errorf("got %q, want %q", got, w)
			}
		case <-g.done:
			return fmt.Errorf("the stream has ended before %q: %v", w, g.err)
		case <-time.After(patience):
			return fmt.Errorf("%q does not come", w)
		}
	}
	return nil
}

// A proxied is a hub behind a proxy, with what was observed of one format.
type proxied struct {
	*front
	hub    *tailcast.Hub
	format string
	ended  chan error // the cause of each connection's end
	idle   *guest
	row    struct{ opening, first, next, leaving, quiet, end string }
}

func (p *proxy) before(t *testing.T, format, quiet string, opts ...tailcast.Option) *proxied {
	t.Helper()
	s := &proxied{format: format, ended: make(chan error, 100)}
	beforeClose := func(_ *tailcast.Conn, err error) { s.ended <- err }
	s.hub = tailcast.New(append(opts, tailcast.WithHosts(proxyHost), tailcast.WithBeforeClose(beforeClose))...)
	server := httptest.NewServer(s.hub)
	t.Cleanup(func() { s.hub.Close(); server.Close() })
	s.front = p.start(t, server.Listener.Addr().String(), quiet)
	return s
}

func (s *proxied) String() string { return s.name + ", " + s.format }

func (s *proxied) publish(t *testing.T, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := s.hub.Publish(context.Background(), tailcast.Message{Data: []byte(m)}); err != nil {
			t.Error(err)
		}
	}
}

// visit connects, and the guest leaves at the end of the test if not before.
func (s *proxied) visit(t *testing.T, query string, header http.Header) *guest {
	t.Helper()
	g, err := s.connect(s.format, query, header)
	if err != nil {
		t.Fatalf("%v: %v", s, err)
	}
	t.Cleanup(g.close)
	return g
}

func (s *proxied) expect(t *testing.T, g *guest, want ...string) {
	t.Helper()
	if err := g.expect(want...); err != nil {
		t.Fatalf("%v: %v", s, err)
	}
}

// prompt is how soon a message has to come through. The best of tries counts, since the machine may be busy elsewhere.
const (
	prompt = 200 * time.Millisecond
	tries  = 3
)

// opening measures how long it takes until the client knows that it is connected, while there is no message yet. nginx sends
// the header of a response over HTTP/2 only with the first byte of its body, and text has none to begin with.
func (s *proxied) opening(t *testing.T) {
	t.Helper()
	best := time.Hour
	for try := 0; try < tries && best > prompt; try++ {
		began := time.Now()
		late := time.AfterFunc(2*prompt, func() { s.publish(t, "a write") })
		g := s.visit(t, "", nil)
		if late.Stop() {
			best = time.Since(began)
		}
		g.close()
	}
	if s.row.opening = milliseconds(best); best < prompt {
		return
	}
	s.row.opening = "with a message"
	if !s.tls || s.format != "text" {
		t.Errorf("%v: the stream does not begin before there is a message", s)
	}
}

// delays measures how long it takes from the first packet to the first message, and from publishing to the next one.
func (s *proxied) delays(t *testing.T) {
	t.Helper()
	first, next := time.Hour, time.Hour
	for range tries {
		s.publish(t, "old")
		began := time.Now()
		g := s.visit(t, "?tail=1", nil)
		s.expect(t, g, "old")
		first = min(first, time.Since(began))
		began = time.Now()
		s.publish(t, "new")
		s.expect(t, g, "new")
		next = min(next, time.Since(began))
		g.close()
	}
	s.row.first, s.row.next = milliseconds(first), milliseconds(next)
	if first > prompt || next > prompt {
		t.Errorf("%v: the first message came after %v, the next one after %v", s, first, next)
	}
}

// leaving measures how long it takes until the hub sees that a client has gone. A proxy may not look at a client to which it has
// nothing to send.
func (s *proxied) leaving(t *testing.T) {
	t.Helper()
	s.publish(t, "old")
	g := s.visit(t, "?tail=1", nil)
	s.expect(t, g, "old")
	g.close()
	for began := time.Now(); time.Since(began) < patience; {
		select {
		case err := <-s.ended:
			s.row.leaving = cmp.Or(s.row.leaving, milliseconds(time.Since(began)))
			if err == nil {
				t.Errorf("%v: the client's leaving has no cause", s)
			}
			return
		case <-time.After(500 * time.Millisecond):
			s.row.leaving = "at a write"
			s.publish(t, "a write")
		}
	}
	t.Errorf("%v: the hub does not see that the client has left", s)
}

// resume comes back with an id.
func (s *proxied) resume(t *testing.T) {
	t.Helper()
	s.publish(t, "seen")
	g := s.visit(t, "?tail=1", nil)
	s.expect(t, g, "seen")
	head, _ := s.hub.Head("")
	id := head.String()
	if last := g.id.Load(); last != nil && *last != "" {
		id = *last
	}
	g.close()
	s.publish(t, "missed 1", "missed 2")
	g = s.visit(t, "", http.Header{"Last-Event-Id": {id}})
	s.expect(t, g, "missed 1", "missed 2")
	s.publish(t, "live")
	s.expect(t, g, "live")
	g.close()
	g = s.visit(t, "?since="+head.String(), nil)
	s.expect(t, g, "missed 1", "missed 2")
	g.close()
}

// rest has an idle guest, until idle has passed, and then gets a message to it.
func (s *proxied) rest(t *testing.T, idle time.Duration) {
	began := time.Now()
	select {
	case m := <-s.idle.messages:
		t.Errorf("%v: %q came while nothing was published", s, m)
	case <-s.idle.done:
		s.row.quiet = fmt.Sprintf("cut after %.1f s", time.Since(began).Seconds())
		if s.format != "text" || s.text == "lives" {
			t.Errorf("%v: %s: %v", s, s.row.quiet, s.idle.err)
		}
		for deadline := time.Now().Add(patience); len(s.hub.Stats().Connections) > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%v: the hub does not see the cut", s)
				return
			}
		}
		return
	case <-time.After(idle):
	}
	s.row.quiet = "lives"
	if s.format == "text" && s.text == "is cut" {
		t.Errorf("%v: quiet text was not cut, as README says that it is", s)
	}
	s.publish(t, "after a while")
	if err := s.idle.expect("after a while"); err != nil {
		t.Errorf("%v: after %v: %v", s, idle, err)
		return
	}
	s.shutdown(t)
}

// shutdown expects that the guest is told.
func (s *proxied) shutdown(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.hub.Shutdown(ctx); err != nil {
		t.Errorf("%v: %v", s, err)
	}
	select {
	case <-s.idle.done:
	case <-time.After(patience):
		t.Errorf("%v: the end does not come", s)
		return
	}
	if s.idle.err != nil {
		t.Errorf("%v: the stream ended with: %v", s, s.idle.err)
	}
	s.row.end = map[string]string{"SSE": "bye", "text": "end", "WebSocket": "1001"}[s.format]
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// TestProxies: what a hub's clients see through nginx and haproxy, as they are and as README recommends. A stream that is quiet
// for longer than the proxies allow lives by its heartbeats, but for text, which has none. In a soak all timeouts are those that
// nginx and the hub have by default, and that haproxy is usually given.
func TestProxies(t *testing.T) {
	t.Parallel()
	need(t, "nginx", "haproxy")
	quiet, idle := "3s", 5*time.Second
	opts := []tailcast.Option{tailcast.WithHeartbeat(time.Second), tailcast.WithPing(time.Second, 10*time.Second)}
	soak := os.Getenv("ITEST_SOAK") == "1"
	if soak {
		idle, opts = 90*time.Second, nil
	}
	var rows []*proxied
	for _, p := range proxies(t) {
		if soak {
			quiet = "30s"
			if strings.HasPrefix(p.config, nginx) {
				quiet = ""
			}
		}
		for _, format := range []string{"SSE", "text", "WebSocket"} {
			s := p.before(t, format, quiet, opts...)
			rows = append(rows, s)
			if format == "WebSocket" && !p.ws {
				var refused *testnet.HandshakeError
				_, err := s.connect(format, "", nil)
				if !errors.As(err, &refused) || refused.Response.StatusCode != 426 ||
					!strings.Contains(refused.Body, "without the header Upgrade") {
					t.Errorf("%v: %v; want 426 that names Upgrade", s, err)
				}
				s.row.opening = "426"
				continue
			}
			s.leaving(t)
			s.opening(t)
			s.delays(t)
			s.resume(t)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range rows {
		if s.row.first == "" {
			continue
		}
		s.publish(t, "last")
		s.idle = s.visit(t, "?tail=1", nil)
		s.expect(t, s.idle, "last")
		wg.Go(func() { s.rest(t, idle) })
	}
	wg.Wait()
	var table strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&table, "\n| %s |", strings.Join(cells, " | ")) }
	line("proxy", "format", "opens", "first message", "next message", "leaving seen after", "quiet for "+idle.String(), "shutdown")
	line("---", "---", "---", "---", "---", "---", "---", "---")
	for _, s := range rows {
		row := []string{s.name, s.format, s.row.opening, s.row.first, s.row.next, s.row.leaving, s.row.quiet, s.row.end}
		for i := range row {
			row[i] = cmp.Or(row[i], "–")
		}
		line(row...)
	}
	t.Log(table.String())
}

// TestProxiesThatTellTooLittle: what is answered where a line of README's is missing. Each names its cure.
func TestProxiesThatTellTooLittle(t *testing.T) {
	need(t, "nginx")
	location := readmeNginx(t)
	for _, c := range []struct {
		name   string
		listen string
		config string
		hosts  []string
		status int
		want   []string
	}{
		{"nothing is missing", onTCP, location, []string{proxyHost}, 0, nil},
		{"nothing is missing, over TLS", onTLS, location, []string{proxyHost}, 0, nil},
		{"no Upgrade", onTCP, without(t, location, "proxy_set_header +Upgrade"), []string{proxyHost}, 426,
			[]string{"without the header Upgrade: websocket. A proxy in front must"}},
		{"no Connection", onTCP, without(t, location, "proxy_set_header +Connection"), []string{proxyHost}, 426,
			[]string{"without the header Connection: Upgrade. A proxy in front must"}},
		{"no HTTP/1.1", onTCP, without(t, location, "proxy_http_version"), []string{proxyHost}, 426,
			[]string{"over HTTP/1.0. A proxy in front must speak HTTP/1.1"}},
		{"no Host", onTCP, without(t, location, "proxy_set_header +Host"), []string{proxyHost}, 403,
			[]string{"may not read from host \"127.0.0.1:", "must pass the header Host on"}},
		{"no Host, and an upstream with a name", onTCP,
			replaced(t, without(t, location, "proxy_set_header +Host"), "http://HUB", "http://named"), []string{proxyHost}, 403,
			[]string{`Host "named" is not served on a loopback address: see tailcast.WithHosts`}},
		{"no port in Host", onTCP, replaced(t, location, "$http_host", "$host"), []string{proxyHost}, 403,
			[]string{`may not read from host "example.com"`, "with the port"}},
		{"no X-Forwarded-Proto", onTLS, without(t, location, "proxy_set_header +X-Forwarded-Proto"), []string{proxyHost}, 403,
			[]string{"reached over http:", "set X-Forwarded-Proto"}},
		{"no WithHosts", onTCP, location, nil, 403, []string{`Host "example.com:`, "see tailcast.WithHosts"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := tailcast.New(tailcast.WithHosts(c.hosts...))
			server := httptest.NewServer(hub)
			t.Cleanup(func() { hub.Close(); server.Close() })
			p := &proxy{name: "nginx", text: "is cut", host: true, tls: c.listen == onTLS, config: nginxWith(c.listen, c.config)}
			g, err := p.start(t, server.Listener.Addr().String(), "").connect("WebSocket", "", nil)
			if err == nil {
				g.close()
			}
			var refused *testnet.HandshakeError
			switch {
			case c.status == 0 && err == nil:
				return
			case !errors.As(err, &refused) || refused.Response.StatusCode != c.status:
				t.Fatalf("%v; want %d", err, c.status)
			}
			for _, want := range c.want {
				if !strings.Contains(refused.Body, want) {
					t.Errorf("%q; want %q in it", refused.Body, want)
				}
			}
		})
	}
}
