package tailcast_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast"
)

// A shelf is a Source that has its messages elsewhere, and publishes none by itself.
type shelf struct {
	begin func(tailcast.TopicPublisher) error
	lines []string
}

func (s *shelf) Run(ctx context.Context, pub tailcast.Publisher) error {
	if err := s.begin(pub.(tailcast.TopicPublisher)); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func shelved(n int) tailcast.Position { return tailcast.Position{Epoch: 9, Offset: uint64(n)} }

func (s *shelf) Replay(ctx context.Context, _ string, after tailcast.Position) iter.Seq2[tailcast.Message, error] {
	return func(yield func(tailcast.Message, error) bool) {
		for n := int(after.Offset) + 1; after.Epoch == 9 && n <= len(s.lines); n++ {
			if !yield(tailcast.Message{Data: []byte(s.lines[n-1]), Pos: shelved(n)}, nil) {
				return
			}
		}
		<-ctx.Done()
		yield(tailcast.Message{}, context.Cause(ctx))
	}
}

// TestASourceSaysWhereATopicBegins: who comes back then need not wait for its first message.
func TestASourceSaysWhereATopicBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		go s.hub.Run(t.Context(), &shelf{lines: []string{"one", "two", "three"}, begin: func(pub tailcast.TopicPublisher) error {
			if pos, ok := pub.Head(""); ok {
				t.Errorf("there is a head: %v", pos)
			}
			return pub.Begin("", shelved(3))
		}})
		synctest.Wait()
		s.get("?since="+shelved(1).String()).lines("two", "three")
		if err := s.hub.Publish(t.Context(), tailcast.Message{Data: []byte("foreign")}); !errors.Is(err, tailcast.ErrTopicOwner) {
			t.Errorf("somebody else publishes: %v", err)
		}
	})
}

// TestASourceAsksForTheHead: where another one has left off.
func TestASourceAsksForTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		if err := s.hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			return pub.Publish(ctx, tailcast.Message{Data: []byte("seven"), Pos: shelved(7)})
		})); err != nil {
			t.Fatal(err)
		}
		err := s.hub.Run(t.Context(), tailcast.SourceFunc(func(_ context.Context, pub tailcast.Publisher) error {
			if pos, ok := pub.(tailcast.TopicPublisher).Head(""); !ok || pos != shelved(7) {
				t.Errorf("the head is %v, %v", pos, ok)
			}
			return nil
		}))
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestATopicThatIsNotToBeBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.publish("one") // so the hub numbers it
		var kept tailcast.TopicPublisher
		err := s.hub.Run(t.Context(), &shelf{begin: func(pub tailcast.TopicPublisher) error {
			kept = pub
			if err := pub.Begin("\xff", shelved(1)); !errors.Is(err, tailcast.ErrTopicName) {
				t.Errorf("a bad name: %v", err)
			}
			return pub.Begin("", shelved(1))
		}})
		if !errors.Is(err, tailcast.ErrTopicOwner) {
			t.Errorf("a topic that the hub numbers: %v", err)
		}
		if err := kept.Begin("other", shelved(1)); !errors.Is(err, tailcast.ErrClosed) {
			t.Errorf("a Source that has ended: %v", err)
		}
	})
}
