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

func want(t *testing.T, msgs []tailcast.Message, want ...string) {
	t.Helper()
	if got := texts(msgs); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func line(text string) fakeMessage { return fakeMessage{key: "log", body: []byte(text)} }

func TestAnAcknowledgementThatIsLostBringsAMessageTwice(t *testing.T) {
	f := newFake(t, "queue")
	f.do(func() { f.deaf = true })
	r := start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
	f.publish("queue", line("one"), line("two"))
	r.wait(2)
	f.do(func() { f.deaf = false })
	f.cut()
	want(t, r.wait(4), "one", "two", "one", "two")
	if err := <-r.errs; strings.Contains(err.Error(), "ended the consumer") {
		t.Errorf("the queue is there, and the error is %v", err)
	}
	f.settled("queue")
	f.cut()
	f.publish("queue", line("three"))
	want(t, r.wait(5), "one", "two", "one", "two", "three")
}

func TestThePrefetchBoundsWhatIsUnacknowledged(t *testing.T) {
	f := newFake(t, "queue")
	held, release := make(chan struct{}, 100), make(chan struct{})
	r := start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue", Prefetch: 3})
	r.rec.Fail(func(context.Context, []tailcast.Message) error {
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
	r.wait(10)
}

func TestAQueueThatIsGoneIsAGap(t *testing.T) {
	f := newFake(t, "queue")
	r := start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
	f.publish("queue", line("one"))
	r.wait(1)
	f.consumed("queue")
	f.remove("queue")
	for _, text := range []string{"the broker has ended the consumer", "NOT_FOUND"} {
		if err := <-r.errs; !strings.Contains(err.Error(), text) {
			t.Errorf("the error is %q, want %q", err, text)
		}
	}
	f.do(func() { f.queues["queue"] = new(fakeQueue) }) // somebody makes it again
	f.publish("queue", line("two"))
	want(t, r.wait(3), "one", "gap of -1 (possible: true)", "two")
}

func TestMessagesThatAreNotPersistentMayBeMissingAfterAPause(t *testing.T) {
	f := newFake(t, "queue")
	r := start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
	f.publish("queue", line("one"), fakeMessage{key: "other", body: []byte("two"), transient: true})
	r.wait(2)
	f.settled("queue")
	refused := 0
	r.rec.Fail(func(context.Context, []tailcast.Message) error { // a gap that is refused is declared later
		if refused++; refused <= 3 {
			return errors.New("not now")
		}
		return nil
	})
	f.cut()
	f.publish("queue", line("three"))
	want(t, r.wait(4), "one", "other: two", "other: gap of -1 (possible: true)", "three")
}

func TestAQueueOfItsOwn(t *testing.T) {
	f := newFake(t)
	src := &amqp.Source{Servers: []string{f.url}, Exchange: "logs", Keys: []string{"app.*", "web.#"}, Expiry: time.Minute, Args: amqp091.Table{"x-max-length": 7}}
	r := start(t, src)
	var name string
	eventually(t, "a queue", func() (ok bool) {
		f.do(func() {
			for name = range f.queues {
				ok = f.queues[name].consumer != nil
			}
		})
		return ok
	})
	f.publish(name, line("one"))
	r.wait(1)
	f.settled(name)
	f.cut() // it stays
	f.publish(name, line("two"))
	want(t, r.wait(2), "one", "two")
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
	eventually(t, "another queue", func() (ok bool) {
		f.do(func() { ok = f.queues[name] != nil && f.queues[name].consumer != nil })
		return ok
	})
	f.publish(name, line("three"))
	want(t, r.wait(4), "one", "two", "gap of -1 (possible: true)", "three")
	f.settled(name)
	r.stop()
	f.do(func() {
		if len(f.queues) != 0 {
			t.Error("the queue is left behind")
		}
	})
}

func TestTopicsAndContent(t *testing.T) {
	f := newFake(t, "queue")
	src := &amqp.Source{Servers: []string{f.url}, Queue: "queue", Topic: func(key string) (string, bool) { return strings.CutPrefix(key, "app.") }}
	r := start(t, src)
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
	for i, m := range r.wait(len(cases)) {
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
	r := start(t, &amqp.Source{Servers: []string{down, f.url}, Queue: "queue"})
	f.publish("queue", line("one"))
	r.wait(1)
	if len(r.errs) > 0 {
		t.Errorf("it took another Run: %v", <-r.errs)
	}
}

// A broker that says nothing must not hold up the end, whatever is waited for.
func TestASilentBrokerIsLeft(t *testing.T) {
	t.Run("before it has said anything", func(t *testing.T) {
		f := newFake(t, "queue")
		f.do(func() { f.mute = true })
		r := start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
		eventually(t, "a connection", func() (ok bool) { f.do(func() { ok = len(f.conns) > 0 }); return ok })
		r.stop()
	})
	t.Run("while messages come", func(t *testing.T) {
		f := newFake(t, "queue")
		r := start(t, &amqp.Source{Servers: []string{f.url}, Queue: "queue"})
		f.consumed("queue")
		f.do(func() { f.mute = true })
		r.stop()
	})
	t.Run("while a gap is declared", func(t *testing.T) {
		f := newFake(t)
		r := start(t, &amqp.Source{Servers: []string{f.url}, Exchange: "logs", Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
		eventually(t, "a queue", func() (ok bool) { f.do(func() { ok = len(f.queues) > 0; f.mute = ok }); return ok })
		r.stop()
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
	r := start(t, &amqp.Source{Servers: []string{url}, Queue: "queue", TLS: trusting})
	f.publish("queue", line("one"))
	r.wait(1)
	if trusting.ServerName != "" {
		t.Error("the caller's configuration was changed")
	}
	wary := start(t, &amqp.Source{Servers: []string{url}, Queue: "queue"})
	wantError(t, <-wary.errs, "certificate", false)
	wary.stop()
}

func TestOneSourceRunsOnce(t *testing.T) {
	f := newFake(t, "queue")
	src := &amqp.Source{Servers: []string{f.url}, Queue: "queue"}
	start(t, src)
	f.consumed("queue")
	wantError(t, src.Run(t.Context(), tailcast.PublisherFunc(nil)), "running already", true)
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
		wantError(t, err, text, true)
		if strings.Contains(err.Error(), "sec") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	err := with(func(*amqp.Source) {}).Run(t.Context(), tailcast.PublisherFunc(nil))
	wantError(t, err, "server amqp://127.0.0.1:1: dial tcp", false)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error tells the password: %v", err)
	}
}

// wantError looks at an error of Run's, and whether a hub would run the Source again after it.
func wantError(t *testing.T, err error, text string, permanent bool) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, want %q", err, text)
		return
	}
	hub := tailcast.New()
	defer hub.Close()
	again := errors.New("it was run again")
	runs := 0
	failing := source(func(context.Context, tailcast.Publisher) error {
		if runs++; runs > 1 {
			return tailcast.Permanent(again)
		}
		return err
	})
	if got := hub.Run(t.Context(), failing); errors.Is(got, again) == permanent {
		t.Errorf("%v: permanent is not %v", err, permanent)
	}
}

// A source is a Source that a hub runs again, unlike a tailcast.SourceFunc.
type source func(context.Context, tailcast.Publisher) error

func (f source) Run(ctx context.Context, pub tailcast.Publisher) error { return f(ctx, pub) }
