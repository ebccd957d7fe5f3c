package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nxadm/tail"
	"github.com/tailcast/tailcast"
)

// The followers that are libraries run in a process of their own, which is this program again: "tail child FOLLOWER …". It
// writes records to its standard output, takes orders from its standard input, and ends with it.

// A record is a byte that says what it is, and two strings with their lengths before them.
const (
	recordLine    = 'L' // position, data
	recordPartial = 'P' // the same; the line goes on in the next record
	recordGap     = 'G' // the reason
	recordEnd     = 'E' // the follower has given up: why
)

// A recorder writes records. What it holds is flushed within a few milliseconds.
type recorder struct {
	mu sync.Mutex
	w  *bufio.Writer
}

func newRecorder(w io.Writer) *recorder {
	r := &recorder{w: bufio.NewWriterSize(w, 64<<10)}
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			r.flush()
		}
	}()
	return r
}

func (r *recorder) write(kind byte, pos, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var head [1 + 2*binary.MaxVarintLen64]byte
	head[0] = kind
	b := binary.AppendUvarint(head[:1], uint64(len(pos)))
	b = binary.AppendUvarint(b, uint64(len(data)))
	r.w.Write(b)
	r.w.Write(pos)
	r.w.Write(data)
}

func (r *recorder) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.w.Flush()
}

type record struct {
	kind byte
	pos  string
	data []byte
}

func readRecord(r *bufio.Reader) (record, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return record{}, err
	}
	m, errM := binary.ReadUvarint(r)
	n, errN := binary.ReadUvarint(r)
	if err := errors.Join(errM, errN); err != nil {
		return record{}, err
	}
	b := make([]byte, m+n)
	if _, err := io.ReadFull(r, b); err != nil {
		return record{}, err
	}
	return record{kind, string(b[:m]), b[m:]}, nil
}

// childMain is the other side of a process.
func childMain(args []string) int {
	flags := flag.NewFlagSet("child", flag.ExitOnError)
	uid := flags.Int("uid", 0, "")
	fromEnd := flags.Bool("end", false, "")
	poll := flags.Bool("poll", false, "")
	after := flags.String("after", "", "")
	flags.Parse(args[1:])
	if *uid != 0 {
		if err := syscall.Setuid(*uid); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
	}
	orders := make(chan string)
	go func() {
		defer close(orders)
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			orders <- in.Text()
		}
	}()
	path := flags.Arg(0)
	switch args[0] {
	case "tailcast":
		followTailcast(newRecorder(os.Stdout), orders, path, *fromEnd, *after)
	case "nxadm":
		followNxadm(newRecorder(os.Stdout), orders, path, *fromEnd, *poll)
	case "idle-tailcast", "idle-nxadm":
		idleMain(args[0], orders, path)
	}
	return 0
}

// followTailcast follows until there are no more orders. "stop" ends Run, and "run" runs it again.
func followTailcast(out *recorder, orders <-chan string, path string, fromEnd bool, after string) {
	t := tailcast.NewTail(path)
	if !fromEnd {
		t.Start = tailcast.FromStart
	}
	write := func(m tailcast.Message) {
		pos, _ := m.Pos.MarshalText()
		switch {
		case m.Gap != nil:
			out.write(recordGap, nil, []byte(m.Gap.Reason))
		case m.Partial:
			out.write(recordPartial, pos, m.Data)
		default:
			out.write(recordLine, pos, m.Data)
		}
	}
	run := func(ctx context.Context) error {
		return t.Run(ctx, tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
			for _, m := range msgs {
				write(m)
			}
			out.flush()
			return nil
		}))
	}
	if after != "" {
		run = func(ctx context.Context) error {
			var pos tailcast.Position
			if err := pos.UnmarshalText([]byte(after)); err != nil {
				return err
			}
			for m, err := range t.Replay(ctx, "", pos) {
				if err != nil {
					return err
				}
				write(m)
			}
			return nil
		}
	}
	for running := true; running; {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := run(ctx); !errors.Is(err, context.Canceled) {
				out.write(recordEnd, nil, fmt.Append(nil, err))
			}
		}()
		_, running = <-orders
		cancel()
		<-done
		if running {
			_, running = <-orders
		}
	}
}

// followNxadm follows as the README of nxadm/tail says, or by polling and with whole lines only.
func followNxadm(out *recorder, orders <-chan string, path string, fromEnd, poll bool) {
	config := tail.Config{Follow: true, ReOpen: true}
	if poll {
		config.Poll, config.CompleteLines = true, true
	}
	if fromEnd {
		config.Location = &tail.SeekInfo{Whence: io.SeekEnd}
	}
	t, err := tail.TailFile(path, config)
	if err != nil {
		out.write(recordEnd, nil, []byte(err.Error()))
	} else {
		go func() {
			for line := range t.Lines {
				out.write(recordLine, nil, []byte(line.Text))
			}
			out.write(recordEnd, nil, fmt.Append(nil, t.Err()))
		}()
	}
	for range orders {
	}
}
