package stream

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Filter chooses records. All logs that are read through it, and all formats, share it.
type Filter struct {
	Key string // names it among all filters
	// Match reports whether a record passes. It may take its time, and may be called for records of several logs at a time. It is
	// not ok if the filter is of no use any more: then what waits for it waits for ever.
	Match func(r *Record) (pass, ok bool)
	Go    func(func()) // runs a function on a goroutine of its own
}

// judgeTime is about how long a filter goes on before those who wait are shown how far it has come.
const judgeTime = 5 * time.Millisecond

// A selection is what a filter says of the records of one log: each is looked at once, when the first viewer comes to it, on a
// goroutine of the filter's own. So a slow one holds up nobody but those who have asked for it.
type selection struct {
	log     *Log
	filter  *Filter
	wake    func() // tells those who wait to look again
	uses    int    // encodings; guarded by log.mu
	viewers atomic.Int32

	mu      sync.Mutex // guards the rest; taken before no other
	wants   map[uint64]struct{}
	running bool
	dead    bool // the filter is of no use any more
	gone    bool // nobody asks any more
	marks   map[uint64]*marks
	lines   map[uint64]bool // of records that go on with a line from another log, whether that passes; until they are looked at
	held    int64           // what the budget knows of marks
	last    uint64
	lastHit bool // what was said of record last
}

// marks are what is known of one block's records. They are written by the filter's goroutine alone.
type marks struct {
	seen, pass []uint64
	next       uint64 // the seq after the last one that was seen
}

func bit(set []uint64, i int) bool { return i>>6 < len(set) && set[i>>6]>>(i&63)&1 != 0 }

func setBit(set *[]uint64, i int) {
	for i>>6 >= len(*set) {
		*set = append(*set, 0)
	}
	(*set)[i>>6] |= 1 << (i & 63)
}

func (m *marks) size() int64 {
	const header = 80
	return header + 8*int64(cap(m.seen)+cap(m.pass))
}

// Filtered is Encoding for the records that pass f; what is declared lost passes always. wake is called when f has come to know
// more, with no lock held.
func (l *Log) Filtered(key string, encode Encoder, f *Filter, wake func()) *Encoding {
	l.mu.Lock()
	defer l.mu.Unlock()
	key += "\x00" + f.Key
	e := l.encodings[key]
	if e == nil {
		s := l.selections[f.Key]
		if s == nil {
			s = &selection{log: l, filter: f, wake: wake, wants: make(map[uint64]struct{}), marks: make(map[uint64]*marks)}
			if l.selections == nil {
				l.selections = make(map[string]*selection)
			}
			l.selections[f.Key] = s
		}
		s.uses++
		e = &Encoding{log: l, encode: encode, chosen: s}
		l.encodings[key] = e
	}
	e.viewers++
	e.chosen.viewers.Add(1)
	return e
}

// Filter returns what the records pass before they are encoded, nil for nothing.
func (e *Encoding) Filter() *Filter {
	if e.chosen == nil {
		return nil
	}
	return e.chosen.filter
}

// Continue tells the filter, if there is one, what a viewer that is about to read from c on has had of the line before it. The log
// may not have that.
func (e *Encoding) Continue(c *Cursor) {
	s := e.chosen
	if s == nil || c.Line == Whole {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	const most = 1000 // which nobody is going to look at any more
	if s.lines == nil || len(s.lines) >= most {
		s.lines = make(map[uint64]bool)
	}
	s.lines[c.Seq] = c.Line == Shown
}

// continues returns what was told of the line that a record goes on with.
func (s *selection) continues(seq uint64) (pass, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pass, known = s.lines[seq]
	delete(s.lines, seq)
	return pass, known
}

// known leaves in v only the records from its index on of which the filter has said something, and notes in e.pass what. If there
// are none, the viewer waits, and the filter may have to be started.
func (e *Encoding) known(v *view) (state State, start bool) {
	s := e.chosen
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.marks[v.block.first]; m != nil {
		end := v.index
		for end < len(v.recs) && bit(m.seen, end) {
			end++
		}
		if end > v.index {
			v.recs = v.recs[:end]
			e.pass = append(e.pass[:0], m.pass...)
			return Ready, false
		}
	}
	if s.dead || s.gone {
		return Waiting, false
	}
	s.wants[v.block.first+uint64(v.index)] = struct{}{}
	start = !s.running
	s.running = true
	return Waiting, start
}

// run looks at what is wanted until nothing is.
func (s *selection) run() {
	for {
		seq, ok := s.nextWant()
		if !ok {
			return
		}
		s.judge(seq)
		s.wake()
	}
}

func (s *selection) nextWant() (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dead && !s.gone && s.viewers.Load() > 0 {
		for seq := range s.wants {
			delete(s.wants, seq)
			return seq, true
		}
	}
	clear(s.wants)
	s.running = false
	return 0, false
}

// judge looks at records from seq on, up to the end of their block or as many as there is time for.
func (s *selection) judge(seq uint64) {
	v, state := s.log.view(seq)
	if state != Ready {
		return // the viewer finds that out by itself
	}
	m := s.of(v.block)
	began := time.Now()
	for i := v.index; i < len(v.recs); i++ {
		if bit(m.seen, i) {
			continue
		}
		r := v.record(i)
		pass, ok := s.passes(m, i, &r)
		s.mu.Lock()
		if !ok {
			s.dead = true
			s.mu.Unlock()
			return
		}
		before := m.size()
		setBit(&m.seen, i)
		if pass {
			setBit(&m.pass, i)
		}
		m.next = max(m.next, r.Seq+1)
		s.last, s.lastHit = r.Seq, pass
		grown := m.size() - before
		if s.gone {
			grown = 0
		}
		s.held += grown
		s.mu.Unlock()
		if grown != 0 {
			s.log.budget.Use(grown)
		}
		if time.Since(began) > judgeTime {
			return
		}
	}
}

// passes decides about record i of a block. The parts of a line that was cut go the way of its first one, also where nobody has
// asked about that. Where it is gone they pass: whoever has got it is not to miss the rest.
func (s *selection) passes(m *marks, i int, r *Record) (pass, ok bool) {
	if r.Flags&(Gap|Event) != 0 {
		return true, true
	}
	if pass, known := s.continues(r.Seq); known {
		return pass, true
	}
	switch {
	case r.Flags&AfterPartial == 0:
		return s.filter.Match(r)
	case i > 0 && bit(m.seen, i-1):
		return bit(m.pass, i-1), true
	case s.last == r.Seq-1:
		return s.lastHit, true
	}
	first, ok := s.log.lineOf(r.Seq)
	if !ok {
		return true, true
	}
	return s.filter.Match(&first)
}

// of returns the marks of a block, and forgets those of blocks that are no longer kept.
func (s *selection) of(b *block) *marks {
	first, _ := s.log.Bounds()
	s.mu.Lock()
	m := s.marks[b.first]
	grown := int64(0)
	if m == nil {
		for key, old := range s.marks {
			if old.next <= first {
				delete(s.marks, key)
				grown -= old.size()
			}
		}
		m = &marks{}
		if !s.gone {
			s.marks[b.first] = m
			grown += m.size()
		}
		s.held += grown
	}
	s.mu.Unlock()
	if grown != 0 {
		s.log.budget.Use(grown)
	}
	return m
}

// release forgets all that is known. No lock is held.
func (s *selection) release() {
	s.mu.Lock()
	held := s.held
	s.gone, s.held, s.marks = true, 0, nil
	s.mu.Unlock()
	s.log.budget.Use(-held)
}

// unused takes an encoding that goes out of its selection, and returns that if it is not needed any more; log.mu is held.
func (e *Encoding) unused() *selection {
	s := e.chosen
	if s == nil {
		return nil
	}
	if s.uses--; s.uses > 0 {
		return nil
	}
	delete(s.log.selections, s.filter.Key)
	return s
}
