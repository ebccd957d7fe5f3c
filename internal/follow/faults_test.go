package follow_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// TestFaults lets the calls of one kind to the file system fail, from each of some calls on: for three calls, or for longer than
// Grace. Run goes on, tells of it once, does not spin, and then delivers every line once. Only the copy of a truncated file may
// be given up, after Grace.
func TestFaults(t *testing.T) {
	t.Parallel()
	stride := 3
	if testing.Short() || raced {
		stride = 23
	}
	n := 0
	errnos := []error{syscall.EACCES, syscall.EIO, errStale, syscall.ELOOP, syscall.ENOTDIR, syscall.ENOENT, syscall.EMFILE, syscall.ENFILE}
	for _, story := range []string{"grows", "is late", "is renamed", "is copied and truncated", "is stopped"} {
		t.Run(story, func(t *testing.T) {
			last := countCalls(t, story)
			for _, op := range []string{"open", "stat", "fstat", "read", "readdir", "resolve"} {
				for i, errno := range errnos {
					for _, long := range []bool{false, true} {
						for call := 1 + i; call <= last; call += len(errnos) {
							if n++; n%stride != 0 || os.Getenv("FOLLOW_FAULT") != "" && n != atoi(os.Getenv("FOLLOW_FAULT")) {
								continue
							}
							if errors.Is(errno, syscall.ENOENT) && (long || op != "stat" && op != "open" || story == "is copied and truncated") {
								continue // what is not there for long is not there
							}
							f := fault{story, op, errno, call, long}
							t.Run(fmt.Sprint(op, " ", errno, " at call ", call, " long=", long), func(t *testing.T) { f.test(t) })
						}
					}
				}
			}
		})
	}
}

// errStale is the errno of a network file system's lost handle, under a number that every system has.
const errStale = syscall.EBADF

func atoi(s string) int { n, _ := strconv.Atoi(s); return n }

type fault struct {
	story, op string
	errno     error
	call      int
	long      bool
}

func (f fault) test(t *testing.T) {
	var s *stage
	defer func() {
		if t.Failed() {
			t.Logf("%s\nitems: %v", strings.Join(s.log, "\n"), s.r.items)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s = newStage(t)
		defer s.r.close()
		s.r.withBirths(f.call)
		left, until := 3, time.Time{}
		told, open := 0, ""
		s.r.report = func(event string, err error) {
			s.note("report %s: %v", event, err)
			if event == open && f.story != "is stopped" { // a Run that begins tells again
				t.Errorf("%q is reported twice", event)
			}
			if open = event; event == follow.EventRecovered {
				open = ""
			}
			if err != nil && !strings.Contains(err.Error(), s.r.dir) {
				t.Errorf("%q does not say which file", err)
			}
			told++
		}
		s.at(0, nil)
		hook := s.r.hook
		s.r.hook = func(op, name string) error {
			hook(op, name)
			s.r.mu.Lock()
			defer s.r.mu.Unlock()
			if s.calls < f.call || op != f.op {
				return nil
			}
			if until.IsZero() {
				until = time.Now().Add(2 * time.Second) // less than Grace: after that what can't be asked is given up
			}
			if left--; !f.long && left < 0 || f.long && time.Now().After(until) {
				return nil
			}
			s.note("%s %s fails", op, name)
			return &os.PathError{Op: op, Path: name, Err: f.errno}
		}
		s.jumbled = true // a file that can't be found in time comes later
		stories[f.story](s)
		s.write(1)
		s.r.wait(20 * time.Second)
		s.write(1)
		s.r.wait(6 * time.Second)
		if f.long && f.story != "grows" {
			s.gaps++
		}
		s.compare()
		if s.r.cancel == nil {
			t.Error("the Run is over")
		}
		if told > 6 {
			t.Errorf("%d reports", told)
		}
		if s.r.f.Stats().Looks > 400 {
			t.Errorf("%d looks", s.r.f.Stats().Looks)
		}
	})
}
