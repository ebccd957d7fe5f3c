package sourcetest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
)

// Judge looks for what is missing of "line 0" to "line n-1", what came twice, and what came for the first time out of order.
func Judge(t testing.TB, msgs []tailcast.Message, n int) (twice int) {
	t.Helper()
	seen, next := make(map[string]bool), 0
	for _, text := range Texts(msgs) {
		switch {
		case strings.HasPrefix(text, "gap"):
			t.Errorf("%s, where nothing is missing", text)
		case seen[text]:
			twice++
		case text != fmt.Sprint("line ", next):
			t.Errorf("%q came before line %d", text, next)
			return twice
		default:
			next++
		}
		seen[text] = true
	}
	if next != n {
		t.Errorf("%d lines came, of %d", next, n)
	}
	return twice
}
