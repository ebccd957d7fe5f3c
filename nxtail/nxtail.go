// Package nxtail publishes the lines of an nxadm/tail Tail, for services that already run one.
//
// A tailcast.Tail follows the file without losing a line, and replays it. What comes through nxadm/tail is what nxadm/tail
// gives, and the hub can't see what is missing. As of v1.4.11 that is:
//
//   - What is written shortly before a rename, by a writer that is fast. It is lost without a word, and so is what is
//     appended to the old file after the rename.
//   - A rename just after a line that was read, with Config.Poll: it is missed, and nothing more comes until the next one.
//   - A file that is truncated and has grown past its old size when nxadm/tail looks: it is read from the middle.
//   - Half a line at the end of the file comes as a message of its own, and so does the rest of it, unless what was
//     written in between is lost. Config.CompleteLines is the cure.
//   - Lines that are cut at Config.MaxLineSize are not Partial: nothing tells them from whole ones.
//   - Where Config.RateLimiter overflows it goes on at the file's end. This loss alone it tells of; it becomes a Gap.
//   - Some errors of stat end the process, with os.Exit.
//   - A restart goes on where Config.Location says, whatever was published before.
//
// The messages are numbered by the hub, so a viewer that comes back is served from the hub's memory only, and not at all
// after a restart of the process.
package nxtail

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/nxadm/tail"

	"github.com/tailcast/tailcast"
)

const (
	maxLine   = 1 << 20 // longer lines are cut, as those of a tailcast.Tail
	maxReason = 1 << 10 // bytes of a Gap's reason
)

// Source publishes what comes from t.Lines to a topic; "" is the default one. Nobody else may receive from it.
//
// A line ends with "\n" or "\r\n", and a line longer than 1 MiB is cut between two characters into Partial messages. A Line
// with an Err becomes a Gap with the error as its reason.
//
// Run returns nil when t was stopped or has reached the end of a file that it does not follow, and otherwise the error that
// has ended t. Like every SourceFunc it is not run again: a Tail that has ended stays so. The caller owns t. When ctx is
// done Run returns, and t goes on until the caller calls t.Stop, after Hub.Run has returned, and at the end of the
// process t.Cleanup. A Tail with a RateLimiter may wait for somebody to receive: then receive from t.Lines until it is
// closed, while Stop runs.
func Source(t *tail.Tail, topic string) tailcast.Source {
	return tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
		err := publish(ctx, t, topic, pub)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			err = tailcast.Permanent(fmt.Errorf("nxtail: %s: %w", t.Filename, err))
		}
		return err
	})
}

func publish(ctx context.Context, t *tail.Tail, topic string, pub tailcast.Publisher) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case line, ok := <-t.Lines:
			if !ok {
				return ending(t)
			}
			if line == nil {
				continue
			}
			if err := pub.Publish(ctx, messages(topic, line)...); err != nil {
				return err
			}
		}
	}
}

// ending is why the lines have ended. The channel is closed a moment before the Tail has its error.
func ending(t *tail.Tail) error {
	err := t.Wait()
	if err != nil && err.Error() == "tail: stop at eof" { // StopAtEOF, which has no name for it
		return nil
	}
	return err
}

// messages are those of one line, or of an error.
func messages(topic string, line *tail.Line) []tailcast.Message {
	if line.Err != nil {
		reason := line.Err.Error()
		reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
		return []tailcast.Message{{Topic: topic, Time: line.Time, Gap: &tailcast.Gap{Count: -1, Bytes: -1, Possible: true, Reason: reason}}}
	}
	var msgs []tailcast.Message
	text := strings.TrimSuffix(line.Text, "\r")
	for len(text) > maxLine {
		n := wholeRunes(text[:maxLine])
		msgs = append(msgs, tailcast.Message{Topic: topic, Time: line.Time, Data: []byte(text[:n]), Partial: true})
		text = text[n:]
	}
	return append(msgs, tailcast.Message{Topic: topic, Time: line.Time, Data: []byte(text)})
}

// wholeRunes is the length of s without a character that is cut at its end.
func wholeRunes(s string) int {
	for i := len(s) - 1; i >= len(s)-utf8.UTFMax; i-- {
		if !utf8.RuneStart(s[i]) {
			continue
		}
		if !utf8.FullRuneInString(s[i:]) {
			return i
		}
		break
	}
	return len(s)
}
