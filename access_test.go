package tailcast_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
)

// ask sends a GET with header lines separated by |, from an address, and returns the head of the answer with what it says at
// once.
func (s *site) ask(from, query, header string) (*http.Response, string) {
	s.t.Helper()
	var addr net.Addr
	if from != "" {
		addr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	nc, err := s.l.DialFrom(context.Background(), addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	io.WriteString(nc, "GET /"+query+" HTTP/1.1\r\nHost: hub.example\r\n"+lines(header)+"\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	body, _ := io.ReadAll(resp.Body)
	nc.SetReadDeadline(time.Time{})
	return resp, strings.TrimSpace(string(body))
}

const (
	asSSE = "Accept: text/event-stream|"
	asWS  = "Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|"
)

// quiet keeps the panics that a test makes out of its output.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func accepted(resp *http.Response) bool { return resp.StatusCode == 200 || resp.StatusCode == 101 }

// users knows clients by a header "User: name", or "User: name until SECONDS".
func users(r *http.Request) (tailcast.Identity, error) {
	name, until, _ := strings.Cut(r.Header.Get("User"), " until ")
	switch name {
	case "":
		return tailcast.Identity{}, errors.New("secret: no header")
	case "banned":
		return tailcast.Identity{}, fmt.Errorf("secret: %w", &tailcast.CloseError{Code: 4403, Reason: "You are banned."})
	case "busy":
		return tailcast.Identity{}, &tailcast.CloseError{Code: 1013, Reason: "Ask later."}
	case "panic":
		panic("secret")
	}
	id := tailcast.Identity{User: name, Value: len(name)}
	if n, err := strconv.Atoi(until); err == nil {
		id.Expires = time.Now().Add(time.Duration(n) * time.Second)
	}
	return id, nil
}

func TestAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conns, onConnect := connected()
		s := newSite(t, onConnect, tailcast.WithAuthenticate(users), tailcast.WithLogger(quiet()))
		for _, format := range []string{"", asSSE, asWS} {
			for _, row := range []struct {
				user     string
				status   int
				sentence string
			}{
				{"", 401, "authenticate first"},
				{"banned", 403, "You are banned."},
				{"busy", 503, "Ask later."},
				{"panic", 500, "something is wrong"},
				{"alice until 0", 401, "expired"},
				{"alice until -5", 401, "expired"},
			} {
				resp, body := s.ask("", "?topic=nosuch&since=nonsense", format+"User: "+row.user)
				if row.status == 503 && format == asSSE { // an EventSource would never come back
					if resp.StatusCode != 200 || !strings.HasPrefix(body, "retry: ") || !strings.Contains(body, `"event":"error","reason":"Ask later."`) {
						t.Errorf("%q as %q: %s %q", row.user, format, resp.Status, body)
					}
					continue
				}
				if resp.StatusCode != row.status || !strings.Contains(body, row.sentence) || strings.Contains(body, "secret") {
					t.Errorf("%q as %q: %s %q", row.user, format, resp.Status, body)
				}
				if got := resp.Header.Get("WWW-Authenticate"); (got != "") != (row.status == 401) {
					t.Errorf("%q: WWW-Authenticate %q", row.user, got)
				}
				if got := resp.Header.Get("Retry-After"); (got != "") != (row.status == 503) {
					t.Errorf("%q: Retry-After %q", row.user, got)
				}
			}
			if resp, body := s.ask("", "", format+"User: alice"); !accepted(resp) {
				t.Errorf("alice as %q: %s %s", format, resp.Status, body)
			}
			if id := (<-conns).Identity(); id.User != "alice" || id.Value != 5 || !id.Expires.IsZero() {
				t.Errorf("identity %+v", id)
			}
		}
		if n := s.hub.Stats().Panics; n != 3 {
			t.Errorf("%d panics counted", n)
		}
	})
}

func TestAnIdentityExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithPing(0, time.Second), tailcast.WithAuthenticate(users))
		ws := s.wsWith("", http.Header{"User": {"alice until 60"}})
		sse := s.sse("", "User: bob until 60")
		text := s.get("", "User: carol until 60")
		s.get("", "User: dave until 999999999999") // later than a time.Duration reaches
		s.get("", "User: erin")
		began := time.Now()
		if reason := closed(t, ws, 4401); !strings.Contains(reason, "expired") {
			t.Errorf("reason %q", reason)
		}
		if e, err := sse.event(); err != nil || e.name != "bye" || !strings.Contains(e.data, `"code":4401`) {
			t.Errorf("%+v, %v", e, err)
		}
		if rest, err := io.ReadAll(text); err != nil || len(rest) > 0 {
			t.Errorf("text ends with %q, %v", rest, err)
		}
		if late := time.Since(began) - time.Minute; late < 0 || late > time.Second {
			t.Errorf("%v late", late)
		}
		for range 3 {
			if err := <-w.ended; code(err) != 4401 {
				t.Errorf("cause %v", err)
			}
		}
		time.Sleep(time.Hour)
		if n := w.count(); n != 3 {
			t.Errorf("%d have ended, want 3", n)
		}
	})
}

func TestAuthorize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		hub := tailcast.New(tailcast.WithAuthenticate(users), tailcast.WithLogger(quiet()),
			tailcast.WithAuthorize(func(ctx context.Context, a tailcast.Access) error {
				asked = append(asked, fmt.Sprintf("%s %s %q", a.Identity.User, a.Action, a.Topic))
				switch {
				case ctx.Value(http.ServerContextKey) == nil || a.Remote == "":
					return errors.New("the request's context is missing")
				case a.Topic == "gone":
					return &tailcast.CloseError{Code: 4410, Reason: "That topic is no more."}
				case a.Topic == "panic":
					panic("secret")
				case a.Topic == "" || strings.HasPrefix(a.Topic, a.Identity.User):
					return nil
				}
				return errors.New("secret")
			}))
		mux := http.NewServeMux()
		mux.Handle("/", hub)
		mux.Handle("/two", hub.Handler("alice/a", "bob/b"))
		s := serveSite(t, hub, mux)
		for _, row := range []struct {
			query    string
			status   int
			sentence string
			asked    []string
		}{
			{"", 200, "", []string{`alice read ""`}},
			{"?topic=alice/x", 200, "", []string{`alice read "alice/x"`}},
			{"?topic=alice/x&topic=alice/y&topic=", 200, "", []string{`alice read "alice/x"`, `alice read "alice/y"`, `alice read ""`}},
			{"?topic=alice/x&topic=bob/x&topic=alice/y", 403, `You may not read topic "bob/x".`, []string{`alice read "alice/x"`, `alice read "bob/x"`}},
			{"?topic=gone", 410, "That topic is no more.", []string{`alice read "gone"`}},
			{"?topic=panic", 500, "something is wrong", []string{`alice read "panic"`}},
			{"?topic=a%0Ab", 400, "control character", nil},
			{"?topic=%FF", 400, "not UTF-8", nil},
			{"?topic=" + strings.Repeat("x", 256), 400, "256 bytes", nil},
			{"?topic=alice/x&topic=alice/x", 400, "twice", nil},
			{"?" + strings.Repeat("topic=a&", 129), 400, "129 topics", nil},
			{"two", 403, `"bob/b"`, []string{`alice read "alice/a"`, `alice read "bob/b"`}},
			{"two?topic=alice/a", 200, "", []string{`alice read "alice/a"`}},
			{"two?topic=alice/x", 403, "not served here", nil},
		} {
			for _, format := range []string{"", asSSE, asWS} {
				asked = nil
				resp, body := s.ask("", row.query, format+"User: alice")
				if ok := row.status == 200 && accepted(resp) || resp.StatusCode == row.status; !ok || !strings.Contains(body, row.sentence) || strings.Contains(body, "secret") {
					t.Errorf("%q as %q: %s %q", row.query, format, resp.Status, body)
				}
				if !slices.Equal(asked, row.asked) {
					t.Errorf("%q as %q: asked about %q", row.query, format, asked)
				}
			}
		}
	})
}

func TestAllowAllTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics))
		r := s.get("?topic=any")
		synctest.Wait() // it is subscribed
		if err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "any", Data: []byte("hello")}); err != nil {
			t.Fatal(err)
		}
		r.lines("hello")
		if tailcast.AllowAllTopics(t.Context(), tailcast.Access{Action: tailcast.ActionPublish}) == nil {
			t.Error("clients may publish")
		}
	})
}

func TestWithoutAuthorizeOnlyTheMountIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		if resp, body := s.ask("", "?topic=secret", ""); resp.StatusCode != 403 || !strings.Contains(body, `"secret" is not served`) {
			t.Errorf("%s %q", resp.Status, body)
		}
	})
}
