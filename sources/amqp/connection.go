package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/intake"
)

const (
	dialTimeout = 10 * time.Second // for each server, until it is known
	farewell    = time.Second      // that a broker has to say goodbye
	heartbeat   = 10 * time.Second
)

// Why something may be missing.
const (
	reasonUnkept = "messages that are not persistent are lost when the AMQP broker is restarted"
	reasonGone   = "the queue of the AMQP broker was gone, and what was in it"
)

// A link is one connection.
type link struct {
	src  *Source
	ctx  context.Context // of Run
	pub  intake.Publisher
	conn *amqp091.Connection
	net  net.Conn // below conn
}

// connection connects, and stays until ctx is done, the connection or the queue is lost, or Publish refuses a message.
func (s *Source) connection(ctx context.Context, pub tailcast.Publisher) error {
	l := &link{src: s, ctx: ctx, pub: intake.Publisher{To: pub, Topics: &s.topics, Logger: s.Logger, Name: "amqp"}}
	if err := l.dial(); err != nil {
		return err
	}
	hangUp := context.AfterFunc(ctx, func() { l.net.Close() }) // the client's calls know no context
	ch, deliveries, err := l.consume()
	if hangUp() && err == nil {
		err = l.receive(ch, deliveries)
	}
	l.part(ch)
	return err
}

// dial connects to the first server that can be reached, beginning with the one that has served last.
func (l *link) dial() error {
	s := l.src
	var errs []error
	for range s.Servers {
		to := s.Servers[s.server%len(s.Servers)]
		err := l.dialServer(to)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("server %s: %w", host(to), err))
		s.server++
	}
	return errors.Join(errs...)
}

func (l *link) dialServer(to string) error {
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	dial := l.src.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	stop := func() bool { return true }
	conn, err := amqp091.DialConfig(to, amqp091.Config{
		SASL:            l.src.SASL,
		TLSClientConfig: l.src.TLS.Clone(),
		Heartbeat:       heartbeat,
		Properties:      amqp091.Table{"product": "tailcast", "connection_name": "tailcast " + l.src.name},
		Dial: func(network, address string) (net.Conn, error) {
			nc, err := dial(ctx, network, address)
			if err == nil {
				l.net = nc
				stop = context.AfterFunc(ctx, func() { nc.Close() })
			}
			return nc, err
		},
	})
	if !stop() && err == nil { // just too late
		err = context.Cause(ctx)
	}
	if err != nil && l.net != nil {
		l.net.Close()
	}
	l.conn = conn
	return err
}

// host is what an error may say of a URL.
func host(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// consume declares what has to be there, and what may be missing, and begins to consume. The channel is nil if there is none.
func (l *link) consume() (*amqp091.Channel, <-chan amqp091.Delivery, error) {
	s := l.src
	ch, kept, err := l.queue()
	if err != nil {
		return ch, nil, err
	}
	switch {
	case s.had && kept:
		s.topics.Interrupted(reasonUnkept)
	case s.had:
		s.topics.Lost(reasonGone)
	}
	s.had = true
	if err := s.topics.Declare(l.ctx, l.pub.To); err != nil {
		return ch, nil, err
	}
	if err := ch.Qos(cmp.Or(s.Prefetch, defaultPrefetch), 0, false); err != nil {
		return ch, nil, fmt.Errorf("prefetch: %w", err)
	}
	deliveries, err := ch.Consume(s.name, "", false, false, false, false, nil)
	if err != nil {
		return ch, nil, fmt.Errorf("consume queue %q: %w", s.name, err)
	}
	return ch, deliveries, nil
}

// queue sees that the queue is there, and reports whether it has been.
func (l *link) queue() (ch *amqp091.Channel, kept bool, err error) {
	s := l.src
	ch, err = l.conn.Channel()
	if err != nil {
		return nil, false, fmt.Errorf("channel: %w", err)
	}
	_, err = ch.QueueDeclarePassive(s.name, true, false, false, false, nil)
	if missing(err) {
		if s.had {
			s.topics.Lost(reasonGone) // what was in it is gone, even if somebody makes it again
		}
		if s.Exchange != "" {
			ch, err = l.make()
		}
	} else {
		kept = true
	}
	if err != nil {
		return ch, false, fmt.Errorf("queue %q: %w", s.name, err)
	}
	if s.Exchange == "" {
		return ch, kept, nil
	}
	keys := s.Keys
	if len(keys) == 0 {
		keys = []string{"#"}
	}
	for _, key := range keys {
		if err := ch.QueueBind(s.name, key, s.Exchange, false, nil); err != nil {
			return ch, false, fmt.Errorf("bind queue %q to exchange %q: %w", s.name, s.Exchange, err)
		}
	}
	return ch, kept, nil
}

// make makes the queue, on another channel, since the broker closes one on which something has failed.
func (l *link) make() (*amqp091.Channel, error) {
	ch, err := l.conn.Channel()
	if err != nil {
		return nil, err
	}
	_, err = ch.QueueDeclare(l.src.name, true, false, false, false, l.src.args())
	return ch, err
}

func missing(err error) bool {
	var e *amqp091.Error
	return errors.As(err, &e) && e.Code == amqp091.NotFound
}

// receive publishes what comes, and acknowledges it.
func (l *link) receive(ch *amqp091.Channel, deliveries <-chan amqp091.Delivery) error {
	closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
	canceled := ch.NotifyCancel(make(chan string, 1))
	for {
		select {
		case <-l.ctx.Done():
			return nil
		case d, ok := <-deliveries:
			if !ok {
				return l.lost(closed, canceled)
			}
			if err := l.deliver(d); err != nil {
				return err
			}
		}
	}
}

// lost is why there are no more deliveries. The client closes both channels when it has said what it knows.
func (l *link) lost(closed <-chan *amqp091.Error, canceled <-chan string) error {
	if _, told := <-canceled; told {
		return fmt.Errorf("the broker has ended the consumer: queue %q is gone, or its node is", l.src.name)
	}
	if err := <-closed; err != nil {
		return fmt.Errorf("connection lost: %w", err)
	}
	return errors.New("connection lost")
}

func (l *link) deliver(d amqp091.Delivery) error {
	topic, ok := d.RoutingKey, true
	if l.src.Topic != nil {
		topic, ok = l.src.Topic(d.RoutingKey)
	}
	if !ok {
		return acknowledged(d.Ack(false))
	}
	m := tailcast.Message{Topic: topic, Data: d.Body, Binary: binary(&d)}
	skipped, err := l.pub.Publish(l.ctx, m, d.DeliveryMode != amqp091.Persistent)
	switch {
	case err != nil:
		return err
	case skipped:
		return acknowledged(d.Reject(false))
	}
	return acknowledged(d.Ack(false))
}

func acknowledged(err error) error {
	if err != nil {
		return fmt.Errorf("acknowledge: %w", err)
	}
	return nil
}

// binary reports whether a message is no text: its content type says so, or its bytes do.
func binary(d *amqp091.Delivery) bool {
	if d.ContentEncoding != "" && !strings.EqualFold(d.ContentEncoding, "utf-8") && !strings.EqualFold(d.ContentEncoding, "identity") {
		return true // compressed
	}
	switch kind, _, _ := mime.ParseMediaType(d.ContentType); {
	case !strings.Contains(kind, "/") || kind == "application/octet-stream": // nobody has thought about it
		return !utf8.Valid(d.Body)
	default:
		return !textual(kind)
	}
}

// textual reports whether a media type is one of text.
func textual(kind string) bool {
	switch kind {
	case "application/json", "application/xml", "application/x-ndjson", "application/yaml", "application/x-yaml", "application/javascript",
		"application/x-www-form-urlencoded":
		return true
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml")
}

// part ends a connection. The channel is closed first: the broker answers that when it has taken all acknowledgements and put back into the
// queue what has none, so that the next connection is not ahead of it.
func (l *link) part(ch *amqp091.Channel) {
	late := time.AfterFunc(farewell, func() { l.net.Close() })
	defer late.Stop()
	if ch != nil && !l.conn.IsClosed() {
		_ = ch.Close()
		if l.src.ours() && l.ctx.Err() != nil { // nobody will come back
			l.delete()
		}
	}
	_ = l.conn.Close()
	l.net.Close()
}

func (l *link) delete() {
	ch, err := l.conn.Channel()
	if err != nil {
		return
	}
	_, _ = ch.QueueDelete(l.src.name, false, false, false)
}
