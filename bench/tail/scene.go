package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	ready  = 2 * time.Second        // how long a follower may take to deliver what was there when it was started
	settle = 8 * time.Second        // how long it may take to deliver all in the end: longer than any grace or polling
	linger = 500 * time.Millisecond // how long it is listened to after that, for what comes twice
	calm   = 200 * time.Millisecond // how long a follower is given to go to sleep after it has caught up
)

// A scene is one scenario with one follower, in a directory of its own. Its methods panic with a fault where the driver
// itself fails.
type scene struct {
	follower *follower
	ledger   *ledger
	dir      string
	path     string // of the log
	fromEnd  bool
	uid      int
	proc     *process
	writers  int
	over     string // how a follower that was started before ended
}

type fault struct{ error }

func check(err error) {
	if err != nil {
		panic(fault{err})
	}
}

// play runs a scenario.
func play(sc scenario, f *follower, dir string) (r result, err error) {
	s := &scene{follower: f, ledger: newLedger(), dir: dir, path: filepath.Join(dir, "app.log")}
	defer func() {
		if s.proc != nil {
			s.proc.kill()
		}
		if p := recover(); p != nil {
			f, ok := p.(fault)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("%s: %s: %w", sc.name, s.follower.name, f.error)
		}
	}()
	sc.play(s)
	s.await(settle)
	time.Sleep(linger)
	s.over = s.ending()
	s.proc.kill()
	r = s.ledger.judge()
	r.End, _, _ = strings.Cut(s.over, ": ")
	if s.over != "" {
		r.Notes = append(r.Notes, s.over)
	}
	r.Notes = append(r.Notes, "stderr: "+s.proc.stderr.String())
	return r, nil
}

func (s *scene) ending() string {
	if s.over != "" {
		return s.over
	}
	return s.proc.over()
}

// start starts the follower and waits until it has delivered what is there.
func (s *scene) start() { s.startAfter("") }

func (s *scene) startAfter(pos string) {
	var err error
	s.proc, err = s.follower.start(place{s.path, s.fromEnd, pos, s.uid}, s.ledger)
	check(err)
	if s.fromEnd || s.ledger.complete() {
		time.Sleep(3 * calm)
	}
	s.caughtUp()
}

// caughtUp waits until the follower has delivered everything, but not for ever.
func (s *scene) caughtUp() {
	s.await(ready)
	time.Sleep(calm)
}

func (s *scene) await(limit time.Duration) {
	timeout := time.After(limit)
	for !s.ledger.complete() && s.proc.over() == "" {
		select {
		case <-s.ledger.change:
		case <-timeout:
			return
		}
	}
}

// between lets f happen while the follower does not run: between two looks of it.
func (s *scene) between(f func()) {
	if s.proc.over() != "" {
		f()
		return
	}
	check(s.proc.freeze())
	f()
	s.proc.thaw()
}

// blocked lets f happen while nobody takes what the follower delivers.
func (s *scene) blocked(f func()) {
	s.proc.gate.shut.Store(true)
	f()
	s.proc.gate.shut.Store(false)
}

// name is a name in the scene's directory.
func (s *scene) name(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) rename(from, to string) { check(os.Rename(s.name(from), s.name(to))) }
func (s *scene) remove(name string)     { check(os.Remove(s.name(name))) }
func (s *scene) mkdir(name string)      { check(os.Mkdir(s.name(name), 0o755)) }
func (s *scene) truncate()              { check(os.Truncate(s.path, 0)) }

func (s *scene) symlink(target, name string) { check(os.Symlink(target, s.name(name))) }

// relink changes a symbolic link at once, as ln -sfn and Kubernetes do.
func (s *scene) relink(target, name string) {
	s.symlink(target, name+".new")
	s.rename(name+".new", name)
}

func (s *scene) create(name string) {
	f, err := os.OpenFile(s.name(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	check(err)
	check(f.Close())
}

func (s *scene) copy(from, to string) {
	in, err := os.Open(s.name(from))
	check(err)
	defer in.Close()
	out, err := os.Create(s.name(to))
	check(err)
	_, err = io.Copy(out, in)
	check(errors.Join(err, out.Close()))
}

// gzip packs a file and removes it.
func (s *scene) gzip(name string) {
	in, err := os.Open(s.name(name))
	check(err)
	defer in.Close()
	out, err := os.Create(s.name(name + ".gz"))
	check(err)
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	check(errors.Join(err, z.Close(), out.Close()))
	s.remove(name)
}

func (s *scene) size() int64 {
	info, err := os.Stat(s.path)
	check(err)
	return info.Size()
}

// shift makes room for app.log.1, as logrotate does.
func (s *scene) shift() {
	n := 1
	for ; ; n++ {
		if _, err := os.Lstat(s.name(fmt.Sprintf("app.log.%d", n))); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	for ; n > 1; n-- {
		s.rename(fmt.Sprintf("app.log.%d", n-1), fmt.Sprintf("app.log.%d", n))
	}
}

// rotate renames the log.
func (s *scene) rotate() {
	s.shift()
	s.rename("app.log", "app.log.1")
}

// A writer writes lines as a daemon does: with O_APPEND, a write for each line.
type writer struct {
	s     *scene
	name  string
	path  string
	flags int
	width int
	gen   int
	seq   int
	f     *os.File
}

// writer opens the log, and creates it if need be.
func (s *scene) writer() *writer {
	w := &writer{s: s, name: string(rune('a' + s.writers)), path: s.path, flags: os.O_APPEND, width: 100}
	s.writers++
	w.open()
	return w
}

func (w *writer) open() {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_WRONLY|w.flags, 0o644)
	check(err)
	w.f = f
}

func (w *writer) reopen() {
	w.f.Close()
	w.gen++
	w.open()
}

// next makes a line, and enters it.
func (w *writer) next() string {
	w.seq++
	return w.enter(string(lineText(w.name, w.gen, w.seq, w.width)))
}

// enter enters a line of any content.
func (w *writer) enter(text string) string {
	if w.s != nil {
		w.s.ledger.enter(w.name, w.seq, []byte(text))
	}
	return text
}

func (w *writer) put(text string) {
	_, err := w.f.WriteString(text)
	check(err)
}

func (w *writer) line() { w.put(w.next() + "\n") }

func (w *writer) lines(n int) {
	for range n {
		w.line()
	}
}

// slowly writes a line every 10 ms.
func (w *writer) slowly(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		w.line()
		time.Sleep(10 * time.Millisecond)
	}
}
