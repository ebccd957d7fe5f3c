package follow

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A packedTime is what is known of the time of a packed file's content.
type packedTime struct {
	id      identity
	written time.Time
	sure    bool // the file has it in its header
}

// packedTimes keeps what was read of headers, by name.
type packedTimes struct {
	sync.Mutex
	known map[string]packedTime
}

// packedTime is when the content of a packed file was last written. Gzip gives the packed file the time of the plain one, and
// notes that in the header, too: that is what tells where the file's own time is of later.
func (f *Follower) packedTime(name string, id identity) packedTime {
	f.times.Lock()
	defer f.times.Unlock()
	if t, ok := f.times.known[name]; ok && f.unchanged(t.id, id) {
		return t
	}
	t := packedTime{id: id, written: id.ModTime()}
	h, err := openHandle(f.fs, name)
	if err != nil {
		return t
	}
	defer h.release()
	var header [8]byte
	if n, err := h.ReadAt(header[:], 0); n < len(header) && err != io.EOF {
		return t
	}
	if noted := binary.LittleEndian.Uint32(header[4:]); noted != 0 {
		t.sure = true
		if then := time.Unix(int64(noted), 0); then.Before(t.written.Truncate(time.Second)) {
			t.written = then
		}
	}
	if f.times.known == nil {
		f.times.known = make(map[string]packedTime)
	}
	f.times.known[name] = t
	return t
}

// numbered is the family of the names that end in a number.
const numbered = 0

// datePacked gives the packed files of a list the times of their content. One whose time is not sure is no younger than the one
// after it by name. Dates count up. Numbers count down, but in some places up: so most of them must be in the order of the times.
func (f *Follower) datePacked(list []sibling) {
	sure := make(map[string]bool)
	families := make(map[int][]*sibling)
	for i := range list {
		s := &list[i]
		s.time, sure[s.name] = s.id.ModTime(), true
		if f.packedName(s.name) {
			t := f.packedTime(s.name, s.id)
			s.time, sure[s.name] = t.written, t.sure
		}
		family := len(strings.TrimSuffix(s.name, gzipExt)) // dates are as long as each other
		if _, err := rotationNumber(s.name); err == nil {
			family = numbered
		}
		families[family] = append(families[family], s)
	}
	f.forgetTimes(sure)
	for kind, family := range families {
		slices.SortFunc(family, func(a, b *sibling) int { return byName(*a, *b) })
		if kind == numbered && !mostlyInOrder(family) {
			continue
		}
		for i := len(family) - 2; i >= 0; i-- {
			if s, next := family[i], family[i+1]; !sure[s.name] && s.time.After(next.time) {
				s.time = next.time
			}
		}
	}
}

func mostlyInOrder(list []*sibling) bool {
	n := 0
	for i := 1; i < len(list); i++ {
		if !list[i].time.Before(list[i-1].time) {
			n++
		}
	}
	return 2*n > len(list)-1
}

// forgetTimes drops what is known of files that are not there any more.
func (f *Follower) forgetTimes(there map[string]bool) {
	f.times.Lock()
	defer f.times.Unlock()
	for name := range f.times.known {
		if _, ok := there[name]; !ok {
			delete(f.times.known, name)
		}
	}
}
