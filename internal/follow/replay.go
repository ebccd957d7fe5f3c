package follow

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"
)

// Replay delivers every line after a position, with the Positions, Data and cuts that they have live, in the order in which
// Run delivers them, and waits for more at the end, until ctx is done or emit returns an error: then it returns that. It
// never overtakes a Run that is active. The zero Position stands for the oldest line that can be found.
//
// What cannot be found any more is declared by a Line with Gap. A Position that no file can have gives ErrUnknownPosition.
func (f *Follower) Replay(ctx context.Context, after Position, emit func(lines []Line) error) error {
	if after.Epoch == 0 && after != (Position{}) {
		return ErrUnknownPosition
	}
	p := &replay{Follower: f, ctx: ctx, emit: emit, last: after, batch: make([]Line, 0, batchSize)}
	for {
		changed := f.hist.watch()
		err := p.pass()
		var h halt
		if errors.As(err, &h) {
			return h.error
		}
		if err := p.wait(changed); err != nil {
			return err
		}
	}
}

// A replay is the state of one call of Replay.
type replay struct {
	*Follower
	ctx   context.Context
	emit  func([]Line) error
	batch []Line
	last  Position // of the last line that was delivered

	inside bool // it walks in the history
	entry  int  // there: the number of the entry that it is in
	at     Position
}

// pass delivers what there is. Its error is a halt, or says why it has to be tried again.
func (p *replay) pass() error {
	if !p.inside && !p.find() {
		if err := p.past(); err != nil || !p.inside {
			return err
		}
	}
	return p.walk()
}

// wait returns when there may be more. Without a Run nothing tells.
func (p *replay) wait(changed <-chan struct{}) error {
	var timer <-chan time.Time
	if !p.active.Load() {
		t := time.NewTimer(p.cfg.Poll)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
	case <-timer:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	return nil
}

// find looks for the last position in the history. A place inside a span is believed only if the content agrees.
func (p *replay) find() bool {
	if p.last == (Position{}) {
		return false
	}
	for _, n := range p.hist.find(p.last) {
		e, _, _, ok := p.hist.at(n)
		if !ok {
			continue
		}
		if p.last != e.to && p.last != e.from {
			h := p.file(e, p.last)
			if h == nil {
				continue
			}
			h.release()
		}
		p.inside, p.entry, p.at = true, n, p.last
		return true
	}
	return false
}

// walk follows the history to its end.
func (p *replay) walk() error {
	for {
		e, newest, pending, ok := p.hist.at(p.entry)
		switch {
		case !ok: // forgotten: the content will tell
			p.inside = false
			return nil
		case pending:
			return nil
		case e.gap != nil:
			if err := p.offer([]Line{{Gap: e.gap}}); err != nil {
				return err
			}
			p.entry++
			p.at = Position{}
			continue
		}
		if p.at == (Position{}) {
			p.at = e.from
		}
		if err := p.span(e); err != nil {
			return err
		}
		if newest {
			if again, _, _, ok := p.hist.at(p.entry); ok && again.to != p.at {
				continue // it has grown
			}
			if _, _, pending, ok := p.hist.at(p.entry + 1); !ok || pending {
				return nil
			}
		}
		p.entry++
		p.at = Position{}
	}
}

// span delivers the rest of a span, as far as it can be read.
func (p *replay) span(e entry) error {
	for p.at != e.to {
		h := p.file(e, p.at)
		if h == nil {
			return p.missing(e)
		}
		before := p.at
		err := p.read(h, int64(p.at.Offset), int64(e.to.Offset), ending{final: true, partial: e.partial})
		h.release()
		if errors.As(err, new(halt)) {
			return err
		}
		if p.at == before { // it was truncated under our eyes, and there is no copy
			return p.missing(e)
		}
	}
	return nil
}

// missing declares the rest of a span lost.
func (p *replay) missing(e entry) error {
	gap := &Gap{From: p.at, To: e.to, Count: -1, Bytes: int64(e.to.Offset) - int64(p.at.Offset),
		Reason: "the file that held these lines is gone"}
	if err := p.offer([]Line{{Gap: gap}}); err != nil {
		return err
	}
	p.at, p.last = e.to, e.to
	return nil
}

// file opens the file in which the bytes of a span are, and pos with them: the one that the live stream has open, or else
// one with that content.
func (p *replay) file(e entry, pos Position) *handle {
	h, id := p.hist.open(e.src)
	if h != nil {
		if holds(h, pos) && holds(h, e.to) {
			return h
		}
		h.release()
	}
	if _, h = p.locate(p.files(), id, e.to); h != nil && !holds(h, pos) {
		h.release()
		h = nil
	}
	return h
}

// past delivers what was written before the history begins, file by file, and enters the history where it meets it.
func (p *replay) past() error {
	first, begin, at, known := p.hist.first()
	list := p.files()
	i, from := 0, int64(0)
	if p.last != (Position{}) {
		var err error
		if i, from, err = p.origin(list); err != nil {
			return err
		}
	}
	others := p.hist.knows()
	for ; i < len(list); i, from = i+1, 0 {
		s := list[i]
		switch {
		case known && p.same(s.id, begin.info):
			return p.enterAt(s, first, from, at)
		case slices.ContainsFunc(others, func(id identity) bool { return p.same(id, s.id) }):
			continue // it belongs to the history
		}
		newest := i == len(list)-1
		if err := p.whole(s, from, newest); err != nil {
			return err
		}
	}
	if known {
		p.enter(first)
	}
	return nil
}

// origin finds the file that the last position is in. If there is none, that is declared, and all that is left follows.
func (p *replay) origin(list []sibling) (i int, from int64, err error) {
	i, h := p.locate(list, identity{}, p.last)
	if h != nil {
		h.release()
		return i, int64(p.last.Offset), nil
	}
	gap := &Gap{From: p.last, Count: -1, Bytes: -1, Reason: "the file that held this position is gone"}
	if err := p.offer([]Line{{Gap: gap}}); err != nil {
		return 0, 0, err
	}
	p.last = Position{}
	return 0, 0, nil
}

// enterAt delivers what the first file of the history held before it, and goes on in the history.
func (p *replay) enterAt(s sibling, first int, from int64, at Position) error {
	if int64(at.Offset) > from {
		h, err := p.open(s)
		if err != nil {
			return err // it has just been renamed: another pass finds it
		}
		defer h.release()
		if err := p.read(h, from, int64(at.Offset), ending{final: true}); err != nil {
			return err
		}
	} else if int64(at.Offset) < from {
		return nil // the live stream has not come so far yet: it will
	}
	p.enter(first)
	return nil
}

func (p *replay) enter(n int) { p.inside, p.entry, p.at = true, n, Position{} }

// whole delivers a file from an offset to its end. Only the newest may be in the middle of a line.
func (p *replay) whole(s sibling, from int64, newest bool) error {
	h, err := p.open(s)
	if err != nil {
		return err
	}
	defer h.release()
	size, err := h.size()
	if err != nil {
		return err
	}
	return p.read(h, from, size, ending{final: !newest})
}

// read delivers the lines of a file between two offsets.
func (p *replay) read(h *handle, from, to int64, end ending) error {
	r := reader{file: h, maxLine: p.cfg.MaxLine}
	if err := r.seek(from); err != nil {
		return err
	}
	_, err := r.pump(to, end, p.batch, func(lines []Line, _ int) error {
		if err := p.offer(lines); err != nil {
			return err
		}
		p.last = lines[len(lines)-1].Pos
		p.at = p.last
		return nil
	})
	if err == io.ErrUnexpectedEOF {
		err = errChanged
	}
	return err
}

func (p *replay) offer(lines []Line) error {
	if p.ctx.Err() != nil {
		return halt{context.Cause(p.ctx)}
	}
	if err := p.emit(lines); err != nil {
		return halt{err}
	}
	return nil
}
