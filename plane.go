package tailcast

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
)

// A plane is a hub's side of its Backplane: messages go out through publish, and those that come back arrive in Publish.
type plane struct {
	hub    *Hub
	log    Backplane
	node   string // names the hub in Message.Origin
	source *sourceRun
	ctx    context.Context // ends when the hub begins to close
	cancel context.CancelCauseFunc
	once   sync.Once // see wake

	delivered atomic.Pointer[Position] // everything up to here is in the topics' logs; nil before the first Join

	notice sync.Mutex // held while viewers are told of away, so that they are told in order; taken before mu
	mu     sync.Mutex // guards the rest; taken after Hub.mu
	away   error      // why the log cannot be reached; nil if it can
	news   chan struct{}
	queued struct{ messages, bytes int } // of Hub.Publish, waiting for the log
	owners map[string]*publisher         // of topics in which a Source publishes messages that have a Pos
	counts BackplaneStats
}

// What calls of Hub.Publish may hold that wait for a log which cannot be reached.
const (
	planeMessages = 1024
	planeBytes    = 8 << 20
)

const (
	// joinTime is how long a viewer waits for the log, once it is being looked for, before it is answered.
	joinTime = 10 * time.Second
	// clientTime is how long a client's publish may hold up its connection's reader.
	clientTime = 5 * time.Second
)

func newPlane(h *Hub, b Backplane) *plane {
	p := &plane{hub: h, log: b, node: rand.Text(), news: make(chan struct{}), owners: make(map[string]*publisher)}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	p.source = &sourceRun{hub: h, pub: &publisher{hub: h, source: b}, run: p.run, name: fmt.Sprintf("%T", b)}
	if c, ok := b.(BackplaneCaller); ok {
		c.Answer(h.answerNode)
	}
	return p
}

// wake runs the Backplane, from its first call on.
func (p *plane) wake() {
	if p == nil {
		return
	}
	p.once.Do(func() {
		leave, ok := p.hub.enter(p.cancel)
		if !ok {
			p.cancel(ErrClosed)
			return
		}
		go func() {
			defer leave()
			_ = p.source.loop(p.ctx) // run has told of it
		}()
	})
}

// run is one run of the Backplane.
func (p *plane) run(ctx context.Context) (err error) {
	defer func() { p.Degraded(cmp.Or(err, errRunEnded)) }()
	return p.log.Run(ctx, p)
}

var errRunEnded = errors.New("the Backplane has ended, or panicked")

var errNoJoin = fmt.Errorf("the Backplane has not joined its log within %v", joinTime)

// place is where the hub stands in the log: all that comes before is in its topics' logs. It is not ok before the first Join.
func (p *plane) place() (Position, bool) {
	if at := p.delivered.Load(); at != nil {
		return *at, true
	}
	return Position{}, false
}

// await waits until the hub stands somewhere in the log, so that who is answered then is heard; but not for one that cannot be reached.
func (p *plane) await(ctx context.Context) {
	if p == nil {
		return
	}
	p.wake()
	var timer *time.Timer
	for {
		p.mu.Lock()
		away, news := p.away, p.news
		p.mu.Unlock()
		if _, ok := p.place(); ok || away != nil {
			return
		}
		if timer == nil {
			timer = time.NewTimer(joinTime)
			defer timer.Stop()
		}
		select {
		case <-news:
		case <-timer.C:
			p.Degraded(errNoJoin) // whoever is answered now is told when it has joined
			return
		case <-ctx.Done():
			return
		case <-p.ctx.Done():
			return
		}
	}
}

// publish gives messages to the log. They have been checked. from is the connection that does not get them, 0 for none.
func (p *plane) publish(ctx context.Context, pub *publisher, from uint32, msgs []Message) error {
	p.wake()
	if len(msgs) == 0 {
		return nil
	}
	if err := p.claim(pub, msgs); err != nil {
		return err
	}
	defer p.hub.appends.Done()
	bytes := 0
	for i := range msgs {
		bytes += len(msgs[i].Data)
	}
	if pub == nil {
		if err := p.queue(len(msgs), bytes); err != nil {
			return err
		}
		defer p.queue(-len(msgs), -bytes)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()
	out := p.outgoing(from, msgs)
	err := p.log.Publish(ctx, out...)
	for large := (*TooLargeError)(nil); pub != nil && errors.As(err, &large); { // it has stored nothing that would be stored again
		parts := cutTexts(out, large.Limit)
		if len(parts) == len(out) {
			break
		}
		out = parts
		err = p.log.Publish(ctx, out...)
	}
	if err != nil {
		if why := p.reason(); why != nil && !errors.Is(err, ErrBackplane) {
			return fmt.Errorf("%w: %w: %w", ErrBackplane, err, why)
		}
		return err
	}
	p.hub.published.Add(int64(len(msgs)))
	p.hub.publishedBytes.Add(int64(bytes))
	return nil
}

// claim makes sure that pub may publish. Then the caller owes appends a Done.
func (p *plane) claim(pub *publisher, msgs []Message) error {
	h := p.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != hubOpen || pub != nil && pub.ended.Load() {
		return ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range msgs {
		if m := &msgs[i]; m.Pos != (Position{}) {
			if err := p.own(pub, m.Topic); err != nil {
				return err
			}
		}
	}
	h.appends.Add(1)
	return nil
}

// own notes that a Source publishes messages of its own Positions in a topic: nobody else of this hub may, since a Position that
// comes again is taken for the same message. mu is held.
func (p *plane) own(pub *publisher, topic string) error {
	switch owner, ok := p.owners[topic]; {
	case !ok:
		p.owners[topic] = pub
	case owner != pub:
		return fmt.Errorf("%w: topic %q", ErrTopicOwner, topic)
	}
	return nil
}

// begin is own for a Source that knows its topic before its first message.
func (p *plane) begin(pub *publisher, topic string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.own(pub, topic)
}

// disown takes back what pub owns: one topic, or all with all set.
func (p *plane) disown(pub *publisher, topic string, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, owner := range p.owners {
		if owner == pub && (all || t == topic) {
			delete(p.owners, t)
		}
	}
}

// queue counts what waits for the log, and refuses more than there may be while that cannot be reached.
func (p *plane) queue(messages, bytes int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.queued
	if messages > 0 && p.away != nil && (q.messages+messages > planeMessages || q.bytes+bytes > planeBytes) {
		return fmt.Errorf("%w: %d messages and %d bytes are waiting: %w", ErrBackplane, q.messages, q.bytes, p.away)
	}
	q.messages += messages
	q.bytes += bytes
	return nil
}

func (p *plane) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away
}

// outgoing are messages as they go to the log.
func (p *plane) outgoing(from uint32, msgs []Message) []Message {
	out := append([]Message(nil), msgs...)
	now := time.Now()
	for i := range out {
		m := &out[i]
		if m.Origin = ""; from != 0 {
			m.Origin = p.node + "." + strconv.FormatUint(uint64(from), 16)
		}
		if m.Time.IsZero() {
			m.Time = now
		}
		if m.Gap != nil { // places of the Source, which mean nothing here
			gap := *m.Gap
			gap.From, gap.To = Position{}, Position{}
			m.Gap = &gap
		}
	}
	return out
}

// cutTexts cuts messages that have more Data than limit into Partial ones, if they are text.
func cutTexts(msgs []Message, limit int) (out []Message) {
	for _, m := range msgs {
		for len(m.Data) > limit && !m.Binary {
			n := wholeRunes(m.Data[:max(limit, 0)])
			if n == 0 {
				break
			}
			part := m
			part.Data, part.Partial = m.Data[:n:n], true
			out = append(out, part)
			m.Data = m.Data[n:]
		}
		out = append(out, m)
	}
	return out
}

// incoming makes a message of the log fit for this hub.
func (p *plane) incoming(m *Message) {
	err := p.hub.checkContent(m)
	if err == nil {
		err = checkTopic(m.Topic)
	}
	switch {
	case err != nil:
		m.Gap = &Gap{To: m.Pos, Count: 1, Bytes: int64(len(m.Data)), Reason: "a message of another node does not fit into this one"}
		m.Data, m.Binary, m.Partial = nil, false, false
	case m.Gap != nil && m.Gap.To == Position{}:
		gap := *m.Gap
		gap.To = m.Pos
		m.Gap = &gap
	}
}

// author is the number of the connection that has published a message and does not get it, 0 for none of this hub's.
func (p *plane) author(m *Message) uint32 {
	if m.Origin == "" {
		return 0
	}
	number, ok := strings.CutPrefix(m.Origin, p.node+".")
	if !ok {
		return 0
	}
	n, _ := strconv.ParseUint(number, 16, 32) // 0 if it is none
	return uint32(n)
}

// Publish is what Run calls with messages of the log.
func (p *plane) Publish(ctx context.Context, msgs ...Message) error {
	if len(msgs) == 0 {
		return nil
	}
	if _, ok := p.place(); !ok {
		return errors.New("tailcast: publish: the Backplane has not called Join")
	}
	bytes := 0
	for i := range msgs {
		p.incoming(&msgs[i])
		bytes += len(msgs[i].Data)
		if msgs[i].Pos == (Position{}) {
			return fmt.Errorf("tailcast: publish: message %d: %w: it comes from the log, and needs a position", i, ErrMessage)
		}
		if msgs[i].Gap != nil {
			p.hub.countGap(gapSource)
		}
	}
	var one [1]claim
	claims, err := p.hub.claim(one[:0], p.source.pub, msgs)
	if err != nil {
		return fmt.Errorf("tailcast: publish: %w", err)
	}
	defer p.hub.appends.Done()
	for i := range claims { // until delivered says so: a topic that was forgotten before would come back as if it had had nothing
		defer claims[i].topic.claims.Add(-1)
		claims[i].topic.claims.Add(1)
	}
	p.hub.append(claims, 0, msgs)
	at := msgs[len(msgs)-1].Pos
	p.delivered.Store(&at)
	p.mu.Lock()
	p.counts.Received += int64(len(msgs))
	p.counts.ReceivedBytes += int64(bytes)
	away := p.away
	p.mu.Unlock()
	if away != nil {
		p.Degraded(nil)
	}
	return nil
}

// Join is BackplanePublisher's.
func (p *plane) Join(at Position) {
	before, joined := p.place()
	if !joined || before != at {
		p.move(before, at)
	}
	p.Degraded(nil)
	p.mu.Lock()
	close(p.news)
	p.news = make(chan struct{})
	p.mu.Unlock()
}

// move goes on behind at. What lies between is not known: each topic that somebody knows is told so.
func (p *plane) move(before, at Position) {
	gap := &Gap{From: before, To: at, Count: -1, Bytes: -1, Possible: before.Epoch == at.Epoch, Reason: "the log was cut off behind this node"}
	switch {
	case before == Position{}:
		gap.Possible, gap.Reason = true, "the log could not be reached"
	case before.Epoch != at.Epoch:
		gap.Reason = "the log has begun anew"
	}
	p.mu.Lock()
	promised := before != (Position{}) || p.counts.Degraded > 0 // else everybody has waited for this: see await
	p.mu.Unlock()
	h := p.hub
	h.mu.Lock()
	if h.state != hubOpen {
		h.mu.Unlock()
		return
	}
	h.appends.Add(1)
	defer h.appends.Done()
	var told []*topic
	for _, t := range h.topics {
		if _, next := t.log.Bounds(); next == 1 && (t.visitors == 0 || !promised) {
			t.log.SetBase(stream.Position(at))
			continue
		}
		t.claims.Add(1)
		told = append(told, t)
	}
	p.delivered.Store(&at) // topics that come from now on begin there
	h.mu.Unlock()
	now := time.Now()
	for _, t := range told {
		h.countGap(gapSource)
		t.append([]Message{{Topic: t.name, Pos: at, Gap: gap}}, 0, now)
		t.claims.Add(-1)
	}
}

// Degraded is BackplanePublisher's.
func (p *plane) Degraded(err error) {
	p.notice.Lock()
	defer p.notice.Unlock()
	p.mu.Lock()
	if _, joined := p.place(); joined && err == errNoJoin { // at this moment: Join has said, or is about to, that all is well
		p.mu.Unlock()
		return
	}
	changed := (p.away == nil) != (err == nil)
	p.away = err
	if changed && err != nil {
		p.counts.Degraded++
	}
	close(p.news)
	p.news = make(chan struct{})
	p.mu.Unlock()
	if !changed || p.ctx.Err() != nil {
		return
	}
	p.hub.logBackplane(p.source.name, err)
	for c := range p.hub.Conns() {
		c.degraded(err != nil)
	}
}

// greet tells a new connection, if there is something to tell.
func (p *plane) greet(c *Conn) {
	if p == nil {
		return
	}
	p.notice.Lock()
	defer p.notice.Unlock()
	if p.reason() != nil && p.ctx.Err() == nil {
		c.degraded(true)
	}
}

// degraded tells the client that messages may be late, or that this is over. Text, and a WebSocket without a subprotocol, have no place
// for it. Where its queue has no room it is left out: it says nothing that is missed. plane.notice is held.
func (c *Conn) degraded(is bool) {
	if c.away == is {
		return
	}
	c.away = is
	reason := ""
	if is {
		reason = "messages of other servers may be late"
	}
	object := wire.AppendDegraded(nil, !is, reason)
	switch {
	case c.format.objects():
		_ = c.fan.Answer(c.format.appendObject(nil, object))
	case c.format.transport == formatSSE.transport:
		_ = c.fan.Answer(wire.AppendSSEControl(nil, "degraded", object, nil))
	}
}

// A planeReplayer reads the log's past for the hub's replays.
type planeReplayer struct{ *plane }

// Replay is Replayer's. A replay calls read.
func (p planeReplayer) Replay(ctx context.Context, topic string, after Position) iter.Seq2[Message, error] {
	return p.log.Replay(ctx, topic, after)
}

// read reads what comes after a place into r, until the topic's log goes on.
func (p planeReplayer) read(ctx context.Context, topic string, after Position, r *replay) error {
	here, last, err := p.bounds(ctx, topic)
	if err != nil {
		return err
	}
	// What the topic has up to here, this hub has delivered; and what it has comes no later than last.
	through := func(at Position) bool {
		return at.Epoch == last.Epoch && at.Epoch == here.Epoch && at.Offset >= last.Offset
	}
	if through(last) && last.Offset <= here.Offset {
		r.topic.log.Extend(stream.Position(last))
	}
	if through(after) && p.meets(ctx, r, here, after) {
		return errJoined
	}
	var one [1]Message
	for m, err := range p.log.Replay(ctx, topic, after) {
		if err != nil {
			return p.broken(err)
		}
		if m.Gap == nil || m.Pos != (Position{}) {
			p.incoming(&m)
		}
		at := m.Pos
		if m.Gap != nil {
			at = cmp.Or(m.Pos, m.Gap.To)
		}
		one[0] = m
		if err := r.add(one[:]); err != nil {
			return err
		}
		if through(at) && p.meets(ctx, r, here, at) {
			return errJoined
		}
	}
	return errEnded
}

// meets reports whether the topic's log goes on where a replay has come to: at, or seen if that is further, up to where the hub had come
// when it was asked what there is to read. The hub may be behind: a viewer may come from a node that is ahead of this one.
func (p *plane) meets(ctx context.Context, r *replay, seen, at Position) bool {
	if at.Offset < seen.Offset {
		at = seen
	}
	for step := shortStep; ; step = min(2*step, longStep) {
		here, ok := p.place()
		switch {
		case !ok || here.Epoch != at.Epoch:
			return false
		case here.Offset >= at.Offset:
			return r.reached(at)
		case !sleep(ctx, step):
			return false
		}
	}
}

// bounds returns where the hub stands, and where a topic ends in the log. It waits for a log that cannot be reached.
func (p *plane) bounds(ctx context.Context, topic string) (here, last Position, err error) {
	for {
		p.mu.Lock()
		away, news := p.away, p.news
		p.mu.Unlock()
		here, ok := p.place()
		if ok && away == nil {
			if last, err = p.log.Last(ctx, topic, 0); err != nil {
				err = p.broken(err)
			}
			return here, last, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return here, last, context.Cause(ctx)
		case <-p.ctx.Done():
			return here, last, context.Cause(p.ctx)
		}
	}
}

// broken is an error of the log's, which is tried again for as long as it lasts. Only an answer is final.
func (p *plane) broken(err error) error {
	var permanent *permanentError
	if errors.Is(err, ErrUnknownPosition) || errors.As(err, &permanent) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBackplane, err)
}

// lastBefore is lastReplayer's.
func (p planeReplayer) lastBefore(ctx context.Context, topic string, before Position, n, have int) (Position, bool) {
	at, err := p.log.Last(ctx, topic, min(n, follow.MaxBack))
	if err != nil || at.Epoch != before.Epoch || at.Offset >= before.Offset {
		return Position{}, false
	}
	return at, true
}

// after returns a place in the topic's log, just behind p, if the log has all that comes then. With a Backplane p need not be the place
// of a message.
func (t *topic) after(p Position) (stream.Cursor, bool) {
	here, numbered := Position{}, false
	if t.plane != nil {
		here, numbered = t.plane.place() // looked at first: all that comes before it is in the log then
	}
	cur, ok := t.log.After(stream.Position(p))
	if ok || !numbered || p.Epoch == here.Epoch && p.Offset > here.Offset {
		return cur, ok
	}
	return t.log.Beyond(stream.Position(p))
}

// head is how far a viewer has come that has had the message at p: with a Backplane, and nothing new in the topic, as far as the hub.
func (t *topic) head(p stream.Position) stream.Position {
	if t.plane == nil {
		return p
	}
	here, ok := t.plane.place() // looked at first, as in after
	if head, _ := t.log.Head(); ok && p == head && p.Epoch == here.Epoch && p.Offset < here.Offset {
		return stream.Position(here)
	}
	return p
}
