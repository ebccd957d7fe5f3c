package follow

import (
	"slices"
	"time"
)

// quietTime is how long a file must have been quiet before its truncation to say that nothing was lost in it: copytruncate
// copies and truncates within milliseconds.
const quietTime = time.Second

// truncated ends a generation whose content is gone from its file, and begins another in the same file. What was not
// delivered may be in a copy, as copytruncate makes one before it truncates: then the generation goes on in the copy.
func (r *run) truncated(g *generation) (moved bool, err error) {
	if g.reader.end() == 0 {
		r.truncatedUnread(g)
		return true, nil
	}
	faults := r.fs.faults.Load()
	copied := r.findCopy(g)
	if copied == nil && r.unsure(faults) {
		return false, nil
	}
	if copied == nil && g.reader.offset() == 0 && r.precede(g) {
		return true, nil // what comes before it first
	}
	unread := g.rest() > int64(g.reader.pending())
	if copied == nil {
		if err := r.flush(g, true); err != nil { // all that is left of its last line is what was read
			return true, err
		}
	}
	r.blank = time.Time{} // that is what the empty file was about
	r.stat.update(func(s *Stats) { s.Truncations++ })
	r.remember(mark{src: g.src, id: identity{g.h.info}, pos: g.reader.position(), truncated: true})
	gap := truncationGap(g, copied, unread)
	i := slices.Index(r.chain, g)
	until := time.Time{}
	if g == r.live() {
		if until = r.written; !r.present { // it was renamed, or removed, and what was written after that is younger
			until = r.latest(g).ModTime()
		}
	}
	file, aged, since := g.h, g.aged, g.mtime
	file.retain()
	if copied != nil {
		r.replaceFile(g, copied)
		r.age(g)
		g.sealed = true
		i++
	} else {
		r.closeFile(g)
		r.remove(g)
	}
	fresh := r.newGeneration(file)
	fresh.aged, fresh.size, fresh.grew, fresh.fresh, fresh.cut = aged, 0, time.Now(), true, true
	r.chain = slices.Insert(r.chain, i, fresh) // at once, so that a copy of it in the making is known for one
	// What was missed comes between the two, but what is older than the copy comes before it: this generation may itself have
	// been read for the first time when it was already followed by another.
	pivot := identity{}
	if copied != nil {
		pivot = identity{copied.info}
	}
	r.insertMissed(i, since, until, identity{file.info}, pivot)
	if copied != nil {
		i = slices.Index(r.chain, g) + 1
	}
	if r.chain[i].gap == nil {
		r.chain[i].gap = gap
	}
	return true, nil
}

// precede inserts what was missed before g, of which nothing was delivered yet. Copies that were made since it was read
// come behind it.
func (r *run) precede(g *generation) bool {
	if !r.present || g != r.live() {
		return false
	}
	_, files := r.missed(r.since, time.Time{}, g.id(), identity{})
	files = slices.DeleteFunc(files, func(h *handle) bool {
		later := h.written().After(g.mtime) && h.written().After(g.filled)
		if later {
			h.release()
		}
		return later
	})
	r.insert(slices.Index(r.chain, g), files)
	return len(files) > 0
}

// truncatedUnread is truncated for a generation of which nothing was read. A copy of it can't be told from a generation
// that was missed then, and it makes no difference.
func (r *run) truncatedUnread(g *generation) {
	r.stat.update(func(s *Stats) { s.Truncations++ })
	var files []*handle
	if r.present && g == r.live() {
		_, files = r.missed(r.since, r.written, g.id(), identity{})
	}
	if g.gap == nil {
		g.gap = &Gap{Count: -1, Bytes: -1, Possible: true, Reason: "the file was truncated"} // a copy may yet be found
	}
	g.size, g.fresh, g.reader.epoch = 0, true, 0
	r.insert(slices.Index(r.chain, g), files)
}

// truncationGap declares what may be missing: what was written after the copy was taken. A copy that holds more than was
// read shows that the file was not quiet, however long it seemed to be.
func truncationGap(g *generation, copied *handle, unread bool) *Gap {
	switch {
	case copied == nil:
		return &Gap{From: g.reader.position(), Count: -1, Bytes: -1, Possible: !unread,
			Reason: "the file was truncated"}
	case time.Since(g.grew) < quietTime || copied.had(g.reader.end()+1):
		return copyGap(g.reader.position(), copied.had(g.size))
	}
	return nil
}

// copyGap declares what may have been written after a copy was taken.
func copyGap(from Position, possible bool) *Gap {
	return &Gap{From: from, Count: -1, Bytes: -1, Possible: possible,
		Reason: "the file was truncated; lines may have been written after it was copied"}
}

// findCopy opens the oldest sibling that holds what the generation remembers and at least as much as was read of it, and that was
// made since.
func (r *run) findCopy(g *generation) *handle {
	list := slices.DeleteFunc(r.steadySiblings(), func(s sibling) bool {
		return s.id.Size() < g.reader.end() && !r.packedName(s.name) || r.isOpen(s.id) || r.untouched(s.id)
	})
	return r.oldest(list, g.mtime, func(h *handle) bool { return g.reader.matches(h) })
}
