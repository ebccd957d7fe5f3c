package tailcasttest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

func TestARecorderKeepsCopies(t *testing.T) {
	var rec tailcasttest.Recorder
	data, gap := []byte("one"), tailcast.Gap{Count: 3}
	if err := rec.Publish(t.Context(), tailcast.Message{Data: data}, tailcast.Message{Gap: &gap}); err != nil {
		t.Fatal(err)
	}
	copy(data, "xxx")
	gap.Count = 4
	got := rec.Messages()
	if len(got) != 2 || string(got[0].Data) != "one" || got[1].Gap.Count != 3 {
		t.Errorf("%+v", got)
	}
	got[0].Topic = "mine"
	if rec.Messages()[0].Topic != "" {
		t.Error("the slice of Messages is not the caller's")
	}
}

func TestARecorderRefuses(t *testing.T) {
	var rec tailcasttest.Recorder
	no := errors.New("no")
	rec.Fail(func(_ context.Context, msgs []tailcast.Message) error {
		if len(msgs) > 1 {
			return no
		}
		return nil
	})
	message := tailcast.Message{Data: []byte("x")}
	if err := rec.Publish(t.Context(), message, message); !errors.Is(err, no) {
		t.Errorf("two: %v", err)
	}
	if err := rec.Publish(t.Context(), message); err != nil {
		t.Errorf("one: %v", err)
	}
	rec.Fail(nil)
	if err := rec.Publish(t.Context(), message, message); err != nil {
		t.Errorf("two, later: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(no)
	if err := rec.Publish(ctx, message); !errors.Is(err, no) {
		t.Errorf("with a context that is done: %v", err)
	}
	if n := len(rec.Messages()); n != 3 {
		t.Errorf("%d messages were kept", n)
	}
}

func TestARecorderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec tailcasttest.Recorder
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				if err := rec.Publish(t.Context(), tailcast.Message{Data: fmt.Append(nil, i)}); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := rec.Wait(t.Context(), i+1); err != nil || len(rec.Messages()) < i+1 {
					t.Errorf("Wait for %d: %v with %d", i+1, err, len(rec.Messages()))
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		err := rec.Wait(ctx, 10)
		if want := "tailcasttest: 4 of 10 messages were published: context deadline exceeded"; err == nil || err.Error() != want {
			t.Errorf("Wait = %v, want %s", err, want)
		}
		wg.Wait()
	})
}
