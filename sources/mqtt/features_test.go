//lint:file-ignore SA1019 The WebSocket library is the one that tailcast stands on: see its CONTRIBUTING.

package mqtt_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/packets"
	"nhooyr.io/websocket"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/sourcetest"
	"github.com/tailcast/tailcast/sources/mqtt"
)

func TestTopicsAreMapped(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	src := &mqtt.Source{Servers: []string{b.url}, Filters: []string{"site/#"}, Topic: func(topic string) (string, bool) {
		return strings.CutPrefix(topic, "site/a/")
	}}
	r := sourcetest.Start(t, src)
	b.subscribed(t, "site/#")
	b.publish(t, "site/b/log", "not for us", false, 1)
	b.publish(t, "site/a/log", "one", false, 1)
	b.publish(t, "site/a/deep/er", "two", false, 2)
	if got, want := sourcetest.Texts(r.Wait(2)), []string{"one", "deep/er: two"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	b.acknowledged(t) // what is ignored too
}

func TestBytesThatAreNoTextAreBinary(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	r := sourcetest.Start(t, &mqtt.Source{Servers: []string{b.url}, Filters: []string{"log"}})
	b.subscribed(t, "log")
	b.publish(t, "log", "text ✓", false, 1)
	b.publish(t, "log", "\xff\x00", false, 1)
	err := b.InjectPacket(b.Clients.GetAll()[mochi.InlineClientId], packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish}, TopicName: "log", Payload: []byte("caf\xe9"),
		Properties: packets.Properties{PayloadFormat: 1, PayloadFormatFlag: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false} {
		if m := r.Wait(3)[i]; m.Binary != want {
			t.Errorf("%q: Binary is %v", m.Data, m.Binary)
		}
	}
}

// What the hub will never take must not come again for ever.
func TestAMessageThatIsUnfitForTheHubIsSkipped(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	hub := tailcast.New(tailcast.WithMemoryLimit(4 << 20))
	defer hub.Close()
	var logged strings.Builder
	src := &mqtt.Source{Servers: []string{b.url}, Filters: []string{"#"}, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	done := make(chan error, 1)
	go func() { done <- hub.Run(t.Context(), src) }()
	b.subscribed(t, "#")
	b.publish(t, "log", "one", false, 1)
	b.publish(t, strings.Repeat("long/", 100), "no topic of a hub", false, 1)
	b.publish(t, "log", strings.Repeat("x", 2<<20), false, 1)
	b.publish(t, "log", "two", false, 1)
	var got []string
	for m, err := range hub.Subscribe(t.Context(), "log", tailcast.Earliest()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, sourcetest.Texts([]tailcast.Message{m})...); len(got) == 3 {
			break
		}
	}
	if want := []string{"one", "gap of 1 (possible: false)", "two"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
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

func TestRetainedMessages(t *testing.T) {
	for name, c := range map[string]struct {
		retained mqtt.Retained
		want     []string
	}{
		"come once":       {mqtt.RetainedOnce, []string{"kept", "new"}},
		"come each time":  {mqtt.RetainedAlways, []string{"kept", "kept", "new"}},
		"come not at all": {mqtt.RetainedNever, []string{"new"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newEmbedded(t, nil, nil)
			b.publish(t, "log", "kept", true, 1)
			cuttable := &line{to: dialTo(b)}
			r := sourcetest.Start(t, &mqtt.Source{Servers: []string{b.url}, Dial: cuttable.dial, Filters: []string{"log"}, Retained: c.retained})
			b.subscribed(t, "log")
			if c.retained != mqtt.RetainedNever {
				r.Wait(1)
			}
			b.acknowledged(t)
			cuttable.cut()
			sourcetest.Eventually(t, "another connection", func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return len(b.conns) > 1
			})
			b.subscribed(t, "log") // what is published while it takes over the session, this broker may lose
			if c.retained == mqtt.RetainedAlways {
				r.Wait(2)
			}
			b.publish(t, "log", "new", false, 1)
			r.Until("new")
			got := r.Texts()
			for n := len(got); n > 1 && got[n-1] == "new" && got[n-2] == "new"; n-- { // QoS 1: this broker may send it once more as it takes over
				got = got[:n-1]
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestASharedSubscriptionGivesEachMessageToOne(t *testing.T) {
	b := newMosquitto(t)
	const lines = 50
	newSource := func(id string) *mqtt.Source {
		return &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: b.dial, ClientID: id, Filters: []string{"$share/hubs/log"}}
	}
	leaveSession(t, b.dial, "a", "$share/hubs/log", 1)
	leaveSession(t, b.dial, "b", "$share/hubs/log", 1)
	one, two := sourcetest.Start(t, newSource("a")), sourcetest.Start(t, newSource("b"))
	c := &client{t: t, dial: b.dial, id: "publisher"}
	defer c.close()
	for i := range lines {
		c.publish("log", fmt.Sprint("line ", i), 1)
	}
	both := func() []string { return append(one.Texts(), two.Texts()...) }
	sourcetest.Eventually(t, "all lines", func() bool { return len(both()) >= lines })
	got := both()
	slices.Sort(got)
	if all := len(got); len(slices.Compact(got)) != lines || all != lines {
		t.Errorf("%d messages came, of %d", all, lines)
	}
}

func TestABrokerThatGrantsLessIsAnError(t *testing.T) {
	b := newEmbedded(t, nil, func(c *mochi.Capabilities) { c.MaximumQos = 0 })
	r := sourcetest.Start(t, &mqtt.Source{Servers: []string{b.url}, Filters: []string{"log"}})
	sourcetest.WantError(t, <-r.Errs, `filter "log": the broker grants QoS 0, not 1`, false)
}

func TestCredentials(t *testing.T) {
	b := newEmbedded(t, nil, nil, new(doorman))
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "secret")
	for name, src := range map[string]*mqtt.Source{
		"in fields":  {Servers: []string{b.url}, Username: "me", Password: "secret"},
		"in the URL": {Servers: []string{u.String()}},
	} {
		t.Run(name, func(t *testing.T) {
			src.Filters = []string{"log/" + name}
			r := sourcetest.Start(t, src)
			b.subscribed(t, src.Filters[0])
			b.publish(t, src.Filters[0], "welcome", false, 1)
			r.Wait(1)
		})
	}
	t.Run("that are wrong may be right later", func(t *testing.T) {
		u.User = url.UserPassword("me", "wrong")
		r := sourcetest.Start(t, &mqtt.Source{Servers: []string{u.String()}, Filters: []string{"log"}})
		err := <-r.Errs
		sourcetest.WantError(t, err, "the broker refuses (code 0x86)", false)
		if strings.Contains(err.Error(), "wrong") {
			t.Errorf("the error tells the password: %v", err)
		}
	})
}

// A doorman is a hook that admits one user.
type doorman struct{ auth.AllowHook }

func (*doorman) OnConnectAuthenticate(_ *mochi.Client, p packets.Packet) bool {
	return string(p.Connect.Username) == "me" && string(p.Connect.Password) == "secret"
}

func TestTLSAndWebSockets(t *testing.T) {
	ws := http.NewServeMux()
	srv := httptest.NewUnstartedServer(ws)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	plain := httptest.NewServer(ws)
	defer plain.Close()
	b := newEmbedded(t, srv.TLS, nil)
	ws.HandleFunc("/mqtt", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"mqtt"}})
		if err != nil || c.Subprotocol() != "mqtt" {
			t.Errorf("%v, subprotocol %q", err, c.Subprotocol())
			return
		}
		b.attach(websocket.NetConn(context.Background(), c, websocket.MessageBinary))
	})
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	trusting := &tls.Config{RootCAs: roots}
	for scheme, address := range map[string]string{"mqtts": b.url, "wss": srv.URL + "/mqtt", "ws": plain.URL + "/mqtt"} {
		t.Run(scheme, func(t *testing.T) {
			_, rest, _ := strings.Cut(address, "://")
			src := &mqtt.Source{Servers: []string{scheme + "://" + rest}, Filters: []string{scheme}, TLS: trusting}
			r := sourcetest.Start(t, src)
			b.subscribed(t, scheme)
			b.publish(t, scheme, strings.Repeat("x", 100_000), false, 1)
			r.Wait(1)
			r.Stop()
			if scheme == "ws" {
				return
			}
			wary := sourcetest.Start(t, &mqtt.Source{Servers: src.Servers, Filters: src.Filters})
			sourcetest.WantError(t, <-wary.Errs, "certificate", false)
			wary.Stop()
		})
	}
}

func TestAServerThatIsDownIsPassedOver(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := "mqtt://" + l.Addr().String()
	l.Close()
	r := sourcetest.Start(t, &mqtt.Source{Servers: []string{down, b.url}, Filters: []string{"log"}})
	b.subscribed(t, "log")
	b.publish(t, "log", "one", false, 1)
	r.Wait(1)
	if len(r.Errs) > 0 {
		t.Errorf("it took another Run: %v", <-r.Errs)
	}
}

func TestARandomSessionEndsWithRun(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	r := sourcetest.Start(t, &mqtt.Source{Servers: []string{b.url}, Filters: []string{"log"}})
	b.subscribed(t, "log")
	r.Stop()
	sourcetest.Eventually(t, "the session to go", func() bool { return b.Clients.Len() == 1 }) // the inline client
}

// A broker that accepts and then says nothing must not hold up the end.
func TestASilentBrokerIsLeft(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := sourcetest.Start(t, &mqtt.Source{Servers: []string{"mqtt://" + l.Addr().String()}, Filters: []string{"log"}})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.Stop()
}

func TestOneSourceRunsOnce(t *testing.T) {
	b := newEmbedded(t, nil, nil)
	src := &mqtt.Source{Servers: []string{b.url}, Filters: []string{"log"}}
	sourcetest.Start(t, src)
	b.subscribed(t, "log")
	sourcetest.WantError(t, src.Run(t.Context(), tailcast.PublisherFunc(nil)), "running already", true)
}

func TestWhatMakesNoSenseIsPermanent(t *testing.T) {
	ok := func(change func(*mqtt.Source)) *mqtt.Source {
		src := &mqtt.Source{Servers: []string{"mqtt://127.0.0.1:1"}, Filters: []string{"log"}}
		change(src)
		return src
	}
	for want, src := range map[string]*mqtt.Source{
		"no Servers":           ok(func(s *mqtt.Source) { s.Servers = nil }),
		"no Filters":           ok(func(s *mqtt.Source) { s.Filters = nil }),
		"the scheme must be":   ok(func(s *mqtt.Source) { s.Servers = []string{"http://x:secret@h"} }),
		"no host":              ok(func(s *mqtt.Source) { s.Servers = []string{"mqtt:///x"} }),
		"a server's URL":       ok(func(s *mqtt.Source) { s.Servers = []string{"mqtt://u:secret@h:port"} }),
		"# is for the end":     ok(func(s *mqtt.Source) { s.Filters = []string{"a/#/b"} }),
		"no such QoS: 3":       ok(func(s *mqtt.Source) { s.QoS = 3 }),
		"no such Retained: -1": ok(func(s *mqtt.Source) { s.Retained = -1 }),
		"Inflight is 65536":    ok(func(s *mqtt.Source) { s.Inflight = 65536 }),
		"KeepAlive is 24h0m0s": ok(func(s *mqtt.Source) { s.KeepAlive = 24 * time.Hour }),
	} {
		err := src.Run(t.Context(), tailcast.PublisherFunc(nil))
		sourcetest.WantError(t, err, want, true)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	passing := ok(func(*mqtt.Source) {})
	sourcetest.WantError(t, passing.Run(t.Context(), tailcast.PublisherFunc(nil)), "refused", false)
}
