package amqp_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast/sources/amqp"
)

func TestNothingIsLostWhileRabbitMQIsKilled(t *testing.T) {
	const kills, lines = 2, 200 // lines for each
	r := newRabbit(t)
	src := &amqp.Source{Servers: []string{r.url}, Exchange: "logs", Keys: []string{"log.*"}, Topic: func(string) (string, bool) { return "log", true }}
	setUp(t, r.url, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare("logs", "topic", true, false, false, false, nil)
	})
	run := start(t, src)
	p := &publisher{t: t, url: r.url}
	defer p.close()
	for len(run.rec.Messages()) == 0 { // until the queue is there
		p.publish("logs", "log.first", "the queue is there")
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
	seen := make(map[string]bool)
	eventually(t, "the last line", func() bool {
		texts := texts(run.rec.Messages())
		return texts[len(texts)-1] == fmt.Sprint("line ", kills*lines-1)
	})
	run.stop()
	next, twice := 0, 0
	for _, text := range texts(run.rec.Messages()) {
		switch {
		case text == "the queue is there":
		case strings.HasPrefix(text, "gap"):
			t.Errorf("%s, where nothing is missing", text)
		case seen[text]:
			twice++
		case text == fmt.Sprint("line ", next):
			next++
		default:
			t.Fatalf("%q came before line %d", text, next)
		}
		seen[text] = true
	}
	t.Logf("%d lines, %d twice, %d connections ended", next, twice, len(run.errs))
	if next != kills*lines || len(run.errs) < kills {
		t.Errorf("%d lines came, of %d; %d connections ended", next, kills*lines, len(run.errs))
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
	run := start(t, &amqp.Source{Servers: []string{r.url}, Exchange: "own"})
	eventually(t, "a queue", func() bool { return !unrouted() })
	run.wait(1)
	run.stop()
	if !unrouted() {
		t.Error("the queue is left behind")
	}
}
