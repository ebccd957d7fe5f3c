package follow

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// A wary file system counts the errors that say nothing about which files there are: all but that of absence. What was not found
// while it has counted one may be there.
type wary struct {
	fileSystem
	faults atomic.Int64
	last   atomic.Value // the last one, an error in a box
}

type box struct{ error }

func (w *wary) note(err error) error {
	if err != nil && err != io.EOF && !errors.Is(err, os.ErrNotExist) {
		w.last.Store(box{err})
		w.faults.Add(1)
	}
	return err
}

func (w *wary) Open(name string) (file, error) {
	f, err := w.fileSystem.Open(name)
	if err != nil {
		return nil, w.note(err)
	}
	return &waryFile{f, w}, nil
}

func (w *wary) Stat(name string) (os.FileInfo, error) {
	info, err := w.fileSystem.Stat(name)
	return info, w.note(err)
}

func (w *wary) ReadDir(name string) ([]string, error) {
	names, err := w.fileSystem.ReadDir(name)
	return names, w.note(err)
}

func (w *wary) Glob(pattern string) ([]string, error) {
	names, err := w.fileSystem.Glob(pattern)
	return names, w.note(err)
}

func (w *wary) Resolve(name string) (string, error) {
	target, err := w.fileSystem.Resolve(name)
	return target, w.note(err)
}

type waryFile struct {
	file
	w *wary
}

func (f *waryFile) ReadAt(b []byte, at int64) (int, error) {
	n, err := f.file.ReadAt(b, at)
	return n, f.w.note(err)
}

// Seek is for what else a file may tell of itself, such as its holes.
func (f *waryFile) Seek(offset int64, whence int) (int64, error) {
	if s, ok := f.file.(io.Seeker); ok {
		return s.Seek(offset, whence)
	}
	return 0, errors.ErrUnsupported
}

func (f *waryFile) Stat() (os.FileInfo, error) {
	info, err := f.file.Stat()
	return info, f.w.note(err)
}

// unsure reports whether something could not be asked since the faults were counted, so that what was not found may be there. It
// is true for no longer than Grace: a directory that nobody may list must not keep its log from being read.
func (r *run) unsure(faults int64) bool {
	if r.fs.faults.Load() == faults {
		r.doubt = time.Time{}
		return false
	}
	if r.doubt.IsZero() {
		r.doubt = time.Now()
	}
	r.fail(r.fs.last.Load().(box).error)
	return time.Since(r.doubt) < r.cfg.Grace
}
