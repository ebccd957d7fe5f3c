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

// report is the whole page.
func (b *bench) report() string {
	p := &page{}
	p.say("# Fan-out, compared\n")
	p.say("Made by `cd bench && go run ./fanout %s` in %v. Do not edit.\n", strings.Join(os.Args[1:], " "), time.Since(b.began).Round(time.Second))
	b.environment(p)
	for _, w := range b.played {
		p.say("\n## %d. %s\n", w.section, w.title)
		if w.about != "" {
			p.say("%s\n", w.about)
		}
		w.table(p)
	}
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
	for _, k := range kinds {
		if k.module != "" && chosen(b.only, k.name) {
			p.row(k.module, moduleVersion(k.module))
		}
	}
	p.row("rounds", fmt.Sprint(b.rounds))
}

// columns of a work at a rate or at once, and of one with idle connections.
var (
	busyColumns = []column{{cpuAll, 3}, {cpuUser, 3}, {cpuSystem, 3}, {cpuRatio, 3}, {perSecond, 0}, {p50, 2}, {p99, 2}, {p99Ratio, 2}, {peakRSS, 0}}
	idleColumns = []column{{idleBytes, 0}, {idleInuse, 0}, {idleGoroutines, 2}}
)

type column struct {
	measure
	digits int
}

func (w *played) columns() []column {
	if w.legs[0].idle() {
		return idleColumns
	}
	return busyColumns
}

func (w *played) table(p *page) {
	cells := []string{"server"}
	for _, c := range w.columns() {
		if c.unit != "" {
			cells = append(cells, c.name+", "+c.unit)
		} else {
			cells = append(cells, c.name)
		}
	}
	p.head(cells...)
	for i := range w.legs {
		l := &w.legs[i]
		cells = []string{l.name}
		for _, c := range w.columns() {
			cells = append(cells, w.cell(l, c))
		}
		if err := w.errs[l.name]; err != nil {
			cells[0] += ": " + err.Error()
		}
		p.row(cells...)
	}
}

// values are those of a leg's rounds that went well.
func (w *played) values(l *leg, m measure) (values []float64) {
	for round, o := range w.results[l.name] {
		if o == nil || o.right() != nil {
			continue
		}
		var base *outcome
		if all := w.results[w.base]; round < len(all) && all[round] != nil && all[round].right() == nil {
			base = all[round]
		}
		if v, ok := m.of(l, o, base); ok {
			values = append(values, v)
		}
	}
	return values
}

func (w *played) cell(l *leg, c column) string {
	s, ok := spreadOf(w.values(l, c.measure))
	if !ok {
		return "–"
	}
	if s.least == s.most {
		return fmt.Sprintf("%.*f", c.digits, s.median)
	}
	return fmt.Sprintf("**%.*f** (%.*f–%.*f)", c.digits, s.median, c.digits, s.least, c.digits, s.most)
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
