package itest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A line tells what it is: its writer, the file that the writer had open (counted from 0), its number (from 1), its length,
// and a checksum of all that:
//
//	a.0 1 73 vtkxqbm…qpz 5bd7f1a3
//
// So a reader that knows nothing else can tell a torn line from a whole one, and every line from every other.

// filler has no pattern that would hide a byte that is missing.
var filler = func() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 16<<10)
	for i := range b {
		b[i] = 'a' + byte(rng.IntN(26))
	}
	return b
}()

// appendLine appends a line and its end. It has some 200 bytes if width is 200: from half of width to one and a half.
func appendLine(dst []byte, writer string, gen, seq, width int) []byte {
	begin := len(dst)
	dst = append(dst, writer...)
	dst = append(dst, '.')
	dst = strconv.AppendInt(dst, int64(gen), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(seq), 10)
	size := width/2 + seq*7919%(width+1)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(size), 10)
	dst = append(dst, ' ')
	if fill := size - (len(dst) - begin) - 9; fill > 0 {
		at := seq * 31 % (len(filler) - fill)
		dst = append(dst, filler[at:at+fill]...)
	}
	sum := crc32.ChecksumIEEE(dst[begin:])
	return fmt.Appendf(dst, " %08x\n", sum)
}

// parseLine takes a line apart, without its end; ok is false if it is not whole.
func parseLine(line []byte) (writer, gen string, seq int, ok bool) {
	body := len(line) - 9
	if body < 0 || line[body] != ' ' {
		return "", "", 0, false
	}
	sum, err := strconv.ParseUint(string(line[body+1:]), 16, 32)
	if err != nil || uint32(sum) != crc32.ChecksumIEEE(line[:body]) {
		return "", "", 0, false
	}
	name, rest, _ := bytes.Cut(line[:body], []byte(" "))
	number, _, _ := bytes.Cut(rest, []byte(" "))
	seq, err = strconv.Atoi(string(number))
	writer, gen, _ = strings.Cut(string(name), ".")
	return writer, gen, seq, err == nil && seq > 0
}

// An account is what one reader got. Its methods may be called concurrently.
type account struct {
	name    string
	perFile bool // the order is that of each writer in each file, not that of each writer

	mu        sync.Mutex // guards the rest
	lines     int        // that are whole and new
	seen      map[string][]uint64
	newest    map[string]int // by writer, or by writer and file
	duplicate int
	torn      int
	reordered int
	gaps      []string // declared
	first     string   // the first thing that went wrong
}

func newAccount(name string) *account {
	return &account{name: name, seen: make(map[string][]uint64), newest: make(map[string]int)}
}

// line takes note of a line, without its end. It returns its number, 0 for what is not a whole one.
func (a *account) line(line []byte) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if bytes.HasPrefix(line, []byte("# ")) {
		a.gaps = append(a.gaps, string(line))
		return 0
	}
	writer, gen, seq, ok := parseLine(line)
	if !ok {
		a.torn++
		a.note("torn: %.300q", line)
		return 0
	}
	seen := a.seen[writer]
	for len(seen) <= seq/64 {
		seen = append(seen, 0)
	}
	a.seen[writer] = seen
	if seen[seq/64]&(1<<(seq%64)) != 0 {
		a.duplicate++
		a.note("duplicate: %s.%s %d, after %d", writer, gen, seq, a.newest[writer])
		return seq
	}
	seen[seq/64] |= 1 << (seq % 64)
	a.lines++
	key := writer
	if a.perFile {
		key += "." + gen
	}
	if seq < a.newest[key] {
		a.reordered++
		a.note("out of order: %s.%s %d, after %d", writer, gen, seq, a.newest[key])
	} else {
		a.newest[key] = seq
	}
	return seq
}

func (a *account) note(format string, args ...any) {
	if a.first == "" {
		a.first = fmt.Sprintf(format, args...)
	}
}

// got is how many lines have come.
func (a *account) got() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lines
}

// check compares with what each writer has written, and prints it.
func (a *account) check(t *testing.T, written map[string]int) {
	t.Helper()
	text, missing, ok := a.report(written)
	if !ok {
		t.Errorf("%s\n\tfirst trouble: %s\n\tmissing: %v\n\tgaps: %.1000q", text, a.first, missing, a.gaps)
		return
	}
	t.Log(text)
}

// report counts; ok means that each line has come once, whole, in its place, and that no loss was declared but a possible one.
func (a *account) report(written map[string]int) (text string, missing []string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	total, lost := 0, 0
	for writer, n := range written {
		total += n
		seen := a.seen[writer]
		for seq := 1; seq <= n; seq++ {
			if seq/64 >= len(seen) || seen[seq/64]&(1<<(seq%64)) == 0 {
				lost++
				if len(missing) < 10 {
					missing = append(missing, fmt.Sprintf("%s %d", writer, seq))
				}
			}
		}
	}
	possible := 0
	for _, g := range a.gaps {
		if strings.Contains(g, "possibly lost") || strings.Contains(g, `"possible":true`) {
			possible++
		}
	}
	declared := len(a.gaps) - possible
	text = fmt.Sprintf("%s: written %d, delivered %d, lost %d, duplicated %d, torn %d, reordered %d; gaps declared %d, possible ones %d",
		a.name, total, a.lines+a.duplicate, lost, a.duplicate, a.torn, a.reordered, declared, possible)
	return text, missing, lost+a.duplicate+a.torn+a.reordered+declared == 0 && a.lines == total
}

func TestAccountSeesEachFault(t *testing.T) {
	var lines [][]byte
	for seq := 1; seq <= 200; seq++ {
		lines = append(lines, bytes.TrimSuffix(appendLine(nil, "a", seq/100, seq, 90), []byte("\n")))
	}
	a := newAccount("test")
	for i, l := range lines {
		switch i {
		case 10: // lost
		case 20:
			a.line(l)
			a.line(l)
		case 30:
			a.line(l[:len(l)-1])
		case 40:
			a.line(lines[41])
			a.line(l)
		case 41:
		case 50:
			a.line([]byte("# tailcast gap: unknown amount lost"))
			a.line([]byte("# tailcast gap: unknown amount possibly lost"))
			a.line(l)
		default:
			a.line(l)
		}
	}
	got, missing, ok := a.report(map[string]int{"a": 200})
	want := "test: written 200, delivered 199, lost 2, duplicated 1, torn 1, reordered 1; gaps declared 1, possible ones 1"
	if got != want || ok || fmt.Sprint(missing) != "[a 11 a 31]" {
		t.Errorf("%s; missing %v, ok %t; want\n%s", got, missing, ok, want)
	}
	whole := newAccount("test")
	for _, l := range lines {
		whole.line(l)
	}
	if text, _, ok := whole.report(map[string]int{"a": 200}); !ok {
		t.Error(text)
	}
	if text, _, ok := whole.report(map[string]int{"a": 199}); ok {
		t.Errorf("a line that nobody has written: %s", text)
	}
}
