// Logtail shows log files live in the browser, and to curl. It follows them through rotation, as tail -F does, and any number
// of people can watch at the same time.
//
//	go run ./examples/logtail /var/log/app.log        one file
//	go run ./examples/logtail app.log db/queries.log  several: each becomes a topic by its base name
//	go run ./examples/logtail                         no file at hand: it writes a log of its own, to have something to show
//
// It serves a page at /, the lines at /logs (try curl -N http://127.0.0.1:8080/logs; with several files, add ?topic=app.log to
// see only one), and counters as JSON at /stats. Ctrl-C ends it: viewers get what is on its way to them, and a goodbye.
//
// Start reading at serve in serve.go: it is all that the library needs. The rest is flags and the demo.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tailcast/tailcast"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for anybody
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

const (
	exitOK      = 0
	exitRuntime = 1
	exitUsage   = 2
)

// run is the program without its globals. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "logtail: %v (-h lists the flags)\n", err)
		return exitUsage
	}
	if err := serve(ctx, cfg, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "logtail: %v\n", err)
		return exitRuntime
	}
	return exitOK
}

// A config is what the command line says.
type config struct {
	addr       string
	last       int
	fromStart  bool
	checkpoint string
	demo       pace
	logs       []logFile // none: write one
}

// start is where a file begins that is there already.
func (c *config) start() tailcast.Start {
	if c.fromStart {
		return tailcast.FromStart
	}
	return tailcast.LastLines(c.last)
}

// tail is how many lines the page begins with.
func (c *config) tail() int { return min(max(c.backlog(), 1000), 100_000) }

// backlog is how many lines a new viewer sees at once: those that the hub has in memory, or the last few of them.
func (c *config) backlog() int {
	if c.fromStart {
		return math.MaxInt32
	}
	return c.last
}

func parse(args []string, help io.Writer) (*config, error) {
	cfg := &config{}
	fs := flag.NewFlagSet("logtail", flag.ContinueOnError)
	fs.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "listen on this `address`; port 0 takes a free one")
	fs.IntVar(&cfg.last, "last", 10, "begin with the last `N` lines of each file; the page with 1000 at least")
	fs.BoolVar(&cfg.fromStart, "from-start", false, "begin with the first line of each file instead; viewers get what fits into memory, and with /logs?since=earliest all of it")
	fs.StringVar(&cfg.checkpoint, "checkpoint", "", "with one FILE: keep the place in this `file`, and go on there when started again")
	fs.DurationVar(&cfg.demo.interval, "demo-interval", 250*time.Millisecond, "without FILE: `time` between two lines")
	fs.IntVar(&cfg.demo.rotate, "demo-rotate", 200, "without FILE: rotate the log every `N` lines")
	fs.SetOutput(io.Discard) // one sentence is enough for a mistake
	fs.Usage = func() {}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage(fs, help)
		return nil, err
	case err != nil:
		return nil, err
	case cfg.last < 0:
		return nil, fmt.Errorf("-last %d: it must not be negative", cfg.last)
	case cfg.demo.interval <= 0 || cfg.demo.rotate <= 0:
		return nil, errors.New("-demo-interval and -demo-rotate must be positive")
	}
	var err error
	cfg.logs, err = nameLogs(fs.Args())
	if err == nil && cfg.checkpoint != "" && len(cfg.logs) != 1 {
		err = errors.New("-checkpoint goes with exactly one FILE")
	}
	return cfg, err
}

func usage(fs *flag.FlagSet, w io.Writer) {
	fmt.Fprint(w, "usage: logtail [flags] [FILE...]\n\nShows log files live in the browser and to curl. Without FILE it writes one for show.\n\n")
	fs.SetOutput(w)
	fs.PrintDefaults()
}
