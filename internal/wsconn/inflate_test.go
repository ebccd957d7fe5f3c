package wsconn_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/internal/wsconn"
)

const rsv1 = testnet.RSV1

// packed is what a client makes of a message (RFC 7692, 7.2.1).
func packed(data string) string {
	var b bytes.Buffer
	w := must(flate.NewWriter(&b, flate.DefaultCompression))
	w.Write([]byte(data))
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// noise is text that does not get shorter.
func noise(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestCompressedMessages(t *testing.T) {
	const cont, bin = testnet.OpContinuation, testnet.OpBinary
	const limit = 10_000
	long := strings.Repeat("a line of a log\n", 500)
	whole := packed(long)
	random := noise(limit)
	for name, test := range map[string]struct {
		frames [][]byte
		want   []string // messages
		code   int      // of the Close frame; 0 for none
	}{
		"one frame":             {[][]byte{masked(fin|rsv1|text, packed("hello"))}, []string{"hello"}, 0},
		"as RFC 7692, 7.2.3.1":  {[][]byte{masked(fin|rsv1|text, "\xf2\x48\xcd\xc9\xc9\x07\x00")}, []string{"Hello"}, 0},
		"in two, as there":      {[][]byte{masked(rsv1|text, "\xf2\x48\xcd"), masked(fin|cont, "\xc9\xc9\x07\x00")}, []string{"Hello"}, 0},
		"stored, as 7.2.3.3":    {[][]byte{masked(fin|rsv1|text, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")}, []string{"Hello"}, 0},
		"final, as 7.2.3.4":     {[][]byte{masked(fin|rsv1|text, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00")}, []string{"Hello"}, 0},
		"two blocks, 7.2.3.5":   {[][]byte{masked(fin|rsv1|text, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")}, []string{"Hello"}, 0},
		"goes on after a final": {[][]byte{masked(fin|rsv1|text, "\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00")}, []string{"HelloHello"}, 0},
		"empty":                 {[][]byte{masked(fin|rsv1|text, packed("")), masked(fin|rsv1|bin, "\x00")}, []string{"", ""}, 0},
		"nothing at all":        {[][]byte{masked(fin|rsv1|text, "")}, []string{""}, 0},
		"each by itself":        {[][]byte{masked(fin|rsv1|text, whole), masked(fin|text, "plain"), masked(fin|rsv1|text, whole)}, []string{long, "plain", long}, 0},
		"a ping between":        {[][]byte{masked(rsv1|text, whole[:9]), masked(fin|testnet.OpPing, "p"), masked(cont, ""), masked(fin|cont, whole[9:])}, []string{long}, 0},
		"as much as the limit":  {[][]byte{masked(fin|rsv1|bin, packed(random))}, []string{random}, 0},
		"more than the limit":   {[][]byte{masked(fin|rsv1|bin, packed(random+"x"))}, nil, 1009},
		"a bomb":                {[][]byte{masked(fin|rsv1|text, packed(strings.Repeat("x", 8<<20)))}, nil, 1009},
		"too long as it comes":  {[][]byte{masked(rsv1|bin, noise(limit)), masked(fin|cont, noise(limit))}, nil, 1009},
		"not UTF-8":             {[][]byte{masked(fin|rsv1|text, packed("a\xff"))}, nil, 1007},
		"binary":                {[][]byte{masked(fin|rsv1|bin, packed("a\xff"))}, []string{"a\xff"}, 0},
		"UTF-8 that is packed":  {[][]byte{masked(fin|rsv1|text, packed("grüße\U0001F600"))}, []string{"grüße\U0001F600"}, 0},
		"corrupt":               {[][]byte{masked(fin|rsv1|text, "\xff\xff\xff")}, nil, 1007},
		"cut":                   {[][]byte{masked(fin|rsv1|bin, packed(random)[:100])}, nil, 1007},
		"far too many ends":     {[][]byte{masked(fin|rsv1|text, strings.Repeat("\x03\x00", 1000))}, nil, 1007},
		"refers to the last":    {[][]byte{masked(fin|rsv1|text, packed("Hello")), masked(fin|rsv1|text, "\xf2\x00\x11\x00\x00")}, []string{"Hello"}, 1007},
		"RSV1 on a part":        {[][]byte{masked(rsv1|text, whole[:9]), masked(fin|rsv1|cont, whole[9:])}, nil, 1002},
		"RSV1 on a ping":        {[][]byte{masked(fin|rsv1|testnet.OpPing, "")}, nil, 1002},
		"RSV2":                  {[][]byte{masked(fin|rsv1|0x20|text, whole)}, nil, 1002},
	} {
		t.Run(name, func(t *testing.T) {
			stream := bytes.Join(test.frames, nil)
			for _, cuts := range [][]byte{nil, {0}, {100, 3}} {
				got, code := received(cut(stream, cuts), limit)
				if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", test.want) || code != test.code {
					t.Errorf("cut %v: %d messages %.100q, code %d; want %d messages %.100q, code %d", cuts, len(got), got, code, len(test.want), test.want, test.code)
				}
			}
		})
	}
}

// received returns the messages of a client that compresses, and the code of the Close frame that answers it, 0 for none.
func received(s *script, limit int64) (messages []string, code int) {
	c := wsconn.NewConn(s, wsconn.Options{ReadLimit: limit})
	c.Inflate()
	for {
		data, _, err := c.Read()
		var broken *wsconn.ProtocolError
		if errors.As(err, &broken) {
			return messages, broken.Code
		}
		if err != nil {
			return messages, 0
		}
		messages = append(messages, string(data))
	}
}

// A bomb costs no more memory than the limit, and little more than the message.
func TestABombIsNotUnpacked(t *testing.T) {
	const limit = 64 << 10
	bomb := masked(fin|rsv1|text, packed(strings.Repeat("\x00", 4<<20)))
	if len(bomb) > limit {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	stream := cut(bomb, nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, code := received(stream, limit)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; code != 1009 || got > 1<<20 {
		t.Errorf("code %d; %d bytes were allocated", code, got)
	}
}

// FuzzInflate: what is packed comes out as it was, whatever parts it comes in; and what is not packed does no harm.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("hello"), []byte{3}, byte(2))
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), []byte{}, byte(0))
	f.Fuzz(func(t *testing.T, data, cuts []byte, at byte) {
		const limit = 4096
		b := packed(string(data))
		n := min(int(at), len(b))
		stream := append(masked(rsv1|testnet.OpBinary, b[:n]), masked(fin|testnet.OpContinuation, b[n:])...)
		got, code := received(cut(stream, cuts), limit)
		if len(data) <= limit && (len(got) != 1 || got[0] != string(data) || code != 0) {
			t.Fatalf("%d messages %.100q, code %d, want %.100q", len(got), got, code, data)
		}
		if len(data) > limit && (len(got) != 0 || code != 1009) {
			t.Fatalf("%d messages, code %d, for %d bytes", len(got), code, len(data))
		}
		got, code = received(cut(masked(fin|rsv1|testnet.OpBinary, string(data)), cuts), limit)
		if code == 0 && (len(got) != 1 || len(got[0]) > limit) || code != 0 && len(got) != 0 {
			t.Fatalf("%d messages, code %d", len(got), code)
		}
	})
}
