// Command tail compares what followers of log files deliver, and how fast, and writes TAIL.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(childMain(os.Args[2:]))
	}
	var (
		out     = flag.String("o", "", "`file` to write; standard output if it is not set")
		run     = flag.String("run", "", "`regexp` of scenarios; only the table is made then")
		only    = flag.String("only", "", "`regexp` of followers")
		jobs    = flag.Int("j", 8, "cells at a time")
		verbose = flag.Bool("v", false, "tell of each cell, and what was wrong in it")
	)
	flag.Parse()
	b := &bench{jobs: *jobs, followers: followers, scenarios: scenarios, began: time.Now()}
	if *verbose {
		b.log = os.Stderr
	}
	b.scenarios = slices.DeleteFunc(slices.Clone(b.scenarios), func(s scenario) bool {
		return !regexp.MustCompile(*run).MatchString(s.name)
	})
	b.followers = slices.DeleteFunc(slices.Clone(b.followers), func(f *follower) bool {
		return !regexp.MustCompile(*only).MatchString(f.name)
	})
	err := b.table()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = out
	for _, s := range b.scenarios {
		for _, f := range b.followers {
			fmt.Printf("%s | %s | %+v\n", s.name, f.name, b.results[cell{s.name, f}])
		}
	}
	_ = out
}

// A bench is one run of everything.
type bench struct {
	jobs      int
	followers []*follower
	scenarios []scenario
	log       *os.File
	began     time.Time
	results   map[cell]result
}

type cell struct {
	scenario string
	follower *follower
}

// table plays all scenarios with all followers.
func (b *bench) table() error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b.results = make(map[cell]result)
	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		first error
		slots = make(chan struct{}, b.jobs)
	)
	for i, sc := range b.scenarios {
		for j, f := range b.followers {
			if sc.alone && !f.resume || sc.root && os.Getuid() != 0 {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				began := time.Now()
				cellDir := filepath.Join(dir, fmt.Sprintf("%d.%d", i, j))
				err := os.Mkdir(cellDir, 0o755)
				var r result
				if err == nil {
					r, err = play(sc, f, cellDir)
				}
				os.RemoveAll(cellDir)
				mu.Lock()
				defer mu.Unlock()
				if err != nil && first == nil {
					first = err
				}
				b.results[cell{sc.name, f}] = r
				if b.log != nil {
					fmt.Fprintf(b.log, "%-28s %-11s %5.1f s  %s\n", sc.name, f.name, time.Since(began).Seconds(), r)
					if !r.clean() || r.Gaps > 0 {
						for _, note := range r.Notes[:min(len(r.Notes), 8)] {
							fmt.Fprintf(b.log, "\t%s\n", note)
						}
					}
				}
			})
		}
	}
	wg.Wait()
	return first
}
