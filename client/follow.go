package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/tailcast/tailcast"
)

// Follow watches a hub at a URL (http or https; filters of the hub's application may stand in its query). The result begins when a
// loop over it does; loops are independent of each other.
//
// Each message comes once, in the order of its topic, and the loop then waits for the next one, over as many connections as it takes.
// What the hub no longer has comes as a Message with Gap. The Pos of each message, also of one with Gap, is where another Follow goes
// on after it: see WithSince. (A message that the server's program has sent to this connection alone has none.) Events of
// presence are left out.
//
// A loop whose body takes its time is a slow viewer of the hub, which makes it catch up. A message's Data is the body's own.
//
// Breaking off the loop, or a panic in it, ends the connection at once and leaves nothing behind. An error comes once and last: the
// cause of ctx, a *StatusError, a *tailcast.CloseError with a code from 4400 to 4499, or what is wrong with the URL or with what
// comes from it. How that differs from what is tried again is told at the package.
func Follow(ctx context.Context, url string, opts ...Option) iter.Seq2[tailcast.Message, error] {
	cfg := newConfig(opts)
	return func(yield func(tailcast.Message, error) bool) {
		err := follow(ctx, url, &cfg, func(m tailcast.Message) bool {
			m.Data = bytes.Clone(m.Data)
			return yield(m, nil)
		})
		if err != errBroken {
			yield(tailcast.Message{}, fmt.Errorf("tailcast: follow: %w", err))
		}
	}
}

// follow is one loop. Data is yield's until it returns.
func follow(ctx context.Context, url string, cfg *config, yield func(tailcast.Message) bool) error {
	f, err := newFollower(url, cfg)
	if err != nil {
		return err
	}
	defer f.close()
	for topic, pos := range cfg.since {
		f.places.keep(topic, pos)
	}
	return f.run(ctx, func(objects []object) error {
		for i := range objects {
			o := &objects[i]
			before, _ := f.places.at(o.msg.Topic)
			f.note(o)
			switch o.kind {
			case gap:
				o.msg.Pos = cmp.Or(o.pos, before, tailcast.Earliest()) // never the zero one: that would be from now on
			case message:
			default:
				continue
			}
			if ctx.Err() != nil {
				return finalError{context.Cause(ctx)}
			}
			if !yield(o.msg) {
				return finalError{errBroken}
			}
		}
		return nil
	})
}

// A follower follows a hub over one connection after the other.
type follower struct {
	cfg    *config
	base   *url.URL
	client *http.Client
	own    *http.Transport // to be left without connections; nil if it is somebody else's
	extra  url.Values      // what is asked for beside cfg.query, and instead of it

	places  places
	objects []object // of the lines that are being looked at
	failed  int      // connections, one after the other
	garbled int      // connections, one after the other, that brought nothing but what cannot be read
	lost    bool     // the logger knows
}

func newFollower(at string, cfg *config) (*follower, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, finalError{permanentError{err}}
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, finalError{permanentError{fmt.Errorf("%q is no URL of http or https", u.Redacted())}}
	}
	f := &follower{cfg: cfg, base: u, extra: make(url.Values)}
	f.client, f.own = newClient(cfg.client)
	return f, nil
}

func (f *follower) close() {
	if f.own != nil {
		f.own.CloseIdleConnections()
	}
}

// note keeps what an object says of the client's place.
func (f *follower) note(o *object) {
	if o.held && o.pos != (tailcast.Position{}) { // "from now on" is no place: rather as at first
		f.places.keep(o.msg.Topic, o.pos)
	}
}

// run calls take with what comes, until that returns a final error. Data of objects is take's until it returns.
func (f *follower) run(ctx context.Context, take func([]object) error) error {
	for {
		began := time.Now()
		err := f.once(ctx, take)
		switch {
		case ctx.Err() != nil && !errors.Is(err, errBroken):
			return context.Cause(ctx)
		case err == errAgain:
			continue
		case final(err):
			return unwrapFinal(err)
		}
		if time.Since(began) >= steady {
			f.failed = 0
		}
		pause := f.pause(err)
		f.logLost(ctx, err, pause)
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
	}
}

// steady is how long a connection lasts that was a good one.
const steady = 10 * time.Second

// pause is how long to wait before the next connection.
func (f *follower) pause(err error) time.Duration {
	most := f.cfg.base
	for range f.failed {
		if most = 2 * most; most >= f.cfg.most {
			most = f.cfg.most
			break
		}
	}
	f.failed++
	return max(rand.N(most+1), advice(err))
}

// sleep waits for d and reports false if ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// asked returns the values of a parameter that the options or the URL set.
func (f *follower) asked(name string) (values []string, ok bool) {
	if values, ok = f.cfg.query[name]; ok {
		return values, true
	}
	values, ok = f.base.Query()[name]
	return values, ok
}

// url is what is asked for now.
func (f *follower) url(at *url.URL) *url.URL {
	u := *at
	q := u.Query()
	if u.Host == f.base.Host { // a token is for nobody else
		for name, values := range f.base.Query() {
			if !q.Has(name) {
				q[name] = values
			}
		}
	}
	maps.Copy(q, f.cfg.query)
	maps.Copy(q, f.extra)
	if len(f.places.list) > 0 {
		q.Set("since", f.places.since())
	}
	u.RawQuery = q.Encode()
	return &u
}
