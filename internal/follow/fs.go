package follow

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// fileSystem is all that a Follower knows of files: a seam for tests that replay rotations from memory.
type fileSystem interface {
	Open(name string) (file, error) // must let others rename and remove the file, and not wait for a pipe's other end
	Stat(name string) (os.FileInfo, error)
	ReadDir(dir string) ([]string, error)
	Glob(pattern string) ([]string, error)
	Resolve(name string) (string, error) // the name behind symbolic links
	Same(a, b os.FileInfo) bool
}

type file interface {
	io.ReaderAt
	io.Closer
	Stat() (os.FileInfo, error)
}

// osFS is the real one.
type osFS struct{}

func (osFS) Open(name string) (file, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

func (f osFile) Stat() (os.FileInfo, error) { return statOpen(f.File) }

func (osFS) Stat(name string) (os.FileInfo, error) { return statFile(name) }

func (osFS) ReadDir(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (osFS) Glob(pattern string) ([]string, error) { return filepath.Glob(pattern) }
func (osFS) Resolve(name string) (string, error)   { return filepath.EvalSymlinks(name) }
func (osFS) Same(a, b os.FileInfo) bool            { return sameFile(a, b) }

var (
	errDirectory = errors.New("is a directory")
	errIrregular = errors.New("is not a regular file")
)

// regular says why a path can't be followed though it exists.
func regular(info os.FileInfo) error {
	switch {
	case info.IsDir():
		return errDirectory
	case !info.Mode().IsRegular():
		return errIrregular
	}
	return nil
}

// A handle is an open file that the live stream and any number of replays read at once. It closes with its last user.
type handle struct {
	file
	info os.FileInfo // as it was when opened: an identity

	mu   sync.Mutex
	refs int // 0 once closed
}

func openHandle(fsys fileSystem, name string) (*handle, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = regular(info)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &handle{file: f, info: info, refs: 1}, nil
}

// retain adds a user, unless the file is closed already.
func (h *handle) retain() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refs == 0 {
		return false
	}
	h.refs++
	return true
}

func (h *handle) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refs--; h.refs == 0 {
		h.file.Close()
	}
}

func (h *handle) size() (int64, error) {
	if p, ok := h.file.(packedFile); ok {
		return p.plainSize()
	}
	info, err := h.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
