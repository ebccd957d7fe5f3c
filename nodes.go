package tailcast

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// A nodeRequest is what one hub of a Backplane asks the others: to do for their connections of a user what it does for its own.
type nodeRequest struct {
	Op    string      `json:"op"` // one of the constants below
	User  string      `json:"user"`
	Topic string      `json:"topic,omitempty"`
	Data  []byte      `json:"data,omitempty"`
	Cause *closeCause `json:"cause,omitempty"`
}

const (
	nodePush       = "push"
	nodeDrop       = "drop"
	nodeDisconnect = "disconnect"
)

// A closeCause is what of a cause goes to other hubs: its *CloseError, which is all that a client is told.
type closeCause struct {
	Code   int    `json:"code"`
	Reason string `json:"reason,omitempty"`
}

// A nodeAnswer is a hub's answer. Err is for what it cannot do.
type nodeAnswer struct {
	PushResult
	N   int    `json:"n"`
	Err string `json:"err,omitempty"`
}

// askNodes asks the other hubs, if there is a Backplane that can, and returns the sum of what they answer.
func (h *Hub) askNodes(ctx context.Context, req *nodeRequest) (nodeAnswer, error) {
	var sum nodeAnswer
	if h.plane == nil {
		return sum, nil
	}
	caller, ok := h.plane.log.(BackplaneCaller)
	if !ok {
		return sum, nil
	}
	h.plane.wake()
	data, err := json.Marshal(req)
	if err != nil {
		return sum, err
	}
	answers, err := caller.Call(ctx, data)
	if err != nil && !errors.Is(err, ErrBackplane) {
		err = fmt.Errorf("%w: %w", ErrBackplane, err)
	}
	for _, raw := range answers {
		var a nodeAnswer
		if jerr := json.Unmarshal(raw, &a); jerr != nil {
			err = errors.Join(err, fmt.Errorf("%w: an answer that cannot be read: %w", ErrBackplane, jerr))
			continue
		}
		if a.Err != "" {
			err = errors.Join(err, fmt.Errorf("%w: another node: %s", ErrBackplane, a.Err))
		}
		sum.Matched += a.Matched
		sum.Queued += a.Queued
		sum.Dropped += a.Dropped
		sum.N += a.N
	}
	return sum, err
}

// answerNode answers what another hub asks.
func (h *Hub) answerNode(_ context.Context, data []byte) []byte {
	var req nodeRequest
	var a nodeAnswer
	err := json.Unmarshal(data, &req)
	switch {
	case err != nil:
	case h.closing() || req.User == "": // nobody is left to be reached
	case req.Op == nodePush:
		m := Message{Topic: req.Topic, Data: req.Data}
		if err = h.checkContent(&m); err == nil {
			a.PushResult = h.push(req.User, &m)
		}
	case req.Op == nodeDrop:
		a.N = h.drop(req.User, req.Topic)
	case req.Op == nodeDisconnect:
		a.N = h.disconnect(req.User, req.Cause.error())
	default:
		err = fmt.Errorf("it does not know %q", req.Op)
	}
	if err != nil {
		a.Err = err.Error()
	}
	out, _ := json.Marshal(&a) // numbers and a text
	return out
}

// causeOf is what of a cause goes to other hubs; nil is a normal end.
func causeOf(cause error) *closeCause {
	if cause == nil {
		return nil
	}
	ce := closeError(cause)
	return &closeCause{Code: ce.Code, Reason: ce.Reason}
}

func (c *closeCause) error() error {
	if c == nil {
		return nil
	}
	return &CloseError{Code: c.Code, Reason: c.Reason}
}
