package follow

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// A lister shares the listings of directories between the Followers of a Group: each of them looks for its siblings, and
// with thousands of files in a directory each would read all the others' names.
type lister struct {
	fs    fileSystem
	fresh bool // always read: the times tell nothing

	mu   sync.Mutex
	dirs map[string]*listing
}

type listing struct {
	mu     sync.Mutex
	names  []string // sorted; nobody changes them
	mtime  time.Time
	steady bool // a later change would have changed mtime
}

// names lists a directory, sorted. The caller must not change it.
func (l *lister) names(dir string) ([]string, error) {
	l.mu.Lock()
	d := l.dirs[dir]
	if d == nil {
		d = &listing{}
		l.dirs[dir] = d
	}
	l.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := l.fs.Stat(dir)
	if err != nil {
		return nil, err
	}
	if d.steady && d.mtime.Equal(info.ModTime()) {
		return d.names, nil
	}
	d.mtime = info.ModTime()
	age := time.Since(d.mtime)
	d.steady = !l.fresh && age > tick(d.mtime) && !remote(dir)
	names, err := l.fs.ReadDir(dir)
	if err != nil {
		d.steady = false
		return nil, err
	}
	slices.Sort(names)
	d.names = names
	return names, nil
}

// tick is a time in which two changes may get the same time.
func tick(t time.Time) time.Duration {
	if t.Nanosecond() == 0 {
		return 2 * time.Second
	}
	return 50 * time.Millisecond
}

// beginning lists the names that begin with a stem.
func (l *lister) beginning(dir, stem string) ([]string, error) {
	names, err := l.names(dir)
	from, _ := slices.BinarySearch(names, stem)
	to := from
	for to < len(names) && strings.HasPrefix(names[to], stem) {
		to++
	}
	return names[from:to], err
}

// neighbours lists a directory, or that part of it where siblings may be.
func (f *Follower) neighbours(dir, base string) []string {
	if f.lister != nil {
		names, err := f.lister.beginning(dir, stemOf(base))
		f.fs.note(err)
		return names
	}
	names, _ := f.fs.ReadDir(dir)
	return names
}

// retain forgets all directories but these.
func (l *lister) retain(dirs map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for dir := range l.dirs {
		if !dirs[dir] {
			delete(l.dirs, dir)
		}
	}
}
