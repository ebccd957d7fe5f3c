// Command tail compares what followers of log files deliver, and how fast, and writes TAIL.md.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(childMain(os.Args[2:]))
	}
	var (
		out     = flag.String("o", "", "`file` to write; standard output if it is not set")
		run     = flag.String("run", "", "`regexp` of scenarios: only these, and no speeds")
		only    = flag.String("follower", "", "`regexp` of followers")
		jobs    = flag.Int("j", 8, "scenarios at a time")
		verbose = flag.Bool("v", false, "tell of each cell, and what was wrong in it")
	)
	flag.Parse()
	b := newBench(regexp.MustCompile(*run), regexp.MustCompile(*only), *jobs)
	if *verbose {
		b.log = os.Stderr
	}
	if err := b.main(*out, *run == ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A bench is one run of everything.
type bench struct {
	followers []*follower
	scenarios []scenario
	jobs      int
	log       io.Writer
	began     time.Time
	load, fs  string

	mu      sync.Mutex
	results map[cell]result
	err     error // of the driver
}

type cell struct {
	scenario string
	follower *follower
}

func newBench(run, only *regexp.Regexp, jobs int) *bench {
	b := &bench{jobs: jobs, began: time.Now(), load: firstLine("/proc/loadavg"), log: io.Discard, results: make(map[cell]result)}
	for _, s := range scenarios {
		if run.MatchString(s.name) {
			b.scenarios = append(b.scenarios, s)
		}
	}
	for _, f := range followers {
		if only.MatchString(f.name) {
			b.followers = append(b.followers, f)
		}
	}
	return b
}

func (b *bench) main(out string, all bool) error {
	if _, err := exec.LookPath("tail"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := b.play(dir); err != nil {
		return err
	}
	var s *speeds
	if all {
		if s, err = b.speeds(dir); err != nil {
			return err
		}
	}
	if out == "" {
		_, err = fmt.Print(b.report(s))
		return err
	}
	return os.WriteFile(out, []byte(b.report(s)), 0o644)
}

// play plays all scenarios with all followers in directories below dir.
func (b *bench) play(dir string) error {
	b.fs = fileSystem(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // one scenario has a user of its own
		return err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, b.jobs)
	for i, s := range b.scenarios {
		for j, f := range b.followers {
			if s.alone && !f.resume || s.root && os.Getuid() != 0 {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				b.cell(s, f, filepath.Join(dir, fmt.Sprintf("%d.%d", i, j)))
			})
		}
	}
	wg.Wait()
	return b.err
}

func (b *bench) cell(s scenario, f *follower, dir string) {
	began := time.Now()
	err := os.Mkdir(dir, 0o755)
	var r result
	if err == nil {
		r, err = play(s, f, dir)
	}
	os.RemoveAll(dir)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = cmp.Or(b.err, err)
	b.results[cell{s.name, f}] = r
	fmt.Fprintf(b.log, "%-30s %-11s %5.1f s  %s\n", s.name, f.name, time.Since(began).Seconds(), r)
	if !r.clean() || r.Gaps > 0 {
		for _, note := range r.Notes[:min(len(r.Notes), 8)] {
			fmt.Fprintf(b.log, "\t%s\n", note)
		}
	}
}
