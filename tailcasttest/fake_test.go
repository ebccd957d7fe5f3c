package tailcasttest_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// A fake is a test that may fail, and remembers why.
type fake struct {
	testing.TB

	mu   sync.Mutex // guards the rest
	said []string
}

func (f *fake) Helper() {}

func (f *fake) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func (f *fake) Error(args ...any)                 { f.Errorf("%s", fmt.Sprint(args...)) }
func (f *fake) FailNow()                          { runtime.Goexit() }
func (f *fake) Fatal(args ...any)                 { f.Error(args...); f.FailNow() }
func (f *fake) Fatalf(format string, args ...any) { f.Errorf(format, args...); f.FailNow() }

func (f *fake) Failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.said) > 0
}

// failures returns what f reports to a test, in a bubble. Then it lets go what f could not end: over is closed.
func failures(t *testing.T, f func(t testing.TB, over <-chan struct{})) (said []string) {
	synctest.Test(t, func(t *testing.T) {
		ft := &fake{TB: t}
		done, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			f(ft, over)
		}()
		<-done
		close(over)
		synctest.Wait()
		said = ft.said
	})
	return said
}

// blames expects a failure of this rule, which says what was expected and what happened.
func blames(t *testing.T, said []string, rule, happened string) {
	t.Helper()
	n := slices.IndexFunc(said, func(s string) bool {
		_, after, ok := strings.Cut(s, "\n\thappened: ")
		return ok && strings.HasPrefix(s, rule+": ") && strings.Contains(s, "\n\texpected: ") && strings.Contains(after, happened)
	})
	if n < 0 {
		t.Errorf("want %s, and that %q happened; got:\n%s", rule, happened, strings.Join(said, "\n"))
	} else {
		t.Log(said[n])
	}
}
