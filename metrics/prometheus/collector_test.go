package prometheus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tailcast/tailcast"
	tailcastprometheus "github.com/tailcast/tailcast/metrics/prometheus"
)

// A still is a hub whose Stats do not move.
type still struct{ stats tailcast.Stats }

func (s still) Stats() tailcast.Stats { return s.stats }

// gather scrapes, and returns the value of each series.
func gather(t testing.TB, c prometheus.Collector) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue())
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// Each number in Stats must be seen by Prometheus. A new field fails here until it is: change it, and something must change.
func TestEveryFieldIsShown(t *testing.T) {
	shownOtherwise := map[string]string{
		"Stats.Gaps":                 "is the sum of GapsByReason",
		"SourceStats.Error":          "is a text",
		"SourceStats.Detail":         "is what a Source likes; that of a Tail is looked at below",
		"Stats.Backplane":            "is looked at below",
		"BackplaneStats.SourceStats": "is looked at as those of Sources are",
		"BackplaneStats.Error":       "is a text",
		"BackplaneStats.Detail":      "is nothing",
		"BackplaneStats.Away":        "is a text",
		"TailStats.Path":             "is a text",
		"TailStats.Topic":            "is a text",
		"TailStats.Each":             "is what the rest is the sum of",
	}
	tailOf := func(d tailcast.TailStats) tailcast.Stats {
		return tailcast.Stats{Sources: []tailcast.SourceStats{{Name: "tail", State: "running", Detail: d}}}
	}
	check := func(base any, stats func(changed any) tailcast.Stats) {
		kind := reflect.TypeOf(base)
		before := gather(t, tailcastprometheus.NewCollector(still{stats(base)}))
		for _, field := range reflect.VisibleFields(kind) {
			name := kind.Name() + "." + field.Name
			changed := reflect.New(kind).Elem()
			changed.Set(reflect.ValueOf(base))
			set(t, changed.FieldByIndex(field.Index))
			after := gather(t, tailcastprometheus.NewCollector(still{stats(changed.Interface())}))
			_, excused := shownOtherwise[name]
			if shown := !maps.Equal(before, after); shown == excused {
				t.Errorf("%s: shown is %v", name, shown)
			}
			delete(shownOtherwise, name)
		}
	}
	check(tailcast.Stats{}, func(s any) tailcast.Stats { return s.(tailcast.Stats) })
	check(tailcast.SourceStats{Name: "tail", State: "running"}, func(s any) tailcast.Stats {
		return tailcast.Stats{Sources: []tailcast.SourceStats{s.(tailcast.SourceStats)}}
	})
	check(tailcast.BackplaneStats{SourceStats: tailcast.SourceStats{Name: "log", State: "running"}}, func(s any) tailcast.Stats {
		b := s.(tailcast.BackplaneStats)
		return tailcast.Stats{Backplane: &b}
	})
	check(tailcast.TailStats{}, func(s any) tailcast.Stats { return tailOf(s.(tailcast.TailStats)) })
	for name := range shownOtherwise {
		t.Errorf("%s is no field any more", name)
	}
}

// set gives a field another value.
func set(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 7)
	case reflect.Uint64:
		v.SetUint(v.Uint() + 7)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		set(t, value)
		v.SetMapIndex(reflect.ValueOf("key"), value)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Interface:
		v.Set(reflect.ValueOf("x"))
	case reflect.Pointer, reflect.Struct:
		// its fields are looked at one by one
	default:
		t.Fatalf("a field is a %s: teach this test how to change one", v.Kind())
	}
}

// full is what no hub is ever like: each number is another one.
func full() tailcast.Stats {
	return tailcast.Stats{
		Connections: map[string]int{"sse": 1, "websocket": 2}, Accepted: 3, Refused: 4, Ended: map[string]int64{"client": 5, "too_slow": 6}, Users: 7, Topics: 8,
		Received: 9, ReceivedBytes: 10, Published: 11, PublishedBytes: 12, Delivered: 13, SentBytes: 14, Compressed: 15, CompressedFrom: 16, CompressedTo: 17,
		Private: 18, PrivateDropped: 19, Pushes: 20, PushMatched: 21, PushQueued: 22, PushDropped: 23, CatchUps: 24, Gaps: 51,
		GapsByReason: map[string]int64{"source": 25, "too_slow": 26}, Panics: 27, Memory: 28, MemoryLimit: 29, LagMessages: 30, LagBytes: 31,
		Sources: []tailcast.SourceStats{
			{Name: "*tailcast.Tail", State: "running", Restarts: 32, Detail: tailcast.TailStats{Lines: 33, Bytes: 34, Rotations: 35, Truncations: 36, Gaps: 37,
				Files: 38, Open: 39, Closed: 40, Notified: true, Unwatched: 41, Overflows: 42, Untold: 43}},
			{Name: "*tailcast.Tail", State: "waiting", Restarts: 100, Error: "secret", Detail: tailcast.TailStats{Path: "secret", Lines: 100, Trouble: "secret", Checkpoint: "secret"}},
			{Name: "*mqtt.Source", State: "failed", Restarts: 44, Detail: "secret"},
		},
	}
}

func TestAScrape(t *testing.T) {
	want, err := os.Open("testdata/scrape.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := testutil.CollectAndCompare(tailcastprometheus.NewCollector(still{full()}), want); err != nil {
		t.Error(err)
	}
}

func TestNamesAreAsTheFieldHasThem(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(tailcastprometheus.NewCollector(still{full()}))
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// A hub that has just been made shows all series that it will ever have, but those of its sources.
func TestANewHubShowsZeros(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	values := gather(t, tailcastprometheus.NewCollector(hub))
	for _, name := range []string{
		"tailcast_connections transport=websocket", "tailcast_connections transport=tailcast.v1", "tailcast_connections transport=sse",
		"tailcast_connections transport=ndjson", "tailcast_connections transport=text",
		"tailcast_connections_ended_total reason=too_slow", "tailcast_gaps_total reason=replay_limit", "tailcast_messages_published_total",
	} {
		if v, ok := values[name]; !ok || v != 0 {
			t.Errorf("%s: %v, %v", name, v, ok)
		}
	}
	for name, v := range values {
		if v != 0 && name != "tailcast_memory_limit_bytes" {
			t.Errorf("%s is %v", name, v)
		}
	}
}

// The names that a running hub uses are those that are known beforehand.
func TestARunningHub(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	path := filepath.Join(t.TempDir(), "app.log")
	if err := os.WriteFile(path, []byte("one\ntwo\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	go hub.Run(t.Context(), &tailcast.Tail{Path: path, Start: tailcast.FromStart})
	before := gather(t, tailcastprometheus.NewCollector(hub))
	var bodies []*http.Response
	for _, accept := range []string{"text/event-stream", "application/x-ndjson", "*/*"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"?since=earliest", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, resp)
	}
	values := until(t, hub, map[string]float64{
		"tailcast_connections transport=sse": 1, "tailcast_connections transport=ndjson": 1, "tailcast_connections transport=text": 1,
		"tailcast_connections_accepted_total": 3, "tailcast_messages_published_total": 2, "tailcast_published_bytes_total": 6, "tailcast_topics": 1,
		"tailcast_sources source=*tailcast.Tail state=running": 1, "tailcast_sources source=*tailcast.Tail state=failed": 0,
		"tailcast_tails": 1, "tailcast_tail_lines_total": 2, "tailcast_tail_read_bytes_total": 8, "tailcast_tail_open_files": 1,
	})
	for name := range values {
		if _, known := before[name]; !known && !strings.Contains(name, "_tail") && !strings.Contains(name, "_source") {
			t.Errorf("%s has appeared", name)
		}
	}
	for _, resp := range bodies {
		resp.Body.Close()
	}
	until(t, hub, map[string]float64{"tailcast_connections_ended_total reason=client": 3, "tailcast_connections transport=sse": 0})
}

// until scrapes until these values are there.
func until(t *testing.T, hub *tailcast.Hub, want map[string]float64) map[string]float64 {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		values := gather(t, tailcastprometheus.NewCollector(hub))
		wrong := ""
		for name, v := range want {
			if values[name] != v {
				wrong += fmt.Sprintf("%s is %v, want %v\n", name, values[name], v)
			}
		}
		if wrong == "" {
			return values
		}
		if time.Now().After(deadline) {
			t.Fatal(wrong)
		}
	}
}

// A source that fails is counted by its type, and its error is nobody's label.
func TestAFailingSource(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	src := tailcast.SourceFunc(func(context.Context, tailcast.Publisher) error { return errors.New("secret") })
	if err := hub.Run(t.Context(), src, src); err == nil {
		t.Fatal("no error")
	}
	values := gather(t, tailcastprometheus.NewCollector(hub))
	if got := values["tailcast_sources source=tailcast.SourceFunc state=failed"]; got != 2 {
		t.Errorf("%v sources have failed: %v", got, slices.Sorted(maps.Keys(values)))
	}
	for name := range values {
		if strings.Contains(name, "secret") {
			t.Error(name)
		}
	}
}

func TestTwoHubsInOneRegistry(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, name := range []string{"a", "b"} {
		hub := tailcast.New()
		defer hub.Close()
		prometheus.WrapRegistererWith(prometheus.Labels{"hub": name}, reg).MustRegister(tailcastprometheus.NewCollector(hub))
	}
	if n, err := testutil.GatherAndCount(reg, "tailcast_messages_published_total"); n != 2 || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
}

func TestScrapesMayBeConcurrent(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(tailcastprometheus.NewCollector(hub))
	scrape := promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 50 {
				w := httptest.NewRecorder()
				scrape.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				if w.Code != http.StatusOK {
					t.Errorf("%d: %s", w.Code, w.Body)
				}
				if err := hub.Publish(t.Context(), tailcast.Message{Topic: fmt.Sprint(i, n), Data: []byte("x")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := gather(t, tailcastprometheus.NewCollector(hub))["tailcast_messages_published_total"]; got != 200 {
		t.Errorf("%v messages were published", got)
	}
}

func BenchmarkScrape(b *testing.B) {
	hub := tailcast.New()
	defer hub.Close()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(tailcastprometheus.NewCollector(hub))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// The dashboard asks for what there is, and leaves out nothing that only grows where something is wrong.
func TestTheDashboardKnowsTheNames(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Fatal("it is no JSON")
	}
	known := make(map[string]bool)
	for name := range gather(t, tailcastprometheus.NewCollector(still{full()})) {
		name, _, _ = strings.Cut(name, " ")
		known[name] = true
	}
	asked := regexp.MustCompile(`tailcast_\w+`).FindAllString(string(text), -1)
	if len(asked) < 10 {
		t.Errorf("it asks for %q only", asked)
	}
	for _, name := range asked {
		if !known[name] {
			t.Errorf("%s is unknown", name)
		}
	}
	for _, name := range []string{"tailcast_gaps_total", "tailcast_panics_total", "tailcast_requests_refused_total", "tailcast_private_messages_dropped_total"} {
		if !slices.Contains(asked, name) {
			t.Errorf("%s is not shown", name)
		}
	}
}
