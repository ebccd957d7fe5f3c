package wsconn

import (
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// A tap is what the library takes for the network. Reading goes through to the connection; what the library writes is taken apart and
// never reaches it; and closing ends only the library's reading.
type tap struct {
	net.Conn
	base time.Time
	last atomic.Int64 // when a byte was last read, in nanoseconds after base
	shut atomic.Bool  // the library has closed it

	// Read and write state, of the goroutine that is in Conn.Read.
	ahead   []byte // bytes that the server had read with the handshake
	err     error  // what the network reported; never set while the library has what it needs
	fault   error  // what err becomes when the library has had what came before
	in      lengths
	limited bool
	left    int64 // if limited: bytes that may still be read
	out     dissector
	emit    func(op Opcode, payload []byte)
}

var (
	// errFlood ends the reading of a message that costs many times its own bytes.
	errFlood = errors.New("too many bytes for one message")
	// errLength ends the reading at a frame whose length takes more bytes than it needs. The library lets it pass.
	errLength = errors.New("a length that is not written in its shortest form")
)

// allow bounds what is read from the network by n bytes, 0 for no bound. The library counts only payload; without this a message
// of a million empty fragments would cost no limit.
func (t *tap) allow(n int64) { t.limited, t.left = n > 0, n }

func (t *tap) touch() { t.last.Store(int64(time.Since(t.base))) }

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.read(p)
	good, ok := t.in.feed(p[:n])
	if ok {
		return n, err
	}
	if t.fault = errLength; good == 0 {
		t.err = t.fault
		return 0, t.err
	}
	return good, nil
}

func (t *tap) read(p []byte) (int, error) {
	if t.err == nil {
		t.err = t.fault
	}
	switch {
	case t.err != nil:
		return 0, t.err
	case t.shut.Load():
		return 0, net.ErrClosed
	case len(t.ahead) > 0:
		n := copy(p, t.ahead)
		if t.ahead = t.ahead[n:]; len(t.ahead) == 0 {
			t.ahead = nil
		}
		return n, nil
	case t.limited && t.left <= 0:
		t.err = errFlood
		return 0, t.err
	}
	n, err := t.Conn.Read(p)
	t.left -= int64(n)
	if n > 0 {
		t.touch()
		return n, nil // An error that came with the bytes comes again.
	}
	if err != nil && t.shut.Load() {
		return 0, net.ErrClosed // The error is Close's doing.
	}
	t.err = err
	return 0, err
}

// Write never fails and never blocks.
func (t *tap) Write(p []byte) (int, error) {
	t.out.feed(p, t.emit)
	return len(p), nil
}

// Close makes a blocked Read return and later ones fail.
func (t *tap) Close() error {
	t.shut.Store(true)
	return t.Conn.SetReadDeadline(time.Unix(1, 0))
}

// The write side's deadline is its owner's.
func (t *tap) SetDeadline(at time.Time) error   { return t.SetReadDeadline(at) }
func (t *tap) SetWriteDeadline(time.Time) error { return nil }
