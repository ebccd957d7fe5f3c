package tailcast

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxPushBody is how large the body of a push may be, in bytes.
const maxPushBody = 1 << 20

// PushHandler returns a handler of
//
//	POST {"userId":"…","event":"…","message":"…"}
//
// in JSON of at most 1 MiB, which calls Push for the user, with event as the topic. A message that is not a string is passed on as the JSON that
// it is. It answers {"matched":2,"queued":2,"dropped":0}: see PushResult; or as a sentence, where text/plain is accepted.
//
// auth says who may push, and has nothing to do with what a client of the hub is: an error of it is answered 401, or as the *CloseError in it says, see
// WithAuthenticate. If auth is nil, everybody is refused.
//
// What is wrong with a request is said in a sentence: 405 for another method, 401, 415 for another Content-Type, 413 for a body that is too large, 400
// for the rest; and 403 for a page of another origin, as everywhere.
func (h *Hub) PushHandler(auth func(*http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res, no := h.answerPush(w, r, auth)
		if no != nil {
			h.refusePush(w, r, no)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if headerHas(r.Header, "Accept", "text/plain") {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprintf(w, "message sent to %d clients", res.Queued)
			if res.Dropped > 0 {
				fmt.Fprintf(w, ", dropped for %d", res.Dropped)
			}
			fmt.Fprintln(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(res)
	})
}

func (h *Hub) answerPush(w http.ResponseWriter, r *http.Request, auth func(*http.Request) error) (PushResult, *refusal) {
	if _, err := h.cfg.admitPage(r); err != nil {
		return PushResult{}, refusalf(http.StatusForbidden, "%v", err)
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return PushResult{}, refusalf(http.StatusMethodNotAllowed, "POST a message, %s has no meaning here.", quote(r.Method))
	}
	if no := h.mayPush(r, auth); no != nil {
		return PushResult{}, no
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || kind != "application/json" || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return PushResult{}, refusalf(http.StatusUnsupportedMediaType, "The Content-Type is %s, and has to be application/json.", quote(r.Header.Get("Content-Type")))
	}
	p, no := readPush(http.MaxBytesReader(w, r.Body, maxPushBody))
	if no != nil {
		return PushResult{}, no
	}
	res, err := h.Push(r.Context(), p.UserID, p.Event, p.Message)
	switch {
	case errors.Is(err, ErrClosed):
		return res, refusalf(http.StatusServiceUnavailable, "The server is shutting down; try again in a few seconds.")
	case errors.Is(err, ErrBackplane):
		return res, refusalf(http.StatusBadGateway, "Not all servers could be asked; %d connections have been reached.", res.Queued)
	case err != nil:
		return res, refusalf(http.StatusBadRequest, "%s.", strings.TrimPrefix(err.Error(), "tailcast: push: "))
	}
	return res, nil
}

func (h *Hub) mayPush(r *http.Request, auth func(*http.Request) error) *refusal {
	if auth == nil {
		return refusalf(http.StatusForbidden, "Nobody may push here: the server has not said who may.")
	}
	err := h.ask(r.Context(), func() error { return auth(r) })
	var panicked *PanicError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &panicked):
		return &refusal{status: http.StatusInternalServerError, sentence: "The server cannot tell who you are: something is wrong with it.", err: err}
	}
	return refusalFor(err, http.StatusUnauthorized, "You may not push: authenticate first.")
}

// A pushed is the body of a push.
type pushed struct {
	UserID, Event string
	Message       []byte
}

func readPush(body io.Reader) (p pushed, _ *refusal) {
	data, err := io.ReadAll(body)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return p, refusalf(http.StatusRequestEntityTooLarge, "The body is larger than %d bytes.", tooLarge.Limit)
	case err != nil:
		return p, refusalf(http.StatusBadRequest, "The body cannot be read: %v.", err)
	}
	var o struct {
		UserID  *string         `json:"userId"`
		Event   *string         `json:"event"`
		Message json.RawMessage `json:"message"`
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return p, refusalf(http.StatusBadRequest, "The body is no push: %s.", jsonFault(err))
	}
	switch {
	case o.UserID == nil || *o.UserID == "":
		return p, refusalf(http.StatusBadRequest, "userId is missing or empty.")
	case o.Event == nil || *o.Event == "":
		return p, refusalf(http.StatusBadRequest, "event is missing or empty.")
	}
	p = pushed{UserID: *o.UserID, Event: *o.Event, Message: o.Message}
	var text *string // nil for null
	if len(o.Message) > 0 && (o.Message[0] == '"' || o.Message[0] == 'n') && json.Unmarshal(o.Message, &text) == nil {
		p.Message = nil
		if text != nil {
			p.Message = []byte(*text)
		}
	}
	if len(p.Message) == 0 {
		return p, refusalf(http.StatusBadRequest, "message is missing or empty.")
	}
	return p, nil
}

// jsonFault says what is wrong with JSON, and where.
func jsonFault(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("at byte %d, %v", syntax.Offset, err)
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Sprintf("%s is of type %s, at byte %d", kind.Field, kind.Value, kind.Offset)
	case errors.As(err, &kind):
		return "it is of type " + kind.Value + ", and has to be an object"
	}
	return err.Error()
}

// refusePush answers a push that is not carried out.
func (h *Hub) refusePush(w http.ResponseWriter, r *http.Request, no *refusal) {
	h.noteRefusal(r.Context(), r.RemoteAddr, logPushRefused, no)
	no.answer(w)
}
