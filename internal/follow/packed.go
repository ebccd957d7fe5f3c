package follow

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const gzipExt = ".gz"

// packedName tells by the name what is packed. What is followed is never unpacked, whatever it is called.
func (f *Follower) packedName(name string) bool {
	return strings.HasSuffix(name, gzipExt) && name != f.cfg.Path
}

// A packedFile is a gzip file that reads like the file that was packed. Its Stat is the packed one's: an identity.
type packedFile struct {
	file
	*unpacked
	name    string
	written time.Time // when the file that was packed was last written to
}

func (p packedFile) ReadAt(b []byte, off int64) (int, error) { return p.unpacked.ReadAt(b, off) }

func (p packedFile) Close() error {
	p.unpacked.close()
	return p.file.Close()
}

// unpack makes h read as what is packed in it.
func (h *handle) unpack(name string, written time.Time) *handle {
	h.file = packedFile{h.file, newUnpacked(h.file, h.info.Size()), name, written}
	return h
}

// packed reports whether the bytes are unpacked as they are read.
func (h *handle) packed() bool {
	_, ok := h.file.(packedFile)
	return ok
}

// own makes of the caller's use of a handle one that nobody else reads from, so that two who unpack the same file don't
// send each other back to its beginning.
func (h *handle) own() *handle {
	p, ok := h.file.(packedFile)
	if !ok {
		return h
	}
	shared := sharedFile{p.file, h}
	return &handle{file: packedFile{shared, newUnpacked(p.file, p.length), p.name, p.written}, info: h.info, refs: 1}
}

// A sharedFile is another handle's.
type sharedFile struct {
	file
	h *handle
}

func (s sharedFile) Close() error {
	s.h.release()
	return nil
}

// written is when the file was last written to, as it was when it was opened.
func (h *handle) written() time.Time {
	if p, ok := h.file.(packedFile); ok {
		return p.written
	}
	return h.info.ModTime()
}

// damage is what is wrong with the file's end, if that has been reached.
func (h *handle) damage() error {
	if p, ok := h.file.(packedFile); ok {
		return p.unpacked.damage()
	}
	return nil
}

// reaches reports whether the file has n bytes. Of a packed file it unpacks no more than those.
func (h *handle) reaches(n int64) bool {
	if !h.packed() {
		size, err := h.size()
		return err == nil && size >= n
	}
	m, _ := h.ReadAt(make([]byte, 1), max(n-1, 0))
	return n <= 0 || m == 1
}

// had reports whether the file had n bytes when it was opened.
func (h *handle) had(n int64) bool {
	if h.packed() {
		return h.reaches(n)
	}
	return h.info.Size() >= n
}

// withoutHalfPacked drops a packed file beside which there still is what is being packed. Another one that is left over,
// of another generation, stays.
func (f *Follower) withoutHalfPacked(list []sibling) []sibling {
	return slices.DeleteFunc(list, func(s sibling) bool { return f.packedName(s.name) && f.halfPacked(s) })
}

func (f *Follower) halfPacked(s sibling) bool {
	if s.id.Size() == 0 {
		return true
	}
	plain, err := openHandle(f.fs, strings.TrimSuffix(s.name, gzipExt))
	if err != nil {
		return false
	}
	defer plain.release()
	packed, err := openHandle(f.fs, s.name)
	if err != nil {
		return true
	}
	packed.unpack(s.name, time.Time{})
	defer packed.release()
	n := int64(headSize)
	if !packed.reaches(n) {
		n, err = packed.size()
	}
	return err != nil || begins(plain, packed, n)
}

// means reports whether a name, which means the file id now, means the file that was noted as was. A packed one never changes:
// if it has, it is a new one with the old one's number.
func (f *Follower) means(name string, id, was identity) bool {
	return f.same(id, was) && (!f.packedName(name) || f.unchanged(id, was))
}

// openSame opens a sibling's file by a name, if it still means the same file.
func (f *Follower) openSame(name string, s sibling) (*handle, error) {
	h, err := openHandle(f.fs, name)
	if err != nil {
		return nil, err
	}
	if !f.means(name, identity{h.info}, s.id) {
		h.release()
		return nil, os.ErrNotExist
	}
	if f.packedName(name) {
		h.unpack(name, s.written())
	}
	return h, nil
}

// openPacked finds what has become of a sibling that was packed after it was listed: the one that has its time, which gzip
// and logrotate keep, at least its seconds; or else, as others do not, its name and size.
func (f *Follower) openPacked(s sibling, list []sibling) *handle {
	if f.packedName(s.name) {
		return nil
	}
	var found []sibling
	for _, other := range list {
		if !f.packedName(other.name) {
			continue
		}
		kept, named := other.keptTime(s.id), other.name == s.name+gzipExt
		if named && (kept || f.plainSize(other) == uint32(s.id.Size())) {
			found = []sibling{other}
			break
		}
		if kept {
			found = append(found, other)
		}
	}
	if len(found) != 1 {
		return nil
	}
	h, _ := f.openSame(found[0].name, found[0])
	return h
}

// keptTime reports whether a packed file has the time of a plain one, at least its seconds.
func (s sibling) keptTime(plain identity) bool {
	t, was := s.written(), plain.ModTime()
	return t.Equal(was) || t.Equal(was.Truncate(time.Second))
}

// plainSize is what a packed file says to hold, of several members the last one, modulo 2^32.
func (f *Follower) plainSize(s sibling) uint32 {
	h, err := openHandle(f.fs, s.name)
	if err != nil {
		return 0
	}
	defer h.release()
	var b [4]byte
	h.ReadAt(b[:], max(h.info.Size()-4, 0))
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// writtenBefore reports whether a file was last written to before then. A packed one may have the seconds only.
func (f *Follower) writtenBefore(s sibling, then time.Time) bool {
	t := s.written()
	if f.packedName(s.name) && t.Nanosecond() == 0 {
		then = then.Truncate(time.Second)
	}
	return t.Before(then)
}

// packedHistory reports whether a packed file is what became of a generation in the history.
func (p *replay) packedHistory(s sibling) bool {
	told := p.hist.told()
	if len(told) == 0 || p.writtenBefore(s, p.hist.identity(told[0].src).ModTime()) {
		return false
	}
	h, err := p.open(s)
	if err != nil {
		return false
	}
	defer h.release()
	epoch, _ := readEpoch(h, true)
	return slices.ContainsFunc(told, func(e entry) bool { return e.to.Epoch == epoch && p.belongs(h, e) && tells(h, e.to) })
}

func (f *Follower) onlyPacked(list []sibling) []sibling {
	return slices.DeleteFunc(slices.Clone(list), func(s sibling) bool { return !f.packedName(s.name) })
}

// complete notes that a packed file is: nothing will be appended to it, and nobody knows its size.
func (g *generation) complete() {
	if g.h.packed() {
		g.sealed, g.size = true, maxOffset
	}
}

// wasPacked reports whether the generation was last read from a packed file.
func (g *generation) wasPacked() bool { return g.size == maxOffset }

// A packedCopy is a packed file that holds what is being read. It is noted, since to find out costs unpacking.
type packedCopy struct {
	id  identity
	src *source
}

// knownCopy reports whether a packed file was found to be a copy of a generation that is still being read.
func (f *Follower) knownCopy(id identity) bool {
	f.copies = slices.DeleteFunc(f.copies, func(c packedCopy) bool {
		return !slices.ContainsFunc(f.chain, func(g *generation) bool { return g.src == c.src })
	})
	return slices.ContainsFunc(f.copies, func(c packedCopy) bool { return f.unchanged(c.id, id) })
}

// isPackedCopy is isCopy for a packed file.
func (f *Follower) isPackedCopy(h *handle) bool {
	if !h.reaches(1) {
		return h.damage() == nil
	}
	for _, g := range f.chain {
		if g.h == nil || !g.mayHave(h) {
			continue
		}
		if size, err := h.size(); err == nil && f.copyOf(g, h, size) {
			if t := h.info.ModTime(); time.Since(t) > tick(t) { // else a new one may get its number, time and size
				f.copies = append(f.copies, packedCopy{identity{h.info}, g.src})
			}
			return true
		}
	}
	return false
}

// mayHave tells by the first line whether a file may be a copy of the generation, or of what its file has now.
func (g *generation) mayHave(h *handle) bool {
	epoch, ok := readEpoch(h, false)
	if !ok || epoch == g.reader.epoch {
		return true
	}
	now, ok := readEpoch(g.h, false)
	return !ok || epoch == now
}

// familiarPacked is familiar for a packed file: whatever was packed has lost its identity, so its content is compared with
// all that is remembered, in one pass.
func (f *Follower) familiarPacked(h *handle) bool {
	epoch, _ := readEpoch(h, true)
	var alike []mark
	for _, m := range f.marks {
		if m.pos.Epoch == epoch && m.pos.Offset > 0 {
			alike = append(alike, m)
		}
	}
	slices.SortFunc(alike, func(a, b mark) int { return cmp.Compare(a.pos.Offset, b.pos.Offset) })
	if !slices.ContainsFunc(alike, func(m mark) bool { return f.isOf(h, m) && tells(h, m.pos) }) {
		return false
	}
	f.remember(mark{id: identity{h.info}})
	return true
}

// tells reports whether a position in a file is one of that file only: its end, or one after more than the first line, which
// may be a header that others have too.
func tells(h *handle, pos Position) bool {
	var head [headSize]byte
	n, _ := h.ReadAt(head[:], 0)
	first := strings.IndexByte(string(head[:n]), '\n') + 1
	return first == 0 || pos.Offset > uint64(first) || !h.reaches(int64(pos.Offset)+1)
}

// findPacked opens the packed file that shows all that was read of a generation. Where that is nothing, its time and size
// tell.
func (r *run) findPacked(g *generation, list []sibling) *handle {
	list = slices.DeleteFunc(r.onlyPacked(list), func(s sibling) bool { return r.isOpen(s.id) })
	if g.last.end == 0 {
		if g.sealed {
			return nil
		}
		was := g.src.info
		fits := func(h *handle) bool { return h.reaches(was.Size()) && !h.reaches(was.Size()+1) }
		list = slices.DeleteFunc(list, func(s sibling) bool { return !s.keptTime(was) })
		if len(list) > 1 { // of one tick of the clock
			list = slices.DeleteFunc(list, func(s sibling) bool {
				h := r.openIf(s, fits)
				if h != nil {
					h.release()
				}
				return h == nil
			})
		}
		if len(list) != 1 {
			return nil
		}
		return r.openIf(list[0], fits)
	}
	_, h := r.locate(list, identity{}, g.shownBy)
	return h
}

// shownBy reports whether a file shows all that was read of a generation.
func (g *generation) shownBy(h *handle) bool { return g.reader.matches(h) && g.last.on(h) }

// drainPacked is drain for a file that is complete, and of which nobody knows how long it is before it is unpacked.
func (r *run) drainPacked(g *generation) (moved bool, err error) {
	limit := g.reader.end() + turnSize
	n, err := g.reader.pump(limit, ending{}, r.batch.space(), r.deliverTo(g))
	switch {
	case errors.As(err, new(halt)):
		return true, err
	case err != nil && !errors.Is(err, errChanged):
		r.fail(err)
		return false, nil
	}
	if err == nil && g.reader.end() == limit {
		return n > 0, nil
	}
	if err := g.h.damage(); err != nil {
		r.damaged(g.h, err)
		if err := r.flush(g, true); err != nil {
			return true, err
		}
		if err := r.deliverGap(damageGap(g.reader.position())); err != nil {
			return true, err
		}
	}
	return true, r.end(g)
}

func damageGap(from Position) *Gap {
	return &Gap{From: from, Count: -1, Bytes: -1, Possible: true, Reason: "a compressed file is damaged"}
}

// damaged reports a damaged file, once.
func (f *Follower) damaged(h *handle, err error) {
	id := identity{h.info}
	f.damages.Lock()
	told := slices.ContainsFunc(f.damages.told, func(other identity) bool { return f.unchanged(other, id) })
	if !told {
		f.damages.told = append(f.damages.told[max(0, len(f.damages.told)-maxMembers):], id)
	}
	f.damages.Unlock()
	if told {
		return
	}
	err = fmt.Errorf("%s: %w", h.file.(packedFile).name, err)
	f.stat.update(func(s *Stats) { s.LastError = err })
	if f.cfg.Report != nil {
		f.cfg.Report(EventDamaged, err)
	}
}

// damages are the damaged files that were reported.
type damages struct {
	sync.Mutex
	told []identity
}

// wholePacked delivers a packed file to its end. It is complete.
func (p *replay) wholePacked(h *handle) error {
	if err := p.read(math.MaxInt64, ending{}); err != nil {
		return err
	}
	if err := p.read(p.reader.end(), ending{final: true}); err != nil {
		return err
	}
	if err := p.endedInHole(); err != nil {
		return err
	}
	if err := h.damage(); err != nil {
		p.damaged(h, err)
		return p.declare(damageGap(p.after))
	}
	return nil
}
