package tailcast_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// modulo is a filter that passes the messages whose number n leaves no rest, and counts its calls.
func modulo(calls *atomic.Int64) tailcast.Option {
	return tailcast.WithFilter("every", func(value string) (func(*tailcast.Message) bool, error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return nil, errors.New("must be a\r\nwhole number")
		}
		return func(m *tailcast.Message) bool {
			calls.Add(1)
			i, _ := strconv.Atoi(strings.Fields(string(m.Data))[1])
			return i%n == 0
		}, nil
	})
}

func every(n, from, to int) (out []string) {
	for i := from; i <= to; i++ {
		if i%n == 0 {
			out = append(out, fmt.Sprint("message ", i))
		}
	}
	return out
}

func prefixed(prefix string, list []string) (out []string) {
	for _, s := range list {
		out = append(out, prefix+s)
	}
	return out
}

func TestFiltersInEachFormat(t *testing.T) {
	for name, c := range map[string]struct {
		query string
		want  []string
	}{
		"grep":             {"grep=" + url.QueryEscape(`^message \d*0$`), every(10, 1, 200)},
		"inverted":         {"invert=1&grep=" + url.QueryEscape(`[1-9]$`), every(10, 1, 200)},
		"not inverted":     {"invert=0&grep=0$", every(10, 1, 200)},
		"WithFilter":       {"every=10", every(10, 1, 200)},
		"both":             {"every=10&grep=5", []string{"message 50", "message 150"}},
		"both, inverted":   {"every=50&grep=150&invert=1", []string{"message 50", "message 100", "message 200"}},
		"empty values":     {"every=&grep=&invert=1", numbered(1, 200)},
		"nothing passes":   {"grep=nothing", nil},
		"topics, by names": {"topic=&topic=app&every=10", every(10, 1, 200)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				s := newSite(t, modulo(&calls), tailcast.WithAuthorize(tailcast.AllowAllTopics))
				s.publish(numbered(1, 50)...)
				q := "?tail=100&" + c.query
				text, sse, ws, env, ndjson := s.get(q), s.sse(q), s.ws(q), s.envelopes(q), s.ndjson(q)
				synctest.Wait() // who has an answer may not have its place yet, and 100 messages later it would begin behind them
				for _, m := range numbered(51, 200) {
					s.publish(m)
				}
				synctest.Wait()
				if strings.Contains(q, "topic") {
					text.lines("==>  <==")
				}
				text.lines(c.want...)
				sse.events(c.want...)
				frames(t, ws, c.want...)
				env.expect(prefixed(": ", c.want)...)
				ndjson.expect(prefixed(": ", c.want)...)
				if n := calls.Load(); strings.Contains(q, "every=") && n > 200 {
					t.Errorf("200 messages were looked at %d times", n)
				}
				if n := s.hub.Stats().Delivered; n > uint64(5*len(c.want)+20) {
					t.Errorf("%d messages were delivered", n)
				}
				if err := s.hub.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAFilterIsAskedOnceAboutAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		s := newSite(t, modulo(&calls))
		var texts []*reader
		var envelopes []*objects
		for range 50 {
			texts = append(texts, s.get("?every=7&tail=0"))
			envelopes = append(envelopes, s.envelopes("?every=7&tail=0"))
		}
		synctest.Wait()
		for i := 1; i <= 300; i++ {
			s.publish(fmt.Sprint("message ", i))
			if i%3 == 0 {
				synctest.Wait()
			}
		}
		for i := range texts {
			texts[i].lines(every(7, 1, 300)...)
			envelopes[i].expect(prefixed(": ", every(7, 1, 300))...)
		}
		if n := calls.Load(); n != 300 {
			t.Errorf("100 viewers of 300 messages: the filter was asked %d times", n)
		}
	})
}

// A viewer for whom nothing has come for an hour comes back to the head.
func TestWhoFindsNothingForAnHourComesBackToTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		a := newArchive(100, 100)
		s := newArchiveSite(t, a, modulo(&calls))
		last := ""
		sse := s.sse("?tail=0&every=100000")
		ndjson := s.ndjson("?tail=0&every=100000")
		env := s.envelopes("?tail=0&grep=nothing")
		keep := func(o *objects) {
			for {
				if _, err := o.read(); err != nil {
					return
				}
			}
		}
		over := make(chan struct{})
		go func() { _, _ = sse.event(); over <- struct{}{} }()
		go func() { keep(ndjson); over <- struct{}{} }()
		go func() { keep(env); over <- struct{}{} }()
		for range 60 {
			a.more <- 8 // fewer than memory holds
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		sse.nc.Close()
		ndjson.line.nc.Close()
		env.ws.Conn.Close()
		for range 3 {
			<-over
		}
		synctest.Wait()
		head, _ := s.hub.Head("")
		last = head.String()
		if sse.id != last || ndjson.ids[""] != last || env.ids[""] != last {
			t.Fatalf("they stand at %s, %s, %s; the head is %s", sse.id, ndjson.ids[""], env.ids[""], last)
		}
		asked := calls.Load()
		back := []*reader{
			s.sse("?every=10", "Last-Event-ID: "+sse.id),
			s.get("?grep=0&since="+ndjson.ids[""], "Accept: text/event-stream"),
		}
		synctest.Wait()
		if n := a.replays.Load(); n != 0 || a.read.Load() != 0 || calls.Load() != asked {
			t.Errorf("%d replays read %d messages, %d were looked at", n, a.read.Load(), calls.Load()-asked)
		}
		a.more <- 10
		for _, r := range back {
			r.events(a.text(600))
		}
	})
}

// Filters are the same in what is replayed, and viewers share it.
func TestFiltersInReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 3000
		var calls atomic.Int64
		a := newArchive(past, 500)
		s := newArchiveSite(t, a, modulo(&calls))
		var want []string
		for i := 100; i <= past; i += 100 {
			want = append(want, a.text(i))
		}
		var text []*reader
		var env []*objects
		var ws []func()
		for range 20 {
			text = append(text, s.get("?since=earliest&every=100"))
			env = append(env, s.envelopes("?since=earliest&every=100"))
			c := s.ws("?since=earliest&grep=" + url.QueryEscape(`^message \d*00 `))
			ws = append(ws, func() { frames(t, c, want...) })
		}
		for i := range text {
			text[i].lines(want...)
			env[i].expect(prefixed(": ", want)...)
			ws[i]()
		}
		time.Sleep(time.Second)
		if n, read := a.replays.Load(), a.read.Load(); n != 1 || read > past+10 {
			t.Errorf("%d replays read %d messages of %d", n, read, past)
		}
		if n := calls.Load(); n > past+10 {
			t.Errorf("the filter was asked %d times about %d messages", n, past+10)
		}
		a.more <- 90
		for i := range text {
			text[i].lines(a.text(past + 100))
			env[i].expect(": " + a.text(past+100))
		}
	})
}

func TestGapsPassFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
		s.publish("message 0")
		env, text := s.envelopes("?tail=1&grep=0$"), s.get("?tail=1&grep=0$")
		env.expect(": message 0")
		text.lines("message 0")
		gap := tailcast.Message{Gap: &tailcast.Gap{Count: 3, Bytes: -1, Reason: "a reason"}}
		if err := s.hub.Publish(t.Context(), gap); err != nil {
			t.Fatal(err)
		}
		env.expect("gap  3: a reason")
		text.lines("# tailcast gap: 3 messages, unknown bytes lost: a reason")
		env.ws.Conn.Close()
		synctest.Wait()
		for _, m := range numbered(1, 100) { // what is missed is counted, whether it would pass or not
			s.publish(m)
		}
		env = s.envelopes("?grep=0$&since=" + env.ids[""])
		env.expect("gap  91: no longer kept in memory", ": message 100")
	})
}

// Lag is the same for who reads through a filter: what it misses is declared, and nothing else is missing.
func TestLagWithAFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const last = 2000
		s := newSite(t, tailcast.WithRetention(tailcast.Retention{Messages: 100}))
		big := strings.Repeat("x", 4000)
		env := s.envelopes("?tail=0&grep=" + url.QueryEscape("[05] "))
		synctest.Wait() // the handshake ends before the viewer has its place: what is published until then is not for it
		env.ws.Conn.(*testnet.Conn).Peer().Stall()
		for i := 1; i <= last; i++ {
			s.publish(fmt.Sprint("message ", i, " ", big))
			if i%10 == 0 {
				synctest.Wait()
			}
		}
		env.ws.Conn.(*testnet.Conn).Peer().Resume()
		at, missed := 0, 0 // the last message of which the viewer knows what became of it; those that were declared lost
		for at < last {
			o, err := env.read()
			if err != nil {
				t.Fatal(err)
			}
			switch o.Event {
			case "":
				n, _ := strconv.Atoi(strings.Fields(o.Data)[1])
				if n != at/5*5+5 {
					t.Fatalf("message %d comes after %d", n, at)
				}
				at = n
			case "gap":
				from, to := offset(t, o.From), offset(t, o.To)
				if from < at || from/5 != at/5 || to-from != int(o.Count) {
					t.Fatalf("a gap of %d messages from %d to %d comes after %d", o.Count, from, to, at)
				}
				at = to
				missed += to - from
			}
		}
		if missed == 0 {
			t.Error("nothing was missed: the test is of no use")
		}
	})
}

// offset is the number of the message that a position stands behind, in a topic that the hub numbers; 0 before the first one.
func offset(t *testing.T, position string) int {
	t.Helper()
	if position == "" {
		return 0
	}
	var p tailcast.Position
	if err := p.UnmarshalText([]byte(position)); err != nil {
		t.Fatal(err)
	}
	return int(p.Offset)
}

func TestAPanicOfAFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), tailcast.WithFilter("f", func(v string) (func(*tailcast.Message) bool, error) {
			if v == "compile" {
				panic("in compile")
			}
			return func(m *tailcast.Message) bool {
				if v == "panic" && string(m.Data) == "message 3" {
					panic("oh no")
				}
				return true
			}, nil
		}))
		ws, sse, other, all := s.ws("?f=panic"), s.sse("?f=panic"), s.get("?f=fine"), s.get("")
		synctest.Wait()
		s.publish(numbered(1, 5)...)
		closed(t, ws, 1011)
		for {
			e, err := sse.event()
			if err != nil {
				t.Fatal(err)
			}
			if e.name == "bye" {
				break
			}
		}
		other.lines(numbered(1, 5)...)
		all.lines(numbered(1, 5)...)
		for range 2 {
			var p *tailcast.PanicError
			if err := <-w.ended; !errors.As(err, &p) || p.Value != "oh no" {
				t.Errorf("the cause: %v", err)
			}
		}
		if n := s.hub.Stats().Panics; n != 1 || !strings.Contains(log.String(), "oh no") {
			t.Errorf("%d panics; %s", n, &log)
		}
		again := s.get("?f=panic") // gets a new filter
		synctest.Wait()
		s.publish("message 6")
		again.lines("message 6")
		if status, line := s.answer(badRequest{query: "?f=compile"}); status != 500 || line != `The server cannot read "f": something is wrong with it.` {
			t.Errorf("%d %s", status, line)
		}
	})
}

// A filter that does not return holds up nobody but those who have asked for it, and Close only for some seconds.
func TestASlowFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		hub := tailcast.New(tailcast.WithFilter("f", func(string) (func(*tailcast.Message) bool, error) {
			return func(m *tailcast.Message) bool { <-stuck; return true }, nil
		}))
		s := serveSite(t, hub, hub)
		began := time.Now()
		slow := s.get("?f=1")
		grep, all, ws := s.get("?grep=m"), s.get(""), s.ws("")
		synctest.Wait()
		for _, m := range numbered(1, 100) {
			s.publish(m)
		}
		synctest.Wait()
		grep.lines(numbered(1, 100)...)
		all.lines(numbered(1, 100)...)
		frames(t, ws, numbered(1, 100)...)
		if err := hub.WaitLag(t.Context(), "", 0); err != nil || time.Since(began) > time.Second {
			t.Errorf("WaitLag = %v after %v", err, time.Since(began))
		}
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := hub.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown = %v", err)
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("Shutdown took %v", took)
		}
		slow.nc.Close()
		close(stuck)
	})
}

// A slow filter in a replay: its viewers get all of it in their own time, and those beside them are not held up.
func TestASlowFilterInAReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const past = 2000
		a := newArchive(past, 5000) // more than a replay keeps
		s := newArchiveSite(t, a, tailcast.WithFilter("slow", func(string) (func(*tailcast.Message) bool, error) {
			return func(m *tailcast.Message) bool {
				time.Sleep(10 * time.Millisecond)
				return strings.Contains(string(m.Data), "00 ")
			}, nil
		}))
		began := time.Now()
		slow := s.get("?since=earliest&slow=1")
		var results []func() error
		for i := range 5 {
			results = append(results, s.reads(a, i%2 == 0, 0, past+10))
		}
		for _, result := range results {
			if err := result(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("beside a filter that takes 20 s a replay took %v", took)
		}
		for i := 100; i <= past; i += 100 {
			slow.lines(a.text(i))
		}
		if n, read := a.replays.Load(), a.read.Load(); n > 10 {
			t.Errorf("%d replays read %d messages of %d", n, read, past)
		}
	})
}

// Shutdown waits for what a filter has yet to say.
func TestShutdownSendsWhatASlowFilterPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithFilter("slow", func(string) (func(*tailcast.Message) bool, error) {
			return func(*tailcast.Message) bool { time.Sleep(10 * time.Millisecond); return true }, nil
		}))
		r := s.get("?slow=1")
		synctest.Wait()
		s.publish(numbered(1, 100)...)
		if err := s.hub.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		r.lines(numbered(1, 100)...)
	})
}

func TestTooManyFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		var open []*reader
		for i := range 32 {
			open = append(open, s.get(fmt.Sprint("?grep=", i)))
		}
		const want = `There are 32 filters in use in topic "", which is the limit: try again later.`
		if status, line := s.answer(badRequest{query: "?grep=33"}); status != 503 || line != want {
			t.Errorf("%d %s", status, line)
		}
		s.get("?grep=5")
		open[7].nc.Close()
		synctest.Wait()
		time.Sleep(time.Second)
		for i := range 40 { // one after the other
			r := s.get(fmt.Sprint("?grep=e.", 100+i))
			r.nc.Close()
			time.Sleep(time.Second)
		}
		r := s.get("?grep=m")
		synctest.Wait()
		s.publish("message")
		r.lines("message")
	})
}

// The parts of a line that was cut go the way of the first one.
func TestPartsOfALinePassTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		yes, no := s.get("?grep=first"), s.get("?grep=first&invert=1")
		synctest.Wait()
		for _, m := range []tailcast.Message{
			{Data: []byte("first "), Partial: true}, {Data: []byte("second "), Partial: true}, {Data: []byte("third")},
			{Data: []byte("other "), Partial: true}, {Data: []byte("first")}, {Data: []byte("first again")}, {Data: []byte("end")},
		} {
			if err := s.hub.Publish(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		yes.lines("first second third", "first again")
		no.lines("other first", "end")
	})
}

// A client's subscriptions by command pass its filter too.
func TestCommandsKeepTheFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithAuthorize(tailcast.AllowAllTopics))
		env := s.envelopes("?grep=b")
		if err := env.ws.WriteText(`{"type":"subscribe","topic":"app","ref":1}`); err != nil {
			t.Fatal(err)
		}
		env.expect("ok #1")
		synctest.Wait()
		for _, data := range []string{"a", "b", "ab", "c"} {
			if err := s.hub.Publish(t.Context(), tailcast.Message{Topic: "app", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
		env.expect("app: b", "app: ab")
	})
}

func TestWithFilterPanics(t *testing.T) {
	fine := func(string) (func(*tailcast.Message) bool, error) { return nil, nil }
	for name, f := range map[string]func(){
		"no name":  func() { tailcast.WithFilter("", fine) },
		"taken":    func() { tailcast.WithFilter("since", fine) },
		"control":  func() { tailcast.WithFilter("a\n", fine) },
		"nil":      func() { tailcast.WithFilter("f", nil) },
		"repeated": func() { tailcast.New(tailcast.WithFilter("f", fine), tailcast.WithFilter("f", fine)) },
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.HasPrefix(v, "tailcast: WithFilter(") {
					t.Errorf("%s: %v", name, v)
				}
			}()
			f()
		}()
	}
}

// FuzzGrep: whatever is asked for is compiled as the package regexp has it, or answered with a short sentence that says where
// it is wrong.
// What is wrong with an expression costs little to be found out: anybody can send one.
func TestABadExpressionIsRefusedCheaply(t *testing.T) {
	for _, expr := range []string{
		"(" + strings.Repeat("ab", 120) + "){1000}",
		"(" + strings.Repeat("[^a]*", 48) + "){1000}",
		strings.Repeat(`\pL{1000}`, 28),
		strings.Repeat(`\pL`, 80) + "[z-a]",
		"(" + strings.Repeat("a|bc?", 48) + "){500,}",
	} {
		const runs = 10
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			if _, err := tailcast.CompileGrep(expr); err == nil || !strings.Contains(err.Error(), "the limit is 1000") && !strings.Contains(err.Error(), "at byte 242") {
				t.Fatalf("%s: %v", expr, err)
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 16<<20 { // some 1 MB for each time that it is parsed
			t.Errorf("%s: %d bytes were allocated", expr, n)
		}
	}
}

func FuzzGrep(f *testing.F) {
	for _, s := range []string{"a", "(", "a(b", "a)b", "[a", "a**", "a{1001}", `\y`, `a\`, "[z-a]", "(?P<n", "\xff", "(?i)x|y", "((((x{30}){30}){30}", "a\x00\r\n"} {
		f.Add(s)
	}
	sentence := regexp.MustCompile(`^grep: expression "[ -~]*"…? has an error at byte (\d+): [ -~]+\.$|^grep: expression "[ -~]*"…? comes to \d+ steps, the limit is 1000\.$`)
	f.Fuzz(func(t *testing.T, s string) {
		re, err := tailcast.CompileGrep(s)
		want, wantErr := regexp.Compile(s)
		switch {
		case err == nil && (wantErr != nil || re.String() != want.String()):
			t.Errorf("%q is compiled; regexp says %v", s, wantErr)
		case err != nil:
			m := sentence.FindStringSubmatch(err.Error())
			if m == nil || len(err.Error()) > 400 {
				t.Fatalf("%q: %q", s, err)
			}
			if at, _ := strconv.Atoi(m[1]); m[1] != "" && (at < 1 || at > len(s)+1) {
				t.Errorf("%q: %s", s, err)
			}
		}
	})
}
