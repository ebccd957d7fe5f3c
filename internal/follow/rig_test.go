package follow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

const (
	poll  = 250 * time.Millisecond
	grace = 5 * time.Second
)

var errConsumer = errors.New("the consumer's error")

// A rig is a directory, its writers, and a Follower of one file in it, in a bubble of virtual time: between two waits the
// Follower does not look. The files' times are virtual too.
type rig struct {
	t    testing.TB
	dir  string
	cfg  follow.Config
	f    *follow.Follower
	open *atomic.Int64 // files that f has open

	tick    time.Duration
	coarse  bool // the file system's clock counts whole seconds
	births  follow.Births
	writers map[string]*writer
	hook    func(op, name string) error // called before every call of f's to the file system, if set
	between *follow.Interceptor
	report  func(event string, err error)

	mu       sync.Mutex // virtual time orders it all, but the race detector does not see that
	failNext bool       // the next emit returns an error, and the Run is over
	flaky    bool       // every other emit does, and the next Run begins at once
	emits    int
	events   bool // reports are part of the output
	items    []item
	out      []string // what the items look like in a script
	begins   []begin
	placed   bool // Begin was called with a position in this Run
	saved    int  // items that the checkpoint knows of
	emitted  []time.Time
	repeated []item // what a killed process had delivered since
	cancel   context.CancelFunc
	done     chan error
}

// An item is a Line that outlives its emit.
type item struct {
	data    string
	pos     follow.Position
	partial bool
	gap     *follow.Gap
}

// A begin is what Begin was called with, and how many items there were.
type begin struct {
	pos follow.Position
	at  int
}

// A writer keeps its descriptor, whatever becomes of the name.
type writer struct {
	f    *os.File
	name string // "" once removed
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, dir: t.TempDir(), writers: make(map[string]*writer)}
	r.cfg = follow.Config{Path: r.path("app.log"), Poll: poll, Grace: grace, NoNotify: true}
	time.Sleep(time.Until(realNow)) // what the test does not set is in real time
	return r
}

var realNow = time.Now()

// withBirths lets the nth rig of a kind have births, as on Linux, where n is even.
func (r *rig) withBirths(n int) {
	r.births.On = n%2 == 0
	if v := os.Getenv("FOLLOW_BIRTHS"); v != "" {
		r.births.On = v != "0"
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, filepath.FromSlash(name)) }

// touched gives the file the bubble's time, and no two the same.
func (r *rig) touched(name string) {
	if name == "" {
		return
	}
	now := r.now()
	r.tick += time.Microsecond
	r.must(os.Chtimes(r.path(name), time.Time{}, now))
}

// now is the next time by the file system's clock.
func (r *rig) now() time.Time {
	now := time.Now().Add(r.tick + time.Microsecond)
	if r.coarse {
		now = now.Truncate(time.Second)
	}
	return now
}

// make makes a file where there is none, and notes its birth.
func (r *rig) make(name string) {
	f, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return
	}
	r.must(err)
	r.must(f.Close())
	r.must(r.births.Note(r.path(name), r.now()))
}

// follower makes one that sees the files as the rig's file system has them.
func (r *rig) follower(cfg follow.Config) *follow.Follower {
	f := follow.New(cfg)
	r.births.Use(f)
	return f
}

func (r *rig) write(name, data string) {
	r.hold("", name)
	r.heldWrite("", data)
	r.must(r.writers[""].f.Close())
	delete(r.writers, "")
}

func (r *rig) hold(fd, name string) {
	r.make(name)
	f, err := os.OpenFile(r.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	r.must(err)
	r.writers[fd] = &writer{f, name}
}

func (r *rig) heldWrite(fd, data string) {
	w := r.writers[fd]
	_, err := w.f.WriteString(data)
	r.must(err)
	r.touched(w.name)
}

func (r *rig) rename(from, to string) {
	r.must(os.Rename(r.path(from), r.path(to)))
	r.moved(to, "")
	r.moved(from, to)
}

func (r *rig) remove(name string) {
	r.must(os.RemoveAll(r.path(name)))
	r.moved(name, "")
}

// moved tells the writers where their file is now: it, or the directory it is in, was renamed.
func (r *rig) moved(from, to string) {
	for _, w := range r.writers {
		if rest, ok := strings.CutPrefix(w.name, from); ok && (rest == "" || rest[0] == '/') {
			if w.name = to + rest; to == "" {
				w.name = ""
			}
		}
	}
}

func (r *rig) truncate(name string) {
	r.must(os.Truncate(r.path(name), 0))
	r.touched(name)
}

func (r *rig) copy(from, to string) {
	b, err := os.ReadFile(r.path(from))
	r.must(err)
	r.make(to)
	r.must(os.WriteFile(r.path(to), b, 0o644))
	r.touched(to)
}

func (r *rig) set(change func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	return nil
}

// wait lets the virtual time pass.
func (r *rig) wait(d time.Duration) {
	r.set(func() {}) // what was read of the items was read before
	time.Sleep(d)
	synctest.Wait()
}

// look lets the follower take two looks: the second one finds what the first one has made readable.
func (r *rig) look() { r.wait(2 * poll) }

// run begins a Run.
func (r *rig) run() {
	r.t.Helper()
	if r.cancel != nil {
		r.t.Fatal("run: it is running already")
	}
	if r.f == nil {
		r.cfg.Begin, r.cfg.Report = r.onBegin, r.onReport
		r.cfg.OnCheckpoint(func() { r.set(func() { r.saved = len(r.items) }) })
		r.f = r.follower(r.cfg)
		r.open = r.f.CountFiles()
		if r.hook != nil {
			r.between = r.f.Intercept(r.hook)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan error, 1)
	go func() {
		err := errConsumer
		for first := true; err == errConsumer && (first || r.flaky); first = false {
			r.placed = false
			err = r.f.Run(ctx, r.onEmit)
		}
		r.done <- err
	}()
	synctest.Wait()
}

// stop ends the Run, unless the consumer's error has ended it already.
func (r *rig) stop() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := <-r.done; err != context.Canceled && err != errConsumer {
		r.t.Errorf("Run = %v", err)
	}
	r.cancel = nil
	if n := r.f.Stats().Open; n != 0 {
		r.t.Errorf("%d files are open after Run, by the Stats", n)
	}
}

func (r *rig) close() {
	r.stop()
	for _, w := range r.writers {
		w.f.Close()
	}
}

// exit ends the process: the next Run is another's.
func (r *rig) exit() {
	r.t.Helper()
	if r.f == nil {
		return
	}
	r.stop()
	if n := r.open.Load(); n != 0 {
		r.t.Errorf("%d files are open at the end of the process", n)
	}
	r.f = nil
}

// kill ends the process without its knowledge: what it would write at its end is not written. What it has delivered since the
// checkpoint will come again, and is forgotten here.
func (r *rig) kill() {
	r.t.Helper()
	if r.cancel == nil {
		r.exit()
		return
	}
	synctest.Wait()
	was, err := os.ReadFile(r.cfg.Checkpoint)
	r.must(err)
	n := r.saved
	if n < len(r.items) {
		if late := time.Since(r.emitted[n]); late > checkpointEvery {
			r.t.Errorf("a line was delivered %v ago, and is not in the checkpoint", late)
		}
	}
	r.exit()
	r.must(os.WriteFile(r.cfg.Checkpoint, was, 0o600))
	r.repeated = append(r.repeated, r.items[n:]...)
	r.items, r.emitted, r.saved = r.items[:n:n], r.emitted[:n:n], n
	r.begins = slices.DeleteFunc(r.begins, func(b begin) bool { return b.at > n })
}

const checkpointEvery = time.Second

// restart is what a new process does that has a checkpoint, or else has remembered the last position.
func (r *rig) restart() {
	if r.cfg.Checkpoint != "" {
		r.exit()
		r.run()
		return
	}
	r.stop()
	r.f, r.cfg.After = nil, follow.Position{}
	if i := r.lastLine(); i >= 0 {
		r.cfg.After = r.items[i].pos
	}
	r.items, r.begins, r.emitted = r.items[len(r.items):], nil, nil
	r.run()
}

func (r *rig) lastLine() int {
	for i, it := range slices.Backward(r.items) {
		if it.gap == nil && it.pos != (follow.Position{}) {
			return i
		}
	}
	return -1
}

func (r *rig) onBegin(pos follow.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.placed {
		r.t.Errorf("Begin(%+v): the position was known before", pos)
	}
	r.placed = pos != follow.Position{}
	if n := len(r.begins); n > 0 && r.begins[n-1].at == len(r.items) {
		r.begins = r.begins[:n-1] // nothing came of that: it counts no more
	}
	r.begins = append(r.begins, begin{pos, len(r.items)})
}

func (r *rig) onReport(event string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.report != nil {
		r.report(event, err)
	}
	if (err == nil) != (event == follow.EventRecovered || event == follow.EventCheckpointed) {
		r.t.Errorf("Report(%q, %v)", event, err)
	}
	if r.events {
		r.out = append(r.out, "EVENT "+event)
	}
}

func (r *rig) onEmit(lines []follow.Line) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.emits++; r.failNext || r.flaky && r.emits%2 == 1 {
		r.failNext = false
		return errConsumer
	}
	r.out = append(r.out, texts(lines)...)
	for _, l := range lines {
		if l.Gap == nil && !r.placed {
			r.t.Errorf("line %q comes before a Begin with a position", l.Data)
		}
		r.items, r.emitted = append(r.items, newItem(l)), append(r.emitted, time.Now())
	}
	return nil
}

var gaps sync.Map

func newItem(l follow.Line) item {
	if isHole(l.Gap) {
		return item{data: l.Gap.Reason}
	}
	if l.Gap != nil { // one that was in a checkpoint is still the same
		gap, _ := gaps.LoadOrStore(*l.Gap, l.Gap)
		return item{gap: gap.(*follow.Gap)}
	}
	return item{data: string(l.Data), pos: l.Pos, partial: l.Partial}
}

func (it item) String() string {
	switch {
	case it.gap != nil:
		return fmt.Sprintf("gap possible=%t", it.gap.Possible)
	case it.partial:
		return fmt.Sprintf("%q partial", it.data)
	}
	return fmt.Sprintf("%q", it.data)
}

// check is what has to hold at the end of every story: all replays tell the same one.
func (r *rig) check() {
	r.t.Helper()
	r.checkReplays("while it runs")
	r.checkNewProcess(false)
	r.checkNewProcess(true)
	r.wait(time.Minute) // the old files are closed
	r.checkReplays("after a minute")
	r.stop()
	r.checkReplays("after Run")
	if n := r.open.Load(); n != 0 {
		r.t.Errorf("%d files are open after all", n)
	}
}

// A replayed is what a replay from one position gave until it had to wait.
type replayed struct {
	after follow.Position
	items []item
}

// replays replays from many positions at once.
func (r *rig) replays(f *follow.Follower, from []follow.Position) []*replayed {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	var list []*replayed
	for _, after := range from {
		p := &replayed{after: after}
		list = append(list, p)
		go func() {
			done <- f.Replay(ctx, after, func(lines []follow.Line) error {
				for _, l := range lines {
					p.items = append(p.items, newItem(l))
				}
				return nil
			})
		}()
	}
	synctest.Wait()
	cancel()
	for range list {
		if err := <-done; err != context.Canceled {
			r.t.Errorf("Replay = %v", err)
		}
	}
	return list
}

// places lists the positions that were given out, and how many items had come by then. One position may have been given
// out twice, where two generations begin alike.
func (r *rig) places() ([]follow.Position, map[follow.Position][]int) {
	var order []follow.Position
	at := make(map[follow.Position][]int)
	add := func(pos follow.Position, n int) {
		if pos != (follow.Position{}) && !slices.Contains(at[pos], n) {
			order = append(order, pos)
			at[pos] = append(at[pos], n)
		}
	}
	for _, b := range r.begins {
		n := b.at
		for n < len(r.items) && r.items[n].gap != nil {
			n++ // what is lost before the beginning
		}
		add(b.pos, b.at)
		add(b.pos, n)
	}
	for i, it := range r.items {
		add(it.pos, i+1)
	}
	slices.SortStableFunc(order, func(a, b follow.Position) int { return slices.Max(at[a]) - slices.Max(at[b]) })
	return slices.Compact(order), at
}

// checkReplays replays from every position. What comes must be what Run has emitted since, also its gaps. Where it has a
// gap of its own the lines must really be gone.
func (r *rig) checkReplays(when string) {
	r.t.Helper()
	if r.f == nil {
		return // there is no process
	}
	order, at := r.places()
	disk := r.disk()
	for _, p := range r.replays(r.f, order) {
		var err error
		for _, n := range at[p.after] {
			if err = r.sameStory(r.items[n:], p.items, disk); err == nil {
				break
			}
		}
		if err != nil && !onDisk(disk, p.after) && p.items[0].gap != nil { // nobody can tell where it was
			if err = r.sameStory(r.items, p.items[1:], disk); err != nil {
				err = r.sameStory(r.items, p.items, disk)
			}
		}
		if err != nil {
			r.t.Errorf("%s, replay after %v (%d of %d): %v\ngot  %v\nwant %v", when, p.after, at[p.after], len(r.items), err,
				p.items, r.items[at[p.after][0]:])
			return
		}
	}
}

func (r *rig) sameStory(want, got []item, disk []diskFile) error {
	gone := func(it item) bool { return it.gap != nil || !onDisk(disk, it.pos) || r.ambiguous(it.pos) }
	for len(got) > 0 && len(want) > 0 && got[0] == want[0] && got[0].gap == nil && !r.ambiguous(got[0].pos) {
		want, got = want[1:], got[1:]
	}
	switch {
	case len(got) == 0 && len(want) > 0:
		return fmt.Errorf("%d items are missing", len(want))
	case len(got) == 0:
		return nil
	case len(want) > 0 && got[0] == want[0]:
		if err := r.sameStory(want[1:], got[1:], disk); err == nil || got[0].gap == nil {
			return err
		}
	case got[0].gap == nil:
		return fmt.Errorf("%v is not what comes next", got[0])
	}
	err := fmt.Errorf("%v, but what comes next is there: %v", got[0], want)
	for n := 1; n <= len(want) && gone(want[n-1]); n++ {
		if err = r.sameStory(want[n:], got[1:], disk); err == nil {
			return nil
		}
	}
	return err
}

// ambiguous positions are in several generations, which begin alike.
func (r *rig) ambiguous(pos follow.Position) bool {
	n := 0
	for _, it := range r.items {
		if it.pos == pos {
			n++
		}
	}
	return n > 1
}

// A diskFile is a file cut into lines by other means than the reader's.
type diskFile struct {
	name  string
	items []item // without an unterminated last line
	rest  []item // the unterminated last line
	start follow.Position
}

// disk reads the files, oldest first.
func (r *rig) disk() []diskFile {
	var files []diskFile
	for _, name := range append(r.f.Siblings(), r.cfg.Path) {
		b, err := readPlain(name)
		if err != nil {
			continue
		}
		files = append(files, r.cutFile(name, b))
	}
	return files
}

func (r *rig) cutFile(name string, b []byte) diskFile {
	d := diskFile{name: name}
	file := bytes.NewReader(b)
	d.start = follow.PositionIn(file, 0)
	maxLine := r.cfg.MaxLine
	if maxLine == 0 {
		maxLine = 1 << 20
	}
	for at := 0; at < len(b); {
		if n := len(b[at:]) - len(bytes.TrimLeft(b[at:], "\x00")); n >= follow.HoleSize {
			at += n
			hole := item{data: fmt.Sprintf("a hole of %d NUL bytes", n)}
			if bytes.IndexByte(b[at:], '\n') >= 0 || bytes.Contains(b[at:], make([]byte, follow.HoleSize)) {
				d.items = append(d.items, hole)
			} else {
				d.rest = append(d.rest, hole)
			}
			continue
		}
		n, size, partial := follow.CutLine(b[at:], maxLine, true)
		it := item{data: string(b[at : at+n]), pos: follow.PositionIn(file, int64(at+size)), partial: partial}
		at += size
		if at == len(b) && b[at-1] != '\n' {
			d.rest = append(d.rest, it)
		} else {
			d.items = append(d.items, it)
		}
	}
	return d
}

func onDisk(files []diskFile, pos follow.Position) bool {
	return slices.ContainsFunc(files, func(d diskFile) bool { return d.index(pos) >= 0 })
}

// index tells how many lines end at or before pos; −1 if it is none of the file's positions.
func (d *diskFile) index(pos follow.Position) int {
	if pos == (follow.Position{}) {
		return -1
	}
	if pos == d.start {
		return 0
	}
	for i, it := range slices.Concat(d.items, d.rest) {
		if it.pos == pos {
			return i + 1
		}
	}
	return -1
}

// checkNewProcess replays from every position in a Follower that knows nothing but the files. It gives them one by one.
func (r *rig) checkNewProcess(running bool) {
	r.t.Helper()
	cfg := r.cfg
	cfg.Begin, cfg.Report, cfg.Start, cfg.After, cfg.Checkpoint = nil, nil, follow.FromEnd, follow.Position{}, ""
	f := r.follower(cfg)
	when := "in a new process"
	if running {
		when += " that follows"
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- f.Run(ctx, func([]follow.Line) error { return nil }) }()
		synctest.Wait()
		defer func() { cancel(); <-done }()
	}
	order, _ := r.places()
	disk := r.disk()
	for _, p := range r.replays(f, order) {
		if want := fromDisk(disk, p.after); !slices.Equal(want, withoutGap(p.items)) {
			r.t.Errorf("%s, replay after %v:\ngot  %v\nwant %v", when, p.after, p.items, want)
			return
		}
	}
}

// fromDisk is what there is after a position: in the newest file that has it, and in all newer ones; or everything.
func fromDisk(disk []diskFile, pos follow.Position) (want []item) {
	first, skip := 0, 0
	for i, d := range disk {
		if n := d.index(pos); n >= 0 {
			first, skip = i, n
		}
	}
	for i, d := range disk[first:] {
		lines := d.items
		if first+i < len(disk)-1 {
			lines = slices.Concat(lines, d.rest)
		}
		want = append(want, lines[min(skip, len(lines)):]...)
		skip = 0
	}
	return want
}

func withoutGap(items []item) (lines []item) {
	for _, it := range items {
		if it.gap == nil {
			lines = append(lines, it)
		}
	}
	return lines
}
