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
	r.make(name + ".gz")
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
	r.make(a[0] + ".gz")
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
	if testing.Short() || raced {
		t.Skip("unpacks 256 MiB in one goroutine, which takes half a minute with the race detector")
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
		f := r.follower(follow.Config{Path: r.path("app.log"), Report: r.onReport})
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

// A file that can't be read for a moment is not damaged.
func TestAReadErrorIsNoDamage(t *testing.T) {
	plain := bytes.Repeat([]byte("0123456789abcdef\n"), 20_000)
	packed := pack(plain, 3)
	fail := errors.New("the disk's error")
	for failing := range 12 {
		n := 0
		u := follow.NewUnpacked(readerAtFunc(func(p []byte, off int64) (int, error) {
			if n++; n-1 == failing {
				return 0, fail
			}
			return bytes.NewReader(packed).ReadAt(p, off)
		}), int64(len(packed)))
		got, err := make([]byte, len(plain)), error(nil)
		for at := 0; at < len(got) && (err == nil || err == fail); {
			var m int
			m, err = u.ReadAt(got[at:min(at+50_000, len(got))], int64(at))
			at += m
		}
		if !bytes.Equal(got, plain) || err != nil || u.Damage() != nil {
			t.Errorf("read %d fails: the same: %t, %v, damage %v", failing, bytes.Equal(got, plain), err, u.Damage())
		}
	}
}

type readerAtFunc func(p []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// Packed files are in the order of their content, also those that did not keep its time.
func TestTheAgeOfPackedFiles(t *testing.T) {
	const kept, noted, lost = "kept", "noted", "lost" // the time; noted: in the header only
	for _, c := range []struct {
		name  string
		files []string // from the oldest on: name and what became of its time
	}{
		{"logrotate", []string{"app.log.3.gz", kept, "app.log.2.gz", kept, "app.log.1", kept}},
		{"packed again by hand", []string{"app.log.4.gz", kept, "app.log.3.gz", noted, "app.log.2.gz", kept, "app.log.1", kept}},
		{"packed again without a note", []string{"app.log.4.gz", kept, "app.log.3.gz", lost, "app.log.2.gz", kept, "app.log.1", kept}},
		{"packed the newest first", []string{"app-20260101.log.gz", kept, "app-20260102.log.gz", lost, "app-20260103.log.gz", lost, "app-20260104.log", kept}},
		{"numbers that count up", []string{"app.log.1.gz", kept, "app.log.2.gz", kept, "app.log.3.gz", kept}},
		{"numbers that count up, without a note", []string{"app.log.1.gz", kept, "app.log.2.gz", kept, "app.log.3.gz", lost}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			now, want := time.Now().Truncate(time.Second), []string(nil)
			for i := 0; i < len(c.files); i += 2 {
				name, fate := c.files[i], c.files[i+1]
				want = append(want, r.path(name))
				written := now.Add(time.Duration(i-20) * time.Hour)
				var b bytes.Buffer
				w := gzip.NewWriter(&b)
				if fate == noted {
					w.ModTime = written
				}
				fmt.Fprintln(w, name)
				r.must(w.Close())
				r.must(os.WriteFile(r.path(name), b.Bytes(), 0o644))
				if fate != kept { // the newest first
					written = now.Add(-time.Duration(i) * time.Minute)
				}
				r.must(os.Chtimes(r.path(name), time.Time{}, written))
			}
			if got := r.follower(r.cfg).Siblings(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
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
		f := r.follower(r.cfg)
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
