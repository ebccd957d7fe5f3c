package tailcast

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

// An Identity is who a connection belongs to.
type Identity struct {
	// User names the user; "" = nobody in particular.
	User string
	// Expires is when the identity ends; zero = never. Within a second the connection is closed with 4401.
	Expires time.Time
	// Value is whatever the application wants to keep with it. The hub does not look at it.
	Value any
}

// An Action is something that a client wants to do in a topic.
type Action string

const (
	// ActionRead is to get the topic's messages.
	ActionRead Action = "read"
	// ActionPublish is to publish in the topic.
	ActionPublish Action = "publish"
)

// An Access is what a client wants to do, for WithAuthorize to decide on.
type Access struct {
	Identity Identity // of WithAuthenticate or WithRegistration; zero without them
	Action   Action
	Topic    string // valid as a topic's name; whether it exists is not known
	Remote   string // the client's address, as http.Request.RemoteAddr tells it
}

// AllowAllTopics is for WithAuthorize: everybody may read all topics, and nobody may publish.
func AllowAllTopics(_ context.Context, a Access) error {
	if a.Action == ActionRead {
		return nil
	}
	return errors.New("clients may only read")
}

// A refusal is the answer to a request that does not become a connection.
type refusal struct {
	status   int
	sentence string
	err      error  // behind it, for the log; never sent
	last     []byte // where it is 503: what ends an event stream in place of an event: error
}

func (r *refusal) Error() string { return r.sentence }

func refusalf(status int, format string, args ...any) *refusal {
	return &refusal{status: status, sentence: fmt.Sprintf(format, args...)}
}

// refusalFor is the answer where the application's err refuses a request: status, unless err holds a CloseError that says
// more. The codes 4400 to 4499 stand for the HTTP statuses 400 to 499, and 1013 stands for 503.
func refusalFor(err error, status int, sentence string) *refusal {
	r := &refusal{status: status, sentence: sentence, err: err}
	var ce *CloseError
	if !errors.As(err, &ce) || ce == nil {
		return r
	}
	if ce.Reason != "" {
		r.sentence = ce.Reason
	}
	switch {
	case 4400 <= ce.Code && ce.Code <= 4499:
		r.status = ce.Code - 4000
	case ce.Code == 1013:
		r.status = http.StatusServiceUnavailable
	}
	return r
}

// identify finds out who sends a request.
func (h *Hub) identify(r *http.Request) (id Identity, _ *refusal) {
	if h.cfg.authenticate == nil {
		return Identity{}, nil
	}
	err := h.ask(r.Context(), func() (err error) { id, err = h.cfg.authenticate(r); return err })
	var panicked *PanicError
	switch {
	case errors.As(err, &panicked):
		return Identity{}, &refusal{status: http.StatusInternalServerError, sentence: "The server cannot tell who you are: something is wrong with it.", err: err}
	case err != nil:
		return Identity{}, refusalFor(err, http.StatusUnauthorized, "You are not known here: authenticate first.")
	case !id.Expires.IsZero() && !time.Now().Before(id.Expires):
		return Identity{}, refusalf(http.StatusUnauthorized, "What you authenticate with has expired.")
	}
	return id, nil
}

// authorize finds out whether a client may do something.
func (h *Hub) authorize(ctx context.Context, a Access) *refusal {
	if h.cfg.authorize == nil {
		return nil
	}
	err := h.ask(ctx, func() error { return h.cfg.authorize(ctx, a) })
	var panicked *PanicError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &panicked):
		return &refusal{status: http.StatusInternalServerError, sentence: "The server cannot tell what you may do: something is wrong with it.", err: err}
	}
	return refusalFor(err, http.StatusForbidden, fmt.Sprintf("You may not %s topic %s.", a.Action, quote(a.Topic)))
}

// ask calls a function of the application, and turns its panic into an error. A Goexit is reported as one, and goes on.
func (h *Hub) ask(ctx context.Context, f func() error) (err error) {
	returned := false
	defer func() {
		v := recover()
		if returned {
			return
		}
		if v == nil {
			v = goexit
		}
		p := &PanicError{Value: v, Stack: debug.Stack()}
		h.panicked(ctx, p)
		err = p
	}()
	err = f()
	returned = true
	return err
}

// answer sends the refusal as a sentence.
func (no *refusal) answer(w http.ResponseWriter) {
	head := w.Header()
	switch {
	case no.status == http.StatusServiceUnavailable:
		head.Set("Retry-After", strconv.Itoa(retryAfter()))
	case no.status == http.StatusUnauthorized && head["Www-Authenticate"] == nil:
		head.Set("WWW-Authenticate", "Bearer") // RFC 9110, 11.6.1 asks for one; no browser opens a dialogue for this
	}
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Cache-Control", "no-store")
	http.Error(w, no.sentence, no.status)
}

// refuse answers a request that does not become a connection. One that may come back later is told when. An EventSource never
// comes back after anything but 200, so it gets that, with the advice to come back and last as its end (WHATWG HTML, 9.2.3).
func (h *Hub) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	h.noteRefusal(r.Context(), r.RemoteAddr, logRequestRefused, no)
	if f := chooseFormat(r); no.status == http.StatusServiceUnavailable && f.transport == formatSSE.transport {
		last := no.last
		if last == nil {
			last = sseError(no.sentence)
		}
		streamHeader(w.Header(), &f)
		_, _ = w.Write(append(sseHello(), last...))
		return
	}
	no.answer(w)
}

// retryAfter is how many seconds a client should wait before it comes back, spread so that not all come at once.
func retryAfter() int { return 3 + rand.IntN(5) }

// expire closes the connection when its identity ends.
func (c *Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expiry != nil { // of what it registered with before
		c.expiry.Stop()
		c.expiry = nil
	}
	if c.ending || c.identity.Expires.IsZero() {
		return
	}
	c.expiry = time.AfterFunc(time.Until(c.identity.Expires), func() {
		c.end(endExpired, &CloseError{Code: 4401, Reason: "what you authenticated with has expired"})
	})
}
