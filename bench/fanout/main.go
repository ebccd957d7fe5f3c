// Command fanout compares what broadcasting costs, and writes FANOUT.md.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	if status, ok := roleMain(os.Args); ok {
		os.Exit(status)
	}
	b := &bench{began: time.Now(), load: firstLine("/proc/loadavg"), sizes: fullSizes, log: io.Discard}
	var (
		out     = flag.String("o", "", "`file` to write; standard output if it is not set")
		works   = flag.String("work", "", "`numbers` of sections, with commas: only these")
		quick   = flag.Bool("quick", false, "small numbers, one round: that it works")
		verbose = flag.Bool("v", false, "tell of each run")
	)
	flag.StringVar(&b.only, "only", "", "`names` of servers, with commas: only these, and their variants")
	flag.StringVar(&b.profile, "cpuprofile", "", "`file` for a CPU profile of tailcast while it sends; the last run's remains")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each server does each work")
	flag.IntVar(&b.sizes.conns, "conns", b.sizes.conns, "connections where the table says 1000")
	flag.IntVar(&b.sizes.idle, "idle", b.sizes.idle, "idle connections")
	flag.IntVar(&b.sizes.many, "many", b.sizes.many, "connections that are idle, then get 10 messages/s")
	flag.IntVar(&b.sizes.seconds, "seconds", b.sizes.seconds, "for how long messages are sent at a rate")
	flag.IntVar(&b.sizes.manySeconds, "manyseconds", b.sizes.manySeconds, "the same, for -many")
	flag.Float64Var(&b.sizes.share, "share", b.sizes.share, "part of the messages at once that are sent")
	flag.Parse()
	if *verbose {
		b.log = os.Stderr
	}
	if *quick {
		b.sizes, b.rounds = quickSizes, 1
	}
	if err := b.main(*works, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// roleMain is the other side of a role.
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

// quickSizes are for a moment's run.
var quickSizes = sizes{conns: 50, idle: 100, many: 200, seconds: 1, manySeconds: 1, share: 0.05}

// A bench is one run of everything.
type bench struct {
	sizes   sizes
	rounds  int
	only    string
	profile string
	log     io.Writer
	began   time.Time
	load    string
	played  []*played
}

// played is a work with what has come of it.
type played struct {
	*work
	results map[string][]*outcome // by leg; nil where the run has failed
	errs    map[string]error      // of a leg, the first
}

func (b *bench) main(sections, out string) error {
	if err := b.play(sections); err != nil {
		return err
	}
	if out == "" {
		_, err := fmt.Print(b.report())
		return err
	}
	return os.WriteFile(out, []byte(b.report()), 0o644)
}

// play runs the works of these sections; without any, all.
func (b *bench) play(sections string) error {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	for _, w := range b.sizes.works() {
		if sections != "" && !slices.Contains(strings.Split(sections, ","), strconv.Itoa(w.section)) {
			continue
		}
		w.legs = slices.DeleteFunc(w.legs, func(l leg) bool { return !chosen(b.only, l.Server) })
		if len(w.legs) > 0 {
			b.played = append(b.played, b.rounded(w))
		}
	}
	return nil
}

// rounded runs each leg once in each round. Rounds begin with another leg each, and every other one goes backwards.
func (b *bench) rounded(w *work) *played {
	p := &played{work: w, results: make(map[string][]*outcome), errs: make(map[string]error)}
	for round := range b.rounds {
		for i := range w.legs {
			i = (i + round/2) % len(w.legs)
			if round%2 == 1 {
				i = len(w.legs) - 1 - i
			}
			b.leg(p, &w.legs[i], round)
		}
	}
	return p
}

func (b *bench) leg(p *played, l *leg, round int) {
	s := l.spec
	if chosen("tailcast", s.Server) {
		s.Profile = b.profile
	}
	o, err := run(&s)
	if err == nil {
		err = o.right()
	}
	if err != nil && p.errs[l.name] == nil {
		p.errs[l.name] = fmt.Errorf("round %d: %w", round+1, err)
	}
	p.results[l.name] = append(p.results[l.name], o)
	fmt.Fprintf(b.log, "%d. %s: round %d: %-16s %s\n", p.section, p.title, round+1, l.name, b.tell(l, o, err))
}

// tell is a line about one run.
func (b *bench) tell(l *leg, o *outcome, err error) string {
	switch {
	case err != nil:
		return "FAILED: " + err.Error()
	case o.Idle != nil:
		return fmt.Sprintf("%.0f bytes, %.2f goroutines", o.Idle.RSS, o.Idle.Goroutines)
	}
	all, _ := cpuAll.of(l, o, nil)
	n, _ := perSecond.of(l, o, nil)
	return fmt.Sprintf("%.3f µs, %.0f/s, p99 %v, client %v CPU in %v, load %s", all, n, o.P99, o.CPU.Round(time.Millisecond), o.Took.Round(time.Millisecond), o.Load)
}
