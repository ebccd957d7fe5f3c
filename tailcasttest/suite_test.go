package tailcasttest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

func goodJournal(testing.TB) *journal { return newJournal("", nil) }

func appendLine(_ testing.TB, j *journal) { j.append("one more") }

func TestAJournalPasses(t *testing.T) {
	for name, opts := range map[string][]tailcasttest.Option{"in a bubble": {tailcasttest.Bubble()}, "in real time": nil} {
		t.Run(name, func(t *testing.T) {
			tailcasttest.TestSource(t, goodJournal, append(opts, tailcasttest.Messages(4))...)
			expire := tailcasttest.Expire(func(_ testing.TB, j *journal) { j.expire(2) })
			tailcasttest.TestReplayer(t, goodJournal, appendLine, append(opts, tailcasttest.Messages(4), expire)...)
		})
	}
}

// newTail follows a file with five lines.
func newTail(poll bool) func(testing.TB) *tailcast.Tail {
	return func(t testing.TB) *tailcast.Tail {
		path := filepath.Join(t.TempDir(), "app.log")
		if err := os.WriteFile(path, []byte("one\ntwo\nthree\na line that is cut\n\nsix\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return &tailcast.Tail{Path: path, Start: tailcast.FromStart, MaxLine: 10, PollOnly: poll}
	}
}

func appendToFile(t testing.TB, src *tailcast.Tail) {
	f, err := os.OpenFile(src.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("more\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestATailPasses(t *testing.T) {
	tailcasttest.TestSource(t, newTail(false), tailcasttest.Messages(6))
	tailcasttest.TestReplayer(t, newTail(false), appendToFile, tailcasttest.Messages(6))
}

// Polling needs no notifications of the system, so it can be had in virtual time.
func TestATailPassesInABubble(t *testing.T) {
	tailcasttest.TestSource(t, newTail(true), tailcasttest.Messages(6), tailcasttest.Bubble())
	tailcasttest.TestReplayer(t, newTail(true), appendToFile, tailcasttest.Messages(6), tailcasttest.Bubble())
}

// What a truncation takes is declared by a Gap.
func TestATailThatWasTruncatedPasses(t *testing.T) {
	truncate := func(t testing.TB, src *tailcast.Tail) {
		if err := os.Truncate(src.Path, 0); err != nil {
			t.Fatal(err)
		}
	}
	tailcasttest.TestReplayer(t, newTail(true), appendToFile, tailcasttest.Messages(6), tailcasttest.Bubble(), tailcasttest.Expire(truncate))
}

// Each file of a glob is a topic, and is published by a goroutine of its own.
func TestAGlobPasses(t *testing.T) {
	newGlob := func(t testing.TB) *tailcast.Tail {
		dir := t.TempDir()
		for _, name := range []string{"a.log", "b.log", "c.log"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("one in "+name+"\ntwo\nthree\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return &tailcast.Tail{Path: filepath.Join(dir, "*.log"), Start: tailcast.FromStart}
	}
	tailcasttest.TestSource(t, newGlob, tailcasttest.Messages(9))
	tailcasttest.TestReplayer(t, newGlob, func(t testing.TB, src *tailcast.Tail) {
		appendToFile(t, &tailcast.Tail{Path: filepath.Join(filepath.Dir(src.Path), "b.log")})
	}, tailcasttest.Messages(9))
}

func TestLinesPass(t *testing.T) {
	newLines := func(testing.TB) tailcast.Source {
		return tailcast.Lines(strings.NewReader("one\ntwo\n\n\nthree\n"), "app")
	}
	tailcasttest.TestSource(t, newLines, tailcasttest.Ends(), tailcasttest.Messages(5), tailcasttest.Bubble())
	tailcasttest.TestSource(t, newLines, tailcasttest.Ends(), tailcasttest.Messages(5))
}

func TestSequencesPass(t *testing.T) {
	tailcasttest.TestSource(t, func(testing.TB) tailcast.Source {
		return tailcast.FromSeq(func(ctx context.Context) iter.Seq2[tailcast.Message, error] {
			return func(yield func(tailcast.Message, error) bool) {
				for n := 0; ctx.Err() == nil; n++ {
					if !yield(tailcast.Message{Data: fmt.Append(nil, n)}, nil) {
						return
					}
				}
			}
		})
	}, tailcasttest.Identity(func(m tailcast.Message) string { return string(m.Data) }))
}

// A ticker is the Source of README. What is refused is lost, as time is.
type ticker time.Duration

func (t ticker) Run(ctx context.Context, pub tailcast.Publisher) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-time.After(time.Duration(t)):
			if err := pub.Publish(ctx, tailcast.Message{Data: now.AppendFormat(nil, time.RFC3339Nano)}); err != nil {
				return err
			}
		}
	}
}

func TestATickerPasses(t *testing.T) {
	newTicker := func(testing.TB) ticker { return ticker(time.Second) }
	tailcasttest.TestSource(t, newTicker, tailcasttest.Unrepeatable(), tailcasttest.Bubble())
	said := failures(t, func(t testing.TB, _ <-chan struct{}) { tailcasttest.TestSource(t, newTicker) })
	blames(t, said, "Source rule 2", "the next one in its topic was")
}

// Each bug of a Source breaks a rule, which is named.
func TestABrokenSourceFails(t *testing.T) {
	for _, c := range []struct{ bug, rule, happened string }{
		{"it returns nil when it has nothing more", "Source rule 1", "it returned nil after 4 messages"},
		{"it returns nil when Publish fails", "Source rule 1", "Publish had refused that message"},
		{"it drops what is refused", "Source rule 2", `the next one in its topic was "line 2"`},
		{"it advances before Publish", "Source rule 2", `the next one in its topic was "line 2"`},
		{"it begins at the first line each time", "Source rule 2", `the next one in its topic was "line 1"`},
		{"after a failure it repeats the line before", "Source rule 2", "came twice: the position"},
		{"after a failure it repeats the line before, without a position", "Source rule 2", "came twice: the identity"},
		{"it fails for ever", "Source rule 2", "it failed 10 times in a row"},
		{"it gives up for good", "Source rule 3", `Permanent("no connection") after 0 messages`},
		{"it gives up when Publish fails", "Source rule 3", "Permanent("},
		{"it returns nil when it is cancelled", "Source rule 4", "it returned nil"},
		{"it hides the cause", "Source rule 4", `it returned "stopped"`},
		{"it does not heed its context", "Source rule 4", "(*journal).Run"},
		{"its Publish has a context of its own", "Source rule 4", "Publish was given one that goes on"},
		{"it changes the bytes while Publish has them", "Publisher", `was "line 1" and became`},
		{"its topic is not text", "Publisher", "it is not UTF-8"},
		{"it has no epoch", "Message.Pos", "epoch other than 0"},
		{"some messages have no position", "Message.Pos", "numbered by another publisher"},
		{"its positions repeat", "Message.Pos", "has come before"},
		{"it leaves a goroutine", "Source", "(*journal).Run.func"},
		{"it publishes from a goroutine that it leaves", "Source", "late"},
		{"it panics", "Source", "oh no"},
	} {
		t.Run(c.bug, func(t *testing.T) {
			said := failures(t, func(t testing.TB, over <-chan struct{}) {
				tailcasttest.TestSource(t, func(testing.TB) *journal { return newJournal(c.bug, over) }, tailcasttest.Messages(4),
					tailcasttest.Identity(func(m tailcast.Message) string { return string(m.Data) }))
			})
			blames(t, said, c.rule, c.happened)
		})
	}
}

// A SourceFunc is not run again.
func TestABrokenSourceFuncFails(t *testing.T) {
	message := func(n int) tailcast.Message { return tailcast.Message{Data: fmt.Append(nil, n)} }
	for name, c := range map[string]struct {
		run      tailcast.SourceFunc
		happened string
	}{
		"it counts on being run again": {func(ctx context.Context, pub tailcast.Publisher) error {
			if err := pub.Publish(ctx, message(1)); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}, "that ends a SourceFunc"},
		"it goes on when a message was refused": {func(ctx context.Context, pub tailcast.Publisher) error {
			for n := 0; ctx.Err() == nil; n++ {
				_ = pub.Publish(ctx, message(n))
			}
			return context.Cause(ctx)
		}, `the next one in its topic was "1"`},
		"it finishes when a message was refused": {func(ctx context.Context, pub tailcast.Publisher) error {
			for n := 0; ; n++ {
				if err := pub.Publish(ctx, message(n)); err != nil {
					return context.Cause(ctx)
				}
			}
		}, "Run returned nil"},
	} {
		t.Run(name, func(t *testing.T) {
			said := failures(t, func(t testing.TB, _ <-chan struct{}) {
				tailcasttest.TestSource(t, func(testing.TB) tailcast.Source { return c.run })
			})
			blames(t, said, "Source rule 5", c.happened)
		})
	}
}

func TestASourceThatEndsHasToEnd(t *testing.T) {
	said := failures(t, func(t testing.TB, _ <-chan struct{}) {
		tailcasttest.TestSource(t, goodJournal, tailcasttest.Messages(4), tailcasttest.Ends())
	})
	blames(t, said, "Source rule 1", "it has not returned after 10s")
}

// Each bug of a Replayer breaks a rule, which is named.
func TestABrokenReplayerFails(t *testing.T) {
	for _, c := range []struct{ bug, rule, happened string }{
		{"it has no positions", "Replayer rule 1", "has none"},
		{"its replay has other positions", "Replayer rule 1", `"line 1" at`},
		{"its replay has other data", "Replayer rule 1", `"line 1\n"`},
		{"its replay has other cuts", "Replayer rule 1", "partial"},
		{"its replay repeats the message itself", "Replayer rule 1", `"line 1" at`},
		{"its replay leaves one out", "Replayer rule 1", `"line 4" at`},
		{"its replay begins one too late", "Replayer rule 2", `it began with "line 3"`},
		{"it does not declare what has expired", "Replayer rule 2", "1 are missing, and no Gap says so"},
		{"it knows every position", "Replayer rule 3", `"line 4"`},
		{"it says nothing of a foreign position", "Replayer rule 3", "ended without a word"},
		{"it has another error for a foreign position", "Replayer rule 3", `the error "no such place"`},
		{"it waits at a foreign position", "Replayer rule 3", "nothing came within 10s"},
		{"it goes on after a foreign position", "Replayer rule 3", `"line 1" at`},
		{"it takes Earliest for a position", "Replayer rule 4", "unknown position"},
		{"Earliest is after the first message", "Replayer rule 4", `it began with "line 2"`},
		{"its replay ends at the end", "Replayer rule 5", "the iterator ended"},
		{"its replay fails at the end", "Replayer rule 5", `the error "end of file"`},
		{"its replay does not heed its context", "Replayer rule 5", "(*journal).Replay"},
		{"its replay has an error of its own when it is cancelled", "Replayer rule 5", `the error "stopped"`},
		{"its replay goes on after a break", "Replayer rule 5", "was yielded when the consumer had broken off"},
		{"its replay never ends", "Replayer rule 5", "(*journal)"},
		{"its lock is held while yield runs", "Replayer rule 6", "it waits for a lock"},
		{"two cannot read at the same time", "Replayer rule 6", "(*Mutex)"},
		{"its bytes change while yield has them", "Replayer", `was "line 1" and became "xine 1"`},
		{"its replay leaves a goroutine", "Replayer", "(*journal).Replay"},
		{"its replay panics", "Replayer", "oh no"},
	} {
		t.Run(c.bug, func(t *testing.T) {
			said := failures(t, func(t testing.TB, over <-chan struct{}) {
				tailcasttest.TestReplayer(t, func(testing.TB) *journal { return newJournal(c.bug, over) }, appendLine,
					tailcasttest.Messages(4), tailcasttest.Expire(func(_ testing.TB, j *journal) { j.expire(2) }))
			})
			blames(t, said, c.rule, c.happened)
		})
	}
}

func TestExpireHasToExpireSomething(t *testing.T) {
	said := failures(t, func(t testing.TB, _ <-chan struct{}) {
		tailcasttest.TestReplayer(t, goodJournal, appendLine, tailcasttest.Expire(func(testing.TB, *journal) {}))
	})
	if len(said) == 0 || !strings.Contains(said[0], "has taken nothing") {
		t.Errorf("%q", said)
	}
}

func TestASourceThatIsTooQuietIsTold(t *testing.T) {
	said := failures(t, func(t testing.TB, _ <-chan struct{}) {
		tailcasttest.TestSource(t, goodJournal, tailcasttest.Messages(5), tailcasttest.Within(time.Second))
	})
	if len(said) != 1 || !strings.Contains(said[0], "published 4 messages, and no more within 1s; the suite needs 5") {
		t.Errorf("%q", said)
	}
}

// The rules are quoted, so they have to be the same.
func TestTheRulesAreThoseOfTheContract(t *testing.T) {
	text, err := os.ReadFile("../source.go")
	if err != nil {
		t.Fatal(err)
	}
	contract := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "//", "")), " ")
	for name, rules := range map[string][]string{"Source": tailcasttest.SourceRules, "Replayer": tailcasttest.ReplayerRules} {
		at := strings.Index(contract, "The contract of "+map[string]string{"Source": "Run:", "Replayer": "Replay:"}[name])
		for i, rule := range rules {
			want := fmt.Sprintf("%d. %s", i+1, rule)
			n := strings.Index(contract[at:], want)
			if n < 0 {
				t.Fatalf("%s rule %d is not %q", name, i+1, rule)
			}
			at += n
		}
		if next := fmt.Sprintf(" %d. ", len(rules)+1); strings.Contains(contract[at:min(at+1000, len(contract))], next) && name == "Replayer" {
			t.Errorf("%s has more rules than %d", name, len(rules))
		}
	}
}
