package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tailcast/tailcast"
)

// newClient returns what requests are made with, and its transport if that is nobody else's.
func newClient(given *http.Client) (*http.Client, *http.Transport) {
	if given == nil {
		if t, ok := http.DefaultTransport.(*http.Transport); ok {
			own := t.Clone()
			return &http.Client{Transport: own}, own
		}
		return &http.Client{}, nil
	}
	c := *given
	c.Timeout = 0
	return &c, nil
}

// once is one connection. It returns why that has ended.
func (f *follower) once(ctx context.Context, take func([]object) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(f.cfg.silence, func() { cancel(errSilent) })
	defer w.stop()
	resp, err := f.get(ctx, w)
	if err != nil {
		return because(ctx, err)
	}
	defer resp.Body.Close()
	if err := refused(resp, w); err != nil {
		return because(ctx, err)
	}
	f.logFound(ctx)
	l := lines{r: &watched{resp.Body, w}, max: f.cfg.maxLine}
	p := parser{places: &f.places}
	for {
		batch, err := l.next()
		if err != nil {
			return because(ctx, err)
		}
		end := f.parse(&p, batch)
		if len(f.objects) > 0 {
			f.garbled = 0
		}
		if err := take(f.objects); err != nil {
			return err
		}
		if end != nil {
			return f.doubt(end)
		}
	}
}

// get sends the request, and waits for the head of its answer.
func (f *follower) get(ctx context.Context, w *watch) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url(f.base).String(), nil)
	if err != nil {
		return nil, finalError{permanentError{err}}
	}
	req.Header = f.cfg.header.Clone()
	req.Header.Set("Accept", "application/x-ndjson")
	client := *f.client
	check := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		req.URL = f.url(req.URL) // a Location need not repeat the query, and without it the place would be lost
		switch {
		case check != nil:
			return check(req, via)
		case len(via) >= 10:
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
	w.start()
	defer w.pause()
	return client.Do(req)
}

// because names what has ended a connection: what has ended its context, if that is over.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var u *url.Error
	if errors.As(err, &u) { // without the URL, whose query may hold what is not for a log
		return u.Err
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// refused reports what the server has answered if it is no stream.
func refused(resp *http.Response, w *watch) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && kind == "application/x-ndjson" {
		return nil
	}
	e := &StatusError{Status: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"))}
	switch {
	case resp.StatusCode == http.StatusOK:
		e.Reason = fmt.Sprintf("its Content-Type is %.100q, and that of a stream is application/x-ndjson", resp.Header.Get("Content-Type"))
	case kind == "text/plain":
		body, _ := io.ReadAll(io.LimitReader(&watched{resp.Body, w}, 1<<10)) // what has come of it has to do
		e.Reason = sentence(body)
	}
	return e
}

// most is how long a server may tell a client to stay away.
const mostAdvice = 5 * time.Minute

func retryAfter(v string) time.Duration {
	if n, err := strconv.ParseUint(v, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, mostAdvice)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(time.Until(at), 0), mostAdvice)
	}
	return 0
}

// A goodbye is how a server has ended a connection.
type goodbye struct {
	*tailcast.CloseError
	retry time.Duration
}

func (e *goodbye) Unwrap() error { return e.CloseError }

// advice is how long the server has told the client to stay away.
func advice(err error) time.Duration {
	var status *StatusError
	var bye *goodbye
	switch {
	case errors.As(err, &status):
		return status.after
	case errors.As(err, &bye):
		return min(bye.retry, mostAdvice)
	}
	return 0
}

// parse reads lines into f.objects, up to the first one that ends the connection, and returns why that does.
func (f *follower) parse(p *parser, batch []byte) error {
	clear(f.objects)
	f.objects = f.objects[:0]
	for len(batch) > 0 {
		line, rest, _ := bytes.Cut(batch, []byte("\n"))
		batch = rest
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		o, err := p.parse(line)
		if err != nil {
			return err
		}
		if o.kind == bye {
			return &goodbye{&tailcast.CloseError{Code: o.code, Reason: o.reason}, o.retry}
		}
		f.objects = append(f.objects, o)
	}
	return nil
}

// doubt makes what cannot be read final if it comes again and again: by itself it is a connection that has gone wrong.
func (f *follower) doubt(err error) error {
	if !errors.Is(err, errNoObject) {
		return err
	}
	const most = 5
	if f.garbled++; f.garbled == most {
		return finalError{err}
	}
	return err
}

// A watch calls a function if it runs for too long.
type watch struct {
	after time.Duration
	timer *time.Timer
}

func newWatch(after time.Duration, f func()) *watch { return &watch{after, time.AfterFunc(after, f)} }

func (w *watch) start() { w.timer.Reset(w.after) }
func (w *watch) pause() { w.timer.Stop() }
func (w *watch) stop()  { w.timer.Stop() }

// A watched reader is watched while it waits for a byte, and not while nobody reads.
type watched struct {
	io.Reader
	watch *watch
}

func (r *watched) Read(p []byte) (int, error) {
	r.watch.start()
	defer r.watch.pause()
	return r.Reader.Read(p)
}

// unwrapFinal takes the mark off.
func unwrapFinal(err error) error {
	if f, ok := err.(finalError); ok {
		return f.error
	}
	return err
}

// logLost tells once of a connection that is lost, or cannot be had.
func (f *follower) logLost(ctx context.Context, err error, pause time.Duration) {
	if f.lost {
		return
	}
	f.lost = true
	f.cfg.logger.WarnContext(ctx, "client connection lost", "error", err, "pause", pause)
}

// logFound tells of one that there is again.
func (f *follower) logFound(ctx context.Context) {
	if f.lost {
		f.lost = false
		f.cfg.logger.InfoContext(ctx, "client connection recovered")
	}
}
