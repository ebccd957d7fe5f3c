package follow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// inRig tells a story in virtual time, of a file that is followed from its start with a checkpoint.
func inRig(t *testing.T, story func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.close()
		r.cfg.Start, r.cfg.Checkpoint = follow.FromStart, r.path("app.pos")
		r.events = true
		story(t, r)
	})
}

func (r *rig) wantOut(want ...string) {
	r.t.Helper()
	if !slices.Equal(r.out, want) {
		r.t.Errorf("got  %q\nwant %q", r.out, want)
	}
}

// noLeftovers holds the directory to the files that are meant to be there.
func (r *rig) noLeftovers(want ...string) {
	r.t.Helper()
	entries, err := os.ReadDir(r.dir)
	r.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		r.t.Errorf("the directory has %q, want %q", names, want)
	}
}

func TestCheckpointIsSmallPrivateAndReadable(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.write("app.log", "a1\n")
		r.run()
		r.look()
		r.noLeftovers("app.log", "app.pos", "app.pos.lock")
		r.exit()
		r.noLeftovers("app.log", "app.pos")
		info, err := os.Stat(r.cfg.Checkpoint)
		r.must(err)
		if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode != 0o600 {
			t.Errorf("mode %v", mode)
		}
		data, err := os.ReadFile(r.cfg.Checkpoint)
		r.must(err)
		if len(data) > 1000 || !strings.HasPrefix(string(data), fmt.Sprintf("tailcast checkpoint 1 of %q\n", r.cfg.Path)) {
			t.Errorf("%d bytes:\n%s", len(data), data)
		}
	})
}

// At a quiet file nothing is written, and while lines come about once a second.
func TestCheckpointIsWrittenOncePerInterval(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		var writes atomic.Int64
		r.cfg.Fault(func(step string) error {
			if step == "create" {
				writes.Add(1)
			}
			return nil
		})
		r.write("app.log", "a\n")
		r.run()
		r.wait(time.Hour)
		if n := writes.Load(); n > 3 {
			t.Errorf("%d writes at a file that is quiet for an hour", n)
		}
		writes.Store(0)
		for range 100 {
			r.write("app.log", "b\n")
			r.wait(100 * time.Millisecond)
		}
		if n := writes.Load(); n < 9 || n > 12 {
			t.Errorf("%d writes in 10 s", n)
		}
	})
}

// A consumer that takes long for each batch does not make the checkpoint any older.
func TestCheckpointWithASlowConsumer(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.write("app.log", strings.Repeat("line\n", 100_000))
		r.cfg.Poll = time.Hour // what comes late is written in time all the same
		count, saved := 0, 0
		r.cfg.OnCheckpoint(func() {
			if count-saved > 2048 {
				t.Errorf("%d lines since the last one", count-saved)
			}
			saved = count
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		f := r.follower(r.cfg)
		go func() {
			done <- f.Run(ctx, func(lines []follow.Line) error {
				time.Sleep(900 * time.Millisecond)
				count += len(lines)
				return nil
			})
		}()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if count != 100_000 || saved != count {
			t.Errorf("%d lines came, the checkpoint has %d", count, saved)
		}
		cancel()
		<-done
	})
}

// Trouble in any step is told once, following goes on, the old checkpoint stays, and the next one that can be written counts.
func TestCheckpointThatCannotBeWritten(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, syscall.EACCES, syscall.EROFS, syscall.EIO} {
		for _, step := range []string{"create", "write", "sync", "rename", "syncdir"} {
			t.Run(fmt.Sprint(step, " ", err), func(t *testing.T) { checkpointFault(t, step, err) })
		}
	}
}

func checkpointFault(t *testing.T, step string, fault error) {
	inRig(t, func(t *testing.T, r *rig) {
		r.write("app.log", "a\n")
		r.run()
		r.wait(2 * time.Second)
		r.exit()
		before, err := os.ReadFile(r.cfg.Checkpoint)
		r.must(err)
		failing := true
		r.cfg.Fault(func(s string) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if failing && s == step {
				return fault
			}
			return nil
		})
		r.run()
		for range 10 {
			r.write("app.log", "b\n")
			r.wait(time.Second)
		}
		after, err := os.ReadFile(r.cfg.Checkpoint)
		r.must(err)
		if step != "syncdir" && !bytes.Equal(before, after) {
			t.Errorf("the old checkpoint has become\n%s", after)
		}
		if err := r.f.Stats().CheckpointError; !errors.Is(err, fault) || !strings.Contains(err.Error(), r.cfg.Checkpoint) {
			t.Errorf("Stats: %v", err)
		}
		r.noLeftovers("app.log", "app.pos", "app.pos.lock")
		r.set(func() { failing = false })
		r.wait(2 * time.Second)
		if err := r.f.Stats().CheckpointError; err != nil {
			t.Errorf("Stats, when it is over: %v", err)
		}
		r.kill() // what was written when it was over counts
		r.run()
		r.write("app.log", "c\n")
		r.look()
		r.wantOut(slices.Concat([]string{"a", "EVENT checkpoint"}, slices.Repeat([]string{"b"}, 10), []string{"EVENT checkpoint written", "c"})...)
	})
}

func TestCheckpointDirectoryThatIsNotThere(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.cfg.Checkpoint = r.path("state/app.pos")
		r.run()
		r.write("app.log", "a\n")
		r.wait(2 * time.Second)
		r.must(os.Mkdir(r.path("state"), 0o700))
		r.wait(2 * time.Second)
		r.restart()
		r.look()
		slices.Sort(r.out) // it is written beside the reading
		r.wantOut("EVENT checkpoint", "EVENT checkpoint written", "EVENT missing", "EVENT recovered", "a")
	})
}

// reseal gives a checkpoint that was changed the checksum that it should have.
func reseal(data []byte) []byte {
	end := bytes.LastIndex(data, []byte("\nend ")) + 1
	return fmt.Appendf(data[:end:end], "end %08x\n", crc32.Checksum(data[:end], crc32.MakeTable(crc32.Castagnoli)))
}

func TestCheckpointOfNoUse(t *testing.T) {
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return reseal(bytes.Replace(b, []byte(old), []byte(new), 1)) }
	}
	for _, c := range []struct {
		name, want string
		change     func([]byte) []byte
	}{
		{"empty", "no checkpoint", func([]byte) []byte { return nil }},
		{"another format", "line 1: it does not begin with", func([]byte) []byte { return []byte(`{"offset": 17}`) }},
		{"newer", "line 1: it has version 2, of a newer release", replace("checkpoint 1", "checkpoint 2")},
		{"no version", "line 1: \"x\" is no version", replace("checkpoint 1", "checkpoint x")},
		{"another path", "line 1: it is of ", replace("app.log", "other.log")},
		{"cut off", "line 2: the checksum is missing", func(b []byte) []byte { return b[:bytes.Index(b, []byte(`"source"`))] }},
		{"one byte changed", "the checksum is missing or wrong", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"unknown field", "line 2: json: unknown field", replace(`"state":{`, `"state":{"colour":1,`)},
		{"no JSON", "line 2: ", replace(`{"state"`, `{{"state"`)},
		{"no state", "line 2: exactly one", func(b []byte) []byte {
			i, j := bytes.Index(b, []byte(`{"state"`)), bytes.Index(b, []byte(`{"source":{"file"`))
			return reseal(slices.Delete(b, i, j))
		}},
		{"bad position", "is no position", replace(`"last":"1`, `"last":"2`)},
		{"a source that is not there", "generation 0 makes no sense", replace(`{"generation":{"source":0`, `{"generation":{"source":7`)},
		{"other bytes", "generation 0 makes no sense", replace(`"before":"Y`, `"before":"Z`)},
		{"huge", "no checkpoint", func([]byte) []byte { return make([]byte, 17<<20) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			inRig(t, func(t *testing.T, r *rig) {
				r.write("app.log", "a1\na2\n")
				r.run()
				r.look()
				r.exit()
				data, err := os.ReadFile(r.cfg.Checkpoint)
				r.must(err)
				data = c.change(data)
				r.must(os.WriteFile(r.cfg.Checkpoint, data, 0o600))
				r.cfg.Start = follow.LastLines(1)
				r.run()
				r.look()
				r.wantOut("a1", "a2", "EVENT checkpoint", "a2")
				if err := r.f.Stats().CheckpointError; err == nil || !strings.Contains(err.Error(), c.want) ||
					!strings.Contains(err.Error(), r.cfg.Checkpoint+": ") || !strings.Contains(err.Error(), "kept as "+r.cfg.Checkpoint+".bad") {
					t.Errorf("Stats: %v", err)
				}
				kept, err := os.ReadFile(r.cfg.Checkpoint + ".bad")
				if err != nil || !bytes.Equal(kept, data) {
					t.Errorf("what was kept: %v", err)
				}
				r.restart()
				r.look()
				r.wantOut("a1", "a2", "EVENT checkpoint", "a2") // there is a good one again
			})
		})
	}
}

func TestCheckpointThatIsADirectory(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.must(os.MkdirAll(filepath.Join(r.cfg.Checkpoint, "sub"), 0o700))
		r.write("app.log", "a\n")
		r.run()
		r.look()
		r.wantOut("EVENT checkpoint", "a")
	})
}

func TestCheckpointInUse(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.write("app.log", "a\n")
		r.run()
		r.look()
		cfg := r.cfg
		cfg.Begin = nil
		other := r.follower(cfg)
		err := other.Run(t.Context(), func([]follow.Line) error { t.Error("it runs"); return nil })
		if !errors.Is(err, follow.ErrCheckpointInUse) || !strings.Contains(err.Error(), r.cfg.Checkpoint) {
			t.Errorf("Run = %v", err)
		}
		r.stop()
		r.write("app.log", "b\n")
		if err := other.Run(t.Context(), func([]follow.Line) error { return errConsumer }); err != errConsumer {
			t.Errorf("Run = %v", err)
		}
	})
}

// The consumer's panic leaves neither a lock nor a goroutine.
func TestCheckpointWhenTheConsumerPanics(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.write("app.log", "a\n")
		f := r.follower(r.cfg)
		func() {
			defer func() { recover() }()
			f.Run(t.Context(), func([]follow.Line) error { panic("boom") })
		}()
		if _, err := os.Stat(r.cfg.Checkpoint + ".lock"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the lock's file: %v", err)
		}
		r.run()
		r.look()
		r.wantOut("a")
	})
}

// A glob that matches the checkpoint, and what lies beside it, does not make them rotated files.
func TestCheckpointIsNoSibling(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.cfg.Checkpoint, r.cfg.Rotated = r.path("app.log.pos"), r.path("app.log?*")
		r.write("app.log", "a\n")
		r.write("app.log.pos.bad", "bad\n")
		r.run()
		r.look()
		r.rename("app.log", "app.log.1")
		r.write("app.log", "b\n")
		r.look()
		r.restart()
		r.look()
		r.wantOut("a", "b")
		if names := r.f.Siblings(); !slices.Equal(names, []string{r.path("app.log.1")}) {
			t.Errorf("siblings %q", names)
		}
	})
}

// After a reboot devices may have other numbers: content finds what was written meanwhile, also to an old file.
func TestCheckpointWithOtherDeviceNumbers(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.hold("w", "app.log")
		r.heldWrite("w", "a1\n")
		r.run()
		r.look()
		r.rename("app.log", "app.log.1")
		r.write("app.log", "b1\n")
		r.look()
		r.exit()
		data, err := os.ReadFile(r.cfg.Checkpoint)
		r.must(err)
		r.must(os.WriteFile(r.cfg.Checkpoint, reseal(regexp.MustCompile(`"dev":\d+`).ReplaceAll(data, []byte(`"dev":987654`))), 0o600))
		r.heldWrite("w", "a2\n")
		r.write("app.log", "b2\n")
		r.run()
		r.look()
		r.wantOut("a1", "b1", "a2", "b2")
		r.check()
	})
}

// The order of hundreds of late lines is too much for the checkpoint; what it keeps is enough to miss and repeat nothing, from
// any position, once the old file is quiet.
func TestCheckpointAfterALongHistory(t *testing.T) {
	inRig(t, func(t *testing.T, r *rig) {
		r.hold("w", "app.log")
		r.heldWrite("w", "a0\n")
		r.run()
		r.look()
		r.rename("app.log", "app.log.1")
		for i := range 150 {
			r.heldWrite("w", fmt.Sprintf("a%d\n", i+1))
			r.look()
			r.write("app.log", fmt.Sprintf("b%d\n", i))
			r.look()
		}
		r.wait(time.Minute)
		for i := range 40 {
			r.rename("app.log", fmt.Sprintf("app.log-20260101-%03d", i))
			r.write("app.log", fmt.Sprintf("c%d\n", i))
			r.wait(time.Second)
		}
		r.wait(time.Minute)
		r.restart()
		r.look()
		info, err := os.Stat(r.cfg.Checkpoint)
		r.must(err)
		t.Logf("the checkpoint has %d bytes", info.Size())
		if info.Size() > 200_000 {
			t.Errorf("the checkpoint has %d bytes", info.Size())
		}
		last := r.items[len(r.items)-1].data
		for _, it := range r.items[301:] { // the order of what was before is that of the files again
			i := slices.Index(r.items, it)
			if i%8 > 0 {
				continue
			}
			p := r.replays(r.f, []follow.Position{it.pos})[0]
			if !slices.Equal(p.items, r.items[i+1:]) {
				t.Fatalf("replay after %v: %v, up to %s", it, p.items, last)
			}
		}
		p := r.replays(r.f, []follow.Position{r.begins[0].pos})[0]
		sorted := func(items []item) (out []string) {
			for _, it := range items {
				out = append(out, it.String())
			}
			slices.Sort(out)
			return out
		}
		if !slices.Equal(sorted(p.items), sorted(r.items)) {
			t.Errorf("a replay of everything has %d lines, not %d", len(p.items), len(r.items))
		}
	})
}

// FuzzCheckpoint: what is no checkpoint is refused, what is one stays the same, and a Follower that begins with it does not
// panic, whatever it says.
func FuzzCheckpoint(f *testing.F) {
	const path = "/var/log/app.log"
	head := fmt.Sprintf("tailcast checkpoint 1 of %q\n", path)
	f.Add([]byte(`{"state":{"last":"1a.3.0","gap":{"Count":-1,"Bytes":3,"Possible":true,"Reason":"r"},"begin":{"source":0,"from":"1a.0.0","to":"1a.0.0"}}}
{"source":{"file":{"dev":1,"ino":2,"size":3,"mtime":4},"landmarks":["1a.3.0","1a.9.0"],"spacing":65536}}
{"generation":{"source":0,"at":"1a.0.0","read":{"end":3,"bytes":"YTEK"},"size":3,"grew":5,"mtime":6,"aged":7,"sealed":true}}
{"order":{"source":0,"from":"1a.0.0","to":"1a.3.0","partial":true}}
{"order":{"source":-1,"gap":{"Count":-1,"Bytes":3,"Reason":"r"}}}
{"mark":{"file":{"size":3,"mtime":4},"at":"1a.3.0","source":0,"truncated":true}}
`))
	f.Add([]byte("{\"state\":{}}\n"))
	f.Add([]byte(head + "{\"state\":{}}\nend 00000000\n"))
	dir := f.TempDir()
	file := filepath.Join(dir, "app.log")
	if err := os.WriteFile(file, []byte("a1\na2\na3\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		follow.Recode(data, path) // as it is: most are refused for their checksum
		sealed := reseal(slices.Concat([]byte(head), data, []byte("\nend ")))
		if bytes.HasSuffix(data, []byte("\n")) {
			sealed = reseal(slices.Concat([]byte(head), data, []byte("end ")))
		}
		once, err := follow.Recode(sealed, path)
		if err != nil {
			return
		}
		twice, err := follow.Recode(once, path)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v:\n%s\nhas become\n%s", err, once, twice)
		}
		if _, err := follow.Recode(once, path+"x"); err == nil {
			t.Fatal("it is accepted for another path")
		}
		fl := follow.New(follow.Config{Path: file, NoNotify: true, Poll: time.Millisecond})
		if err := fl.Restore(once, path); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		fl.Run(ctx, func([]follow.Line) error { return nil })
		fl.Replay(ctx, follow.Position{}, func([]follow.Line) error { return nil })
	})
}
