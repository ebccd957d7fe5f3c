package follow_test

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast/internal/follow"
)

// That a file's beginning is compared costs nothing: not what was read beside it, and a read that fails is no other content.
func TestTheComparisonOfTheBeginningLosesNothing(t *testing.T) {
	const size = 100 + 1 + 4
	for name, test := range map[string]struct {
		at      func(offset int64, n int) bool // which read
		happens func(r *rig) error
		want    []string
	}{
		"its read fails": {
			func(offset int64, _ int) bool { return offset == 0 },
			func(*rig) error { return errors.New("input/output error") },
			[]string{`"two"`, `"three"`},
		},
		"a truncation after the read of a line": {
			func(offset int64, n int) bool { return offset+int64(n) == size },
			func(r *rig) error { r.truncate("app.log"); return nil },
			[]string{`"two"`, "gap possible=true", `"three"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				defer r.close()
				r.cfg.Start, r.cfg.Begin, r.cfg.Report = follow.FromStart, r.onBegin, r.onReport
				r.f = r.follower(r.cfg)
				r.open = r.f.CountFiles()
				var armed atomic.Bool
				r.f.OnRead(func(offset int64, n int) error {
					if test.at(offset, n) && armed.CompareAndSwap(true, false) {
						return test.happens(r)
					}
					return nil
				})
				r.write("app.log", strings.Repeat("x", 100)+"\n")
				r.run()
				r.look()
				r.write("app.log", "two\n")
				armed.Store(true)
				r.look()
				if armed.Load() {
					t.Error("there was no such read")
				}
				r.look()
				r.write("app.log", "three\n")
				r.look()
				var got []string
				r.set(func() {
					for _, it := range r.items[1:] {
						got = append(got, it.String())
					}
				})
				if !slices.Equal(got, test.want) {
					t.Errorf("after the first line came %.200q, want %q", got, test.want)
				}
			})
		})
	}
}
