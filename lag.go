package tailcast

import (
	"context"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
)

// A LagPolicy says what happens to a viewer that has fallen out of what is kept in memory. It does not touch one that comes back
// to an older Position: that is served from the topic's Replayer under each policy, until it has reached what is in memory.
type LagPolicy int

const (
	// LagCatchUp serves it from the topic's Replayer until it has caught up; without one, it is told what it missed and goes on
	// with the oldest message that is in memory. (A bare WebSocket, which can't be told, is closed with 1013.)
	LagCatchUp LagPolicy = iota + 1
	// LagSkip tells it what it missed, and goes on with the oldest message that is in memory: for topics whose old messages are
	// of no use. A bare WebSocket is told with a line, as of a Source's gap.
	LagSkip
	// LagClose closes it with 1013 and the number of messages that it missed: for clients that do better to begin anew.
	LagClose
)

// WithLagPolicy sets what happens to a viewer that has fallen out of what is kept in memory: LagCatchUp by default.
func WithLagPolicy(p LagPolicy) Option {
	must(LagCatchUp <= p && p <= LagClose, "WithLagPolicy(%d): there is no such policy", int(p))
	return option(func(c *config) { c.lag = p })
}

// A TopicConfig changes options for some topics. A zero field changes nothing.
type TopicConfig struct {
	Retention Retention // as WithRetention, as a whole: a zero field in it is no bound, if another one is set
	Backlog   int       // as WithBacklog; −1 = none
	Lag       LagPolicy // as WithLagPolicy
	// Presence tells viewers when the first connection of a user comes to the topic, and when the last one has left it: with join and leave
	// events, in their place among the messages. An event stream, tailcast.v1 and NDJSON have them, text and a bare WebSocket have not. In a topic
	// that a Source numbers there are none; but leave it off there: if a user comes before the Source begins, the event makes the topic one that the
	// hub numbers, and the Source is refused with ErrTopicOwner. A topic in which there was never a message is forgotten some time after the last
	// one has left it. See also Hub.Presence.
	Presence bool
}

// WithTopicConfig changes options for the topics whose names match pattern, in the syntax of path.Match. It may be given several
// times: where several match, each changes what the ones before it have left, and the last one counts.
func WithTopicConfig(pattern string, c TopicConfig) Option {
	_, err := path.Match(pattern, "")
	must(err == nil, "WithTopicConfig: the pattern %q: %v", pattern, err)
	r := c.Retention
	must(r.Bytes >= 0 && r.Messages >= 0 && r.Age >= 0, "WithTopicConfig: Retention %+v: must not be negative", r)
	must(c.Backlog >= -1, "WithTopicConfig: Backlog %d: must be -1 or more", c.Backlog)
	must(0 <= c.Lag && c.Lag <= LagClose, "WithTopicConfig: Lag %d: there is no such policy", int(c.Lag))
	return option(func(cfg *config) { cfg.topics = append(cfg.topics, topicRule{pattern, c}) })
}

// A topicRule is what one WithTopicConfig says.
type topicRule struct {
	pattern string
	TopicConfig
}

// topic returns what counts for a topic.
func (c *config) topic(name string) TopicConfig {
	out := TopicConfig{Retention: c.retention, Backlog: c.backlog, Lag: c.lag}
	for _, rule := range c.topics {
		if ok, _ := path.Match(rule.pattern, name); !ok {
			continue
		}
		if rule.Retention != (Retention{}) {
			out.Retention = rule.Retention
		}
		if rule.Backlog != 0 {
			out.Backlog = max(rule.Backlog, 0)
		}
		if rule.Lag != 0 {
			out.Lag = rule.Lag
		}
		out.Presence = out.Presence || rule.Presence
	}
	return out
}

// WaitLag waits until no viewer of the topic is more than this many bytes behind, for programs that want to pace themselves by
// their slowest viewer. What counts is payload that the kernel has not taken yet. A viewer that reads the topic's past, and of
// which it is not known how far behind it is, counts as further behind until it has caught up. One that takes nothing holds it
// up until its connection ends: see WithWriteTimeout. One that waits for a filter to decide does not count, nor do the loops of
// Hub.Subscribe. It returns at once for a topic that has no viewers.
//
// It returns ctx's error when that is done first.
func (h *Hub) WaitLag(ctx context.Context, topic string, bytes int64) error {
	must(bytes >= 0, "WaitLag: %d bytes: must not be negative", bytes)
	for step := shortStep; ; step = min(2*step, longStep) {
		if ctx.Err() != nil {
			return fmt.Errorf("tailcast: wait lag: %w", context.Cause(ctx))
		}
		h.mu.Lock()
		t := h.topics[topic]
		h.mu.Unlock()
		if t == nil || !t.lags(uint64(bytes)) {
			return nil
		}
		if h.cfg.flush > 0 {
			t.fan.Wake() // what is waited for is not to wait for more, nor what has come since
		}
		sleep(ctx, step)
	}
}

// lags reports whether a viewer is more than that far behind.
func (t *topic) lags(far uint64) (lags bool) {
	t.fan.Each(func(s *fanout.Sub) {
		if s.Judged() {
			return
		}
		_, bytes, ok := s.Lag()
		lags = lags || bytes > far || !ok && s.Behind()
	})
	if lags {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.replays {
		for _, list := range p.expect {
			lags = lags || slices.ContainsFunc(list, func(v follower) bool { _, client := v.(*subscription); return client })
		}
	}
	return lags
}

// How often one looks whether viewers have moved: often at first.
const (
	shortStep = time.Millisecond
	longStep  = 20 * time.Millisecond
)

// pacePause is the most that a batch of messages is held up for viewers.
const pacePause = 100 * time.Millisecond

// pace holds up a Source that can replay what it publishes while most viewers are about to fall out of the log, or have and are
// not far behind: its file is a buffer that costs nothing, and reading it again does. Who takes nothing at all does not count.
func (t *topic) pace(ctx context.Context, memory int64) {
	bound := t.cfg.Retention.Bytes
	if bound == 0 {
		bound = memory / 4
	}
	const look = 64 << 10
	if bound == 0 || t.fan.Idle() || !t.pacing.TryLock() {
		return
	}
	defer t.pacing.Unlock()
	end := t.log.Bytes()
	if end-t.paced < look {
		return
	}
	t.paced = end
	far := uint64(max(bound/2, look))
	t.patience.wait(ctx, func() time.Duration {
		trailing, all := t.fan.Trailing(end, far)
		head, _ := t.log.Head()
		behind := t.chasing(Position(head), nil)
		if 2*(trailing+behind) <= all+behind {
			return 0
		}
		return pacePause
	})
}

// A patience bounds for how long viewers are waited for: half of the time, since they may be slow for good, and a little more at
// first.
type patience struct {
	left time.Duration
	last time.Time
}

// wait waits for as long as pause says, which is asked again and again, if there is that much left.
func (p *patience) wait(ctx context.Context, pause func() time.Duration) {
	const most = 20 * pacePause
	began, step := time.Now(), shortStep
	p.left = min(p.left+began.Sub(p.last), most)
	for {
		left := min(pause(), p.left) - time.Since(began)
		if left <= 0 || !sleep(ctx, min(step, left)) {
			break
		}
		step = min(2*step, longStep)
	}
	p.last = time.Now()
	p.left -= p.last.Sub(began)
}
