package tailcast_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// An object is what a client of tailcast.v1 or NDJSON decodes.
type object struct {
	Event, ID, Topic, Data, From, To, Reason string
	Time                                     time.Time
	B64, Binary, Partial, Possible           bool
	Count, Bytes                             int64
	Code, Retry                              int
	Ref                                      *int64
}

func decode(t testing.TB, b []byte) (o object) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil || d.More() {
		t.Fatalf("%q: %v", b, err)
	}
	return o
}

// String shows what does not change from run to run.
func (o object) String() string {
	s := ""
	switch o.Event {
	case "":
		s = fmt.Sprintf("%s: %s", o.Topic, o.Data)
	case "gap":
		s = fmt.Sprintf("gap %s %d: %s", o.Topic, o.Count, o.Reason)
	case "pos":
		s = "pos " + o.Topic
	case "bye":
		s = fmt.Sprintf("bye %d %s", o.Code, o.Reason)
	default:
		s = strings.TrimSpace(o.Event + " " + o.Reason)
	}
	if o.Ref != nil {
		s += fmt.Sprintf(" #%d", *o.Ref)
	}
	return s
}

// An objects reads envelopes, whichever way they come.
type objects struct {
	t    testing.TB
	ws   *testnet.WS
	line *reader
	ids  map[string]string // the position in each topic, as a client keeps it
}

func (s *site) envelopes(query string) *objects {
	s.t.Helper()
	ws := s.wsWith(query, http.Header{"Sec-Websocket-Protocol": {"chat, tailcast.v1"}})
	if ws.Subprotocol() != "tailcast.v1" {
		s.t.Fatalf("subprotocol %q", ws.Subprotocol())
	}
	return &objects{t: s.t, ws: ws, ids: make(map[string]string)}
}

func (s *site) ndjson(query string, header ...string) *objects {
	s.t.Helper()
	r := s.get(query, append(header, "Accept: application/x-ndjson")...)
	if ct := r.resp.Header.Get("Content-Type"); ct != "application/x-ndjson" {
		s.t.Fatalf("%s, Content-Type %q", r.resp.Status, ct)
	}
	return &objects{t: s.t, line: r, ids: make(map[string]string)}
}

func (r *objects) read() (object, error) {
	var b []byte
	var err error
	if r.ws == nil {
		b, err = r.line.ReadBytes('\n')
	} else {
		var op byte
		op, b, _, err = r.ws.ReadInflated()
		if err == nil && op != 1 {
			err = fmt.Errorf("a message with opcode %d", op)
		}
	}
	if err != nil {
		return object{}, err
	}
	o := decode(r.t, b)
	r.keep(o)
	return o, nil
}

// keep notes the position, as PROTOCOL.md says.
func (r *objects) keep(o object) {
	switch {
	case (o.Event == "" || o.Event == "pos") && o.ID != "":
		r.ids[o.Topic] = o.ID
	case o.Event == "gap" && o.To != "":
		r.ids[o.Topic] = o.To
	}
}

// since is what the client comes back with.
func (r *objects) since() string {
	var parts []string
	for topic, id := range r.ids {
		parts = append(parts, escaped(topic)+"="+id)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// escaped is encodeURIComponent, twice as in a query: once for the joined form, once for the query.
func escaped(topic string) string {
	var b strings.Builder
	for _, c := range []byte(topic) {
		fmt.Fprintf(&b, "%%25%02X", c)
	}
	return b.String()
}

// expect expects these next, where pos objects are skipped that are not asked for.
func (r *objects) expect(want ...string) {
	r.t.Helper()
	for _, w := range want {
		for {
			o, err := r.read()
			if err != nil {
				r.t.Fatalf("%v; want %q", err, w)
			}
			if o.Event == "pos" && !strings.HasPrefix(w, "pos ") {
				continue
			}
			if o.String() != w {
				r.t.Fatalf("got %q, want %q", o, w)
			}
			break
		}
	}
}

// expectAll expects these, sorted, in any order.
func (r *objects) expectAll(want ...string) {
	r.t.Helper()
	var got []string
	for len(got) < len(want) {
		o, err := r.read()
		if err != nil {
			r.t.Fatalf("%v after %q; want %q", err, got, want)
		}
		if o.Event != "pos" {
			got = append(got, o.String())
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		r.t.Fatalf("got %q, want %q", got, want)
	}
}

func (r *objects) say(command string) {
	r.t.Helper()
	if err := r.ws.WriteText(command); err != nil {
		r.t.Fatal(err)
	}
}

func (r *objects) close() {
	if r.ws != nil {
		r.ws.Close()
	} else {
		r.line.nc.Close()
	}
}

func (s *site) tell(topic string, data ...string) {
	s.t.Helper()
	for _, d := range data {
		if err := s.hub.Publish(context.Background(), tailcast.Message{Topic: topic, Data: []byte(d)}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// both runs a test once for each way that envelopes go.
func both(t *testing.T, f func(t *testing.T, s *site, open func(query string) *objects), opts ...tailcast.Option) {
	t.Helper()
	for _, way := range []string{"tailcast.v1", "ndjson"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, opts...)
				f(t, s, func(query string) *objects {
					t.Helper()
					if way == "ndjson" {
						return s.ndjson(query)
					}
					return s.envelopes(query)
				})
			})
		})
	}
}

func TestEnvelopesSayAllThereIs(t *testing.T) {
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		r := open("")
		synctest.Wait()
		at := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
		msgs := []tailcast.Message{
			{Data: []byte("plain")},
			{Data: []byte("a\nb\u2028\x00\"é"), Time: at},
			{Data: []byte{0xFF, 'a'}},
			{Data: []byte("text"), Binary: true},
			{Data: []byte("a piece"), Partial: true},
			{Gap: &tailcast.Gap{Count: 3, Bytes: -1, Possible: true, Reason: "why"}},
			{},
		}
		if err := s.hub.Publish(t.Context(), msgs...); err != nil {
			t.Fatal(err)
		}
		head, _ := s.hub.Head("")
		r.expect("pos ")
		if r.ids[""] != "earliest" {
			t.Errorf("the first place is %q", r.ids[""])
		}
		for i, want := range []object{
			{Data: "plain", Time: time.Now()},
			{Data: "a\nb\u2028\x00\"é", Time: at},
			{Data: "/2E=", B64: true, Time: time.Now()},
			{Data: "dGV4dA==", B64: true, Binary: true, Time: time.Now()},
			{Data: "a piece", Partial: true, Time: time.Now()},
			{Event: "gap", Count: 3, Bytes: -1, Possible: true, Reason: "why"},
			{Time: time.Now()},
		} {
			got, err := r.read()
			if err != nil {
				t.Fatal(err)
			}
			if want.Event == "" {
				want.ID = fmt.Sprintf("%.*s%x", strings.LastIndex(head.String(), ".")+1, head, i+1)
			}
			if !got.Time.Equal(want.Time) {
				t.Errorf("%d: time %v, want %v", i, got.Time, want.Time)
			}
			if got.Time = want.Time; got != want {
				t.Errorf("%d: %+v, want %+v", i, got, want)
			}
		}
	})
}

func TestEnvelopesOfSeveralTopicsResumeExactly(t *testing.T) {
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		const topics = "?topic=a&topic=b%2C%3D%25%C3%A9&topic="
		r := open(topics)
		synctest.Wait()
		odd := "b,=%é"
		s.tell("a", "1", "2")
		s.tell(odd, "1")
		for _, w := range []string{"pos a", "pos " + odd, "pos "} {
			r.expect(w)
		}
		r.expectAll("a: 1", "a: 2", odd+": 1")
		r.close()
		synctest.Wait()
		s.tell("a", "3")
		s.tell("", "the first")
		s.tell(odd, "2", "3")
		r2 := open(topics + "&since=" + r.since())
		r2.expectAll(": the first", "a: 3", odd+": 2", odd+": 3")
	}, tailcast.WithAuthorize(tailcast.AllowAllTopics))
}

// A client that was here before the first message learns what it has missed of the beginning, as one of an event stream does.
func TestEnvelopesDeclareWhatWasMissedOfTheBeginning(t *testing.T) {
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		r := open("")
		r.expect("pos ")
		r.close()
		s.publish(numbered(1, 7)...)
		r2 := open("?since=" + r.since())
		r2.expect("gap  5: no longer kept in memory", ": message 6", ": message 7")
		r3 := open("?gaps=0&since=earliest")
		r3.expect(": message 6", ": message 7")
	}, tailcast.WithRetention(tailcast.Retention{Messages: 2}))
}

func TestALaggingEnvelopeViewerIsToldOfItsGap(t *testing.T) {
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		r := open("")
		r.expect("pos ")
		synctest.Wait()
		for i := range 20 {
			s.publish(numbered(100*i+1, 100*i+100)...)
			if i == 0 {
				synctest.Wait()
			}
		}
		next := 1
		for next <= 2000 {
			o, err := r.read()
			switch {
			case err != nil:
				t.Fatal(err)
			case o.Event == "gap":
				if o.Reason != "the viewer was too slow" {
					t.Fatal(o)
				}
				next += int(o.Count)
			case o.Event == "":
				if o.Data != fmt.Sprint("message ", next) {
					t.Fatalf("%v, message %d is next", o, next)
				}
				next++
			}
		}
	}, tailcast.WithRetention(tailcast.Retention{Messages: 10}))
}

func TestAHeartbeatCarriesTheHead(t *testing.T) {
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		s.tell("a", "1")
		s.tell("b", "1")
		r := open("?topic=a&topic=b&topic=new")
		for _, w := range []string{"pos a", "pos b", "pos new"} {
			r.expect(w)
		}
		began := time.Now()
		for range 3 { // they come though the peer answers pings, or has nothing to say
			for _, topic := range []string{"a", "b", "new"} {
				r.expect("pos " + topic)
				head, ok := s.hub.Head(topic)
				if want := head.String(); ok && r.ids[topic] != want || !ok && r.ids[topic] != "earliest" {
					t.Errorf("topic %s is at %q, want %q", topic, r.ids[topic], want)
				}
			}
		}
		if took := time.Since(began); took < 45*time.Second || took > 70*time.Second {
			t.Errorf("three heartbeats took %v", took)
		}
	}, tailcast.WithAuthorize(tailcast.AllowAllTopics))
}

// Heartbeats are acknowledged by the kernel of a peer that has stopped: they must not keep it alive.
func TestHeartbeatsKeepNobodyAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatch()
		s := newSite(t, w.option(), tailcast.WithHeartbeat(time.Second), tailcast.WithPing(5*time.Second, 3*time.Second))
		s.envelopes("")
		began := time.Now()
		if cause := <-w.ended; !errors.Is(cause, tailcast.ErrPingTimeout) {
			t.Errorf("it ends with %v", cause)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestByeComesBeforeTheEnd(t *testing.T) {
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		r := open("")
		synctest.Wait()
		s.publish("last")
		go s.hub.Shutdown(context.Background())
		r.expect(": last", "bye 1001 the server is shutting down")
		var ce *testnet.ClosedError
		if _, err := r.read(); r.ws != nil && (!errors.As(err, &ce) || ce.Code != 1001) || r.ws == nil && err != io.EOF {
			t.Errorf("after bye: %v", err)
		}
	}, tailcast.WithBacklog(1))
}

func TestSendToEnvelopes(t *testing.T) {
	conns, onConnect := connected()
	both(t, func(t *testing.T, s *site, open func(string) *objects) {
		r := open("")
		r.expect("pos ")
		c := <-conns
		if err := c.Send(tailcast.Message{Topic: "label", Data: []byte("for you"), Pos: tailcast.Position{Epoch: 1}}); err != nil {
			t.Fatal(err)
		}
		o, err := r.read()
		if err != nil || o.String() != "label: for you" || o.ID != "" {
			t.Errorf("%+v, %v", o, err)
		}
		if want := map[bool]string{true: "tailcast.v1", false: "ndjson"}[r.ws != nil]; c.Transport() != want {
			t.Errorf("transport %q", c.Transport())
		}
		if err := c.Subscribe(t.Context(), "more", tailcast.Position{}); err != nil {
			t.Fatal(err)
		}
		r.expect("pos more")
		s.tell("more", "1")
		r.expect("more: 1")
	}, onConnect)
}
