package follow

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// lookSpacing keeps a writer of many small lines from costing a look for each of them. It delays a line only when
	// another one came less than this before: then by a millisecond, which is the least that the runtime sleeps.
	lookSpacing = 250 * time.Microsecond
	// maxBackoff is the longest time between two looks at a path that can't be read.
	maxBackoff = 4
)

// A watcher turns notifications into wake-ups. They are hints: a look finds out what has happened. It watches directories,
// because a file that is renamed takes its own watch along.
type watcher struct {
	f    *Follower
	w    *fsnotify.Watcher // nil: polling only
	wake chan struct{}
	done chan struct{}
	dirs map[string]identity // what is watched
	told bool                // that notifications don't work
}

func (r *run) newWatcher() *watcher {
	n := &watcher{f: r.Follower, wake: make(chan struct{}, 1), done: make(chan struct{}), dirs: make(map[string]identity)}
	if r.cfg.NoNotify {
		close(n.done)
		return n
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		close(n.done)
		n.told = true
		r.report(EventUnwatched, err)
		return n
	}
	n.w = w
	go n.listen()
	r.arm(n)
	return n
}

// listen needs no error's kind: whatever was lost, a look finds it.
func (n *watcher) listen() {
	defer close(n.done)
	stem := n.stem()
	for {
		select {
		case ev, ok := <-n.w.Events:
			if !ok {
				return
			}
			if strings.HasPrefix(filepath.Base(ev.Name), stem) || n.f.cfg.Rotated != "" {
				n.poke()
			}
		case _, ok := <-n.w.Errors:
			if !ok {
				return
			}
			n.poke()
		}
	}
}

// stem is what the names of the file and of its siblings begin with.
func (n *watcher) stem() string {
	base := filepath.Base(n.f.cfg.Path)
	target, err := n.f.fs.Resolve(n.f.cfg.Path)
	if err == nil && filepath.Base(target) != base {
		return "" // a symbolic link: two names, and the second may change
	}
	return strings.TrimSuffix(base, filepath.Ext(base))
}

func (n *watcher) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *watcher) close() {
	if n.w != nil {
		n.w.Close()
	}
	<-n.done
	n.f.stat.update(func(s *Stats) { s.Notified = false })
}

// arm watches the directories that matter, and drops watches of directories that were replaced.
func (r *run) arm(n *watcher) {
	if n.w == nil {
		return
	}
	want := n.wanted()
	for dir, id := range n.dirs {
		if now, ok := want[dir]; !ok || !r.same(id, now) || !slices.Contains(n.w.WatchList(), dir) {
			n.w.Remove(dir)
			delete(n.dirs, dir)
		}
	}
	for dir, id := range want {
		if _, ok := n.dirs[dir]; ok {
			continue
		}
		if err := n.w.Add(dir); err != nil {
			r.unwatched(n, err)
			continue
		}
		n.dirs[dir] = id
	}
	r.stat.update(func(s *Stats) { s.Notified = len(n.dirs) > 0 })
}

func (r *run) unwatched(n *watcher, err error) {
	if !n.told {
		n.told = true
		r.report(EventUnwatched, err)
	}
}

// wanted is the path's directory, and where the path is a symbolic link its target's.
func (n *watcher) wanted() map[string]identity {
	want := make(map[string]identity)
	paths := []string{n.f.cfg.Path}
	if target, err := n.f.fs.Resolve(n.f.cfg.Path); err == nil {
		paths = append(paths, target)
	}
	for _, path := range paths {
		dir := filepath.Dir(path)
		if info, err := n.f.fs.Stat(dir); err == nil && info.IsDir() {
			want[dir] = identity{info}
		}
	}
	return want
}

// wait returns when there may be something to see.
func (r *run) wait() error {
	looked := time.Now()
	timer := time.NewTimer(min(r.interval(), r.untilCheckpoint()))
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-timer.C:
		r.idle()
		return nil
	case <-r.watch.wake:
	}
	timer.Reset(lookSpacing - time.Since(looked))
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-timer.C:
	}
	select {
	case <-r.watch.wake: // for what the next look sees anyway
	default:
	}
	return nil
}

// interval backs off while there is nothing to read from at all.
func (r *run) interval() time.Duration {
	if len(r.chain) > 0 || r.trouble.event == "" {
		return r.cfg.Poll
	}
	return min(time.Since(r.trouble.since)+r.cfg.Poll, maxBackoff*r.cfg.Poll)
}

// idle does what is not worth doing at every look.
func (r *run) idle() {
	r.arm(r.watch)
	for _, g := range r.chain {
		g.reader.shrink()
	}
}
