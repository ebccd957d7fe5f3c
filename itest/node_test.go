package itest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A nodeProgram is a program of clients/, which is given orders and says what it sees, each a line of JSON.
type nodeProgram struct {
	t      *testing.T
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	stderr bytes.Buffer  // when gone is closed
	gone   chan struct{} // closed when it has ended
}

// startNode starts one, which ends with the test. heard is called with each line, one after the other.
func startNode(t *testing.T, name string, heard func(line []byte) error, args ...string) *nodeProgram {
	t.Helper()
	p := &nodeProgram{t: t, name: name, gone: make(chan struct{})}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stderr = &p.stderr
	if bin, err := exec.LookPath("chromium"); err == nil {
		p.cmd.Env = append(os.Environ(), "CHROMIUM="+bin)
	}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 64<<20)
		for lines.Scan() {
			if err := heard(lines.Bytes()); err != nil {
				t.Errorf("%s says %.200q: %v", name, lines.Text(), err)
			}
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.in.Close()
		kill := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
		defer kill.Stop()
		<-p.gone
	})
	return p
}

// send gives it an order.
func (p *nodeProgram) send(order any) {
	p.t.Helper()
	line, err := json.Marshal(order)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		<-p.gone
		p.t.Fatalf("%s: %v: %s", p.name, err, &p.stderr)
	}
}
