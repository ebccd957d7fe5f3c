package itest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A writer writes lines to a file as a daemon does: with O_APPEND, a write for each line, reopening the file when it is told.
// It runs in a goroutine, or, by startWriter, as a process of its own.
type writer struct {
	Name  string
	Path  string
	Rate  int // lines per second; 0 = as many as it can
	Width int // of lines, on average

	hold  func(seq int) bool // if it is set, it is asked now and then: false lets the writer wait
	limit atomic.Int64       // the last line to be written; 0 = no limit

	seq    atomic.Int64 // of the last line
	gen    int          // how often the file has been reopened
	orders chan order
	done   chan error
}

// An order is carried out between two lines.
type order struct {
	what string // reopen, pause, resume, stop
	done chan struct{}
}

func (w *writer) start() *writer {
	w.orders, w.done = make(chan order), make(chan error, 1)
	go func() { w.done <- w.run() }()
	return w
}

// order returns when the order has been carried out.
func (w *writer) order(what string) error {
	o := order{what, make(chan struct{})}
	select {
	case w.orders <- o:
		<-o.done
		return nil
	case err := <-w.done:
		w.done <- err
		return fmt.Errorf("writer %s has ended: %w", w.Name, err)
	}
}

func (w *writer) run() error {
	f, err := w.open()
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	var (
		buf    []byte
		paused bool
		pace   = pace{rate: w.Rate}
	)
	for {
		select {
		case o := <-w.orders:
			switch o.what {
			case "reopen":
				f.Close()
				if f, err = w.open(); err != nil {
					return err
				}
				w.gen++
			case "pause":
				paused = true
			case "resume":
				paused = false
			case "stop":
				close(o.done)
				return nil
			}
			close(o.done)
		default:
		}
		seq := int(w.seq.Load())
		if paused || w.hold != nil && !w.hold(seq) {
			time.Sleep(time.Millisecond)
			continue
		}
		for range pace.due() {
			if limit := int(w.limit.Load()); limit > 0 && seq >= limit {
				time.Sleep(time.Millisecond)
				break
			}
			seq++
			buf = appendLine(buf[:0], w.Name, w.gen, seq, w.Width)
			if _, err := f.Write(buf); err != nil {
				return err
			}
			w.seq.Store(int64(seq))
		}
	}
}

func (w *writer) open() (*os.File, error) {
	return os.OpenFile(w.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
}

// A pace spreads work evenly over time.
type pace struct {
	rate int // per second; 0 = no limit
	last time.Time
}

// due waits until something is to be done, and returns how much. Who comes late makes up for at most a tenth of a second.
func (p *pace) due() int {
	if p.rate == 0 {
		return 100
	}
	step := time.Second / time.Duration(p.rate)
	if late := time.Now().Add(-100 * time.Millisecond); p.last.Before(late) {
		p.last = late
	}
	n := int(time.Since(p.last) / step)
	if n == 0 {
		time.Sleep(max(step, time.Millisecond))
		return 0
	}
	p.last = p.last.Add(time.Duration(n) * step)
	return n
}

// A writerProcess is a writer with a process of its own. SIGHUP lets it reopen its file.
type writerProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startWriter(t *testing.T, w *writer) *writerProcess {
	t.Helper()
	config, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	p := &writerProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), "ITEST_WRITER="+string(config))
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.in.Close(); p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

// order returns when the order has been carried out, with the number of the last line.
func (p *writerProcess) order(t *testing.T, what string) int {
	t.Helper()
	if _, err := fmt.Fprintln(p.in, what); err != nil {
		t.Fatalf("writer: %s: %v", what, err)
	}
	if !p.out.Scan() {
		t.Fatalf("writer: %s: it has ended: %v", what, p.out.Err())
	}
	n, err := strconv.Atoi(p.out.Text())
	if err != nil {
		t.Fatalf("writer: %s: %q", what, p.out.Text())
	}
	return n
}

// writerMain is the other side of a writerProcess. It ends with its standard input.
func writerMain() int {
	w := &writer{}
	if err := json.Unmarshal([]byte(os.Getenv("ITEST_WRITER")), w); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	hup := make(chan os.Signal, 8)
	signal.Notify(hup, syscall.SIGHUP)
	w.start()
	go func() {
		for range hup {
			w.order("reopen")
		}
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if what := strings.TrimSpace(in.Text()); what != "count" {
			if err := w.order(what); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
		fmt.Println(w.seq.Load())
	}
	return 0
}
