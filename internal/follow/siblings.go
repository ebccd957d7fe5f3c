package follow

import (
	"cmp"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An identity says which file it is, for as long as that file is open or not removed. After that a new file may get the
// same one, so content decides wherever an identity is old.
type identity struct{ os.FileInfo }

func (id identity) known() bool { return id.FileInfo != nil }

func (f *Follower) same(a, b identity) bool {
	return a.known() && b.known() && (f.fs.Same(a.FileInfo, b.FileInfo) || sameSaved(a, b))
}

// unchanged reports that nobody has touched the file since a was noted, so that it can't be a new one by the same identity.
func (f *Follower) unchanged(a, b identity) bool {
	return f.same(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// A sibling is a file that the live one may have become.
type sibling struct {
	name string
	id   identity
	time time.Time // when its content was last written; of a packed file that may be older than the file
}

// written is when its content was last written.
func (s sibling) written() time.Time {
	if s.time.IsZero() {
		return s.id.ModTime()
	}
	return s.time
}

// siblings lists the rotated files, oldest first.
func (f *Follower) siblings() []sibling {
	var list []sibling
	for _, name := range f.siblingNames() {
		info, err := f.fs.Stat(name)
		if err == nil && regular(info) == nil && !unreadable(name) {
			list = append(list, sibling{name: name, id: identity{info}})
		}
	}
	list = f.withoutHalfPacked(list)
	f.datePacked(list)
	slices.SortStableFunc(list, byAge)
	return list
}

// unreadable are the files of compressors other than gzip.
func unreadable(name string) bool {
	return slices.Contains([]string{".bz2", ".xz", ".zst", ".lz4", ".zip", ".Z"}, filepath.Ext(name))
}

func compressed(name string) bool { return strings.HasSuffix(name, gzipExt) || unreadable(name) }

// siblingNames follows symbolic links: what a link's target becomes lies beside the target.
func (f *Follower) siblingNames() []string {
	paths := []string{f.cfg.Path}
	if target, err := f.fs.Resolve(f.cfg.Path); err == nil && target != f.cfg.Path {
		paths = append(paths, target)
	}
	var names []string
	if f.cfg.Rotated != "" {
		names, _ = f.fs.Glob(f.cfg.Rotated)
	} else {
		for _, path := range paths {
			names = append(names, f.defaultSiblings(path)...)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return slices.Contains(paths, name) || f.isCheckpoint(name) })
}

func (f *Follower) defaultSiblings(path string) []string {
	dir, base := filepath.Split(path)
	var names []string
	for _, name := range f.neighbours(filepath.Dir(path), base) {
		if rotatedName(base, name) {
			names = append(names, dir+name)
		}
	}
	return names
}

// rotatedName knows app.log.1, app.log-20260101, app.log.old, and app-20260101.log, and each of them with .gz. An editor's or a
// program's app.log.swp and app.log.offset are none.
func rotatedName(base, name string) bool {
	name = strings.TrimSuffix(name, gzipExt)
	if mark, ok := strings.CutPrefix(name, base); ok {
		return rotationMark(mark)
	}
	ext := filepath.Ext(base)
	mark, ok := strings.CutPrefix(name, strings.TrimSuffix(base, ext))
	mark, hasExt := strings.CutSuffix(mark, ext)
	return ok && hasExt && rotationMark(mark)
}

func rotationMark(s string) bool {
	if len(s) < 2 || !strings.Contains(".-_", s[:1]) {
		return false
	}
	s = s[1:]
	return strings.Trim(s, "0123456789.-_:+TZ") == "" || slices.Contains([]string{"old", "bak", "prev", "last"}, s)
}

// byAge orders by modification time, and within one tick of the file system's clock by birth, or else by name. The birth of a
// packed file is not that of its content.
func byAge(a, b sibling) int {
	if n := a.written().Compare(b.written()); n != 0 || compressed(a.name) || compressed(b.name) {
		return cmp.Or(n, byName(a, b))
	}
	switch {
	case bornBefore(a.id, b.id):
		return -1
	case bornBefore(b.id, a.id):
		return 1
	}
	return byName(a, b)
}

// byName knows that the numbers of logrotate count down, and dates count up.
func byName(a, b sibling) int {
	m, errM := rotationNumber(a.name)
	n, errN := rotationNumber(b.name)
	if errM == nil && errN == nil {
		return cmp.Compare(n, m)
	}
	return cmp.Compare(a.name, b.name)
}

func rotationNumber(name string) (int, error) {
	s := strings.TrimPrefix(filepath.Ext(strings.TrimSuffix(name, gzipExt)), ".")
	if len(s) > 5 {
		return 0, strconv.ErrRange // a date
	}
	return strconv.Atoi(s)
}

// files lists the siblings and then the live file, which is the newest whatever its time says.
func (f *Follower) files() []sibling {
	list := f.siblings()
	if info, err := f.fs.Stat(f.cfg.Path); err == nil && regular(info) == nil {
		list = append(list, sibling{name: f.cfg.Path, id: identity{info}})
	}
	return list
}

// open opens a sibling. Its name may mean another file by now: then it is looked for under the others.
func (f *Follower) open(s sibling) (*handle, error) {
	h, err := f.openSame(s.name, s)
	if err == nil {
		return h, nil
	}
	for range 20 { // it may be renamed once more between finding and opening it
		list := append(f.steadySiblings(), sibling{name: f.cfg.Path})
		i := slices.IndexFunc(list, func(other sibling) bool { return f.means(other.name, other.id, s.id) })
		if i < 0 {
			if h := f.openPacked(s, list); h != nil {
				return h, nil
			}
			i = len(list) - 1
		}
		if h, err := f.openSame(list[i].name, s); err == nil {
			return h, nil
		}
		if list[i].name == f.cfg.Path {
			break // it is nowhere
		}
	}
	return nil, err
}

// locate finds a file by its content: the one with that identity if its content is right, else the newest with the right
// content. It returns an index into list and the open file.
func (f *Follower) locate(list []sibling, id identity, right func(*handle) bool) (int, *handle) {
	for _, byIdentity := range []bool{true, false} {
		for i, s := range slices.Backward(list) {
			if f.same(id, s.id) != byIdentity {
				continue
			}
			if h := f.openIf(s, right); h != nil {
				return i, h
			}
		}
	}
	return -1, nil
}

// oldest opens the oldest file with the right content that was written to since then. Of generations that begin alike, which are
// not told apart by what was read of the first, the others come after it, and none of them is lost.
func (f *Follower) oldest(list []sibling, since time.Time, right func(*handle) bool) *handle {
	for _, s := range list {
		if f.writtenBefore(s, since) {
			continue
		}
		if h := f.openIf(s, right); h != nil {
			return h
		}
	}
	return nil
}

// with is for locate: the file that a position is in.
func with(pos Position) func(*handle) bool {
	return func(h *handle) bool { return holds(h, pos) }
}

func (f *Follower) openIf(s sibling, right func(*handle) bool) *handle {
	h, err := f.open(s)
	if err != nil {
		return nil
	}
	if !right(h) {
		h.release()
		return nil
	}
	return h
}

// A mark remembers a file that was read, or was there before, so that it isn't taken for a generation that was missed.
type mark struct {
	id        identity
	pos       Position // a place in it
	src       *source  // nil for what was there before
	truncated bool     // it ended by truncation, so a copy of it may turn up under a new identity
}

const maxMarks = 4096

func (f *Follower) remember(m mark) {
	f.marks = append(f.marks, m)
	if len(f.marks) > maxMarks {
		f.marks = slices.Delete(f.marks, 0, maxMarks/4)
	}
}

// rememberAll marks files that belong to the past.
func (f *Follower) rememberAll(list []sibling) {
	for _, s := range list {
		m := mark{id: s.id}
		if f.packedName(s.name) { // by another name it is known by its identity, and to unpack it costs too much
		} else if h, err := f.open(s); err == nil {
			m.pos = positionIn(h, s.id.Size())
			h.release()
		}
		f.remember(m)
	}
}

// steadySiblings lists the siblings twice in the same way.
func (f *Follower) steadySiblings() []sibling { return f.steady(f.siblings) }

// steady takes a list until it is twice the same: while logrotate moves one name after another, a file can be between two names
// that were read. It gives up where names never rest; the next scan may have more luck.
func (f *Follower) steady(take func() []sibling) []sibling {
	list := take()
	for range 20 {
		again := take()
		if f.alike(list, again) {
			return again
		}
		list = again
	}
	return list
}

// alike reports whether two lists have the same files under the same names.
func (f *Follower) alike(a, b []sibling) bool {
	return slices.EqualFunc(a, b, func(a, b sibling) bool { return a.name == b.name && f.same(a.id, b.id) })
}

// missed opens the generations that came and went between two looks: siblings that nobody knows, and that were written
// to since the live file was last seen. The ones that are younger than the live file was when it was opened, at until, belong
// behind it, and are left to the next look, which finds another live file: but not those that were born before it, and have a
// writer that is late. Those that come before pivot, a sibling that is known, are told apart.
func (f *Follower) missed(since, until time.Time, live, pivot identity) (before, found []*handle) {
	faults := f.fs.faults.Load()
	list := f.steadySiblings()
	if f.fs.faults.Load() != faults {
		return nil, nil // another scan will tell
	}
	for _, s := range list {
		if f.same(s.id, live) {
			break
		}
		if !until.IsZero() && s.written().After(until) && (f.packedName(s.name) || !bornBefore(s.id, live)) {
			continue
		}
		if f.same(s.id, pivot) {
			before, found = found, nil
			continue
		}
		if f.writtenBefore(s, since) || f.isOpen(s.id) || f.untouched(s.id) || f.knownCopy(s.id) {
			continue
		}
		h, err := f.open(s)
		if err != nil {
			continue
		}
		if h.info.Size() == 0 { // (a packed file never is) a copy of nothing, or one in the making: then it will have changed
			f.remember(mark{id: identity{h.info}})
			f.blank = h.info.ModTime()
		}
		if faults := f.fs.faults.Load(); f.isCopy(h) || f.familiar(h) || f.fs.faults.Load() != faults {
			h.release()
			continue
		}
		found = append(found, h)
	}
	return before, found
}

// bornBefore reports whether a file came into being before another, as far as is known.
func bornBefore(a, b identity) bool {
	if !a.known() || !b.known() {
		return false
	}
	born, then := birthOf(a.FileInfo), birthOf(b.FileInfo)
	return !born.IsZero() && !then.IsZero() && born.Before(then)
}

// isCopy reports whether h holds the content of a generation that is being read, or the beginning of it: a copy that was
// made, or is being made, before a truncation that has not been seen yet. An empty file is the beginning of anything.
func (f *Follower) isCopy(h *handle) bool {
	if h.packed() {
		return f.isPackedCopy(h)
	}
	size, err := h.size()
	if err != nil {
		return false
	}
	return size == 0 || slices.ContainsFunc(f.chain, func(g *generation) bool { return g.h != nil && f.copyOf(g, h, size) })
}

// copyOf is isCopy for one generation.
func (f *Follower) copyOf(g *generation, h *handle, size int64) bool {
	if g.intact() {
		if begins(g.h, h, size) {
			return true
		}
		if g.intact() { // and was so in between
			return false
		}
	}
	if size >= g.reader.end() && g.reader.known() && g.reader.matches(h) || begins(g.h, h, size) || g.reader.beginsWith(h, size) {
		return true
	}
	return size < g.reader.end() && f.hist.beginsLike(g.src, h, size) // it may have been truncated by now
}

// intact reports whether the generation's file still has what was read of it: then a copy has nothing else.
func (g *generation) intact() bool {
	if g.h.packed() {
		return true
	}
	size, err := g.h.size()
	return err == nil && size >= g.reader.end() && g.reader.matches(g.h)
}

// begins reports whether the first size bytes of a file and of another are the same, as far as their heads and the last
// bytes before size tell.
func begins(a, b io.ReaderAt, size int64) bool {
	var heads [2][headSize]byte
	want := min(size, headSize)
	m, _ := a.ReadAt(heads[0][:want], 0)
	n, _ := b.ReadAt(heads[1][:want], 0)
	if m != n || int64(n) != want || heads[0] != heads[1] {
		return false
	}
	return size < headSize || holds(a, positionIn(b, size))
}

func (f *Follower) isOpen(id identity) bool { return f.chainIndex(id) >= 0 }

func (f *Follower) untouched(id identity) bool {
	return slices.ContainsFunc(f.marks, func(m mark) bool { return f.unchanged(m.id, id) })
}

// familiar compares content. The same content under another identity is a copy where the original was truncated, and
// otherwise a generation that happens to look the same.
func (f *Follower) familiar(h *handle) bool {
	if h.packed() {
		return f.familiarPacked(h)
	}
	id := identity{h.info}
	for _, m := range f.marks {
		if (m.truncated || f.same(m.id, id)) && f.isOf(h, m) {
			return true
		}
	}
	return false
}

// isOf reports whether h holds the marked generation, or as much of it as was copied before its last lines were written.
func (f *Follower) isOf(h *handle, m mark) bool {
	if m.src != nil && !h.reaches(int64(m.pos.Offset)) {
		if size, err := h.size(); err == nil {
			return f.hist.beginsLike(m.src, h, size)
		}
	}
	return m.pos.Offset > 0 && holds(h, m.pos)
}
