package tailcast

import (
	"compress/flate"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An Option changes a default of New. Options that cannot be meant make New panic.
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the options make; it does not change after New.
type config struct {
	backlog      int
	retention    Retention
	memory       int64
	lag          LagPolicy
	topics       []topicRule
	replays      int
	pingInterval time.Duration
	pongTimeout  time.Duration
	heartbeat    time.Duration
	writeTimeout time.Duration
	flush        time.Duration
	limits       Limits
	authenticate func(*http.Request) (Identity, error)
	authorize    func(context.Context, Access) error
	register     func(ctx context.Context, token string) (Identity, error)
	private      int
	onConnect    []func(*Conn) error
	afterRead    []func(*Conn, Inbound) error
	beforeClose  []func(*Conn, error)
	compression  int // a level of compress/flate; 0 = none
	filters      []filterRule
	logger       *slog.Logger
	origins      map[origin]bool
	hosts        map[string]bool
	detach       bool
	backplane    Backplane
}

func defaults() config {
	return config{
		retention:    Retention{Bytes: 8 << 20},
		memory:       256 << 20,
		lag:          LagCatchUp,
		replays:      2 * runtime.GOMAXPROCS(0),
		pingInterval: 25 * time.Second,
		pongTimeout:  10 * time.Second,
		heartbeat:    15 * time.Second,
		writeTimeout: 10 * time.Second,
		limits:       Limits{}.withDefaults(),
		private:      256 << 10,
		logger:       slog.New(slog.DiscardHandler),
	}
}

// must panics, in New, for an option that cannot be meant.
func must(ok bool, format string, args ...any) {
	if !ok {
		panic("tailcast: " + fmt.Sprintf(format, args...))
	}
}

// Retention bounds what the hub keeps of each topic in memory. A zero field is no bound.
type Retention struct {
	Bytes    int64         // of payload
	Messages int           // number of messages
	Age      time.Duration // since Message.Time
}

// WithBacklog sets how many of the newest messages a viewer gets that asks for nothing else, such as tail=N or since=…: 0 by
// default, so that it sees what comes from now on. Of a Tail's topic those that are not in memory come from the file and its
// rotated siblings, whatever Tail.Start says, as tail -n N -f has them: at most 100 000 lines, or what 64 MiB hold.
func WithBacklog(n int) Option {
	must(n >= 0, "WithBacklog(%d): must not be negative", n)
	return option(func(c *config) { c.backlog = n })
}

// WithRetention sets what is kept of each topic in memory: 8 MiB of payload by default. The newest message is kept in any
// case until it is too old. A viewer that falls further behind is served by the topic's Replayer, or told what it missed.
func WithRetention(r Retention) Option {
	must(r.Bytes >= 0 && r.Messages >= 0 && r.Age >= 0, "WithRetention(%+v): must not be negative", r)
	return option(func(c *config) { c.retention = r })
}

// minMemory has room for a few messages of the largest size that there always may be.
const minMemory = 4 * defaultMaxLine

// WithMemoryLimit bounds the memory of a hub, in bytes: 256 MiB by default, at least 4 MiB, 0 = no limit. A message may have a quarter of it. It counts the logs of all topics,
// their encodings, what was read from Replayers and what is queued for single connections; a connection itself costs a constant on
// top. At the limit the encodings that were not used for longest go first, since they can be made again, then the oldest messages,
// those from Replayers before all others.
func WithMemoryLimit(bytes int64) Option {
	must(bytes == 0 || bytes >= minMemory, "WithMemoryLimit(%d): at least 4 MiB, or 0 for no limit", bytes)
	return option(func(c *config) { c.memory = bytes })
}

// WithMaxReplays bounds how many Replayers are read from at the same time: 2×GOMAXPROCS by default. Viewers that are at about
// the same place share one, as long as they keep within 4 MiB of each other; others wait for their turn, and one that is read for
// long gives way to them. Set it lower where reading is dear, as from a slow disk, and higher where it mostly waits, as for a
// network.
func WithMaxReplays(n int) Option {
	must(n > 0, "WithMaxReplays(%d): must be positive", n)
	return option(func(c *config) { c.replays = n })
}

// WithPing sets after how much silence of its peer a WebSocket is pinged, 25 s by default, and how much more silence ends
// it with ErrPingTimeout, 10 s by default. Any byte of the peer counts, and so does progress in sending to a slow one.
// Interval 0 turns pings off: a dead peer is then found only when something is to be sent.
func WithPing(interval, timeout time.Duration) Option {
	must(interval >= 0 && timeout > 0, "WithPing(%v, %v): interval must not be negative, timeout must be positive", interval, timeout)
	return option(func(c *config) { c.pingInterval, c.pongTimeout = interval, timeout })
}

// WithHeartbeat sets after how much silence an event stream, NDJSON, or a WebSocket of envelopes gets a heartbeat, 15 s by
// default, 0 = never. It tells the client where it stands, to resume from there. Proxies cut streams that are quiet for long,
// often after 60 s.
func WithHeartbeat(interval time.Duration) Option {
	must(interval >= 0, "WithHeartbeat(%v): must not be negative", interval)
	return option(func(c *config) { c.heartbeat = interval })
}

// WithWriteTimeout sets how long a peer may take not a single byte, 10 s by default, before its connection ends with
// ErrWriteTimeout. However slow it is, a peer that takes some is not cut off.
func WithWriteTimeout(d time.Duration) Option {
	must(d > 0, "WithWriteTimeout(%v): must be positive", d)
	return option(func(c *config) { c.writeTimeout = d })
}

// WithFlushInterval lets new messages wait up to d for others, so that many go to a viewer with one write: it costs little more
// CPU to send four lines than one. What has gathered 16 KiB in a topic, or half of what its Retention keeps, goes at once, and so
// does what is sent to one connection alone (Send, Push, heartbeats, gaps), with whatever waits for it, and the rest at Shutdown.
// Where Retention.Age is not twice as long, nothing waits. Subscribe's loops do not wait either.
//
// A connection that is closed with Conn.Close, or leaves the topic, does not get what still waits.
//
// Default 0: each message goes out as soon as a worker comes to it. Set it, to 10 or 20 ms, where thousands of viewers
// follow some hundred messages a second and need not have each at once. The longest is a minute.
func WithFlushInterval(d time.Duration) Option {
	must(d >= 0 && d <= time.Minute, "WithFlushInterval(%v): must be between 0 and a minute", d)
	return option(func(c *config) { c.flush = d })
}

// WithLimits sets what clients may take: see Limits for the defaults.
func WithLimits(l Limits) Option {
	l.check()
	return option(func(c *config) { c.limits = l.withDefaults() })
}

// WithAuthenticate sets the function that finds out who sends a request. It is called for each request, on its goroutine, after
// the checks of origin and method and before anything else; without it everybody is nobody in particular. What it keeps in
// the Identity is what Conn.Identity returns, and WithAuthorize is asked about.
//
// An error refuses the request with 401 and a sentence that does not quote it. A *CloseError in the error says more: its
// Reason is then the sentence, its Code, from 4400 to 4499, stands for the status 400 to 499, and 1013 for 503,
// which an event stream is told as when there are too many connections, so that it comes back.
//
// A browser sends cookies and nothing else of use: neither a WebSocket nor an EventSource can set a header.
func WithAuthenticate(f func(*http.Request) (Identity, error)) Option {
	must(f != nil, "WithAuthenticate(nil)")
	return option(func(c *config) { c.authenticate = f })
}

// WithAuthorize sets the function that decides what clients may do. It is called for each topic that a request asks for, or
// that its handler serves where it names none, on the request's goroutine, with the request's context; and with it
// Hub.ServeHTTP serves all topics that it allows, not only the default one. Of a client of tailcast.v1 it is also asked about
// each command to subscribe or to publish, on the connection's reader, with the connection's context. Without it, clients may read what their handler
// serves and publish nothing. What the program itself does, Conn.Subscribe for one, is not asked about.
//
// An error refuses the request with 403, or answers the command with an error; a *CloseError in it says more, as for
// WithAuthenticate.
func WithAuthorize(f func(ctx context.Context, a Access) error) Option {
	must(f != nil, "WithAuthorize(nil)")
	return option(func(c *config) { c.authorize = f })
}

// WithOnConnect adds a hook that is called when a connection has been accepted, before it gets a message. An error closes the
// connection with it as the cause. See the table of hooks in the package's documentation.
func WithOnConnect(f func(*Conn) error) Option {
	must(f != nil, "WithOnConnect(nil)")
	return option(func(c *config) { c.onConnect = append(c.onConnect, f) })
}

// WithAfterRead adds a hook that is called for each message of a client. An error closes the connection with it as the
// cause. See the table of hooks in the package's documentation.
func WithAfterRead(f func(*Conn, Inbound) error) Option {
	must(f != nil, "WithAfterRead(nil)")
	return option(func(c *config) { c.afterRead = append(c.afterRead, f) })
}

// WithBeforeClose adds a hook that is called exactly once for each connection, however it ends, with the cause. See the
// table of hooks in the package's documentation.
func WithBeforeClose(f func(*Conn, error)) Option {
	must(f != nil, "WithBeforeClose(nil)")
	return option(func(c *config) { c.beforeClose = append(c.beforeClose, f) })
}

// WithFilter adds a parameter to the query of requests: a client that gives it is sent only the messages for which the function
// returns true that compile has made of its value, and that pass grep and other filters too. An empty value is none. The error of
// compile refuses the request with 400: its text goes to the client.
//
// The function is called once for each message, whatever number of viewers and formats share the value, on a goroutine of its own:
// a slow one holds up those who have asked for it, and nobody else. (What is read again from a Replayer is asked about again, once
// for all who share that; and so may be the first part of a line that was cut, for those who come to its rest another way.) It may be called for
// live and replayed messages at the same time. It must neither change the Message nor keep it or its Data. Gaps are not asked about, and of a line
// that was cut only the first part. A panic closes all viewers of a topic that share the filter with a *PanicError.
//
// A value may have 256 bytes, and a topic 32 different filters at a time.
func WithFilter(name string, compile func(value string) (func(*Message) bool, error)) Option {
	must(name != "" && strings.IndexFunc(name, unicode.IsControl) < 0 && utf8.ValidString(name), "WithFilter(%q): must be the name of a parameter", name)
	must(!slices.Contains(parameters, name), "WithFilter(%q): the parameter has a meaning already", name)
	must(compile != nil, "WithFilter(%q, nil)", name)
	return option(func(c *config) {
		for _, r := range c.filters {
			must(r.name != name, "WithFilter(%q): comes twice", name)
		}
		c.filters = append(c.filters, filterRule{name, compile})
	})
}

// WithCompression compresses messages for the WebSockets that can read it, as browsers do (permessage-deflate, RFC 7692), bare ones
// and those of tailcast.v1, each message once for all viewers of a format that have the same filter. The level is one of compress/flate: 1 (BestSpeed) to 9
// (BestCompression), -1 (DefaultCompression, which is 6), or -2 (HuffmanOnly); it panics on any other, 0 (NoCompression) too. Off by
// default.
//
// It is for messages of a KiB or more and viewers behind slow or paid lines. In a fast network, or for short lines, it only costs. With
// level 1, lines of a JSON log became 0.41 of their size in messages of 1 KiB, and 0.24 in those of 16 KiB; with level 9, 0.39 and
// 0.21. Level 1 took some 12 µs for a message of 1 KiB and 6 ms for one of 1 MiB; level 6, 20 µs and 20 ms; level 9, 20 µs and 48 ms. The
// worker that meets a message first does it, and never Publish; but its other viewers wait meanwhile. So a message of more than
// 64 KiB is compressed with level 1 at most. One that is smaller than 512 bytes or larger than 2 MiB in the form in which it is sent is not
// compressed, nor one that would not become smaller, nor what is meant for single connections: Send, Push, answers, gaps.
// Stats tell how much was saved.
//
// Compressed forms count for WithMemoryLimit, as all forms do. On top come compressors of 0.8 to 1.3 MB each, GOMAXPROCS of them at
// most while they work, which the garbage collector frees when they are idle. Clients may compress what they send, too: that
// takes about 45 KB while such a message is read, and Limits.MessageBytes bounds what it is when it is inflated.
//
// Do not compress where a message has both a secret and a text that an attacker may choose: who sees the size of the encrypted bytes
// learns of the secret by guessing at it (the attacks CRIME and BREACH). Between messages nothing is shared, so nothing leaks.
func WithCompression(level int) Option {
	must(level >= flate.HuffmanOnly && level <= flate.BestCompression && level != flate.NoCompression,
		"WithCompression(%d): must be a level of compress/flate that compresses: -2, -1, or 1 to 9", level)
	return option(func(c *config) { c.compression = level })
}

// WithOrigins lets pages of other origins in, each "scheme://host" or "scheme://host:port". Without it a browser is let in
// only from the page's own origin: the same scheme, host and port. A request without an Origin header, as programs send, is
// let in unless the browser says that it comes from another site.
//
// A page that sends Authorization or Last-Event-ID with fetch asks with OPTIONS first: the pattern "GET /logs" does not take that,
// "/logs" does.
func WithOrigins(origins ...string) Option {
	set := make(map[origin]bool)
	for _, s := range origins {
		o, ok := parseOrigin(s)
		must(ok, "WithOrigins(%q): must be scheme://host or scheme://host:port", s)
		set[o] = true
	}
	return option(func(c *config) { c.origins = set })
}

// WithHosts names the hosts, without ports, under which a hub is known that listens on a loopback address, behind a proxy
// that passes the Host header on, for one. Without it such a hub answers only to localhost and to loopback addresses, since
// any page can have its own name resolve to a loopback address.
func WithHosts(hosts ...string) Option {
	set := make(map[string]bool)
	for _, s := range hosts {
		o, ok := newOrigin("http", s)
		must(ok && o.port == "80" && !strings.ContainsAny(s, "/:@ "), "WithHosts(%q): must be the name of a host", s)
		set[o.host] = true
	}
	return option(func(c *config) { c.hosts = set })
}

// WithDetach lets ServeHTTP return when a WebSocket has been accepted and OnConnect has been called. The connection goes on in a
// goroutine of the hub's, with nothing of the request left in memory but its context's values: an idle one then costs some 7 KB
// instead of 13. Set it for many connections that are mostly quiet. Off by default; streams are not changed by it.
//
// What it ends: net/http cancels the request's context, so a server or middleware that ends a WebSocket that way no longer can, and
// Conn.Context, which keeps the values, ends with the connection alone. Middleware sees the request end at once: what it measures,
// logs or counts, such as spans, durations and gauges of requests under way, is that of the handshake, and what it sets free at its end, a
// transaction for one, must not be used by hooks. Limits, Stats, hooks and Shutdown see the connection as before. A panic
// in OnConnect or another hook is caught as ever.
func WithDetach() Option { return option(func(c *config) { c.detach = true }) }

// WithLogger makes the hub log to l. By default it logs nothing. It never logs payloads or tokens. The events are listed in the package's
// documentation, under Log events.
func WithLogger(l *slog.Logger) Option {
	must(l != nil, "WithLogger(nil)")
	return option(func(c *config) { c.logger = l })
}
