package tailcast

import (
	"context"
	"fmt"
)

// A Backplane is a log that several hubs share, so that viewers may come to any of them: see WithBackplane. It numbers all topics:
// every hub gets the same messages with the same Positions, in the same order, and a viewer that comes back with a Position gets what
// comes after it from any hub. A Backplane value belongs to one hub, and stands for that hub's connection to the log.
//
// The contract, beside those of Source, Publisher and Replayer:
//
//  1. Publish returns nil when the log has stored all of the messages. It goes on trying until then, or until ctx is done, and a
//     message that it tries again is stored once. Messages of one call keep their order within a topic; those of others may come
//     between them.
//  2. A message that has a Pos comes from a Source, whose Position that is. The same one, published again because it is not known
//     whether it was stored, also after a restart of the program, is stored once. Messages of one call that follow each other with
//     the same Pos are parts of one: each is stored.
//  3. Run publishes what the log has stored, messages of its own hub included, in the log's order, each with its Position, and each
//     as it was published: Topic, Data, Binary, Partial, Time, Gap and Origin.
//  4. Positions of one Epoch grow by their Offset, over all topics. An Epoch other than the last one says that the log has begun anew.
//  5. Run is given a BackplanePublisher. Before its first Publish it calls Join with the Position after which it begins: the first
//     time the log's end, and later, as after an error, that of the last message whose Publish returned nil; and it calls Join again
//     where it has to go on behind messages which it could not read, or in a new Epoch. While the log cannot be reached it calls
//     Degraded, or returns an error.
//  6. Replay reads the same log: its messages are those of Run. For a Position of another Epoch it may yield a Gap, and then all that
//     it has. To of a first Gap is the Position after which it goes on. A Position between two messages is as good as that of the one
//     before it.
//  7. Publish, Replay and Last may be called before Run is, and concurrently with it.
//  8. Publish returns a TooLargeError, and has stored nothing but what has a Pos, if a message has more Data than the log takes.
type Backplane interface {
	Source
	Publisher
	Replayer
	// Last returns the Position after which the n newest messages of a topic come, as the log is now; all of them, if there are
	// fewer. So for n = 0 it is the Position of the newest message, or, if there is none, the place where the log begins.
	Last(ctx context.Context, topic string, n int) (Position, error)
}

// A BackplanePublisher is what Backplane.Run is given as its Publisher.
type BackplanePublisher interface {
	Publisher
	// Join says that Publish will bring everything that comes after at. If at is not the Position published last, the hub declares a
	// Gap in every topic.
	Join(at Position)
	// Degraded says why the log cannot be reached at present; nil, Join and Publish say that it can. Viewers are told: see PROTOCOL.md.
	Degraded(err error)
}

// A TooLargeError says that a message has more Data than the log of a Backplane takes. It matches ErrMessage.
type TooLargeError struct {
	Index int // of the message, in the call of Publish
	Limit int // how many bytes of Data it may have
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message %d: %v: the log takes %d bytes of Data", e.Index, ErrMessage, e.Limit)
}

// Is makes errors.Is find ErrMessage.
func (e *TooLargeError) Is(target error) bool { return target == ErrMessage }

// A BackplaneCaller is a Backplane that reaches the other hubs, beside the log. Hub.Push, Drop and Disconnect need it to find the
// connections that a user has with them; with a Backplane that is none they see this hub's only.
type BackplaneCaller interface {
	// Answer sets the function that answers what others ask. The hub calls it once, before everything else.
	Answer(f func(ctx context.Context, request []byte) []byte)
	// Call asks all other hubs, and returns their answers. If not all that should be there have answered, for which it waits no
	// longer than some seconds, it returns those that have, and an error that matches ErrBackplane.
	Call(ctx context.Context, request []byte) (answers [][]byte, err error)
}

// WithBackplane makes the hub one of several that share a log. The Backplane numbers every topic. Publish, a client's publish and the
// Publishers of Sources return when the log has stored the messages, and that may be before they are in this hub: what viewers get is
// what comes back from the log, in its order, which is the same on every node. A viewer's past is read from the log where this hub's
// memory has not got it. The hub runs the Backplane itself, from the first use on until Shutdown; b is for this hub alone, and closing
// it is up to who has made it.
//
// What changes:
//
//   - Sources may share topics, since it is the log that numbers. But those whose messages have a Pos may not share one within a hub: that
//     is ErrTopicOwner, as ever. Their Replay is not used, and a Gap of theirs loses its From and To.
//   - A text that is larger than what the log takes, such as a very long line, becomes Partial messages if a Source publishes it. All
//     else of that size is refused with a TooLargeError. Where others publish in the topic, too, their messages may come between parts.
//   - Publish may store the first messages of a call and then fail: see ErrBackplane.
//   - While the log cannot be reached, Sources wait in Publish: a file is its own buffer. Calls of Hub.Publish wait too, until their
//     context is done, but no more of them than have 1024 messages and 8 MiB together: then they get ErrBackplane. A client's publish
//     waits for 5 s at most. Viewers stay, and are told.
//   - Push, Drop and Disconnect ask the other hubs, if b is a BackplaneCaller, and return the sum. Where one has not answered they return what
//     the others have said, and an error that matches ErrBackplane: trying again would reach those twice.
//   - Conns, Stats and Presence are about this hub; TopicConfig.Presence tells of nobody.
//   - WithLagPolicy, retention and memory are each hub's own.
func WithBackplane(b Backplane) Option {
	must(b != nil, "WithBackplane: nil Backplane")
	return option(func(c *config) { c.backplane = b })
}
