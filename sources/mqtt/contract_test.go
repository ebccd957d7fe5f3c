package mqtt_test

import (
	"fmt"
	"testing"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/mqtt"
	"github.com/tailcast/tailcast/tailcasttest"
)

// The embedded broker sends again in no order, so that each message has a topic of its own.
func TestASourceKeepsTheContractWithAnEmbeddedBroker(t *testing.T) {
	newSource := func(t testing.TB) *mqtt.Source {
		b := newEmbedded(t, nil, nil)
		for i := range 5 {
			b.publish(t, fmt.Sprint("log/", i), fmt.Sprint("line ", i), true, 1)
		}
		return &mqtt.Source{Servers: []string{b.url}, Filters: []string{"log/+"}}
	}
	tailcasttest.TestSource(t, newSource, tailcasttest.Messages(5), tailcasttest.Identity(identity))
}

func TestASourceKeepsTheContractWithMosquitto(t *testing.T) {
	for name, qos := range map[string]mqtt.QoS{"QoS 1": mqtt.AtLeastOnce, "QoS 2": mqtt.ExactlyOnce} {
		t.Run(name, func(t *testing.T) {
			newSource := func(t testing.TB) *mqtt.Source {
				b := newMosquitto(t)
				leaveSession(t, b.dial, "follower", "log", 2)
				c := &client{t: t, dial: b.dial, id: "publisher"}
				defer c.close()
				for i := range 10 {
					c.publish("log", fmt.Sprint("line ", i), 2)
				}
				return &mqtt.Source{Servers: []string{"mqtt://broker"}, Dial: b.dial, ClientID: "follower", Filters: []string{"log"}, QoS: qos}
			}
			tailcasttest.TestSource(t, newSource, tailcasttest.Messages(10), tailcasttest.Identity(identity))
		})
	}
}

func identity(m tailcast.Message) string { return string(m.Data) }
