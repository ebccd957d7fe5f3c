package tailcast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
	"github.com/tailcast/tailcast/internal/wsconn"
)

// ServeHTTP serves one client, in the form that its request asks for, for as long as the connection
// lives:
//
//	Upgrade: websocket             each message as one text (or binary) frame
//	  with subprotocol tailcast.v1 JSON envelopes, and commands of the client
//	Accept: text/event-stream      server-sent events with ids
//	Accept: application/x-ndjson   JSON envelopes, one a line
//	any other GET                  plain text, a line for each message, as tail -f prints it
//
// An envelope has a message's topic, data, position and time. A client of tailcast.v1 may subscribe and unsubscribe, as far as
// this handler serves the topic and WithAuthorize allows it, and publish where WithAuthorize allows it.
//
// The query is the same for all: since=POSITION (or topic=POSITION,…) goes on after that message, tail=N begins with the N
// newest messages that the hub has, or a Tail's file (see WithBacklog), gaps=0 leaves out the lines that declare a loss.
// Last-Event-ID beats since beats tail. grep=EXPRESSION, in the syntax of the package regexp, leaves out the messages whose payload
// it does not match, and with invert=1 those that it does; WithFilter adds parameters of the application's own.
//
// What is published after the client was answered reaches it.
//
// It serves the default topic; with WithAuthorize, also those that the request names with topic=… (repeatable) and the client
// may read.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, &h.mount)
}

var defaultTopic = []string{""}

// Handler returns a handler like ServeHTTP that serves exactly these topics: all of them, or those that the request names
// with topic=… (repeatable), as far as WithAuthorize lets the client read them. It panics if there is none, or a name is not
// fit.
func (h *Hub) Handler(topics ...string) http.Handler {
	must(len(topics) > 0, "Handler: no topic")
	must(len(topics) <= h.cfg.limits.Topics, "Handler: %d topics, the limit is %d", len(topics), h.cfg.limits.Topics)
	for i, t := range topics {
		err := checkTopic(t)
		must(err == nil, "Handler: topic %q: %v", t, err)
		must(!slices.Contains(topics[:i], t), "Handler: topic %q comes twice", t)
	}
	must(idBytes(topics) <= maxIDBytes, "Handler: the names of the topics are too long for an event's id, which holds them all")
	m := &mount{topics: slices.Clone(topics)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, m) })
}

// maxIDBytes bounds what the names of a connection's topics take in an event's id: browsers send it back in a header, and
// servers and proxies take headers of 8 KiB.
const maxIDBytes = 4 << 10

func idBytes(topics []string) (n int) {
	for _, t := range topics {
		n += len(wire.AppendPositions(nil, []wire.TopicPosition{{Topic: t}}))
	}
	return n
}

// A mount is what one handler serves.
type mount struct {
	topics []string // of a request that names none
	open   bool     // a request may name others
}

// A request is what a client asks for.
type request struct {
	format   format
	mount    *mount
	identity Identity
	topics   []string
	start    map[string]start
	filter   *filter // nil: everything passes
	seat     *seat

	registers bool   // it has to say who it is
	token     string // that it has said
	hasToken  bool
	held      func() // lets go of the topics that start refers to: the connection has them
	free      func() // lets go of the filters that are kept for it; nil if there are none
	handed    bool   // its connection lets go of the seat and of free
}

// serve returns when all is over that the request has begun; WithDetach, when it has begun.
//
// A goroutine's stack that has grown does not become small again as long as net/http's own calls are on it. So what a WebSocket's
// handshake takes of one is that of another goroutine, and the handler's, which reads then for hours, has half of it.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request, m *mount) {
	if r.Header["Upgrade"] == nil {
		h.answer(w, r, m)
		return
	}
	var c *Conn
	if !apart(func() { c = h.answer(w, r, m) }) {
		runtime.Goexit()
	}
	if c != nil {
		gone := context.AfterFunc(r.Context(), func() { c.end(endContext, context.Cause(r.Context())) })
		c.live()
		gone()
	}
}

// apart calls f on another goroutine, waits for it, and panics if it does. It reports whether f has returned: else it has called
// runtime.Goexit, which leaves the caller as it is.
func apart(f func()) (returned bool) {
	done := make(chan any)
	go func() {
		defer close(done)
		defer func() {
			if v := recover(); v != nil {
				done <- v
			}
		}()
		f()
		returned = true
	}()
	if v, panicked := <-done; panicked {
		panic(v)
	}
	return returned
}

// answer answers a request. It returns a connection that is to live on, if there is one: it has taken what the request had taken.
func (h *Hub) answer(w http.ResponseWriter, r *http.Request, m *mount) (c *Conn) {
	foreign, err := h.cfg.admitPage(r)
	if err != nil {
		h.refuse(w, r, refusalf(http.StatusForbidden, "%v", err))
		return
	}
	allowOrigin(w.Header(), foreign)
	if r.Method == http.MethodOptions && foreign != "" {
		answerPreflight(w)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		h.refuse(w, r, refusalf(http.StatusMethodNotAllowed, "This is a stream: GET it, %s has no meaning here.", quote(r.Method)))
		return
	}
	req, no := h.admit(r, m)
	if no != nil {
		h.refuse(w, r, no)
		return
	}
	if h.closing() {
		no := refusalf(http.StatusServiceUnavailable, "The server is shutting down; try again in a few seconds.")
		no.last = sseFarewell(errShutdown)
		h.refuse(w, r, no)
		return
	}
	if req.seat, err = h.seats.take(&h.cfg.limits, req.identity.User, r.RemoteAddr); err != nil {
		h.refuse(w, r, refusalf(http.StatusServiceUnavailable, "%v", err))
		return
	}
	defer func() {
		if !req.handed {
			req.seat.leave()
		}
	}()
	if req.free, no = h.reserve(req); no != nil {
		h.refuse(w, r, no)
		return
	}
	defer func() {
		if !req.handed && req.free != nil {
			req.free()
		}
	}()
	defer h.hold(r.Context(), req)()
	if !req.format.webSocket() {
		h.serveStream(w, r, req)
		return nil
	}
	if c = h.openWebSocket(w, r, req); c == nil {
		return nil
	}
	c.free, req.handed = req.free, true
	if h.cfg.detach {
		h.background(c.live)
		return nil
	}
	return c
}

// admit finds out who the client is, what it asks for, and whether it may have that.
func (h *Hub) admit(r *http.Request, m *mount) (*request, *refusal) {
	id, no := h.identify(r)
	if no != nil {
		return nil, no
	}
	req, no := h.parseRequest(r, m)
	if no != nil {
		return nil, no
	}
	req.identity = id
	if no := h.admitRegistration(r, req); no != nil {
		return nil, no
	}
	if req.registers {
		return req, nil // then it is asked what it may read
	}
	for _, t := range req.topics {
		if no := h.authorize(r.Context(), Access{Identity: id, Action: ActionRead, Topic: t, Remote: r.RemoteAddr}); no != nil {
			return nil, no
		}
	}
	return req, nil
}

// parseRequest reads what the client asks for.
func (h *Hub) parseRequest(r *http.Request, m *mount) (*request, *refusal) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, refusalf(http.StatusBadRequest, "The query cannot be read: %v.", err)
	}
	req := &request{format: chooseFormat(r), mount: m, topics: m.topics, start: make(map[string]start)}
	if asked, ok := q["topic"]; ok {
		if no := h.checkTopics(asked, m, &req.format); no != nil {
			return nil, no
		}
		req.topics = asked
	}
	if req.format.gaps, err = parseGaps(q); err == nil {
		err = req.parseStart(r, q)
	}
	if err != nil {
		return nil, refusalf(http.StatusBadRequest, "%v", err)
	}
	var no *refusal
	if req.filter, no = h.parseFilter(r.Context(), q); no != nil {
		return nil, no
	}
	return req, nil
}

// check reports why a topic is not to be had here.
func (m *mount) check(topic string) *refusal {
	err := checkTopic(topic)
	switch {
	case !m.open && !slices.Contains(m.topics, topic):
		return refusalf(http.StatusForbidden, "topic %s is not served here.", quote(topic))
	case err != nil:
		return refusalf(http.StatusBadRequest, "topic %s: %v.", quote(topic), err)
	}
	return nil
}

// checkTopics reports what is wrong with the topics that a request names.
func (h *Hub) checkTopics(asked []string, m *mount, f *format) *refusal {
	if most := h.cfg.limits.Topics; len(asked) > most {
		return refusalf(http.StatusBadRequest, "%d topics, the limit is %d.", len(asked), most)
	}
	for i, t := range asked {
		if no := m.check(t); no != nil {
			return no
		}
		if slices.Contains(asked[:i], t) {
			return refusalf(http.StatusBadRequest, "topic %s comes twice.", quote(t))
		}
	}
	if f.transport == formatSSE.transport && idBytes(asked) > maxIDBytes {
		return refusalf(http.StatusBadRequest, "The names of the topics are too long for an event's id, which holds them all.")
	}
	return nil
}

// quote shows a value of the client's in a sentence, but no more than a little of it.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

func chooseFormat(r *http.Request) format {
	switch {
	case headerHas(r.Header, "Upgrade", "websocket"), r.Header.Get("Sec-WebSocket-Key") != "":
		// also if a proxy has dropped the Upgrade: then it is told so, instead of a stream that it can't read
		if offers(r.Header, formatEnvelope.transport) {
			return formatEnvelope
		}
		return formatWebSocket
	case headerHas(r.Header, "Accept", "text/event-stream"):
		return formatSSE
	case headerHas(r.Header, "Accept", "application/x-ndjson"):
		return formatNDJSON
	}
	return formatText
}

// offers reports whether a WebSocket's client speaks a subprotocol. Their names count letter by letter. One that nobody here
// speaks is left unanswered: it is the client's to go on without it or to close (RFC 6455, 4.1 and 4.2.2).
func offers(h http.Header, subprotocol string) bool {
	for _, v := range h.Values("Sec-WebSocket-Protocol") {
		for part := range strings.SplitSeq(v, ",") {
			if strings.TrimSpace(part) == subprotocol {
				return true
			}
		}
	}
	return false
}

// headerHas reports whether a comma-separated header names a token, whatever its parameters.
func headerHas(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			part, _, _ = strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

func parseGaps(q url.Values) (bool, error) {
	switch v := q.Get("gaps"); v {
	case "", "1":
		return true, nil
	case "0":
		return false, nil
	default:
		return false, fmt.Errorf("gaps=%s: must be 0 or 1.", quote(v))
	}
}

// parseStart finds out where each topic begins: Last-Event-ID beats since beats tail.
func (req *request) parseStart(r *http.Request, q url.Values) error {
	common := start{tail: -1}
	if v := q.Get("tail"); v != "" {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return fmt.Errorf("tail=%s: must be a whole number from 0 to 2147483647.", quote(v))
		}
		common.tail = int(n)
	}
	for _, t := range req.topics {
		req.start[t] = common
	}
	name, value := "since", q.Get("since")
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		name, value = "Last-Event-ID", id
	}
	if value == "" {
		return nil
	}
	single, many, err := wire.ParsePositions(value)
	// Envelopes have a place for a gap at their beginning, and their clients resume with since, too: a WebSocket has no header.
	back := name == "Last-Event-ID" || req.format.objects()
	switch p := Position(single); {
	case err != nil:
		return fmt.Errorf("%s: %w.", name, err)
	case many == nil && len(req.topics) > 1:
		// An EventSource that gets 400 is dead: where its id is from a time with one topic, that is what it has seen.
		if name == "Last-Event-ID" || p == (Position{}) || p == Earliest() {
			for _, t := range req.topics {
				req.setSince(t, p, back)
			}
			return nil
		}
		return fmt.Errorf("%s: one position for %d topics; write topic=position,topic=position.", name, len(req.topics))
	case many == nil:
		req.setSince(req.topics[0], p, back)
		return nil
	}
	for _, tp := range many {
		req.setSince(tp.Topic, Position(tp.Pos), back) // also of topics that a hook will add
	}
	return nil
}

func (req *request) setSince(topic string, p Position, back bool) {
	if p == (Position{}) {
		req.start[topic] = start{tail: 0}
	} else {
		req.start[topic] = start{since: p, back: back}
	}
}

// said returns what the connection has to know of where topics begin: what goes without saying is left out.
func (req *request) said() (said map[string]start) {
	for t, from := range req.start {
		if from.at = nil; from == (start{tail: -1}) {
			continue
		}
		if said == nil {
			said = make(map[string]start)
		}
		said[t] = from
	}
	return said
}

// hold settles where the client begins in each topic, before it is answered: see topic.hold.
func (h *Hub) hold(ctx context.Context, req *request) (free func()) {
	topics := make([]*topic, 0, len(req.topics))
	h.plane.await(ctx)
	for _, name := range req.topics {
		t := h.visit(name)
		topics = append(topics, t)
		from := req.start[name]
		t.hold(&from)
		req.start[name] = from
	}
	req.held = sync.OnceFunc(func() {
		for _, t := range topics {
			h.part(t)
		}
	})
	return req.held
}

// open makes the connection known to the hub, with fan as its write side, and lets it begin. Where the hub has begun to
// close meanwhile, nothing of it remains.
func (h *Hub) open(c *Conn, req *request, o fanout.Options) bool {
	c.several.Store(len(req.topics) > 1)
	o.Hello = c.hello
	o.Rewrite = c.several.Load() && c.format.marks()
	o.Failed = c.writeFailed
	if o.Resident {
		o.Failed = c.responseFailed
	}
	o.Hold = true
	c.fan = h.pool.Add(o)
	if !h.add(c) {
		c.fan.Cancel()
		return false
	}
	defer c.fan.Release()
	c.expire()
	c.fan.Wake() // says hello
	if !apart(func() { h.welcome(c, req) }) {
		c.end(endPanic, &PanicError{Value: goexit})
	}
	return true
}

// welcome lets a connection that is known begin.
func (h *Hub) welcome(c *Conn, req *request) {
	c.hooking.Store(true)
	defer c.hookOver() // nobody reads meanwhile
	for _, f := range h.cfg.onConnect {
		if err := c.guard(func() error { return f(c) }); err != nil {
			c.end(endHook, err)
			return
		}
	}
	var err error
	why := unregisteredFor
	switch {
	case req.registers && req.hasToken:
		c.waiting = true
		err = c.register(registration{token: req.token}, func() error { return nil })
	case req.registers:
		c.await()
	default:
		err = c.begin(req)
		why = func(error) endReason { return endLimit }
	}
	req.held()
	if err != nil {
		c.end(why(err), err)
		return
	}
	h.plane.greet(c)
	c.fan.Beat() // tells a client where it stands
	c.told.Store(true)
}

// writeFailed is called when the write side has failed.
func (c *Conn) writeFailed(err error) { c.end(c.unwritten(err, false), writeCause(err)) }

// responseFailed is writeFailed for a stream that net/http writes.
func (c *Conn) responseFailed(err error) { c.end(c.unwritten(err, true), writeCause(err)) }

// begin subscribes to the topics of the request. Each id of an event stream holds all places, so every topic stands at its own
// before the first thing is sent, a gap for one.
func (c *Conn) begin(req *request) error {
	subs := make([]*subscription, len(req.topics))
	for i, t := range req.topics {
		// It may be there already, by a hook, or the connection may be ending. But hooks may have left it no room.
		s, err := c.join(t)
		if errors.Is(err, ErrTooManyTopics) || errors.Is(err, ErrTooManyFilters) {
			return fmt.Errorf("tailcast: topic %q: %w", t, err)
		}
		if subs[i] = s; s != nil {
			s.fan.Stand(stream.Position(req.start[t].since), false)
		}
	}
	for _, resumes := range []bool{false, true} { // a resume may send something; the others now come to know where they are
		for i, t := range req.topics {
			if from := req.start[t]; subs[i] != nil && (from.since != Position{}) == resumes {
				subs[i].place(from)
			}
		}
	}
	return nil
}

// tooLate says goodbye to a client whose connection has opened while the hub began to close.
func (h *Hub) tooLate(c *Conn, s fanout.Socket) {
	h.noteRefusal(c.ctx, c.remote, logRequestRefused, &refusal{sentence: "The server is shutting down."})
	_, _ = s.WriteSome(append(c.hello, c.farewell(errShutdown)...), h.cfg.writeTimeout)
}

// webSocketHandler returns what distinguishes envelopes from a bare WebSocket, and sets what c says at its end.
func webSocketHandler(c *Conn) (h fanout.Handler, subprotocols []string) {
	c.farewell = closeFrame
	if !c.format.objects() {
		if c.hub.cfg.register != nil {
			subprotocols = []string{tokenProtocol}
		}
		return &plainHandler{}, subprotocols
	}
	c.farewell = func(ce *CloseError) []byte { return append(c.format.bye(ce), closeFrame(ce)...) }
	return &objectHandler{Conn: c}, []string{formatEnvelope.transport}
}

func closeFrame(ce *CloseError) []byte {
	return wire.AppendFrame(nil, wire.OpClose, wsconn.ClosePayload(ce.Code, ce.Reason))
}

// openWebSocket returns the connection, which has begun; nil if there is none.
func (h *Hub) openWebSocket(w http.ResponseWriter, r *http.Request, req *request) *Conn {
	c := h.newConn(r.Context(), r.RemoteAddr, req)
	handler, subprotocols := webSocketHandler(c)
	ws, err := wsconn.Accept(w, r, wsconn.Options{
		ReadLimit: h.cfg.limits.MessageBytes, Control: c.control, Subprotocols: subprotocols, Compress: h.deflater != nil,
	})
	if err != nil {
		h.noteRefusal(r.Context(), r.RemoteAddr, logRequestRefused, &refusal{sentence: "The WebSocket's handshake has failed.", err: err})
		return nil // the client has been told
	}
	if ws.Compressed() {
		f := *c.format // which others have too
		f.deflater = h.deflater
		c.format = &f
	}
	nc := ws.NetConn()
	sock, direct := fanout.NewSocket(nc)
	c.ws, c.socket = ws, bottom(nc)
	opened := h.open(c, req, fanout.Options{
		Socket: sock, Direct: direct, Handler: handler,
		Abort:    c.abort,
		LastRead: c.lastHeard,
		Beats:    c.format.objects(),
		Ping:     func(dst []byte) []byte { return wire.AppendFrame(dst, wire.OpPing, nil) },
		Pong:     func(dst, data []byte) []byte { return wire.AppendFrame(dst, wire.OpPong, data) },
	})
	if !opened {
		h.tooLate(c, sock)
		ws.Linger(lingerTime, lingerBytes)
		nc.Close()
		return nil
	}
	return c
}

// live is the life of a WebSocket that has begun.
//
// What is on the stack of a goroutine that waits is a good part of what an idle connection costs: see that it is little.
func (c *Conn) live() {
	defer c.over() // also where a hook ends the goroutine
	c.readAll()
}

// over sees to what remains of a WebSocket when nothing more is read.
func (c *Conn) over() {
	c.end(endPanic, &PanicError{Value: goexit}) // unless it has ended
	c.readingOver()
	if c.free != nil {
		c.free()
	}
	c.seat.leave()
}

// abort makes a write that waits return.
func (c *Conn) abort() { c.ws.NetConn().Close() }

// readingOver sees the connection to its end when nothing more is read.
func (c *Conn) readingOver() {
	<-c.seal()
	c.ws.Linger(lingerTime, lingerBytes)
	c.ws.NetConn().Close()
	c.leave()
}

const (
	// closeTime is how long the peer has to answer a Close frame.
	closeTime = 5 * time.Second
	// A peer that was told to go may be sending still: closing a socket with unread bytes resets it, and the peer would
	// lose the Close frame that says why.
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// control is called for each control frame that is due to be sent: see wsconn.Options.
func (c *Conn) control(op wsconn.Opcode, payload []byte) {
	switch op {
	case wsconn.OpPong:
		if !c.meter.take(time.Now()) {
			c.end(endLimit, c.tooFast())
		}
		c.fan.SendPong(payload)
	case wsconn.OpClose:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ending {
			c.lastWord = wire.AppendFrame(nil, wire.OpClose, payload)
		}
	}
}

// readAll reads until the client closes, something fails, or the connection has been closed here and the client has
// answered or run out of time.
func (c *Conn) readAll() {
	for {
		data, binary, err := c.ws.Read()
		if err != nil {
			c.readFailed(err)
			return
		}
		if c.ctx.Err() != nil {
			c.ws.Discard() // what comes after our Close is not for us (RFC 6455, 5.5.1)
			continue
		}
		c.received(Inbound{Data: data, Binary: binary})
	}
}

// readFailed ends the connection because of what its reader met.
func (c *Conn) readFailed(err error) {
	var peer *wsconn.CloseError
	if errors.As(err, &peer) {
		c.end(endClient, &CloseError{Code: peer.Code, Reason: peer.Reason})
		return
	}
	var violation *wsconn.ProtocolError
	if errors.As(err, &violation) { // lastWord says so to the peer
		c.end(broken(violation.Code), &CloseError{Code: violation.Code, Reason: violation.Reason, Err: err})
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.ErrUnexpectedEOF
	}
	// The socket is gone: there is nobody left to write to. (If it is gone because the write side failed, that is the cause.)
	if werr := c.fan.Err(); werr != nil {
		c.end(c.unwritten(werr, false), werr)
	}
	c.end(c.gone(err), fmt.Errorf("tailcast: read: %w", err))
	c.fan.Abort(err)
}

// lastHeard is when the peer was last heard of, in nanoseconds since 1970.
func (c *Conn) lastHeard() int64 {
	if c.hooking.Load() {
		return time.Now().UnixNano()
	}
	return max(c.ws.LastRead().UnixNano(), c.hooked.Load())
}

func (h *Hub) closing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state != hubOpen
}

// A plainHandler is the fanout.Handler of a bare WebSocket.
type plainHandler struct{ lagger }

// Quiet is not used: a WebSocket has pings.
func (p *plainHandler) Quiet(dst []byte) []byte { return dst }

// Place is not used.
func (p *plainHandler) Place(dst []byte, _ *fanout.Sub) []byte { return dst }

// Dropped tells nothing: a bare WebSocket has no way to tell a notice from a message.
func (p *plainHandler) Dropped(dst []byte, _ int) []byte { return dst }

// Rewrite is not used.
func (p *plainHandler) Rewrite(dst []byte, _ *fanout.Sub, _ *stream.Chunk) []byte { return dst }
