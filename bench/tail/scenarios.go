package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// A scenario is something that happens to a log.
type scenario struct {
	name  string
	about string
	play  func(s *scene)
	alone bool // only for a follower that can resume
	root  bool // needs root
}

const ms = time.Millisecond

// begin is how most scenarios begin: a log with some lines, and a follower that has caught up.
func begin(s *scene) *writer {
	w := s.writer()
	w.lines(10)
	s.start()
	return w
}

// second is another writer, of another file or the same.
func (w *writer) second() *writer { return w.s.writer() }

// "Unread" and "between two looks": the follower's process is stopped while it happens.
var scenarios = []scenario{
	{name: "append", about: "no rotation; 50 000 lines without a pause", play: func(s *scene) {
		w := begin(s)
		w.lines(50_000)
	}},
	{name: "from the end", about: "begins at the end of a log with 1000 lines; then lines and a rotation", play: func(s *scene) {
		s.fromEnd = true
		w := s.writer()
		for range 1000 {
			w.put("an old line\n")
		}
		s.start()
		w.slowly(300 * ms)
		s.rotate()
		w.reopen()
		w.slowly(300 * ms)
	}},

	// Renamed.
	{name: "rename, slow writer", about: "rename, create; 3 times; a line every 10 ms", play: func(s *scene) {
		w := begin(s)
		for range 3 {
			w.slowly(300 * ms)
			s.rotate()
			w.reopen()
		}
		w.slowly(300 * ms)
	}},
	{name: "rename, fast writer", about: "rename, create; 5 times; 8000 lines without a pause after each", play: func(s *scene) {
		w := begin(s)
		for range 5 {
			w.lines(8000)
			s.rotate()
			w.reopen()
		}
		w.lines(8000)
	}},
	{name: "rename, unread lines", about: "2000 lines, rename, create, 2000 lines between two looks", play: func(s *scene) {
		w := begin(s)
		s.between(func() {
			w.lines(2000)
			s.rotate()
			w.reopen()
			w.lines(2000)
		})
	}},
	{name: "rename, name absent", about: "renamed; the writer goes on in it for 500 ms before the new file is created", play: func(s *scene) {
		w := begin(s)
		s.rotate()
		w.slowly(500 * ms)
		w.reopen()
		w.slowly(200 * ms)
	}},
	lateWriter(50 * ms),
	lateWriter(500 * ms),
	lateWriter(3000 * ms),
	{name: "two writers, one late", about: "rename, create; one writer fills the new file, another goes on in the old one for 1 s", play: func(s *scene) {
		old := begin(s)
		s.rotate()
		young := old.second()
		for range 50 {
			young.line()
			old.line()
			time.Sleep(20 * ms)
		}
		old.reopen()
		old.lines(10)
	}},
	rotations(2),
	rotations(5),
	{name: "50 rotations in 1 s", about: "rename, create every 20 ms, 20 lines each", play: func(s *scene) {
		w := begin(s)
		for range 50 {
			w.lines(20)
			time.Sleep(20 * ms)
			s.rotate()
			w.reopen()
		}
		w.lines(20)
	}},
	{name: "dated names", about: "app.log-20260101 and so on; 3 rotations", play: func(s *scene) {
		w := begin(s)
		for day := range 3 {
			w.slowly(100 * ms)
			s.between(func() {
				w.lines(100)
				s.rename("app.log", fmt.Sprintf("app.log-2026010%d", day+1))
				w.reopen()
				w.lines(100)
			})
			s.caughtUp()
		}
	}},
	{name: "other directory", about: "renamed into another directory (olddir); unread lines", play: func(s *scene) {
		s.mkdir("old")
		w := begin(s)
		s.between(func() {
			w.lines(500)
			s.rename("app.log", "old/app.log.1")
			w.reopen()
			w.lines(500)
		})
	}},
	{name: "compressed at once", about: "rename, create, gzip and remove the old file, lines unread; twice", play: func(s *scene) {
		w := begin(s)
		for range 2 {
			s.between(func() {
				w.lines(500)
				s.rotate()
				w.reopen()
				s.gzip("app.log.1")
				w.lines(500)
			})
			s.caughtUp()
		}
	}},
	{name: "four writers", about: "four with O_APPEND in one file; 5 rotations, after which each reopens when it comes to it", play: func(s *scene) {
		ws := []*writer{begin(s)}
		for range 3 {
			ws = append(ws, ws[0].second())
		}
		var mu sync.RWMutex // so that rotations are whole
		gen := 0
		var wg sync.WaitGroup
		for i, w := range ws {
			wg.Go(func() {
				for n := range 600 {
					mu.RLock()
					now := gen
					mu.RUnlock()
					if w.gen < now && n%(7*i+1) == 0 {
						w.reopen()
						w.gen = now
					}
					w.line()
					time.Sleep(2 * ms)
				}
			})
		}
		for range 5 {
			time.Sleep(200 * ms)
			mu.Lock()
			s.rotate()
			s.create("app.log")
			gen++
			mu.Unlock()
		}
		wg.Wait()
	}},
	{name: "renamed back", about: "renamed away and back, the writer keeps its descriptor", play: func(s *scene) {
		w := begin(s)
		w.lines(100)
		s.rename("app.log", "app.log.1")
		time.Sleep(300 * ms)
		w.lines(100)
		s.rename("app.log.1", "app.log")
		time.Sleep(300 * ms)
		w.lines(100)
	}},

	// Removed and replaced.
	{name: "delete, create", about: "caught up, removed, created", play: func(s *scene) {
		w := begin(s)
		w.lines(100)
		s.caughtUp()
		s.remove("app.log")
		w.reopen()
		w.slowly(300 * ms)
	}},
	{name: "delete, unread lines", about: "500 lines, removed, created, 500 lines between two looks", play: func(s *scene) {
		w := begin(s)
		s.between(func() {
			w.lines(500)
			s.remove("app.log")
			w.reopen()
			w.lines(500)
		})
	}},
	{name: "delete, twice", about: "two generations are removed between two looks: nobody can read the second one", play: func(s *scene) {
		w := begin(s)
		s.between(func() {
			for range 2 {
				w.lines(100)
				s.remove("app.log")
				w.reopen()
			}
			w.lines(100)
		})
	}},
	renameOver("larger", 30),
	renameOver("equal", 10),
	renameOver("smaller", 5),

	// Truncated.
	{name: "copytruncate, quiet", about: "caught up, quiet for 1.2 s, copied, truncated", play: func(s *scene) {
		w := begin(s)
		w.lines(500)
		s.caughtUp()
		time.Sleep(1200 * ms)
		s.copy("app.log", "app.log.1")
		s.truncate()
		time.Sleep(300 * ms)
		w.slowly(300 * ms)
	}},
	{name: "copytruncate, unread lines", about: "500 lines, copied, truncated, 100 lines between two looks", play: func(s *scene) {
		w := begin(s)
		s.between(func() {
			w.lines(500)
			s.copy("app.log", "app.log.1")
			s.truncate()
			w.lines(100)
		})
	}},
	{name: "copytruncate, lines between", about: "the same, and 50 lines between the copy and the truncation: nobody can read them", play: func(s *scene) {
		w := begin(s)
		s.between(func() {
			w.lines(500)
			s.copy("app.log", "app.log.1")
			w.lines(50)
			s.truncate()
			w.lines(100)
		})
	}},
	{name: "copytruncate, mid line", about: "caught up; copied and truncated between the halves of a line: nobody can tell that they are one", play: func(s *scene) {
		w := begin(s)
		w.lines(100)
		s.caughtUp()
		first, second := string(lineText("a", 0, 0, 50)), string(lineText("a", 1, 0, 50))
		w.put(w.enter(first))
		time.Sleep(300 * ms)
		s.copy("app.log", "app.log.1")
		s.truncate()
		w.put(w.enter(second) + "\n")
		w.lines(100)
	}},
	{name: "copytruncate, empty", about: "an empty log is copied and truncated, then written", play: func(s *scene) {
		w := s.writer()
		s.start()
		s.copy("app.log", "app.log.1")
		s.truncate()
		time.Sleep(300 * ms)
		w.slowly(300 * ms)
	}},
	copytruncates(2),
	copytruncates(5),
	{name: "copytruncate, fast writer", about: "3 times while a writer writes 60 000 lines: some come between copy and truncation", play: func(s *scene) {
		w := begin(s)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 300 {
				w.lines(200)
				time.Sleep(3 * ms)
			}
		}()
		for range 3 {
			time.Sleep(300 * ms)
			s.shift()
			s.copy("app.log", "app.log.1")
			s.truncate()
		}
		<-done
	}},
	{name: "copytruncate, no pause", about: "5 times while a writer writes 100 000 lines without a pause", play: func(s *scene) {
		w := begin(s)
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.lines(100_000)
		}()
		for range 5 {
			time.Sleep(50 * ms)
			s.shift()
			s.copy("app.log", "app.log.1")
			s.truncate()
		}
		<-done
	}},
	{name: "truncate", about: "caught up, truncated without a copy, written", play: func(s *scene) {
		w := begin(s)
		w.lines(100)
		s.caughtUp()
		s.truncate()
		time.Sleep(300 * ms)
		w.slowly(300 * ms)
	}},
	{name: "truncate, unread lines", about: "100 lines, truncated, 50 lines between two looks: nobody can read the 100", play: func(s *scene) {
		w := begin(s)
		s.between(func() {
			w.lines(100)
			s.truncate()
			w.lines(50)
		})
	}},
	regrow("below", 50),
	regrow("to", 110),
	regrow("beyond", 200),
	{name: "truncate, same header", about: "each generation begins with the same 10 lines; regrown beyond the old offset between two looks", play: func(s *scene) {
		w := s.writer()
		header := func() string {
			var b strings.Builder
			for i := range 10 {
				w.seq++
				b.WriteString(w.enter(fmt.Sprintf("# field %d of a header that is always the same", i)) + "\n")
			}
			return b.String()
		}
		w.put(header())
		w.lines(20)
		s.start()
		s.between(func() {
			s.truncate()
			w.put(header())
			w.lines(100)
		})
		s.caughtUp()
		w.lines(10)
	}},
	{name: "hole of NULs", about: "truncated under a writer without O_APPEND, which goes on at its old offset", play: func(s *scene) {
		w := s.writer()
		w.f.Close()
		w.flags = 0
		w.open()
		w.lines(200)
		s.start()
		s.truncate()
		time.Sleep(300 * ms)
		w.slowly(300 * ms)
	}},

	// Names, links, directories.
	{name: "symlink retargeted", about: "the path is a link; it is set to a new file, and the old one stays", play: func(s *scene) {
		s.create("one")
		s.symlink("one", "app.log")
		w := begin(s)
		s.between(func() {
			w.lines(50)
			s.create("two")
			s.relink("two", "app.log")
			w.reopen()
			w.lines(50)
		})
		w.slowly(300 * ms)
	}},
	{name: "symlink, target renamed", about: "the path is a link to a log that is rotated by renaming, as Kubernetes does for containers", play: func(s *scene) {
		s.mkdir("pod")
		s.create("pod/0.log")
		s.symlink("pod/0.log", "app.log")
		w := begin(s)
		for day := range 2 {
			w.slowly(200 * ms)
			s.rename("pod/0.log", fmt.Sprintf("pod/0.log.2026010%d-000000", day+1))
			w.reopen()
		}
		w.slowly(200 * ms)
	}},
	{name: "symlink ..data", about: "app.log → ..data/app.log, ..data → a directory, and ..data is replaced, as for a ConfigMap", play: func(s *scene) {
		s.mkdir("..1")
		s.mkdir("..2")
		s.symlink("..1", "..data")
		s.symlink("..data/app.log", "app.log")
		s.create("..1/app.log")
		w := begin(s)
		w.slowly(100 * ms)
		s.create("..2/app.log")
		s.relink("..2", "..data")
		w.reopen()
		w.slowly(300 * ms)
	}},
	{name: "directory replaced", about: "the log's directory is renamed, and another one made with a new log", play: func(s *scene) {
		s.mkdir("log")
		s.path = s.name("log/app.log")
		w := begin(s)
		w.slowly(100 * ms)
		s.rename("log", "log.old")
		s.mkdir("log")
		w.reopen()
		w.slowly(500 * ms)
	}},
	{name: "late file", about: "the log appears after the follower", play: func(s *scene) {
		s.start()
		s.writer().slowly(300 * ms)
	}},
	{name: "late directory", about: "the log's directory appears after the follower", play: func(s *scene) {
		s.path = s.name("one/two/app.log")
		s.start()
		s.mkdir("one")
		time.Sleep(100 * ms)
		s.mkdir("one/two")
		s.writer().slowly(300 * ms)
	}},
	{name: "not permitted", about: "EACCES: a log that the follower may not read at first, and again after a rotation, for 500 ms", root: true, play: func(s *scene) {
		s.uid = nobody
		w := s.writer()
		check(w.f.Chmod(0o600))
		w.lines(10)
		s.startUnready()
		check(w.f.Chmod(0o644))
		s.caughtUp()
		w.slowly(100 * ms)
		s.rotate()
		w.f.Close()
		w.gen++
		s.createMode("app.log", 0o600)
		w.open()
		w.slowly(500 * ms)
		check(w.f.Chmod(0o644))
		w.slowly(200 * ms)
	}},
	{name: "loop of links", about: "ELOOP: after a rotation the path is a link to itself for 500 ms, then a new log", play: func(s *scene) {
		w := begin(s)
		s.rotate()
		s.symlink("app.log", "app.log")
		time.Sleep(500 * ms)
		s.remove("app.log")
		w.reopen()
		w.slowly(300 * ms)
	}},
	{name: "not a directory", about: "ENOTDIR: the log's directory is renamed, and a file in its place for 500 ms", play: func(s *scene) {
		s.mkdir("log")
		s.path = s.name("log/app.log")
		w := begin(s)
		s.rename("log", "log.old")
		s.create("log")
		time.Sleep(500 * ms)
		s.remove("log")
		s.mkdir("log")
		w.reopen()
		w.slowly(300 * ms)
	}},
	{name: "becomes a directory", about: "after a rotation the path is a directory for 500 ms, then a new log", play: func(s *scene) {
		w := begin(s)
		s.rotate()
		s.mkdir("app.log")
		time.Sleep(500 * ms)
		s.remove("app.log")
		w.reopen()
		w.slowly(300 * ms)
	}},

	// Lines.
	{name: "line in two writes", about: "20 lines, the second half of each 50 ms after the first", play: func(s *scene) {
		w := begin(s)
		for range 20 {
			b := w.next()
			w.put(b[:len(b)/2])
			time.Sleep(50 * ms)
			w.put(b[len(b)/2:] + "\n")
		}
	}},
	{name: "bytes one by one", about: "10 lines, a write for each byte", play: func(s *scene) {
		w := begin(s)
		for range 10 {
			for _, c := range []byte(w.next() + "\n") {
				w.put(string([]byte{c}))
				time.Sleep(100 * time.Microsecond)
			}
		}
	}},
	{name: "cut at a page", about: "writes of 4096 bytes, which cut lines, 20 ms apart, as a buffer's writer does", play: func(s *scene) {
		w := begin(s)
		var all strings.Builder
		for range 1000 {
			all.WriteString(w.next() + "\n")
		}
		for b := all.String(); b != ""; {
			n := min(4096, len(b))
			w.put(b[:n])
			b = b[n:]
			time.Sleep(20 * ms)
		}
	}},
	{name: "unterminated at rotation", about: "the last line of the old file has no end", play: func(s *scene) {
		w := begin(s)
		w.lines(10)
		w.put(w.next())
		time.Sleep(300 * ms)
		s.rotate()
		w.reopen()
		w.slowly(300 * ms)
	}},
	{name: "1.5 MiB line", about: "a line of 1.5 MiB in one write, between others; tailcast's pieces are put together again", play: func(s *scene) {
		w := begin(s)
		for range 2 {
			w.width = 3 << 19
			w.line()
			w.width = 100
			w.lines(10)
		}
	}},
	{name: "CRLF", about: "lines end in \"\\r\\n\"; some lone \"\\r\" in them; with a rotation", play: func(s *scene) {
		w := begin(s)
		for i := range 100 {
			w.seq++
			w.put(w.enter(fmt.Sprintf("line\r%d", i)) + "\r\n")
			if i == 50 {
				s.rotate()
				w.reopen()
			}
		}
	}},
	{name: "not UTF-8", about: "lines of bytes that are no text", play: func(s *scene) {
		w := begin(s)
		for i := range 100 {
			w.seq++
			w.put(w.enter(fmt.Sprintf("line %d \xff\xfe\xc0\x80 \xed\xa0\x80 \xe2\x82", i)) + "\n")
		}
	}},
	{name: "NULs", about: "lines with NUL bytes in them", play: func(s *scene) {
		w := begin(s)
		for i := range 100 {
			w.seq++
			w.put(w.enter(fmt.Sprintf("line %d \x00 and \x00\x00", i)) + "\n")
		}
	}},
	{name: "empty lines", about: "100 empty lines between others, also first and last in a file", play: func(s *scene) {
		w := begin(s)
		for range 2 {
			for range 50 {
				w.seq++
				w.put(w.enter("") + "\n")
				w.line()
			}
			w.seq++
			w.put(w.enter("") + "\n")
			s.caughtUp()
			s.rotate()
			w.reopen()
		}
	}},

	// Consumers.
	{name: "slow consumer, rename", about: "nobody takes lines for 2 s, meanwhile 3 rotations of 20 000 lines each", play: func(s *scene) {
		w := begin(s)
		s.blocked(func() {
			for range 3 {
				w.lines(20_000)
				s.rotate()
				w.reopen()
				time.Sleep(300 * ms)
			}
			w.lines(10)
			time.Sleep(time.Second)
		})
	}},
	{name: "slow consumer, copytruncate", about: "nobody takes lines for 2 s, meanwhile 20 000 lines, copied, truncated, 100 lines", play: func(s *scene) {
		w := begin(s)
		s.blocked(func() {
			w.lines(20_000)
			time.Sleep(500 * ms)
			s.copy("app.log", "app.log.1")
			s.truncate()
			w.lines(100)
			time.Sleep(time.Second)
		})
	}},
	{name: "run again", about: "the consumer ends Run, two rotations, Run again (tailcast only)", alone: true, play: func(s *scene) {
		w := begin(s)
		s.proc.order("stop")
		time.Sleep(calm)
		for range 2 {
			w.lines(100)
			s.rotate()
			w.reopen()
		}
		w.lines(100)
		s.proc.order("run")
	}},
	{name: "process killed", about: "killed while it follows, two rotations, then Replay in another process from the last position (tailcast only)", alone: true, play: func(s *scene) {
		w := begin(s)
		w.slowly(300 * ms)
		s.proc.kill()
		pos := s.proc.pos
		for range 2 {
			w.lines(100)
			s.rotate()
			w.reopen()
		}
		w.lines(100)
		s.startAfter(pos)
		w.slowly(300 * ms)
	}},
}

func lateWriter(late time.Duration) scenario {
	return scenario{
		name:  fmt.Sprintf("writer late by %d ms", late.Milliseconds()),
		about: fmt.Sprintf("rename, create; the writer goes on in the old file for %d ms, then reopens", late.Milliseconds()),
		play: func(s *scene) {
			w := begin(s)
			s.rotate()
			s.create("app.log")
			w.slowly(late)
			w.reopen()
			w.slowly(200 * ms)
		},
	}
}

func rotations(n int) scenario {
	return scenario{
		name:  fmt.Sprintf("%d rotations in one look", n),
		about: fmt.Sprintf("rename, create, %d times between two looks, 200 lines each", n),
		play: func(s *scene) {
			w := begin(s)
			s.between(func() {
				for range n {
					w.lines(200)
					s.rotate()
					w.reopen()
				}
				w.lines(200)
			})
		},
	}
}

func copytruncates(n int) scenario {
	return scenario{
		name:  fmt.Sprintf("copytruncate, %d in one look", n),
		about: fmt.Sprintf("copied and truncated %d times between two looks, 200 lines before each", n),
		play: func(s *scene) {
			w := begin(s)
			s.between(func() {
				for range n {
					w.lines(200)
					s.shift()
					s.copy("app.log", "app.log.1")
					s.truncate()
				}
				w.lines(200)
			})
		},
	}
}

// renameOver replaces a log of 10 lines.
func renameOver(what string, lines int) scenario {
	return scenario{
		name:  "renamed over, " + what,
		about: fmt.Sprintf("a file of %s size is renamed over the log; then it is written to", map[string]string{"larger": "a larger", "equal": "the same", "smaller": "a smaller"}[what]),
		play: func(s *scene) {
			w := begin(s)
			w.f.Close()
			w.path = s.name("new")
			w.open()
			w.lines(lines)
			s.rename("new", "app.log")
			time.Sleep(300 * ms)
			w.slowly(200 * ms)
		},
	}
}

// regrow truncates a log of 110 lines.
func regrow(where string, lines int) scenario {
	return scenario{
		name:  "regrown " + where + " the old offset",
		about: fmt.Sprintf("caught up; truncated without a copy, and %d%% of its size written between two looks", lines*100/110),
		play: func(s *scene) {
			w := begin(s)
			w.lines(100)
			size := s.size()
			s.caughtUp()
			s.between(func() {
				s.truncate()
				w.lines(lines - 1)
				if lines == 110 {
					w.width = int(size-s.size()) - 1
				}
				w.line()
				if lines == 110 && s.size() != size {
					check(fmt.Errorf("%d bytes, not %d", s.size(), size))
				}
			})
			s.caughtUp()
			w.width = 100
			w.slowly(200 * ms)
		},
	}
}

const nobody = 65534

// startUnready starts a follower that cannot read yet.
func (s *scene) startUnready() {
	var err error
	s.proc, err = s.follower.start(place{s.path, s.fromEnd, "", s.uid}, s.ledger)
	check(err)
	time.Sleep(3 * calm)
}

func (s *scene) createMode(name string, mode os.FileMode) {
	f, err := os.OpenFile(s.name(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	check(err)
	check(f.Close())
}
