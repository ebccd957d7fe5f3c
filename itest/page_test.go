package itest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A viewerPage is clients/viewer.mjs: the viewer's page in Chromium.
type viewerPage struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

// newViewerPage opens a URL. At the end of the test nothing may have been wrong with the page.
func newViewerPage(t *testing.T, url string) *viewerPage {
	t.Helper()
	need(t, "node", "chromium", "npm/playwright-core", "npm/axe-core")
	chromium, _ := exec.LookPath("chromium")
	cmd := exec.Command("node", "clients/viewer.mjs")
	cmd.Env = append(os.Environ(), "CHROMIUM="+chromium)
	cmd.Stderr = os.Stderr
	p := &viewerPage{t: t}
	var err error
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(9*time.Minute, func() { cmd.Process.Kill() }) // then reading its answers ends
	t.Cleanup(func() {
		if !t.Failed() {
			p.quiet()
		}
		p.in.Close()
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		hung.Stop()
	})
	p.answer(nil)
	p.do("viewport", 1100, 700)
	p.do("open", url)
	return p
}

// do gives an order, and waits until it is done.
func (p *viewerPage) do(order string, args ...any) {
	p.t.Helper()
	p.ask(nil, order, args...)
}

// ask gives an order that has an answer.
func (p *viewerPage) ask(into any, order string, args ...any) {
	p.t.Helper()
	line, err := json.Marshal(append([]any{order}, args...))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		p.t.Fatal(err)
	}
	p.answer(into)
}

func (p *viewerPage) answer(into any) {
	p.t.Helper()
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		p.t.Fatalf("the browser is gone: %v", err)
	}
	var a struct {
		Value json.RawMessage
		Error string
	}
	if err := json.Unmarshal(line, &a); err != nil || a.Error != "" {
		p.t.Fatalf("the browser: %v %s %.200s", err, a.Error, line)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(a.Value, into); err != nil {
		p.t.Fatalf("the browser says %.300s: %v", a.Value, err)
	}
}

// eval returns what an expression of JavaScript is in the page.
func eval[T any](p *viewerPage, expression string) T {
	p.t.Helper()
	var v T
	p.ask(&v, "eval", expression)
	return v
}

// until waits for an expression to become true.
func (p *viewerPage) until(expression string) {
	p.t.Helper()
	pause := 10 * time.Millisecond
	for deadline := time.Now().Add(patience); !eval[bool](p, "Boolean("+expression+")"); time.Sleep(pause) {
		pause = min(pause*3/2, 100*time.Millisecond) // who asks all the time holds up what is waited for
		if time.Now().After(deadline) {
			p.t.Fatalf("it does not come: %s\nthe page has: %s\n%s", expression, p.state(), p.text())
		}
	}
}

// state is what the page says of itself.
func (p *viewerPage) state() string {
	return eval[string](p, `JSON.stringify(Object.fromEntries(Object.entries(Object.getOwnPropertyDescriptors(tailcastViewer)).filter(([, d]) => d.get).map(([k, d]) => [k, d.get()])))`)
}

// text is what can be read in the page.
func (p *viewerPage) text() string { return eval[string](p, "document.body.innerText") }

// shows waits for a text that can be read.
func (p *viewerPage) shows(text string) {
	p.t.Helper()
	p.until(fmt.Sprintf("document.body.innerText.includes(%s)", quoteJS(text)))
}

// lines are all that are kept.
func (p *viewerPage) lines() []string { return eval[[]string](p, "tailcastViewer.texts()") }

// quiet expects that nothing was wrong: no error, no violation of the Content-Security-Policy.
func (p *viewerPage) quiet() {
	p.t.Helper()
	var troubles []string
	p.ask(&troubles, "troubles")
	if len(troubles) > 0 {
		p.t.Errorf("in the page: %s", strings.Join(troubles, "\n"))
	}
}

func quoteJS(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string is always fit
	}
	return string(b)
}
