// Command fanout compares what broadcasting costs, and writes FANOUT.md.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	if status, ok := roleMain(os.Args); ok {
		os.Exit(status)
	}
	b := &bench{began: time.Now(), load: firstLine("/proc/loadavg"), sizes: fullSizes, args: os.Args[1:], log: io.Discard}
	var (
		out     = flag.String("o", "", "`file` to write; standard output if it is not set")
		works   = flag.String("work", "", "`numbers` of sections, with commas: only these")
		quick   = flag.Bool("quick", false, "small numbers, one round, tailcast, gws and raw only, unless -only and -work say something else: that it works")
		verbose = flag.Bool("v", false, "tell of each run")
	)
	flag.StringVar(&b.only, "only", "", "`names` of servers, with commas: only these, and their variants")
	flag.StringVar(&b.profile, "cpuprofile", "", "`file` for a CPU profile of tailcast while it sends; that of the last run remains")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each server does each work")
	flag.IntVar(&b.sizes.conns, "conns", b.sizes.conns, "connections of most works")
	flag.IntVar(&b.sizes.idle, "idle", b.sizes.idle, "idle connections, work 7")
	flag.IntVar(&b.sizes.many, "many", b.sizes.many, "connections of work 9")
	flag.Float64Var(&b.sizes.seconds, "seconds", b.sizes.seconds, "for how long messages are sent at a rate")
	flag.Float64Var(&b.sizes.manySeconds, "manyseconds", b.sizes.manySeconds, "the same, for work 9")
	flag.Float64Var(&b.sizes.share, "share", b.sizes.share, "part of the messages at once that are sent")
	flag.Parse()
	if *verbose {
		b.log = os.Stderr
	}
	if *quick {
		b.sizes, b.rounds = quickSizes, 1
		b.only, *works = cmp.Or(b.only, "tailcast,gws,raw"), cmp.Or(*works, "1,3,4,5,6,7,8")
	}
	if err := b.main(*works, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// roleMain is what another process of this program does.
func roleMain(args []string) (status int, ok bool) {
	if len(args) < 3 || args[1] != "-role" {
		return 0, false
	}
	switch args[2] {
	case "server":
		return serverMain(), true
	case "client":
		return clientMain(), true
	}
	return 2, true
}

func (b *bench) main(sections, out string) error {
	b.out = out
	if err := b.play(sections); err != nil || out != "" {
		return err
	}
	_, err := fmt.Print(b.report())
	return err
}

// save writes the page, as far as it has come: the whole takes long.
func (b *bench) save() error {
	if b.out == "" {
		return nil
	}
	return os.WriteFile(b.out, []byte(b.report()), 0o644)
}
