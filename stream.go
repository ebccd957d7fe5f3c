package tailcast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
)

// serveStream serves a client that reads a response without end.
func (h *Hub) serveStream(w http.ResponseWriter, r *http.Request, req *request) {
	points, err := flushPoints(w)
	if err != nil {
		h.refuse(w, r, refusalf(http.StatusInternalServerError, "%v", err))
		return
	}
	streamHeader(w.Header(), &req.format)
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	c := h.newConn(r.Context(), r.RemoteAddr, req)
	if takeable(w, r) {
		h.serveTaken(c, w, r, req)
	} else {
		h.serveResponse(c, w, r, req, points)
	}
}

// serveResponse writes a stream through its ResponseWriter: HTTP/2, and whatever stands behind middleware.
func (h *Hub) serveResponse(c *Conn, w http.ResponseWriter, r *http.Request, req *request, points []http.ResponseWriter) {
	w.WriteHeader(http.StatusOK)
	sock := newResponseSocket(w, points)
	defer sock.close()
	if err := sock.timed(h.cfg.writeTimeout, sock.flush); err != nil {
		h.noteRefusal(r.Context(), r.RemoteAddr, logRequestRefused, &refusal{sentence: "The response cannot be begun.", err: err})
		var p *PanicError
		if errors.As(err, &p) { // an empty 200 would look like a stream that has ended
			panic(p.Value)
		}
		return
	}
	if !h.open(c, req, fanout.Options{Socket: sock, Resident: true, Abort: sock.abort, Handler: streamHandler(c)}) {
		h.tooLate(c, sock)
		return
	}
	sock.late = func() { c.end(endWriteTimeout, ErrWriteTimeout) } // not before: until then nobody knows of c
	_ = c.fan.Run(r.Context())                                     // Failed is told
	<-c.seal()
	c.leave()
}

// takeable reports whether the connection can be taken over from net/http: HTTP/1, and nothing wrapped around its
// ResponseWriter that would miss the writes.
func takeable(w http.ResponseWriter, r *http.Request) bool {
	t := reflect.TypeOf(w)
	return r.ProtoMajor == 1 && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "net/http" && t.Elem().Name() == "response"
}

// serveTaken takes the connection over, as for a WebSocket: then the workers write it, from the bytes that all viewers
// share, the kernel's queue is bounded, and net/http's buffers are free. The response has no length and no chunks: it ends
// with the connection (RFC 9112, 6.3).
func (h *Hub) serveTaken(c *Conn, w http.ResponseWriter, r *http.Request, req *request) {
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.refuse(w, r, refusalf(http.StatusInternalServerError, "The connection cannot be taken over: %v.", err))
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Time{})
	sock, direct := fanout.NewSocket(nc)
	handler := streamHandler(c)
	c.hello = append(responseHead(r, w.Header()), c.hello...)
	c.socket = bottom(nc)
	if !h.open(c, req, fanout.Options{Socket: sock, Direct: direct, Abort: func() { nc.Close() }, Handler: handler}) {
		h.tooLate(c, sock)
		return
	}
	gone := context.AfterFunc(r.Context(), func() { c.end(endContext, context.Cause(r.Context())) })
	defer gone()
	stop := context.AfterFunc(c.ctx, func() { // after our end the client has a moment for its own
		<-c.seal()
		if half, ok := nc.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		_ = nc.SetReadDeadline(time.Now().Add(lingerTime))
	})
	defer stop()
	// The client has nothing to say. That it has gone shows in its end of the connection.
	_, err = io.Copy(io.Discard, nc)
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	if werr := c.fan.Err(); werr != nil { // the socket is gone because the write side failed: that is the cause
		c.end(c.unwritten(werr, false), werr)
	}
	c.end(c.gone(err), fmt.Errorf("tailcast: the client has gone: %w", err))
	c.fan.Abort(err)
	<-c.seal()
	c.leave()
}

// responseHead is the head of a response that ends with its connection.
func responseHead(r *http.Request, header http.Header) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/%d.%d 200 OK\r\n", r.ProtoMajor, r.ProtoMinor)
	header = header.Clone()
	header.Set("Connection", "close")
	header.Del("Content-Length")
	header.Del("Transfer-Encoding")
	if header["Date"] == nil {
		header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	_ = header.Write(&b) // it escapes line ends; a Buffer does not fail
	b.WriteString("\r\n")
	return b.Bytes()
}

// writeCause names what ends a write side.
func writeCause(err error) error {
	if errors.Is(err, context.Canceled) { // net/http's way to say that the client has gone
		return fmt.Errorf("tailcast: the client has gone: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// flushPoints returns the writers that have to be flushed, in this order; and an error that says which type is in the way
// where a flush does not get through. Mostly it is w alone: its Flush calls that of the writer inside, and so on. But many a
// Flush does nothing, or panics, where the writer inside has no Flush but only Unwrap; so that one is flushed too.
func flushPoints(w http.ResponseWriter) ([]http.ResponseWriter, error) {
	points := []http.ResponseWriter{w}
	flushing, wrapped := false, false // the writers outside: the last one has a Flush; one of them has
	for outer := w; ; {
		_, flusher := w.(http.Flusher)
		if flushing && !flusher {
			points = append(points, w)
		}
		_, other := w.(interface{ FlushError() error })
		flushing = flusher || other
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		switch {
		case ok:
			wrapped = wrapped || flushing
			w = u.Unwrap()
			continue
		case !flushing:
			return nil, fmt.Errorf("Streaming is not possible behind %T: it has neither Flush nor Unwrap.", w)
		}
		if encoding := w.Header().Get("Content-Encoding"); encoding != "" && outer != w && !wrapped {
			return nil, fmt.Errorf("Streaming is not possible behind %T: its Content-Encoding is %s, and nothing that compresses has a Flush.",
				outer, quote(encoding))
		}
		return points, nil
	}
}

// streamHeader sets what a stream's response says about itself.
func streamHeader(h http.Header, f *format) {
	contentType := "text/plain; charset=utf-8"
	switch f.transport {
	case formatSSE.transport:
		contentType = "text/event-stream"
	case formatNDJSON.transport:
		contentType = "application/x-ndjson"
	}
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep a stream until it has a buffer full of it
}

// A responseSocket is a streaming response as a fanout.Socket. It has no deadline, so that a server's WriteTimeout, meant for whole
// responses, does not end a stream. What a write may take is watched by a timer, which ends it by a deadline that has passed: to
// set one for each write, and to take it back, costs over HTTP/2 more than the write. (It must not stay: one that passes ends the
// stream though nothing is being written.)
type responseSocket struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	points []*http.ResponseController // see flushPoints
	late   func()                     // called when a write does not return though its time is up
	slow   bool
	timer  *time.Timer // runs out no later than the write's time that is going on

	mu      sync.Mutex // guards the rest, and setting a deadline
	over    bool       // the handler has returned, or is about to: w must not be touched
	cut     bool       // by abort
	free    bool       // it has no deadline
	armed   bool       // timer runs
	writing bool
	began   time.Time // with writing
	limit   time.Duration
	expired bool
}

func newResponseSocket(w http.ResponseWriter, points []http.ResponseWriter) *responseSocket {
	s := &responseSocket{w: w, rc: http.NewResponseController(w), late: func() {}}
	for _, p := range points {
		s.points = append(s.points, http.NewResponseController(p))
	}
	return s
}

// TryWrite cannot be had from a ResponseWriter.
func (s *responseSocket) TryWrite([]byte) (int, error) { return 0, nil }

// What a client gets at a time, with a write timeout for each, and what one gets that took long over its last: a
// ResponseWriter does not tell of progress within a write, and a client that takes a little is not to be cut off.
const (
	usualStep = 16 << 10
	slowStep  = 2 << 10
)

// WriteSome writes a part of p and flushes.
func (s *responseSocket) WriteSome(p []byte, timeout time.Duration) (n int, err error) {
	step := usualStep
	if s.slow {
		step = slowStep
	}
	p = p[:min(len(p), step)]
	err = s.timed(timeout, func() error {
		_, err := s.w.Write(p)
		if err == nil {
			err = s.flush()
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	s.slow = time.Since(s.began) > 100*time.Millisecond
	return len(p), nil
}

// flush flushes all that has to be flushed.
func (s *responseSocket) flush() error {
	last := len(s.points) - 1
	for _, p := range s.points[:last] {
		if err := flushPart(p); err != nil {
			return err
		}
	}
	return s.points[last].Flush()
}

// flushPart flushes where there is another writer to be flushed behind. A Flush that misses the method of the writer inside
// has done its own part, though it panics or says so.
func flushPart(p *http.ResponseController) (err error) {
	defer func() {
		switch v := recover().(type) {
		case nil, *runtime.TypeAssertionError:
		default:
			panic(v)
		}
	}()
	if err = p.Flush(); errors.Is(err, http.ErrNotSupported) {
		err = nil
	}
	return err
}

// timed calls write, and sees to it that it returns in time. A ResponseWriter that panics, as some middleware does to end a
// request, fails.
func (s *responseSocket) timed(timeout time.Duration, write func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.wrote()
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	if err := s.write(timeout); err != nil {
		return lost(err)
	}
	err = write()
	if s.wrote() {
		return os.ErrDeadlineExceeded // net/http does not always say that this is why
	}
	return lost(err)
}

// write says that a write begins.
func (s *responseSocket) write(timeout time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return os.ErrClosed
	}
	if !s.free {
		if err := s.rc.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		s.free = true
	}
	s.writing, s.expired, s.began, s.limit = true, false, time.Now(), timeout
	switch {
	case s.timer == nil:
		s.timer = time.AfterFunc(timeout, s.expire)
	case !s.armed:
		s.timer.Reset(timeout)
	}
	s.armed = true
	return nil
}

// wrote says that a write has ended. It reports whether its time was up.
func (s *responseSocket) wrote() (expired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
	return s.expired
}

// expire ends a write whose time is up. Over HTTP/2 a deadline ends the stream, but a write returns only when the connection takes
// that, or has ended. The handler cannot return before; but nobody else has to wait for it.
func (s *responseSocket) expire() {
	const grace = time.Second
	late := false
	s.mu.Lock()
	switch left := s.limit - time.Since(s.began); {
	case !s.writing:
		s.armed = false
	case left > 0: // it was armed for a write before
		s.timer.Reset(left)
	case !s.expired:
		s.expired = true
		s.cutShort()
		s.timer.Reset(grace)
	default:
		late = true
	}
	s.mu.Unlock()
	if late {
		s.late()
	}
}

// cutShort makes a write that waits return; mu is held. Where the ResponseWriter panics, the write goes on as where it has no deadline:
// here it would take a timer's goroutine with it, or a worker.
func (s *responseSocket) cutShort() {
	if s.over {
		return
	}
	defer func() { _ = recover() }()
	_ = s.rc.SetWriteDeadline(time.Unix(1, 0))
}

// lost names a failed write. net/http has many words for a client that has gone, some of its own that match nothing: which
// one it is depends on what is being done at that moment.
func lost(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("tailcast: the client has gone: %w: %w", io.ErrUnexpectedEOF, err)
}

// abort makes a write that waits return, and lets no other begin.
func (s *responseSocket) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut = true
	s.cutShort()
}

// close is called before the handler returns.
func (s *responseSocket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
}

// streamHandler returns what distinguishes SSE, NDJSON and text, and sets what c says at its beginning and end.
func streamHandler(c *Conn) fanout.Handler {
	switch c.format.transport {
	case formatSSE.transport:
		c.hello, c.farewell = sseHello(), sseFarewell
		return &sseHandler{Conn: c}
	case formatNDJSON.transport:
		c.farewell = c.format.bye
		return &objectHandler{Conn: c}
	}
	c.farewell = func(*CloseError) []byte { return nil }
	return &textHandler{Conn: c}
}

// reconnectAdvice is how long a client should wait before it comes back, in ms, spread so that not all come at once.
func reconnectAdvice() int { return int(jitter(2500*time.Millisecond) / time.Millisecond) }

func sseHello() []byte { return wire.AppendSSERetry(nil, reconnectAdvice()) }

func sseFarewell(ce *CloseError) []byte {
	return wire.AppendSSEControl(nil, "bye", wire.AppendBye(nil, ce.Code, ce.Reason, reconnectAdvice()), nil)
}

func sseError(reason string) []byte {
	return wire.AppendSSEControl(nil, "error", wire.AppendError(nil, reason), nil)
}

// An sseHandler writes what an event stream needs beside its messages.
type sseHandler struct {
	lagger
	*Conn
}

// Quiet tells the client where it stands: a block of only an id, which EventSource remembers and does not dispatch. So a
// client that has not got a message for long, or none yet, resumes from here.
func (h *sseHandler) Quiet(dst []byte) []byte {
	if id := h.appendID(nil, nil, stream.Position{}); len(id) > 0 {
		return wire.AppendSSEID(dst, id)
	}
	return wire.AppendSSEComment(dst, "hb")
}

// Place is not used: each id holds all places.
func (h *sseHandler) Place(dst []byte, _ *fanout.Sub) []byte { return dst }

// Dropped declares that direct messages found no room.
func (h *sseHandler) Dropped(dst []byte, n int) []byte {
	return h.dropped(dst, n)
}

// Rewrite gives each message the id of all topics: an event stream has one Last-Event-ID.
func (h *sseHandler) Rewrite(dst []byte, s *fanout.Sub, chunk *stream.Chunk) []byte {
	pos := s.Cursor().Pos
	var id []byte
	for i := range chunk.Len() {
		frame := chunk.Frame(i)
		if len(frame) == 0 {
			continue
		}
		if p := chunk.Pos(i); p != (stream.Position{}) {
			pos = p
		}
		id = h.appendID(id[:0], s, pos)
		dst = append(dst, "topic: "...) // a field that EventSource does not know, and ignores
		dst = append(dst, s.Name...)
		dst = append(dst, '\n')
		dst = append(dst, frame[:len(frame)-1]...) // without the empty line: a later id counts
		dst = wire.AppendSSEID(dst, id)
	}
	return dst
}

// appendID appends where the viewer stands in its topics: in s at pos, in all others at their cursors.
func (h *sseHandler) appendID(dst []byte, s *fanout.Sub, pos stream.Position) []byte {
	subs := h.fan.Subs()
	places := make([]wire.TopicPosition, 0, len(subs))
	for _, sub := range subs {
		p := wire.Position(place(sub))
		if sub == s {
			p = wire.Position(pos)
		}
		if !p.IsZero() {
			places = append(places, wire.TopicPosition{Topic: sub.Name, Pos: p})
		}
	}
	switch {
	case len(places) == 0:
		return dst
	case h.several.Load():
		return wire.AppendPositions(dst, places)
	}
	return places[0].Pos.Append(dst)
}

// place is where the viewer of a subscription stands: the last message that it was sent, or the beginning of a topic that
// has no past at all, so that a client that comes back misses nothing of it.
func place(sub *fanout.Sub) stream.Position {
	cur := sub.Cursor()
	t := sub.Owner.(*subscription).topic
	if cur.Pos != (stream.Position{}) || cur.Seq != 1 {
		return t.head(cur.Pos)
	}
	if base := t.log.Base(); base != (stream.Position{}) {
		return base
	}
	if r, _ := t.known(); r != nil {
		return cur.Pos // its past may be long
	}
	return stream.Position(Earliest())
}

// A textHandler writes plain text as tail -f does.
type textHandler struct {
	lagger
	*Conn
	last    *fanout.Sub // whose line was written last; touched only in the connection's turn
	partial bool        // that line has no end yet
}

// Quiet has nothing to say: text has no place for it.
func (h *textHandler) Quiet(dst []byte) []byte { return dst }

// Place has nothing to say either.
func (h *textHandler) Place(dst []byte, _ *fanout.Sub) []byte { return dst }

// Dropped declares that direct messages found no room.
func (h *textHandler) Dropped(dst []byte, n int) []byte {
	return h.dropped(dst, n)
}

// Rewrite puts a header before the lines of another topic than before.
func (h *textHandler) Rewrite(dst []byte, s *fanout.Sub, chunk *stream.Chunk) []byte {
	if len(chunk.Bytes) == 0 {
		return dst
	}
	if h.last != s {
		if h.partial {
			dst = append(dst, '\n')
		}
		if h.last != nil {
			dst = append(dst, '\n')
		}
		dst = append(dst, "==> "...)
		dst = append(dst, s.Name...)
		dst = append(dst, " <==\n"...)
		h.last = s
	}
	h.partial = chunk.Bytes[len(chunk.Bytes)-1] != '\n'
	return append(dst, chunk.Bytes...)
}
