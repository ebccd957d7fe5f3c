package nats

import (
	"context"
	"net"

	natsgo "github.com/nats-io/nats.go"
)

// A dialer opens connections that are closed when its context is done, also while nats.go waits for the server to say something. It uses
// the dialer that Options have set, if they have.
type dialer struct {
	ctx   context.Context
	plain *net.Dialer
	own   natsgo.CustomDialer // nil: plain
}

// dialWith makes nats.go use such a dialer. It comes after the options that it wraps.
func dialWith(ctx context.Context) natsgo.Option {
	return func(o *natsgo.Options) error {
		d := &dialer{ctx: ctx, plain: o.Dialer, own: o.CustomDialer}
		if d.plain == nil {
			d.plain = &net.Dialer{Timeout: o.Timeout}
		}
		if d.own == nil {
			o.SkipHostLookup = true // plain does it, and gives up with ctx
		}
		o.CustomDialer = d
		return nil
	}
}

// Dial is natsgo.CustomDialer's.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if d.ctx.Err() != nil {
		return nil, context.Cause(d.ctx)
	}
	var c net.Conn
	var err error
	if d.own != nil {
		c, err = d.own.Dial(network, address)
	} else {
		c, err = d.plain.DialContext(d.ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	context.AfterFunc(d.ctx, func() { c.Close() })
	return wire{c}, nil
}

// SkipTLSHandshake is what the dialer in Options says.
func (d *dialer) SkipTLSHandshake() bool {
	own, ok := d.own.(interface{ SkipTLSHandshake() bool })
	return ok && own.SkipTLSHandshake()
}

// A wire is closed by the first write that fails: half of it may be done, and nats.go would go on behind that.
type wire struct{ net.Conn }

func (w wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.Close()
	}
	return n, err
}
