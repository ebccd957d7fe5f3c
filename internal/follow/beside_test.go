package follow_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// Replays from random places run beside a Run that rotates under them, and get what it has emitted.
func TestReplaysBesideARun(t *testing.T) {
	const generations, lines = 10, 1000
	path := filepath.Join(t.TempDir(), "app.log")
	must(t, appendTo(path, ""))
	var out recorder
	began := make(chan struct{}, 1)
	f := follow.New(follow.Config{Path: path, Poll: 10 * time.Millisecond, Grace: 100 * time.Millisecond, Begin: signal(began)})
	defer goRun(t, f, &out)()
	<-began
	type viewer struct {
		from int
		out  recorder
	}
	var viewers []*viewer
	rotate := func(path string, n int) error { // with one more viewer, somewhere in what has come so far
		got := waitLines(t, &out, n*lines+1+n*50)
		v := &viewer{from: len(got) - n*50}
		viewers = append(viewers, v)
		t.Cleanup(goReplay(t, f, got[v.from-1].Pos, &v.out))
		return renameAndCreate(path, n)
	}
	writeGenerations(t, path, generations, lines, rotate)
	want := waitLines(t, &out, generations*lines)
	checkSequence(t, want, lines)
	for _, v := range viewers {
		got := waitLines(t, &v.out, len(want)-v.from)
		if !slices.Equal(positions(got), positions(want[v.from:])) || !slices.Equal(texts(got), texts(want[v.from:])) {
			t.Errorf("the replay after line %d is another", v.from)
		}
	}
}
