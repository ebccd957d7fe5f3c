package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// events are messages of one topic with these numbers.
func messagesWith(seqs ...uint32) (list [][]byte) {
	for _, seq := range seqs {
		list = append(list, newMessage(0, seq, 1, 64))
	}
	return list
}

// The embeddings that there are of messages in the bytes of a connection.
func embed(f framing, list [][]byte) []byte {
	var out []byte
	for _, m := range list {
		switch f {
		case frames:
			out = append(out, frameOf(m)...)
		case chunks:
			e := fmt.Sprintf("id: 1\ndata: %s\n\n", m)
			out = fmt.Appendf(out, "%x\r\n%s\r\n", len(e), e)
		case unbound:
			out = fmt.Appendf(out, "id: 1\ndata: %s\n\n", m)
		}
	}
	return out
}

var framings = []framing{frames, chunks, unbound}

func testSpec(count int) *spec {
	return &spec{Server: "raw", Topics: 1, Count: count, Size: 64, Conns: 1}
}

// feedPieces feeds b in pieces whose lengths cut says, as a connection's reader does.
func feedPieces(c *checker, b []byte, cut func(left int) int) error {
	var rest []byte
	for len(b) > 0 {
		n := min(len(b), max(1, cut(len(b))))
		var err error
		if rest, err = c.feed(append(slices.Clone(rest), b[:n]...), time.Now().UnixNano()); err != nil {
			return err
		}
		rest = slices.Clone(rest)
		b = b[n:]
	}
	return nil
}

func all(left int) int { return left }

func TestChecker(t *testing.T) {
	short := messagesWith(0, 1, 2)
	short[1] = short[1][:60]
	bad := messagesWith(0, 1, 2)
	bad[1] = bytes.ToUpper(bad[1])
	bad[1][5] = 'z'
	for _, test := range []struct {
		name                           string
		list                           [][]byte
		delivered, skipped, back, torn int64
		open                           int
	}{
		{"all", messagesWith(0, 1, 2, 3), 4, 0, 0, 0, 0},
		{"the first is missing", messagesWith(1, 2, 3), 3, 1, 0, 0, 0},
		{"one is missing", messagesWith(0, 2, 3), 3, 1, 0, 0, 0},
		{"the last is missing", messagesWith(0, 1, 2), 3, 0, 0, 0, 1},
		{"one is repeated", messagesWith(0, 1, 1, 2, 3), 4, 0, 1, 0, 0},
		{"the last is repeated", messagesWith(0, 1, 2, 3, 3), 4, 0, 1, 0, 0},
		{"two are the other way round", messagesWith(0, 2, 1, 3), 3, 1, 1, 0, 0},
		{"one that was never sent", messagesWith(0, 1, 2, 3, 4), 4, 0, 0, 1, 0},
		{"one has lost its number", append(bad, messagesWith(3)...), 3, 1, 0, 1, 0},
	} {
		for _, f := range framings {
			c := newChecker(f, testSpec(4), &tally{})
			if err := feedPieces(c, embed(f, test.list), all); err != nil {
				t.Errorf("%s, framing %d: %v", test.name, f, err)
			}
			got := [5]int64{c.tally.Delivered, c.tally.Skipped, c.tally.Back, c.tally.Torn, int64(c.open)}
			if want := [5]int64{test.delivered, test.skipped, test.back, test.torn, int64(test.open)}; got != want {
				t.Errorf("%s, framing %d: delivered, skipped, back, torn, open = %v, want %v", test.name, f, got, want)
			}
		}
	}
	c := newChecker(frames, testSpec(3), &tally{})
	if err := feedPieces(c, embed(frames, short), all); err != nil || c.tally.Torn != 1 || c.tally.Delivered != 2 {
		t.Errorf("a short message: %v, %d torn, %d delivered", err, c.tally.Torn, c.tally.Delivered)
	}
}

func TestFrames(t *testing.T) {
	m := messagesWith(0)[0]
	long := bytes.Repeat([]byte{'x'}, 70_000)
	for _, test := range []struct {
		name, err string
		b         []byte
		delivered int64
		torn      int64
		pongs     string
	}{
		{"short", "", frameOf(m), 1, 0, ""},
		{"16 bits", "", frameOf(long[:300]), 0, 1, ""},
		{"64 bits", "", frameOf(long), 0, 1, ""},
		{"fragments", "", slices.Concat([]byte{0x01, 10}, m[:10], []byte{0x00, 0}, []byte{0x80, 54}, m[10:]), 1, 0, ""},
		{"a ping between fragments", "", slices.Concat([]byte{0x01, 10}, m[:10], []byte{0x89, 1, 'a'}, []byte{0x80, 54}, m[10:]), 1, 0, "\x8a\x81\x00\x00\x00\x00a"},
		{"pong", "", []byte{0x8a, 0}, 0, 0, ""},
		{"close", `closed by the server: 1001 "bye"`, []byte("\x88\x05\x03\xe9bye"), 0, 0, ""},
		{"close without a code", "closed by the server", []byte{0x88, 0}, 0, 0, ""},
		{"compressed", "no server should", []byte{0xc1, 0}, 0, 0, ""},
		{"masked", "no server should", []byte{0x81, 0x80, 0, 0, 0, 0}, 0, 0, ""},
		{"a fragmented ping", "no server should", []byte{0x09, 0}, 0, 0, ""},
		{"a long ping", "no server should", append([]byte{0x89, 126, 0, 126}, long[:126]...), 0, 0, ""},
		{"continues nothing", "no server should", []byte{0x80, 0}, 0, 0, ""},
		{"begins within another", "no server should", []byte{0x01, 0, 0x81, 0}, 0, 0, ""},
		{"unknown", "no server should", []byte{0x83, 0}, 0, 0, ""},
		{"huge", "no server should", []byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, 0, 0, ""},
	} {
		c := newChecker(frames, testSpec(1), &tally{})
		err := feedPieces(c, test.b, all)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.name, err, test.err)
		}
		if c.tally.Delivered != test.delivered || c.tally.Torn != test.torn || string(c.pongs) != test.pongs {
			t.Errorf("%s: %d delivered, %d torn, pongs %q", test.name, c.tally.Delivered, c.tally.Torn, c.pongs)
		}
	}
}

// TestEnvelope: centrifuge's messages hold ours, or several, or none.
func TestEnvelope(t *testing.T) {
	s := testSpec(3)
	s.Server = "centrifuge"
	c := newChecker(frames, s, &tally{})
	m := messagesWith(0, 1, 2)
	b := frameOf([]byte("{}"))
	b = append(b, frameOf(fmt.Appendf(nil, "{\"push\":{\"data\":%q}}\n{\"push\":{\"data\":%q}}", m[0], m[1]))...)
	b = append(b, frameOf(fmt.Appendf(nil, "{\"push\":{\"data\":%q}}", m[2][:60]))...)
	if err := feedPieces(c, b, all); err != nil || c.tally.Delivered != 2 || c.tally.Torn != 1 || c.open != 1 {
		t.Errorf("%v, %+v", err, c.tally.Delivered)
	}
	if want := appendMasked(nil, opText, []byte("{}")); !bytes.Equal(c.pongs, want) {
		t.Errorf("pongs %q", c.pongs)
	}
}

// FuzzFeed: what a checker finds does not depend on how the bytes were read.
func FuzzFeed(f *testing.F) {
	for _, fr := range framings {
		f.Add(uint8(fr), uint64(1), embed(fr, messagesWith(0, 1, 3, 2)))
		f.Add(uint8(fr), uint64(2), append(embed(fr, messagesWith(0)), "0\r\n\r\n"...))
	}
	f.Add(uint8(frames), uint64(3), []byte{0x01, 1, 'a', 0x89, 0, 0x80, 126, 0, 1, 'b', 0x88, 2, 3, 0xe9})
	f.Add(uint8(chunks), uint64(4), []byte("a;x=y\r\n0123456789\r\n1\r"))
	f.Fuzz(func(t *testing.T, fr uint8, seed uint64, b []byte) {
		framing := framings[int(fr)%len(framings)]
		whole, pieces := newChecker(framing, testSpec(8), &tally{}), newChecker(framing, testSpec(8), &tally{})
		err := feedPieces(whole, b, all)
		rng := rand.New(rand.NewPCG(seed, 0))
		perr := feedPieces(pieces, b, func(int) int { return rng.IntN(20) })
		if fmt.Sprint(err) != fmt.Sprint(perr) {
			t.Errorf("whole: %v, in pieces: %v", err, perr)
		}
		sums := func(c *checker) string {
			return fmt.Sprint(c.tally.Delivered, c.tally.Skipped, c.tally.Back, c.tally.Torn, c.open, c.next, c.pongs)
		}
		if sums(whole) != sums(pieces) {
			t.Errorf("whole: %s, in pieces: %s", sums(whole), sums(pieces))
		}
		if n := whole.tally; n.Delivered+n.Skipped > 8 || n.Delivered > int64(len(b)/64) {
			t.Errorf("%d delivered, %d skipped of %d bytes", n.Delivered, n.Skipped, len(b))
		}
	})
}

func FuzzChunkSize(f *testing.F) {
	for _, s := range []string{"0", "1a", "FF", "12;a=b", "", "-1", "+1", " 1", "1_0", "0x1", "fffffff", "10000000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		digits, _, _ := strings.Cut(s, ";")
		got, err := chunkSize([]byte(s))
		want, werr := strconv.ParseUint(digits, 16, 28)
		if werr != nil || want == 0 || len(digits) > 7 || len(s) > maxChunkLine {
			if err == nil {
				t.Errorf("%q is %d", s, got)
			}
		} else if err != nil || got != int(want) {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(uint8(3), uint32(7), uint8(128), []byte("#~"))
	f.Add(uint8(0), uint32(0), uint8(29), newMessage(1, 2, 3, 40))
	f.Fuzz(func(t *testing.T, topic uint8, seq uint32, size uint8, b []byte) {
		m := newMessage(topic, seq, 1, max(int(size), messageHead+1))
		setDue(m, 12345)
		gotTopic, gotSeq, stamp, ok := parseMessage(m)
		if !ok || gotTopic != topic || gotSeq != seq || stamp != 12345 || len(m) != max(int(size), messageHead+1) {
			t.Errorf("%q is %d, %d, %d, %v", m, gotTopic, gotSeq, stamp, ok)
		}
		if topic, seq, due, ok := parseMessage(b); ok {
			again := newMessage(topic, seq, due, len(b))
			if !strings.EqualFold(string(b[:messageHead]), string(again[:messageHead])) {
				t.Errorf("%q is topic %d, number %d, time %d", b, topic, seq, due)
			}
		}
	})
}
