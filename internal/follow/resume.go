package follow

import (
	"slices"
)

// reopen opens again what an earlier Run, or an earlier process, was reading. Where it can't be told what is there it returns
// false: it has to be called again.
func (r *run) reopen() bool {
	if !r.started && r.cfg.After != (Position{}) {
		return r.resumeAfter(r.cfg.After)
	}
	faults := r.fs.faults.Load()
	found := r.findAll()
	if slices.Contains(found, nil) && r.unsure(faults) {
		releaseAll(found)
		return false
	}
	for i, g := range slices.Clone(r.chain) {
		if h := found[i]; h != nil {
			r.replaceFile(g, h)
		} else {
			r.lose(g)
		}
	}
	if r.restored {
		r.rememberPast()
	}
	return true
}

// findAll finds the files of all generations, as far as they are there: none for two. It begins again where one was renamed or
// packed meanwhile, and so was not found.
func (r *run) findAll() []*handle {
	found := make([]*handle, len(r.chain))
	for try := 0; len(found) > 0; try++ {
		list := r.steady(r.files)
		left := slices.Clone(list)
		for i, g := range slices.Backward(r.chain) {
			h := r.findAgain(g, left)
			if found[i] = h; h != nil {
				left = slices.DeleteFunc(left, func(s sibling) bool { return r.same(s.id, identity{h.info}) })
			}
		}
		if try == 20 || !slices.Contains(found, nil) || r.alike(list, r.files()) {
			break
		}
		releaseAll(found)
	}
	return found
}

func releaseAll(files []*handle) {
	for _, h := range files {
		if h != nil {
			h.release()
		}
	}
}

// findAgain prefers the same file. What the path names may have other content: the next look will see that it was truncated.
// Under another name that is another generation, which is looked for among those that were missed, by its time. Another
// one with the same content is looked for only where there may be more in it: of an old generation that was read to its
// end nothing can be missing, and a newer one that begins alike must not be taken for it.
func (r *run) findAgain(g *generation, list []sibling) *handle {
	done := !g.aged.IsZero() && g.rest() <= 0
	for _, s := range list {
		if !r.same(g.src.info, s.id) || (g.wasPacked() || r.packedName(s.name)) && !r.unchanged(g.src.info, s.id) ||
			done && s.name == r.cfg.Path { // it is a new one with the old one's inode
			continue
		}
		h, err := r.open(s)
		if err != nil {
			continue
		}
		live, empty := g.aged.IsZero(), g.last.end == 0 && g.size == 0
		if live && s.name == r.cfg.Path || !(live && empty) && g.shownBy(h) {
			return h
		}
		h.release() // it was removed meanwhile, and a new file has its number
	}
	if done && tellsFiles(g.src.info, list) {
		list = r.onlyPacked(list) // one that was packed meanwhile may have its last lines
	}
	if done && len(list) > 0 && list[len(list)-1].name == r.cfg.Path {
		list = list[:len(list)-1]
	}
	right := func(h *handle) bool { return holds(h, g.reader.position()) && (!h.packed() || g.shownBy(h)) }
	h := r.oldest(list, g.mtime, right)
	if h == nil {
		_, h = r.locate(list, identity{}, right)
	}
	if h == nil {
		h = r.findPacked(g, list)
	}
	return h
}

// lose gives a generation up that is nowhere any more. If it was old, and read to its end, nothing is missing.
func (r *run) lose(g *generation) {
	i := slices.Index(r.chain, g)
	r.remove(g)
	gap := g.gap
	if gap == nil && (g.rest() > 0 || g.aged.IsZero() && g.reader.end() > 0) {
		gap = &Gap{From: g.reader.position(), Count: -1, Bytes: -1, Possible: g.rest() == 0,
			Reason: "the file was removed while it was not followed"}
	}
	switch {
	case gap == nil:
	case i < len(r.chain) && r.chain[i].gap == nil:
		r.chain[i].gap = gap
	case i == len(r.chain):
		r.gap = gap
	}
}

// resumeAfter opens the file that an earlier process's position is in, and all that are newer.
func (r *run) resumeAfter(pos Position) bool {
	faults := r.fs.faults.Load()
	list := r.steady(r.files)
	i, h := r.locate(list, identity{}, with(pos))
	if h == nil && r.unsure(faults) {
		return false
	}
	r.started = true
	if h == nil {
		r.rememberAll(r.siblings())
		r.gap = &Gap{From: pos, Count: -1, Bytes: -1, Reason: "the position to go on after is in no file"}
		return true
	}
	r.last = pos
	r.rememberAll(list[:i])
	r.chain = append(r.chain, r.newGeneration(h))
	g := r.chain[0]
	if err := g.reader.seek(int64(pos.Offset)); err != nil {
		r.fail(err)
	}
	r.hist.start(g.src, pos, 0)
	for _, s := range list[i+1:] {
		if h, err := r.open(s); err == nil && r.chainIndex(identity{h.info}) < 0 {
			r.age(r.live())
			r.chain = append(r.chain, r.newGeneration(h))
		} else if err == nil {
			h.release()
		}
	}
	return true
}
