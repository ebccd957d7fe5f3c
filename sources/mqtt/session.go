package mqtt

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
	"github.com/eclipse/paho.golang/paho/store/memory"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/sources/internal/intake"
)

// Why something may be missing.
const (
	reasonUnkept    = "messages of QoS 0 are lost while there is no connection to the MQTT broker"
	reasonForgotten = "the MQTT broker has forgotten the session, and what it has kept"
)

// A link is one connection. It is the client's session manager: it says what is acknowledged, and when.
type link struct {
	*state.State
	src  *Source
	ctx  context.Context  // of Run
	pub  intake.Publisher // its Publish is called with mu held
	ends chan error       // why the link ends; has room for each that may say so
	kept bool             // the broker has had the session

	mu   sync.Mutex // held while a message is published and acknowledged; guards the rest
	over bool       // from here on nothing is published, nor acknowledged
}

// session connects, and stays until ctx is done, the connection is lost, or Publish refuses a message.
func (s *Source) session(ctx context.Context, servers []*server, pub tailcast.Publisher) error {
	conn, to, err := s.dial(ctx, servers)
	if err != nil {
		return err
	}
	defer conn.Close()
	l := &link{
		State: state.New(memory.New(), s.received), src: s, ctx: ctx, ends: make(chan error, 3),
		pub: intake.Publisher{To: pub, Topics: &s.topics, Logger: s.Logger, Name: "mqtt"},
	}
	client := paho.NewClient(paho.ClientConfig{
		Conn:               conn,
		Session:            l,
		OnPublishReceived:  []func(paho.PublishReceived) (bool, error){ignore},
		OnClientError:      func(err error) { l.end(fmt.Errorf("connection lost: %w", err)) },
		OnServerDisconnect: func(d *paho.Disconnect) { l.end(goodbye(d)) },
	})
	if connack, err := client.Connect(ctx, s.connect(to)); err != nil {
		s.server++ // another one may know better
		return fmt.Errorf("server %s: %w", to, refusal(connack, err))
	}
	err = l.subscribe(client)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-l.ends:
		}
	}
	l.part(conn, client)
	return err
}

const farewell = time.Second // that a broker has to close a connection

// part ends a connection. The broker closes it when it has read all acknowledgements: without waiting for that, the next connection
// could be ahead of them. It returns when the last goroutine of the client's has ended.
func (l *link) part(conn *conn, client *paho.Client) {
	_ = conn.SetWriteDeadline(time.Now().Add(farewell)) // the broker may read nothing, not even an acknowledgement
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	if _, err := l.src.disconnect(l.ctx).Packet().WriteTo(conn); err == nil {
		timer := time.NewTimer(farewell)
		defer timer.Stop()
		select {
		case <-client.Done():
		case <-timer.C:
		}
	}
	_ = client.Disconnect(new(paho.Disconnect))
}

func (l *link) end(err error) {
	select {
	case l.ends <- err:
	default:
	}
}

// connect is what the broker is told first.
func (s *Source) connect(to *server) *paho.Connect {
	expiry, inflight := s.expiry(), s.inflight()
	c := &paho.Connect{
		ClientID:   s.id,
		KeepAlive:  s.keepAlive(),
		CleanStart: s.CleanStart && !s.began,
		Username:   s.Username,
		Password:   []byte(s.Password),
		Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry, ReceiveMaximum: &inflight, RequestProblemInfo: true},
	}
	if s.Username == "" && to.url.User != nil {
		password, _ := to.url.User.Password()
		c.Username, c.Password = to.url.User.Username(), []byte(password)
	}
	c.UsernameFlag, c.PasswordFlag = c.Username != "", len(c.Password) > 0
	return c
}

// disconnect is what the broker is told last. Nobody will come back to a session with a random name when Run is over for good.
func (s *Source) disconnect(ctx context.Context) *paho.Disconnect {
	d := new(paho.Disconnect)
	if s.ClientID == "" && ctx.Err() != nil {
		never := uint32(0)
		d.Properties = &paho.DisconnectProperties{SessionExpiryInterval: &never}
	}
	return d
}

// subscribe asks for the filters, unless the session has them. They may have changed since another process had it.
func (l *link) subscribe(client *paho.Client) error {
	s := l.src
	if l.kept && s.subscribed && s.Retained != RetainedAlways {
		return nil
	}
	sub := new(paho.Subscribe)
	for _, f := range s.Filters {
		sub.Subscriptions = append(sub.Subscriptions, paho.SubscribeOptions{
			Topic: f, QoS: s.QoS.wire(), RetainHandling: s.Retained.wire(), RetainAsPublished: true,
		})
	}
	suback, err := client.Subscribe(l.ctx, sub)
	if suback != nil {
		for i, code := range suback.Reasons {
			if i < len(s.Filters) && code != s.QoS.wire() {
				return ungranted(s.Filters[i], s.QoS, code)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	s.subscribed = true
	return nil
}

func ungranted(filter string, want QoS, code byte) error {
	if code < 0x80 {
		return fmt.Errorf("subscribe: filter %q: the broker grants QoS %d, not %d", filter, code, want.wire())
	}
	return fmt.Errorf("subscribe: filter %q: the broker refuses: %s", filter, (&packets.Suback{Reasons: []byte{code}}).Reason(0))
}

// refusal is what a failed attempt to connect means. A broker of MQTT 3 has codes of its own.
func refusal(connack *paho.Connack, err error) error {
	if connack == nil {
		return err
	}
	err = fmt.Errorf("the broker refuses (code %#x): %s", connack.ReasonCode, (&packets.Connack{ReasonCode: connack.ReasonCode}).Reason())
	if connack.ReasonCode == packets.ConnackUnsupportedProtocolVersion {
		return tailcast.Permanent(err)
	}
	return err
}

// goodbye is what the broker has said when it closed the connection.
func goodbye(d *paho.Disconnect) error {
	err := fmt.Errorf("the broker has closed the connection (code %#x)", d.ReasonCode)
	if d.Properties != nil && d.Properties.ReasonString != "" {
		err = fmt.Errorf("%w: %.200s", err, d.Properties.ReasonString)
	}
	return err
}

// ConAckReceived is called before the first message of the connection. What may be missing is declared here.
func (l *link) ConAckReceived(w io.Writer, cp *packets.Connect, ca *packets.Connack) error {
	if err := l.State.ConAckReceived(w, cp, ca); err != nil {
		return err
	}
	l.kept = ca.SessionPresent
	t := &l.src.topics
	switch {
	case l.src.began && l.kept:
		t.Interrupted(reasonUnkept)
	case l.src.began:
		t.Lost(reasonForgotten)
	}
	l.src.began = true
	return t.Declare(l.ctx, l.pub.To)
}

// ignore is what the client does first with a message. It has to be something.
func ignore(paho.PublishReceived) (bool, error) { return true, nil }

// Ack publishes a message, and then acknowledges it. The client calls it for one message after the other, and thinks that all has
// been done with them.
func (l *link) Ack(p *packets.Publish) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	if err := l.publish(p); err != nil {
		l.over = true
		l.end(err)
		return nil
	}
	if p.QoS == 0 {
		return nil
	}
	err := l.State.Ack(p)
	if err != nil && p.QoS == 1 { // The client goes on with what it has read. That would all come again; with QoS 2 it is known by its id.
		l.over = true
		l.end(fmt.Errorf("acknowledge: %w", err))
	}
	return err
}

func (l *link) publish(p *packets.Publish) error {
	topic, ok := p.Topic, true
	if l.src.Topic != nil {
		topic, ok = l.src.Topic(p.Topic)
	}
	if !ok {
		return nil
	}
	_, err := l.pub.Publish(l.ctx, tailcast.Message{Topic: topic, Data: p.Payload, Binary: binary(p)}, p.QoS == 0)
	return err
}

// binary reports whether a message is no text: its publisher may say that it is.
func binary(p *packets.Publish) bool {
	if p.Properties != nil && p.Properties.PayloadFormat != nil && *p.Properties.PayloadFormat == 1 {
		return false
	}
	return !utf8.Valid(p.Payload)
}
