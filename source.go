package tailcast

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"unicode/utf8"
)

// A Source brings messages into a hub: see Hub.Run.
//
// The contract of Run:
//
//  1. It returns nil when it has finished for good.
//  2. Any other error means: run me again, after a while. It must then go on after the last message whose Publish
//     returned nil.
//  3. An error made by Permanent ends it. Other sources live on.
//  4. When ctx is done it returns context.Cause(ctx) soon. Hub.Run then returns nil.
//  5. SourceFunc, Lines and FromSeq are not run again, since nothing says where they would go on: each error ends them.
//
// A panic is recovered, counts as an error, and is reported. Package tailcasttest has a suite that checks all of it, and one for
// Replayers.
type Source interface {
	Run(ctx context.Context, pub Publisher) error
}

// A Publisher takes messages. Each Source gets one of its own.
//
// Publish returns when the messages are in the hub's log, or none of them is; it never waits for a viewer. (A Source that is also
// a Replayer it holds up, for at most 100 ms a call, while most viewers are about to fall out of what is in memory: they would
// have to be served by Replay.) It copies what it keeps, so the caller may use the slices again. It may be called concurrently; messages of one call stand together.
type Publisher interface {
	Publish(ctx context.Context, msgs ...Message) error
}

// A TopicPublisher is what Hub.Run gives a Source: a Publisher that knows, and is told, where topics stand. It is for Sources that
// number their topics: a type assertion tells whether a Publisher is one. Those of tests need not be, and a Source must do without.
type TopicPublisher interface {
	Publisher
	// Head returns the position of the newest message that the hub has of a topic, as Hub.Head does. A Source goes on after it that
	// has not published there itself: otherwise messages would be missing between, and no Gap would say so. A hub with a Backplane
	// knows no such position.
	Head(topic string) (Position, bool)
	// Begin says, before the Source's first message in a topic, after which Position that comes: zero if it is not known. From then on
	// the topic is the Source's, which may replay it: viewers that come back need not wait for the first message. The error is as
	// Publish's: what matches ErrTopicOwner, ErrTopicName or ErrClosed.
	Begin(topic string, after Position) error
}

// A Replayer is a Source that can read its past. It serves viewers that come back to a Position which the hub no longer
// has in memory, or that cannot keep up.
//
// One call of Replay serves all viewers that are at about the same place; WithMaxReplays bounds how many there are at a time.
//
// The contract of Replay:
//
//  1. It yields the messages after the given Position, with the same Positions, Data and cuts as they had live, in the
//     order in which they were published. What could not have been published, such as a message without a Position, ends the replay.
//  2. What it cannot serve is declared by a first Message with Gap. It then goes on at the first message that it has.
//  3. For a Position that is not its own it yields ErrUnknownPosition, and nothing else.
//  4. Earliest() stands for the first message that it has. (Its Offset is 1: compare with it first.) The zero Position is
//     never asked for.
//  5. It runs until the consumer breaks or ctx is done: at the end it waits for more. The hub breaks as soon as it has
//     reached a message that is in its memory.
//  6. It is called concurrently, with itself and with Run. While its viewers have enough to read, yield does not return: for some
//     seconds, then the hub breaks, and calls it again when they need more.
//
// The hub knows that a topic can be replayed from the first message on that the Source publishes there, or earlier by
// TopicPublisher.Begin. Viewers that come back before that wait for it.
type Replayer interface {
	Replay(ctx context.Context, topic string, after Position) iter.Seq2[Message, error]
}

// SourceFunc is a function as a Source. It is not run again after an error.
type SourceFunc func(ctx context.Context, pub Publisher) error

// Run calls f.
func (f SourceFunc) Run(ctx context.Context, pub Publisher) error { return f(ctx, pub) }

// PublisherFunc is a function as a Publisher.
type PublisherFunc func(ctx context.Context, msgs ...Message) error

// Publish calls f.
func (f PublisherFunc) Publish(ctx context.Context, msgs ...Message) error { return f(ctx, msgs...) }

// FromSeq makes a Source of an iterator. Its first error ends it.
func FromSeq(seq func(ctx context.Context) iter.Seq2[Message, error]) Source {
	return SourceFunc(func(ctx context.Context, pub Publisher) error {
		for msg, err := range seq(ctx) {
			if err != nil {
				return err
			}
			if err := pub.Publish(ctx, msg); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	})
}

// Lines makes a Source of a stream of lines, such as a pipe. A line ends with "\n" or "\r\n"; the last one may have no end.
// A line longer than 1 MiB is cut between two characters into Partial messages. Run returns when r does; a Read that blocks
// is not interrupted by the context: close r for that.
func Lines(r io.Reader, topic string) Source {
	return SourceFunc(func(ctx context.Context, pub Publisher) error {
		br := bufio.NewReaderSize(r, defaultMaxLine)
		var rest []byte // the beginning of a character that a cut has left over
		for ctx.Err() == nil {
			line, err := br.ReadSlice('\n')
			partial := errors.Is(err, bufio.ErrBufferFull)
			if len(rest) > 0 {
				line, rest = append(rest, line...), nil
			}
			if partial {
				n := wholeRunes(line)
				line, rest = line[:n], bytes.Clone(line[n:])
			}
			if len(line) > 0 {
				msg := Message{Topic: topic, Data: trimLineEnd(line), Partial: partial}
				if perr := pub.Publish(ctx, msg); perr != nil {
					return perr
				}
			}
			switch {
			case err == nil || partial:
			case errors.Is(err, io.EOF):
				return nil
			default:
				return fmt.Errorf("tailcast: lines for topic %q: %w", topic, err)
			}
		}
		return context.Cause(ctx)
	})
}

// wholeRunes is the length of b without a rune, or a line end, that may be cut at its end.
func wholeRunes(b []byte) int {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		return n - 1
	}
	for i := len(b) - 1; i >= max(0, len(b)-utf8.UTFMax); i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

const defaultMaxLine = 1 << 20

func trimLineEnd(line []byte) []byte {
	n := len(line)
	if n > 0 && line[n-1] == '\n' {
		n--
		if n > 0 && line[n-1] == '\r' {
			n--
		}
	}
	return line[:n]
}
