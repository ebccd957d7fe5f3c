package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const timeout = 20 * time.Second

func TestOrdersAndLogAreSeenLiveBesideOtherRoutes(t *testing.T) {
	url, stop := start(t)
	if body, _ := io.ReadAll(get(t, url+"/healthz")); string(body) != "ok\n" {
		t.Fatalf("healthz: %q", body)
	}
	orders, logs := get(t, url+"/orders/live"), get(t, url+"/logs")
	resp, err := http.Post(url+"/orders", "text/plain", strings.NewReader("tea"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
	if line, err := orders.ReadString('\n'); line != "ordered: \"tea\"\n" {
		t.Fatalf("orders: %q, %v", line, err)
	}
	if line, err := logs.ReadString('\n'); !strings.Contains(line, `msg="order taken" bytes=3`) {
		t.Fatalf("log: %q, %v", line, err)
	}
	stop()
	if rest, err := io.ReadAll(orders); len(rest) > 0 || err != nil {
		t.Fatalf("the stream ended with %q, %v", rest, err)
	}
}

// start runs the service on a free port.
func start(t *testing.T) (url string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	logPath := filepath.Join(t.TempDir(), "service.log")
	ended := make(chan error, 1)
	go func() {
		ended <- serve(ctx, ln, logPath)
		close(ended)
	}()
	stop = func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(timeout):
			t.Error("still running")
		}
	}
	t.Cleanup(stop)
	return "http://" + ln.Addr().String(), stop
}

func get(t *testing.T, url string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", url, resp.Status)
	}
	return bufio.NewReader(resp.Body)
}
