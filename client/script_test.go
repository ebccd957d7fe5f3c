package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/tailcasttest"
)

// A scripted server answers each connection with the bytes of a script, whatever they are, and closes it, unless they end with "…": then
// it stays silent.
type scripted struct {
	*testnet.Listener
	mu      sync.Mutex // guards the rest
	scripts []string   // of the connections to come; the last one counts for all after it
	asked   []*http.Request
	at      []time.Time
}

func newScripted(t testing.TB, scripts ...string) *scripted {
	s := &scripted{Listener: testnet.Listen(), scripts: scripts}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() { s.Close(); wg.Wait() })
	return s
}

func (s *scripted) serve(c net.Conn) {
	defer c.Close()
	req, err := http.ReadRequest(newReader(c))
	if err != nil {
		return
	}
	s.mu.Lock()
	script := s.scripts[0]
	if len(s.scripts) > 1 {
		s.scripts = s.scripts[1:]
	}
	s.asked = append(s.asked, req)
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	text, stays := strings.CutSuffix(script, "…")
	io.WriteString(c, text)
	if stays {
		io.Copy(io.Discard, c)
	}
}

// since is what the n-th connection asked for.
func (s *scripted) since(n int) string { return s.query(n).Get("since") }

func (s *scripted) query(n int) url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[n].URL.Query()
}

// pause is the time between the n-th connection and the one after it.
func (s *scripted) pause(n int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[n+1].Sub(s.at[n])
}

func (s *scripted) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

const head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"

func line(offset int) string {
	return fmt.Sprintf(`{"id":"11.%d","topic":"app","time":"2025-01-02T15:04:05.5Z","data":"line %d"}`+"\n", offset, offset)
}

// follow reads until an error comes, or n messages have.
func (s *scripted) follow(t testing.TB, n int, opts ...client.Option) (msgs []tailcast.Message, err error) {
	opts = append([]client.Option{client.WithHTTPClient(testnet.HTTPClient(s.Listener))}, opts...)
	for m, e := range client.Follow(t.Context(), "http://hub.example/logs?level=error", opts...) {
		if err != nil {
			t.Errorf("%v came after an error", e)
		}
		if err = e; err == nil {
			msgs = append(msgs, m)
		}
		if len(msgs) == n {
			break
		}
	}
	return msgs, err
}

func data(msgs []tailcast.Message) (out []string) {
	for _, m := range msgs {
		if m.Gap != nil {
			out = append(out, "gap")
			continue
		}
		out = append(out, string(m.Data))
	}
	return out
}

// TestWhatServersDo: the first answer is the script, the next one is sound.
func TestWhatServersDo(t *testing.T) {
	sound := head + line(5) + "…"
	status := func(status int, header ...string) string {
		return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n%s\r\n\r\nWhat\n is  it?", status, http.StatusText(status),
			strings.Join(append(header, "Connection: close"), "\r\n"))
	}
	for name, tt := range map[string]struct {
		script string
		since  string        // that the second connection asks for
		pause  time.Duration // before it, at least
		status int           // of the error that ends it
		code   int           // of the same
		err    string        // of the same
	}{
		"a connection that ends at once": {script: ""},
		"half a head":                    {script: head[:20]},
		"a head alone":                   {script: head},
		"a place":                        {script: head + `{"event":"pos","topic":"app","id":"11.3"}` + "\n", since: "app=11.3"},
		"no place":                       {script: head + `{"event":"pos","topic":"app","id":"latest"}` + "\n"},
		"an empty topic":                 {script: head + `{"event":"pos","topic":"a,b","id":"earliest"}` + "\n", since: "a%2Cb=earliest"},
		"a newcomer":                     {script: head + `{"event":"join","topic":"app","user":"ann","id":"11.4"}` + "\n", since: "app=11.4"},
		"what is to come":                {script: head + `{"event":"new","topic":"app","id":"11.4","in":{"version":[2]}}` + "\n", since: "app=11.4"},
		"empty lines":                    {script: head + "\n\r\n" + line(1) + "\n", since: "app=11.1"},
		"garbage":                        {script: head + line(1) + "<html>\n" + line(2), since: "app=11.1"},
		"an object of something else":    {script: head + line(1) + "{}\n", since: "app=11.1"},
		"null":                           {script: head + line(1) + "null\n", since: "app=11.1"},
		"a bad position":                 {script: head + line(1) + `{"id":"2","topic":"app","data":""}` + "\n", since: "app=11.1"},
		"silence":                        {script: head + line(1) + "…", since: "app=11.1", pause: 40 * time.Second},
		"silence instead of a head":      {script: "…", pause: 40 * time.Second},
		"silence within a line":          {script: head + line(1) + `{"id":"11.2","to…`, since: "app=11.1", pause: 40 * time.Second},
		"500":                            {script: status(500)},
		"502":                            {script: status(502)},
		"503":                            {script: status(503, "Retry-After: 7"), pause: 7 * time.Second},
		"503 with a date":                {script: status(503, "Retry-After: Sat, 01 Jan 2000 00:00:20 GMT"), pause: 20 * time.Second},
		"503 for good":                   {script: status(503, "Retry-After: 99999999999999999999")},
		"429":                            {script: status(429, "Retry-After: 1"), pause: time.Second},
		"408":                            {script: status(408)},
		"425":                            {script: status(425)},
		"400":                            {script: status(400), status: 400, err: "What is it?"},
		"401":                            {script: status(401), status: 401, err: "What is it?"},
		"403":                            {script: status(403), status: 403, err: "What is it?"},
		"404":                            {script: status(404), status: 404, err: "What is it?"},
		"204":                            {script: "HTTP/1.1 204 No Content\r\n\r\n", status: 204},
		"302 that is not followed":       {script: status(302, "Location: /elsewhere"), status: 302},
		"a page":                         {script: "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", status: 200, err: `"text/html"`},
		"no type":                        {script: "HTTP/1.1 200 OK\r\n\r\n" + line(1), status: 200, err: "Content-Type"},
		"goodbye":                        {script: head + line(1) + `{"event":"bye","code":1001,"reason":"away","retry":2500}` + "\n" + line(2) + "…", since: "app=11.1", pause: 2500 * time.Millisecond},
		"goodbye without a word":         {script: head + `{"event":"bye","code":1013}` + "\n…"},
		"goodbye for a day":              {script: head + `{"event":"bye","code":1001,"retry":86400000}` + "\n…"},
		"expired":                        {script: head + line(1) + `{"event":"bye","code":4401,"reason":"expired","retry":2500}` + "\n", code: 4401, err: "expired"},
		"forbidden":                      {script: head + `{"event":"bye","code":4403}` + "\n", code: 4403},
		"too late":                       {script: head + `{"event":"bye","code":4408}` + "\n"},
		"the application's":              {script: head + `{"event":"bye","code":4500}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, tt.script, sound)
				ends := tt.status != 0 || tt.code != 0
				had := strings.Count(tt.since, "app=11.1")
				began := time.Now()
				n := had + 1
				if ends {
					n = -1
				}
				msgs, err := s.follow(t, n)
				if ends {
					var se *client.StatusError
					var ce *tailcast.CloseError
					switch {
					case tt.status != 0 && (!errors.As(err, &se) || se.Status != tt.status), tt.code != 0 && (!errors.As(err, &ce) || ce.Code != tt.code):
						t.Errorf("it ended with %v", err)
					case !strings.HasPrefix(err.Error(), "tailcast: follow: ") || !strings.Contains(err.Error(), tt.err):
						t.Errorf("it ended with %q", err)
					}
					if n := s.connections(); n != 1 {
						t.Errorf("there were %d connections", n)
					}
					return
				}
				want := []string{"line 1", "line 5"}[1-had:]
				if got := data(msgs); err != nil || !slices.Equal(got, want) {
					t.Errorf("got %q, %v; want %q", got, err, want)
				}
				if got := s.since(1); got != tt.since {
					t.Errorf("it came back with since=%q, want %q", got, tt.since)
				}
				if q := s.query(1); q.Get("level") != "error" {
					t.Errorf("it came back with %v", q)
				}
				if d := time.Since(began); d < tt.pause || d > max(tt.pause, 5*time.Minute)+time.Second {
					t.Errorf("it came back after %v, want %v", d, tt.pause)
				}
			})
		})
	}
}

// TestACutAnywhere: whatever a connection has brought, the next one goes on exactly there.
func TestACutAnywhere(t *testing.T) {
	var all string
	for i := range 4 {
		all += line(i)
		if i == 2 {
			all += `{"event":"gap","topic":"app","from":"11.2","to":"11.2a","count":3,"bytes":-1,"reason":"why"}` + "\n"
		}
	}
	whole := head + all
	chunked := strings.Replace(head, "Connection: close", "Transfer-Encoding: chunked", 1) + fmt.Sprintf("%x\r\n%s\r\n", len(all), all)
	for kind, whole := range map[string]string{"plain": whole, "chunked": chunked} {
		for cut := range len(whole) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, whole[:cut], head+line(9)+"…")
				complete := strings.Count(whole[strings.Index(whole, `{`):max(cut, strings.Index(whole, `{`))], "\n")
				if complete > 5 { // the end of a chunk
					complete = 5
				}
				msgs, err := s.follow(t, complete+1)
				want := append([]string{"line 0", "line 1", "line 2", "gap", "line 3"}[:complete:complete], "line 9")
				if got := data(msgs); err != nil || !slices.Equal(got, want) {
					t.Fatalf("%s, cut after %d bytes: %q, %v; want %q", kind, cut, got, err, want)
				}
				since := []string{"", "app=11.0", "app=11.1", "app=11.2", "app=11.2a", "app=11.3"}[complete]
				if got := s.since(1); got != since {
					t.Fatalf("%s, cut after %d bytes: since=%q, want %q", kind, cut, got, since)
				}
			})
		}
	}
}

func TestMessagesAreWhatTheServerSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+
			`{"event":"pos","topic":"a","id":"11.1"}`+"\n"+
			`{"topic":"a","data":"for you alone"}`+"\n"+
			`{"id":"11.2","topic":"a","time":"2025-01-02T15:04:05.678901234Z","data":"\u00e9\"\\\n\ud83d\ude00","partial":true}`+"\n"+
			` { "data" : "spaces" , "topic":"a","ID":"of something else", "id":"11.3" , "more":[{}] } `+"\n"+
			`{"id":"11.4","topic":"a","b64":true,"data":"/w=="}`+"\n"+
			`{"id":"11.5","topic":"a","b64":true,"binary":true,"data":"/w=="}`+"\n"+
			`{"id":"11.5","topic":"a","b64":true,"data":"YQ=="}`+"\n"+
			`{"event":"gap","topic":"a","from":"11.5","count":7,"bytes":-1,"possible":true,"reason":"why"}`+"\n"+
			`{"event":"gap","topic":"b","to":"12.9","count":-1,"bytes":-1}`+"\n"+
			`{"event":"gap","topic":"c","count":-1,"bytes":-1}`+"\n…")
		got, err := s.follow(t, 9)
		if err != nil {
			t.Fatal(err)
		}
		pos := func(e, o uint64) tailcast.Position { return tailcast.Position{Epoch: e, Offset: o} }
		at := time.Date(2025, 1, 2, 15, 4, 5, 678901234, time.UTC)
		want := []tailcast.Message{
			{Topic: "a", Data: []byte("for you alone")},
			{Topic: "a", Pos: pos(1, 2), Time: at, Data: []byte("é\"\\\n😀"), Partial: true},
			{Topic: "a", Pos: pos(1, 3), Data: []byte("spaces")},
			{Topic: "a", Pos: pos(1, 4), Data: []byte{0xff}},
			{Topic: "a", Pos: pos(1, 5), Data: []byte{0xff}, Binary: true},
			{Topic: "a", Pos: pos(1, 5), Data: []byte("a"), Binary: true}, // text would not be in base64
			{Topic: "a", Pos: pos(1, 5), Gap: &tailcast.Gap{From: pos(1, 5), Count: 7, Bytes: -1, Possible: true, Reason: "why"}},
			{Topic: "b", Pos: pos(2, 9), Gap: &tailcast.Gap{To: pos(2, 9), Count: -1, Bytes: -1}},
			{Topic: "c", Pos: tailcast.Earliest(), Gap: &tailcast.Gap{Count: -1, Bytes: -1}},
		}
		for i, m := range got {
			w := want[i]
			if m.Topic != w.Topic || m.Pos != w.Pos || !m.Time.Equal(w.Time) || !bytes.Equal(m.Data, w.Data) || m.Partial != w.Partial || m.Binary != w.Binary ||
				(m.Gap == nil) != (w.Gap == nil) || m.Gap != nil && *m.Gap != *w.Gap {
				t.Errorf("message %d: %+v, want %+v", i, m, w)
			}
		}
	})
}

func TestARequestSaysWhatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+line(1)+"…")
		_, err := s.follow(t, 1, client.WithTopics("app", "a=b"), client.WithTail(3), client.WithGrep("a|b"), client.WithInvert(),
			client.WithHeader("Authorization", "Bearer x"), client.WithSince(map[string]tailcast.Position{"a=b": {}}))
		if err != nil {
			t.Fatal(err)
		}
		want := url.Values{"topic": {"app", "a=b"}, "tail": {"3"}, "grep": {"a|b"}, "invert": {"1"}, "level": {"error"}, "since": {"a%3Db=latest"}}
		if got := s.query(0); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("query %v, want %v", got, want)
		}
		h := s.asked[0].Header
		if h.Get("Accept") != "application/x-ndjson" || h.Get("Authorization") != "Bearer x" {
			t.Errorf("header %v", h)
		}
	})
}

// TestARedirectKeepsThePlace: a Location need not repeat the query.
func TestARedirectKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moved := func(to string) string {
			return "HTTP/1.1 307 Temporary Redirect\r\nLocation: " + to + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
		}
		s := newScripted(t, head+line(1), moved("/here"), moved("//other.example/there"), head+line(2)+"…")
		hc := testnet.HTTPClient(s.Listener)
		hc.CheckRedirect = nil
		msgs, err := s.follow(t, 2, client.WithHTTPClient(hc), client.WithTopics("app"))
		if got := data(msgs); err != nil || !slices.Equal(got, []string{"line 1", "line 2"}) {
			t.Fatalf("%q, %v", got, err)
		}
		for n := 1; n < 4; n++ {
			q := s.query(n)
			if q.Get("since") != "app=11.1" || q.Get("topic") != "app" || q.Has("level") != (n < 3) {
				t.Errorf("request %d: %v", n, q)
			}
		}
		if s.asked[3].Host != "other.example" || s.asked[3].URL.Path != "/there" {
			t.Errorf("the last one went to %v", s.asked[3])
		}
	})
}

func TestPausesGrowAndBeginAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scripts := slices.Repeat([]string{""}, 40)
		scripts = append(scripts, head+"…", "", head+line(1)+"…") // the silence lasts for longer than a bad connection does
		s := newScripted(t, scripts...)
		if _, err := s.follow(t, 1); err != nil {
			t.Fatal(err)
		}
		for i, most := 0, 500*time.Millisecond; i < 40; i, most = i+1, min(2*most, 30*time.Second) {
			if d := s.pause(i); d > most {
				t.Errorf("pause %d: %v, want at most %v", i, d, most)
			}
		}
		var longest time.Duration
		for i := range 40 {
			longest = max(longest, s.pause(i))
		}
		if longest < 10*time.Second { // by chance once in 10^16 runs
			t.Errorf("the longest pause is %v", longest)
		}
		if d := s.pause(40); d < 40*time.Second || d > 40500*time.Millisecond {
			t.Errorf("after a good connection, which was silent for 40 s: %v", d)
		}
		if d := s.pause(41); d > time.Second {
			t.Errorf("the second pause after a good connection: %v", d)
		}
	})
}

func TestWhatCannotBeReadAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+"<html>\n")
		_, err := s.follow(t, 1)
		if err == nil || !strings.Contains(err.Error(), "<html>") || s.connections() != 5 {
			t.Errorf("after %d connections: %v", s.connections(), err)
		}
	})
}

func TestALineThatIsTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fits := line(1)
		for extra, long := range map[int]bool{0: false, 1: true} {
			s := newScripted(t, head+strings.TrimSuffix(fits, "}\n")+strings.Repeat(" ", extra)+"}\n…")
			msgs, err := s.follow(t, 1, client.WithMaxLine(len(fits)-1))
			if long != (err != nil && strings.Contains(err.Error(), "WithMaxLine")) || long == (len(msgs) == 1) {
				t.Errorf("%d more: %q, %v", extra, data(msgs), err)
			}
		}
		large := `{"id":"11.1","topic":"app","data":"` + strings.Repeat("x", 3<<20) + "\"}\n"
		s := newScripted(t, head+large+line(2)+large+line(3)+"…")
		msgs, err := s.follow(t, 4)
		if got := data(msgs); err != nil || len(got[0]) != 3<<20 || got[0] != got[2] || got[1] != "line 2" || got[3] != "line 3" {
			t.Errorf("%d messages, %v", len(got), err)
		}
	})
}

func TestURLsThatAreNone(t *testing.T) {
	for _, u := range []string{"", "hub.example", "ws://hub.example", "http://", "http://a b", "%"} {
		n := 0
		for m, err := range client.Follow(t.Context(), u) {
			if n++; err == nil || n > 1 {
				t.Errorf("%q: %v, %v", u, m, err)
			}
		}
		if n != 1 {
			t.Errorf("%q: %d errors", u, n)
		}
	}
}

func TestTheLoggerIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		s := newScripted(t, "", "", "", head+line(1), head+line(2)+"…")
		if _, err := s.follow(t, 2, client.WithLogger(log)); err != nil {
			t.Fatal(err)
		}
		lost, found := strings.Count(out.String(), "level=WARN msg=\"client connection lost\""), strings.Count(out.String(), "level=INFO msg=\"client connection recovered\"")
		if lost != 2 || found != 2 || strings.Contains(out.String(), "hub.example") {
			t.Errorf("%s", &out)
		}
	})
}

// TestABodyMayTakeItsTime: silence is the server's, not that of a body that does not ask.
func TestABodyMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New()
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)
		publish(t, hub, "", "message 1")
		hc := srv.Client()
		hc.Timeout = time.Second // which is for whole responses
		n := 0
		for _, err := range client.Follow(t.Context(), srv.URL, client.WithHTTPClient(hc), client.WithTail(1)) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 3 {
				break
			}
			time.Sleep(time.Hour)
			publish(t, hub, "", "one more")
		}
		if n := hub.Stats().Accepted; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestDataIsTheBodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, head+line(1)+line(2)+line(3)+"…")
		msgs, err := s.follow(t, 3)
		if err != nil {
			t.Fatal(err)
		}
		for i := range msgs { // neither is a part of the other, or of a buffer
			_ = append(msgs[i].Data, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"...)
		}
		if got := data(msgs); !slices.Equal(got, []string{"line 1", "line 2", "line 3"}) {
			t.Errorf("%q", got)
		}
	})
}

// TestTheEndWhileItWaits: an error that says why, once.
func TestTheEndWhileItWaits(t *testing.T) {
	for name, script := range map[string]string{"for a head": "…", "for a line": head + "…", "between connections": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, script)
				over := errors.New("over")
				ctx, cancel := context.WithTimeoutCause(t.Context(), 39*time.Second, over)
				defer cancel()
				n := 0
				for _, err := range client.Follow(ctx, "http://hub.example", client.WithHTTPClient(testnet.HTTPClient(s.Listener))) {
					if n++; !errors.Is(err, over) {
						t.Error(err)
					}
				}
				if n != 1 {
					t.Errorf("%d errors", n)
				}
			})
		})
	}
}
