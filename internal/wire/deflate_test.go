package wire_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tailcast/tailcast/internal/wire"
)

// inflate returns what a client makes of a compressed payload (RFC 7692, 7.2.2).
func inflate(p []byte) ([]byte, error) {
	in := bytes.NewReader(append(bytes.Clone(p), "\x00\x00\xff\xff"...))
	out, err := io.ReadAll(flate.NewReader(in))
	if err != io.ErrUnexpectedEOF || in.Len() > 0 { // the last block is not marked as such
		return out, fmt.Errorf("%d bytes inflated, %d left over, %v", len(out), in.Len(), err)
	}
	return out, nil
}

// readInflated is readFrame for what a Deflater has seen.
func readInflated(b []byte) (f frame, compressed bool, err error) {
	b = bytes.Clone(b)
	if compressed = len(b) > 0 && b[0]&wire.OpCompressed != 0; compressed {
		b[0] &^= wire.OpCompressed
	}
	f, rest, err := readFrame(b)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after the frame", len(rest))
	}
	if err == nil && compressed {
		f.payload, err = inflate(f.payload)
	}
	return f, compressed, err
}

// logText returns n bytes as logs have them.
func logText(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, `{"time":"2026-01-02T15:04:%02d.%06dZ","level":"info","msg":"request served","path":"/api/v1/orders","status":%d,"trace":"%016x"}`+"\n",
			r.IntN(60), r.IntN(1e6), 200+r.IntN(300), r.Uint64())
	}
	return b.Bytes()[:n]
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestDeflaterKeepsWhatAMessageSays(t *testing.T) {
	small := []int{0, 1, 125, 126, 4096, 64 << 10, 64<<10 + 1}
	for n := 500; n <= 524; n++ {
		small = append(small, n)
	}
	large := []int{256 << 10, wire.MaxDeflate, wire.MaxDeflate + 1}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		d := wire.NewDeflater(level)
		sizes := small
		if level == flate.BestSpeed {
			sizes = slices.Concat(small, large)
		}
		for _, n := range sizes {
			for _, op := range []byte{wire.OpText, wire.OpBinary} {
				data := logText(n)
				plain := wire.AppendFrame([]byte("before"), op, data)
				got := d.Frame(plain, len("before"))
				f, compressed, err := readInflated(got[len("before"):])
				if err != nil || !bytes.HasPrefix(got, []byte("before")) || f.op != op || !bytes.Equal(f.payload, data) {
					t.Fatalf("level %d, %d bytes: op %x, %d bytes, %v", level, n, f.op, len(f.payload), err)
				}
				want := n >= wire.MinDeflate && n <= wire.MaxDeflate && level != flate.NoCompression
				if compressed != want {
					t.Errorf("level %d, %d bytes: compressed is %v", level, n, compressed)
				}
			}
		}
	}
}

func TestDeflaterLeavesAloneWhatItCannotMakeSmaller(t *testing.T) {
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		d := wire.NewDeflater(level)
		for _, n := range []int{512, 1000, 70_000, 300_000} {
			plain := wire.AppendFrame(nil, wire.OpBinary, noise(n))
			if got := d.Frame(bytes.Clone(plain), 0); !bytes.Equal(got, plain) {
				t.Errorf("level %d: %d bytes of noise became %d", level, len(plain), len(got))
			}
			// and is of use afterwards
			text := logText(n)
			if f, compressed, err := readInflated(d.Frame(wire.AppendFrame(nil, wire.OpText, text), 0)); err != nil || compressed != (level != 0) || !bytes.Equal(f.payload, text) {
				t.Errorf("level %d: after noise %d bytes of text are compressed: %v, %v", level, n, compressed, err)
			}
		}
		if messages, from, to := d.Counts(); level != 0 && (messages != 4 || from != 512+1000+70_000+300_000 || to >= from*9/10) {
			t.Errorf("level %d: counted %d messages, %d bytes before, %d after", level, messages, from, to)
		}
	}
	d := wire.NewDeflater(1)
	if got := d.Frame([]byte("before"), len("before")); string(got) != "before" {
		t.Errorf("of nothing it makes %q", got)
	}
}

// Each message stands by itself: a client that joins in the middle can read on.
func TestDeflaterTakesNoContextOver(t *testing.T) {
	d := wire.NewDeflater(6)
	first := d.Frame(wire.AppendFrame(nil, wire.OpText, logText(2000)), 0)
	for range 3 {
		if again := d.Frame(wire.AppendFrame(nil, wire.OpText, logText(2000)), 0); !bytes.Equal(first, again) {
			t.Fatalf("the same message is %d bytes first, then %d", len(first), len(again))
		}
	}
}

func TestDeflaterServesManyAtATime(t *testing.T) {
	d := wire.NewDeflater(flate.DefaultCompression)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 20 {
				data := []byte(strings.Repeat(fmt.Sprint("of ", i, " ", n, " "), 100+n*i))
				f, compressed, err := readInflated(d.Frame(wire.AppendFrame(nil, wire.OpText, data), 0))
				if err != nil || !compressed || !bytes.Equal(f.payload, data) {
					t.Errorf("%d bytes: %d, compressed %v, %v", len(data), len(f.payload), compressed, err)
				}
			}
		})
	}
	wg.Wait()
	if messages, _, _ := d.Counts(); messages != 16*20 {
		t.Errorf("counted %d messages", messages)
	}
}

func TestDeflaterWantsALevelThatThereIs(t *testing.T) {
	for _, level := range []int{-3, 10} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("level %d is taken", level)
				}
			}()
			wire.NewDeflater(level)
		}()
	}
}

func FuzzDeflater(f *testing.F) {
	deflaters := []*wire.Deflater{wire.NewDeflater(1), wire.NewDeflater(6), wire.NewDeflater(flate.HuffmanOnly)}
	f.Add([]byte("hello"), uint8(1), uint8(0), false)
	f.Add([]byte("abcdefgh"), uint8(64), uint8(1), false) // 512 bytes
	f.Add([]byte("1234567"), uint8(73), uint8(2), true)   // 511 bytes
	f.Add(noise(600), uint8(1), uint8(0), true)
	f.Add([]byte("a\xff"), uint8(200), uint8(1), false) // 400 bytes, and 800 when it is clean
	f.Fuzz(func(t *testing.T, data []byte, times, which uint8, isBinary bool) {
		if data = bytes.Repeat(data, int(times)); len(data) > 4096 {
			return // TestDeflaterKeepsWhatAMessageSays has the long ones: here they would only slow the fuzzer
		}
		d := deflaters[int(which)%len(deflaters)]
		r := wire.Record{Topic: "t", Data: data, Binary: isBinary}
		for name, encode := range map[string]func([]byte, *wire.Record) []byte{"bare": wire.AppendWS, "envelope": wire.AppendWSEnvelope} {
			want, _, err := readFrame(encode(nil, &r))
			if err != nil {
				t.Fatal(err)
			}
			got := d.Frame(encode([]byte("x"), &r), 1)
			f, compressed, err := readInflated(got[1:])
			if err != nil || f.op != want.op || !bytes.Equal(f.payload, want.payload) {
				t.Fatalf("%s of %d bytes: op %x, %d bytes, %v", name, len(want.payload), f.op, len(f.payload), err)
			}
			if compressed && (len(want.payload) < wire.MinDeflate || len(got) >= 1+len(encode(nil, &r))) {
				t.Fatalf("%s of %d bytes was compressed to a frame of %d", name, len(want.payload), len(got)-1)
			}
		}
	})
}

func BenchmarkDeflater(b *testing.B) {
	for _, n := range []int{512, 1 << 10, 16 << 10, 64 << 10, 1 << 20} {
		for _, level := range []int{-2, 1, 6, 9} {
			b.Run(fmt.Sprintf("bytes=%d/level=%d", n, level), func(b *testing.B) {
				d := wire.NewDeflater(level)
				plain := wire.AppendFrame(nil, wire.OpText, logText(n))
				var dst []byte
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					dst = d.Frame(append(dst[:0], plain...), 0)
				}
				b.ReportMetric(float64(len(dst))/float64(len(plain)), "ratio")
			})
		}
	}
}
