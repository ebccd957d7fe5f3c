package main

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast/backplane/nats"
)

// Viewers behind the front are on both nodes, and all see what is published through either.
func TestExample(t *testing.T) {
	for name, front := range map[string]string{"nginx": "", "a proxy of the standard library": "/nowhere"} {
		t.Run(name, func(t *testing.T) {
			if front != "" {
				t.Setenv("PATH", front)
			} else if _, err := exec.LookPath(name); err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			tryExample(t)
		})
	}
}

func tryExample(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, addr, t.TempDir(), nats.Config{}) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	nodes := make(map[string]bool)
	var viewers []*bufio.Scanner
	for range 4 {
		resp := get(t, ctx, "http://"+addr+"/?tail=0")
		defer resp.Body.Close()
		nodes[resp.Header.Get("X-Node")] = true
		viewers = append(viewers, bufio.NewScanner(resp.Body))
	}
	if len(nodes) != 2 {
		t.Errorf("the viewers are on %v", nodes)
	}
	for _, text := range []string{"first", "second", "third"} {
		resp, err := http.Post("http://"+addr+"/publish", "text/plain", strings.NewReader(text))
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
		for i, v := range viewers {
			if !v.Scan() || !strings.HasPrefix(v.Text(), text+", by node ") {
				t.Errorf("viewer %d: %q", i, v.Text())
			}
		}
	}
}

// get waits for the front.
func get(t *testing.T, ctx context.Context, url string) *http.Response {
	t.Helper()
	for range 500 {
		req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
		resp, err := http.DefaultClient.Do(req)
		if err == nil && resp.StatusCode == http.StatusOK {
			return resp
		}
		if err == nil {
			resp.Body.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the front does not answer")
	return nil
}
