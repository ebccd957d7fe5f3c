package prometheus_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tailcast/tailcast"
	tailcastprometheus "github.com/tailcast/tailcast/metrics/prometheus"
)

// A service serves its hub's metrics beside its own.
func ExampleNewCollector() {
	hub := tailcast.New()
	defer hub.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(tailcastprometheus.NewCollector(hub))
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{}) // for http.Handle("GET /metrics", metrics)

	if err := hub.Publish(context.Background(), tailcast.Message{Data: []byte("hello")}); err != nil {
		log.Fatal(err)
	}
	w := httptest.NewRecorder()
	metrics.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "tailcast_messages_published_total") {
			fmt.Print(line)
		}
	}
	// Output: tailcast_messages_published_total 1
}
