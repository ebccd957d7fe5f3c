package follow

import (
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	StatFile  = statFile
	SameFile  = sameFile
	SystemKey = systemKey
)

// Born is when a file was born, in a form that can be compared.
func Born(info os.FileInfo) any { return info.(*linuxInfo).born }

// Births are those of files with virtual times, since nobody can set a real one. Where they are not On, the file system has none.
type Births struct {
	On   bool
	mu   sync.Mutex
	born map[born]unix.StatxTimestamp
}

// A born is a file and its real birth: a file that nobody has noted is not taken for the one that had its number before.
type born struct {
	key fileKey
	at  unix.StatxTimestamp
}

// Note notes that a file was made just now, and when that was.
func (b *Births) Note(name string, at time.Time) error {
	info, err := statFile(name)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.born == nil {
		b.born = make(map[born]unix.StatxTimestamp)
	}
	if i, ok := info.(*linuxInfo); ok {
		b.born[born{i.key, i.born}] = unix.StatxTimestamp{Sec: at.Unix(), Nsec: uint32(at.Nanosecond())}
	}
	return nil
}

// of gives what is known of a file its virtual birth.
func (b *Births) of(info os.FileInfo, err error) (os.FileInfo, error) {
	i, ok := info.(*linuxInfo)
	if err != nil || !ok {
		return info, err
	}
	j := *i
	j.born = unix.StatxTimestamp{}
	if b.On && i.mode.IsRegular() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if j.born, ok = b.born[born{i.key, i.born}]; !ok {
			panic("nobody has noted the birth of " + i.name)
		}
	}
	return &j, nil
}

// Use lets f see virtual births.
func (b *Births) Use(f *Follower) { f.fs.fileSystem = birthFS{f.fs.fileSystem, b} }

type birthFS struct {
	fileSystem
	births *Births
}

type birthFile struct {
	file
	births *Births
}

func (b birthFS) Stat(name string) (os.FileInfo, error) { return b.births.of(b.fileSystem.Stat(name)) }

func (b birthFS) Open(name string) (file, error) {
	f, err := b.fileSystem.Open(name)
	if err != nil {
		return nil, err
	}
	return birthFile{f, b.births}, nil
}

func (f birthFile) Stat() (os.FileInfo, error) { return f.births.of(f.file.Stat()) }

func (f birthFile) Seek(offset int64, whence int) (int64, error) {
	return f.file.(io.Seeker).Seek(offset, whence)
}
