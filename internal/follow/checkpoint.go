package follow

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrCheckpointInUse is what Run returns while another Run, in this process or in another one, uses the same checkpoint.
var ErrCheckpointInUse = errors.New("another follower uses it")

const (
	checkpointEvery   = time.Second
	maxCheckpoint     = 16 << 20 // bytes; what is larger is something else
	checkpointEntries = 256      // of the history
	checkpointMarks   = 128
)

// A checkpointer writes what a Run hands to it, in a goroutine of its own: an fsync may take its time.
type checkpointer struct {
	f      *Follower
	latest chan []byte // at most one; a newer one takes its place
	done   chan struct{}
	failed atomic.Bool // the last write

	// Owned by Run.
	handed []byte     // what was handed over last
	taken  time.Time  // when the state was last looked at
	seen   checkpoint // what it looked like
	dirty  bool       // something was delivered since
}

// A checkpoint is what shows cheaply that the state has changed though nothing was delivered.
type checkpoint struct {
	chain, marks int
	live         *generation
	size         int64
	mtime        time.Time
}

// runFromCheckpoint is Run with a checkpoint. The first Run goes on where the file says; later ones know by themselves.
func (r *run) runFromCheckpoint() error {
	name := r.cfg.Checkpoint
	unlock, err := lockFile(name + ".lock")
	if errors.Is(err, errLocked) {
		return fmt.Errorf("checkpoint %s: %w", name, ErrCheckpointInUse)
	}
	if err == nil { // where there are no locks, or none can be made, it goes without
		defer unlock()
	}
	if !r.started {
		r.load()
	}
	c := &checkpointer{f: r.Follower, latest: make(chan []byte, 1), done: make(chan struct{})}
	go c.write()
	finish := func() { close(c.latest); <-c.done }
	defer func() { finish() }() // also when emit panics
	r.ckpt = c
	err = r.loop()
	if r.started {
		c.hand(r.snapshot().encode(r.absPath()))
	}
	return err
}

// load takes over the state that an earlier process has left. A file that is of no use is kept aside, and reported.
func (r *run) load() {
	name := r.cfg.Checkpoint
	s, err := readCheckpoint(name, r.absPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		aside := name + ".bad"
		if err2 := os.Rename(name, aside); err2 == nil {
			err = fmt.Errorf("%w; it is kept as %s", err, aside)
		}
		r.checkpointTrouble(EventCheckpoint, fmt.Errorf("checkpoint %s: %w", name, err))
	default:
		r.restore(s)
		r.restored = true
	}
}

func readCheckpoint(name, path string) (*saved, error) {
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && regular(info) != nil {
		return nil, regular(info)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
	if err != nil {
		return nil, err
	}
	return decodeCheckpoint(data, path)
}

// absPath is what the checkpoint calls the file that it is of.
func (f *Follower) absPath() string {
	if abs, err := filepath.Abs(f.cfg.Path); err == nil {
		return abs
	}
	return f.cfg.Path
}

// isCheckpoint reports whether a name is that of the checkpoint or of what lies beside it, which a wide glob may match.
func (f *Follower) isCheckpoint(name string) bool {
	if f.cfg.Checkpoint == "" {
		return false
	}
	own, err := filepath.Abs(f.cfg.Checkpoint)
	name, err2 := filepath.Abs(name)
	if err != nil || err2 != nil {
		return false
	}
	for _, suffix := range []string{"", ".tmp", ".bad", ".lock"} {
		if name == own+suffix {
			return true
		}
	}
	return false
}

// checkpointTrouble reports what is wrong with the checkpoint, or that it is well again. It may be called by any goroutine.
func (f *Follower) checkpointTrouble(event string, err error) {
	f.stat.update(func(s *Stats) { s.CheckpointError = err })
	if f.cfg.Report != nil {
		f.cfg.Report(event, err)
	}
}

// checkpoint hands the state over if it is time. It must be called between two batches, when what was delivered is what the
// readers say.
func (r *run) checkpoint() {
	c := r.ckpt
	if c == nil || !r.started || time.Since(c.taken) < r.cfg.CheckpointEvery {
		return
	}
	now := checkpoint{chain: len(r.chain), marks: len(r.marks), live: r.live()}
	if now.live != nil {
		now.size, now.mtime = now.live.size, now.live.mtime
	}
	if !c.dirty && c.seen == now && !c.failed.Load() {
		return
	}
	c.taken, c.seen, c.dirty = time.Now(), now, false
	if data := r.snapshot().encode(r.absPath()); !bytes.Equal(data, c.handed) || c.failed.Load() {
		c.hand(data)
	}
}

// delivered notes that there is something new to write.
func (r *run) delivered() {
	if r.ckpt != nil {
		r.ckpt.dirty = true
	}
}

// untilCheckpoint is how long a Run may sleep if the checkpoint is not to be late.
func (r *run) untilCheckpoint() time.Duration {
	c := r.ckpt
	if c == nil || !c.dirty && !c.failed.Load() {
		return math.MaxInt64
	}
	return max(r.cfg.CheckpointEvery-time.Since(c.taken), 0)
}

// hand lets data be written next, instead of what still waits for it.
func (c *checkpointer) hand(data []byte) {
	c.handed = data
	if c.f.cfg.onCheckpoint != nil {
		c.f.cfg.onCheckpoint()
	}
	select {
	case <-c.latest:
	default:
	}
	c.latest <- data
}

// write writes until there is no more to come. Trouble is reported once, and every later write tries again.
func (c *checkpointer) write() {
	defer close(c.done)
	name := c.f.cfg.Checkpoint
	for data := range c.latest {
		err := writeDurably(name, data, c.f.cfg.fault)
		failed := err != nil
		if failed != c.failed.Swap(failed) {
			if failed {
				c.f.checkpointTrouble(EventCheckpoint, fmt.Errorf("checkpoint %s cannot be written: %w", name, err))
			} else {
				c.f.checkpointTrouble(EventCheckpointed, nil)
			}
		}
	}
}

// writeDurably replaces a file: whatever happens, its name means the old content or the new one, and the new one for good once
// it returns nil. fault, if there is one, is asked before each step, for tests.
func writeDurably(name string, data []byte, fault func(step string) error) (err error) {
	tmp := name + ".tmp"
	ask := func(step string) {
		if err == nil && fault != nil {
			err = fault(step)
		}
	}
	os.Remove(tmp) // left by a process that was killed
	if ask("create"); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if ask("write"); err == nil {
		_, err = f.Write(data)
	} else {
		f.Write(data[:len(data)/2])
	}
	if ask("sync"); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if ask("rename"); err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	if ask("syncdir"); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// syncDir makes a rename durable, on systems and file systems that know of it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil // a directory that may be written to but not listed
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
