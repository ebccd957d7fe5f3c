package tailcast

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// Users are the connections of each user: those whose Identity has a User.
type users struct {
	mu   sync.RWMutex // taken after Conn.mu
	of   map[string]map[*Conn]struct{}
	most int // users since the map was made
}

// move takes a connection from one user to another; "" is nobody.
func (u *users) move(c *Conn, from, to string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if from != "" {
		delete(u.of[from], c)
		if len(u.of[from]) == 0 {
			delete(u.of, from)
		}
	}
	if to != "" {
		if u.of == nil {
			u.of = make(map[string]map[*Conn]struct{})
		}
		if u.of[to] == nil {
			u.of[to] = make(map[*Conn]struct{}, 1)
		}
		u.of[to][c] = struct{}{}
		u.most = max(u.most, len(u.of))
	}
	if u.most > 1000 && len(u.of) < u.most/4 {
		u.of, u.most = shrunk(u.of), len(u.of)
	}
}

// conns returns the connections of a user at this moment.
func (u *users) conns(user string) []*Conn {
	u.mu.RLock()
	defer u.mu.RUnlock()
	conns := make([]*Conn, 0, len(u.of[user]))
	for c := range u.of[user] {
		conns = append(conns, c)
	}
	return conns
}

// count is how many users have connections.
func (u *users) count() int {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return len(u.of)
}

// A PushResult says what became of a push.
type PushResult struct {
	Matched int `json:"matched"` // connections of the user that have the topic
	Queued  int `json:"queued"`  // of these, those that will get the message
	Dropped int `json:"dropped"` // of these, those whose queue had no room; they are told of a gap
}

// Push sends a message to all connections of a user that have the topic, and to nobody else: the topic's log does not have it, and who comes
// later does not get it. It never waits for a connection: see Conn.Send, of which it is one for each. A user without connections is
// no error. It returns an error that matches ErrClosed after Shutdown, ErrTopicName or ErrMessage.
//
// The user is that of Identity.User, as WithAuthenticate or WithRegistration found it; it must not be empty. A connection that becomes another
// user's gets nothing more of what is pushed after that.
func (h *Hub) Push(ctx context.Context, user, topic string, data []byte) (PushResult, error) {
	var r PushResult
	m := Message{Topic: topic, Data: data}
	err := h.addressed(ctx, user, topic)
	if err == nil {
		err = h.checkContent(&m)
	}
	if err != nil {
		return r, fmt.Errorf("tailcast: push: %w", err)
	}
	r = h.push(user, &m)
	others, err := h.askNodes(ctx, &nodeRequest{Op: nodePush, User: user, Topic: topic, Data: data})
	r.Matched += others.Matched
	r.Queued += others.Queued
	r.Dropped += others.Dropped
	if err != nil {
		return r, fmt.Errorf("tailcast: push: %w", err)
	}
	return r, nil
}

// push is Push to the connections of this hub.
func (h *Hub) push(user string, m *Message) (r PushResult) {
	frames := make(map[format][]byte, 1)
	for _, c := range h.users.conns(user) {
		frame, ok := frames[*c.format]
		if !ok {
			frame = c.format.message(nil, m.Topic, m)
			frames[*c.format] = frame
		}
		switch matched, err := c.push(user, m.Topic, frame); {
		case !matched, errors.Is(err, os.ErrClosed): // it is about to end
		case err != nil:
			r.Matched++
			r.Dropped++
		default:
			r.Matched++
			r.Queued++
		}
	}
	h.pushes.Add(1)
	h.pushQueued.Add(int64(r.Queued))
	h.pushDropped.Add(int64(r.Dropped))
	return r
}

// addressed reports what is wrong with a call that is about a user's topic.
func (h *Hub) addressed(ctx context.Context, user, topic string) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case h.closing():
		return ErrClosed
	case user == "":
		return fmt.Errorf("%w: the user is empty", ErrMessage)
	case topic == "":
		return nil
	}
	return checkTopic(topic)
}

// push queues a frame, if the connection is the user's and has the topic.
func (c *Conn) push(user, topic string, frame []byte) (matched bool, err error) {
	c.mu.Lock() // so that it does not become another's in between
	defer c.mu.Unlock()
	if c.ending || c.identity.User != user || c.sub(topic) == nil {
		return false, nil
	}
	return true, c.fan.Send(frame)
}

// Drop unsubscribes all connections of a user from a topic, and returns how many. They stay open, and may come back to it.
func (h *Hub) Drop(ctx context.Context, user, topic string) (int, error) {
	if err := h.addressed(ctx, user, topic); err != nil {
		return 0, fmt.Errorf("tailcast: drop: %w", err)
	}
	n := h.drop(user, topic)
	others, err := h.askNodes(ctx, &nodeRequest{Op: nodeDrop, User: user, Topic: topic})
	if n += others.N; err != nil {
		return n, fmt.Errorf("tailcast: drop: %w", err)
	}
	return n, nil
}

// drop is Drop for the connections of this hub.
func (h *Hub) drop(user, topic string) (n int) {
	for _, c := range h.users.conns(user) {
		if c.drop(user, topic) {
			n++
		}
	}
	return n
}

// Disconnect closes all connections of a user with a cause, as Conn.Close does, and returns how many.
func (h *Hub) Disconnect(ctx context.Context, user string, cause error) (int, error) {
	if err := h.addressed(ctx, user, ""); err != nil {
		return 0, fmt.Errorf("tailcast: disconnect: %w", err)
	}
	n := h.disconnect(user, cause)
	others, err := h.askNodes(ctx, &nodeRequest{Op: nodeDisconnect, User: user, Cause: causeOf(cause)})
	if n += others.N; err != nil {
		return n, fmt.Errorf("tailcast: disconnect: %w", err)
	}
	return n, nil
}

// disconnect is Disconnect for the connections of this hub.
func (h *Hub) disconnect(user string, cause error) (n int) {
	for _, c := range h.users.conns(user) {
		if c.endIf(endApplication, cause, func() bool { return c.identity.User == user }) {
			n++
		}
	}
	return n
}

// drop unsubscribes the connection, if it is still the user's.
func (c *Conn) drop(user, topic string) bool {
	c.mu.Lock() // so that it does not become another's in between
	if c.identity.User != user {
		c.mu.Unlock()
		return false
	}
	s, err := c.unsubscribe(topic)
	c.mu.Unlock()
	if err != nil {
		return false
	}
	s.end()
	return true
}

// all returns the connections of all users.
func (u *users) all() map[string][]*Conn {
	u.mu.RLock()
	defer u.mu.RUnlock()
	all := make(map[string][]*Conn, len(u.of))
	for user, conns := range u.of {
		for c := range conns {
			all[user] = append(all[user], c)
		}
	}
	return all
}

func (c *Conn) has(user, topic string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.ending && c.identity.User == user && c.sub(topic) != nil
}
