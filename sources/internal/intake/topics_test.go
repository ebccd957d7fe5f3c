package intake_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/intake"
	"github.com/tailcast/tailcast/tailcasttest"
)

// known returns Topics to which messages have come: "name" stands for one that the broker keeps, "name?" for another.
func known(t *testing.T, messages ...string) *intake.Topics {
	t.Helper()
	topics := new(intake.Topics)
	p := &intake.Publisher{To: new(tailcasttest.Recorder), Topics: topics}
	for _, name := range messages {
		lossy := name[len(name)-1] == '?'
		if lossy {
			name = name[:len(name)-1]
		}
		if skipped, err := p.Publish(t.Context(), tailcast.Message{Topic: name, Data: []byte("x")}, lossy); skipped || err != nil {
			t.Fatal(skipped, err)
		}
	}
	return topics
}

// declared returns the gaps that are declared, as "topic: reason", in the order of the topics.
func declared(t *testing.T, topics *intake.Topics) []string {
	t.Helper()
	var rec tailcasttest.Recorder
	if err := topics.Declare(t.Context(), &rec); err != nil {
		t.Error(err)
	}
	var out []string
	for _, m := range rec.Messages() {
		if m.Gap == nil || *m.Gap != (tailcast.Gap{Count: -1, Bytes: -1, Possible: true, Reason: m.Gap.Reason}) {
			t.Fatalf("%+v, with %+v", m, m.Gap)
		}
		out = append(out, m.Topic+": "+m.Gap.Reason)
	}
	slices.Sort(out)
	return out
}

func TestGapsThatAreOwed(t *testing.T) {
	messages := []string{"kept", "kept", "both", "both?", "both", "never?"}
	for name, c := range map[string]struct {
		happens func(*intake.Topics)
		want    []string
	}{
		"none, as long as nothing happens": {func(*intake.Topics) {}, nil},
		"an interruption":                  {func(t *intake.Topics) { t.Interrupted("away") }, []string{"both: away", "never: away"}},
		"a loss":                           {func(t *intake.Topics) { t.Lost("gone") }, []string{"both: gone", "kept: gone", "never: gone"}},
		"a loss after an interruption": {func(t *intake.Topics) { t.Interrupted("away"); t.Lost("gone") },
			[]string{"both: gone", "kept: gone", "never: gone"}},
		"an interruption after a loss": {func(t *intake.Topics) { t.Lost("gone"); t.Interrupted("away") },
			[]string{"both: gone", "kept: gone", "never: gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			topics := known(t, messages...)
			c.happens(topics)
			if got := declared(t, topics); !slices.Equal(got, c.want) {
				t.Errorf("declared %q, want %q", got, c.want)
			}
			if got := declared(t, topics); len(got) > 0 {
				t.Errorf("declared again: %q", got)
			}
		})
	}
}

func TestAGapThatIsRefusedStaysOwed(t *testing.T) {
	topics := known(t, "a", "b", "c")
	topics.Lost("gone")
	var rec tailcasttest.Recorder
	full := errors.New("full")
	rec.Fail(func(context.Context, []tailcast.Message) error {
		if len(rec.Messages()) == 1 {
			return full
		}
		return nil
	})
	if err := topics.Declare(t.Context(), &rec); !errors.Is(err, full) {
		t.Fatalf("the error is %v", err)
	}
	got := declared(t, topics)
	for _, m := range rec.Messages() {
		got = append(got, m.Topic+": "+m.Gap.Reason)
	}
	slices.Sort(got)
	if want := []string{"a: gone", "b: gone", "c: gone"}; !slices.Equal(got, want) {
		t.Errorf("declared in two goes: %q, want %q", got, want)
	}
}

// Whoever can publish can make topics, so what is remembered of them is bounded.
func TestWhatIsRememberedOfTopicsIsBounded(t *testing.T) {
	var messages []string
	for i := range 2 * intake.MaxTopics {
		messages = append(messages, fmt.Sprint(i))
	}
	topics := known(t, append(messages, "the last one")...)
	topics.Lost("gone")
	got := declared(t, topics)
	if _, ok := slices.BinarySearch(got, "the last one: gone"); !ok || len(got) != intake.MaxTopics {
		t.Errorf("%d topics are known, the last one: %v", len(got), ok)
	}
}
