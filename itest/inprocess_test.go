package itest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A site is a hub that follows a file, in this process, on a real port.
type site struct {
	hub  *tailcast.Hub
	path string
	url  string
	stop func() // drains the hub; viewers get what is left, and the end
}

func newSite(t *testing.T, opts ...tailcast.Option) *site {
	t.Helper()
	s := &site{hub: tailcast.New(opts...), path: filepath.Join(t.TempDir(), "app.log")}
	server := httptest.NewUnstartedServer(s.hub)
	server.Config.ReadHeaderTimeout = 10 * time.Second
	server.Start()
	s.url = server.URL
	ran := make(chan error, 1)
	go func() {
		ran <- s.hub.Run(context.Background(), &tailcast.Tail{Path: s.path, Start: tailcast.FromStart})
	}()
	s.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// address is where to connect to.
func (s *site) address() string { return strings.TrimPrefix(s.url, "http://") }

// A viewer reads a stream in a goroutine until its end.
type viewer struct {
	*account
	done chan error
}

// watchText reads plain text, as curl does.
func (s *site) watchText(t *testing.T, query string) *viewer {
	t.Helper()
	resp, err := streamOf(s.url+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	v := &viewer{newAccount("text"), make(chan error, 1)}
	go func() {
		br := bufio.NewReaderSize(resp.Body, 64<<10)
		for {
			line, err := br.ReadSlice('\n')
			switch {
			case err == nil:
				v.line(bytes.TrimSuffix(line, []byte("\n")))
				continue
			case len(line) > 0:
				err = fmt.Errorf("an unfinished line: %q: %w", line, err)
			case errors.Is(err, io.EOF):
				err = nil
			}
			v.done <- err
			return
		}
	}()
	return v
}

// watchWS reads a WebSocket with a client that is strict.
func (s *site) watchWS(t *testing.T, query string) *viewer {
	t.Helper()
	conn, err := net.Dial("tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	ws, _, err := testnet.NewWS(conn, s.address(), "/"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.Close() })
	v := &viewer{newAccount("WebSocket"), make(chan error, 1)}
	go func() {
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				var closed *testnet.ClosedError
				if errors.As(err, &closed) && closed.Code == 1001 {
					err = nil
				}
				v.done <- err
				return
			}
			v.line(data)
		}
	}()
	return v
}

// watchSSE reads an event stream that never breaks off.
func (s *site) watchSSE(t *testing.T, query string) *viewer {
	t.Helper()
	stream, err := openSSE(s.url+query, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stream.close)
	v := &viewer{newAccount("SSE"), make(chan error, 1)}
	go func() {
		for {
			name, data, err := stream.event()
			switch {
			case err != nil:
				v.done <- err
				return
			case name == "bye":
				v.done <- nil
				return
			case name != "":
				data = fmt.Appendf(nil, "# %s %s", name, data)
			}
			v.line(data)
		}
	}()
	return v
}

// await waits until the viewer has n lines, or has got nothing new for long.
func (v *viewer) await(t *testing.T, n int) {
	t.Helper()
	for last, since := -1, time.Now(); v.got() < n; time.Sleep(5 * time.Millisecond) {
		if got := v.got(); got > last {
			last, since = got, time.Now()
		}
		if time.Since(since) > patience {
			t.Errorf("%s has stopped at %d of %d lines", v.name, v.got(), n)
			return
		}
	}
}

// finish waits for the end of the stream.
func (v *viewer) finish(t *testing.T) {
	t.Helper()
	select {
	case err := <-v.done:
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
		}
	case <-time.After(patience):
		t.Errorf("%s does not end", v.name)
	}
}

// rotate gives path the name path.1, which becomes path.2, and so on, compressed ones too, and makes a new one.
func rotate(t *testing.T, path string) {
	t.Helper()
	old := func(n int) (name, ext string, ok bool) {
		name = fmt.Sprintf("%s.%d", path, n)
		if exists(name + ".gz") {
			return name, ".gz", true
		}
		return name, "", exists(name)
	}
	n := 1
	for _, _, ok := old(n); ok; _, _, ok = old(n) {
		n++
	}
	for ; n > 1; n-- {
		name, ext, _ := old(n - 1)
		if err := os.Rename(name+ext, fmt.Sprintf("%s.%d%s", path, n, ext)); err != nil {
			t.Error(err)
		}
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Error(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Error(err)
		return
	}
	f.Close()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
