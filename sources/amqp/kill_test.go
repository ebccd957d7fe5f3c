package amqp_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/amqp"
	"github.com/tailcast/tailcast/sources/internal/sourcetest"
)

func TestNothingIsLostWhileRabbitMQIsKilled(t *testing.T) {
	const lines, first = 200, "the queue is there" // lines for each kill
	kills := sourcetest.Soak(1, 20)
	r := newRabbit(t)
	src := &amqp.Source{Servers: []string{r.url}, Exchange: "logs", Keys: []string{"log.*"}, Topic: func(string) (string, bool) { return "log", true }}
	setUp(t, r.url, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare("logs", "topic", true, false, false, false, nil)
	})
	run := sourcetest.Start(t, src)
	p := &publisher{t: t, url: r.url}
	defer p.close()
	for len(run.Rec.Messages()) == 0 { // before that it comes to nobody
		p.publish("logs", "log.first", first)
	}
	published := make(chan int)
	go func() {
		defer close(published)
		for i := range kills * lines {
			p.publish("logs", "log.x", fmt.Sprint("line ", i))
			published <- i
		}
	}()
	at := rand.IntN(lines)
	for i := range published {
		if i%lines == at {
			r.kill()
			r.start(t)
		}
	}
	run.Until(fmt.Sprint("line ", kills*lines-1))
	run.Stop()
	got := slices.DeleteFunc(run.Rec.Messages(), func(m tailcast.Message) bool { return string(m.Data) == first })
	twice := sourcetest.Judge(t, got, kills*lines)
	t.Logf("%d lines twice, %d connections ended", twice, len(run.Errs))
	if len(run.Errs) < kills {
		t.Errorf("only %d connections have ended", len(run.Errs))
	}
}

// A queue with a random name goes with Run, and until then stays.
func TestAQueueOfItsOwnInRabbitMQ(t *testing.T) {
	r := newRabbit(t)
	setUp(t, r.url, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare("own", "fanout", true, false, false, false, nil)
	})
	// A message that finds no queue comes back.
	unrouted := func() (none bool) {
		setUp(t, r.url, func(ch *amqp091.Channel) error {
			returned := ch.NotifyReturn(make(chan amqp091.Return, 1))
			if err := ch.Confirm(false); err != nil {
				return err
			}
			confirm, err := ch.PublishWithDeferredConfirm("own", "log", true, false, amqp091.Publishing{Body: []byte("x")})
			if err != nil {
				return err
			}
			confirm.Wait()
			select {
			case <-returned: // it comes before the confirmation
				none = true
			default:
			}
			return nil
		})
		return none
	}
	if !unrouted() {
		t.Fatal("there is a queue before there is a Source")
	}
	run := sourcetest.Start(t, &amqp.Source{Servers: []string{r.url}, Exchange: "own"})
	sourcetest.Eventually(t, "a queue", func() bool { return !unrouted() })
	run.Wait(1)
	run.Stop()
	if !unrouted() {
		t.Error("the queue is left behind")
	}
}
