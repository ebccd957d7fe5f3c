package amqp_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/amqp"
	"github.com/tailcast/tailcast/tailcasttest"
)

func TestASourceKeepsTheContract(t *testing.T) {
	newSource := func(t testing.TB) *amqp.Source {
		f := newFake(t, "queue")
		for i := range 10 {
			f.publish("queue", fakeMessage{key: "log", body: fmt.Append(nil, "line ", i)})
		}
		return &amqp.Source{Servers: []string{f.url}, Queue: "queue"}
	}
	tailcasttest.TestSource(t, newSource, tailcasttest.Messages(10), tailcasttest.Identity(identity))
}

func TestASourceKeepsTheContractWithRabbitMQ(t *testing.T) {
	r := newRabbit(t)
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			newSource := func(t testing.TB) *amqp.Source {
				name := fmt.Sprintf("contract-%s-%x", kind, rand.Uint64())
				setUp(t, r.url, func(ch *amqp091.Channel) error {
					_, err := ch.QueueDeclare(name, true, false, false, false, amqp091.Table{"x-queue-type": kind})
					return err
				})
				t.Cleanup(func() { // otherwise the next broker that is killed has it to recover
					setUp(t, r.url, func(ch *amqp091.Channel) error {
						_, err := ch.QueueDelete(name, false, false, false)
						return err
					})
				})
				p := &publisher{t: t, url: r.url}
				defer p.close()
				for i := range 10 {
					p.publish("", name, fmt.Sprint("line ", i))
				}
				return &amqp.Source{Servers: []string{r.url}, Queue: name}
			}
			tailcasttest.TestSource(t, newSource, tailcasttest.Messages(10), tailcasttest.Identity(identity))
		})
	}
}

func identity(m tailcast.Message) string { return string(m.Data) }
