package tailcast

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/wire"
)

// WithRegistration lets a WebSocket say who it is after it was opened, which is when a page can: it cannot set headers. Until then the
// connection has no topics. It sends
//
//	{"token":"…","event":"orders"}
//
// or, as tailcast.v1, {"type":"register","token":"…","event":"orders"}; f says whose token that is; and the connection belongs to that
// user then, and is subscribed to the topic that event names, if the handler serves it and WithAuthorize allows it. Without event
// it gets the topics of its request. It may register for more topics, with a message for each. A token of another user moves the
// connection: it loses the topics that it had, and gets the one it asks for. A page may also carry its token in the
// handshake: new WebSocket(url, ["tailcast.token", token]) or ["tailcast.v1", "tailcast.token", token], the token in base64url
// without padding (RFC 4648, 5).
//
// A connection whose registration is refused is closed with 4401, or with the *CloseError that f's error holds, and one that has not
// registered within Limits.RegistrationTime with 4408. Registrations are not passed on to AfterRead, and tokens are never logged. A message of a
// bare WebSocket is a registration if it is an object with a token and an event.
//
// A request that WithAuthenticate knows needs no registration. What is no WebSocket cannot register, and without
// WithAuthenticate gets 401.
//
// f is called on the connection's reader; its context is the connection's. TokenIsUser takes the token itself for the user.
func WithRegistration(f func(ctx context.Context, token string) (Identity, error)) Option {
	must(f != nil, "WithRegistration: nil function")
	return option(func(c *config) { c.register = f })
}

// TokenIsUser is for WithRegistration: whoever names a user is that user. That is fit for tests, and for where all who can reach the hub may be
// anybody.
func TokenIsUser(_ context.Context, token string) (Identity, error) {
	if token == "" {
		return Identity{}, errors.New("no token")
	}
	return Identity{User: token}, nil
}

// tokenProtocol is the subprotocol in whose place the next one in the list is a token.
const tokenProtocol = "tailcast.token"

// A registration is what a client says of itself.
type registration struct {
	token string
	topic string
	named bool // topic was said
}

// parseRegistration reads {"token","event"}. ok is false for an object that is none, and for what is no object; err says what is
// wrong with one.
func parseRegistration(data []byte) (reg registration, ok bool, err error) {
	var o struct{ Token, Event *json.RawMessage }
	if json.Unmarshal(data, &o) != nil || o.Token == nil {
		return registration{}, false, nil
	}
	if json.Unmarshal(*o.Token, &reg.token) != nil {
		return registration{}, true, errors.New("token is not a string")
	}
	if reg.token == "" {
		return registration{}, true, errors.New("token is empty")
	}
	if o.Event != nil {
		reg.named = true
		if json.Unmarshal(*o.Event, &reg.topic) != nil {
			return registration{}, true, errors.New("event is not a string")
		}
	}
	return reg, true, nil
}

// offeredToken returns the token that a handshake carries.
func offeredToken(h http.Header) (token string, ok bool, err error) {
	next := false
	for _, v := range h.Values("Sec-WebSocket-Protocol") {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); next {
				if part == "" {
					return "", true, errors.New("the token beside " + tokenProtocol + " is empty")
				}
				b, err := base64.RawURLEncoding.DecodeString(part)
				if err != nil || !utf8.Valid(b) {
					return "", true, errors.New("the token beside " + tokenProtocol + " is not text in base64url without padding")
				}
				return string(b), true, nil
			}
			next = part == tokenProtocol
		}
	}
	if next {
		return "", true, errors.New("no token comes after " + tokenProtocol)
	}
	return "", false, nil
}

// admitRegistration finds out whether a client has to register, and can.
func (h *Hub) admitRegistration(r *http.Request, req *request) *refusal {
	if h.cfg.register == nil || req.identity.User != "" {
		return nil
	}
	if !req.format.webSocket() {
		if h.cfg.authenticate == nil {
			return refusalf(http.StatusUnauthorized, "You are not known here, and only a WebSocket can say who it is.")
		}
		return nil
	}
	var err error
	req.registers = true
	if req.token, req.hasToken, err = offeredToken(r.Header); err != nil {
		return refusalf(http.StatusBadRequest, "Sec-WebSocket-Protocol: %v.", err)
	}
	return nil
}

// await gives a client its time to register.
func (c *Conn) await() {
	c.waiting = true
	c.late = time.AfterFunc(c.hub.cfg.limits.RegistrationTime, func() {
		err := &CloseError{Code: 4408, Reason: fmt.Sprintf("no registration within %v", c.hub.cfg.limits.RegistrationTime)}
		if c.end(endUnregistered, err) {
			c.logRegistration("", err)
		}
	})
	context.AfterFunc(c.ctx, func() { c.late.Stop() })
}

// registers carries out a message that says who the client is; it reports false for all other messages. It runs on the
// connection's reader.
func (c *Conn) registers(in Inbound) (bool, error) {
	if c.hub.cfg.register == nil {
		return false, nil
	}
	if c.format.objects() {
		return c.registerCommand(in)
	}
	waits := c.waits()
	var reg registration
	var ok bool
	var err error
	if !in.Binary && (waits || bytes.Contains(in.Data, []byte(`"token"`))) {
		reg, ok, err = parseRegistration(in.Data)
	}
	switch {
	case !waits && (!ok || err != nil || !reg.named):
		return false, nil
	case err != nil:
		return true, c.misregistered(err.Error())
	case !ok:
		return true, c.misregistered(`the first message has to be {"token","event"}`)
	}
	return true, c.register(reg, func() error { return nil })
}

// waits reports whether the client has to register before anything else.
func (c *Conn) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting
}

func unregistered(reason string) error { return &CloseError{Code: 4401, Reason: reason} }

// misregistered is the end of a client whose registration cannot be read.
func (c *Conn) misregistered(reason string) error {
	err := unregistered(reason)
	c.logRegistration("", err)
	return err
}

// register finds out whose token it is, and makes the connection that user's. It is answered before the first message of a topic.
func (c *Conn) register(reg registration, answer func() error) error {
	err := c.admit(reg, answer)
	if err != nil {
		c.logRegistration(reg.token, err)
	}
	return err
}

func (c *Conn) admit(reg registration, answer func() error) error {
	if c.late != nil {
		c.late.Stop() // what comes now is not the client's time
	}
	var id Identity
	err := c.hub.ask(c.ctx, func() (err error) { id, err = c.hub.cfg.register(c.ctx, reg.token); return err })
	var panicked *PanicError
	var ce *CloseError
	switch {
	case errors.As(err, &panicked):
		return panicked
	case errors.As(err, &ce) && ce != nil:
		return err
	case err != nil:
		return &CloseError{Code: 4401, Reason: "the token is not accepted", Err: err}
	case !id.Expires.IsZero() && !time.Now().Before(id.Expires):
		return unregistered("the token has expired")
	}
	topics := []string{reg.topic}
	if !reg.named {
		topics = c.wanted
	}
	for _, t := range topics {
		if no := c.mayAs(id, ActionRead, t); no != nil {
			return no.closes()
		}
	}
	if err := c.become(id); err != nil {
		return err
	}
	var subs []*subscription
	var from []start
	for _, t := range topics {
		at, ok := c.asked[t]
		if at.at = nil; !ok {
			at.tail = -1
		}
		s, err := c.join(t)
		switch {
		case errors.Is(err, ErrSubscribed):
			continue
		case err != nil:
			return &CloseError{Code: 1013, Reason: fmt.Sprintf("topic %s: %v", quote(t), err), Err: err} // there is no room
		}
		s.topic.hold(&at)
		subs, from = append(subs, s), append(from, at)
	}
	err = answer()
	for i, s := range subs {
		s.set(from[i])
	}
	return err
}

// closes is the end of a connection that registers for a topic which it may not read: the application's own, if it has said one.
func (r *refusal) closes() error {
	var p *PanicError
	var ce *CloseError
	switch {
	case errors.As(r.err, &p):
		return p
	case errors.As(r.err, &ce) && ce != nil:
		return r.err
	}
	return &CloseError{Code: 4403, Reason: r.sentence, Err: r.err}
}

// registerCommand is registers for a client of tailcast.v1.
func (c *Conn) registerCommand(in Inbound) (bool, error) {
	waits := c.waits()
	if !waits && (in.Binary || !bytes.Contains(in.Data, []byte(wire.Register))) {
		return false, nil
	}
	var cmd wire.Command
	var err error
	if !in.Binary {
		cmd, err = wire.ParseCommand(in.Data)
	}
	switch {
	case cmd.Type != wire.Register && waits:
		return true, c.answer(wire.AppendError(nil, `Register first: {"type":"register","token":"…"}.`, cmd.Ref...))
	case cmd.Type != wire.Register:
		return false, nil
	case err != nil:
		return true, c.misregistered(err.Error())
	}
	reg := registration{token: cmd.Token, topic: cmd.Topic, named: cmd.Named}
	return true, c.register(reg, func() error { return c.outcome(&cmd, nil) })
}

// become makes the connection a user's. What it had as another one it loses.
func (c *Conn) become(id Identity) error {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return ErrClosed
	}
	old := c.identity.User
	moves := !c.waiting && old != id.User
	if err := c.seat.move(id.User); err != nil { // a sentence
		c.mu.Unlock()
		return &CloseError{Code: 1013, Reason: err.Error(), Err: err}
	}
	subs := slices.Clone(c.subs) // before the first registration hooks may have given it some
	if moves {
		c.subs = nil
	}
	c.identity, c.waiting = id, false
	c.hub.users.move(c, old, id.User)
	c.mu.Unlock()
	for _, s := range subs {
		if moves {
			s.end()
		} else {
			s.arrives(id.User)
		}
	}
	c.expire()
	return nil
}
