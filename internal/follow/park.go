package follow

import (
	"container/list"
	"errors"
	"os"
	"sync"
	"time"
)

// An OpenLimit bounds how many files the Followers that share it have open. Beyond it the live file that has been idle for
// longest is closed, if it was read to its end; it is opened again, by identity and content, when it changes. Files that are
// busy, or are read on after their rotation, are not closed: so many more can be open.
type OpenLimit struct {
	limit int

	mu      sync.Mutex
	open    int
	closing int // that were asked to close
	idle    list.List
}

// NewOpenLimit returns a limit of n files.
func NewOpenLimit(n int) *OpenLimit { return &OpenLimit{limit: n} }

// A parker is a run's part in an OpenLimit.
type parker struct {
	limit *OpenLimit // nil: none

	// Guarded by limit.mu.
	idle  *list.Element
	asked bool // to close its file
}

// opened counts.
func (l *OpenLimit) opened(n int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open += n
}

// rest notes that r's file could be closed, and asks those who have rested longest to close theirs where too many are open.
func (l *OpenLimit) rest(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.park.idle == nil && !r.park.asked {
		r.park.idle = l.idle.PushBack(r)
	}
	for l.open-l.closing > l.limit && l.idle.Len() > 0 {
		v := l.idle.Remove(l.idle.Front()).(*run)
		v.park.idle, v.park.asked = nil, true
		l.closing++
		if v != r {
			v.watch.poke()
		}
	}
}

// stir notes that r's file is not idle.
func (l *OpenLimit) stir(r *run) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.park.idle != nil {
		l.idle.Remove(r.park.idle)
		r.park.idle = nil
	}
}

// asked reports whether r is to close its file, and forgets it.
func (l *OpenLimit) asked(r *run) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !r.park.asked {
		return false
	}
	r.park.asked = false
	l.closing--
	return true
}

// asks is asked without forgetting.
func (l *OpenLimit) asks(r *run) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.park.asked
}

// leave ends r's part.
func (l *OpenLimit) leave(r *run) {
	if l == nil {
		return
	}
	l.stir(r)
	l.asked(r)
}

// restful reports whether closing the file would lose nothing: it is all there is, and was read to its end.
func (r *run) restful() bool {
	g := r.live()
	return len(r.chain) == 1 && r.present && !r.failing && r.gap == nil && g.gap == nil && g.rest() <= 0 &&
		time.Since(r.changed) >= r.cfg.Grace
}

// yield closes the file where that is asked for, and returns when it has changed, and is open again.
func (r *run) yield() (yielded bool, err error) {
	l := r.park.limit
	if l == nil {
		return false, nil
	}
	if !r.restful() {
		l.leave(r)
		return false, nil
	}
	l.rest(r)
	if !l.asks(r) {
		return false, nil
	}
	defer l.asked(r)
	g := r.live()
	was, err := r.fs.Stat(r.cfg.Path)
	if err != nil || !r.same(g.id(), identity{was}) || was.Size() != g.size {
		return true, nil // something has just happened
	}
	r.closeFile(g)
	l.asked(r) // only now, or another would be asked in its place
	r.stat.update(func(s *Stats) { s.Parked++ })
	for {
		if err := r.sleep(); err != nil {
			return false, err
		}
		now, err := r.fs.Stat(r.cfg.Path)
		if err == nil && r.unchanged(identity{was}, identity{now}) {
			continue
		}
		if r.unpark(g) {
			return true, nil
		}
	}
}

// unpark opens the file again. It fails where that can't be tried, as there is no descriptor to be had.
func (r *run) unpark(g *generation) bool {
	h, err := openHandle(r.fs, r.cfg.Path)
	switch {
	case err == nil:
		size, err := h.size()
		if err == nil && r.same(g.src.info, identity{h.info}) && size >= g.reader.end() && g.reader.matches(h) && g.last.on(h) {
			r.replaceFile(g, h)
			return true
		}
		h.release()
	case !errors.Is(err, os.ErrNotExist) && eventOf(err) != EventIrregular:
		r.troubled(err)
		return false
	}
	return r.reopen()
}
