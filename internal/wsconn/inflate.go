package wsconn

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"slices"
	"sync"
)

// An inflater unpacks one message at a time. Nobody holds one between two messages: each is packed by itself
// (client_no_context_takeover).
type inflater struct {
	src bytes.Reader // an io.ByteReader: flate reads no further than it needs
	r   io.ReadCloser
}

var inflaters = sync.Pool{New: func() any {
	i := new(inflater)
	i.r = flate.NewReader(&i.src)
	return i
}}

// packedEnd is what a sender has left out at the end of a message (RFC 7692, 7.2.2), and an empty last block, so that the stream ends.
const packedEnd = "\x00\x00\xff\xff" + "\x01\x00\x00\xff\xff"

var (
	errTooLarge = errors.New("the message unpacks to more than the limit")
	// errPacked: RFC 7692 names no code for it. 1007 is data that is not what it says it is (RFC 6455, 7.4.1), and what ws for Node
	// sends; others send 1002.
	errPacked = errors.New("a compressed message that cannot be unpacked")
)

// deflateSlack is by how much a message of that many bytes may grow by being packed, for a packer that does not look.
func deflateSlack(n int64) int64 { return n/8 + 64 }

// window is how far back a packed message may refer.
const window = 32 << 10

// maxStreams is how many last blocks a message may have. A sender may end each flush with one, and padding up to a byte
// (RFC 7692, 7.2.3.4). Another stream is a new beginning for the inflater, which costs more than a byte should.
const maxStreams = 64

// unpack returns what data unpacks to, if that is no more than limit bytes.
func (m *message) unpack(data []byte, limit int64) ([]byte, error) {
	if len(data) == 0 { // RFC 7692, 7.2.3.6 wants a byte, but some clients pack nothing into nothing
		return data, nil
	}
	p := m.need()
	if len(p.b) == 0 { // data is elsewhere
		p.b = append(p.b, data...)
	}
	p.b = append(p.b, packedEnd...)
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	i.src.Reset(p.b)
	defer i.src.Reset(nil)
	p.out = p.out[:0]
	for streams := 0; i.src.Len() > 0; streams++ {
		if streams == maxStreams {
			return nil, errPacked
		}
		if err := i.r.(flate.Resetter).Reset(&i.src, p.out[max(0, len(p.out)-window):]); err != nil {
			return nil, err
		}
		if err := p.inflate(i.r, limit); err != nil {
			return nil, err
		}
	}
	return p.out, nil
}

// inflate adds what r yields to out.
func (p *parts) inflate(r io.Reader, limit int64) error {
	for {
		if len(p.out) == cap(p.out) {
			p.out = slices.Grow(p.out, max(512, len(p.out)))
		}
		n, err := r.Read(p.out[len(p.out):cap(p.out)])
		p.out = p.out[:len(p.out)+n]
		switch {
		case int64(len(p.out)) > limit:
			return errTooLarge
		case err == io.EOF:
			return nil
		case err != nil:
			return errPacked
		}
	}
}
