package follow

import (
	"context"
	"math/rand/v2"
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
	// slowest is how many times Poll a quiet file waits for a look, where notifications tell of changes.
	slowest = 16
	// armSpacing is how often the directories are looked up again without a reason, and joinSpacing where one can't be watched.
	armSpacing, joinSpacing = 2 * time.Minute, 2 * time.Second
	// hearing is how long after a change its notification may come.
	hearing = time.Second
)

// A watcher turns notifications into wake-ups. They are hints: a look finds out what has happened. It watches directories,
// because a file that is renamed takes its own watch along.
type watcher struct {
	f *Follower
	*listener
	off    bool // polling only
	told   bool // that notifications don't work
	places map[string]*post
	joined bool      // all directories that matter are watched
	whole  bool      // and by a kernel that knows of all writers
	simple bool      // the path is watched, and it is no link
	armed  time.Time // when they were looked up
	of     *source   // the live generation then

	active   time.Time // when anything was last heard or seen of the file
	heard    bool      // the look that comes was asked for by a notification
	untold   time.Time // when a change was seen that no notification has told of
	deaf     bool      // none did: a hard link, a mapped file, a bind mount
	overflow int64     // how many overflows were counted
	passage  passage   // kept where it is simple
}

// A post is a directory that is watched, and the names in it that matter.
type post struct {
	id    identity
	names []string
	in    *interest
}

func (r *run) newWatcher() *watcher {
	n := &watcher{f: r.Follower, listener: newListener(), off: r.cfg.NoNotify, places: make(map[string]*post)}
	if n.off {
		return n
	}
	n.f.notify.enter()
	r.arm(n)
	return n
}

func (n *watcher) close() {
	if n.off {
		return
	}
	for dir := range n.places {
		n.leave(dir)
	}
	n.f.notify.exit()
	n.f.stat.update(func(s *Stats) { s.Notified = false })
}

func (n *watcher) leave(dir string) {
	n.f.notify.leave(dir, n.places[dir].in)
	delete(n.places, dir)
}

// stale reports whether the directories have to be looked up again.
func (r *run) stale(n *watcher) bool {
	if n.off {
		return false
	}
	var of *source
	if live := r.live(); live != nil {
		of = live.src
	}
	wait := armSpacing
	if !n.joined {
		wait = joinSpacing
	}
	return of != n.of || n.lost.Load() || time.Since(n.armed) >= wait
}

// arm watches the directories that matter, and drops watches of directories that were replaced.
func (r *run) arm(n *watcher) {
	n.armed, n.of = time.Now(), nil
	if live := r.live(); live != nil {
		n.of = live.src
	}
	want, link := n.wanted()
	lost := n.lost.Swap(false)
	for dir, p := range n.places {
		now, ok := want[dir]
		if !ok || lost || !r.same(p.id, now.id) || !slices.Equal(p.names, now.names) {
			n.leave(dir)
		}
	}
	n.joined, n.whole = len(want) > 0, true
	for dir, p := range want {
		if _, ok := n.places[dir]; ok {
			continue
		}
		p.in = &interest{l: n.listener, want: n.wants(p.names)}
		if n.f.cfg.Rotated == "" {
			for _, name := range p.names {
				p.in.stems = append(p.in.stems, stemOf(name))
			}
			slices.Sort(p.in.stems)
			p.in.stems = slices.Compact(p.in.stems)
		}
		if err := n.f.notify.join(dir, p.id.FileInfo, p.in); err != nil {
			n.joined = false
			r.unwatched(n, err)
			continue
		}
		n.places[dir] = p
		n.passage.reset()
		n.heard = true // what came before the watch is not told of
	}
	for dir := range n.places {
		n.whole = n.whole && !remote(dir)
	}
	n.whole = n.whole && n.joined
	n.simple = n.whole && len(want) == 1 && !link
	if n.joined && n.told {
		n.told = false
		if r.trouble.event == "" {
			r.report(EventRecovered, nil)
		}
	}
	r.stat.update(func(s *Stats) { s.Notified = len(n.places) > 0 })
}

func (r *run) unwatched(n *watcher, err error) {
	r.stat.update(func(s *Stats) { s.Unwatched++ })
	if !n.told {
		n.told = true
		r.report(EventUnwatched, err)
	}
}

// wants tells the events of a file and its siblings from those of its neighbours.
func (n *watcher) wants(names []string) func(string, fsnotify.Op) bool {
	pattern, path := filepath.Base(n.f.cfg.Rotated), filepath.Base(n.f.cfg.Path)
	return func(name string, op fsnotify.Op) bool {
		if name == path {
			n.passage.note(op)
		}
		if n.f.cfg.Rotated != "" {
			if ok, _ := filepath.Match(pattern, name); ok {
				return true
			}
			return slices.Contains(names, name)
		}
		return slices.ContainsFunc(names, func(base string) bool {
			return name == base || rotatedName(base, uncompressed(name))
		})
	}
}

// uncompressed is the name that a compressed file had.
func uncompressed(name string) string {
	if compressed(name) {
		return strings.TrimSuffix(name, filepath.Ext(name))
	}
	return name
}

// wanted is the path's directory, and where the path is a symbolic link its target's, by the names that the system knows. link
// says that it is one.
func (n *watcher) wanted() (want map[string]*post, link bool) {
	want = make(map[string]*post)
	add := func(dir, name string) {
		if p := want[dir]; p != nil {
			if !slices.Contains(p.names, name) {
				p.names = append(p.names, name)
			}
			return
		}
		if info, err := n.f.fs.Stat(dir); err == nil && info.IsDir() {
			want[dir] = &post{id: identity{info}, names: []string{name}}
		}
	}
	path, err := filepath.Abs(n.f.cfg.Path)
	if err != nil {
		return nil, false
	}
	dir, err := n.f.fs.Resolve(filepath.Dir(path))
	if err == nil {
		add(dir, filepath.Base(path))
	}
	if target, err := n.f.fs.Resolve(path); err == nil {
		add(filepath.Dir(target), filepath.Base(target))
		link = target != filepath.Join(dir, filepath.Base(path))
	}
	return want, link
}

// wait returns when there may be something to see, and the files are open.
func (r *run) wait() error {
	if yielded, err := r.yield(); yielded || err != nil {
		return err
	}
	return r.sleep()
}

// sleep waits until there may be something to see.
func (r *run) sleep() error {
	if r.stale(r.watch) {
		r.arm(r.watch)
		return nil
	}
	looked := time.Now()
	timer := time.NewTimer(min(r.interval(), r.untilCheckpoint()))
	defer timer.Stop()
	r.watch.heard = false
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-timer.C:
		r.idle()
		return nil
	case <-r.watch.wake:
		if r.park.limit.asks(r) {
			return nil
		}
		r.watch.hear()
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

// hear is called when a notification has come.
func (n *watcher) hear() {
	n.heard, n.active = true, time.Now()
	n.untold, n.deaf = time.Time{}, false
	if count := n.overflows.Load(); count > n.overflow {
		n.f.stat.update(func(s *Stats) { s.Overflows += count - n.overflow })
		n.overflow = count
	}
}

// see is called when a look has found something.
func (n *watcher) see() {
	n.active = time.Now()
	if !n.heard && n.whole && n.untold.IsZero() {
		n.untold = n.active
	}
}

// interval backs off while there is nothing to read from at all, and while nothing happens of which a notification would
// tell. A file that has changed without one is polled until one comes.
func (r *run) interval() time.Duration {
	n := r.watch
	live := r.live()
	switch {
	case live == nil && r.trouble.event != "":
		return min(time.Since(r.trouble.since)+r.cfg.Poll, maxBackoff*r.cfg.Poll)
	case len(r.chain) != 1 || !n.whole || r.failing || r.trouble.event != "" || time.Since(r.changed) < r.cfg.Grace:
		return r.cfg.Poll
	case !n.untold.IsZero() && !n.deaf && time.Since(n.untold) >= hearing:
		n.deaf = true
		r.stat.update(func(s *Stats) { s.Untold++ })
	}
	since := n.active
	if live.grew.After(since) {
		since = live.grew
	}
	quiet := time.Since(since) / 2
	if n.deaf || quiet <= r.cfg.Poll {
		return r.cfg.Poll
	}
	quiet = min(quiet, slowest*r.cfg.Poll)
	return together(quiet-rand.N(quiet/8+1), r.cfg.Poll)
}

// together shortens a wait so that it ends when others do, at a multiple of the tick: to wake the process costs more than a
// look does. Not all end at once, since each has chosen its own wait.
func together(wait, tick time.Duration) time.Duration {
	late := time.Duration(time.Now().Add(wait).UnixNano() % int64(tick))
	return max(wait-late, tick)
}

// idle does what is not worth doing at every look.
func (r *run) idle() {
	for _, g := range r.chain {
		g.reader.shrink()
	}
}
