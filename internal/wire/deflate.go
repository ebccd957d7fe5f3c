package wire

import (
	"compress/flate"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// What a Deflater compresses, in bytes of a frame's payload. Below MinDeflate little is saved, and any message takes some
// 10 µs with level 1, 20 with a higher one. What is large takes time from others that the same goroutine serves: 6 ms a MiB with
// level 1, 20 with 6 and 48 with 9. So above largeDeflate the level is 1 at most, and above MaxDeflate nothing is compressed.
const (
	MinDeflate   = 512
	MaxDeflate   = 2 << 20
	largeDeflate = 64 << 10
)

// A Deflater compresses messages for permessage-deflate (RFC 7692), each by itself: no context is taken over, so all who have
// negotiated that can share the bytes. Its methods may be called concurrently; no more deflate at a time than there are
// processors, since each of them holds about 1 MB.
type Deflater struct {
	level int
	turns chan struct{} // one for each that deflates
	small sync.Pool     // of *deflation, with level
	large sync.Pool     // of *deflation, with level 1 at most

	messages, from, to atomic.Int64
}

// A deflation is what one message at a time is compressed with.
type deflation struct {
	w   *flate.Writer
	out []byte
	max int // of out
}

// NewDeflater returns a Deflater with a level of compress/flate. It panics if there is no such level.
func NewDeflater(level int) *Deflater {
	if level < flate.HuffmanOnly || level > flate.BestCompression {
		panic("wire: no level of compress/flate")
	}
	d := &Deflater{level: level, turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
	d.small.New = func() any { return newDeflation(level) }
	d.large.New = func() any { return newDeflation(flate.BestSpeed) }
	return d
}

func newDeflation(level int) *deflation {
	z := &deflation{}
	z.w, _ = flate.NewWriter(z, level) // the level has been checked
	return z
}

// Counts returns how many messages were compressed, and the bytes of their payload before and after.
func (d *Deflater) Counts() (messages, from, to int64) {
	return d.messages.Load(), d.from.Load(), d.to.Load()
}

// Frame compresses the text or binary frame that dst has from start on, as AppendWS and AppendWSEnvelope append it; nothing may be
// there too. It leaves it as it is where it is too small, too large, or does not become smaller.
func (d *Deflater) Frame(dst []byte, start int) []byte {
	frame := dst[start:]
	if len(frame) < MinDeflate {
		return dst
	}
	payload := frame[headerLen(frame):]
	if len(payload) < MinDeflate || len(payload) > MaxDeflate {
		return dst
	}
	d.turns <- struct{}{}
	defer func() { <-d.turns }()
	pool := d.poolFor(len(payload))
	z := pool.Get().(*deflation)
	defer pool.Put(z)
	from := len(payload)
	out, ok := z.deflate(payload)
	if !ok {
		return dst
	}
	d.messages.Add(1)
	d.from.Add(int64(from))
	d.to.Add(int64(len(out)))
	return append(appendFrameHeader(dst[:start], frame[0]&0xF|OpCompressed, len(out)), out...)
}

func (d *Deflater) poolFor(n int) *sync.Pool {
	slow := d.level > flate.BestSpeed || d.level == flate.DefaultCompression
	if n > largeDeflate && slow {
		return &d.large
	}
	return &d.small
}

// headerLen returns the length of an unmasked frame's header.
func headerLen(frame []byte) int {
	switch frame[1] {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

var errNotSmaller = errors.New("it does not become smaller")

// syncTail ends what Flush writes. It is left out on the wire (RFC 7692, 7.2.1).
const syncTail = 0x0000ffff

// deflate returns p compressed, until the next call, if that is smaller.
func (z *deflation) deflate(p []byte) (out []byte, ok bool) {
	z.out, z.max = z.out[:0], len(p)+3 // with the tail
	z.w.Reset(z)
	if _, err := z.w.Write(p); err != nil {
		return nil, false
	}
	if err := z.w.Flush(); err != nil {
		return nil, false
	}
	end := len(z.out) - 4
	if binary.BigEndian.Uint32(z.out[end:]) != syncTail {
		panic("wire: a flush of compress/flate that ends in something else")
	}
	return z.out[:end], true
}

// Write takes what w has made.
func (z *deflation) Write(p []byte) (int, error) {
	if len(z.out)+len(p) > z.max {
		return 0, errNotSmaller
	}
	z.out = append(z.out, p...)
	return len(p), nil
}
