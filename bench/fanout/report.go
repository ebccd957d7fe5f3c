package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A page is Markdown that is being written.
type page struct{ strings.Builder }

func (p *page) say(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) row(cells ...string) { p.say("| %s |", strings.Join(cells, " | ")) }

func (p *page) head(cells ...string) {
	p.row(cells...)
	p.say("|%s", strings.Repeat("---|", len(cells)))
}

const method = `A server and its client are two processes of this program on this machine, so what the client uses is taken from the same
processors; it is one program for all servers: two epoll loops, which read and check and do nothing else. (With TLS it has a
goroutine for each connection.) The server's process makes the messages: text that holds a number, the time when it is due, and
letters. At a rate it sleeps until each is due; those at once are all due at the beginning, and made before the measuring. The client checks each message on each connection: that it is whole, and that
its number is the next one. A run in which one is missing, repeated or out of order is not counted, and its row says so.

In each round every server runs once; rounds begin with another server each, and every other one goes backwards. A cell is the
median of the rounds, and what they lie between; a ratio is that of the same round. CPU is what the server's process used (getrusage) from the
beginning of sending until the client had everything. Latency is from when a message was due until the client had read it: what holds up the publisher counts. Peak RSS is that of
the same time, with what was made before it. Before it, the server has collected its garbage.`

// report is the whole page.
func (b *bench) report() string {
	p := &page{}
	p.say("# Fan-out, compared\n")
	p.say("Made by `cd bench && go run ./fanout %s` in %v. Do not edit.\n", strings.Join(b.args, " "), time.Since(b.began).Round(time.Second))
	b.environment(p)
	p.say("\n%s\n", method)
	p.head("server", "")
	for _, k := range b.kinds() {
		p.row(k.name, k.about)
	}
	for _, w := range b.played {
		p.say("\n## %d. %s\n", w.section, w.title)
		if w.about != "" {
			p.say("%s\n", w.about)
		}
		w.table(p)
	}
	b.goals(p)
	return p.String()
}

func (b *bench) environment(p *page) {
	p.head("", "")
	p.row("date", b.began.UTC().Format("2006-01-02 15:04 UTC"))
	p.row("kernel", "Linux "+firstLine("/proc/sys/kernel/osrelease"))
	p.row("processors", fmt.Sprintf("%d, %s", runtime.NumCPU(), cpuModel()))
	p.row("load before", b.load)
	p.row("Go", runtime.Version())
	p.row("tailcast", firstOutput("git", "describe", "--always", "--tags", "--dirty"))
	for _, k := range b.kinds() {
		if k.module != "" {
			p.row(k.module, moduleVersion(k.module))
		}
	}
	p.row("rounds", fmt.Sprint(b.rounds))
}

// kinds are the servers that take part.
func (b *bench) kinds() (list []*kind) {
	has := make(map[string]bool)
	for _, w := range b.played {
		for _, l := range w.legs {
			has[l.Server] = true
		}
	}
	for _, k := range kinds {
		if has[k.name] {
			list = append(list, k)
		}
	}
	return list
}

// goals says what has become of the goals: first what falls short.
func (b *bench) goals(p *page) {
	type judged struct {
		w *played
		g *goal
		s spread
		v verdict
	}
	var all []judged
	counts := make(map[verdict]int)
	for _, w := range b.played {
		for i := range w.goals {
			g := &w.goals[i]
			s, ok := w.spread(g.leg, g.what)
			j := judged{w, g, s, g.judge(s, ok && len(w.failures(g.leg)) == 0)}
			counts[j.v]++
			all = append(all, j)
		}
	}
	if len(all) == 0 {
		return
	}
	p.say("\n## Goals, and what falls short of them\n")
	p.say("%d are reached, %d are not but have what they should at least, %d fall short of that, %d were not measured.\n",
		counts[reached], counts[enough], counts[short], counts[unknown])
	p.head("work", "server", "what", "at least", "goal", "median", "")
	for _, v := range []verdict{short, unknown, enough, reached} {
		for _, j := range all {
			if j.v != v {
				continue
			}
			median := "–"
			if v != unknown {
				median = j.g.what.format(j.s)
			}
			p.row(fmt.Sprintf("%d. %s", j.w.section, j.w.title), j.g.leg, j.w.label(j.g.what), j.g.bound(j.g.atLeast), j.g.bound(j.g.wanted), median, v.String())
		}
	}
}

// columns of a work that sends, and of one with idle connections.
var (
	busyColumns = []measure{cpuAll, cpuUser, cpuSystem, cpuRatio, perSecond, p50, p99, p99Ratio, peakRSS}
	idleColumns = []measure{idleKB, idleInuse, idleGoroutines}
)

func (w *played) columns() []measure {
	if w.legs[0].idle() {
		return idleColumns
	}
	var list []measure
	for _, m := range busyColumns {
		if w.base != "" || !strings.Contains(m.name, "{base}") {
			list = append(list, m)
		}
	}
	if w.legs[0].Weigh {
		list = append(list, idleColumns...)
	}
	return list
}

// label is a measure's name in this work.
func (w *played) label(m measure) string {
	name := strings.ReplaceAll(m.name, "{base}", w.base)
	if m.unit != "" {
		name += ", " + m.unit
	}
	return name
}

func (w *played) table(p *page) {
	cells := []string{"server"}
	for _, m := range w.columns() {
		cells = append(cells, w.label(m))
	}
	p.head(cells...)
	for _, l := range w.legs {
		cells = []string{l.name}
		for _, m := range w.columns() {
			cell := "–"
			if s, ok := w.spread(l.name, m); ok {
				cell = m.format(s)
			}
			cells = append(cells, cell)
		}
		p.row(cells...)
	}
	for _, l := range w.legs {
		for _, f := range w.failures(l.name) {
			p.say("\n**%s**, %s", l.name, f)
		}
	}
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "?"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func firstOutput(name string, args ...string) string {
	b, err := exec.Command(name, args...).Output()
	if err != nil {
		return "?"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	_, after, _ := strings.Cut(string(b), "model name\t: ")
	line, _, _ := strings.Cut(after, "\n")
	return line
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "?"
	}
	for _, d := range info.Deps {
		if d.Path == path {
			return d.Version
		}
	}
	return "?"
}
