package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/tailcasttest"
)

// relaying runs src in a new hub until the test ends.
func relaying(t testing.TB, src tailcast.Source, opts ...tailcast.Option) *tailcast.Hub {
	hub := tailcast.New(append([]tailcast.Option{tailcast.WithAuthorize(tailcast.AllowAllTopics)}, opts...)...)
	t.Cleanup(func() { hub.Close() })
	go func() {
		if err := hub.Run(context.Background(), src); err != nil && !errors.Is(err, tailcast.ErrClosed) {
			t.Error(err)
		}
	}()
	synctest.Wait()
	return hub
}

// watch reads from a hub what comes after a position within a minute.
func watch(t testing.TB, hub *tailcast.Hub, topic string, from tailcast.Position) (msgs []tailcast.Message) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for m, err := range hub.Subscribe(ctx, topic, from) {
		if err != nil {
			break
		}
		m.Data = slices.Clone(m.Data)
		msgs = append(msgs, m)
	}
	return msgs
}

func TestARelayHasThePositionsOfItsHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New()
		defer first.Close()
		srv := tailcasttest.Serve(t, first)
		publish(t, first, "", numbered(1, 3)...)
		second := relaying(t, client.Source(srv.URL, client.WithHTTPClient(srv.Client())))
		publish(t, first, "", numbered(4, 6)...)
		synctest.Wait()
		all := watch(t, first, "", tailcast.Earliest())
		if len(all) != 6 {
			t.Fatalf("%d messages", len(all))
		}
		for i, m := range all {
			got := watch(t, second, "", m.Pos)
			if !slices.EqualFunc(got, all[i+1:], func(a, b tailcast.Message) bool {
				return a.Pos == b.Pos && string(a.Data) == string(b.Data) && a.Time.Equal(b.Time)
			}) {
				t.Errorf("after message %d: %q", i+1, data(got))
			}
		}
		if got := data(watch(t, second, "", tailcast.Earliest())); !slices.Equal(got, numbered(1, 6)) {
			t.Errorf("from the beginning: %q", got)
		}
	})
}

// TestAQuietTopic: a relay that has just been started serves who comes back, though nothing is published any more.
func TestAQuietTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New()
		defer first.Close()
		srv := tailcasttest.Serve(t, first)
		publish(t, first, "", numbered(1, 3)...)
		one := watch(t, first, "", tailcast.Earliest())[0].Pos
		second := relaying(t, client.Source(srv.URL, client.WithHTTPClient(srv.Client())))
		if got := data(watch(t, second, "", one)); !slices.Equal(got, numbered(2, 3)) {
			t.Errorf("got %q", got)
		}
	})
}

// TestANewRelayGoesOnAfterTheOldOne: in the same hub nothing is missing between the two, and nobody has to say so.
func TestANewRelayGoesOnAfterTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New(tailcast.WithAuthorize(tailcast.AllowAllTopics))
		defer first.Close()
		srv := tailcasttest.Serve(t, first)
		second := tailcast.New()
		defer second.Close()
		want := map[string][]string{"": nil, "b": nil}
		for round := range 3 {
			for topic := range want {
				lines := numbered(10*round, 10*round+3)
				want[topic] = append(want[topic], lines...)
				publish(t, first, topic, lines[:2]...) // while nobody relays, but for the first round
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			src := client.Source(srv.URL, client.WithHTTPClient(srv.Client()), client.WithTopics("", "b"),
				client.WithSince(map[string]tailcast.Position{"b": tailcast.Earliest(), "": tailcast.Earliest()}))
			go func() { defer close(done); second.Run(ctx, src) }()
			synctest.Wait()
			for topic := range want {
				publish(t, first, topic, numbered(10*round+2, 10*round+3)...)
			}
			synctest.Wait()
			cancel()
			<-done
		}
		for topic, lines := range want {
			if got := data(watch(t, second, topic, tailcast.Earliest())); !slices.Equal(got, lines) {
				t.Errorf("topic %q: %q, want %q", topic, got, lines)
			}
		}
	})
}

func TestTheTopicsAreThoseOfTheMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New()
		defer first.Close()
		srv := tailcasttest.Serve(t, first.Handler("a", "b"))
		second := relaying(t, client.Source(srv.URL, client.WithHTTPClient(srv.Client())))
		publish(t, first, "a", "one")
		publish(t, first, "b", "two")
		publish(t, first, "c", "three")
		synctest.Wait()
		for topic, want := range map[string][]string{"a": {"one"}, "b": {"two"}, "c": nil} {
			if got := data(watch(t, second, topic, tailcast.Earliest())); !slices.Equal(got, want) {
				t.Errorf("topic %q: %q, want %q", topic, got, want)
			}
		}
	})
}

// TestAGapIsPassedOn, with its place.
func TestAGapIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+line(1)+`{"event":"gap","topic":"app","from":"11.1","to":"11.5","count":4,"bytes":99,"reason":"why"}`+"\n"+
			`{"event":"gap","topic":"app","count":-1,"bytes":-1,"possible":true}`+"\n"+line(7)+"…", head+"…")
		hub := relaying(t, client.Source("http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener))))
		pos := func(n uint64) tailcast.Position { return tailcast.Position{Epoch: 1, Offset: n} }
		got := watch(t, hub, "app", pos(1))
		if len(got) != 3 || got[0].Pos != pos(5) || *got[0].Gap != (tailcast.Gap{From: pos(1), To: pos(5), Count: 4, Bytes: 99, Reason: "why"}) ||
			*got[1].Gap != (tailcast.Gap{Count: -1, Bytes: -1, Possible: true}) || got[2].Pos != pos(7) {
			t.Errorf("%+v", got)
		}
	})
}

func TestWhatIsNotTheTopicsIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+`{"topic":"app","data":"for the relay alone"}`+"\n"+
			`{"event":"join","topic":"app","user":"ann","id":"11.1"}`+"\n"+line(2)+"…")
		hub := relaying(t, client.Source("http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener))), tailcast.WithBacklog(10))
		if pos, ok := hub.Head("app"); !ok || pos.Offset != 2 {
			t.Errorf("head %v, %v", pos, ok)
		}
		if n := hub.Stats().Published; n != 1 {
			t.Errorf("%d messages were published", n)
		}
	})
}

// TestAMessageThatIsTooLarge for the hub that relays it is declared, and does not end the relay.
func TestAMessageThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := `{"id":"11.2","topic":"app","data":"` + strings.Repeat("x", 1<<20+1) + `"}` + "\n"
		s := newScripted(t, head+line(1)+large+line(3), head+line(4)+"…", head+"…")
		hub := relaying(t, client.Source("http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener))), tailcast.WithMemoryLimit(4<<20))
		time.Sleep(time.Minute)
		got := watch(t, hub, "app", tailcast.Position{Epoch: 1, Offset: 1})
		if len(got) != 3 || got[0].Gap == nil || got[0].Gap.Count != 1 || got[0].Gap.Bytes != 1<<20+1 || got[0].Pos.Offset != 2 || got[0].Gap.From.Offset != 1 ||
			got[1].Pos.Offset != 3 || got[2].Pos.Offset != 4 {
			t.Errorf("%+v", got)
		}
		if since := s.since(1); since != "app=11.3" {
			t.Errorf("since=%s", since)
		}
	})
}

// TestWhatEndsARelay, and what does not.
func TestWhatEndsARelay(t *testing.T) {
	status := "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nNo."
	t.Run("a status does not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newScripted(t, status, status, head+line(1)+"…")
			hub := relaying(t, client.Source("http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener))))
			time.Sleep(time.Minute)
			if pos, ok := hub.Head("app"); !ok || pos.Offset != 1 {
				t.Errorf("head %v, %v", pos, ok)
			}
			if src := hub.Stats().Sources; len(src) != 1 || !strings.Contains(fmt.Sprint(src), "403 Forbidden: No.") {
				t.Errorf("%+v", src)
			}
		})
	})
	for name, tt := range map[string]struct {
		script string
		opts   []client.Option
		err    error
		text   string
	}{
		"a line that is too long":      {script: head + line(1), opts: []client.Option{client.WithMaxLine(10)}, text: "WithMaxLine"},
		"a topic that is another's":    {script: head + strings.ReplaceAll(line(1), "app", "ours"), err: tailcast.ErrTopicOwner},
		"the place of another's topic": {script: head + `{"event":"pos","topic":"ours","id":"11.1"}` + "\n…", err: tailcast.ErrTopicOwner},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, tt.script)
				hub := tailcast.New()
				defer hub.Close()
				publish(t, hub, "ours", "one")
				err := hub.Run(t.Context(), client.Source("http://hub.example", append(tt.opts, client.WithHTTPClient(testnet.HTTPClient(s.Listener)))...))
				if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v", err)
				}
			})
		})
	}
	t.Run("a URL that is none", func(t *testing.T) {
		hub := tailcast.New()
		defer hub.Close()
		if err := hub.Run(t.Context(), client.Source("hub.example")); err == nil {
			t.Error("no error")
		}
	})
}

func TestPlacesThatCannotBeReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+"…")
		src := client.Source("http://hub.example/?topic=a", client.WithHTTPClient(testnet.HTTPClient(s.Listener)))
		for _, at := range []struct {
			topic string
			pos   tailcast.Position
		}{{"b", tailcast.Earliest()}, {"a", tailcast.Position{Offset: 3}}, {"a", tailcast.Position{}}} {
			n := 0
			for _, err := range src.Replay(t.Context(), at.topic, at.pos) {
				if n++; !errors.Is(err, tailcast.ErrUnknownPosition) {
					t.Errorf("%v: %v", at, err)
				}
			}
			if n != 1 {
				t.Errorf("%v: %d errors", at, n)
			}
		}
		if s.connections() != 0 {
			t.Error("the hub was asked")
		}
	})
}

// TestADeadHubHoldsUpNoOtherTopic: viewers whose past is with a hub that is gone wait for it, and those of a file do not wait for them.
func TestADeadHubHoldsUpNoOtherTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		for range 100 {
			j.append(0)
		}
		first := newNode(t, func() tailcast.Source { return j })
		hub := tailcast.New(tailcast.WithMaxReplays(1), tailcast.WithRetention(tailcast.Retention{Messages: 10}), tailcast.WithAuthorize(tailcast.AllowAllTopics))
		defer hub.Close()
		shelf := newJournal()
		for range 100 {
			shelf.append(1)
		}
		go hub.Run(t.Context(), client.Source("http://hub.example/", client.WithHTTPClient(first.client()), client.WithTopics("a")), only{shelf})
		synctest.Wait()
		first.stop()
		stuck := &ledger{t: t, who: "the viewer of the dead hub"}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for m, err := range hub.Subscribe(ctx, "a", tailcast.Earliest()) {
				if ctx.Err() != nil || !stuck.take(m, err) {
					return
				}
			}
		}()
		time.Sleep(time.Minute)
		got := watch(t, hub, "b", tailcast.Earliest())
		if len(got) != 100 {
			t.Errorf("the other topic's viewer has got %d messages", len(got))
		}
		if n := stuck.got[0].Load(); n != 0 {
			t.Errorf("the dead hub has sent %d messages", n)
		}
		first.start()
		time.Sleep(5 * time.Minute)
		if n := stuck.got[0].Load(); n != 100 {
			t.Errorf("when it is back: %d messages", n)
		}
		cancel()
		<-done
	})
}

// only is a journal for topic b alone.
type only struct{ *journal }

func (o only) Run(ctx context.Context, pub tailcast.Publisher) error {
	if err := pub.(tailcast.TopicPublisher).Begin("b", journalLine(1, 100).Pos); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestARelayBeginsWithWhatIsNew, whatever the hub gives its viewers.
func TestARelayBeginsWithWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New(tailcast.WithBacklog(10))
		defer first.Close()
		srv := tailcasttest.Serve(t, first)
		publish(t, first, "", numbered(1, 5)...)
		for tail, want := range []int64{0, 1, 2} {
			opts := []client.Option{client.WithHTTPClient(srv.Client())}
			if tail > 0 {
				opts = append(opts, client.WithTail(tail))
			}
			hub := relaying(t, client.Source(srv.URL, opts...))
			if n := hub.Stats().Published; n != want {
				t.Errorf("tail %d: %d messages", tail, n)
			}
		}
	})
}

// TestARelayIsRunAgain with a Publisher that cannot say what it has: the relay knows.
func TestARelayIsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := tailcast.New()
		defer first.Close()
		srv := tailcasttest.Serve(t, first)
		src := client.Source(srv.URL, client.WithHTTPClient(srv.Client()))
		var rec tailcasttest.Recorder
		refused := errors.New("refused")
		for round := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if err := src.Run(ctx, &rec); !errors.Is(err, refused) {
					t.Errorf("it ended with %v", err)
				}
			}()
			synctest.Wait()
			publish(t, first, "", fmt.Sprint("message ", 2*round+1))
			synctest.Wait()
			rec.Fail(func(context.Context, []tailcast.Message) error { return refused })
			publish(t, first, "", fmt.Sprint("message ", 2*round+2))
			<-done
			rec.Fail(nil)
			cancel()
		}
		if got := data(rec.Messages()); !slices.Equal(got, numbered(1, 5)) {
			t.Errorf("got %q", got)
		}
	})
}

func TestAReplayAsksForItsTopicAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+line(2)+"…")
		src := client.Source("http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener)), client.WithTopics("app", "b"), client.WithTail(3))
		for m, err := range src.Replay(t.Context(), "app", tailcast.Position{Epoch: 1, Offset: 1}) {
			if err != nil || m.Pos.Offset != 2 {
				t.Errorf("%+v, %v", m, err)
			}
			break
		}
		if q := s.query(0); !slices.Equal(q["topic"], []string{"app"}) || q.Get("since") != "app=11.1" {
			t.Errorf("%v", q)
		}
	})
}

// TestAFailureAmongMessagesThatAreTooLarge: what was published one by one before it does not come again.
func TestAFailureAmongMessagesThatAreTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+line(1)+line(2)+line(3)+"…")
		src := client.Source("http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener)))
		refused := errors.New("refused")
		pub := tailcast.PublisherFunc(func(_ context.Context, msgs ...tailcast.Message) error {
			switch {
			case len(msgs) > 1:
				return tailcast.ErrMessage
			case msgs[0].Pos.Offset == 3:
				return refused
			}
			return nil
		})
		for range 2 {
			if err := src.Run(t.Context(), pub); !errors.Is(err, refused) {
				t.Error(err)
			}
		}
		if since := s.since(1); since != "app=11.2" {
			t.Errorf("it came back with since=%s", since)
		}
	})
}
