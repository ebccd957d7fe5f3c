package sourcetest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
)

// WantError looks at an error of Run's, and whether a hub would run the Source again after it.
func WantError(t testing.TB, err error, text string, permanent bool) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want %q", err, text)
		return
	}
	hub := tailcast.New()
	defer hub.Close()
	again := errors.New("it was run again")
	runs := 0
	failing := source(func(context.Context, tailcast.Publisher) error {
		if runs++; runs > 1 {
			return tailcast.Permanent(again)
		}
		return err
	})
	if got := hub.Run(t.Context(), failing); errors.Is(got, again) == permanent {
		t.Errorf("%v: permanent is not %v", err, permanent)
	}
}

// A source is a Source that a hub runs again, unlike a tailcast.SourceFunc.
type source func(context.Context, tailcast.Publisher) error

func (f source) Run(ctx context.Context, pub tailcast.Publisher) error { return f(ctx, pub) }
