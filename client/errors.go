package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tailcast/tailcast"
)

// A StatusError is an answer of the server that is not the stream that was asked for.
type StatusError struct {
	Status int    // of HTTP; 200 where the answer is something else than a stream
	Reason string // the server's sentence, at most 1 KiB of it

	after time.Duration // Retry-After
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("the server has answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

var (
	errSilent = errors.New("the connection has gone silent")
	errBroken = errors.New("broken off") // by the program
	errAgain  = errors.New("begins elsewhere")
)

// A final error is one that another connection would not mend.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// A permanent error is a final one that says so of a Source, too.
type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// finalStatus reports whether a status would be the same again. What is no error, and was not followed, is.
func finalStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status < 500
}

// final reports whether err ends a loop.
func final(err error) bool {
	var f finalError
	var status *StatusError
	var ce *tailcast.CloseError
	switch {
	case errors.As(err, &f):
		return true
	case errors.As(err, &status):
		return finalStatus(status.Status)
	case errors.As(err, &ce): // 4400 to 4499 stand for statuses
		return 4400 <= ce.Code && ce.Code <= 4499 && finalStatus(ce.Code-4000)
	}
	return false
}

// sentence is what a server's answer says to people: the beginning of it, in one line.
func sentence(body []byte) string {
	return strings.Join(strings.Fields(strings.ToValidUTF8(string(body), "\uFFFD")), " ")
}
