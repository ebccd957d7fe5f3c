package itest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// followerMain is a process that follows a file with a checkpoint, and appends what it is given to another one: a line with the
// time for each batch, and then the batch. What it has written stays when it is killed. It ends with its standard input.
func followerMain() int {
	dir := os.Getenv("ITEST_FOLLOWER")
	out, err := os.OpenFile(filepath.Join(dir, "delivered"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	out.WriteString("\n") // ends the line that the one before may have been killed in
	ctx, cancel := context.WithCancel(context.Background())
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }()
	src := &tailcast.Tail{Path: filepath.Join(dir, "app.log"), Start: tailcast.FromStart, Checkpoint: filepath.Join(dir, "state", "app.pos")}
	var batch []byte
	err = src.Run(ctx, tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
		batch = fmt.Appendf(batch[:0], "@%d\n", time.Now().UnixNano())
		for _, m := range msgs {
			if m.Gap != nil {
				batch = fmt.Appendf(batch, "# gap possible=%t %s\n", m.Gap.Possible, m.Gap.Reason)
				continue
			}
			batch = append(append(batch, m.Data...), '\n')
		}
		_, err := out.Write(batch)
		return err
	}))
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A followerProcess is one that runs followerMain.
type followerProcess struct {
	cmd    *exec.Cmd
	in     io.Closer
	stderr bytes.Buffer
}

func startFollower(t *testing.T, dir string) *followerProcess {
	t.Helper()
	p := &followerProcess{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), "ITEST_FOLLOWER="+dir)
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

// A delivery is the file that the followers append to, read as it grows.
type delivery struct {
	file *os.File
	br   *bufio.Reader
	part []byte // of a line
	torn bool   // the line at hand is one that was cut off

	all   *account         // each line once
	when  map[string]int64 // when it came last, by writer and number
	batch int64            // when the batch was delivered that is being read
	gaps  []string

	repeats int
	oldest  int64 // of the repeated ones: when it had come
}

// read takes what has come. What comes again of lines that an earlier process had delivered is counted in repeats.
func (d *delivery) read(t *testing.T) {
	t.Helper()
	for {
		b, err := d.br.ReadBytes('\n')
		d.part = append(d.part, b...)
		if err != nil {
			return
		}
		line := d.part[:len(d.part)-1]
		d.part = nil
		switch {
		case d.torn:
			d.torn = false
			continue
		case bytes.HasPrefix(line, []byte("@")):
			if d.batch, err = strconv.ParseInt(string(line[1:]), 10, 64); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			continue
		case bytes.HasPrefix(line, []byte("# ")):
			d.gaps = append(d.gaps, string(line))
			continue
		}
		writer, _, seq, ok := parseLine(line)
		key := writer + " " + strconv.Itoa(seq)
		before, again := d.when[key]
		d.when[key] = d.batch
		if ok && again {
			if d.repeats++; d.oldest == 0 || before < d.oldest {
				d.oldest = before
			}
			continue
		}
		d.all.line(line)
	}
}

// TestSIGKILL: a process that follows with a checkpoint is killed again and again, under two writers at full load and real
// rotations. One of the writers goes on in the old file for a while. The next process loses nothing, in order, and repeats at
// most what had come in one interval of the checkpoint. In between some processes end well: after these nothing is repeated.
func TestSIGKILL(t *testing.T) {
	t.Parallel()
	kills := setting(t, "ITEST_SIGKILLS", 8, 200)
	rate := lineRate(t)
	const (
		interval = time.Second     // of the checkpoint
		slack    = 2 * time.Second // for an fsync on a machine that has other things to do
		keep     = 12              // rotated files
	)
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "delivered"), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := &delivery{file: file, br: bufio.NewReaderSize(file, 1<<20), all: newAccount("delivered"), torn: true, when: make(map[string]int64)}
	d.all.perFile = true

	prompt := (&writer{Name: "prompt", Path: path, Rate: rate, Width: 120}).start()
	late := (&writer{Name: "late", Path: path, Rate: rate / 10, Width: 120}).start()
	stop, done := make(chan struct{}), make(chan struct{})
	rotations := 0
	go func() {
		defer close(done)
		pause := func(d time.Duration) bool {
			select {
			case <-stop:
				return false
			case <-time.After(d):
				return true
			}
		}
		for pause(600 * time.Millisecond) {
			os.Remove(fmt.Sprintf("%s.%d", path, keep))
			rotate(t, path)
			rotations++
			if prompt.order("reopen") != nil || !pause(300*time.Millisecond) || late.order("reopen") != nil {
				return
			}
		}
	}()

	var table strings.Builder
	fmt.Fprintf(&table, "%-5s %-8s %9s %9s %9s %12s\n", "no.", "end", "lived", "delivered", "repeated", "reaching back")
	rng := rand.New(rand.NewPCG(11, 12))
	total, worst, worstBack := 0, 0, time.Duration(0)
	written := func() int { return int(prompt.seq.Load() + late.seq.Load()) }
	p := startFollower(t, dir)
	began := time.Now()
	row := func() {} // tells of the last end, once all that was repeated after it has come
	for i := range kills + kills/8 {
		lived := time.Duration(200+rng.IntN(1500)) * time.Millisecond
		before := d.all.got()
		eventually(t, "lines are delivered", func() bool { d.read(t); return d.all.got() > before+500 })
		time.Sleep(lived)
		how := "SIGKILL"
		if i%9 == 8 { // before the next one is killed, another one ends well
			how = "well"
			p.in.Close()
		} else if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		if err := p.cmd.Wait(); how == "well" && err != nil {
			t.Errorf("%v\n%s", err, &p.stderr)
		}
		d.read(t)
		row()
		delivered := d.all.got() - before
		d.repeats, d.oldest, d.torn = 0, 0, true
		p = startFollower(t, dir)
		row = func() {
			back := time.Duration(0)
			if d.oldest > 0 {
				back = killed.Sub(time.Unix(0, d.oldest))
			}
			fmt.Fprintf(&table, "%-5d %-8s %9v %9d %9d %12v\n", i+1, how, lived, delivered, d.repeats, back.Round(time.Millisecond))
			if back > interval+slack || how == "well" && d.repeats > 0 {
				t.Errorf("end %d (%s): %d lines are repeated, the oldest from %v before", i+1, how, d.repeats, back)
			}
			total, worst, worstBack = total+d.repeats, max(worst, d.repeats), max(worstBack, back)
		}
	}
	close(stop)
	<-done
	for _, w := range []*writer{prompt, late} {
		if err := w.order("stop"); err != nil {
			t.Fatal(err)
		}
	}
	for last, since := -1, time.Now(); d.all.got() < written(); time.Sleep(20 * time.Millisecond) {
		d.read(t)
		if got := d.all.got(); got > last {
			last, since = got, time.Now()
		}
		if time.Since(since) > patience {
			break // what is missing is said below
		}
	}
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &p.stderr)
	}
	d.read(t)
	row()
	t.Logf("%d kills in %v, %d rotations; repeated %d lines in all, at most %d at once, of at most %v\n%s",
		kills, time.Since(began).Round(time.Second), rotations, total, worst, worstBack.Round(time.Millisecond), &table)
	if len(d.gaps) > 0 {
		t.Errorf("gaps: %.1000q", d.gaps)
	}
	d.all.check(t, map[string]int{"prompt": int(prompt.seq.Load()), "late": int(late.seq.Load())})
}
