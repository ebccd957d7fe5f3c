package follow

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// shared is the process's one fsnotify instance, since a system has few of them to give (Linux: 128 for a user). It exists
// while somebody listens; then neither a descriptor nor a goroutine of it is left.
var shared = &notifier{open: openBackend}

const (
	// checkSpacing is how often the watches are compared with what the system still watches: some end without a word.
	checkSpacing = 4 * time.Second
	// retrySpacing is how long nobody asks for a watch after the system has refused one because of a limit.
	retrySpacing = 10 * time.Second
	// sweepDelay puts overflows of the queue together that come at once.
	sweepDelay = 50 * time.Millisecond
)

// A backend is what a notifier needs of fsnotify: a seam for tests with limits, overflows and silence.
type backend interface {
	Add(dir string) error
	Remove(dir string) error
	WatchList() []string
	Close() error // closes the channels
	channels() (<-chan fsnotify.Event, <-chan error)
}

type fsnotifyBackend struct{ *fsnotify.Watcher }

func (b fsnotifyBackend) channels() (<-chan fsnotify.Event, <-chan error) { return b.Events, b.Errors }

func openBackend() (backend, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return fsnotifyBackend{w}, nil
}

// A listener is somebody who is woken by events.
type listener struct {
	wake      chan struct{} // of one; nobody waits for it to be taken
	lost      atomic.Bool   // a directory is watched no more: join it again
	overflows atomic.Int64  // of the system's queue, so that any event may be missing
}

func newListener() *listener { return &listener{wake: make(chan struct{}, 1)} }

func (l *listener) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// An interest is what a listener wants to know of a directory.
type interest struct {
	l     *listener
	stems []string // it wants names that begin with one of these; none: it is asked about each
	want  func(name string, op fsnotify.Op) bool
}

// A notifier shares one backend between listeners.
type notifier struct {
	open func() (backend, error)

	ops    sync.Mutex // serialises what asks the system, and guards the rest; no event waits for it
	cur    *instance
	users  int
	err    error // the limit that was hit last
	failed time.Time
}

// An instance is a backend with its dispatcher, from the first listener to the last.
type instance struct {
	b    backend
	done chan struct{}

	mu   sync.Mutex
	dirs map[string]*watched
}

// A watched directory, and who is interested in which names.
type watched struct {
	id    os.FileInfo
	stems map[string][]*interest
	any   []*interest
	count int
}

// stemOf is what the names of a file and of its siblings begin with.
func stemOf(base string) string {
	if stem := strings.TrimSuffix(base, filepath.Ext(base)); stem != "" {
		return stem
	}
	return base
}

// isBoundary says where a stem may end in a name.
func isBoundary(c byte) bool { return c == '.' || c == '-' || c == '_' }

// enter adds a user. It gets nothing before it joins.
func (n *notifier) enter() {
	n.ops.Lock()
	defer n.ops.Unlock()
	n.users++
}

// exit removes one that has left all its directories. With the last one the backend ends.
func (n *notifier) exit() {
	n.ops.Lock()
	defer n.ops.Unlock()
	if n.users--; n.users > 0 {
		return
	}
	n.err, n.failed = nil, time.Time{}
	if n.cur != nil {
		n.cur.b.Close()
		<-n.cur.done
		n.cur = nil
	}
}

// join has a listener woken by the events of a directory, whose identity id is, by names that begin with one of the stems
// and that want accepts.
func (n *notifier) join(dir string, id os.FileInfo, in *interest) error {
	n.ops.Lock()
	defer n.ops.Unlock()
	if n.err != nil && time.Since(n.failed) < retrySpacing {
		return n.err
	}
	if n.cur == nil {
		b, err := n.open()
		if err != nil {
			return n.refused(err)
		}
		n.cur = &instance{b: b, done: make(chan struct{}), dirs: make(map[string]*watched)}
		go n.cur.listen()
	}
	if known, same := n.cur.has(dir, id); !same {
		if known {
			n.cur.b.Remove(dir) // of another directory by that name
		}
		if err := n.cur.b.Add(dir); err != nil {
			n.cur.drop(dir)
			return n.refused(err)
		}
	}
	n.err = nil
	n.cur.add(dir, id, in)
	return nil
}

// refused notes a limit, so that it is not run into again and again.
func (n *notifier) refused(err error) error {
	if isLimit(err) {
		n.err, n.failed = err, time.Now()
	}
	return err
}

// leave undoes join.
func (n *notifier) leave(dir string, in *interest) {
	n.ops.Lock()
	defer n.ops.Unlock()
	if n.cur != nil && n.cur.remove(dir, in) {
		n.cur.b.Remove(dir) // nothing is left to be told if it fails
	}
}

// has reports whether a directory of that name is watched, and whether it is this one.
func (i *instance) has(dir string, id os.FileInfo) (known, same bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.dirs[dir]
	return w != nil, w != nil && sameFile(w.id, id)
}

func (i *instance) add(dir string, id os.FileInfo, in *interest) {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.dirs[dir]
	if w == nil {
		w = &watched{stems: make(map[string][]*interest)}
		i.dirs[dir] = w
	}
	w.id = id
	w.count++
	for _, stem := range in.stems {
		w.stems[stem] = append(w.stems[stem], in)
	}
	if in.stems == nil {
		w.any = append(w.any, in)
	}
}

// remove reports whether nobody is interested in the directory any more.
func (i *instance) remove(dir string, in *interest) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	w := i.dirs[dir]
	if w == nil {
		return false
	}
	is := func(other *interest) bool { return other == in }
	before := w.count
	for _, stem := range in.stems {
		list := w.stems[stem]
		if !slices.ContainsFunc(list, is) {
			continue
		}
		w.count = before - 1
		if list = slices.DeleteFunc(list, is); len(list) == 0 {
			delete(w.stems, stem)
		} else {
			w.stems[stem] = list
		}
	}
	if in.stems == nil && slices.ContainsFunc(w.any, is) {
		w.count = before - 1
		w.any = slices.DeleteFunc(w.any, is)
	}
	if w.count > 0 {
		return false
	}
	delete(i.dirs, dir)
	return true
}

// drop forgets a directory that is watched no more, and tells those who were interested.
func (i *instance) drop(dir string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dropLocked(dir)
}

func (i *instance) dropLocked(dir string) {
	w := i.dirs[dir]
	if w == nil {
		return
	}
	delete(i.dirs, dir)
	w.each(func(in *interest) {
		in.l.lost.Store(true)
		in.l.poke()
	})
}

func (w *watched) each(f func(*interest)) {
	for _, list := range w.stems {
		for _, in := range list {
			f(in)
		}
	}
	for _, in := range w.any {
		f(in)
	}
}

// listen dispatches until the backend is closed.
func (i *instance) listen() {
	defer close(i.done)
	events, errs := i.b.channels()
	check := time.NewTicker(checkSpacing)
	defer check.Stop()
	var sweep <-chan time.Time
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				return
			}
			i.dispatch(ev)
		case err, ok := <-errs:
			if !ok {
				return
			}
			if sweep == nil {
				sweep = time.After(sweepDelay)
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				i.everybody(func(in *interest) { in.l.overflows.Add(1) })
			}
		case <-sweep: // whatever was lost, a look finds it
			sweep = nil
			i.everybody(func(in *interest) { in.l.poke() })
		case <-check.C:
			i.check()
		}
	}
}

// dispatch wakes those who wait for an event. A stem ends at the name's end or before a mark, so a few look-ups find them,
// however many files there are.
func (i *instance) dispatch(ev fsnotify.Event) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, itself := i.dirs[ev.Name]; itself && ev.Op&(fsnotify.Remove|fsnotify.Rename) != 0 {
		i.dropLocked(ev.Name) // and it may be an entry of its parent, too
	}
	dir, name := filepath.Dir(ev.Name), filepath.Base(ev.Name)
	w := i.dirs[dir]
	if w == nil {
		return
	}
	for end := 1; end <= len(name); end++ {
		if end < len(name) && !isBoundary(name[end]) {
			continue
		}
		for _, in := range w.stems[name[:end]] {
			if in.want(name, ev.Op) {
				in.l.poke()
			}
		}
	}
	for _, in := range w.any {
		if in.want(name, ev.Op) {
			in.l.poke()
		}
	}
}

func (i *instance) everybody(f func(*interest)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, w := range i.dirs {
		w.each(f)
	}
}

// check finds the directories whose watch has ended by itself: they were removed or unmounted.
func (i *instance) check() {
	list := i.b.WatchList()
	slices.Sort(list)
	i.mu.Lock()
	defer i.mu.Unlock()
	for dir := range i.dirs {
		if _, ok := slices.BinarySearch(list, dir); !ok {
			i.dropLocked(dir)
		}
	}
}
