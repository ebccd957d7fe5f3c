package stream_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

// frame is the encoding of the tests: long enough to have an inside, and it names its record.
func frame(dst []byte, r *stream.Record) []byte {
	if len(r.Data) > 0 && r.Data[0] == 0 { // filtered away
		return dst
	}
	return fmt.Appendf(dst, "<%d %d %s>", r.Seq, r.Pos.Offset, r.Data)
}

func loud(dst []byte, r *stream.Record) []byte { return frame(append(dst, '!'), r) }

// short is an encoding that is far smaller than its records, as a compressed one.
func short(dst []byte, r *stream.Record) []byte { return fmt.Appendf(dst, "<%d>", r.Seq) }

// A model is the log as a slice: everything that was ever appended.
type model struct {
	t       *testing.T
	rng     *rand.Rand
	log     *stream.Log
	records []stream.Record // records[i] has seq i+1
	cums    []uint64        // payload bytes before each, and after the last
	keep    stream.Retention
	now     time.Time
	viewers []*viewer
	loose   bool // the memory limit may drop what the retention would keep

	filter stream.Filter  // what some viewers read through
	runs   []func()       // of the filter, which have not begun
	asked  map[uint64]int // how often it was asked about a record, since nobody may have remembered
}

// passes is what the filter says.
func passes(r *stream.Record) bool { return r.Flags&stream.Gap != 0 || r.Seq*2654435761>>7%4 == 0 }

// filtered is an Encoder of what passes.
func filtered(encode stream.Encoder) stream.Encoder {
	return func(dst []byte, r *stream.Record) []byte {
		if !passes(r) {
			return dst
		}
		return encode(dst, r)
	}
}

func (m *model) match(r *stream.Record) (pass, ok bool) {
	if m.asked[r.Seq]++; m.asked[r.Seq] > 1 {
		m.t.Errorf("the filter is asked again about record %d", r.Seq)
	}
	return passes(r), true
}

type viewer struct {
	enc    *stream.Encoding
	encode stream.Encoder
	cur    stream.Cursor
	seq    uint64 // the model's own count
	rest   []byte // of a frame that was sent in part
}

func (m *model) append() {
	a := m.log.Begin()
	for range 1 + m.rng.IntN(20) {
		data := make([]byte, m.rng.IntN(200))
		switch m.rng.IntN(50) {
		case 0:
			data = make([]byte, 70_000+m.rng.IntN(100_000)) // more than a block
		case 1:
			data = nil
		}
		for i := range data {
			data[i] = 'a' + byte(i%26)
		}
		if len(data) > 0 && m.rng.IntN(8) == 0 {
			data[0] = 0
		}
		seq := uint64(len(m.records) + 1)
		if a.NextSeq() != seq {
			m.t.Fatalf("NextSeq = %d, want %d", a.NextSeq(), seq)
		}
		pos := stream.Position{Epoch: 1 + seq/1000, Offset: seq * 3, Check: uint32(seq)}
		flags := stream.Flags(0)
		if m.rng.IntN(30) == 0 {
			pos, flags = stream.Position{}, stream.Gap
		}
		a.Add(pos, m.now.UnixNano(), flags, data)
		m.records = append(m.records, stream.Record{Seq: seq, Pos: pos, Time: m.now.UnixNano(), Flags: flags, Data: bytes.Clone(data)})
		m.cums = append(m.cums, m.cums[len(m.cums)-1]+uint64(len(data)))
		clear(data) // the log must have its own copy
	}
	a.End(m.now)
	m.checkBounds()
}

// first is the oldest record that the retention keeps.
func (m *model) first() uint64 {
	n := uint64(len(m.records))
	first := uint64(1)
	for first <= n {
		over := m.keep.Messages > 0 && n-first+1 > uint64(m.keep.Messages) ||
			m.keep.Bytes > 0 && m.cums[n]-m.cums[first-1] > uint64(m.keep.Bytes) && first < n ||
			m.keep.Age > 0 && m.records[first-1].Time < m.now.Add(-m.keep.Age).UnixNano()
		if !over {
			break
		}
		first++
	}
	return first
}

func (m *model) checkBounds() {
	first, next := m.log.Bounds()
	if next != uint64(len(m.records)+1) {
		m.t.Fatalf("next = %d, want %d", next, len(m.records)+1)
	}
	if want := m.first(); first != want && !(m.loose && first > want) {
		m.t.Fatalf("first = %d, want %d", first, want)
	}
}

// pos is what a viewer before seq has seen last.
func (m *model) pos(seq uint64) stream.Position {
	for i := int(seq) - 2; i >= 0; i-- {
		if m.records[i].Pos != (stream.Position{}) {
			return m.records[i].Pos
		}
	}
	return stream.Position{}
}

func (m *model) checkCursor(what string, c stream.Cursor, seq uint64) {
	m.t.Helper()
	if c.Seq != seq || c.Cum != m.cums[seq-1] || c.Pos != m.pos(seq) {
		m.t.Fatalf("%s: cursor %+v, want seq %d cum %d pos %v", what, c, seq, m.cums[seq-1], m.pos(seq))
	}
}

func (m *model) join() {
	v := &viewer{encode: frame}
	key := "frame"
	switch m.rng.IntN(4) {
	case 0:
		key, v.encode = "loud", loud
	case 1:
		key, v.encode = "short", short
	}
	if m.rng.IntN(3) == 0 {
		v.enc = m.log.Filtered(key, v.encode, &m.filter, func() {})
		v.encode = filtered(v.encode)
	} else {
		v.enc = m.log.Encoding(key, v.encode)
	}
	first, next := m.log.Bounds()
	switch m.rng.IntN(4) {
	case 0:
		n := m.rng.IntN(50)
		v.cur = m.log.Newest(n)
		v.seq = max(first, uint64(max(int(next)-n, 1)))
	case 1:
		v.cur, v.seq = m.log.Oldest(), first
	default:
		if next == first {
			v.cur, v.seq = m.log.Oldest(), first
			break
		}
		at := first + m.rng.Uint64N(next-first)
		p := m.records[at-1].Pos
		if p == (stream.Position{}) {
			v.cur, v.seq = m.log.At(at), at
			break
		}
		cur, ok := m.log.After(p)
		if !ok {
			m.t.Fatalf("After(%v) of record %d is not found; kept are %d to %d", p, at, first, next)
		}
		v.cur, v.seq = cur, at+1
	}
	m.checkCursor("join", v.cur, v.seq)
	m.viewers = append(m.viewers, v)
}

// read sends a random part of what v has coming, and compares every byte.
func (m *model) read(v *viewer) {
	if len(v.rest) > 0 {
		v.rest = nil
	}
	messages, lagged := m.log.Lag(v.cur)
	n := uint64(len(m.records))
	if messages != n+1-v.seq || lagged != m.cums[n]-m.cums[v.seq-1] {
		m.t.Fatalf("lag %d, %d; want %d, %d", messages, lagged, n+1-v.seq, m.cums[n]-m.cums[v.seq-1])
	}
	m.checkRecords(v)
	limit := 1 + m.rng.IntN(100_000)
	chunk, state := v.enc.Next(&v.cur, limit)
	first, next := m.log.Bounds()
	switch state {
	case stream.Waiting:
		if v.enc.Filter() == nil {
			m.t.Fatal("somebody waits who has no filter")
		}
		for _, run := range m.runs {
			run()
		}
		m.runs = nil
		return
	case stream.AtHead:
		if v.seq != next {
			m.t.Fatalf("at the head at %d, next is %d", v.seq, next)
		}
		return
	case stream.Lost:
		if v.seq >= first {
			m.t.Fatalf("lost at %d, first is %d", v.seq, first)
		}
		missed, bytes, resume := m.log.Missed(v.cur)
		if missed != first-v.seq || bytes != m.cums[first-1]-m.cums[v.seq-1] {
			m.t.Fatalf("missed %d, %d; want %d, %d", missed, bytes, first-v.seq, m.cums[first-1]-m.cums[v.seq-1])
		}
		v.cur, v.seq = resume, first
		m.checkCursor("resume", v.cur, v.seq)
		return
	}
	m.checkChunk(v, &chunk, limit)
}

// checkRecords compares what a reader of records gets at v's place, and where each leads.
func (m *model) checkRecords(v *viewer) {
	recs, state := m.log.Read(v.cur)
	first, next := m.log.Bounds()
	if want := v.seq >= first && v.seq < next; (state == stream.Ready) != want {
		m.t.Fatalf("reading record %d: state %d; kept are %d to %d", v.seq, state, first, next)
	}
	cur, seq := v.cur, v.seq
	for state == stream.Ready {
		r, ok := recs.Next(&cur)
		if !ok {
			break
		}
		if want := m.records[seq-1]; r.Seq != want.Seq || r.Pos != want.Pos || r.Time != want.Time || !bytes.Equal(r.Data, want.Data) {
			m.t.Fatalf("record %d: %+v, want %+v", seq, r, want)
		}
		seq++
		m.checkCursor("record", cur, seq)
	}
	if state == stream.Ready && seq == v.seq {
		m.t.Fatalf("no record at %d, though one is ready", seq)
	}
}

func (m *model) checkChunk(v *viewer, chunk *stream.Chunk, limit int) {
	var want []byte
	for i := range chunk.Len() {
		r := m.records[v.seq-1+uint64(i)]
		f := v.encode(nil, &r)
		if !bytes.Equal(chunk.Frame(i), f) {
			m.t.Fatalf("frame of record %d: %.60q, want %.60q", r.Seq, chunk.Frame(i), f)
		}
		if chunk.Pos(i) != r.Pos {
			m.t.Fatalf("position of record %d: %v, want %v", r.Seq, chunk.Pos(i), r.Pos)
		}
		want = append(want, f...)
	}
	if !bytes.Equal(chunk.Bytes, want) {
		m.t.Fatalf("bytes are not the frames")
	}
	if chunk.Len() == 0 || chunk.Len() > 1 && len(chunk.Bytes) > limit {
		m.t.Fatalf("%d messages, %d bytes, limit %d", chunk.Len(), len(chunk.Bytes), limit)
	}
	n := len(want)
	if m.rng.IntN(2) == 0 && n > 0 {
		n = m.rng.IntN(n + 1)
	}
	sent, rest := chunk.Advance(&v.cur, n)
	done, k := 0, 0
	for k < chunk.Len() && done+len(chunk.Frame(k)) <= n {
		done += len(chunk.Frame(k))
		k++
	}
	var wantRest []byte
	if done < n {
		wantRest = chunk.Frame(k)[n-done:]
		k++
	}
	if sent != k || !bytes.Equal(rest, wantRest) {
		m.t.Fatalf("Advance(%d) = %d, %q; want %d, %q", n, sent, rest, k, wantRest)
	}
	v.seq += uint64(k)
	if k > 0 {
		m.checkCursor("advance", v.cur, v.seq)
	}
}

func run(t *testing.T, seed uint64, limit int64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	m := &model{t: t, rng: rng, cums: []uint64{0}, now: time.Unix(1_000_000, 0), loose: limit > 0}
	switch rng.IntN(4) {
	case 0:
		m.keep.Messages = 1 + rng.IntN(300)
	case 1:
		m.keep.Bytes = 1 + rng.Int64N(500_000)
	case 2:
		m.keep.Age = time.Duration(1+rng.IntN(100)) * time.Second
	}
	budget := stream.NewBudget(limit)
	m.log = stream.NewLog(m.keep, budget)
	m.asked = make(map[uint64]int)
	m.filter = stream.Filter{Key: "some", Match: m.match, Go: func(run func()) { m.runs = append(m.runs, run) }}
	for range 400 {
		switch n := rng.IntN(20); {
		case n < 6:
			m.append()
		case n < 8:
			m.join()
		case n < 18 && len(m.viewers) > 0:
			m.read(m.viewers[rng.IntN(len(m.viewers))])
		case n == 18:
			m.now = m.now.Add(time.Duration(rng.IntN(20)) * time.Second)
			m.log.Maintain(m.now, time.Minute)
			clear(m.asked)
			m.checkBounds()
		case len(m.viewers) > 0:
			i := rng.IntN(len(m.viewers))
			m.viewers[i].enc.Leave(m.now)
			m.viewers = append(m.viewers[:i], m.viewers[i+1:]...)
		}
		if limit > 0 && budget.Used() > limit+(1<<20) {
			t.Fatalf("%d bytes in use, the limit is %d", budget.Used(), limit)
		}
	}
	for _, v := range m.viewers {
		v.enc.Leave(m.now)
	}
	m.log.Maintain(m.now.Add(time.Hour), time.Minute)
	budget.Remove(m.log)
	if n := budget.Used(); n != 0 {
		t.Fatalf("%d bytes are still accounted for at the end", n)
	}
}

// TestModel runs random programs of append, join, read, short read and leave against a slice that forgets nothing.
func TestModel(t *testing.T) {
	programs := uint64(25)
	if os.Getenv("TAILCAST_SOAK") != "" {
		programs *= 40
	}
	for seed := range programs {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			run(t, seed, []int64{0, 0, 2 << 20}[seed%3])
		})
	}
}
