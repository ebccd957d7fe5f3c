package tailcast

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// A Start says where a Tail begins in a file that exists when it is first run. A file that appears later is read from its
// beginning, and so is every file that comes by rotation. It says what is published: what a viewer can see of the time before,
// with tail=N or since=earliest, does not depend on it.
type Start int

const (
	// FromEnd begins with the next line that is completed.
	FromEnd Start = 0
	// FromStart begins with the first line.
	FromStart Start = -1
)

// LastLines begins with the last n lines. It panics if n is negative.
func LastLines(n int) Start {
	must(n >= 0, "LastLines(%d): must not be negative", n)
	return Start(follow.LastLines(n))
}

// A Tail is a Source that follows a file, or all files that match a glob, through rotation by renaming, by copying and truncating, and by deletion, as
// tail -F does, without losing a line; and a Replayer, which reads what its viewers have missed from the file and from its
// rotated siblings.
//
// Fields must not be changed after the first Run. One Tail may be run in one hub at a time.
//
// What a Tail cannot read it declares with a Gap: bytes that were truncated before they were read and of which no copy is
// found, the rest of a .gz file that is damaged, and a hole, which is a run of 4096 NULs or more. It counts on the file being
// appended to only. A file on a network file system, or in a directory that cannot be watched, is polled.
//
// With a glob, each file is a topic of its own, and has its own positions. New files are found as they come, and read from
// their beginning. Names that begin with a dot, compressed files, and what looks like a rotated sibling of another matching file
// (app.log.1 beside app.log) are not meant by a glob. A file that matches under two names, by a link, is followed once. One that
// has been absent for 12 times Grace ends with its last line; its topic stays, and goes on when it comes back. What keeps
// one file from being read, or published, does not stop the others. Since topics come and go, WithAuthorize has to say which of
// them are served: AllowAllTopics, for one.
type Tail struct {
	// Path is the file. It need not exist yet. A symbolic link is followed, also when it is changed. If it contains one of *?[
	// it is a glob, as for filepath.Match; to mean such a character itself write it as [*].
	Path string
	// Topic is where lines are published: "", the default topic, unless it is set. With a glob it is what the topics begin with,
	// and goes on with the file's base name; or, where the glob has several directories, with the path from the first of them
	// on: "/var/log/*.log" publishes to "app.log", "/srv/*/log/*.log" to "blog/log/app.log".
	Topic string
	// Start is where a file that exists at the first Run begins: at its end, by default. See also Checkpoint.
	Start Start
	// Checkpoint is a file that keeps the place up to which lines were published, so that a new process goes on there: through
	// any number of rotations, and with the late lines of old files, nothing is missing and nothing comes twice. It beats Start,
	// which counts only where there is no checkpoint yet. Published means that Publish returned nil; what viewers have got is
	// theirs to know.
	//
	// It is written, atomically, once in a second in which lines came, and when Run ends. So what a process that is killed had
	// published after it was written last, in about a second, is published again by the next one. Its directory must be there.
	// Where the checkpoint cannot be written, that is logged once and shown in TailStats, and tried again every second.
	//
	// If the place is in no file any more there is a Gap, and then all that has come since. A checkpoint of no use, because it is
	// damaged, of another Path or of a newer version, is logged and shown in TailStats, and renamed to Checkpoint + ".bad"; then
	// Start counts. To begin anew, remove the file while nothing runs.
	//
	// Each Tail needs one of its own. While another one uses it, in this process or in another, Run returns an error, and
	// Hub.Run tries again: so a new process can be started before the old one has ended. (The file that shows this, Checkpoint +
	// ".lock", may stay behind when a process is killed, and means nothing then.)
	//
	// It has the beginnings and the last bytes of some files in it, and only its owner can read it.
	Checkpoint string
	// Rotated is a glob of the names that rotation gives to Path. By default the usual ones are known: app.log.1,
	// app.log-20260101, app-20260101.log, and each of them with .gz. Files that end in .gz are unpacked as they are read. It
	// can't be set with a glob.
	Rotated string
	// MaxLine is the longest line in bytes, 1 MiB by default. A longer one is cut between two characters into messages that
	// are Partial but for the last.
	MaxLine int
	// Poll is how often the file is looked at without being told by the system that it has changed, 250 ms by default. It bounds
	// how late a line may come of which no notification tells. While notifications come, and the file has been quiet for a
	// while, it is looked at more and more rarely, down to every 16th Poll, which is the bound then: 4 s.
	Poll time.Duration
	// PollOnly does without the system's notifications.
	PollOnly bool
	// Grace is how long a file that has been rotated away is still read, for writers that have it open: 5 s by default after
	// the last line that came.
	Grace time.Duration
	// MaxOpen is how many files of a glob may be open, 1024 by default. Beyond it those that have been idle for longest are closed,
	// and opened again when they change. What is removed meanwhile is declared by a Gap, since nobody can know that it had no
	// more lines. Files that are being read are not closed, so more can be open. Where the system's notifications need each file
	// open (macOS, BSD), they are not counted.
	MaxOpen int

	once     sync.Once
	follower *follow.Follower // of one file
	group    *follow.Group    // of a glob
	err      error            // why neither is there

	mu   sync.Mutex // guards the rest: what belongs to the Run that goes on
	pub  Publisher
	stop context.CancelCauseFunc
}

var (
	_ Source        = (*Tail)(nil)
	_ Replayer      = (*Tail)(nil)
	_ batchReplayer = (*Tail)(nil)
	_ lastReplayer  = (*Tail)(nil)
)

// NewTail returns a Tail of path that publishes to the default topic, and begins with the next line. Where the file's end is
// when Run comes to look at it decides which one that is: for a file that is being written already, LastLines is safer.
func NewTail(path string) *Tail { return &Tail{Path: path} }

// TailStats are a Tail's numbers, as SourceStats.Detail.
type TailStats struct {
	Path        string
	Lines       int64 // published
	Bytes       int64 // published, line ends included
	Rotations   int64
	Truncations int64
	Gaps        int64  // declared
	Open        int    // files that are open now
	Notified    bool   // the system tells of changes; else the file is polled only
	Trouble     string // what keeps it from reading, if anything
	Checkpoint  string // what was or is wrong with the checkpoint, if anything
	Unwatched   int64  // times that the system refused to tell of changes: a limit
	Overflows   int64  // times that it may have left some out
	Untold      int64  // times that a change came of which it did not tell

	// Of a glob, all else is the sum of its files.
	Topic  string      // of a file
	Files  int         // that are followed
	Closed int         // of these, for MaxOpen
	Each   []TailStats // at most 100 of them, those in trouble first
}

// maxEach bounds TailStats.Each.
const maxEach = 100

func (t *Tail) stats() any {
	t.init()
	switch {
	case t.err != nil:
		return TailStats{Path: t.Path, Trouble: t.err.Error()}
	case t.group == nil:
		out := tailStats(t.Path, t.follower.Stats())
		out.Topic, out.Files = t.Topic, 1
		return out
	}
	s := t.group.Stats(maxEach)
	out := tailStats(t.Path, s.Stats)
	out.Files, out.Closed = s.Files, s.Closed
	for _, f := range s.Some {
		one := tailStats(f.Path, f.Stats)
		one.Topic, one.Files = t.Topic+f.Name, 1
		out.Each = append(out.Each, one)
	}
	return out
}

func tailStats(path string, s follow.Stats) TailStats {
	out := TailStats{
		Path: path, Lines: s.Lines, Bytes: s.Bytes, Rotations: s.Rotations, Truncations: s.Truncations,
		Gaps: s.Gaps, Open: s.Open, Notified: s.Notified, Trouble: s.Trouble,
		Unwatched: s.Unwatched, Overflows: s.Overflows, Untold: s.Untold,
	}
	if s.Trouble != "" && s.LastError != nil {
		out.Trouble += ": " + s.LastError.Error()
	}
	if s.CheckpointError != nil {
		out.Checkpoint = s.CheckpointError.Error()
	}
	return out
}

func (t *Tail) init() {
	t.once.Do(func() {
		cfg := follow.Config{
			Path: t.Path, Rotated: t.Rotated, Start: follow.Start(t.Start), MaxLine: t.MaxLine,
			Poll: t.Poll, NoNotify: t.PollOnly, Grace: t.Grace, Checkpoint: t.Checkpoint,
		}
		if follow.IsGlob(t.Path) {
			t.initGroup(cfg)
			return
		}
		cfg.Begin = func(p follow.Position) {
			if pub, stop := t.publisher(); pub != nil {
				if err := pub.begin(t.Topic, t, Position(p)); err != nil {
					stop(Permanent(err))
				}
			}
		}
		cfg.Report = func(event string, err error) { t.report(t.Path, event, err) }
		t.follower = follow.New(cfg)
	})
}

func (t *Tail) initGroup(cfg follow.Config) {
	if t.Rotated != "" || t.Checkpoint != "" {
		t.err = errors.New("Rotated and Checkpoint can't be set where Path is a glob")
		return
	}
	t.group, t.err = follow.NewGroup(follow.GroupConfig{
		Pattern: t.Path, File: cfg, MaxOpen: t.MaxOpen, Report: t.report,
		Begin: func(name string, p follow.Position) {
			if pub, _ := t.publisher(); pub != nil {
				_ = pub.begin(t.Topic+name, t, Position(p)) // Publish says so again
			}
		},
		Forget: func(name string) {
			if pub, _ := t.publisher(); pub != nil {
				pub.leave(t.Topic + name)
			}
		},
	})
}

func (t *Tail) report(path, event string, err error) {
	if pub, _ := t.publisher(); pub != nil {
		pub.hub.logTail(path, event, err)
	}
}

// publisher is what the Run that goes on was given, if it is the hub's own: then the hub learns early that it can replay,
// and where the stream begins.
func (t *Tail) publisher() (*publisher, context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pub, _ := t.pub.(*publisher)
	return pub, t.stop
}

// Run is Source.Run. What happens to the file never ends it.
func (t *Tail) Run(ctx context.Context, pub Publisher) error {
	if t.Path == "" {
		return Permanent(errors.New("tailcast: tail: Path is empty"))
	}
	if t.Checkpoint != "" && filepath.Clean(t.Checkpoint) == filepath.Clean(t.Path) {
		return Permanent(fmt.Errorf("tailcast: tail %s: Checkpoint is the same file", t.Path))
	}
	t.init()
	if t.err != nil {
		return Permanent(fmt.Errorf("tailcast: tail %s: %w", t.Path, t.err))
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	t.mu.Lock()
	t.pub, t.stop = pub, stop
	t.mu.Unlock()
	publish := func(topic string, lines []follow.Line) error {
		space := spaces.Get().(*[]Message)
		defer spaces.Put(space)
		*space = messages(*space, topic, lines)
		defer clear(*space)
		return pub.Publish(ctx, *space...)
	}
	var err error
	if t.group != nil {
		err = t.group.Run(ctx, func(name string, lines []follow.Line) error { return publish(t.Topic+name, lines) })
	} else {
		err = t.follower.Run(ctx, func(lines []follow.Line) error { return publish(t.Topic, lines) })
	}
	return fmt.Errorf("tailcast: tail %s: %w", t.Path, err)
}

// spaces are for messages that are being published: a quiet file has none.
var spaces = sync.Pool{New: func() any { return new([]Message) }}

// messages makes messages of lines in dst's space.
func messages(dst []Message, topic string, lines []follow.Line) []Message {
	dst = slices.Grow(dst[:0], len(lines))[:len(lines)]
	for i := range lines {
		l, m := &lines[i], &dst[i]
		// Field by field: a Message that is built first and copied then takes three times as long.
		m.Topic, m.Data, m.Binary, m.Partial = topic, l.Data, false, l.Partial
		m.Time, m.Pos, m.Gap = time.Time{}, Position(l.Pos), nil
		if l.Gap != nil {
			m.Gap = &Gap{
				From: Position(l.Gap.From), To: Position(l.Gap.To), Count: l.Gap.Count, Bytes: l.Gap.Bytes,
				Possible: l.Gap.Possible, Reason: l.Gap.Reason,
			}
		}
	}
	return dst
}

// Replay is Replayer.Replay. Messages that it yields have no Time, and their Data is valid only until the next one.
func (t *Tail) Replay(ctx context.Context, topic string, after Position) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		stopped := errors.New("the consumer has stopped")
		err := t.replayBatches(ctx, topic, after, func(msgs []Message) error {
			for _, m := range msgs {
				if !yield(m, nil) {
					return stopped
				}
			}
			return nil
		})
		if !errors.Is(err, stopped) {
			yield(Message{}, err)
		}
	}
}

// lastBefore is lastReplayer's.
func (t *Tail) lastBefore(ctx context.Context, topic string, before Position, n, have int) (Position, bool) {
	t.init()
	name, ok := strings.CutPrefix(topic, t.Topic)
	if t.err != nil || !ok || t.group == nil && name != "" {
		return before, false
	}
	back := t.follower.Back
	if t.group != nil {
		back = func(ctx context.Context, from follow.Position, n, have int) (follow.Position, int) {
			return t.group.Back(ctx, name, from, n, have)
		}
	}
	at, found := back(ctx, follow.Position(before), n, have)
	if at == (follow.Position{}) {
		return Earliest(), found > 0
	}
	return Position(at), found > 0
}

func (t *Tail) replayBatches(ctx context.Context, topic string, after Position, f func([]Message) error) error {
	t.init()
	name, ok := strings.CutPrefix(topic, t.Topic)
	if t.err != nil || !ok || t.group == nil && name != "" {
		return fmt.Errorf("tailcast: tail %s: topic %q is not its own: %w", t.Path, topic, ErrUnknownPosition)
	}
	if after == Earliest() {
		after = Position{}
	}
	var msgs []Message
	emit := func(lines []follow.Line) error {
		msgs = messages(msgs, topic, lines)
		return f(msgs)
	}
	var err error
	if t.group != nil {
		err = t.group.Replay(ctx, name, follow.Position(after), emit)
	} else {
		err = t.follower.Replay(ctx, follow.Position(after), emit)
	}
	if errors.Is(err, follow.ErrUnknownPosition) {
		err = ErrUnknownPosition
	}
	return err
}
