package tailcast

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/wire"
)

// Errors of Publish. Test for them with errors.Is.
var (
	// ErrClosed: the hub has been shut down, or the connection has ended.
	ErrClosed = errors.New("closed")
	// ErrTopicOwner: another publisher numbers this topic.
	ErrTopicOwner = errors.New("the topic is numbered by another publisher")
	// ErrMessage: the message is not fit to be published. The text says why.
	ErrMessage = errors.New("unfit message")
	// ErrBackplane: the Backplane cannot be reached, or not all of its nodes. Whether the messages are stored is not known: they may be.
	ErrBackplane = errors.New("the backplane cannot be reached")
)

// Errors of Replayers.
var (
	// ErrUnknownPosition: the Position is not one of this source's.
	ErrUnknownPosition = errors.New("unknown position")
)

// Errors of a connection: of Conn.Send, and the causes that BeforeClose is given.
var (
	// ErrQueueFull: the connection's private queue has no room, or the hub's memory has not. See Conn.Send.
	ErrQueueFull = fanout.ErrQueueFull
	// ErrWriteTimeout: the peer took no byte for the time that WithWriteTimeout sets.
	ErrWriteTimeout = fanout.ErrWriteTimeout
	// ErrPingTimeout: nothing was heard of the peer after a ping, for the time that WithPing sets.
	ErrPingTimeout = fanout.ErrPingTimeout
	// ErrNotSubscribed: Unsubscribe was called for a topic that the connection does not have.
	ErrNotSubscribed = errors.New("not subscribed")
	// ErrSubscribed: the connection has the topic already.
	ErrSubscribed = errors.New("already subscribed")
	// ErrTopicName: a topic's name is too long, or is not text.
	ErrTopicName = errors.New("bad topic name")
	// ErrTooManyFilters: so many filters are in use in the topic that there is no room for the connection's.
	ErrTooManyFilters = errors.New("too many filters in use")
	// ErrTooManyTopics: a connection may have as many as Limits.Topics says.
	ErrTooManyTopics = errors.New("too many topics")
)

// A CloseError is a WebSocket close code with its reason (RFC 6455, 7.4). Conn.Close uses the one that it finds in its cause
// with errors.As; BeforeClose is given the peer's.
type CloseError struct {
	Code   int
	Reason string // at most 123 bytes go over the wire: a longer one is cut between two characters
	Err    error  // what is behind it; never sent
}

func (e *CloseError) Error() string {
	if e == nil {
		return "close"
	}
	s := fmt.Sprintf("close %d", e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *CloseError) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.Err
}

// A PanicError is what a panic of a hook or a Source becomes.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // of the goroutine, as runtime/debug.Stack returns it
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Permanent marks err as one that running the Source again will not mend. errors.Is and errors.As see through it.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// checkTopic reports what is wrong with a topic's name.
func checkTopic(name string) error {
	if len(name) > wire.MaxTopicBytes {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTopicName, len(name), wire.MaxTopicBytes)
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("%w: it is not UTF-8", ErrTopicName)
	}
	if i := strings.IndexFunc(name, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%w: control character at byte %d", ErrTopicName, i)
	}
	return nil
}
