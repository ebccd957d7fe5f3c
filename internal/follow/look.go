package follow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// turnSize is how much one generation may deliver in one look, so that a file that is rotated under a long backlog is
// opened before it is gone.
const turnSize = 4 << 20

// A run is the state of one call of Run.
type run struct {
	*Follower
	ctx   context.Context
	emit  func([]Line) error
	batch batch

	ckpt    *checkpointer // nil without a checkpoint
	watch   *watcher
	park    parker
	begun   bool      // Begin was called
	placed  bool      // with a position
	present bool      // the path names the live generation, as of this look
	written time.Time // and when that was last written to, as of then
	trouble trouble   // what keeps the path from being opened
	failing bool      // something can't be read
	failed  bool      // in this look
	doubt   time.Time // since when it can't be told what is there
	changed time.Time // when the last generation began
	since   time.Time // what was written to since then may belong before it
	scanned time.Time // when the siblings were last looked through
	again   bool      // not all of them could be asked

	restored bool // from the checkpoint, in this Run
}

// A halt ends the Run: it is the consumer's error, or the end of the context. All other errors are the file's.
type halt struct{ error }

func (r *run) loop() error {
	r.watch = r.newWatcher()
	defer r.watch.close()
	defer r.close()
	defer r.batch.giveBack()
	r.park.limit = r.cfg.Open
	defer r.park.limit.leave(r)
	for !r.reopen() {
		if err := r.wait(); err != nil {
			return err
		}
	}
	for {
		moved, err := r.look()
		if err != nil {
			return err
		}
		r.checkpoint()
		if began := r.began.Load(); began != nil {
			(*began)()
		}
		if moved {
			r.watch.see()
			r.park.limit.stir(r)
			continue
		}
		r.batch.giveBack()
		if err := r.over(); err != nil {
			return err
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
}

func (r *run) close() {
	for _, g := range r.chain {
		r.closeFile(g)
	}
}

// look finds out what has happened to the path and delivers what there is to deliver. It is exact for one writer: the new
// file and its size are taken before the old one is drained, and all that was written to the old one was written before
// anything in the new one.
func (r *run) look() (moved bool, err error) {
	r.stat.update(func(s *Stats) { s.Looks++ })
	r.failed = false
	defer r.relieved()
	r.arrive()
	r.announce()
	infos := r.infos()
	chain := slices.Clone(r.chain)
	for i, g := range chain {
		if infos[i] == nil {
			continue
		}
		moved, err := r.drain(g, infos[i])
		if err != nil {
			noteSizes(chain[i+1:], infos[i+1:])
			return false, r.haltError(err)
		}
		if moved {
			return true, nil // look again before anything newer is read
		}
		waits, err := r.unfinished(g)
		if err != nil {
			return false, r.haltError(err)
		}
		if waits {
			break
		}
	}
	if r.rescan() {
		return true, nil
	}
	return false, r.haltError(r.retire())
}

// haltError unwraps what ends the Run.
func (r *run) haltError(err error) error {
	var h halt
	if errors.As(err, &h) {
		return h.error
	}
	return err
}

// noteSizes lets the generations that a look did not come to know what there was to be read: one that is gone before the next
// Run has then lost something.
func noteSizes(chain []*generation, infos []os.FileInfo) {
	for i, g := range chain {
		if infos[i] != nil {
			g.size = max(g.size, infos[i].Size())
		}
	}
}

// infos takes the sizes, the newest generation's first. A file that can't be asked has none.
func (r *run) infos() []os.FileInfo {
	infos := make([]os.FileInfo, len(r.chain))
	for i, g := range slices.Backward(r.chain) {
		info, err := g.h.Stat()
		if err != nil {
			r.fail(err)
			continue
		}
		infos[i] = info
	}
	return infos
}

// arrive makes the file that the path names now the live generation.
func (r *run) arrive() {
	r.present = false
	if !r.started {
		r.first()
		return
	}
	info, err := r.named()
	if err != nil {
		r.troubled(err)
		return
	}
	if live := r.live(); live != nil && r.same(live.id(), identity{info}) {
		r.present, r.written = true, info.ModTime()
		r.watch.passage.seen()
		r.recovered()
		return
	}
	h, err := openHandle(r.fs, r.cfg.Path)
	if err != nil {
		r.troubled(err)
		return
	}
	r.present = true
	r.recovered()
	r.enter(h, info)
	r.written = info.ModTime()
	r.live().mtime = r.written
}

// named asks for the file that the path names.
func (r *run) named() (os.FileInfo, error) {
	info, err := r.fs.Stat(r.cfg.Path)
	if err == nil {
		err = regular(info)
	}
	return info, err
}

// enter puts a file that was opened at the path at the end of the chain. The path was asked for it just before.
func (r *run) enter(h *handle, info os.FileInfo) {
	if i := r.chainIndex(identity{h.info}); i >= 0 {
		h.release()
		r.promote(i)
		return
	}
	since := time.Time{}
	if old := r.live(); old != nil {
		r.stat.update(func(s *Stats) { s.Rotations++ })
		r.age(old)
		since = old.mtime
	}
	if !r.same(identity{h.info}, identity{info}) {
		info = h.info
	}
	i, gap, unseen := len(r.chain), r.gap, r.unseen(h)
	r.gap = nil
	g := r.newGeneration(h)
	g.first = info
	r.chain = append(r.chain, g) // at once, so that a copy of it in the making is known for one
	r.insertMissed(i, since, info.ModTime(), identity{h.info}, identity{})
	r.chain[i].gap = cmp.Or(gap, r.chain[i].gap)
	g.gap = cmp.Or(g.gap, unseen)
	r.hist.start(r.chain[0].src, r.chain[0].reader.position(), 0)
}

// promote makes an older generation the live one: it was renamed back.
func (r *run) promote(i int) {
	g := r.chain[i]
	if g == r.live() {
		return
	}
	r.age(r.live())
	r.chain = append(slices.Delete(r.chain, i, i+1), g)
	g.aged = time.Time{}
	r.changed = time.Now() // others may have come and gone meanwhile
}

func (r *run) age(g *generation) {
	if g.aged.IsZero() {
		g.aged = time.Now()
	}
}

// quietSince takes the file's own word for when it last grew, if it is older than what was seen.
func (g *generation) quietSince(mtime time.Time) {
	if g.grew = time.Now(); mtime.Before(g.grew) {
		g.grew = mtime
	}
}

// insertMissed puts the generations that came and went since then at index i of the chain, before that of the live file; and
// those that are older than pivot, if that is known, one place before.
func (r *run) insertMissed(i int, since, until time.Time, live, pivot identity) {
	if time.Since(r.changed) > r.cfg.Grace || since.Before(r.since) {
		r.since = since
	}
	r.changed, r.scanned = time.Now(), time.Now()
	faults := r.fs.faults.Load()
	before, after := r.missed(r.since, until, live, pivot)
	r.again = r.fs.faults.Load() != faults
	r.insert(i, after)
	r.insert(max(i-1, 0), before)
}

// Where the one that follows began by a truncation, or they were written after it was opened, they are copies that were made
// before one, and between copy and truncation lines may have been written.
func (r *run) insert(i int, files []*handle) {
	for n, h := range files {
		at := i + n
		for at > 0 && r.chain[at-1].follows(h) {
			at--
		}
		g := r.newGeneration(h)
		g.missed = true
		r.age(g)
		r.stat.update(func(s *Stats) { s.Rotations++ })
		r.chain = slices.Insert(r.chain, at, g)
		if at+1 == len(r.chain) {
			continue
		}
		if next := r.chain[at+1]; next.cut || g.copiedAfter(next) {
			g.cut, g.gap = true, cmp.Or(next.gap, g.gap)
			next.cut, next.gap = true, copyGap(Position{}, true)
		}
	}
}

// copiedAfter reports whether a file can be but a copy, since it came into being after the one that follows it; or else, where
// births tell nothing, since it was written to after that: a writer that is late can do so, too.
func (g *generation) copiedAfter(next *generation) bool {
	born, then := birthOf(g.h.info), birthOf(next.first)
	if born.IsZero() || then.IsZero() || born.Equal(then) || g.h.packed() {
		return g.mtime.After(next.born)
	}
	return born.After(then)
}

// follows reports whether a generation, of which nothing was delivered, comes after a file that was found later, since it was
// born later.
func (g *generation) follows(h *handle) bool {
	return g.reader.offset() == 0 && g.h != nil && !g.h.packed() && !h.packed() && bornBefore(identity{h.info}, identity{g.first})
}

// beganBefore reports whether a file was born when the generation had already had the content that was read of it.
func (g *generation) beganBefore(h *handle) bool {
	if g.reader.end() == 0 || g.first == nil || h.packed() {
		return false
	}
	since, born := g.filled, birthOf(h.info)
	if since.IsZero() {
		since = g.first.ModTime()
	}
	return born.After(since.Add(tick(since)))
}

// rescan looks for missed generations again for a while after a change: a directory that is read while files are renamed
// in it may hide one of them, and an empty generation doesn't show that it was truncated.
func (r *run) rescan() (changed bool) {
	live := r.live()
	if live == nil || time.Since(r.changed) > r.cfg.Grace && !r.again || time.Since(r.scanned) < r.cfg.Poll {
		return false
	}
	return r.collect(live)
}

// collect inserts what was missed before g, the live generation. If g has ended meanwhile, what was found may come after
// it, and only the next look can tell; but what was born later than its content comes after it, if g is one that was renamed away,
// however late its writer still writes.
func (r *run) collect(g *generation) (changed bool) {
	r.scanned = time.Now()
	faults := r.fs.faults.Load()
	_, files := r.missed(r.since, time.Time{}, g.id(), identity{})
	r.again = r.fs.faults.Load() != faults
	files = slices.DeleteFunc(files, func(h *handle) bool {
		later := !r.present && g.beganBefore(h)
		if later {
			h.release()
		}
		return later
	})
	if len(files) > 0 && !r.current(g) {
		for _, h := range files {
			h.release()
		}
		r.again = true
		return true
	}
	r.insert(slices.Index(r.chain, g), files)
	return len(files) > 0
}

// current reports whether g is still the live file with the content that was read, or was so a moment ago: where the path names
// nothing, what was found is older than g if that is found among it.
func (r *run) current(g *generation) bool {
	info, err := r.fs.Stat(r.cfg.Path)
	there := err == nil && r.same(g.id(), identity{info})
	if errors.Is(err, os.ErrNotExist) {
		there = slices.ContainsFunc(r.siblings(), func(s sibling) bool { return r.same(g.id(), s.id) })
	}
	return there && g.reader.matches(g.h)
}

// names reports whether the path names g's file.
func (r *run) names(g *generation) bool {
	info, err := r.fs.Stat(r.cfg.Path)
	return err == nil && r.same(g.id(), identity{info})
}

// announce tells where the stream begins.
func (r *run) announce() {
	if r.begun {
		return
	}
	r.begun = true
	if r.last != (Position{}) || len(r.chain) == 0 {
		r.begin(nil, r.last)
		return
	}
	r.begin(r.chain[0], r.chain[0].reader.position())
}

// begin tells where the stream begins: in g, if that is not nil.
func (r *run) begin(g *generation, at Position) {
	r.placed = at != Position{}
	if r.placed && g != nil {
		r.hist.beginsAt(g.src, at)
	}
	if r.cfg.Begin != nil {
		r.cfg.Begin(at)
	}
}

// drain delivers what a generation has, up to its size or one turn. moved says that something came, so that another look
// should be taken at once.
func (r *run) drain(g *generation, info os.FileInfo) (moved bool, err error) {
	if err := r.declare(g); err != nil {
		return false, err
	}
	if g.h.packed() {
		return r.drainPacked(g)
	}
	size := info.Size()
	if size < max(g.reader.end(), g.size) {
		return r.truncated(g)
	}
	if g.reader.end() == 0 && size > 0 {
		if again := r.settle(g, info); again || g.fresh {
			return again, nil
		}
	}
	turn := min(size, g.reader.end()+turnSize)
	n, err := g.reader.pump(turn, ending{}, r.batch.space(), r.deliverTo(g))
	switch {
	case errors.As(err, new(halt)):
		r.saw(g, info)
		return true, err
	case errors.Is(err, errChanged):
		if n > 0 { // and not only what is there now
			g.grew = time.Now()
		}
		return r.truncated(g)
	case err != nil:
		r.fail(err)
		return false, nil
	}
	r.saw(g, info)
	if g.sealed && turn == size {
		return true, r.end(g)
	}
	return n > 0, nil
}

// settle makes sure that a generation of which nothing was read is the one that comes next. It doesn't show a truncation yet;
// so its first block is read, and where the file began empty, or has changed since it was found, the siblings are looked
// through: what came before that block must be among them. It returns true to have the path looked at again. Where there was
// nothing to read after all, the generation stays fresh.
func (r *run) settle(g *generation, info os.FileInfo) bool {
	n, err := g.reader.fill(info.Size())
	switch {
	case errors.Is(err, errChanged):
		g.fresh = false // it will be met again
		return false
	case err != nil:
		r.fail(err)
		return false
	case n == 0:
		return true
	}
	now, err := g.h.Stat()
	if err == nil && now.Size() < info.Size() && g.reader.end() <= now.Size() { // the block is the next generation's
		g.reader.rewind()
		r.truncatedUnread(g)
		return true
	}
	if !g.fresh && err == nil && g.first != nil && now.Size() == g.first.Size() && now.ModTime().Equal(g.first.ModTime()) {
		return false
	}
	empty, quiet := g.fresh, r.blank.Sub(g.grew) >= quietTime
	g.fresh, g.grew = false, time.Now()
	if err == nil {
		g.filled = now.ModTime()
	}
	g.reader.identify(false) // a copy that was made meanwhile is known by it
	again := r.collect(g)
	if empty && r.present && g == r.live() && g.gap == nil && r.blank.After(g.born) && !quiet && r.names(g) { // and not a file that was renamed empty
		g.gap = copyGap(Position{}, true) // what was written after that copy was made
	}
	r.blank = time.Time{}
	return again
}

// saw notes what a look has found, for the next one to compare.
func (r *run) saw(g *generation, info os.FileInfo) {
	if info.Size() > g.size {
		g.grew = time.Now()
		r.watch.see()
	}
	g.size, g.looked = info.Size(), time.Now()
	if r.present && g == r.live() {
		g.mtime = r.written
	}
}

// declare delivers the gap before a generation.
func (r *run) declare(g *generation) error {
	if g.gap == nil {
		return nil
	}
	if err := r.deliverGap(g.gap); err != nil {
		return err
	}
	g.gap, g.gapped = nil, true
	return nil
}

// deliverGap declares a gap. One that may be is not worth telling right behind another, unless that one says how much it is.
func (r *run) deliverGap(gap *Gap) error {
	if r.declared && gap.Possible {
		return nil
	}
	if err := r.offer([]Line{{Gap: gap}}); err != nil {
		return err
	}
	r.declared = gap.Bytes < 0
	r.hist.gap(gap)
	r.stat.update(func(s *Stats) { s.Gaps++ })
	return nil
}

// deliverTo delivers lines of one generation.
func (r *run) deliverTo(g *generation) func([]Line, int) error {
	return func(lines []Line, _ int) error {
		r.checkpoint()
		r.batch.filled(lines)
		from, last := g.reader.position(), lines[len(lines)-1]
		if !r.placed { // the first line is complete: now its beginning is a position
			r.begin(g, from)
		}
		if err := r.offer(lines); err != nil {
			return err
		}
		r.last, r.declared = last.Pos, false
		if gap := lines[0].Gap; gap != nil && from.Offset == 0 {
			r.hist.beginsWith(g.src, gap.Bytes)
		}
		r.hist.extend(g.src, g.reader.head, from, lines)
		gaps, holes := countHoles(lines)
		r.stat.update(func(s *Stats) {
			s.Lines += int64(len(lines)) - gaps
			s.Bytes += int64(last.Pos.Offset-from.Offset) - holes
			s.Gaps += gaps
		})
		return nil
	}
}

func (r *run) offer(lines []Line) error {
	if r.ctx.Err() != nil {
		return halt{context.Cause(r.ctx)}
	}
	if err := r.emit(lines); err != nil {
		return halt{err}
	}
	r.delivered()
	return nil
}

// retire lets old generations go that are quiet and out of Grace.
func (r *run) retire() error {
	for i, g := range slices.Clone(r.chain[:max(0, len(r.chain)-1)]) {
		next := r.chain[i+1]
		if time.Since(g.aged) < r.cfg.Grace || time.Since(g.grew) < r.cfg.Grace || next.reader.end() == 0 {
			continue
		}
		return r.end(g) // the chain has changed: the others' turn comes with the next look
	}
	return nil
}

// end delivers a generation's unterminated last line and lets go of it. In a copy, that line may have been cut by the copying.
func (r *run) end(g *generation) error {
	next := r.chain[slices.Index(r.chain, g)+1:]
	if err := r.flush(g, len(next) > 0 && next[0].cut && (next[0].gap != nil || next[0].gapped)); err != nil {
		return err
	}
	r.remember(mark{src: g.src, id: r.latest(g), pos: g.reader.position()})
	r.closeFile(g)
	r.remove(g)
	return nil
}

// unfinished reports whether the live file's lines have to wait for the rest of the last line of the one before, which comes
// first. Once that was quiet for Grace, its line is delivered as it is. Nobody goes on writing to a copy, and what was missed may
// be one; and where several files wait to be read, none waits for a line.
func (r *run) unfinished(g *generation) (waits bool, err error) {
	next := r.live()
	if g == next || g != r.chain[len(r.chain)-2] || g.reader.pending() == 0 || g.missed || next.cut {
		return false, nil
	}
	if time.Since(g.grew) < r.cfg.Grace {
		return true, nil
	}
	return false, r.flush(g, false)
}

func (r *run) remove(g *generation) {
	r.chain = slices.DeleteFunc(r.chain, func(other *generation) bool { return other == g })
}

// flush delivers what was read of a line that has no end; partial says that its rest may be in what a gap declares.
func (r *run) flush(g *generation, partial bool) error {
	if err := g.reader.hand(g.reader.end(), ending{final: true, partial: partial}, r.batch.space(), r.deliverTo(g)); err != nil {
		return err
	}
	r.hist.cut(g.src) // what the file still gets is another line
	gap := g.reader.ended()
	if gap == nil {
		return nil
	}
	if err := r.deliverGap(gap); err != nil {
		return err
	}
	g.reader.accept(g.reader.next)
	return nil
}

// latest is a generation's identity with its present size and time.
func (r *run) latest(g *generation) identity {
	if info, err := g.h.Stat(); err == nil {
		return identity{info}
	}
	return g.id()
}

// trouble is one episode in which the path can't be read.
type trouble struct {
	event string
	since time.Time
	told  bool
}

// troubled reports what is in the way once. A name that is absent for a moment is no trouble while a generation is open:
// that is how a rotation looks.
func (r *run) troubled(err error) {
	event := eventOf(err)
	if r.trouble.event != event {
		r.trouble = trouble{event: event, since: time.Now()}
	}
	if r.trouble.told || len(r.chain) > 0 && time.Since(r.trouble.since) < r.cfg.Poll {
		return
	}
	r.trouble.told = true
	if event == EventUnreadable && r.failing {
		return
	}
	r.report(event, err)
}

func eventOf(err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return EventMissing
	case errors.Is(err, errDirectory), errors.Is(err, errIrregular):
		return EventIrregular
	}
	return EventUnreadable
}

func (r *run) recovered() {
	if r.trouble.told && !r.failing {
		r.report(EventRecovered, nil)
	}
	r.trouble = trouble{}
}

func (r *run) report(event string, err error) {
	r.stat.update(func(s *Stats) {
		s.Trouble = event
		if event == EventRecovered {
			s.Trouble = ""
		}
		if err != nil {
			s.LastError = err
		}
	})
	if r.cfg.Report != nil {
		r.cfg.Report(event, err)
	}
}

// fail notes an error of an open file. It will be tried again at the next look.
func (r *run) fail(err error) {
	if errors.Is(err, errUnread) {
		err = fmt.Errorf("%s: %w", r.cfg.Path, err)
	}
	if !r.failing && !(r.trouble.told && r.trouble.event == EventUnreadable) {
		r.report(EventUnreadable, err)
	}
	r.failing, r.failed = true, true
}

// relieved tells that a look has gone well again.
func (r *run) relieved() {
	if r.failing && !r.failed {
		r.failing = false
		if !r.trouble.told {
			r.report(EventRecovered, nil)
		}
	}
}
