// Package prometheus shows a hub's Stats to Prometheus.
//
//	registry.MustRegister(tailcastprometheus.NewCollector(hub))
//
// All names begin with tailcast_. The labels are transport, reason, source and state, each with few values that are known
// beforehand: there is none by user, by topic or by file, and so nobody from outside can make series. Several hubs in one process get
// a label each:
//
//	labels := prometheus.Labels{"hub": "logs"}
//	prometheus.WrapRegistererWith(labels, registry).MustRegister(tailcastprometheus.NewCollector(hub))
package prometheus

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailcast/tailcast"
)

// A Hub is what a Collector looks at: a *tailcast.Hub.
type Hub interface{ Stats() tailcast.Stats }

var _ Hub = (*tailcast.Hub)(nil)

// A Collector shows the Stats of a hub, as they are at each scrape. It keeps nothing, and may be used concurrently. A scrape costs
// what Stats does: a look at each connection and subscription.
type Collector struct{ hub Hub }

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector makes a Collector, which is then to be registered.
func NewCollector(hub Hub) *Collector { return &Collector{hub} }

// Describe is prometheus.Collector's.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range plain {
		descs <- m.desc
	}
	for _, m := range tails {
		descs <- m.desc
	}
	for _, m := range backplanes {
		descs <- m.desc
	}
	for _, d := range []*prometheus.Desc{connections, ended, gaps, sources, restarts} {
		descs <- d
	}
}

// Collect is prometheus.Collector's.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	s := c.hub.Stats()
	for _, m := range plain {
		metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&s))
	}
	collectConnections(metrics, s.Connections)
	for reason, n := range s.Ended {
		metrics <- prometheus.MustNewConstMetric(ended, prometheus.CounterValue, float64(n), reason)
	}
	for reason, n := range s.GapsByReason {
		metrics <- prometheus.MustNewConstMetric(gaps, prometheus.CounterValue, float64(n), reason)
	}
	runs := s.Sources
	if b := s.Backplane; b != nil { // it is run as they are
		runs = append(slices.Clone(runs), b.SourceStats)
		for _, m := range backplanes {
			metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(b))
		}
	}
	collectSources(metrics, runs)
	collectTails(metrics, s.Sources)
}

// transports are those of tailcast.Conn.Transport. All are shown, so that a graph falls to 0 where it would have ended.
var transports = []string{"websocket", "tailcast.v1", "sse", "ndjson", "text"}

func collectConnections(metrics chan<- prometheus.Metric, conns map[string]int) {
	all := maps.Clone(conns)
	if all == nil {
		all = make(map[string]int)
	}
	for _, t := range transports {
		all[t] += 0
	}
	for transport, n := range all {
		metrics <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, float64(n), transport)
	}
}

// states are those of tailcast.SourceStats.State. All are shown, for each type of source.
var states = []string{"running", "waiting", "finished", "failed", "stopped"}

func collectSources(metrics chan<- prometheus.Metric, all []tailcast.SourceStats) {
	restarted, inState := make(map[string]int64), make(map[string]map[string]int)
	for _, s := range all {
		restarted[s.Name] += s.Restarts
		if inState[s.Name] == nil {
			inState[s.Name] = make(map[string]int)
			for _, state := range states {
				inState[s.Name][state] = 0
			}
		}
		inState[s.Name][s.State]++
	}
	for _, name := range slices.Sorted(maps.Keys(restarted)) {
		metrics <- prometheus.MustNewConstMetric(restarts, prometheus.CounterValue, float64(restarted[name]), name)
		for state, n := range inState[name] {
			metrics <- prometheus.MustNewConstMetric(sources, prometheus.GaugeValue, float64(n), name, state)
		}
	}
}

// collectTails adds up what the Tails tell. Where there is none there are no such metrics.
func collectTails(metrics chan<- prometheus.Metric, all []tailcast.SourceStats) {
	var of []tailcast.TailStats
	for _, s := range all {
		if t, ok := s.Detail.(tailcast.TailStats); ok {
			of = append(of, t)
		}
	}
	if len(of) == 0 {
		return
	}
	for _, m := range tails {
		sum := 0.0
		for i := range of {
			sum += m.value(&of[i])
		}
		metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, sum)
	}
}
