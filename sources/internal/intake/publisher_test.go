package intake_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/intake"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A picky Publisher refuses topics that begin with "bad", what is larger than 3 bytes, and what it is told to.
func picky(rec *tailcasttest.Recorder, also error) *tailcasttest.Recorder {
	rec.Fail(func(_ context.Context, msgs []tailcast.Message) error {
		switch m := msgs[0]; {
		case strings.HasPrefix(m.Topic, "bad"):
			return fmt.Errorf("topic: %w", tailcast.ErrTopicName)
		case len(m.Data) > 3:
			return fmt.Errorf("size: %w", tailcast.ErrMessage)
		default:
			return also
		}
	})
	return rec
}

func TestWhatTheHubWillNeverTakeIsSkipped(t *testing.T) {
	var rec tailcasttest.Recorder
	var logged strings.Builder
	var topics intake.Topics
	publish := func(p *intake.Publisher, topic, data string, want bool) {
		t.Helper()
		if skipped, err := p.Publish(t.Context(), tailcast.Message{Topic: topic, Data: []byte(data)}, false); skipped != want || err != nil {
			t.Errorf("%s: skipped: %v, %v", topic, skipped, err)
		}
	}
	for range 2 { // connections
		p := &intake.Publisher{To: picky(&rec, nil), Topics: &topics, Logger: slog.New(slog.NewTextHandler(&logged, nil)), Name: "test"}
		publish(p, "log", "one", false)
		publish(p, "bad", "two", true)
		publish(p, "log", "three", true)
	}
	publish(&intake.Publisher{To: &rec, Topics: &topics}, "bad", "no logger", true)
	if n := topics.Skipped(); n != 5 {
		t.Errorf("%d messages were skipped", n)
	}
	if n := strings.Count(logged.String(), `msg="test: message skipped" err="tailcasttest: publish: topic: `); n != 2 {
		t.Errorf("the logger was told %d times: %s", n, &logged)
	}
	if n := strings.Count(logged.String(), "\n"); n != 2 {
		t.Errorf("the logger was told more: %s", &logged)
	}
	msgs := rec.Messages()
	if len(msgs) != 4 {
		t.Fatalf("%d messages came: %v", len(msgs), msgs)
	}
	for i, m := range msgs {
		switch gap := i%2 == 1; {
		case m.Topic != "log" || gap != (m.Gap != nil) || !gap && string(m.Data) != "one":
			t.Errorf("message %d is %+v", i, m)
		case gap && (m.Gap.Count != 1 || m.Gap.Bytes != 5 || m.Gap.Possible || m.Gap.Reason == ""):
			t.Errorf("gap %d is %+v", i, *m.Gap)
		}
	}
	topics.Lost("gone") // in the topics that the hub has
	if got := declared(t, &topics); len(got) != 1 || got[0] != "log: gone" {
		t.Errorf("declared %q", got)
	}
}

func TestWhatIsRefusedForNowIsNotSkipped(t *testing.T) {
	var topics intake.Topics
	full := errors.New("full")
	p := &intake.Publisher{To: picky(new(tailcasttest.Recorder), full), Topics: &topics}
	if skipped, err := p.Publish(t.Context(), tailcast.Message{Topic: "log"}, true); skipped || !errors.Is(err, full) {
		t.Errorf("skipped: %v, %v", skipped, err)
	}
	topics.Interrupted("away") // and a message that nobody keeps is lost
	if got := declared(t, &topics); len(got) != 1 || got[0] != "log: away" {
		t.Errorf("declared %q", got)
	}
}

// Otherwise the message would be acknowledged, and nobody would be told that it is missing.
func TestAGapInPlaceOfAMessageCanBeRefusedToo(t *testing.T) {
	var topics intake.Topics
	full := errors.New("full")
	p := &intake.Publisher{To: picky(new(tailcasttest.Recorder), full), Topics: &topics}
	if _, err := p.Publish(t.Context(), tailcast.Message{Topic: "log", Data: []byte("too large")}, false); !errors.Is(err, full) {
		t.Errorf("the error is %v", err)
	}
}
