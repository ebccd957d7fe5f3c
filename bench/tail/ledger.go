package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
)

// A ledger knows all lines that were written, in the order of each writer, and what has arrived of them. A line is entered
// before it is written.
type ledger struct {
	mu     sync.Mutex
	lines  []line
	byText map[string][]int // indices into lines; lines that are alike arrive in turn
	events []event
	whole  int // lines that have arrived
	change chan struct{}
}

type line struct {
	writer string
	seq    int // its place among the writer's lines
	at     int // index of the event in which it arrived, or -1
}

// An event is something that a follower delivered.
type event struct {
	line   int // index into ledger.lines; -1 = not a line that was written
	again  bool
	gap    bool
	reason string
	text   string // of what was not written, shortened
}

func newLedger() *ledger {
	return &ledger{byText: make(map[string][]int), change: make(chan struct{}, 1)}
}

// enter notes a line that is about to be written, without its end.
func (l *ledger) enter(writer string, seq int, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byText[string(text)] = append(l.byText[string(text)], len(l.lines))
	l.lines = append(l.lines, line{writer: writer, seq: seq, at: -1})
}

// arrived notes a line that a follower delivered, without its end. The end of a line is not judged, nor are NULs that
// stand before it in the hole of a sparse file: nobody wrote them.
func (l *ledger) arrived(text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids, ok := l.byText[string(text)]
	if !ok {
		ids, ok = l.byText[string(bytes.TrimLeft(bytes.TrimSuffix(text, []byte("\r")), "\x00"))]
	}
	e := event{line: -1}
	if ok {
		e.line, e.again = ids[len(ids)-1], true
		for _, id := range ids {
			if l.lines[id].at < 0 {
				e.line, e.again = id, false
				l.lines[id].at = len(l.events)
				l.whole++
				break
			}
		}
	} else {
		e.text = fmt.Sprintf("%.60q… (%d bytes)", text, len(text))
	}
	l.events = append(l.events, e)
	l.changed()
}

// gap notes a loss that a follower declares.
func (l *ledger) gap(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event{line: -1, gap: true, reason: reason})
	l.changed()
}

func (l *ledger) changed() {
	select {
	case l.change <- struct{}{}:
	default:
	}
}

// complete reports whether all has arrived that was written so far.
func (l *ledger) complete() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole == len(l.lines)
}

// A result is what became of the lines of one cell.
type result struct {
	Written, Delivered, Lost, Declared int
	Duplicated, Torn, Reordered        int
	Gaps, Empty                        int    // gaps declared; those at a place where nothing is lost
	End                                string // how the follower ended by itself, if it did
	Notes                              []string
}

// clean: everything arrived once, whole and in order.
func (r result) clean() bool {
	return r.Lost == 0 && r.honest()
}

// honest: what did not arrive was declared.
func (r result) honest() bool {
	return r.Lost == r.Declared && r.Duplicated+r.Torn+r.Reordered == 0 && r.End == ""
}

// judge counts. It may be called once nothing arrives any more.
func (l *ledger) judge() result {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := result{Written: len(l.lines), Delivered: l.whole}
	r.Lost = r.Written - r.Delivered
	newest := make(map[string]int)
	var gaps []int
	for i, e := range l.events {
		switch {
		case e.gap:
			gaps = append(gaps, i)
			r.Notes = append(r.Notes, fmt.Sprintf("event %d: gap: %s", i, e.reason))
		case e.line < 0:
			r.Torn++
			r.Notes = append(r.Notes, fmt.Sprintf("event %d: torn: %s", i, e.text))
		case e.again:
			r.Duplicated++
		default:
			ln := l.lines[e.line]
			if ln.seq < newest[ln.writer] {
				r.Reordered++
			}
			newest[ln.writer] = max(newest[ln.writer], ln.seq)
		}
	}
	r.Gaps = len(gaps)
	r.Declared, r.Empty = l.declared(gaps)
	return r
}

// declared counts the lost lines that have a gap between the writer's line before and the writer's line after; and the gaps
// that have no such line.
func (l *ledger) declared(gaps []int) (lines, empty int) {
	used := make(map[int]bool)
	byWriter := make(map[string][]line)
	for _, ln := range l.lines {
		byWriter[ln.writer] = append(byWriter[ln.writer], ln)
	}
	for _, written := range byWriter {
		before, run := -1, 0 // the event of the last line that arrived, and the lines that are lost after it
		settle := func(after int) {
			if run == 0 {
				return
			}
			told := false
			for _, g := range gaps {
				if g > before && g < after {
					used[g], told = true, true
				}
			}
			if told {
				lines += run
			}
			run = 0
		}
		for _, ln := range written {
			if ln.at < 0 {
				run++
				continue
			}
			settle(ln.at)
			before = ln.at
		}
		settle(len(l.events))
	}
	return lines, len(gaps) - len(used)
}

// filler has no pattern that would hide a byte that is missing.
var filler = func() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 4<<10)
	for i := range b {
		b[i] = 'a' + byte(rng.IntN(26))
	}
	return b
}()

// lineText is a line that tells what it is: its writer, how often that one has opened a file, its number, and a checksum.
func lineText(writer string, gen, seq, width int) []byte {
	b := fmt.Appendf(nil, "%s.%d %d ", writer, gen, seq)
	for len(b) < width-9 {
		at := seq * 31 % (len(filler) / 2)
		b = append(b, filler[at:min(len(filler), at+width-9-len(b))]...)
	}
	return fmt.Appendf(b, " %08x", crc32.ChecksumIEEE(b))
}
