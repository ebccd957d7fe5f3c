// Package stream holds what a topic is made of: one append-only record log, the encodings that are derived from it, and
// the cursors that stand in them. It knows bytes, records and positions; it knows no socket and no hub.
//
// Lock order: Encoding.mu, then Log.mu. An encoding asks its log for records while it fills a segment; a log never calls
// into an encoding while it holds its own lock. Budget.mu comes before both and is taken only by a caller that holds neither.
package stream

// A Position names a place in a topic: the end of one message.
type Position struct {
	Epoch, Offset uint64
	Check         uint32
}

// Flags describe a record.
type Flags uint8

const (
	Binary  Flags = 1 << iota // the payload is not text
	Partial                   // a cut line that goes on in the next record
	Gap                       // the payload is a declared loss in its stored form
	Event                     // the payload is no message, but something that happened: for the encoders that know it

	// AfterPartial is said of a record and not stored: the record before it is Partial.
	AfterPartial Flags = 1 << 7

	flagBits = 4 // flags share a word with the end of the record: see rec.bits
)

// A Record is one message of a log.
type Record struct {
	Seq   uint64 // arrival number in its log, from 1
	Pos   Position
	Time  int64 // nanoseconds since 1970
	Flags Flags
	Data  []byte
}

// MaxRecord is the largest payload that a log takes: a record's end has 28 bits within its block.
const MaxRecord = 64 << 20

// A rec is the index entry of one record in its block: 40 bytes.
type rec struct {
	pos  Position
	bits uint32 // end of the payload in block.data << flagBits | flags
	from uint32 // Appender.From
	time int64
}

func (r *rec) end() uint32  { return r.bits >> flagBits }
func (r *rec) flags() Flags { return Flags(r.bits & (1<<flagBits - 1)) }

// blockSize is how much payload a block takes before the next one is begun. A segment never spans two blocks, so this is
// also about the most that one write can send: the fan-out's turn.
const blockSize = 64 << 10

// blockRecords is how many records a block takes, so that empty ones too come to an end and can be dropped.
const blockRecords = 4 << 10

// A block is a run of records. Its slices only grow, and bytes below their length never change: a reader that copied the
// slice headers under Log.mu may read them without it.
type block struct {
	first uint64 // seq of recs[0]
	cum   uint64 // payload bytes of the log before this block
	torn  bool   // the record before this block is Partial
	data  []byte
	recs  []rec
	runs  []run // which positions are in here, for Find

	events int // how many of recs are no messages
}

// A run is a range of offsets of one epoch in a block.
type run struct {
	epoch, low, high uint64
}

func (b *block) next() uint64 { return b.first + uint64(len(b.recs)) }

func (b *block) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return b.recs[i-1].end()
}

func (b *block) size() int64 {
	const entry = 40
	return int64(cap(b.data)) + entry*int64(cap(b.recs))
}

// note adds a position to the block's runs.
func (b *block) note(p Position) {
	if p == (Position{}) {
		return
	}
	for i := range b.runs {
		if r := &b.runs[i]; r.epoch == p.Epoch {
			r.low, r.high = min(r.low, p.Offset), max(r.high, p.Offset)
			return
		}
	}
	b.runs = append(b.runs, run{p.Epoch, p.Offset, p.Offset})
}

// find returns the index of the oldest record at p, or -1.
func (b *block) find(p Position) int {
	for _, r := range b.runs {
		if r.epoch != p.Epoch || p.Offset < r.low || p.Offset > r.high {
			continue
		}
		for i := range b.recs {
			if b.recs[i].pos == p {
				return i
			}
		}
	}
	return -1
}
