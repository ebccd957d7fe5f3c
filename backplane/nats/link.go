package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

// A link is one connection of an AtMostOnce. It does not reconnect.
type link struct {
	nc    *natsgo.Conn
	cut   context.CancelFunc // closes the socket, whoever waits for it
	queue *queue
	turn  chan struct{} // has room for whoever sends
	gone  chan struct{} // closed with the connection
	quiet chan struct{} // closed when nothing comes any more

	mu  sync.Mutex
	err error // why it has ended
}

// connect returns a connection over which messages come. It gives up when ctx is done, and so does the connection.
func (a *AtMostOnce) connect(ctx context.Context) (*link, error) {
	ctx, cut := context.WithCancel(ctx)
	l := &link{cut: cut, queue: newQueue(), turn: make(chan struct{}, 1), gone: make(chan struct{}), quiet: make(chan struct{})}
	opts := append([]natsgo.Option{
		natsgo.Name("tailcast"), natsgo.Timeout(dialTime), natsgo.PingInterval(5 * time.Second), natsgo.MaxPingsOutstanding(2),
		natsgo.FlusherTimeout(writeTime),
	}, a.cfg.Options...)
	opts = append(opts,
		natsgo.NoReconnect(), natsgo.RetryOnFailedConnect(false), dialWith(ctx),
		func(o *natsgo.Options) error { o.NoEcho = false; return nil },
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) { l.fail(err) }),
		natsgo.ClosedHandler(func(nc *natsgo.Conn) { l.fail(nc.LastError()); close(l.gone) }),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
			if errors.Is(err, natsgo.ErrSlowConsumer) { // something is lost, and nobody knows where: that is a new connection's beginning
				l.fail(err)
				l.cut()
			}
		}),
	)
	var err error
	if l.nc, err = natsgo.Connect(a.cfg.URL, opts...); err != nil {
		cut()
		return nil, fmt.Errorf("connect: %w", err)
	}
	if err := l.listen(ctx, a.subjects+"*", func(msg *natsgo.Msg) { a.came(l, msg) }); err != nil {
		l.close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	a.stats.connects.Add(1)
	return l, nil
}

// listen has messages come. The server has heard of it when it returns nil.
func (l *link) listen(ctx context.Context, subject string, came func(*natsgo.Msg)) error {
	quiet := sync.OnceFunc(func() { close(l.quiet) })
	sub, err := l.nc.Subscribe(subject, came)
	if err != nil {
		quiet()
		return err
	}
	sub.SetClosedHandler(func(string) { quiet() })
	if !sub.IsValid() { // it may have been too late for that
		quiet()
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if err := l.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	return l.denied(subject)
}

// denied is what the server has said against a subject, if it has.
func (l *link) denied(subject string) error {
	err := l.nc.LastError()
	if errors.Is(err, natsgo.ErrMaxSubscriptionsExceeded) ||
		errors.Is(err, natsgo.ErrPermissionViolation) && strings.Contains(err.Error(), `"`+subject+`"`) {
		return err
	}
	return nil
}

// send sends messages, and waits until the server says that it has taken them.
func (l *link) send(ctx context.Context, out []*natsgo.Msg) error {
	largest := int(l.nc.MaxPayload())
	for i, m := range out {
		if limit := largest - headerBytes(m.Header); len(m.Data) > limit {
			return fmt.Errorf("%w: with its header, that is the server's max_payload of %d bytes",
				&tailcast.TooLargeError{Index: i, Limit: limit}, largest)
		}
	}
	soon, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	err := l.write(soon, out)
	if err == nil {
		err = l.nc.FlushWithContext(soon)
	}
	for i := 0; i < len(out) && err == nil; i++ {
		err = l.denied(out[i].Subject)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case soon.Err() != nil:
		return fmt.Errorf("%w: no answer within %v", tailcast.ErrBackplane, writeTime)
	}
	return fmt.Errorf("%w: %w", tailcast.ErrBackplane, err)
}

// write gives messages to the connection, those of one call together.
func (l *link) write(ctx context.Context, out []*natsgo.Msg) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	case <-l.gone:
		return l.reason()
	}
	stuck := time.AfterFunc(writeTime, l.cut)
	defer stuck.Stop()
	for _, m := range out {
		if err := ctx.Err(); err != nil {
			return err
		}
		stuck.Reset(writeTime)
		if err := l.nc.PublishMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// fail notes why the connection ends. The first reason counts.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// reason is why the connection has ended.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return natsgo.ErrConnectionClosed
	}
	return l.err
}

// close ends the connection, and waits until nothing of it goes on. The socket is closed first: what could not be written is not waited for.
func (l *link) close() {
	l.cut()
	l.nc.Close()
	<-l.gone
	<-l.quiet
}
