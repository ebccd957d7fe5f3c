package tailcast

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

// The signatures in this file are frozen, so that programs can be planned on them; their work comes in a later version. Until
// then calls return an error that matches errors.ErrUnsupported, and options panic.

func later(what string) error {
	return fmt.Errorf("tailcast: %s: not in this version: %w", what, errors.ErrUnsupported)
}

func laterOption(name string) Option {
	must(false, "%s: not in this version", name)
	return nil
}

// A PushResult says what became of a push.
type PushResult struct {
	Matched int // connections of the user that have the topic
	Queued  int // of these, those that will get the message
	Dropped int // of these, those whose queue had no room
}

// Push sends a message to all connections of a user that have the topic.
//
// Not in this version: it returns an error that matches errors.ErrUnsupported.
func (h *Hub) Push(ctx context.Context, user, topic string, data []byte) (PushResult, error) {
	return PushResult{}, later("Push")
}

// PushHandler returns a handler of POST {"userId","event","message"}, which calls Push. auth decides who may; without it
// nobody may.
//
// Not in this version: the handler answers 501.
func (h *Hub) PushHandler(auth func(*http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.refuse(w, r, refusalf(http.StatusNotImplemented, "%v", later("PushHandler")))
	})
}

// Drop unsubscribes all connections of a user from a topic, and returns how many.
//
// Not in this version: it returns an error that matches errors.ErrUnsupported.
func (h *Hub) Drop(ctx context.Context, user, topic string) (int, error) { return 0, later("Drop") }

// Disconnect closes all connections of a user with a cause, and returns how many.
//
// Not in this version: it returns an error that matches errors.ErrUnsupported.
func (h *Hub) Disconnect(ctx context.Context, user string, cause error) (int, error) {
	return 0, later("Disconnect")
}

// Presence yields the users that have connections with the topic, each once.
//
// Not in this version: it yields nobody.
func (h *Hub) Presence(topic string) iter.Seq[string] { return func(func(string) bool) {} }

// WithRegistration lets a WebSocket say who it is after it was opened, with a message {"token","event"}.
//
// Not in this version: it panics.
func WithRegistration(f func(ctx context.Context, token string) (Identity, error)) Option {
	return laterOption("WithRegistration")
}

// WithFlushInterval holds small messages up to d, so that many go out with one write. Default 0: each goes out at once.
//
// Not in this version: it panics.
func WithFlushInterval(d time.Duration) Option { return laterOption("WithFlushInterval") }

// WithCompression compresses messages of at least 512 bytes for the WebSockets that can read it (RFC 7692), each message once
// for all of them, with a level of compress/flate. Off by default.
//
// Not in this version: it panics.
func WithCompression(level int) Option { return laterOption("WithCompression") }

// WithDetach returns from the handler after a WebSocket's upgrade, which saves the memory of its goroutine. It ends the
// request's context, and middleware sees the request end.
//
// Not in this version: it panics.
func WithDetach() Option { return laterOption("WithDetach") }

// A Backplane is a log that several hubs share. Publish returns when the log has stored the messages; Run publishes what the
// log has stored, in its order, and only that reaches viewers; Replay reads its past.
//
// Not in this version: nothing takes one.
type Backplane interface {
	Source
	Publisher
	Replayer
}

// WithBackplane makes the hub one of several that share a log.
//
// Not in this version: it panics.
func WithBackplane(b Backplane) Option { return laterOption("WithBackplane") }
