package follow_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// pack makes a gzip file of so many members.
func pack(b []byte, members int) []byte {
	var out bytes.Buffer
	for i := range members {
		w := gzip.NewWriter(&out)
		w.Write(b[len(b)*i/members : len(b)*(i+1)/members])
		w.Close()
	}
	return out.Bytes()
}

// readPlain reads a file, and unpacks it if need be, as far as it is whole.
func readPlain(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil || !strings.HasSuffix(name, ".gz") {
		return b, err
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, nil
	}
	b, _ = io.ReadAll(r)
	return b, nil
}

// gzip packs a file as gzip does, which keeps its time. The plain file goes, unless it is kept for a look or two.
func (r *rig) gzip(name string, members int, slow bool) {
	if slow {
		r.must(r.gzipping([]string{name, "20"}))
		r.look()
	}
	b, err := os.ReadFile(r.path(name))
	r.must(err)
	info, err := os.Stat(r.path(name))
	r.must(err)
	r.must(os.WriteFile(r.path(name+".gz"), pack(b, members), 0o644))
	r.must(os.Chtimes(r.path(name+".gz"), time.Time{}, info.ModTime()))
	if slow {
		r.look()
	}
	r.remove(name)
}

// gzipping is gzip as it is when so many bytes of the packed file have been written.
func (r *rig) gzipping(a []string) error {
	n, err := strconv.Atoi(a[1])
	r.must(err)
	b, err := os.ReadFile(r.path(a[0]))
	r.must(err)
	packed := pack(b, 1)
	r.must(os.WriteFile(r.path(a[0]+".gz"), packed[:min(n, len(packed))], 0o644))
	r.touched(a[0] + ".gz")
	return nil
}

// spoil changes a byte of a file, counted from its end.
func (r *rig) spoil(a []string) error {
	n, err := strconv.Atoi(a[1])
	r.must(err)
	b, err := os.ReadFile(r.path(a[0]))
	r.must(err)
	info, err := os.Stat(r.path(a[0]))
	r.must(err)
	b[len(b)-n] ^= 0x55
	r.must(os.WriteFile(r.path(a[0]), b, 0o644))
	return os.Chtimes(r.path(a[0]), time.Time{}, info.ModTime())
}

// FuzzGzipReaderAt: whatever is read from a packed file, in whatever order, is what was packed; and of a file that is
// damaged, what comes before the damage.
func FuzzGzipReaderAt(f *testing.F) {
	f.Add([]byte("some\nlines\n"), uint64(1), 1, 0, 0)
	f.Add(bytes.Repeat([]byte("0123456789abcdef\n"), 20_000), uint64(2), 3, 0, 0)
	f.Add(bytes.Repeat([]byte("0123456789abcdef\n"), 1000), uint64(3), 2, 9, 0)
	f.Add([]byte("some\nlines\n"), uint64(4), 1, 0, 5)
	f.Fuzz(func(t *testing.T, seed []byte, order uint64, members, cut, spoil int) {
		rng := rand.New(rand.NewPCG(order, 1))
		plain := seed
		if len(seed) > 0 && rng.IntN(4) == 0 { // larger than the window
			plain = bytes.Repeat(seed, 1+(300<<10)/len(seed))
		}
		packed := pack(plain, 1+min(max(members, 0), 100))
		packed = packed[:len(packed)-min(max(cut, 0), len(packed))]
		if n := len(packed); spoil > 0 && spoil <= n {
			packed[n-spoil] ^= byte(1 + rng.IntN(255))
		}
		want, wantErr := []byte(nil), error(nil)
		zr, err := gzip.NewReader(bytes.NewReader(packed))
		if wantErr = err; err == nil {
			want, wantErr = io.ReadAll(zr)
		}
		u := follow.NewUnpacked(bytes.NewReader(packed), int64(len(packed)))
		for range 20 {
			off, size := rng.IntN(len(plain)+10), rng.IntN(1+rng.IntN(1+len(plain)))
			if rng.IntN(4) == 0 {
				off = rng.IntN(50)
			}
			p := make([]byte, size)
			n, err := u.ReadAt(p, int64(off))
			part := want[min(off, len(want)):min(off+size, len(want))]
			if !bytes.Equal(p[:n], part) {
				t.Fatalf("%d bytes at %d: %d came, want %d; the same: %t", size, off, n, len(part), bytes.HasPrefix(part, p[:n]))
			}
			if (err == nil) != (n == size) {
				t.Fatalf("%d of %d bytes, %v", n, size, err)
			}
		}
		if n, err := u.PlainSize(); n != int64(len(want)) || err != nil {
			t.Errorf("size %d, %v; want %d", n, err, len(want))
		}
		if err := u.Damage(); (err == nil) != (wantErr == nil) {
			t.Errorf("damage %v, want %v", err, wantErr)
		}
	})
}

// A file that unpacks to far more than a log does is given up, with a gap, and what comes after it is read.
func TestABombIsGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks 256 MiB")
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		var bomb bytes.Buffer
		w, _ := gzip.NewWriterLevel(&bomb, gzip.BestCompression)
		w.Write([]byte("first\n"))
		zeros := bytes.Repeat([]byte("z"), 1<<20)
		for range 400 {
			w.Write(zeros)
		}
		w.Close()
		r.must(os.WriteFile(r.path("app.log.1.gz"), bomb.Bytes(), 0o644))
		r.write("app.log", "after\n")
		f := follow.New(follow.Config{Path: r.path("app.log"), Report: r.onReport})
		r.events = true
		var out []string
		err := f.Replay(t.Context(), follow.Position{}, func(lines []follow.Line) error {
			for _, l := range lines {
				if l.Gap != nil || !l.Partial && len(l.Data) < 1000 {
					out = append(out, texts([]follow.Line{l})...)
				}
				if string(l.Data) == "after" {
					return errConsumer
				}
			}
			return nil
		})
		if got, want := fmt.Sprint(out, r.out, errors.Is(err, errConsumer)), "[first GAP possible, -1 bytes after] [EVENT damaged] true"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// A replay goes on through files that are packed under it.
func TestAFileIsPackedUnderAReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		for i := 3; i > 0; i-- {
			r.write(fmt.Sprint("app.log.", i), fmt.Sprintf("a%d\nb%d\n", i, i))
		}
		r.write("app.log", "a0\n")
		f := follow.New(r.cfg)
		var out []string
		err := f.Replay(t.Context(), follow.Position{}, func(lines []follow.Line) error {
			for _, l := range lines {
				out = append(out, string(l.Data))
			}
			switch last := out[len(out)-1]; last {
			case "b3": // this one is open, and the next one is only listed
				r.gzip("app.log.3", 1, false)
				r.gzip("app.log.2", 1, false)
				r.rename("app.log.3.gz", "app.log.4.gz")
				r.rename("app.log.2.gz", "app.log.3.gz")
				r.rename("app.log.1", "app.log.2")
			case "a0":
				return errConsumer
			}
			return nil
		})
		if got := fmt.Sprint(out, err); got != "[a3 b3 a2 b2 a1 b1 a0] the consumer's error" {
			t.Error(got)
		}
	})
}
