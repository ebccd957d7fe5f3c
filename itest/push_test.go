package itest

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPushAtThePage: the page of examples/push, in two tabs of Chromium, registers as wserver's does, gets what is posted, and comes back when the
// server was restarted.
func TestPushAtThePage(t *testing.T) {
	t.Parallel()
	need(t, "node", "chromium", "npm/playwright-core")
	bin := filepath.Join(t.TempDir(), "push")
	if out, err := exec.Command("go", "build", "-o", bin, "../examples/push").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	addr := freeAddr(t)
	start := func() (stop func()) {
		cmd := exec.Command(bin, "-addr", addr)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it listens", func() bool {
			resp, err := http.Get("http://" + addr + "/")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil
		})
		return func() {
			cmd.Process.Signal(os.Interrupt)
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
	post := func(body string) string {
		resp, err := http.Post("http://"+addr+"/push", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		return strings.TrimSpace(string(answer))
	}
	stop := start()
	jack, jill := openPage(t, "http://"+addr+"/"), openPage(t, "http://"+addr+"/?token=bbb&event=topic2")
	jack.await(t, "registered")
	jill.await(t, "registered")
	reached := func(body string) {
		t.Helper()
		eventually(t, "the push reaches a page", func() bool { return post(body) == `{"matched":1,"queued":1,"dropped":0}` })
	}
	reached(`{"userId":"jack","event":"topic1","message":"hello <b>jack</b>"}`)
	jack.await(t, "hello <b>jack</b>")
	reached(`{"userId":"jill","event":"topic2","message":"hello jill"}`)
	jill.await(t, "hello jill")
	if answer := post(`{"userId":"jill","event":"topic1","message":"not hers"}`); answer != `{"matched":0,"queued":0,"dropped":0}` {
		t.Errorf("jill has no topic1: %s", answer)
	}
	stop()
	jack.await(t, "closed: 1001 the server is shutting down")
	defer start()()
	jack.await(t, "registered")
	reached(`{"userId":"jack","event":"topic1","message":"again"}`)
	jack.await(t, "again")
	openPage(t, "http://"+addr+"/?token=ccc").await(t, "closed: 4401 the token is not accepted")
}

// An openedPage is a page of Chromium that shows lines.
type openedPage struct{ lines chan string }

func openPage(t *testing.T, url string) *openedPage {
	t.Helper()
	chromium, _ := exec.LookPath("chromium")
	cmd := exec.Command("node", "clients/page.mjs", url)
	cmd.Env = append(os.Environ(), "CHROMIUM="+chromium)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &openedPage{make(chan string, 1000)}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		defer kill.Stop()
		cmd.Wait()
	})
	return p
}

// await reads lines until one of them comes.
func (p *openedPage) await(t *testing.T, want string) {
	t.Helper()
	var seen []string
	for deadline := time.After(patience); ; {
		select {
		case line := <-p.lines:
			if line == want {
				return
			}
			seen = append(seen, line)
		case <-deadline:
			t.Fatalf("the page shows %q, not %q", seen, want)
		}
	}
}
