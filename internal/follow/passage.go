package follow

import (
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A passage keeps account of the files that come to a path and go, by its notifications: a file that was created and removed
// between two looks has left no other trace. It errs on the side of silence: of an event that is lost it makes no file.
type passage struct {
	mu       sync.Mutex
	here     visitor   // the file that is there by now
	removed  int       // files that came, were written to, and were removed
	replaced int       // files that came, and had another one renamed over them
	heard    time.Time // the last event
}

// A visitor is a file as its events show it.
type visitor struct {
	came, written bool
	known         bool // a look has seen it
}

func (p *passage) note(op fsnotify.Op) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard = time.Now()
	unseen := p.here.came && !p.here.known
	switch {
	case op.Has(fsnotify.Create):
		if unseen {
			p.replaced++
		}
		p.here = visitor{came: true}
	case op.Has(fsnotify.Remove):
		if unseen && p.here.written {
			p.removed++
		}
		p.here = visitor{}
	case op.Has(fsnotify.Rename): // it will be found under another name
		p.here = visitor{}
	case op.Has(fsnotify.Write):
		p.here.written = true
	}
}

// seen notes that a look has found the file that is there.
func (p *passage) seen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here.known = true
}

// rests reports whether the arrival of the file that is there was told, and nothing since.
func (p *passage) rests() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.here.came && time.Since(p.heard) >= restTime
}

// take tells what came and went since it was last called.
func (p *passage) take() (removed, replaced int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	removed, replaced = p.removed, p.replaced
	p.removed, p.replaced, p.here.known = 0, 0, true
	return removed, replaced
}

func (p *passage) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here, p.removed, p.replaced = visitor{}, 0, 0
}

const (
	restTime = time.Millisecond      // events come one right after the other
	restWait = 10 * time.Millisecond // how long they are waited for
)

// unseen returns the gap before a file that was just opened, if others came and went before it.
func (r *run) unseen(h *handle) *Gap {
	w := r.watch
	if !w.simple {
		return nil
	}
	for began := time.Now(); !w.passage.rests(); time.Sleep(restTime) {
		if time.Since(began) >= restWait {
			w.passage.reset()
			return nil
		}
	}
	removed, replaced := w.passage.take()
	if info, err := r.fs.Stat(r.cfg.Path); err != nil || !r.same(identity{info}, identity{h.info}) {
		w.passage.reset() // the account may be that of another file
		return nil
	}
	if removed+replaced == 0 {
		return nil
	}
	return &Gap{Count: -1, Bytes: -1, Possible: removed == 0, Reason: "a file was there and was removed before it could be read"}
}
