package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

// String is a result as it stands in a cell.
func (r result) String() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(r.Lost-r.Declared, "lost")
	add(r.Declared, "lost, declared")
	add(r.Duplicated, "twice")
	add(r.Torn, "torn")
	add(r.Reordered, "out of order")
	if r.End != "" {
		parts = append(parts, r.End)
	}
	if parts == nil {
		return "ok"
	}
	return strings.Join(parts, "; ")
}

// A page is Markdown that is being written.
type page struct{ strings.Builder }

func (p *page) say(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) row(cells ...string) { p.say("| %s |", strings.Join(cells, " | ")) }

func (p *page) head(cells ...string) {
	p.row(cells...)
	p.say("|%s", strings.Repeat("---|", len(cells)))
}

const columns = `| column | |
|---|---|
| written | lines that the scenario wrote |
| delivered | of these, how many arrived, whole |
| lost | of these, how many did not |
| declared | lost lines at whose place in the stream the follower declares a gap: between the line of the same writer that arrived before them and the one after them. Only tailcast has gaps |
| twice | deliveries of a line that had arrived already |
| torn | deliveries of what was never written as a line: a piece, or two in one |
| out of order | lines that arrived after a later line of the same writer |
| gaps | declared, and of these in brackets how many at a place where nothing is lost. Such a gap says "possible": after a truncation nobody can know |
| end | DIES: the follower gave up; EXIT: it ended its process, with that status |`

const method = `Each cell is one scenario with one follower, which is a process of its own in a directory of its own. A line tells its
writer, how often that one has opened the file, its number, and a checksum; the driver knows each line before it is written.
Every follower gets the same time: as long as it takes until all is there, and at most %v from the end of the scenario, which is
longer than any grace or polling of theirs; then %v more for what comes twice. "Caught up" is at most %v and %v more. "Between
two looks" and "unread" mean that the follower's process is stopped (SIGSTOP) while it happens, as on a busy machine. Nobody
takes lines: its output is not read, and a pipe is full soon. Lines are judged, not bytes: a "\r" before the end is not looked at,
nor are NULs before a line in a file's hole. The pieces of a long line that tailcast marks as such are put together.

The cells in which a writer does not wait are races: their numbers differ from run to run.`

// report is the whole page. Without speed it is the table only.
func (b *bench) report(speed *speeds) string {
	p := &page{}
	p.say("# Followers of log files, compared\n")
	p.say("Made by `cd bench && go run ./tail -o TAIL.md` in %v. Do not edit.\n", time.Since(b.began).Round(time.Second))
	b.environment(p)
	p.say("\n## Rotation\n")
	p.head("follower", "")
	for _, f := range b.followers {
		p.row(f.name, f.about)
	}
	b.summary(p)
	b.matrix(p)
	p.say("\n### How\n\n"+method, settle, linger, ready, calm)
	p.say("\n### Numbers\n\n" + columns + "\n")
	b.numbers(p)
	if speed != nil {
		speed.report(p)
	}
	return p.String()
}

func (b *bench) environment(p *page) {
	p.head("", "")
	p.row("date", b.began.UTC().Format("2006-01-02 15:04 UTC"))
	p.row("kernel", osRelease())
	p.row("file system", b.fs)
	p.row("processors", fmt.Sprintf("%d, %s", runtime.NumCPU(), cpuModel()))
	p.row("load before", loadAverage(b.load))
	p.row("inotify instances", firstLine("/proc/sys/fs/inotify/max_user_instances"))
	p.row("Go", runtime.Version())
	p.row("tailcast", firstOutput("git", "describe", "--always", "--tags"))
	p.row("nxadm/tail", moduleVersion("github.com/nxadm/tail"))
	p.row("GNU tail", firstOutput("tail", "--version"))
}

func (b *bench) summary(p *page) {
	p.say("\nClean: everything arrived, once, whole and in order. Honest: also where what is lost was declared.\n")
	p.head("follower", "scenarios", "clean", "honest", "lost", "declared", "twice", "torn", "out of order", "dies or exits")
	for _, f := range b.followers {
		var sum result
		n, clean, honest, ends := 0, 0, 0, 0
		for _, s := range b.scenarios {
			r, ok := b.results[cell{s.name, f}]
			if !ok || s.alone {
				continue
			}
			n++
			clean += count(r.clean())
			honest += count(r.honest())
			ends += count(r.End != "")
			sum.Lost += r.Lost
			sum.Declared += r.Declared
			sum.Duplicated += r.Duplicated
			sum.Torn += r.Torn
			sum.Reordered += r.Reordered
		}
		p.row(f.name, fmt.Sprint(n), bold(clean), fmt.Sprint(honest), fmt.Sprint(sum.Lost), fmt.Sprint(sum.Declared),
			fmt.Sprint(sum.Duplicated), fmt.Sprint(sum.Torn), fmt.Sprint(sum.Reordered), fmt.Sprint(ends))
	}
	p.say("\nScenarios that only tailcast can play are not counted here.")
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func bold(n int) string { return fmt.Sprintf("**%d**", n) }

func (b *bench) matrix(p *page) {
	p.say("")
	heads := []string{"scenario", "what happens"}
	for _, f := range b.followers {
		heads = append(heads, f.name)
	}
	p.head(heads...)
	for _, s := range b.scenarios {
		cells := []string{s.name, s.about}
		for _, f := range b.followers {
			text := "–"
			if r, ok := b.results[cell{s.name, f}]; ok {
				text = r.String()
			}
			cells = append(cells, text)
		}
		p.row(cells...)
	}
}

func (b *bench) numbers(p *page) {
	p.head("scenario", "follower", "written", "delivered", "lost", "declared", "twice", "torn", "out of order", "gaps", "end")
	for _, s := range b.scenarios {
		for _, f := range b.followers {
			r, ok := b.results[cell{s.name, f}]
			if !ok {
				continue
			}
			gaps := fmt.Sprint(r.Gaps)
			if r.Empty > 0 {
				gaps = fmt.Sprintf("%d (%d)", r.Gaps, r.Empty)
			}
			p.row(s.name, f.name, fmt.Sprint(r.Written), fmt.Sprint(r.Delivered), fmt.Sprint(r.Lost), fmt.Sprint(r.Declared),
				fmt.Sprint(r.Duplicated), fmt.Sprint(r.Torn), fmt.Sprint(r.Reordered), gaps, r.End)
		}
	}
}

// speeds are the numbers that take a machine of their own: they are taken after the table, one after the other.
type speeds struct {
	lines   int
	rates   map[string][]rate
	latency map[string][]time.Duration
	idle    map[string]idleness
}

const (
	speedLines  = 2_000_000
	speedRounds = 7
	latencyRate = 1000
	latencyTime = 5 * time.Second
	idleTime    = 10 * time.Second
)

func (b *bench) speeds(dir string) (*speeds, error) {
	s := &speeds{lines: speedLines, latency: make(map[string][]time.Duration), idle: make(map[string]idleness)}
	var err error
	if s.rates, err = throughput(dir, speedLines, speedRounds); err != nil {
		return nil, err
	}
	for _, name := range []string{"tailcast", "nxadm"} {
		if s.latency[name], err = latencies(dir, name, latencyRate, latencyTime); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"tailcast", "nxadm"} {
		if s.idle[name], err = idle(dir, name, idleTime); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *speeds) report(p *page) {
	p.say("\n## Throughput\n")
	p.say("%d lines of %d bytes in the page cache, from the start until all have been read, %d rounds in turn. tailcast: `Tail.Run`", s.lines, lineSize, speedRounds)
	p.say("into a `Publisher` that discards. nxadm: its channel. Bare loop: `read` of 256 KiB and `bytes.IndexByte`, nothing else.\n")
	p.head("", "lines/s, best", "MB/s, best", "lines/s, median", "lines per CPU second, median")
	best := func(name string) float64 { return slices.Max(perSecond(s.rates[name])) }
	cpu := func(name string) float64 { return median(perCPU(s.rates[name])) }
	for _, w := range ways {
		p.row(w.name, millions(best(w.name)), fmt.Sprintf("%.0f", best(w.name)*lineSize/1e6), millions(median(perSecond(s.rates[w.name]))),
			millions(cpu(w.name)))
	}
	p.say("\nBy the clock is what the best rounds took, which the load of others changes; by CPU is `getrusage`. A goal is met by both.\n")
	goal := func(other, format string, least float64) {
		clock, cpu := best("tailcast")/best(other), cpu("tailcast")/cpu(other)
		p.say("- tailcast against %s: "+format+" times by the clock, "+format+" times by CPU (goal: at least %g; %s)",
			other, clock, cpu, least, met(min(clock, cpu) >= least))
	}
	goal("nxadm", "%.0f", 25)
	goal("bare loop", "%.2f", 0.5)

	p.say("\n## Latency\n")
	p.say("From before the `write` of a line until `Publish`, with notifications, at %d lines/s for %v.\n", latencyRate, latencyTime)
	p.head("", "p50", "p90", "p99", "max", "lines")
	for _, name := range []string{"tailcast", "nxadm"} {
		l := s.latency[name]
		p.row(name, l[len(l)/2].Round(time.Microsecond).String(), l[len(l)*9/10].Round(time.Microsecond).String(),
			l[len(l)*99/100].Round(time.Microsecond).String(), l[len(l)-1].Round(time.Microsecond).String(), fmt.Sprint(len(l)))
	}
	l := s.latency["tailcast"]
	p.say("\n- tailcast's p99: goal at most 2 ms; %s", met(l[len(l)*99/100] <= 2*time.Millisecond))

	p.say("\n## Idle\n")
	p.say("%d files in one directory, followed by one process, over %v (`getrusage`) after %v in which nothing has happened. Files", idleFiles, idleTime, idleBefore)
	p.say("beyond what inotify's instances allow are polled only.\n")
	p.head("", "CPU s/s", "of one processor", "notified", "RSS")
	for _, name := range []string{"tailcast", "nxadm"} {
		i := s.idle[name]
		notified := "–"
		if i.Notified >= 0 {
			notified = fmt.Sprint(i.Notified)
		}
		p.row(name, fmt.Sprintf("%.4f", i.CPU), fmt.Sprintf("%.2f %%", i.CPU*100), notified, fmt.Sprintf("%d MiB", i.RSS>>20))
	}
	p.say("\n- tailcast: goal less than 1 %%; %s", met(s.idle["tailcast"].CPU < 0.01))
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

func millions(rate float64) string { return fmt.Sprintf("%.2f million", rate/1e6) }

// osRelease leaves out what a vendor has added.
func osRelease() string {
	version, _, _ := strings.Cut(firstLine("/proc/sys/kernel/osrelease"), "-")
	return firstLine("/proc/sys/kernel/ostype") + " " + version
}

// fileSystem names the file system of a directory.
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	names := map[int64]string{
		0xef53: "ext4", 0x01021994: "tmpfs", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x794c7630: "overlayfs", 0x2fc12fc1: "zfs",
	}
	if name, ok := names[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", s.Type)
}

func firstLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func loadAverage(s string) string {
	fields := strings.Fields(s)
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func firstOutput(name string, args ...string) string {
	b, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func moduleVersion(path string) string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}
