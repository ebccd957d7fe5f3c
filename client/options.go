package client

import (
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tailcast/tailcast"
)

// An Option changes a default of Follow and Source. Options that cannot be meant panic.
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options make; it does not change afterwards.
type config struct {
	client  *http.Client // nil: one for each loop
	header  http.Header
	query   url.Values // what is asked for beside positions
	since   map[string]tailcast.Position
	silence time.Duration
	base    time.Duration
	most    time.Duration
	maxLine int
	logger  *slog.Logger
}

func newConfig(opts []Option) config {
	c := config{
		header: make(http.Header), query: make(url.Values),
		silence: 40 * time.Second, base: 500 * time.Millisecond, most: 30 * time.Second, maxLine: 128 << 20,
		logger: slog.New(slog.DiscardHandler),
	}
	for _, o := range opts {
		must(o != nil, "nil Option")
		o.apply(&c)
	}
	return c
}

func must(ok bool, reason string) {
	if !ok {
		panic("tailcast: client: " + reason)
	}
}

// WithHTTPClient sets what requests are made with: for TLS, proxies, cookies, tracing. Its Timeout, which is for whole responses, does
// not count. The default is a copy of http.DefaultTransport for each loop, which leaves nothing behind.
func WithHTTPClient(c *http.Client) Option {
	must(c != nil, "WithHTTPClient: nil Client")
	return option(func(cfg *config) { cfg.client = c })
}

// WithHeader adds a field to the header of each request: Authorization, for one. What net/http does with it at a redirect to another host
// is told at http.Client.
func WithHeader(key, value string) Option {
	return option(func(c *config) { c.header.Add(key, value) })
}

// WithTopics asks for these topics only. The default is what the URL serves to a request that names none.
func WithTopics(topics ...string) Option {
	return option(func(c *config) { c.query["topic"] = slices.Clone(topics) })
}

// WithSince begins after these positions, by topic: Message.Pos of the last message that was seen. The zero Position stands for "from
// now on", tailcast.Earliest() for all that can be had. Other topics begin as without it.
func WithSince(positions map[string]tailcast.Position) Option {
	return option(func(c *config) { c.since = maps.Clone(positions) })
}

// WithTail begins with the n newest messages of each topic without a position. The default of Follow is what the hub gives every viewer
// (WithBacklog there), and that of Source is none.
func WithTail(n int) Option {
	must(n >= 0, "WithTail: must not be negative")
	return option(func(c *config) { c.query.Set("tail", strconv.Itoa(n)) })
}

// WithGrep asks for messages only whose Data matches an expression, in the syntax of package regexp; at most 256 bytes. The hub looks,
// so that what does not match is not sent.
func WithGrep(expression string) Option {
	return option(func(c *config) { c.query.Set("grep", expression) })
}

// WithInvert asks for messages only that WithGrep does not match.
func WithInvert() Option {
	return option(func(c *config) { c.query.Set("invert", "1") })
}

// WithSilence sets for how long a connection may say nothing before it is taken for dead. The default is 40 s: a hub says where it is
// at least every 15 s, unless its WithHeartbeat says otherwise.
func WithSilence(d time.Duration) Option {
	must(d > 0, "WithSilence: must be positive")
	return option(func(c *config) { c.silence = d })
}

// WithBackoff sets the pauses between connections: each is random, from 0 to base at first, then to twice as much, and so on to most.
// The defaults are 500 ms and 30 s. A connection that has lasted 10 s makes the next pause a first one.
func WithBackoff(base, most time.Duration) Option {
	must(base > 0 && most >= base, "WithBackoff: base must be positive, and most no less")
	return option(func(c *config) { c.base, c.most = base, most })
}

// WithMaxLine sets how long a message may be as it comes over the wire, where some of its bytes are escaped: more ends the loop with an
// error. The default is 128 MiB, and what is short takes no more memory for that.
func WithMaxLine(bytes int) Option {
	must(bytes > 0, "WithMaxLine: must be positive")
	return option(func(c *config) { c.maxLine = bytes })
}

// WithLogger logs when a connection is lost or cannot be had (WARN "client connection lost", with error and pause), and when there is
// one again (INFO "client connection recovered"). The default is not to log.
func WithLogger(l *slog.Logger) Option {
	must(l != nil, "WithLogger: nil Logger")
	return option(func(c *config) { c.logger = l })
}
