package main

import (
	"time"
)

// A scenario is something that happens to a log.
type scenario struct {
	name  string
	about string
	play  func(s *scene)
	alone bool // only for a follower that can resume
	root  bool
}

const ms = time.Millisecond

// begin is how most scenarios begin: a log with some lines, a follower that has caught up.
func begin(s *scene) *writer {
	w := s.writer()
	w.lines(10)
	s.start()
	return w
}

var scenarios = []scenario{
	{name: "append", about: "no rotation: 50 000 lines as fast as one process can write them", play: func(s *scene) {
		w := begin(s)
		w.lines(50_000)
	}},
	{name: "rename, slow writer", about: "rename and create, 3 times; a line every 10 ms", play: func(s *scene) {
		w := begin(s)
		for range 3 {
			w.slowly(300 * ms)
			s.rotate()
			w.reopen()
		}
		w.slowly(300 * ms)
	}},
	{name: "rename, fast writer", about: "rename and create, 5 times, after each 8000 lines without a pause", play: func(s *scene) {
		w := begin(s)
		for range 5 {
			w.lines(8000)
			s.rotate()
			w.reopen()
		}
		w.lines(8000)
	}},
}
