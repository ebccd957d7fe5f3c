package follow

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The checkpoint's format: a first line that names format, version and the followed file; then a JSON object in each line, with
// one key that says what it is; and a last line with the CRC-32C of all that stands before it.
const (
	savedFormat  = "tailcast checkpoint "
	savedVersion = 1
	savedEnd     = "end "
	maxOffset    = 1 << 62 // no file is so large, and there is room to add to it
)

// A saved is all that a Follower has to know to go on as if there had been no end.
type saved struct {
	state       savedState
	sources     []savedSource // of the history, oldest first
	generations []savedGeneration
	order       []savedEntry
	marks       []savedMark
}

// A record is a line: one of them is there.
type record struct {
	State      *savedState      `json:"state,omitempty"`
	Source     *savedSource     `json:"source,omitempty"`
	Generation *savedGeneration `json:"generation,omitempty"`
	Order      *savedEntry      `json:"order,omitempty"`
	Mark       *savedMark       `json:"mark,omitempty"`
}

type savedState struct {
	Last  place       `json:"last,omitzero"` // of the last line that was delivered
	Gap   *Gap        `json:"gap,omitempty"` // to be declared
	Begin *savedEntry `json:"begin,omitempty"`
}

// A savedFile is an identity. Device and inode are zero where the system has none.
type savedFile struct {
	Dev   uint64 `json:"dev,omitempty"`
	Ino   uint64 `json:"ino,omitempty"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`          // times are in ns since 1970
	Born  int64  `json:"born,omitempty"` // where the file system tells
}

type savedSource struct {
	File      savedFile `json:"file"`
	Head      []byte    `json:"head,omitzero"` // its first bytes
	Landmarks []place   `json:"landmarks,omitempty"`
	Spacing   uint64    `json:"spacing,omitempty"`
	Hole      uint64    `json:"hole,omitempty"` // the size of the one that it begins with
}

type savedGeneration struct {
	Source int       `json:"source"`
	At     place     `json:"at,omitzero"`     // after the last line that was delivered
	Before []byte    `json:"before,omitzero"` // the bytes before that
	Head   []byte    `json:"head,omitzero"`   // the file's first bytes
	Read   savedRead `json:"read"`
	Size   int64     `json:"size"`
	Grew   int64     `json:"grew,omitempty"`
	Mtime  int64     `json:"mtime,omitempty"`
	Born   int64     `json:"born,omitempty"`
	Aged   int64     `json:"aged,omitempty"`
	Sealed bool      `json:"sealed,omitempty"`
	Cut    bool      `json:"cut,omitempty"`
	Gap    *Gap      `json:"gap,omitempty"`
}

// A savedRead is an imprint.
type savedRead struct {
	End   int64  `json:"end"`
	Bytes []byte `json:"bytes,omitzero"`
}

type savedEntry struct {
	Source  int   `json:"source"` // -1 for a gap
	From    place `json:"from,omitzero"`
	To      place `json:"to,omitzero"`
	Partial bool  `json:"partial,omitempty"`
	Gap     *Gap  `json:"gap,omitempty"`
}

type savedMark struct {
	File      savedFile `json:"file"`
	At        place     `json:"at,omitzero"`
	Source    int       `json:"source"` // -1 for none
	Truncated bool      `json:"truncated,omitempty"`
}

// A place is a Position in the text form that clients know, so that a checkpoint and an event's id can be compared by eye.
type place Position

func (p place) MarshalText() ([]byte, error) {
	b := strconv.AppendUint([]byte{'1'}, p.Epoch, 36)
	b = strconv.AppendUint(append(b, '.'), p.Offset, 36)
	return strconv.AppendUint(append(b, '.'), uint64(p.Check), 36), nil
}

func (p *place) UnmarshalText(text []byte) (err error) {
	version, numbers := "", strings.Split(string(text), ".")
	if len(numbers[0]) > 0 {
		version, numbers[0] = numbers[0][:1], numbers[0][1:]
	}
	var n [3]uint64
	if version != "1" || len(numbers) != len(n) {
		return fmt.Errorf("%.40q is no position", text)
	}
	for i, bits := range []int{64, 64, 32} {
		if n[i], err = strconv.ParseUint(numbers[i], 36, bits); err != nil {
			return fmt.Errorf("%.40q is no position", text)
		}
	}
	*p = place{n[0], n[1], uint32(n[2])}
	if p.Epoch == 0 || p.Offset > maxOffset {
		return fmt.Errorf("%.40q is no position in a file", text)
	}
	return nil
}

// encode makes a file of it.
func (s *saved) encode(path string) []byte {
	b := fmt.Appendf(nil, "%s%d of %q\n", savedFormat, savedVersion, path)
	add := func(r record) {
		line, err := json.Marshal(r)
		if err != nil {
			panic("follow: a checkpoint can't be encoded: " + err.Error()) // numbers and strings always can
		}
		b = append(append(b, line...), '\n')
	}
	add(record{State: &s.state})
	for i := range s.sources {
		add(record{Source: &s.sources[i]})
	}
	for i := range s.generations {
		add(record{Generation: &s.generations[i]})
	}
	for i := range s.order {
		add(record{Order: &s.order[i]})
	}
	for i := range s.marks {
		add(record{Mark: &s.marks[i]})
	}
	return fmt.Appendf(b, "%s%08x\n", savedEnd, crc32.Checksum(b, castagnoli))
}

// decodeCheckpoint reads what encode has made for the same path. Its errors say what is wrong, and in which line.
func decodeCheckpoint(data []byte, path string) (*saved, error) {
	if len(data) > maxCheckpoint {
		return nil, fmt.Errorf("it is larger than %d MiB: it is no checkpoint", maxCheckpoint>>20)
	}
	first, _, _ := bytes.Cut(data, []byte("\n"))
	rest, ok := bytes.CutPrefix(first, []byte(savedFormat))
	if !ok {
		return nil, fmt.Errorf("line 1: it does not begin with %q: it is no checkpoint", savedFormat)
	}
	version, quoted, _ := strings.Cut(string(rest), " of ")
	n, err := strconv.Atoi(version)
	switch {
	case err != nil:
		return nil, fmt.Errorf("line 1: %.20q is no version", version)
	case n > savedVersion:
		return nil, fmt.Errorf("line 1: it has version %d, of a newer release; this one knows version %d", n, savedVersion)
	case n != savedVersion:
		return nil, fmt.Errorf("line 1: version %d is unknown", n)
	}
	end := bytes.LastIndex(data, []byte("\n"+savedEnd)) + 1
	if end == 0 || string(data[end:]) != fmt.Sprintf("%s%08x\n", savedEnd, crc32.Checksum(data[:end], castagnoli)) {
		return nil, fmt.Errorf("line %d: the checksum is missing or wrong: it was cut off or changed", bytes.Count(data, []byte("\n"))+1)
	}
	of, err := strconv.Unquote(quoted)
	if err != nil {
		return nil, fmt.Errorf("line 1: %.40q is no quoted path", quoted)
	}
	if of != path {
		return nil, fmt.Errorf("line 1: it is of %s, not of %s", of, path)
	}
	s := &saved{}
	for i, line := range bytes.Split(data[:end-1], []byte("\n"))[1:] {
		if err := s.decodeLine(line, i == 0); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
	}
	return s, s.check()
}

var errRecord = errors.New("exactly one known record must be in a line, the state in the first")

func (s *saved) decodeLine(line []byte, first bool) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var r record
	if err := dec.Decode(&r); err != nil {
		return err
	}
	if dec.InputOffset() != int64(len(line)) {
		return errRecord
	}
	n := 0
	if r.State != nil {
		s.state = *r.State
		n++
	}
	if first != (n == 1) {
		return errRecord
	}
	if r.Source != nil {
		s.sources = append(s.sources, *r.Source)
		n++
	}
	if r.Generation != nil {
		s.generations = append(s.generations, *r.Generation)
		n++
	}
	if r.Order != nil {
		s.order = append(s.order, *r.Order)
		n++
	}
	if r.Mark != nil {
		s.marks = append(s.marks, *r.Mark)
		n++
	}
	if n != 1 {
		return errRecord
	}
	return nil
}

// check refuses what no Follower can have written.
func (s *saved) check() error {
	bad := func(what string, i int) error { return fmt.Errorf("%s %d makes no sense", what, i) }
	used := make(map[int]bool)
	for i, g := range s.generations {
		at := int64(g.At.Offset)
		known := min(at, checkSize)
		switch {
		case g.Source < 0 || g.Source >= len(s.sources) || used[g.Source],
			int64(len(g.Before)) != known || checkOf(g.Before) != g.At.Check,
			len(g.Head) > keptHead, int64(len(g.Read.Bytes)) > min(g.Read.End, checkSize),
			g.Read.End < at, g.Read.End > maxOffset, g.Size < 0, g.Size > maxOffset:
			return bad("generation", i)
		}
		used[g.Source] = true
	}
	spans := s.order
	if s.state.Begin != nil {
		spans = append(slices.Clone(spans), *s.state.Begin)
	}
	for i, e := range spans {
		switch {
		case e.Gap != nil && e.Source == -1 && i < len(s.order):
		case e.Gap != nil || e.Source < 0 || e.Source >= len(s.sources),
			e.From.Epoch != e.To.Epoch || e.From.Offset > e.To.Offset:
			return bad("order", i)
		}
	}
	for i, src := range s.sources {
		if len(src.Head) > keptHead || !slices.IsSortedFunc(src.Landmarks, func(a, b place) int { return cmp.Compare(a.Offset, b.Offset) }) {
			return bad("source", i)
		}
	}
	for i, m := range s.marks {
		if m.Source < -1 || m.Source >= len(s.sources) {
			return bad("mark", i)
		}
	}
	return nil
}

// snapshot is the state as it is. It is taken between two batches, and after Run.
func (f *Follower) snapshot() *saved {
	s := &saved{state: savedState{Last: place(f.last), Gap: f.gap}}
	marks := f.marks[max(0, len(f.marks)-checkpointMarks):]
	index := f.hist.save(s, f.chain, marks)
	for _, g := range f.chain {
		s.generations = append(s.generations, saveGeneration(g, index(g.src)))
	}
	for _, m := range marks {
		s.marks = append(s.marks, savedMark{saveFile(m.id), place(m.pos), index(m.src), m.truncated})
	}
	return s
}

func saveGeneration(g *generation, src int) savedGeneration {
	r, read, size := &g.reader, g.last, g.size
	if g.h != nil {
		read = r.imprint()
		if !g.h.packed() { // what a look has not seen to its end may be more than it says
			if now, err := g.h.size(); err == nil {
				size = max(size, now)
			}
		}
	}
	if read.end < r.offset() { // it is in no file, and has been in none since
		read = imprint{r.offset(), r.buf[max(0, r.next-checkSize):r.next]}
	}
	return savedGeneration{
		Source: src, At: place(r.position()), Before: bytes.Clone(r.before()), Head: bytes.Clone(r.head),
		Read: savedRead{read.end, read.bytes}, Size: size, Grew: nanos(g.grew), Mtime: nanos(g.mtime), Born: nanos(g.born), Aged: nanos(g.aged),
		Sealed: g.sealed, Cut: g.cut, Gap: g.gap,
	}
}

// restore is the other side of snapshot. The files are opened by reopen.
func (f *Follower) restore(s *saved) {
	sources := f.hist.restore(s)
	for _, sg := range s.generations {
		g := &generation{
			src: sources[sg.Source], gap: sg.Gap, sealed: sg.Sealed, cut: sg.Cut, fresh: sg.At.Offset == 0, size: sg.Size,
			grew: sg.time(sg.Grew), mtime: sg.time(sg.Mtime), born: sg.time(sg.Born), aged: sg.time(sg.Aged), last: imprint{sg.Read.End, sg.Read.Bytes},
		}
		g.reader = reader{
			maxLine: f.cfg.MaxLine, epoch: sg.At.Epoch, base: int64(sg.At.Offset) - int64(len(sg.Before)),
			buf: slices.Clone(sg.Before), next: len(sg.Before), head: slices.Clone(sg.Head),
		}
		f.chain = append(f.chain, g)
	}
	for _, m := range s.marks {
		mark := mark{id: m.File.identity(), pos: Position(m.At), truncated: m.Truncated}
		if m.Source >= 0 {
			mark.src = sources[m.Source]
		}
		f.remember(mark)
	}
	f.gap, f.last, f.started = s.state.Gap, Position(s.state.Last), true
}

// rememberPast marks the siblings for whose marks the checkpoint had no room: those that are older than the first one it had.
func (f *Follower) rememberPast() {
	if len(f.marks) < checkpointMarks {
		return
	}
	first := f.marks[0].id
	f.rememberAll(slices.DeleteFunc(f.siblings(), func(s sibling) bool {
		return !s.id.ModTime().Before(first.ModTime()) || f.isOpen(s.id) || f.untouched(s.id)
	}))
}

// save adds the history's end to s: its last entries, and the sources that they and the given generations and marks are of. It
// returns the number that a source has there, -1 for none.
func (h *history) save(s *saved, chain []*generation, marks []mark) (index func(*source) int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	entries := h.entries[h.clean(checkpointEntries):]
	begin := h.begin
	if len(entries) < len(h.entries) {
		begin = entry{}
		if i := slices.IndexFunc(entries, func(e entry) bool { return e.src != nil }); i >= 0 {
			begin = entry{src: entries[i].src, from: entries[i].from, to: entries[i].from}
		}
	}
	needed := map[*source]bool{begin.src: true}
	for i := range entries {
		needed[entries[i].src] = true
	}
	for _, g := range chain {
		needed[g.src] = true
	}
	for _, m := range marks[max(0, len(marks)-8):] { // for copies of what was truncated lately
		needed[m.src] = true
	}
	delete(needed, nil)
	number := make(map[*source]int)
	for _, src := range h.sources {
		if needed[src] {
			number[src] = len(s.sources)
			s.sources = append(s.sources, saveSource(src))
		}
	}
	index = func(src *source) int {
		if n, ok := number[src]; ok {
			return n
		}
		return -1
	}
	for _, g := range chain { // one of which the history knows nothing any more
		if index(g.src) < 0 {
			number[g.src] = len(s.sources)
			s.sources = append(s.sources, saveSource(g.src))
		}
	}
	if index(begin.src) >= 0 {
		s.state.Begin = &savedEntry{Source: index(begin.src), From: place(begin.from), To: place(begin.to)}
	}
	for _, e := range entries {
		s.order = append(s.order, savedEntry{index(e.src), place(e.from), place(e.to), e.partial, e.gap})
	}
	return index
}

// clean finds where to begin with at most limit entries, so that all that stands before is in files that are older, and in the
// first one's file before it: then a replay that reads files as far as there misses nothing, and repeats nothing. Where there
// is no such place, because late lines came all the time, it is as near as can be.
func (h *history) clean(limit int) int {
	least := max(0, len(h.entries)-limit)
	if least == 0 {
		return 0
	}
	last := make(map[*source]int) // where each source comes last
	for i := range h.entries {
		last[h.entries[i].src] = i
	}
	begun := make(map[*source]bool) // and those that came before an entry and come again
	for i := range h.entries {
		src := h.entries[i].src
		if i >= least && src != nil && (len(begun) == 0 || len(begun) == 1 && begun[src]) {
			return i
		}
		if src != nil {
			begun[src] = true
			if last[src] == i {
				delete(begun, src)
			}
		}
	}
	return least
}

// restore is the other side of save.
func (h *history) restore(s *saved) []*source {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.broadcast()
	for _, ss := range s.sources {
		src := &source{info: ss.File.identity(), head: ss.Head, spacing: ss.Spacing, hole: ss.Hole}
		for _, at := range ss.Landmarks {
			src.landmarks = append(src.landmarks, Position(at))
		}
		h.sources = append(h.sources, src)
	}
	for _, e := range s.order {
		restored := entry{from: Position(e.From), to: Position(e.To), partial: e.Partial, gap: e.Gap}
		if e.Source >= 0 {
			restored.src = h.sources[e.Source]
		}
		h.entries = append(h.entries, restored)
	}
	if b := s.state.Begin; b != nil {
		h.begin = entry{src: h.sources[b.Source], from: Position(b.From), to: Position(b.To)}
	}
	return h.sources
}

// saveSource keeps the first landmark and the last few: a copy that lacks the end lacks little.
func saveSource(src *source) savedSource {
	s := savedSource{File: saveFile(src.info), Head: bytes.Clone(src.head), Spacing: src.spacing, Hole: src.hole}
	for i, at := range src.landmarks {
		if i == 0 || i >= len(src.landmarks)-4 {
			s.Landmarks = append(s.Landmarks, place(at))
		}
	}
	return s
}

func saveFile(id identity) savedFile {
	key := keyOf(id.FileInfo)
	return savedFile{Dev: key.dev, Ino: key.ino, Size: id.Size(), Mtime: id.ModTime().UnixNano(), Born: bornNanos(id.FileInfo)}
}

func (s savedFile) identity() identity {
	return identity{&savedInfo{s}}
}

func (savedGeneration) time(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// A fileKey is what a system calls a file, as long as there is that file.
type fileKey struct{ dev, ino uint64 }

// A savedInfo is what is known of a file from a checkpoint.
type savedInfo struct{ s savedFile }

func (i *savedInfo) Name() string       { return "" }
func (i *savedInfo) Size() int64        { return i.s.Size }
func (i *savedInfo) Mode() os.FileMode  { return 0 }
func (i *savedInfo) ModTime() time.Time { return time.Unix(0, i.s.Mtime) }
func (i *savedInfo) IsDir() bool        { return false }
func (i *savedInfo) Sys() any           { return nil }

func keyOf(info os.FileInfo) fileKey {
	if i, ok := info.(*savedInfo); ok {
		return fileKey{i.s.Dev, i.s.Ino}
	}
	return systemKey(info)
}

// sameSaved is same where one of the two is from a checkpoint.
func sameSaved(a, b identity) bool {
	_, ok := a.FileInfo.(*savedInfo)
	_, ok2 := b.FileInfo.(*savedInfo)
	born, born2 := bornNanos(a.FileInfo), bornNanos(b.FileInfo)
	return (ok || ok2) && keyOf(a.FileInfo) != fileKey{} && keyOf(a.FileInfo) == keyOf(b.FileInfo) &&
		(born == born2 || born == 0 || born2 == 0)
}

func bornNanos(info os.FileInfo) int64 {
	if i, ok := info.(*savedInfo); ok {
		return i.s.Born
	}
	return nanos(birthOf(info))
}

// tellsFiles reports whether a file could be told by its identity among those in list: not if it is from a checkpoint, and the
// system has no inodes, or the devices have other numbers since it was started again.
func tellsFiles(id identity, list []sibling) bool {
	i, ok := id.FileInfo.(*savedInfo)
	return !ok || i.s.Ino != 0 && slices.ContainsFunc(list, func(s sibling) bool { return keyOf(s.id.FileInfo).dev == i.s.Dev })
}
