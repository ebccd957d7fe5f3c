package amqp_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/amqp"
)

// What services log to the exchange "logs", with keys such as "app.web.error", is served by a hub: a topic for each service.
func ExampleSource() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	hub := tailcast.New(tailcast.WithAuthorize(tailcast.AllowAllTopics))
	go func() {
		err := hub.Run(ctx, &amqp.Source{
			Servers:  []string{os.Getenv("AMQP_URL")},
			Exchange: "logs",
			Keys:     []string{"app.#"},
			Topic: func(routingKey string) (string, bool) {
				service := strings.Split(routingKey, ".")[1]
				return "app/" + service, true
			},
		})
		if err != nil {
			log.Print(err)
		}
	}()
	http.Handle("GET /logs", hub)
	log.Print(http.ListenAndServe("localhost:8080", nil))
}
