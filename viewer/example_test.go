package viewer_test

import (
	"net/http"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/viewer"
)

// A hub at /logs, and the page that shows it at /view/.
func ExampleHandler() {
	hub := tailcast.New()
	mux := http.NewServeMux()
	mux.Handle("GET /logs", hub.Handler("app", "db"))
	mux.Handle("GET /view/", viewer.Handler("../logs", viewer.WithTitle("Shop"), viewer.WithTopics("app", "db")))
}
