package tailcasttest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A test of a Source of one's own that is a Replayer too, in virtual time.
func ExampleTestSource() {
	TestJournal := func(t *testing.T) {
		newIt := func(testing.TB) *journal { return newJournal("", nil) }
		tailcasttest.TestSource(t, newIt, tailcasttest.Bubble())
		tailcasttest.TestReplayer(t, newIt, func(_ testing.TB, j *journal) { j.append("more") }, tailcasttest.Bubble())
	}
	_ = TestJournal // go test calls it
}

// A Source whose second message is refused goes on there.
func ExampleRecorder() {
	var rec tailcasttest.Recorder
	rec.Fail(func(context.Context, []tailcast.Message) error {
		if len(rec.Messages()) == 1 {
			rec.Fail(nil) // once
			return errors.New("not now")
		}
		return nil
	})
	src := newJournal("", nil)
	ctx, cancel := context.WithCancel(context.Background())
	fmt.Println(src.Run(ctx, &rec))
	ended := make(chan error)
	go func() { ended <- src.Run(ctx, &rec) }()
	_ = rec.Wait(ctx, 3)
	cancel()
	<-ended
	for _, m := range rec.Messages()[:3] {
		fmt.Println(string(m.Data))
	}
	// Output:
	// tailcasttest: publish: not now
	// line 1
	// line 2
	// line 3
}
