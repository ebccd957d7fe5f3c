package mqtt

import (
	"fmt"
	"testing"
)

// Whoever can publish can make topics, so what is remembered of them is bounded.
func TestWhatIsRememberedOfTopicsIsBounded(t *testing.T) {
	var known topics
	for i := range 2 * maxTopics {
		known.note(fmt.Sprint(i), i%2 == 0)
	}
	known.note("the last one", false)
	if _, ok := known.lossy["the last one"]; !ok || len(known.lossy) != maxTopics {
		t.Errorf("%d topics are known, the last one: %v", len(known.lossy), ok)
	}
}
