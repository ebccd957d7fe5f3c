package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/tailcast/tailcast/internal/wire"
)

// frame is what a strict client reads.
type frame struct {
	op      byte
	payload []byte
}

// readFrame reads one frame as RFC 6455, 5.2 has it from a server: final, unmasked, its length in the shortest form.
func readFrame(b []byte) (f frame, rest []byte, err error) {
	if len(b) < 2 {
		return f, nil, fmt.Errorf("header of %d bytes", len(b))
	}
	if b[0]&0x80 == 0 || b[0]&0x30 != 0 || b[1]&0x80 != 0 {
		return f, nil, fmt.Errorf("header % x: not final, reserved bits, or masked", b[:2])
	}
	f.op = b[0] &^ 0x80
	n, b := uint64(b[1]), b[2:]
	switch {
	case n == 126 && len(b) >= 2:
		n, b = uint64(binary.BigEndian.Uint16(b)), b[2:]
		if n <= 125 {
			return f, nil, fmt.Errorf("length %d in 16 bits", n)
		}
	case n == 127 && len(b) >= 8:
		n, b = binary.BigEndian.Uint64(b), b[8:]
		if n <= 0xFFFF || n>>63 != 0 {
			return f, nil, fmt.Errorf("length %d in 64 bits", n)
		}
	case n > 125:
		return f, nil, fmt.Errorf("header is cut")
	}
	if uint64(len(b)) < n {
		return f, nil, fmt.Errorf("payload of %d bytes, want %d", len(b), n)
	}
	f.payload = b[:n]
	return f, b[n:], nil
}

func TestWSFrames(t *testing.T) {
	gap := wire.Gap{Count: 3, Bytes: -1, Reason: "why"}
	for name, tt := range map[string]struct {
		r    wire.Record
		want string
	}{
		"text is one frame":              {wire.Record{Data: []byte("hello")}, "\x81\x05hello"},
		"nothing is an empty frame":      {wire.Record{}, "\x81\x00"},
		"bad bytes become U+FFFD":        {wire.Record{Data: []byte("a\xe2\x82b\xff")}, "\x81\x0ba\uFFFD\uFFFDb\uFFFD"},
		"binary stays as it is":          {wire.Record{Data: []byte("a\xff"), Binary: true}, "\x82\x02a\xff"},
		"a gap is a line":                {wire.Record{Gap: &gap, Data: []byte("ignored"), Binary: true}, "\x81\x33" + wire.GapLine(&gap)},
		"a piece is a frame like others": {wire.Record{Data: []byte("p"), Partial: true}, "\x81\x01p"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(wire.AppendWS([]byte("before"), &tt.r)); got != "before"+tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWSLengthIsMinimal(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 0xFFFF, 0x10000} {
		for name, data := range map[string][]byte{
			"valid":   bytes.Repeat([]byte("x"), n),
			"invalid": bytes.Repeat([]byte("\xff"), n), // three times as long when it is clean
		} {
			got := wire.AppendWS([]byte("before"), &wire.Record{Data: data})
			f, rest, err := readFrame(got[len("before"):])
			if err != nil || len(rest) > 0 || f.op != wire.OpText || string(f.payload) != sanitise(data) {
				t.Errorf("%d bytes, %s: op %x, payload of %d bytes, %d left over, %v", n, name, f.op, len(f.payload), len(rest), err)
			}
		}
	}
}

func TestAppendFrameWritesAnyServerFrame(t *testing.T) {
	got := wire.AppendFrame(nil, wire.OpPing, []byte("p"))
	got = wire.AppendFrame(got, wire.OpPong, nil)
	got = wire.AppendFrame(got, wire.OpText|wire.OpCompressed, []byte("c"))
	got = wire.AppendFrame(got, wire.OpClose, []byte("\x03\xe8bye"))
	if want := "\x89\x01p\x8a\x00\xc1\x01c\x88\x05\x03\xe8bye"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMisusePanicsWithAReason(t *testing.T) {
	for want, call := range map[string]func(){
		"wire: 0x81 is not an opcode": func() { wire.AppendFrame(nil, 0x81, nil) },
		"wire: 0x21 is not an opcode": func() { wire.AppendFrame(nil, 0x21, nil) },
		"wire: control frame 0x9 of 126 bytes, at most 125 are allowed": func() {
			wire.AppendFrame(nil, wire.OpPing, make([]byte, 126))
		},
		`wire: event "a\nb" of an event stream has a line end or NUL`: func() { wire.AppendSSEControl(nil, "a\nb", nil, nil) },
		`wire: id "a\x00" of an event stream has a line end or NUL`:   func() { wire.AppendSSEID(nil, []byte("a\x00")) },
		`wire: comment "\r" of an event stream has a line end or NUL`: func() { wire.AppendSSEComment(nil, "\r") },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panics with %v, want %s", got, want)
				}
			}()
			call()
		}()
	}
}

func FuzzWS(f *testing.F) {
	f.Add([]byte(""), false)
	f.Add([]byte("line \xe2\x82\xac"), false)
	f.Add([]byte("cut \xe2\x82"), false)
	f.Add([]byte("\xed\xa0\x80\xf5\xff"), true)
	f.Add(bytes.Repeat([]byte("\xff"), 42), false)
	f.Add(bytes.Repeat([]byte("x"), 126), false) // TestWSLengthIsMinimal has the long ones: here they would only slow the fuzzer
	f.Fuzz(func(t *testing.T, data []byte, isBinary bool) {
		r := wire.Record{Topic: "t", Data: data, Binary: isBinary}
		wantOp, want := wire.OpText, sanitise(data)
		if isBinary {
			wantOp, want = wire.OpBinary, string(data)
		}
		both := wire.AppendWSEnvelope(wire.AppendWS(nil, &r), &r)
		got, rest, err := readFrame(both)
		if err != nil || got.op != wantOp || string(got.payload) != want {
			t.Fatalf("%q is written %q and read as op %x, %q, %v", data, both, got.op, got.payload, err)
		}
		got, rest, err = readFrame(rest)
		if err != nil || len(rest) > 0 || got.op != wire.OpText || !bytes.Equal(got.payload, wire.AppendEnvelope(nil, &r)) {
			t.Fatalf("%q: envelope in op %x, %q, %d left over, %v", data, got.op, got.payload, len(rest), err)
		}
	})
}
