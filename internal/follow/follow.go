// Package follow follows a log file that grows, rotates and is truncated, without losing a line, and replays it from any
// position that it has given out.
//
// The unit is a generation: one file, from its first byte to its last. A rotation ends one generation and begins the next;
// so does a truncation. A generation is known by its content, so the file can be found again under another name, as a
// copy, or in another process.
//
// The files to read first: look.go (what a Follower does each time it looks), reader.go (bytes to lines), replay.go.
package follow

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// ErrUnknownPosition is what Replay returns for a position that can't be one of a file.
var ErrUnknownPosition = errors.New("unknown position")

// A Start says where the first Run begins in a file that is there already. A file that appears later, and every later
// generation, is read from its first byte.
type Start int

const (
	FromEnd   Start = 0  // after the last complete line
	FromStart Start = -1 // before the first line
)

// LastLines begins n complete lines before the end.
func LastLines(n int) Start { return Start(max(n, 0)) }

// A Config says what to follow. Only Path is needed.
type Config struct {
	Path string
	// Rotated is a glob of the names that Path gets when it is rotated. The default knows app.log.1, app.log-20260101,
	// app.log.old and app-20260101.log, and each of them with .gz.
	Rotated string
	Start   Start
	// After makes the first Run go on after a position that an earlier process has reached. It beats Start, except when it
	// is zero.
	After   Position
	MaxLine int // bytes; longer lines are cut. Default 1 MiB, at least 4
	// Poll is the interval of the looks that need no event. It bounds what a lost event costs, and how long a truncation
	// can stay unseen. Default 250 ms: a look at a quiet file is three system calls, some 10 µs. Where notifications tell
	// of changes a quiet file is looked at more and more rarely, down to every 16th Poll: then that is the bound.
	Poll time.Duration
	// Grace is how long a rotated file stays open after the last sign of life. Default 5 s.
	Grace    time.Duration
	NoNotify bool // poll only
	// Checkpoint is a file that keeps the state, so that the first Run of another process goes on where the last one has ended.
	// It beats Start and After, unless it is absent or of no use. It is written once in CheckpointEvery, while there is something
	// new, and at the end of each Run. Default 1 s.
	Checkpoint      string
	CheckpointEvery time.Duration
	// Open bounds the files that are open, together with other Followers'. Without it, or with Checkpoint, every file stays open.
	Open *OpenLimit
	// Begin is called in every Run, before the first emit, with the position after which the first line will come. Where that
	// is not known yet, because the file is absent or its first line is incomplete, it is called early with zero, and again
	// when it is known.
	Begin func(Position)
	// Report is called once for each trouble that begins. It must not block, and may be called by several goroutines.
	Report func(event string, err error)

	// For tests.
	onCheckpoint func()                  // the state was handed over to be written
	fault        func(step string) error // see writeDurably
}

// The events that are reported.
const (
	EventMissing    = "missing"    // the file, or its directory, is not there
	EventUnreadable = "unreadable" // it can't be opened or read
	EventIrregular  = "irregular"  // it is a directory, a pipe or a device
	EventUnwatched  = "unwatched"  // no notifications: polling only
	EventDamaged    = "damaged"    // a compressed file ends too early, or what it holds is wrong
	EventRecovered  = "recovered"  // what was reported is over

	EventCheckpoint   = "checkpoint"         // it is of no use, or can't be written
	EventCheckpointed = "checkpoint written" // it could be written again
)

func (c *Config) setDefaults() {
	if c.Checkpoint != "" {
		c.Open = nil // the state of a closed file is not in the checkpoint
	}
	c.MaxLine = max(cmpOr(c.MaxLine, 1<<20), utf8.UTFMax)
	c.Poll = cmpOr(c.Poll, 250*time.Millisecond)
	c.Grace = cmpOr(c.Grace, 5*time.Second)
	c.CheckpointEvery = cmpOr(c.CheckpointEvery, checkpointEvery)
}

// cmpOr is v, or the default where v is not positive.
func cmpOr[T int | time.Duration](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// A Follower follows one path. Run may not be called while another Run is active; everything else may be called at any time.
type Follower struct {
	cfg    Config
	fs     *wary
	notify *notifier
	hist   history
	stat   counters

	// Of a Group's file.
	lister *lister
	gone   time.Duration          // a Run ends when the file has been absent for so long; 0 = never
	began  atomic.Pointer[func()] // called after the first look of a Run

	damages damages
	times   packedTimes

	// Owned by Run, and kept from one Run to the next.
	chain    []*generation // oldest first; the last one is, or was, the live file
	marks    []mark
	copies   []packedCopy
	gap      *Gap        // to be declared before the next generation that is opened
	last     Position    // of the last line that was accepted
	declared bool        // a gap was, after that
	blank    time.Time   // of an empty file that has turned up among the siblings
	started  bool        // a Run has looked at the path: Start counts no more
	waits    bool        // the first look could not read what there was then:
	unread   os.FileInfo // the file
	past     []sibling   // and what was rotated before

	running sync.Mutex
	active  atomic.Bool // a Run is
}

// New prepares a Follower. It does no I/O and starts no goroutine.
func New(cfg Config) *Follower {
	cfg.setDefaults()
	return &Follower{
		cfg: cfg, fs: &wary{fileSystem: osFS{}}, notify: shared, hist: history{limit: maxSpans}, stat: counters{limit: cfg.Open},
	}
}

// live is the generation at the end of the chain, or nil.
func (f *Follower) live() *generation {
	if len(f.chain) == 0 {
		return nil
	}
	return f.chain[len(f.chain)-1]
}

func (f *Follower) chainIndex(id identity) int {
	return slices.IndexFunc(f.chain, func(g *generation) bool { return g.h != nil && f.same(g.id(), id) })
}

// Run follows the file until ctx is done, and returns context.Cause(ctx); or until emit returns an error, and returns that.
// It never returns nil, and never because of what happens to the file.
//
// Each batch of lines counts as delivered when emit returns nil, and not at all when it returns an error. The next Run goes
// on after the last delivered line, whatever has been rotated in between. Plainly: return an error from emit and call Run
// again, and nothing is lost or repeated. With a Checkpoint that holds for the Run of another process too; if the process was
// killed, what was delivered since the checkpoint was last written is repeated. ErrCheckpointInUse means that nothing was
// begun.
func (f *Follower) Run(ctx context.Context, emit func(lines []Line) error) error {
	if !f.running.TryLock() {
		panic("follow: Run is called while another Run of the same Follower is active")
	}
	defer f.running.Unlock()
	f.active.Store(true)
	defer f.active.Store(false)
	r := &run{Follower: f, ctx: ctx, emit: emit}
	if f.cfg.Checkpoint != "" {
		return r.runFromCheckpoint()
	}
	return r.loop()
}
