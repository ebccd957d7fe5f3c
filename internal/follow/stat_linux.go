package follow

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A linuxInfo is a file as statx(2) tells of it: with the time of its birth, by which a new file with the number of a removed
// one is known.
type linuxInfo struct {
	name  string
	size  int64
	mode  os.FileMode
	mtime time.Time
	key   fileKey
	born  unix.StatxTimestamp // zero where the file system has none
}

func (i *linuxInfo) Name() string       { return i.name }
func (i *linuxInfo) Size() int64        { return i.size }
func (i *linuxInfo) Mode() os.FileMode  { return i.mode }
func (i *linuxInfo) ModTime() time.Time { return i.mtime }
func (i *linuxInfo) IsDir() bool        { return i.mode.IsDir() }
func (i *linuxInfo) Sys() any           { return nil }

func statFile(name string) (os.FileInfo, error) {
	info, err := statx(unix.AT_FDCWD, name, 0)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EPERM) { // an old kernel, or a filter that does not know it
		return os.Stat(name)
	}
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return info, nil
}

func statOpen(f *os.File) (info os.FileInfo, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if err2 := conn.Control(func(fd uintptr) { info, err = statx(int(fd), "", unix.AT_EMPTY_PATH) }); err2 != nil {
		return nil, err2
	}
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EPERM) {
		return f.Stat()
	}
	if err != nil {
		return nil, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return info, nil
}

func statx(dir int, name string, flags int) (os.FileInfo, error) {
	var st unix.Statx_t
	for {
		err := unix.Statx(dir, name, flags|unix.AT_STATX_SYNC_AS_STAT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		break
	}
	i := &linuxInfo{
		name: name, size: int64(st.Size), mode: os.FileMode(st.Mode & 0o777), mtime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)),
		key: fileKey{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino},
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		i.born = st.Btime
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		i.mode |= os.ModeDir
	default:
		i.mode |= os.ModeIrregular
	}
	return i, nil
}

func sameFile(a, b os.FileInfo) bool {
	i, ok := a.(*linuxInfo)
	j, ok2 := b.(*linuxInfo)
	if !ok || !ok2 {
		return os.SameFile(a, b)
	}
	return i.key == j.key && (i.born == j.born || i.born == unix.StatxTimestamp{} || j.born == unix.StatxTimestamp{})
}

// birthOf is when a file was born; zero where nobody knows.
func birthOf(info os.FileInfo) time.Time {
	if i, ok := info.(*linuxInfo); ok && i.born != (unix.StatxTimestamp{}) {
		return time.Unix(i.born.Sec, int64(i.born.Nsec))
	}
	return time.Time{}
}

func systemKey(info os.FileInfo) fileKey {
	if i, ok := info.(*linuxInfo); ok {
		return i.key
	}
	return statKey(info)
}
