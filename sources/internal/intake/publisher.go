package intake

import (
	"context"
	"errors"
	"log/slog"

	"github.com/tailcast/tailcast"
)

// A Publisher publishes what comes over one connection. Its fields are set before it is used, Logger may be nil. It must not be
// called concurrently.
type Publisher struct {
	To     tailcast.Publisher
	Topics *Topics
	Logger *slog.Logger // is told of the first message that is skipped
	Name   string       // of the Source's package, for the Logger

	told bool
}

// Publish publishes a message. lossy says that it is one that nobody keeps while the Source is away. One that the hub will never take is
// skipped, since it would be the same each time; in a topic that the hub has, that is a Gap.
func (p *Publisher) Publish(ctx context.Context, m tailcast.Message, lossy bool) (skipped bool, err error) {
	p.Topics.note(m.Topic, lossy)
	err = p.To.Publish(ctx, m)
	if errors.Is(err, tailcast.ErrTopicName) || errors.Is(err, tailcast.ErrMessage) {
		return true, p.skip(ctx, m, err)
	}
	return false, err
}

func (p *Publisher) skip(ctx context.Context, m tailcast.Message, why error) error {
	p.Topics.skipped.Add(1)
	if p.Logger != nil && !p.told {
		p.told = true // once for each connection
		p.Logger.WarnContext(ctx, p.Name+": message skipped", "err", why)
	}
	if errors.Is(why, tailcast.ErrTopicName) {
		p.Topics.forget(m.Topic)
		return nil
	}
	gap := &tailcast.Gap{Count: 1, Bytes: int64(len(m.Data)), Reason: "the hub could not take a message of this size"}
	return p.To.Publish(ctx, tailcast.Message{Topic: m.Topic, Gap: gap})
}
