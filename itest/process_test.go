package itest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

// A logtailProcess is examples/logtail, as a user runs it.
type logtailProcess struct {
	cmd    *exec.Cmd
	url    string // of the stream
	stderr bytes.Buffer
}

var announced = regexp.MustCompile(`http://[^/\s]+`)

func startLogtail(t *testing.T, args ...string) *logtailProcess {
	t.Helper()
	bin, err := logtail()
	if err != nil {
		t.Fatal(err)
	}
	p := &logtailProcess{cmd: exec.Command(bin, args...)}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	br := bufio.NewReader(out)
	for p.url == "" {
		line, err := br.ReadString('\n')
		if err != nil {
			p.cmd.Wait()
			t.Fatalf("logtail %v announces no URL: %v\n%s", args, err, &p.stderr)
		}
		if base := announced.FindString(line); base != "" {
			p.url = base + "/logs"
		}
	}
	go io.Copy(io.Discard, br)
	return p
}

// stop asks it to end, and expects that it does so well.
func (p *logtailProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("logtail, after SIGTERM: %v\n%s", err, &p.stderr)
	}
}

// kill ends it as a crash would.
func (p *logtailProcess) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.cmd.Wait()
}

// freeAddr returns an address that a process can listen on, also for the second time: its port is not of those that systems give to
// outgoing connections (32768 and up), of which the other tests have thousands.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000)))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// A clientProcess is a client of another maker, that writes what it gets to a file.
type clientProcess struct {
	*account
	cmd  *exec.Cmd
	file *os.File // what it has written
	rest []byte   // of file: the beginning of a line
	done chan struct{}
	mu   sync.Mutex
	said bytes.Buffer // on stdout and stderr; guarded by mu
}

func (c *clientProcess) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(p)
}

func (c *clientProcess) words() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// startClient starts a client and returns when it is connected. In args FILE stands for the file, and the client says open or
// a status line when it is connected.
func startClient(t *testing.T, name string, args ...string) *clientProcess {
	t.Helper()
	path := filepath.Join(t.TempDir(), "received")
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "FILE", path)
	}
	c := &clientProcess{account: newAccount(name), cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = c, c
	if bin, err := exec.LookPath("chromium"); err == nil {
		c.cmd.Env = append(os.Environ(), "CHROMIUM="+bin)
	}
	var err error
	if c.file, err = os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.cmd.Wait(); close(c.done) }()
	t.Cleanup(func() { c.cmd.Process.Kill(); <-c.done; c.file.Close() })
	eventually(t, name+" connects", func() bool {
		select {
		case <-c.done:
			t.Fatalf("%s has ended: %s", name, c.words())
		default:
		}
		return strings.Contains(c.words(), "open") || strings.Contains(c.words(), "HTTP/1.1 200")
	})
	return c
}

// realClients connects everybody who has come to see the stream.
func realClients(t *testing.T, url string) []*clientProcess {
	t.Helper()
	url += "?tail=1000000"
	return []*clientProcess{
		startClient(t, "ws of Node", "node", "clients/ws.mjs", strings.Replace(url, "http", "ws", 1), "FILE"),
		startClient(t, "curl -N", "curl", "-sSN", "-D", "-", "-o", "FILE", url),
		startClient(t, "EventSource of Node", "node", "clients/eventsource.mjs", url, "FILE"),
		startClient(t, "EventSource of Chromium", "node", "clients/chromium.mjs", url, "FILE"),
	}
}

func needRealClients(t *testing.T) {
	t.Helper()
	need(t, "curl", "node", "chromium", "npm/ws", "npm/eventsource", "npm/playwright-core")
}

// read takes into account what the client has written since the last call.
func (c *clientProcess) read(t *testing.T) {
	t.Helper()
	fresh, err := io.ReadAll(c.file)
	if err != nil {
		t.Fatal(err)
	}
	c.rest = append(c.rest, fresh...)
	for {
		line, rest, ok := bytes.Cut(c.rest, []byte("\n"))
		if !ok {
			return
		}
		c.line(line)
		c.rest = rest
	}
}

// await reads until the client has n lines, or has got nothing new for long.
func (c *clientProcess) await(t *testing.T, n int) {
	t.Helper()
	for last, since := -1, time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c.read(t)
		got := c.got()
		if got >= n {
			return
		}
		if got > last {
			last, since = got, time.Now()
		}
		if time.Since(since) > patience {
			t.Errorf("%s has stopped at %d of %d lines: %s", c.name, got, n, c.words())
			return
		}
	}
}

// finish waits for the client's end, which the server has begun, and reads the rest.
func (c *clientProcess) finish(t *testing.T) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Errorf("%s does not end: %s", c.name, c.words())
	}
	c.read(t)
	if len(c.rest) > 0 {
		t.Errorf("%s has an unfinished line: %.300q", c.name, c.rest)
	}
}

// streamOf connects to a stream in this process, without a library's help.
func streamOf(url string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		resp.Body.Close()
		return nil, fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return resp, nil
}

var errStream = errors.New("the stream has ended")

// An sse reads an event stream as the standard says (HTML, 9.2.6).
type sse struct {
	resp *http.Response
	br   *bufio.Reader
	id   string // of the last event that was complete
}

func openSSE(url, lastID string) (*sse, error) {
	h := http.Header{"Accept": {"text/event-stream"}}
	if lastID != "" {
		h.Set("Last-Event-ID", lastID)
	}
	resp, err := streamOf(url, h)
	if err != nil {
		return nil, err
	}
	return &sse{resp: resp, br: bufio.NewReaderSize(resp.Body, 64<<10), id: lastID}, nil
}

func (s *sse) close() { s.resp.Body.Close() }

func (s *sse) last() string { return s.id }

// An envelopes reads objects, one a line or a message of a WebSocket.
type envelopes struct {
	next func() ([]byte, error)
	end  io.Closer
	id   string // of the last one that was complete
}

func openNDJSON(url, lastID string) (*envelopes, error) {
	resp, err := streamOf(since(url, lastID), http.Header{"Accept": {"application/x-ndjson"}})
	if err != nil {
		return nil, err
	}
	br := bufio.NewReaderSize(resp.Body, 64<<10)
	return &envelopes{
		next: func() ([]byte, error) { return br.ReadBytes('\n') },
		end:  resp.Body,
		id:   lastID,
	}, nil
}

// openV1 opens a WebSocket that speaks tailcast.v1.
func openV1(at, lastID string) (*envelopes, error) {
	u, err := url.Parse(since(at, lastID))
	if err != nil {
		return nil, err
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		return nil, err
	}
	ws, _, err := testnet.NewWS(conn, u.Host, u.RequestURI(), http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &envelopes{
		next: func() ([]byte, error) { _, b, err := ws.ReadMessage(); return b, err },
		end:  ws,
		id:   lastID,
	}, nil
}

func since(url, id string) string {
	switch {
	case id == "":
		return url
	case strings.Contains(url, "?"):
		return url + "&since=" + id
	}
	return url + "?since=" + id
}

func (s *envelopes) close() { s.end.Close() }

func (s *envelopes) last() string { return s.id }

// event returns the next message, or what is declared.
func (s *envelopes) event() (name string, data []byte, err error) {
	for {
		line, err := s.next()
		if err != nil {
			return "", nil, fmt.Errorf("%w: %w", errStream, err)
		}
		var o struct{ Event, ID, To, Data string }
		if err := json.Unmarshal(line, &o); err != nil {
			return "", nil, err
		}
		s.id = cmp.Or(o.ID, o.To, s.id)
		switch o.Event {
		case "pos":
		case "":
			return "", []byte(o.Data), nil
		default:
			return o.Event, line, nil
		}
	}
}

// event returns the next event that has data. What is cut off in its middle is none.
func (s *sse) event() (name string, data []byte, err error) {
	id := s.id
	for {
		line, err := s.br.ReadSlice('\n')
		if err != nil {
			return "", nil, fmt.Errorf("%w: %w", errStream, err)
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			s.id = id
			if data != nil {
				return name, data, nil
			}
			name = ""
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			id = string(value)
		case "event":
			name = string(value)
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		}
	}
}
