package stream

// State says what a reader finds at a cursor.
type State uint8

const (
	Ready   State = iota // there is something to send
	AtHead               // everything has been sent
	Waiting              // nobody knows yet whether the next record passes the filter
	Lost                 // the next record is no longer kept, or will never come: see Log.Close
)

// A Cursor is where a viewer stands in a topic, always between two messages. It is a plain value that its owner keeps; no
// memory of the log hangs on it.
type Cursor struct {
	Seq uint64   // of the next message to send
	Pos Position // of the last message that was sent: where a resume or a catch-up goes on
	Cum uint64   // payload bytes before Seq

	Line Line // whether Seq goes on with a line, as far as that is known
}

// Line says what a viewer has had of a line that was cut, and in whose middle it stands.
type Line uint8

const (
	Whole  Line = iota // it stands in none, or nothing is known of it
	Shown              // its first part has passed
	Hidden             // a filter has left it out
)

// At returns a cursor before record seq, moved into what is kept.
func (l *Log) At(seq uint64) Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at(min(max(seq, l.first), l.next))
}

// at is At for a seq within the bounds.
func (l *Log) at(seq uint64) Cursor {
	c := Cursor{Seq: seq, Pos: l.before, Cum: l.firstCum}
	if seq == l.next {
		c.Pos, c.Cum = l.last, l.cum
		return c
	}
	if seq == l.first {
		return c
	}
	b := l.blockOf(seq)
	i := int(seq - b.first)
	c.Cum = b.cum + uint64(b.start(i))
	for s := seq - 1; s >= l.first; s-- { // a declared gap may have no position: then it is that of the record before it
		b := l.blockOf(s)
		if p := b.recs[s-b.first].pos; p != (Position{}) {
			c.Pos = p
			break
		}
	}
	return c
}

// Newest returns a cursor before the n newest messages, or at the head for n = 0: see behindGaps. Events are none.
func (l *Log) Newest(n int) Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n == 0 {
		return l.at(l.behindGaps())
	}
	for i := len(l.blocks) - 1; i >= 0; i-- {
		b := l.blocks[i]
		if b.first >= l.first && len(b.recs)-b.events < n { // all of them, and more
			n -= len(b.recs) - b.events
			continue
		}
		if seq, ok := b.newest(n, l.first); ok {
			return l.at(seq)
		}
		break
	}
	return l.at(l.first)
}

// behindGaps is the seq of the head, or of the first of those gaps there that have no position: who begins at the head stands at the
// position of a message, and what is missing after that is to be declared to who comes back there.
func (l *Log) behindGaps() uint64 {
	seq := l.next
	for seq > l.first {
		b := l.blockOf(seq - 1)
		if r := &b.recs[seq-1-b.first]; r.pos != (Position{}) {
			break
		}
		seq--
	}
	return seq
}

// newest returns the seq of the n-th message from the end, unless that is older than first.
func (b *block) newest(n int, first uint64) (seq uint64, ok bool) {
	if b.events == 0 {
		return b.next() - uint64(n), uint64(n) <= b.next()-max(first, b.first)
	}
	for i := len(b.recs) - 1; i >= 0 && b.first+uint64(i) >= first; i-- {
		if b.recs[i].flags()&Event != 0 {
			continue
		}
		if n--; n == 0 {
			return b.first + uint64(i), true
		}
	}
	return 0, false
}

// Oldest returns a cursor at the oldest record that is kept.
func (l *Log) Oldest() Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at(l.first)
}

// After returns a cursor just after the message at p, and whether that message, or the place where the log begins, is known.
// Of several messages at the same position (a file that was truncated and begins with the same line again) the oldest
// counts: rather one line twice than one that is missing. Where a gap without a position came after p and is no longer kept, the
// place is not known: it would not be declared to who goes on there.
func (l *Log) After(p Position) (Cursor, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p == (Position{}) {
		return Cursor{}, false
	}
	if p == l.before && !l.gapped {
		return l.at(l.first), true
	}
	for _, b := range l.blocks {
		i := b.find(p)
		if i < 0 {
			continue
		}
		if seq := b.first + uint64(i) + 1; seq >= l.first {
			return l.at(seq), true
		}
	}
	return Cursor{}, false
}

// Beyond returns a cursor before the first record behind p, in a log whose records all have positions, and where those of one epoch
// grow by their offsets. p need not be a record's: the caller knows that the log has had all that comes before p, and not yet
// anything behind it that is not there. It is not ok if what came right after p is no longer kept, or nothing of p's epoch is known.
func (l *Log) Beyond(p Position) (Cursor, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	reached := func(q Position) bool { return q.Epoch == p.Epoch && q.Offset <= p.Offset }
	for n := len(l.blocks) - 1; n >= 0; n-- {
		b := l.blocks[n]
		if first := b.recs[0].pos; first.Epoch == p.Epoch && first.Offset > p.Offset {
			continue
		}
		for i := len(b.recs) - 1; i >= 0 && b.first+uint64(i) >= l.first; i-- {
			if reached(b.recs[i].pos) {
				return l.at(b.first + uint64(i) + 1), true
			}
		}
	}
	if reached(l.before) && !l.gapped {
		return l.at(l.first), true
	}
	return Cursor{}, false
}

// Extend says that the log's beginning follows p already, an earlier place of the same epoch, since nothing lies between. It counts
// only while nothing has gone from the log.
func (l *Log) Extend(p Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == 1 && p.Epoch == l.before.Epoch && p.Offset < l.before.Offset {
		l.before, l.base = p, p
	}
}

// Lag is how far c is behind: messages and payload bytes, exact also where the records are no longer kept.
func (l *Log) Lag(c Cursor) (messages, bytes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next - min(c.Seq, l.next), l.cum - min(c.Cum, l.cum)
}

// Missed is what lies between c and the oldest record that is kept, and a cursor at that record.
func (l *Log) Missed(c Cursor) (messages, bytes uint64, resume Cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Seq >= l.first {
		return 0, 0, c
	}
	return l.first - c.Seq, l.firstCum - c.Cum, l.at(l.first)
}
