package amqp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/amqp"
	"github.com/tailcast/tailcast/sources/internal/sourcetest"
)

func want(t *testing.T, msgs []tailcast.Message, want ...string) {
	t.Helper()
	if got := sourcetest.Texts(msgs); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func line(text string) fakeMessage { return fakeMessage{key: "log", body: []byte(text)} }

func TestAnAcknowledgementThatIsLostBringsAMessageTwice(t *testing.T) {
	f := newFake(t, "queue")
	f.do(func() { f.deaf = true })
	r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
	f.publish("queue", line("one"), line("two"))
	r.Wait(2)
	f.do(func() { f.deaf = false })
	f.cut()
	want(t, r.Wait(4), "one", "two", "one", "two")
	if err := <-r.Errs; strings.Contains(err.Error(), "ended the consumer") {
		t.Errorf("the queue is there, and the error is %v", err)
	}
	f.settled("queue")
	f.cut()
	f.publish("queue", line("three"))
	want(t, r.Wait(5), "one", "two", "one", "two", "three")
}

func TestThePrefetchBoundsWhatIsUnacknowledged(t *testing.T) {
	f := newFake(t, "queue")
	held, release := make(chan struct{}, 100), make(chan struct{})
	r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue", Prefetch: 3})
	r.Rec.Fail(func(context.Context, []tailcast.Message) error {
		held <- struct{}{}
		<-release
		return nil
	})
	for i := range 10 {
		f.publish("queue", line(fmt.Sprint(i)))
	}
	<-held
	f.do(func() {
		if n := len(f.queues["queue"].consumer.unacked); n != 3 {
			t.Errorf("%d messages are unacknowledged", n)
		}
	})
	close(release)
	r.Wait(10)
}

func TestAQueueThatIsGoneIsAGap(t *testing.T) {
	f := newFake(t, "queue")
	r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
	f.publish("queue", line("one"))
	r.Wait(1)
	f.consumed("queue")
	f.remove("queue")
	for _, text := range []string{"the broker has ended the consumer", "NOT_FOUND"} {
		if err := <-r.Errs; !strings.Contains(err.Error(), text) {
			t.Errorf("the error is %q, want %q", err, text)
		}
	}
	f.do(func() { f.queues["queue"] = new(fakeQueue) }) // somebody makes it again
	f.publish("queue", line("two"))
	want(t, r.Wait(3), "one", "gap of -1 (possible: true)", "two")
}

func TestMessagesThatAreNotPersistentMayBeMissingAfterAPause(t *testing.T) {
	f := newFake(t, "queue")
	r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
	f.publish("queue", line("one"), fakeMessage{key: "other", body: []byte("two"), transient: true})
	r.Wait(2)
	f.settled("queue")
	refused := 0
	r.Rec.Fail(func(context.Context, []tailcast.Message) error { // a gap that is refused is declared later
		if refused++; refused <= 3 {
			return errors.New("not now")
		}
		return nil
	})
	f.cut()
	f.publish("queue", line("three"))
	want(t, r.Wait(4), "one", "other: two", "other: gap of -1 (possible: true)", "three")
}

func TestAQueueOfItsOwn(t *testing.T) {
	f := newFake(t)
	src := &amqp.Source{Servers: []string{f.url}, Exchange: "logs", Keys: []string{"app.*", "web.#"}, Expiry: time.Minute, Args: amqp091.Table{"x-max-length": 7}}
	r := sourcetest.Start(t, src)
	var name string
	sourcetest.Eventually(t, "a queue", func() (ok bool) {
		f.do(func() {
			for name = range f.queues {
				ok = f.queues[name].consumer != nil
			}
		})
		return ok
	})
	f.publish(name, line("one"))
	r.Wait(1)
	f.settled(name)
	f.cut() // it stays
	f.publish(name, line("two"))
	want(t, r.Wait(2), "one", "two")
	f.settled(name)
	f.do(func() {
		if got, want := f.binds[:6], []string{name, "logs", "app.*", name, "logs", "web.#"}; !slices.Equal(got, want) {
			t.Errorf("bindings are %q, want %q", got, want)
		}
		if q := f.queues[name]; !strings.Contains(q.args, "x-expires") || !strings.Contains(q.args, "x-max-length") || q.bits != 2 {
			t.Errorf("its arguments are %q, its bits %b: it has to be durable, and to expire", q.args, q.bits)
		}
	})
	f.do(func() { f.queues[name].consumer.queue, f.queues[name].consumer = nil, nil; delete(f.queues, name) }) // it has expired
	f.cut()
	sourcetest.Eventually(t, "another queue", func() (ok bool) {
		f.do(func() { ok = f.queues[name] != nil && f.queues[name].consumer != nil })
		return ok
	})
	f.publish(name, line("three"))
	want(t, r.Wait(4), "one", "two", "gap of -1 (possible: true)", "three")
	f.settled(name)
	r.Stop()
	f.do(func() {
		if len(f.queues) != 0 {
			t.Error("the queue is left behind")
		}
	})
}

func TestTopicsAndContent(t *testing.T) {
	f := newFake(t, "queue")
	src := &amqp.Source{Servers: []string{f.url}, Queue: "queue", Topic: func(key string) (string, bool) { return strings.CutPrefix(key, "app.") }}
	r := sourcetest.Start(t, src)
	cases := []struct {
		contentType, encoding, data string
		binary                      bool
	}{
		{"", "", "text ✓", false},
		{"", "", "\xff", true},
		{"application/octet-stream", "", "text", false},
		{"application/octet-stream", "", "\x00\xff", true},
		{"text/plain; charset=utf-8", "", "text", false},
		{"text/plain; charset=iso-8859-1", "", "caf\xe9", false},
		{"application/json", "", "{}", false},
		{"application/problem+json", "utf-8", "{}", false},
		{"image/svg+xml", "", "<svg/>", false},
		{"image/png", "", "looks like text", true},
		{"application/json", "gzip", "\x1f\x8b", true},
		{"!", "", "no media type", false},
	}
	f.publish("queue", fakeMessage{key: "not ours", body: []byte("x")})
	for _, c := range cases {
		f.publish("queue", fakeMessage{key: "app.log", contentType: c.contentType, encoding: c.encoding, body: []byte(c.data)})
	}
	for i, m := range r.Wait(len(cases)) {
		if c := cases[i]; m.Binary != c.binary || string(m.Data) != c.data || m.Topic != "log" {
			t.Errorf("%+v became %+v", c, m)
		}
	}
	f.settled("queue") // the one that is not ours as well
}

// What the hub will never take must not come again for ever.
func TestAMessageThatIsUnfitForTheHubIsRejected(t *testing.T) {
	f := newFake(t, "queue")
	hub := tailcast.New(tailcast.WithMemoryLimit(4 << 20))
	defer hub.Close()
	var logged strings.Builder
	src := &amqp.Source{Servers: []string{f.url}, Queue: "queue", Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	done := make(chan error, 1)
	go func() { done <- hub.Run(t.Context(), src) }()
	f.publish("queue", line("one"), fakeMessage{key: "no\x00topic", body: []byte("x")}, line(strings.Repeat("x", 2<<20)), line("two"))
	var got []tailcast.Message
	for m, err := range hub.Subscribe(t.Context(), "log", tailcast.Earliest()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, m); len(got) == 3 {
			break
		}
	}
	want(t, got, "one", "gap of 1 (possible: false)", "two")
	f.settled("queue")
	f.do(func() {
		if n := f.queues["queue"].rejected; n != 2 {
			t.Errorf("%d messages were rejected", n)
		}
	})
	if n := src.Skipped(); n != 2 {
		t.Errorf("%d messages were skipped", n)
	}
	if err := hub.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(logged.String(), "message skipped"); n != 1 {
		t.Errorf("the logger was told %d times: %s", n, &logged)
	}
}

func TestAServerThatIsDownIsPassedOver(t *testing.T) {
	f := newFake(t, "queue")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "amqp://" + l.Addr().String()
	l.Close()
	r := sourcetest.Start(t, &amqp.Source{Servers: []string{down, f.url}, Queue: "queue"})
	f.publish("queue", line("one"))
	r.Wait(1)
	if len(r.Errs) > 0 {
		t.Errorf("it took another Run: %v", <-r.Errs)
	}
}

// A broker that says nothing must not hold up the end, whatever is waited for.
func TestASilentBrokerIsLeft(t *testing.T) {
	t.Run("before it has said anything", func(t *testing.T) {
		t.Parallel()
		f := newFake(t, "queue")
		f.do(func() { f.mute = true })
		r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
		sourcetest.Eventually(t, "a connection", func() (ok bool) { f.do(func() { ok = len(f.conns) > 0 }); return ok })
		r.Stop()
	})
	t.Run("while messages come", func(t *testing.T) {
		t.Parallel()
		f := newFake(t, "queue")
		r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
		f.consumed("queue")
		f.do(func() { f.mute = true })
		r.Stop()
	})
	t.Run("while a gap is declared", func(t *testing.T) {
		t.Parallel()
		f := newFake(t)
		r := sourcetest.Start(t, &amqp.Source{Servers: []string{f.url}, Exchange: "logs", Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
		sourcetest.Eventually(t, "a queue", func() (ok bool) { f.do(func() { ok = len(f.queues) > 0; f.mute = ok }); return ok })
		r.Stop()
	})
}

func TestTLS(t *testing.T) {
	f := newFake(t, "queue")
	srv := httptest.NewUnstartedServer(nil)
	srv.StartTLS() // for its certificate
	defer srv.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: srv.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f.serve(l)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	url := "amqps://guest:secret@" + l.Addr().String()
	trusting := &tls.Config{RootCAs: roots}
	r := sourcetest.Start(t, &amqp.Source{Servers: []string{url}, Queue: "queue", TLS: trusting})
	f.publish("queue", line("one"))
	r.Wait(1)
	if trusting.ServerName != "" {
		t.Error("the caller's configuration was changed")
	}
	wary := sourcetest.Start(t, &amqp.Source{Servers: []string{url}, Queue: "queue"})
	sourcetest.WantError(t, <-wary.Errs, "certificate", false)
	wary.Stop()
}

func TestOneSourceRunsOnce(t *testing.T) {
	f := newFake(t, "queue")
	src := &amqp.Source{Servers: []string{f.url}, Queue: "queue"}
	sourcetest.Start(t, src)
	f.consumed("queue")
	sourcetest.WantError(t, src.Run(t.Context(), tailcast.PublisherFunc(nil)), "running already", true)
}

func TestWhatMakesNoSenseIsPermanent(t *testing.T) {
	with := func(change func(*amqp.Source)) *amqp.Source {
		src := &amqp.Source{Servers: []string{"amqp://me:secret@127.0.0.1:1"}, Queue: "queue"}
		change(src)
		return src
	}
	for text, src := range map[string]*amqp.Source{
		"no Servers":        with(func(s *amqp.Source) { s.Servers = nil }),
		"Servers[1] is no":  with(func(s *amqp.Source) { s.Servers = append(s.Servers, "amqp://me:sec/ret@h") }),
		"Servers[0] is no":  with(func(s *amqp.Source) { s.Servers = []string{"http://me:secret@h"} }),
		"neither Queue nor": with(func(s *amqp.Source) { s.Queue = "" }),
		"needs an Exchange": with(func(s *amqp.Source) { s.Keys = []string{"a"} }),
		"Prefetch is 65536": with(func(s *amqp.Source) { s.Prefetch = 65536 }),
		"Expiry is -1s":     with(func(s *amqp.Source) { s.Expiry = -time.Second }),
		"Args: ":            with(func(s *amqp.Source) { s.Exchange, s.Args = "e", amqp091.Table{"x": make(chan int)} }),
	} {
		err := src.Run(t.Context(), tailcast.PublisherFunc(nil))
		sourcetest.WantError(t, err, text, true)
		if strings.Contains(err.Error(), "sec") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	err := with(func(*amqp.Source) {}).Run(t.Context(), tailcast.PublisherFunc(nil))
	sourcetest.WantError(t, err, "server amqp://127.0.0.1:1: dial tcp", false)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error tells the password: %v", err)
	}
}
