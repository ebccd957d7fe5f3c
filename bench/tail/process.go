package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A follower is one that is compared.
type follower struct {
	name   string
	about  string
	lib    string   // what a child process is to be, or "" for a program that prints lines
	args   []string // of the child process
	resume bool     // it can go on where it, or a process before it, has stopped
}

var followers = []*follower{
	{name: "tailcast", lib: "tailcast", resume: true,
		about: "`tailcast.NewTail(path)` with `FromStart`, publishing into a `Publisher` of the bench"},
	{name: "nxadm", lib: "nxadm",
		about: "`tail.TailFile(path, tail.Config{Follow: true, ReOpen: true})`, as its README says"},
	{name: "nxadm poll", lib: "nxadm", args: []string{"-poll"},
		about: "the same with `Poll: true, CompleteLines: true`: it looks four times a second, and keeps pieces of lines back"},
	{name: "GNU tail", about: "`tail -n +1 -F path`, a process whose output is cut into lines"},
}

// A place is where a follower begins, and as whom.
type place struct {
	path    string
	fromEnd bool
	after   string // a position
	uid     int
}

func (f *follower) command(p place) *exec.Cmd {
	if f.lib == "" {
		from := "+1"
		if p.fromEnd {
			from = "0"
		}
		cmd := exec.Command("tail", "-n", from, "-F", p.path)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		return cmd
	}
	args := append([]string{"child", f.lib, fmt.Sprintf("-end=%t", p.fromEnd), "-after", p.after}, f.args...)
	if p.uid != 0 {
		args = append(args, "-uid", fmt.Sprint(p.uid))
	}
	return exec.Command(self(), append(args, p.path)...)
}

// self is this program, also where it is a test.
func self() string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return exe
}

// A process is a follower that runs. What it delivers goes into a ledger.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	ledger *ledger
	done   chan struct{} // closed when its output has ended and it has exited
	gate   gate
	stderr bytes.Buffer

	mu   sync.Mutex
	end  string // how it ended by itself
	pos  string // of the last line
	quit bool   // it is told to end
}

func (f *follower) start(p place, l *ledger) (*process, error) {
	c := &process{cmd: f.command(p), ledger: l, done: make(chan struct{})}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.uid != 0 && f.lib == "" {
		c.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid)}
	}
	in, errIn := c.cmd.StdinPipe()
	out, errOut := c.cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return nil, err
	}
	c.in = in
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.done)
		r := bufio.NewReaderSize(c.gate.reader(out), 64<<10)
		if f.lib == "" {
			c.readLines(r)
		} else {
			c.readRecords(r)
		}
		io.Copy(io.Discard, r)
		c.ended(exitText(c.cmd.Wait()))
	}()
	return c, nil
}

func exitText(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() < 0 {
		return "EXIT by " + exit.Sys().(syscall.WaitStatus).Signal().String()
	}
	if exit != nil {
		return fmt.Sprintf("EXIT %d", exit.ExitCode())
	}
	return "EXIT 0"
}

func (c *process) readLines(r *bufio.Reader) {
	for {
		b, err := r.ReadBytes('\n')
		if len(b) > 0 {
			c.ledger.arrived(bytes.TrimSuffix(b, []byte("\n")))
		}
		if err != nil {
			return
		}
	}
}

func (c *process) readRecords(r *bufio.Reader) {
	var long []byte
	for {
		rec, err := readRecord(r)
		if err != nil {
			return
		}
		switch rec.kind {
		case recordPartial:
			long = append(long, rec.data...)
			continue
		case recordLine:
			c.ledger.arrived(append(long, rec.data...))
			long = nil
			c.mu.Lock()
			c.pos = rec.pos
			c.mu.Unlock()
		case recordGap:
			long = nil // the rest of that line is missing: it never arrived
			c.ledger.gap(string(rec.data))
		case recordEnd:
			c.ended("DIES: " + string(rec.data))
		}
	}
}

// ended notes how the follower ended, the first time, unless it was told to.
func (c *process) ended(how string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.quit && c.end == "" {
		c.end = how
	}
	c.ledger.changed()
}

func (c *process) over() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

func (c *process) order(what string) { fmt.Fprintln(c.in, what) }

// kill ends it, and returns when all it has delivered is in the ledger.
func (c *process) kill() {
	c.mu.Lock()
	c.quit = true
	c.mu.Unlock()
	c.gate.shut.Store(false)
	c.cmd.Process.Kill()
	<-c.done
}

// freeze stops all its threads; thaw lets them go on.
func (c *process) freeze() error {
	if err := c.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for range 1000 {
		if c.frozen() {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New("the follower does not stop")
}

func (c *process) thaw() { c.cmd.Process.Signal(syscall.SIGCONT) }

func (c *process) frozen() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", c.cmd.Process.Pid))
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if _, state, ok := strings.Cut(string(b), ") "); err == nil && ok && !strings.ContainsAny(state[:1], "TZX") {
			return false
		}
	}
	return true
}

// A gate stands between a follower and its consumer.
type gate struct{ shut atomic.Bool }

func (g *gate) reader(r io.Reader) io.Reader { return gated{r, g} }

type gated struct {
	io.Reader
	gate *gate
}

func (g gated) Read(b []byte) (int, error) {
	n, err := g.Reader.Read(b)
	for g.gate.shut.Load() { // what was read before it was shut waits too
		time.Sleep(time.Millisecond)
	}
	return n, err
}
