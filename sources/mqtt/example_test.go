package mqtt_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strings"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/mqtt"
)

// What sensors say is served by a hub, under topics of its own. The broker runs in this process, so that the example needs none.
func ExampleSource() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	broker := mochi.New(&mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	_ = broker.AddHook(new(auth.AllowHook), nil)
	_ = broker.AddListener(listeners.NewNet("main", l))
	_ = broker.Serve()
	defer broker.Close()
	_ = broker.Publish("sensors/kitchen/log", []byte("21.5 °C"), true, 1)

	hub := tailcast.New()
	defer hub.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go hub.Run(ctx, &mqtt.Source{
		Servers:  []string{"mqtt://" + l.Addr().String()},
		Filters:  []string{"sensors/+/log"},
		ClientID: "tailcast-1",
		Topic: func(mqttTopic string) (string, bool) {
			room := strings.Split(mqttTopic, "/")[1]
			return "room/" + room, true
		},
	})

	for msg, err := range hub.Subscribe(ctx, "room/kitchen", tailcast.Earliest()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", msg.Topic, msg.Data)
		break
	}
	// Output: room/kitchen: 21.5 °C
}
