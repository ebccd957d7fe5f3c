package follow

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"
)

// Replay delivers every line after a position, with the same positions, data and cuts as the live stream, and in the order
// in which Run emitted them. It runs until ctx is done, and returns context.Cause(ctx), or until emit returns an error, and
// returns that. Any number of replays may run beside a Run and each other.
//
// It never gets ahead of the live stream: where that has got to, it waits. Before the first Run has found the file it reads
// what there is.
//
// The zero Position stands for the beginning of the oldest file there is. A position that is found nowhere is answered with
// a Gap, and then with everything there is. ErrUnknownPosition means that it can't be a position of any file.
func (f *Follower) Replay(ctx context.Context, after Position, emit func(lines []Line) error) error {
	if after.Epoch == 0 && after != (Position{}) || after.Offset > math.MaxInt64 {
		return ErrUnknownPosition
	}
	p := &replay{Follower: f, ctx: ctx, emit: emit, after: after, batch: make([]Line, 0, batchSize)}
	defer p.close()
	err := p.loop()
	var h halt
	if errors.As(err, &h) {
		return h.error
	}
	return err
}

// A replay is the state of one call of Replay.
type replay struct {
	*Follower
	ctx   context.Context
	emit  func([]Line) error
	batch []Line

	after Position // of the last line delivered

	// The file that is being read.
	h      *handle
	src    *source // whose bytes they are; nil before the history
	reader reader
}

// errForgotten says that the history has let go of the entry to be read next.
var errForgotten = errors.New("the history has moved on")

// loop reads files up to where the history begins, and then follows the history. Whatever changes underneath brings it
// back here, to find its place again.
func (p *replay) loop() error {
	for {
		changed := p.hist.watch()
		n, inside, ok := p.join()
		if !ok {
			var err error
			if n, ok, err = p.backfill(); err != nil {
				return err
			}
		}
		if !ok {
			if err := p.pause(changed); err != nil {
				return err
			}
			continue
		}
		if err := p.follow(n, inside); !errors.Is(err, errForgotten) {
			return err
		}
	}
}

// pause waits for the history, and no longer than it takes the files to have changed.
func (p *replay) pause(changed <-chan struct{}) error {
	timer := time.NewTimer(p.cfg.Poll)
	defer timer.Stop()
	select {
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// join finds the entry of the history that the position is in, or the first one where it is before them all, not inside. Different
// generations may begin with the same line, so what lies within a span is believed only if the file agrees.
//
// Where no file has the position any more, the history still knows what came after it.
func (p *replay) join() (n int, inside, ok bool) {
	if p.hist.isBegin(p.after) {
		return 0, false, true
	}
	found := p.hist.find(p.after)
	for _, n := range found {
		e, _, _, ok := p.hist.at(n)
		if ok && (e.to == p.after || e.from == p.after || p.openSource(e, p.after)) {
			return n, true, true
		}
	}
	if len(found) == 0 {
		return 0, false, false
	}
	if _, h := p.locate(p.files(), identity{}, with(p.after)); h != nil {
		h.release()
		return 0, false, false
	}
	return found[0], true, true
}

// follow reads the history from entry n on: from the position if that is inside, else from the entry's beginning. It
// returns no nil error.
func (p *replay) follow(n int, inside bool) error {
	for {
		changed := p.hist.watch()
		e, last, pending, ok := p.hist.at(n)
		switch {
		case !ok:
			return errForgotten
		case pending:
		case e.gap != nil:
			if err := p.declare(e.gap); err != nil {
				return err
			}
			n, inside = n+1, false
			continue
		default:
			if !inside {
				p.after, inside = e.from, true
			}
			if err := p.span(e); err != nil {
				return err
			}
			if !last {
				n, inside = n+1, false
				continue
			}
		}
		select {
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		case <-changed:
		}
	}
}

// span delivers what is left of a span, and declares what can't be read any more.
func (p *replay) span(e entry) error {
	for try := 0; p.after != e.to && try < 3; try++ { // a file may be renamed or truncated while it is opened
		before := p.after
		if !p.openSource(e, p.after) {
			continue
		}
		err := p.read(int64(e.to.Offset), ending{true, e.partial})
		if errors.As(err, new(halt)) {
			return err
		}
		if p.after != e.to {
			p.close()
		}
		if p.after != before {
			try = 0
		}
	}
	if p.after == e.to {
		return nil
	}
	gap := &Gap{From: p.after, To: e.to, Count: -1, Bytes: int64(e.to.Offset - p.after.Offset), Reason: "the file is gone"}
	p.after = e.to
	return p.declare(gap)
}

// openSource opens the file of an entry at a position: the one that the live stream has open, or the one that is found by
// its identity and content. What is open already stays open.
func (p *replay) openSource(e entry, at Position) bool {
	src := e.src
	if p.h != nil && p.src == src && p.reader.position() == at {
		return true
	}
	p.close()
	right := func(h *handle) bool { return holds(h, at) && p.belongs(h, e) }
	h, id := p.hist.open(src)
	if h != nil {
		h = h.own()
	}
	if h != nil && !right(h) {
		h.release()
		h = nil
	}
	if h == nil {
		_, h = p.locate(p.files(), id, right)
	}
	if h == nil {
		return false
	}
	p.use(h, src)
	return p.seek(at) == nil
}

// belongs tells a file of the entry's generation from others that begin with the same lines. It holds the entry's end; or,
// as a copy that was taken before the end was written, it is shorter and begins alike.
func (p *replay) belongs(h *handle, e entry) bool {
	if h.reaches(int64(e.to.Offset)) {
		return holds(h, e.to)
	}
	size, err := h.size()
	return err == nil && p.hist.beginsLike(e.src, h, size)
}

func (p *replay) use(h *handle, src *source) {
	p.close()
	p.h, p.src = h, src
	p.reader = reader{file: h, maxLine: p.cfg.MaxLine}
}

// seek goes to a position, or to the beginning with the zero one.
func (p *replay) seek(at Position) error {
	if err := p.reader.seek(int64(at.Offset)); err != nil {
		return err
	}
	if at.Epoch != 0 {
		p.reader.epoch = at.Epoch // known even where the first line has never been completed
	}
	return nil
}

func (p *replay) close() {
	if p.h != nil {
		p.h.release()
		p.h = nil
	}
}

// read delivers what the open file has up to limit.
func (p *replay) read(limit int64, end ending) error {
	_, err := p.reader.pump(limit, end, p.batch, func(lines []Line, _ int) error {
		if err := p.offer(lines); err != nil {
			return err
		}
		p.after = lines[len(lines)-1].Pos
		return nil
	})
	return err
}

func (p *replay) declare(gap *Gap) error { return p.offer([]Line{{Gap: gap}}) }

func (p *replay) offer(lines []Line) error {
	if p.ctx.Err() != nil {
		return halt{context.Cause(p.ctx)}
	}
	if err := p.emit(lines); err != nil {
		return halt{err}
	}
	return nil
}

// backfill reads the files from before the history, from the one that the position is in. It returns the entry to go on
// with; not ok where that is not known yet.
func (p *replay) backfill() (n int, ok bool, err error) {
	list := p.files()
	first, src, begin, begun := p.hist.first()
	at, err := p.findAfter(list)
	if err != nil {
		return 0, false, err
	}
	if !begun {
		return 0, false, p.through(list, at)
	}
	joint, file := p.findJoint(list, src, begin)
	if file != nil {
		defer file.release()
	}
	limit := joint
	if joint < 0 {
		limit = p.older(list, src)
	}
	if at > limit || at == limit && (joint < 0 || p.after.Offset > begin.Offset) || at >= 0 && at != joint && p.inHistory(list[at]) {
		return 0, false, nil // it is the live stream's, and has yet to be emitted as far as there
	}
	for i := max(at, 0); i < limit; i++ {
		if p.inHistory(list[i]) {
			continue
		}
		if err := p.whole(list[i], i == at, true); err != nil {
			return 0, false, err
		}
	}
	return first, true, p.upTo(file, begin, at >= 0 && at == joint)
}

// older counts the files that are older than the history, where the one in which that begins is gone. The others are the
// live stream's, even if it has not opened them yet.
func (p *replay) older(list []sibling, begin *source) int {
	began := p.hist.identity(begin).ModTime()
	n := slices.IndexFunc(list, func(s sibling) bool { return p.inHistory(s) || !p.writtenBefore(s, began) })
	if n < 0 {
		return len(list)
	}
	return n
}

// through reads all files to their present end, while there is no history.
func (p *replay) through(list []sibling, at int) error {
	for i := max(at, 0); i < len(list); i++ {
		if err := p.whole(list[i], i == at, i < len(list)-1); err != nil {
			return err
		}
	}
	return nil
}

// findAfter finds the file that the position is in, or declares it lost. -1 means to begin with the oldest file.
func (p *replay) findAfter(list []sibling) (int, error) {
	if p.after == (Position{}) {
		return -1, nil
	}
	i, h := p.locate(list, identity{}, with(p.after))
	if h != nil {
		h.release()
	}
	if i >= 0 {
		return i, nil
	}
	gap := &Gap{From: p.after, Count: -1, Bytes: -1, Possible: true, Reason: "the position is in no file that is there"}
	p.after = Position{}
	return -1, p.declare(gap)
}

// findJoint finds the file in which the history begins.
func (p *replay) findJoint(list []sibling, src *source, begin Position) (int, *handle) {
	id := p.hist.identity(src)
	if begin.Epoch != 0 {
		return p.locate(list, id, with(begin))
	}
	i := slices.IndexFunc(list, func(s sibling) bool { return p.same(s.id, id) })
	if i < 0 {
		return -1, nil
	}
	h, _ := p.open(list[i])
	return i, h
}

func (p *replay) inHistory(s sibling) bool {
	known := p.hist.knows()
	if p.packedName(s.name) {
		return slices.ContainsFunc(known, func(id identity) bool { return p.unchanged(id, s.id) }) || p.packedHistory(s)
	}
	return slices.ContainsFunc(known, func(id identity) bool { return p.same(id, s.id) })
}

// upTo delivers what stands in a file before the history begins.
func (p *replay) upTo(h *handle, begin Position, resume bool) error {
	if h == nil || begin.Offset == 0 || !h.retain() {
		return nil
	}
	p.use(h, nil)
	defer p.close()
	if err := p.seekFrom(resume); err != nil {
		return nil
	}
	if err := p.read(int64(begin.Offset), ending{final: true}); err != nil {
		return onlyHalt(err)
	}
	return p.endedInHole()
}

// whole delivers a file to its end. If it is complete, what follows the last line end is a line.
func (p *replay) whole(s sibling, resume, complete bool) error {
	h, err := p.open(s)
	if err != nil {
		size := s.id.Size()
		if p.packedName(s.name) {
			size = -1
		}
		return p.declare(&Gap{From: p.after, Count: -1, Bytes: size, Reason: "a file can't be read"})
	}
	p.use(h, nil)
	defer p.close()
	if err = p.seekFrom(resume); err != nil {
		return nil
	}
	if h.packed() {
		return onlyHalt(p.wholePacked(h))
	}
	size, err := h.size()
	if err == nil {
		err = p.read(size, ending{final: complete})
	}
	if err == nil && complete {
		err = p.endedInHole()
	}
	return onlyHalt(err)
}

func (p *replay) seekFrom(resume bool) error {
	if resume {
		return p.seek(p.after)
	}
	return p.seek(Position{})
}

// onlyHalt drops the file's errors: the next turn finds out what has become of it.
func onlyHalt(err error) error {
	if errors.As(err, new(halt)) {
		return err
	}
	return nil
}
