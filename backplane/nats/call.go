package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

// Nodes know each other by what they say every two seconds, and when they come and go: so who asks knows how many answers are due. A
// node that was killed is asked in vain until it is forgotten.

// What a node says of itself.
const (
	hello = "hello" // it has come: the others say that they are here
	here  = "here"
	bye   = "bye"
)

const (
	// peerTime is how long a node is known that says nothing.
	peerTime = 3*beat + beat/2
	// meetTime is how long a node that has come waits for the others to say that they are here.
	meetTime = 200 * time.Millisecond
	// headerNode names the node that a message is from.
	headerNode = "Tailcast-Node"
)

func (b *Backplane) presenceSubject() string { return b.cfg.Stream + ".c.node" }
func (b *Backplane) callSubject() string     { return b.cfg.Stream + ".c.call" }

// meet lets the node know the others, and be known to them.
func (s *session) meet(ctx context.Context) error {
	b := s.b
	if _, err := s.nc.Subscribe(b.presenceSubject(), s.heard); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	if _, err := s.nc.Subscribe(b.callSubject(), s.asked); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	s.say(hello)
	if err := s.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	s.met = time.Now().Add(meetTime)
	return nil
}

// say tells the others something.
func (s *session) say(what string) {
	_ = s.nc.PublishMsg(&natsgo.Msg{Subject: s.b.presenceSubject(), Data: []byte(what), Header: natsgo.Header{headerNode: {s.b.id}}})
}

// leave says goodbye.
func (s *session) leave() {
	s.say(bye)
	_ = s.nc.FlushTimeout(time.Second)
}

// heard is called with what a node says.
func (s *session) heard(m *natsgo.Msg) {
	b, id := s.b, m.Header.Get(headerNode)
	if id == b.id || id == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch string(m.Data) {
	case bye:
		delete(b.peers, id)
		return
	case hello:
		defer s.say(here)
	}
	b.peers[id] = time.Now()
}

// others returns the nodes that are there.
func (b *Backplane) others() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	others := make(map[string]bool)
	for id, last := range b.peers {
		if time.Since(last) > peerTime {
			delete(b.peers, id)
			continue
		}
		others[id] = true
	}
	return others
}

// Answer is tailcast.BackplaneCaller's.
func (b *Backplane) Answer(f func(ctx context.Context, request []byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = f
}

// asked is called with what another node asks.
func (s *session) asked(m *natsgo.Msg) {
	b := s.b
	b.mu.Lock()
	f := b.answer
	b.mu.Unlock()
	if f == nil || m.Header.Get(headerNode) == b.id || m.Reply == "" {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.CallTimeout)
		defer cancel()
		_ = s.nc.PublishMsg(&natsgo.Msg{Subject: m.Reply, Data: f(ctx, m.Data), Header: natsgo.Header{headerNode: {b.id}}})
	}()
}

// Call is tailcast.BackplaneCaller's. A node that is not there any more, and has not said goodbye, is waited for until it is
// forgotten, for 7 s.
func (b *Backplane) Call(ctx context.Context, request []byte) (answers [][]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.CallTimeout)
	defer cancel()
	s, err := b.session(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tailcast.ErrBackplane, err)
	}
	if err := b.sleep(ctx, time.Until(s.met)); err != nil {
		return nil, fmt.Errorf("%w: %w", tailcast.ErrBackplane, err)
	}
	due := b.others()
	sub, err := s.nc.SubscribeSync(natsgo.NewInbox())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tailcast.ErrBackplane, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	err = s.nc.PublishMsg(&natsgo.Msg{
		Subject: b.callSubject(), Reply: sub.Subject, Data: request, Header: natsgo.Header{headerNode: {b.id}},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tailcast.ErrBackplane, err)
	}
	for len(due) > 0 {
		m, err := nextMsg(ctx, sub)
		if errors.Is(err, natsgo.ErrTimeout) { // has one gone meanwhile?
			there := b.others()
			maps.DeleteFunc(due, func(id string, _ bool) bool { return !there[id] })
			continue
		}
		if err != nil {
			return answers, fmt.Errorf("%w: %d nodes have not answered: %w", tailcast.ErrBackplane, len(due), err)
		}
		if m.Header.Get("Status") != "" || m.Header.Get(headerNode) == "" { // nobody was there
			continue
		}
		id := m.Header.Get(headerNode)
		delete(due, id)
		answers = append(answers, m.Data)
	}
	return answers, nil
}

// nextMsg waits for a message, but not for long: natsgo.ErrTimeout says that ctx is not the reason.
func nextMsg(ctx context.Context, sub *natsgo.Subscription) (*natsgo.Msg, error) {
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	m, err := sub.NextMsgWithContext(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		err = natsgo.ErrTimeout
	}
	return m, err
}
