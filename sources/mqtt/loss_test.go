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

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/sourcetest"
	"github.com/tailcast/tailcast/sources/mqtt"
)

func TestNothingIsLostWhileConnectionsBreak(t *testing.T) {
	for name, qos := range map[string]mqtt.QoS{"QoS 1": mqtt.AtLeastOnce, "QoS 2": mqtt.ExactlyOnce} {
		t.Run(name, func(t *testing.T) {
			lines := sourcetest.Soak(500, 3000)
			b := newMosquitto(t)
			leaveSession(t, b.dial, "follower", "log", 2)
			frail := &line{to: b.dial, writes: 10} // a connection that loses its last acknowledgements after some of them
			src := &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: frail.dial, ClientID: "follower", Filters: []string{"log"}, QoS: qos, Inflight: 7}
			r := sourcetest.Start(t, src)
			c := &client{t: t, dial: b.dial, id: "publisher"}
			defer c.close()
			for i := range lines {
				c.publish("log", fmt.Sprint("line ", i), 2)
			}
			r.Until(fmt.Sprint("line ", lines-1))
			r.Stop()
			twice := sourcetest.Judge(t, r.Rec.Messages(), lines)
			frail.mu.Lock()
			dials := frail.dials
			frail.mu.Unlock()
			t.Logf("%d connections, %d lines twice", dials, twice)
			if dials < 10 {
				t.Errorf("only %d connections", dials)
			}
			// A connection's first write is no acknowledgement. That one has broken it is found out with the next.
			if most := dials * (frail.writes + lastWords + 1); qos == mqtt.AtLeastOnce && lines+twice > most {
				t.Errorf("%d lines came that can't all have been acknowledged, not even in vain: at most %d", lines+twice, most)
			}
			if qos == mqtt.ExactlyOnce && twice > 0 {
				t.Errorf("%d lines came twice", twice)
			}
		})
	}
}

func TestNothingIsLostWhileTheBrokerIsRestarted(t *testing.T) {
	const lines = 100 // for each restart
	restarts := sourcetest.Soak(5, 100)
	b := newMosquitto(t)
	leaveSession(t, b.dial, "follower", "log", 2)
	src := &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: b.dial, ClientID: "follower", Filters: []string{"log"}}
	r := sourcetest.Start(t, src)
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
	r.Until(fmt.Sprint("line ", restarts*lines-1))
	r.Stop()
	seen := make(map[string]bool)
	for _, text := range r.Texts() {
		seen[text] = true
	}
	if len(seen) != restarts*lines { // the publisher repeats itself as well
		t.Errorf("%d different messages came, of %d", len(seen), restarts*lines)
	}
	t.Logf("%d messages, %d different", len(r.Rec.Messages()), len(seen))
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
	first := sourcetest.Start(t, newSource())
	first.Wait(1)
	first.Stop()
	c.publish("log", "meanwhile", 1)
	second := sourcetest.Start(t, newSource())
	second.Wait(1)
	c.publish("log", "after", 1)
	if got := sourcetest.Texts(second.Wait(2)); !slices.Equal(got, []string{"meanwhile", "after"}) {
		t.Errorf("got %q", got)
	}
	second.Stop()
	c.publish("log", "not for it", 1)
	clean, cuttable := newSource(), &line{to: b.dial}
	clean.CleanStart, clean.Dial = true, cuttable.dial
	third := sourcetest.Start(t, clean)
	sourcetest.Eventually(t, "a message after a clean start", func() bool {
		c.publish("log", "new", 1)
		return len(third.Rec.Messages()) > 0
	})
	if got := third.Texts(); got[0] != "new" {
		t.Errorf("after a clean start got %q", got)
	}
	cuttable.cut() // the session that it has begun goes on
	c.publish("log", "newer", 1)
	sourcetest.Eventually(t, "a message after the line was cut", func() bool { return slices.Contains(third.Texts(), "newer") })
	for _, text := range third.Texts() {
		if text != "new" && text != "newer" {
			t.Errorf("after the line was cut came %q", text)
		}
	}
}

func TestABrokerThatHasForgottenTheSessionIsAGap(t *testing.T) {
	first, second := newEmbedded(t, nil, nil), newEmbedded(t, nil, nil)
	src := &mqtt.Source{Servers: []string{first.url, second.url}, Filters: []string{"log", "other"}}
	r := sourcetest.Start(t, src)
	first.subscribed(t, "log")
	first.publish(t, "log", "one", false, 1)
	r.Wait(1)
	first.kill() // and with it what it knew
	second.subscribed(t, "log")
	second.publish(t, "log", "two", false, 1)
	second.publish(t, "other", "three", false, 1) // no gap: nothing has come from it before
	if got, want := sourcetest.Texts(r.Wait(4)), []string{"one", "gap of -1 (possible: true)", "two", "other: three"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMessagesOfQoS0MayBeMissingAfterAPause(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	cuttable := &line{to: dialTo(b)}
	src := &mqtt.Source{Servers: []string{b.url}, Dial: cuttable.dial, Filters: []string{"log", "sure"}}
	r := sourcetest.Start(t, src)
	b.subscribed(t, "sure")
	b.publish(t, "log", "one", false, 0)
	b.publish(t, "sure", "two", false, 1)
	r.Wait(2)
	b.acknowledged(t)
	cuttable.cut()
	if got, want := sourcetest.Texts(r.Wait(3)), []string{"one", "sure: two", "gap of -1 (possible: true)"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAGapThatIsRefusedIsDeclaredLater(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	cuttable := &line{to: dialTo(b)}
	src := &mqtt.Source{Servers: []string{b.url}, Dial: cuttable.dial, Filters: []string{"log"}}
	r := sourcetest.Start(t, src)
	b.subscribed(t, "log")
	b.publish(t, "log", "one", false, 0)
	r.Wait(1)
	refused := 0
	r.Rec.Fail(func(context.Context, []tailcast.Message) error {
		if refused++; refused <= 3 {
			return errors.New("not now")
		}
		return nil
	})
	cuttable.cut()
	if got, want := sourcetest.Texts(r.Wait(2)), []string{"one", "gap of -1 (possible: true)"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// dialTo is for lines.
func dialTo(b *embedded) dialer {
	return func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(b.url, "mqtt://"))
	}
}
