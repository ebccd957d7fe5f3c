package nats

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tailcast/tailcast"
)

// An ack is what became of a message that was sent: stored under a sequence, or the error.
type ack struct {
	n     uint64 // which one it is of those that were asked for
	dup   bool
	batch string // which one was stored, if it is that of a batch
	err   error
}

// An outbound is a message that is to be stored.
type outbound struct {
	msg    *natsgo.Msg
	random bool // its id is made for this call: published again, it is another message
	stored bool
	sent   bool
	doubt  bool // it was in a batch of which nothing was heard
}

// Publish is tailcast.Publisher's. It goes on trying until all messages are stored, or ctx is done.
func (b *Backplane) Publish(ctx context.Context, msgs ...tailcast.Message) error {
	out := make([]outbound, len(msgs))
	part := uint32(0)
	for i := range msgs {
		if part++; i == 0 || !samePlace(&msgs[i-1], &msgs[i]) {
			part = 0
		}
		msg, err := b.outbound(&msgs[i], part)
		if err != nil {
			return fmt.Errorf("nats: publish: message %d: %w", i, err)
		}
		out[i].msg, out[i].random = msg, msgs[i].Pos == tailcast.Position{}
	}
	var ill error // what was last wrong with the log
	defer func() {
		if ill != nil && b.reading.Load() { // what comes next may be long in coming: until then nobody would take it back
			b.status(nil)
		}
	}()
	for {
		err := b.send(ctx, out)
		if err == nil {
			b.note(msgs)
			return nil
		}
		select {
		case <-ctx.Done():
			if ill != nil {
				return fmt.Errorf("nats: publish: %w: %w: %w", tailcast.ErrBackplane, context.Cause(ctx), ill)
			}
			return fmt.Errorf("nats: publish: %w: %w", context.Cause(ctx), err)
		case <-b.closed:
			return fmt.Errorf("nats: publish: %w: %w", errClosed, err)
		default:
		}
		if final(err) {
			return fmt.Errorf("nats: publish: %w", err)
		}
		ill = err
		b.status(err)
		_ = b.sleep(ctx, firstPause) // the loop sees why it ended
	}
}

// samePlace reports whether two messages that follow each other are parts of one.
func samePlace(a, b *tailcast.Message) bool {
	return b.Pos != (tailcast.Position{}) && a.Pos == b.Pos && a.Topic == b.Topic
}

// outbound encodes a message, or a part of one.
func (b *Backplane) outbound(m *tailcast.Message, part uint32) (*natsgo.Msg, error) {
	header, data, err := encode(m)
	if err != nil {
		return nil, err
	}
	id := ""
	if m.Pos != (tailcast.Position{}) {
		id = b.sourceID(m, part)
	} else {
		id = rand.Text()
	}
	return &natsgo.Msg{
		Subject: b.topics + token(m.Topic), Data: data,
		Header: natsgo.Header{headerName: {header}, jetstream.MsgIDHeader: {id}, jetstream.ExpectedStreamHeader: {b.cfg.Stream}},
	}, nil
}

// A turn is how far a Source has come with messages of one epoch in a topic. A position that comes again after it was stored is that of
// another message: of a file that was truncated and begins with the same lines, for one.
type turn struct {
	epoch, offset uint64
	n             uint32
}

// maxTurns is how many epochs of a topic are known: a file that has been rotated gets late lines only for a while.
const maxTurns = 8

// sourceID makes an id of a Position of a Source's, for one part of what stands there.
func (b *Backplane) sourceID(m *tailcast.Message, part uint32) string {
	b.mu.Lock()
	n := uint32(0)
	for _, t := range b.turns[m.Topic] {
		if t.epoch == m.Pos.Epoch {
			if n = t.n; m.Pos.Offset <= t.offset {
				n++
			}
		}
	}
	b.mu.Unlock()
	h := sha256.New()
	fmt.Fprintf(h, "%d %s %d %s ", len(b.cfg.Node), b.cfg.Node, len(m.Topic), m.Topic)
	var p [28]byte // Epoch, Offset, Check, turn, part
	binary.BigEndian.PutUint64(p[0:], m.Pos.Epoch)
	binary.BigEndian.PutUint64(p[8:], m.Pos.Offset)
	binary.BigEndian.PutUint32(p[16:], m.Pos.Check)
	binary.BigEndian.PutUint32(p[20:], n)
	binary.BigEndian.PutUint32(p[24:], part)
	h.Write(p[:])
	h.Write(m.Data) // a file that was written anew, while nobody was here to see it, may have other lines at the same Positions
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// note notes messages of Sources that have been stored.
func (b *Backplane) note(msgs []tailcast.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range msgs {
		m := &msgs[i]
		if m.Pos == (tailcast.Position{}) || i > 0 && samePlace(&msgs[i-1], m) {
			continue
		}
		list := b.turns[m.Topic]
		t := turn{epoch: m.Pos.Epoch, offset: m.Pos.Offset}
		for j := range list {
			if list[j].epoch == t.epoch {
				if t.n = list[j].n; t.offset <= list[j].offset {
					t.n++
				}
				list = append(list[:j], list[j+1:]...)
				break
			}
		}
		if len(list) == maxTurns {
			list = append(list[:0], list[1:]...)
		}
		b.turns[m.Topic] = append(list, t)
	}
}

// send sends what is not known to be stored yet, in order.
func (b *Backplane) send(ctx context.Context, out []outbound) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	for i := range out {
		if limit := s.largest - headerBytes(out[i].msg.Header); len(out[i].msg.Data) > limit {
			if slices.ContainsFunc(out, func(o outbound) bool { return o.random && o.stored }) { // who cuts it would publish that again
				return fmt.Errorf("message %d: %w: it takes %d bytes of Data by now, and has stored others of this call", i, tailcast.ErrMessage, limit)
			}
			return fmt.Errorf("%w: with its header, that is the server's max_payload, or the stream's max_msg_size, of %d bytes",
				&tailcast.TooLargeError{Index: i, Limit: limit}, s.largest)
		}
	}
	for len(out) > 0 && out[0].stored {
		out = out[1:]
	}
	if !s.direct {
		return b.sendInOrder(ctx, s, out)
	}
	for len(out) > 0 {
		n := min(len(out), b.cfg.InFlight)
		if err := b.sendSome(ctx, s, out[:n]); err != nil {
			return err
		}
		out = out[n:]
	}
	return nil
}

// headerBytes is how large a header is on the wire.
func headerBytes(h natsgo.Header) int {
	n := len("NATS/1.0\r\n\r\n")
	for key, values := range h {
		for _, v := range values {
			n += len(key) + len(": ") + len(v) + len("\r\n")
		}
	}
	return n
}

// sendSome sends messages and waits for their acknowledgements. From the first one on that is not known to be stored all are sent, also
// those that are known: then that one may have come too late for its place, and what was sent later over the same connection cannot
// have been stored unless it has been, too.
func (b *Backplane) sendSome(ctx context.Context, s *session, out []outbound) error {
	for len(out) > 0 && out[0].stored {
		out = out[1:]
	}
	if len(out) == 0 {
		return nil
	}
	first, acks, forget := b.expect(len(out))
	defer forget()
	for i := range out {
		b.sends(&out[i])
		out[i].msg.Reply = b.reply(first + uint64(i))
		if err := s.publish(out[i].msg); err != nil {
			return err
		}
	}
	var wrong error
	err := b.collect(ctx, s, acks, len(out), func(a ack) {
		if a.err != nil {
			if wrong == nil {
				wrong = a.err
			}
			return
		}
		out[a.n-first].stored = true
		if a.dup {
			b.stats.duplicates.Add(1)
		}
	})
	if err == nil && wrong != nil {
		b.judge(ctx, s, wrong)
		err = wrong
	}
	return err
}

// expect makes room for n acknowledgements, whose numbers begin with first.
func (b *Backplane) expect(n int) (first uint64, acks chan ack, forget func()) {
	acks = make(chan ack, n)
	b.mu.Lock()
	defer b.mu.Unlock()
	first = b.counter + 1
	b.counter += uint64(n)
	for i := range n {
		b.waiting[first+uint64(i)] = acks
	}
	return first, acks, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i := range n {
			delete(b.waiting, first+uint64(i))
		}
	}
}

// reply is where an acknowledgement goes.
func (b *Backplane) reply(n uint64) string { return b.inbox + "." + strconv.FormatUint(n, 10) }

// sends notes that a message is sent.
func (b *Backplane) sends(o *outbound) {
	if o.sent {
		b.stats.repeated.Add(1)
	}
	o.sent = true
}

// publish gives a message to the connection, and ends that if it does not take it.
func (s *session) publish(m *natsgo.Msg) error {
	if err := s.nc.PublishMsg(m); err != nil {
		s.close(err) // half of it may have been written
		return fmt.Errorf("nats: %w", err)
	}
	return nil
}

// collect calls got with n acknowledgements, for which it waits.
func (b *Backplane) collect(ctx context.Context, s *session, acks <-chan ack, n int, got func(ack)) error {
	timer := time.NewTimer(b.cfg.AckTimeout)
	defer timer.Stop()
	for range n {
		select {
		case a := <-acks:
			got(a)
		case <-s.gone:
			return fmt.Errorf("nats: the connection has ended: %w", s.reason())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return fmt.Errorf("nats: no acknowledgement within %v", b.cfg.AckTimeout)
		}
	}
	return nil
}

// judge sees whether the stream that has refused a message is still there, and as it was found.
func (b *Backplane) judge(ctx context.Context, s *session, err error) {
	if final(err) {
		s.close(err) // it takes less than it did: the next session knows how much
		return
	}
	_, _, _ = s.state(ctx) // it closes a session that is of no use
}

// acknowledged is called with each acknowledgement.
func (b *Backplane) acknowledged(msg *natsgo.Msg) {
	n, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, b.inbox+"."), 10, 64)
	if err != nil {
		return
	}
	b.mu.Lock()
	acks := b.waiting[n]
	delete(b.waiting, n)
	b.mu.Unlock()
	if acks == nil { // nobody waits any more
		return
	}
	a := parseAck(msg)
	a.n = n
	acks <- a // it has room for all
}

// An ackError is what the server says of a message that it does not store.
type ackError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *ackError) Error() string { return fmt.Sprintf("nats: %s (%d)", e.Description, e.Code) }

// tooLarge is JetStream's code for a message that the stream does not take for its size.
const tooLarge = 10054

// Is makes errors.Is find tailcast.ErrMessage.
func (e *ackError) Is(target error) bool { return target == tailcast.ErrMessage && e.Code == tooLarge }

// final reports whether trying again would have the same end.
func final(err error) bool { return errors.Is(err, tailcast.ErrMessage) }

func parseAck(msg *natsgo.Msg) ack {
	if status := msg.Header.Get("Status"); status != "" {
		return ack{err: fmt.Errorf("nats: nobody stores messages: status %s", status)}
	}
	var answer struct {
		Stream    string
		Seq       uint64
		Duplicate bool
		Batch     string
		Error     *ackError
	}
	switch err := json.Unmarshal(msg.Data, &answer); {
	case err != nil:
		return ack{err: fmt.Errorf("nats: an acknowledgement that cannot be read: %w", err)}
	case answer.Error != nil:
		return ack{err: answer.Error}
	case answer.Stream == "" || answer.Seq == 0:
		return ack{err: fmt.Errorf("nats: an acknowledgement without a sequence: %q", msg.Data)}
	}
	return ack{dup: answer.Duplicate, batch: answer.Batch}
}
