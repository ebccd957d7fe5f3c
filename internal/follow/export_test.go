package follow

import (
	"bytes"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/fsnotify/fsnotify"
)

var (
	CutLine     = cutAtHole
	EpochOf     = epochOf
	RotatedName = rotatedName
	PositionIn  = positionIn
	Holds       = holds

	NewUnpacked = newUnpacked
)

func (u *unpacked) PlainSize() (int64, error) { return u.plainSize() }
func (u *unpacked) Damage() error             { return u.damage() }

const (
	HeadSize  = headSize
	CheckSize = checkSize
	HoleSize  = holeSize
)

// OnCheckpoint has f called in Run whenever the state is handed over to be written.
func (c *Config) OnCheckpoint(f func()) { c.onCheckpoint = f }

// Fault has f asked before each step of writing the checkpoint.
func (c *Config) Fault(f func(step string) error) { c.fault = f }

// Recode decodes a checkpoint and encodes it again.
func Recode(data []byte, path string) ([]byte, error) {
	s, err := decodeCheckpoint(data, path)
	if err != nil {
		return nil, err
	}
	return s.encode(path), nil
}

// Restore lets f go on where a checkpoint says.
func (f *Follower) Restore(data []byte, path string) error {
	s, err := decodeCheckpoint(data, path)
	if err == nil {
		f.restore(s)
	}
	return err
}

// Siblings lists the names of the rotated files, oldest first.
func (f *Follower) Siblings() []string {
	var names []string
	for _, s := range f.siblings() {
		names = append(names, s.name)
	}
	return names
}

// CountFiles counts the files that f has open from now on.
func (f *Follower) CountFiles() *atomic.Int64 {
	n := new(atomic.Int64)
	f.fs.fileSystem = countingFS{f.fs.fileSystem, n}
	return n
}

type countingFS struct {
	fileSystem
	n *atomic.Int64
}

type countedFile struct {
	file
	n      *atomic.Int64
	closed atomic.Bool
}

func (c countingFS) Open(name string) (file, error) {
	f, err := c.fileSystem.Open(name)
	if err != nil {
		return nil, err
	}
	c.n.Add(1)
	return &countedFile{file: f, n: c.n}, nil
}

func (c *countedFile) Seek(offset int64, whence int) (int64, error) {
	return c.file.(io.Seeker).Seek(offset, whence)
}

func (c *countedFile) Close() error {
	if c.closed.Swap(true) {
		return os.ErrClosed
	}
	c.n.Add(-1)
	return c.file.Close()
}

// OnRead calls hook after each read of a file, which it can fail.
func (f *Follower) OnRead(hook func(offset int64, n int) error) {
	f.fs.fileSystem = hookedFS{f.fs.fileSystem, hook}
}

type hookedFS struct {
	fileSystem
	hook func(int64, int) error
}

type hookedFile struct {
	file
	hook func(int64, int) error
}

func (h hookedFS) Open(name string) (file, error) {
	f, err := h.fileSystem.Open(name)
	if err != nil {
		return nil, err
	}
	return hookedFile{f, h.hook}, nil
}

func (h hookedFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := h.file.ReadAt(p, offset)
	if herr := h.hook(offset, n); herr != nil {
		return 0, herr
	}
	return n, err
}

// A Backend stands in for fsnotify.
type Backend struct {
	Events chan fsnotify.Event
	Errors chan error
	Watch  func(dir string) error // called by Add
	mu     sync.Mutex
	list   map[string]bool
}

func (b *Backend) Add(dir string) error {
	if b.Watch != nil {
		if err := b.Watch(dir); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list[dir] = true
	return nil
}

func (b *Backend) Remove(dir string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.list, dir)
	return nil
}

func (b *Backend) WatchList() (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for dir := range b.list {
		list = append(list, dir)
	}
	return list
}

func (b *Backend) Close() error { close(b.Events); close(b.Errors); return nil }

func (b *Backend) channels() (<-chan fsnotify.Event, <-chan error) { return b.Events, b.Errors }

// A Notifier is shared by the Followers that are told to use it.
type Notifier struct{ n *notifier }

// NewNotifier makes one whose backends come from open.
func NewNotifier(open func() (*Backend, error)) *Notifier {
	return &Notifier{&notifier{open: func() (backend, error) {
		b, err := open()
		if err != nil {
			return nil, err
		}
		b.Events, b.Errors, b.list = make(chan fsnotify.Event), make(chan error), make(map[string]bool)
		return b, nil
	}}}
}

// Use lets f use n in the place of the process's own.
func (n *Notifier) Use(f *Follower) { f.notify = n.n }

// Users is how many use the process's own, and whether there is anything left of it.
func Users() (int, bool) {
	shared.ops.Lock()
	defer shared.ops.Unlock()
	return shared.users, shared.cur != nil
}

// Watching is what the backend's directories are.
func (n *Notifier) Watching() int {
	n.n.ops.Lock()
	defer n.n.ops.Unlock()
	if n.n.cur == nil {
		return 0
	}
	return len(n.n.cur.dirs)
}

// ListAnew has the group read directories even where their times have not changed: virtual time is no measure of them.
func (g *Group) ListAnew() { g.lister.fresh = true }

// RotatedFrom is the reverse of RotatedName.
var RotatedFrom = rotatedFrom

// An Interceptor stands between a Follower and its files.
type Interceptor struct {
	fileSystem
	hook func(op, name string) error

	mu   sync.Mutex
	open map[*interceptedFile]os.FileInfo
}

// ShortRead, as the hook's error of a read, lets it read no more than so many bytes.
type ShortRead int

func (ShortRead) Error() string { return "short read" }

// Intercept has hook called before every call to the file system, from now on. The error that it returns becomes the call's.
func (f *Follower) Intercept(hook func(op, name string) error) *Interceptor {
	i := &Interceptor{fileSystem: f.fs.fileSystem, hook: hook, open: make(map[*interceptedFile]os.FileInfo)}
	f.fs.fileSystem = i
	return i
}

// HasOpen reports whether the Follower has the file open that name names.
func (i *Interceptor) HasOpen(name string) bool {
	info, err := i.fileSystem.Stat(name)
	if err != nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, other := range i.open {
		if i.Same(info, other) {
			return true
		}
	}
	return false
}

func (i *Interceptor) Open(name string) (file, error) {
	if err := i.hook("open", name); err != nil {
		return nil, err
	}
	f, err := i.fileSystem.Open(name)
	if err != nil {
		return nil, err
	}
	info, _ := f.Stat()
	g := &interceptedFile{file: f, name: name, i: i}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.open[g] = info
	return g, nil
}

func (i *Interceptor) Stat(name string) (os.FileInfo, error) {
	if err := i.hook("stat", name); err != nil {
		return nil, err
	}
	return i.fileSystem.Stat(name)
}

func (i *Interceptor) ReadDir(name string) ([]string, error) {
	if err := i.hook("readdir", name); err != nil {
		return nil, err
	}
	return i.fileSystem.ReadDir(name)
}

func (i *Interceptor) Glob(pattern string) ([]string, error) {
	if err := i.hook("glob", pattern); err != nil {
		return nil, err
	}
	return i.fileSystem.Glob(pattern)
}

func (i *Interceptor) Resolve(name string) (string, error) {
	if err := i.hook("resolve", name); err != nil {
		return "", err
	}
	return i.fileSystem.Resolve(name)
}

type interceptedFile struct {
	file
	name string
	i    *Interceptor
}

func (f *interceptedFile) Stat() (os.FileInfo, error) {
	if err := f.i.hook("fstat", f.name); err != nil {
		return nil, err
	}
	return f.file.Stat()
}

func (f *interceptedFile) ReadAt(b []byte, at int64) (int, error) {
	err := f.i.hook("read", f.name)
	if n, ok := err.(ShortRead); ok && int(n) < len(b) {
		n, err := f.file.ReadAt(b[:n], at)
		if err == nil {
			err = io.EOF
		}
		return n, err
	} else if err != nil && !ok {
		return 0, err
	}
	return f.file.ReadAt(b, at)
}

func (f *interceptedFile) Close() error {
	f.i.mu.Lock()
	defer f.i.mu.Unlock()
	delete(f.i.open, f)
	return f.file.Close()
}

// ReadAll cuts data into lines, from an offset on, as a file that grows in steps.
func ReadAll(data []byte, offset int64, step, maxLine int) (all []Line) {
	r := reader{file: bytes.NewReader(data), maxLine: maxLine}
	if offset > 0 {
		r.seek(offset)
	}
	batch := make([]Line, 0, 3)
	deliver := func(lines []Line, _ int) error {
		for _, l := range lines {
			l.Data = bytes.Clone(l.Data)
			all = append(all, l)
		}
		return nil
	}
	for limit := offset; limit < int64(len(data)); {
		limit = min(limit+int64(step), int64(len(data)))
		r.pump(limit, ending{}, batch, deliver)
	}
	r.hand(r.end(), ending{final: true}, batch, deliver)
	if gap := r.ended(); gap != nil {
		all = append(all, Line{Gap: gap})
	}
	return all
}
