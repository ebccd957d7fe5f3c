package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/mqtt"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A run is a Source that is run again and again, as a hub does, but without its pauses.
type run struct {
	t      testing.TB
	rec    tailcasttest.Recorder
	cancel context.CancelCauseFunc
	done   chan struct{}
	errs   chan error // of the runs, as many as there is room for
}

var errOver = errors.New("the test is over")

func start(t testing.TB, src tailcast.Source) *run {
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &run{t: t, cancel: cancel, done: make(chan struct{}), errs: make(chan error, 100)}
	go func() {
		defer close(r.done)
		for {
			err := src.Run(ctx, &r.rec)
			select {
			case r.errs <- err:
			default:
			}
			if errors.Is(err, errOver) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	t.Cleanup(r.stop)
	return r
}

func (r *run) stop() {
	r.cancel(errOver)
	select {
	case <-r.done:
	case <-time.After(patience):
		r.t.Error("Run has not returned")
	}
}

// wait waits until n messages have been published.
func (r *run) wait(n int) []tailcast.Message {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.rec.Wait(ctx, n); err != nil {
		r.t.Fatalf("%v\n%v", err, r.rec.Messages())
	}
	return r.rec.Messages()
}

// until waits until a message with these data has been published.
func (r *run) until(data string) {
	r.t.Helper()
	eventually(r.t, "the message "+data, func() bool { return slices.Contains(texts(r.rec.Messages()), data) })
}

// texts are messages as "topic: data", without the topic where it is "log".
func texts(msgs []tailcast.Message) []string {
	out := make([]string, len(msgs))
	for i, m := range msgs {
		out[i] = string(m.Data)
		if m.Gap != nil {
			out[i] = fmt.Sprintf("gap of %d (possible: %v)", m.Gap.Count, m.Gap.Possible)
		}
		if m.Topic != "log" {
			out[i] = m.Topic + ": " + out[i]
		}
	}
	return out
}

// judge looks for what is missing of "line 0" to "line n-1", what came twice, and what came for the first time out of order.
func judge(t testing.TB, msgs []tailcast.Message, n int) (twice int) {
	t.Helper()
	seen, next := make(map[string]bool), 0
	for _, text := range texts(msgs) {
		switch {
		case strings.HasPrefix(text, "gap"):
			t.Errorf("%s, where nothing is missing", text)
		case seen[text]:
			twice++
		case text != fmt.Sprint("line ", next):
			t.Errorf("%q came before line %d", text, next)
			return twice
		default:
			next++
		}
		seen[text] = true
	}
	if next != n {
		t.Errorf("%d lines came, of %d", next, n)
	}
	return twice
}

func TestNothingIsLostWhileConnectionsBreak(t *testing.T) {
	for name, qos := range map[string]mqtt.QoS{"QoS 1": mqtt.AtLeastOnce, "QoS 2": mqtt.ExactlyOnce} {
		t.Run(name, func(t *testing.T) {
			const lines = 500
			b := newMosquitto(t)
			leaveSession(t, b.dial, "follower", "log", 2)
			frail := &line{to: b.dial, writes: 10} // a connection that loses its last acknowledgements after some of them
			src := &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: frail.dial, ClientID: "follower", Filters: []string{"log"}, QoS: qos, Inflight: 7}
			r := start(t, src)
			c := &client{t: t, dial: b.dial, id: "publisher"}
			defer c.close()
			for i := range lines {
				c.publish("log", fmt.Sprint("line ", i), 2)
			}
			r.until(fmt.Sprint("line ", lines-1))
			r.stop()
			twice := judge(t, r.rec.Messages(), lines)
			t.Logf("%d connections, %d lines twice", len(r.errs), twice)
			if len(r.errs) < 10 {
				t.Errorf("only %d connections have broken", len(r.errs))
			}
			if qos == mqtt.ExactlyOnce && twice > 0 {
				t.Errorf("%d lines came twice", twice)
			}
		})
	}
}

func TestNothingIsLostWhileTheBrokerIsRestarted(t *testing.T) {
	const restarts, lines = 5, 100 // lines for each
	b := newMosquitto(t)
	leaveSession(t, b.dial, "follower", "log", 2)
	src := &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: b.dial, ClientID: "follower", Filters: []string{"log"}}
	r := start(t, src)
	published := make(chan int)
	go func() {
		defer close(published)
		c := &client{t: t, dial: b.dial, id: "publisher", expiry: 3600}
		defer c.close()
		for i := range restarts * lines {
			c.publish("log", fmt.Sprint("line ", i), 1)
			published <- i
		}
	}()
	at := rand.IntN(lines)
	for i := range published {
		if i%lines == at {
			b.restart(t)
		}
	}
	r.until(fmt.Sprint("line ", restarts*lines-1))
	r.stop()
	seen := make(map[string]bool)
	for _, text := range texts(r.rec.Messages()) {
		seen[text] = true
	}
	if len(seen) != restarts*lines { // the publisher repeats itself as well
		t.Errorf("%d different messages came, of %d", len(seen), restarts*lines)
	}
	t.Logf("%d messages, %d different", len(r.rec.Messages()), len(seen))
}

func TestARestartedProcessGetsWhatHasComeMeanwhile(t *testing.T) {
	b := newMosquitto(t)
	newSource := func() *mqtt.Source {
		return &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: b.dial, ClientID: "follower", Filters: []string{"log"}}
	}
	leaveSession(t, b.dial, "follower", "log", 1)
	c := &client{t: t, dial: b.dial, id: "publisher"}
	defer c.close()
	c.publish("log", "before", 1)
	first := start(t, newSource())
	first.wait(1)
	first.stop()
	c.publish("log", "meanwhile", 1)
	second := start(t, newSource())
	second.wait(1)
	c.publish("log", "after", 1)
	if got := texts(second.wait(2)); !slices.Equal(got, []string{"meanwhile", "after"}) {
		t.Errorf("got %q", got)
	}
	second.stop()
	c.publish("log", "not for it", 1)
	clean, cuttable := newSource(), &line{to: b.dial}
	clean.CleanStart, clean.Dial = true, cuttable.dial
	third := start(t, clean)
	eventually(t, "a message after a clean start", func() bool {
		c.publish("log", "new", 1)
		return len(third.rec.Messages()) > 0
	})
	if got := texts(third.rec.Messages()); got[0] != "new" {
		t.Errorf("after a clean start got %q", got)
	}
	cuttable.cut() // the session that it has begun goes on
	c.publish("log", "newer", 1)
	eventually(t, "a message after the line was cut", func() bool { return slices.Contains(texts(third.rec.Messages()), "newer") })
	for _, text := range texts(third.rec.Messages()) {
		if text != "new" && text != "newer" {
			t.Errorf("after the line was cut came %q", text)
		}
	}
}

func TestABrokerThatHasForgottenTheSessionIsAGap(t *testing.T) {
	first, second := newEmbedded(t, nil, nil), newEmbedded(t, nil, nil)
	src := &mqtt.Source{Servers: []string{first.url, second.url}, Filters: []string{"log", "other"}}
	r := start(t, src)
	first.subscribed(t, "log")
	first.publish(t, "log", "one", false, 1)
	r.wait(1)
	first.kill() // and with it what it knew
	second.subscribed(t, "log")
	second.publish(t, "log", "two", false, 1)
	second.publish(t, "other", "three", false, 1) // no gap: nothing has come from it before
	if got, want := texts(r.wait(4)), []string{"one", "gap of -1 (possible: true)", "two", "other: three"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMessagesOfQoS0MayBeMissingAfterAPause(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	cuttable := &line{to: dialTo(b)}
	src := &mqtt.Source{Servers: []string{b.url}, Dial: cuttable.dial, Filters: []string{"log", "sure"}}
	r := start(t, src)
	b.subscribed(t, "sure")
	b.publish(t, "log", "one", false, 0)
	b.publish(t, "sure", "two", false, 1)
	r.wait(2)
	b.acknowledged(t)
	cuttable.cut()
	if got, want := texts(r.wait(3)), []string{"one", "sure: two", "gap of -1 (possible: true)"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAGapThatIsRefusedIsDeclaredLater(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	cuttable := &line{to: dialTo(b)}
	src := &mqtt.Source{Servers: []string{b.url}, Dial: cuttable.dial, Filters: []string{"log"}}
	r := start(t, src)
	b.subscribed(t, "log")
	b.publish(t, "log", "one", false, 0)
	r.wait(1)
	refused := 0
	r.rec.Fail(func(context.Context, []tailcast.Message) error {
		if refused++; refused <= 3 {
			return errors.New("not now")
		}
		return nil
	})
	cuttable.cut()
	if got, want := texts(r.wait(2)), []string{"one", "gap of -1 (possible: true)"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// dialTo is for lines.
func dialTo(b *embedded) dialer {
	return func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(b.url, "mqtt://"))
	}
}
