package tailcast_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
	"github.com/tailcast/tailcast/tailcasttest"
)

// nodes returns sites whose hubs share a log, and their connections to it.
func nodes(t testing.TB, shared *tailcasttest.SharedLog, n int, opts ...tailcast.Option) (sites []*site, planes []*tailcasttest.LogNode) {
	for range n {
		plane := shared.Node()
		planes = append(planes, plane)
		sites = append(sites, newSite(t, append(opts[:len(opts):len(opts)], tailcast.WithBackplane(plane))...))
	}
	return sites, planes
}

// data reads the next n messages of an event stream.
func (r *reader) data(n int) (data []string) {
	r.t.Helper()
	for len(data) < n {
		line, err := r.ReadString('\n')
		if err != nil {
			r.t.Fatalf("after %q: %v", data, err)
		}
		line = strings.TrimSuffix(line, "\n")
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			r.id = id
		}
		if d, ok := strings.CutPrefix(line, "data: "); ok {
			data = append(data, d)
		}
	}
	if line, err := r.ReadString('\n'); err != nil { // the id comes last
		r.t.Fatal(err)
	} else if id, ok := strings.CutPrefix(line, "id: "); ok {
		r.id = strings.TrimSuffix(id, "\n")
	}
	return data
}

func want(t testing.TB, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// What one node publishes all viewers get, in one order, with the same positions.
func TestHubsShareALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, _ := nodes(t, tailcasttest.NewSharedLog(), 2)
		a, b := sites[0].sse(""), sites[1].sse("")
		for i := range 20 {
			sites[i%2].publish(fmt.Sprint(i))
		}
		left, right := a.data(20), b.data(20)
		want(t, right, left...)
		if a.id != b.id || a.id == "" {
			t.Errorf("ids %q and %q", a.id, b.id)
		}
	})
}

// A viewer comes back to another node, one that was not there when it left, and to the one that it has left.
func TestAViewerResumesOnAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, _ := nodes(t, shared, 1)
		v := sites[0].sse("")
		sites[0].publish("1", "2", "3")
		v.data(2)
		late, _ := nodes(t, shared, 1)
		for _, s := range []*site{late[0], sites[0]} {
			r := s.sse("", "Last-Event-ID: "+v.id)
			want(t, r.data(1), "3")
		}
		r := late[0].sse("", "Last-Event-ID: "+v.id)
		sites[0].publish("4")
		want(t, r.data(2), "3", "4")
		time.Sleep(time.Second)
		if n := late[0].hub.Stats().CatchUps; n != 0 {
			t.Errorf("%d replays go on", n)
		}
	})
}

// A replay of a quiet topic ends, though nothing comes: the hub knows that it has read everything.
func TestAReplayOfAQuietTopicEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, _ := nodes(t, shared, 1)
		v := sites[0].sse("")
		sites[0].publish("1", "2")
		v.data(2)
		late, _ := nodes(t, shared, 1)
		r := late[0].sse("", "Last-Event-ID: "+v.id)
		synctest.Wait()
		time.Sleep(time.Second)
		if n := late[0].hub.Stats().CatchUps; n != 0 {
			t.Errorf("%d replays go on", n)
		}
		sites[0].publish("3")
		want(t, r.data(1), "3")
	})
}

// The newest messages come from the log, where this node has not seen them.
func TestTailOfALateNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, _ := nodes(t, shared, 2)
		sites[0].publish("1", "2", "3", "4")
		v := sites[1].sse("?tail=2")
		want(t, v.data(2), "3", "4")
		sites[0].publish("5")
		want(t, v.data(1), "5")
		want(t, sites[1].sse("?tail=100").data(5), "1", "2", "3", "4", "5")
		want(t, sites[1].sse("?since=earliest").data(5), "1", "2", "3", "4", "5")
	})
}

// Who is answered is heard, also where its node has only just come to the log.
func TestWhoIsAnsweredIsHeardFromAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, _ := nodes(t, tailcasttest.NewSharedLog(), 2)
		for i := range 10 {
			v := sites[1].sse("?topic=&tail=0")
			sites[0].publish(fmt.Sprint(i))
			want(t, v.data(1), fmt.Sprint(i))
		}
	})
}

// A node that is cut off misses nothing, and its viewers are told.
func TestANodeThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, planes := nodes(t, tailcasttest.NewSharedLog(), 2)
		v := sites[1].get("", "Accept: application/x-ndjson")
		line := func() string {
			for {
				l, err := v.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(l, `"event":"pos"`) {
					return l
				}
			}
		}
		synctest.Wait()
		planes[1].Cut()
		if l := line(); !strings.Contains(l, `"event":"degraded","reason":`) {
			t.Error(l)
		}
		late := sites[1].sse("")
		if l, _ := late.ReadString('\n'); !strings.HasPrefix(l, "retry:") {
			t.Error(l)
		}
		late.ReadString('\n')
		if l, _ := late.ReadString('\n'); l != "event: degraded\n" {
			t.Errorf("%q", l)
		}
		sites[0].publish("1", "2")
		if s := sites[1].hub.Stats().Backplane; s.Connected || s.Away == "" || s.Degraded != 1 {
			t.Errorf("%+v", s)
		}
		planes[1].Restore()
		if l := line(); l != `{"event":"degraded","over":true}`+"\n" {
			t.Error(l)
		}
		for i := range 2 {
			if l := line(); !strings.Contains(l, fmt.Sprintf(`"data":"%d"`, i+1)) {
				t.Error(l)
			}
		}
	})
}

// What programs publish while the log is away waits, up to a bound; and Sources wait.
func TestPublishingWhileTheLogIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, planes := nodes(t, shared, 1)
		hub := sites[0].hub
		v := sites[0].sse("")
		synctest.Wait()
		planes[0].Cut()
		synctest.Wait()
		errs := make(chan error)
		for i := range 2 {
			go func() { errs <- hub.Publish(t.Context(), make([]tailcast.Message, 512-i)...) }()
		}
		synctest.Wait()
		if err := hub.Publish(t.Context(), make([]tailcast.Message, 2)...); !errors.Is(err, tailcast.ErrBackplane) {
			t.Errorf("one more than there may be: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := hub.Publish(ctx, tailcast.Message{})
		if !errors.Is(err, tailcast.ErrBackplane) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("until its context was done: %v", err)
		}
		go func() {
			errs <- hub.Run(t.Context(), tailcast.Lines(strings.NewReader(strings.Repeat("line\n", 2000)), ""))
		}()
		synctest.Wait()
		if n := shared.Len(); n != 0 {
			t.Errorf("%d are stored", n)
		}
		planes[0].Restore()
		for range 3 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if n := shared.Len(); n != 3023 {
			t.Errorf("%d are stored", n)
		}
		v.nc.Close()
	})
}

// A log that begins anew is a gap for all who had the old one, and nothing hangs.
func TestTheLogBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, _ := nodes(t, shared, 2)
		v, quiet := sites[1].sse(""), sites[1].sse("")
		sites[0].publish("1")
		v.data(1)
		quiet.data(1)
		old := v.id
		shared.Renew()
		synctest.Wait()
		sites[0].publish("2")
		for _, r := range []*reader{v, quiet, sites[0].sse("", "Last-Event-ID: "+old), sites[1].sse("", "Last-Event-ID: "+old)} {
			got := r.data(2)
			if !strings.Contains(got[0], `"event":"gap"`) || strings.Contains(got[0], "possible") || got[1] != "2" {
				t.Errorf("%q", got)
			}
		}
	})
}

// What has gone from the log before a viewer came back is a gap.
func TestWhatTheLogNoLongerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, planes := nodes(t, shared, 2)
		v := sites[0].sse("")
		sites[0].publish("1", "2", "3", "4")
		v.data(1)
		shared.Expire(2)
		r := sites[1].sse("", "Last-Event-ID: "+v.id)
		if got := r.data(3); !strings.Contains(got[0], `"possible":true`) || got[1] != "3" || got[2] != "4" {
			t.Errorf("%q", got)
		}
		w := sites[1].sse("")
		planes[1].Cut()
		sites[0].publish("5", "6", "7")
		shared.Expire(4)
		planes[1].Restore()
		for { // what says that it is degraded comes as data, too
			got := w.data(1)
			if strings.Contains(got[0], "degraded") {
				continue
			}
			if !strings.Contains(got[0], `"possible":true`) {
				t.Errorf("%q", got)
			}
			if got = w.data(1); strings.Contains(got[0], "degraded") {
				got = w.data(1)
			}
			want(t, got, "7")
			break
		}
	})
}

// A connection that publishes for others does not get that, on its own node and no other.
func TestPublishOthersOverALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, _ := nodes(t, tailcasttest.NewSharedLog(), 2, tailcast.WithAfterRead(func(c *tailcast.Conn, in tailcast.Inbound) error {
			return c.PublishOthers(c.Context(), tailcast.Message{Data: append([]byte("from "), in.Data...)})
		}))
		a, b, c := sites[0].ws(""), sites[0].ws(""), sites[1].ws("")
		if err := a.WriteText("a"); err != nil {
			t.Fatal(err)
		}
		read := func(ws *testnet.WS) string {
			_, data, err := ws.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		want(t, []string{read(b), read(c)}, "from a", "from a")
		sites[1].publish("end")
		want(t, []string{read(a)}, "end")
	})
}

// Push, Drop and Disconnect reach a user's connections on every node.
func TestAUserOnSeveralNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, planes := nodes(t, tailcasttest.NewSharedLog(), 3, tailcast.WithRegistration(tailcast.TokenIsUser))
		for _, s := range sites {
			if err := s.ws("").WriteText(`{"token":"ann","event":""}`); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		hub := sites[0].hub
		r, err := hub.Push(t.Context(), "ann", "", []byte("hello"))
		if err != nil || r.Matched != 3 || r.Queued != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		planes[2].Mute()
		r, err = hub.Push(t.Context(), "ann", "", []byte("hello"))
		if !errors.Is(err, tailcast.ErrBackplane) || r.Queued != 2 {
			t.Errorf("%+v, %v", r, err)
		}
		if n, err := sites[2].hub.Drop(t.Context(), "ann", ""); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if n, err := sites[2].hub.Disconnect(t.Context(), "ann", &tailcast.CloseError{Code: 4000, Reason: "bye"}); n != 3 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// A file that is followed goes into the log once, and is not replayed from itself.
func TestSourcesWithPositionsOverALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, _ := nodes(t, tailcasttest.NewSharedLog(), 1)
		hub := sites[0].hub
		own := func(n uint64) tailcast.SourceFunc {
			return func(ctx context.Context, pub tailcast.Publisher) error {
				for i := range n {
					if err := pub.Publish(ctx, tailcast.Message{Data: fmt.Append(nil, i), Pos: tailcast.Position{Epoch: 7, Offset: i + 1}}); err != nil {
						return err
					}
				}
				return io.EOF
			}
		}
		v := sites[0].sse("")
		if err := hub.Run(t.Context(), own(3)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if err := hub.Run(t.Context(), own(5)); !errors.Is(err, io.EOF) { // as after a crash
			t.Fatal(err)
		}
		sites[0].publish("not a source's")
		want(t, v.data(6), "0", "1", "2", "3", "4", "not a source's")
		stop := make(chan struct{})
		go hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			_ = pub.Publish(ctx, tailcast.Message{Topic: "mine", Pos: tailcast.Position{Epoch: 1, Offset: 1}})
			<-stop
			return io.EOF
		}))
		synctest.Wait()
		err := hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			return pub.Publish(ctx, tailcast.Message{Topic: "mine", Pos: tailcast.Position{Epoch: 2, Offset: 1}})
		}))
		if !errors.Is(err, tailcast.ErrTopicOwner) {
			t.Errorf("two Sources with positions in one topic: %v", err)
		}
		close(stop)
		synctest.Wait()
	})
}

// A log that is away from the start holds nobody up; what was published elsewhere before it came may be missing, and that is said.
func TestALogThatIsAwayFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		sites, planes := nodes(t, shared, 2)
		planes[1].Cut()
		v := sites[1].sse("")
		synctest.Wait() // it has been told
		sites[0].publish("missed")
		planes[1].Restore()
		synctest.Wait()
		sites[0].publish("seen")
		got := v.data(4)
		if !strings.Contains(got[0], "degraded") || !strings.Contains(got[1]+got[2], `"over":true`) ||
			!strings.Contains(got[1]+got[2], `"possible":true`) || got[3] != "seen" {
			t.Errorf("%q", got)
		}
	})
}

// A gap of a Source goes through the log, and leads to where it stands there.
func TestGapsOfSourcesOverALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, _ := nodes(t, tailcasttest.NewSharedLog(), 2)
		v := sites[1].sse("")
		theirs := tailcast.Position{Epoch: 3, Offset: 4}
		err := sites[0].hub.Publish(t.Context(), tailcast.Message{Gap: &tailcast.Gap{From: theirs, To: theirs, Count: 5, Bytes: 6, Reason: "why"}},
			tailcast.Message{Data: []byte("on")})
		if err != nil {
			t.Fatal(err)
		}
		got := v.data(1)[0]
		if !strings.Contains(got, `"count":5,"bytes":6,"reason":"why"`) || strings.Contains(got, theirs.String()) || !strings.Contains(got, `"to":"`+v.id+`"`) {
			t.Errorf("%s, id %s", got, v.id)
		}
		want(t, sites[0].sse("", "Last-Event-ID: "+v.id).data(1), "on")
	})
}

// What does not fit into one node is a gap there, and nothing stops.
func TestAMessageThatIsTooLargeForOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		large, _ := nodes(t, shared, 1)
		small, _ := nodes(t, shared, 1, tailcast.WithMemoryLimit(4<<20))
		v := small[0].sse("")
		err := large[0].hub.Publish(t.Context(), tailcast.Message{Data: make([]byte, 2<<20)}, tailcast.Message{Data: []byte("next")})
		if err != nil {
			t.Fatal(err)
		}
		got := v.data(2)
		if !strings.Contains(got[0], `"count":1,"bytes":2097152`) || got[1] != "next" {
			t.Errorf("%q", got)
		}
	})
}

// A line that is longer than what the log takes is cut, and nothing of it is lost; what a program publishes is refused.
func TestALineThatIsTooLongForTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := tailcasttest.NewSharedLog()
		shared.Limit(10)
		sites, _ := nodes(t, shared, 2)
		hub := sites[0].hub
		msg := func(data string) tailcast.Message { return tailcast.Message{Data: []byte(data)} }
		var large *tailcast.TooLargeError
		if err := hub.Publish(t.Context(), msg("fits"), msg("it does not")); !errors.As(err, &large) || large.Index != 1 || large.Limit != 10 {
			t.Error(err)
		}
		const long = "0123456789äöü€0123456789aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		binary := msg("0123456789a")
		binary.Binary = true
		file := []string{"short", long, long, "short"}
		err := hub.Run(t.Context(), tailcast.SourceFunc(func(ctx context.Context, pub tailcast.Publisher) error {
			if err := pub.Publish(ctx, binary); !errors.As(err, &large) {
				t.Errorf("binary: %v", err)
			}
			msgs := make([]tailcast.Message, len(file))
			for i, line := range file {
				msgs[i] = msg(line)
				msgs[i].Pos = tailcast.Position{Epoch: 7, Offset: uint64(i + 1)}
			}
			for range 2 { // as after a crash
				if err := pub.Publish(ctx, msgs...); err != nil {
					return err
				}
			}
			return io.EOF
		}))
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if err := hub.Publish(t.Context(), msg("end")); err != nil {
			t.Fatal(err)
		}
		var lines []string
		parts := ""
		for m, err := range sites[1].hub.Subscribe(t.Context(), "", tailcast.Earliest()) {
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Data) > 10 || !utf8.Valid(m.Data) || m.Gap != nil {
				t.Fatalf("%q, %+v", m.Data, m.Gap)
			}
			if parts += string(m.Data); !m.Partial {
				lines, parts = append(lines, parts), ""
			}
			if len(lines) > len(file) {
				break
			}
		}
		want(t, lines, append(file, "end")...)
	})
}

// A client that publishes while the log is away is told so, and its reader goes on.
func TestAClientPublishesWhileTheLogIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, planes := nodes(t, tailcasttest.NewSharedLog(), 1, tailcast.WithAuthorize(func(context.Context, tailcast.Access) error { return nil }))
		ws := sites[0].wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.v1"}})
		planes[0].Cut()
		synctest.Wait()
		if err := ws.WriteText(`{"type":"publish","data":"x","ref":7}`); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for {
			_, data, err := ws.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), `"ref":7`) {
				if string(data) != `{"event":"error","reason":"publish: topic \"\": the backplane cannot be reached.","ref":7}` {
					t.Errorf("%s", data)
				}
				break
			}
		}
		if took := time.Since(began); took != 5*time.Second { // in virtual time
			t.Errorf("after %v", took)
		}
	})
}

// Shutdown does not wait for a log that is away.
func TestShutdownWhileTheLogIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, planes := nodes(t, tailcasttest.NewSharedLog(), 1)
		planes[0].Cut()
		errs := make(chan error)
		go func() { errs <- sites[0].hub.Publish(t.Context(), tailcast.Message{}) }()
		synctest.Wait()
		began := time.Now()
		if err := sites[0].hub.Shutdown(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := <-errs; !errors.Is(err, tailcast.ErrClosed) {
			t.Error(err)
		}
		if err := sites[0].hub.Publish(t.Context(), tailcast.Message{}); !errors.Is(err, tailcast.ErrClosed) {
			t.Error(err)
		}
	})
}

// A push that has not reached all nodes is no success.
func TestPushHandlerWithASilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sites, planes := nodes(t, tailcasttest.NewSharedLog(), 2)
		planes[1].Mute()
		rec := httptest.NewRecorder()
		req := httptest.NewRequest("POST", "/push", strings.NewReader(`{"userId":"ann","event":"orders","message":"x"}`))
		req.Header.Set("Content-Type", "application/json")
		sites[0].hub.PushHandler(func(*http.Request) error { return nil }).ServeHTTP(rec, req)
		if rec.Code != http.StatusBadGateway || !strings.Contains(rec.Body.String(), "Not all servers could be asked; 0 connections") {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	})
}

// With a Backplane a hub starts nothing before it is used.
func TestAnUnusedHubDoesNotRunItsBackplane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithBackplane(tailcasttest.NewSharedLog().Node()))
		if s := hub.Stats().Backplane; s.State != "" {
			t.Errorf("%+v", s)
		}
	}) // a goroutine that was left would be a deadlock
}

// A lateLog is one that Run takes some time to find.
type lateLog struct {
	*tailcasttest.LogNode
	after time.Duration
}

func (l lateLog) Run(ctx context.Context, pub tailcast.Publisher) error {
	time.Sleep(l.after)
	return l.LogNode.Run(ctx, pub)
}

// A log that is there at the moment when nobody wants to wait for it any longer is there.
func TestALogThatIsFoundAtTheLastMoment(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			hub := tailcast.New(tailcast.WithBackplane(lateLog{tailcasttest.NewSharedLog().Node(), 10 * time.Second}))
			defer hub.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for range 8 {
				go func() {
					for range hub.Subscribe(ctx, "", tailcast.Position{}) {
					}
				}()
			}
			<-ctx.Done()
			if s := hub.Stats().Backplane; !s.Connected {
				t.Fatal(s.Away)
			}
		})
	}
}
