package tailcast

import (
	"iter"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

// Presence yields the users that have connections with the topic, each once, in no order, as they are at the moment of the call. It costs a
// look at each connection. TopicConfig.Presence tells viewers of changes.
func (h *Hub) Presence(topic string) iter.Seq[string] {
	var present []string
	for user, conns := range h.users.all() {
		for _, c := range conns {
			if c.has(user, topic) {
				present = append(present, user)
				break
			}
		}
	}
	return func(yield func(string) bool) {
		for _, user := range present {
			if !yield(user) {
				return
			}
		}
	}
}

// A presence is who is there, in a topic that tells of it.
type presence struct {
	mu    sync.Mutex // taken before the topic's others: events come in the order of what they tell
	users map[string]int
}

// What the payload of an event begins with; the user follows.
const (
	come = '+'
	left = '-'
)

// arrives counts a subscription for its user, where its topic tells of that. One that was there before its connection had a user
// arrives with the registration.
func (s *subscription) arrives(user string) {
	if !s.topic.cfg.Presence {
		return
	}
	p := &s.topic.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	if user == "" || s.user != "" || s.departed {
		return
	}
	s.user = user
	if count(&p.users, user, 1); p.users[user] == 1 {
		s.conn.hub.tell(s.topic, come, user)
	}
}

// departs takes back arrives, or comes before it.
func (s *subscription) departs() {
	if !s.topic.cfg.Presence {
		return
	}
	p := &s.topic.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.departed = true; s.user == "" {
		return
	}
	if count(&p.users, s.user, -1); p.users[s.user] == 0 {
		s.conn.hub.tell(s.topic, left, s.user)
	}
}

// tell appends an event to a topic that the hub numbers.
func (h *Hub) tell(t *topic, kind byte, user string) {
	h.mu.Lock()
	if h.state != hubOpen {
		h.mu.Unlock()
		return
	}
	h.appends.Add(1)
	h.mu.Unlock()
	defer h.appends.Done()
	c := claim{topic: t, bare: true}
	if c.check(nil) != nil {
		return
	}
	c.settle(nil)
	epoch := t.epoch.Load()
	if epoch == 0 { // a Source has begun in between
		return
	}
	now := time.Now()
	a := t.log.Begin()
	a.Add(stream.Position{Epoch: epoch, Offset: a.NextSeq()}, now.UnixNano(), stream.Event, append([]byte{kind}, user...))
	a.End(now)
	t.fan.Grow(1, len(user))
	t.settle()
}
