package tailcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// The events that the hub logs, all of them. Their texts do not change, and what varies is in attributes: see "Log events" in the
// package's documentation. Nothing is logged on the way of a message.
const (
	logRequestRefused      = "request refused"
	logPushRefused         = "push refused"
	logRegistrationRefused = "registration refused"
	logConnectionEnded     = "connection ended"
	logHookPanicked        = "hook panicked"
	logSourceWaiting       = "source will run again"
	logSourceFailed        = "source failed"
	logReplayBrokeOff      = "replay broke off"
	logReplayFailed        = "replay failed"
	logReplayUnknown       = "replay position unknown"
	logBackplaneAway       = "backplane away"
	logBackplaneBack       = "backplane back"

	logTailMissing      = "tail missing"
	logTailUnreadable   = "tail unreadable"
	logTailIrregular    = "tail irregular"
	logTailUnwatched    = "tail unwatched"
	logTailDamaged      = "tail damaged"
	logTailFailed       = "tail failed"
	logTailRecovered    = "tail recovered"
	logTailCheckpoint   = "tail checkpoint"
	logTailCheckpointed = "tail checkpoint written"
)

// The keys of their attributes.
const (
	logConn      = "conn"      // Conn.ID
	logUser      = "user"      // Identity.User
	logRemote    = "remote"    // the peer's address
	logTransport = "transport" // Conn.Transport
	logTopic     = "topic"
	logFilter    = "filter" // what its viewers asked for
	logSource    = "source" // its type
	logPath      = "path"   // of a file or a directory
	logStatus    = "status" // of HTTP
	logCode      = "code"   // of a WebSocket's close
	logReason    = "reason"
	logError     = "error"
	logPause     = "pause"
	logPanic     = "panic" // the value
	logStack     = "stack"
)

// tailEvents are what a follower reports.
var tailEvents = map[string]struct {
	level   slog.Level
	message string
}{
	follow.EventMissing:      {slog.LevelWarn, logTailMissing},
	follow.EventUnreadable:   {slog.LevelWarn, logTailUnreadable},
	follow.EventIrregular:    {slog.LevelWarn, logTailIrregular},
	follow.EventUnwatched:    {slog.LevelWarn, logTailUnwatched},
	follow.EventDamaged:      {slog.LevelWarn, logTailDamaged},
	follow.EventFailed:       {slog.LevelWarn, logTailFailed},
	follow.EventRecovered:    {slog.LevelInfo, logTailRecovered},
	follow.EventCheckpoint:   {slog.LevelWarn, logTailCheckpoint},
	follow.EventCheckpointed: {slog.LevelInfo, logTailCheckpointed},
}

// log is the only caller of the logger. An attribute without a value is left out: an error that is nil, a text that is empty. It
// reports whether that went well.
func (h *Hub) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) (ok bool) {
	defer h.spare(ctx)
	there := attrs[:0]
	for _, a := range attrs {
		if a.Value.Kind() == slog.KindString && a.Value.String() == "" || a.Value.Kind() == slog.KindAny && a.Value.Any() == nil {
			continue
		}
		there = append(there, a)
	}
	h.cfg.logger.LogAttrs(ctx, level, message, there...)
	return true
}

func (h *Hub) logs(ctx context.Context, level slog.Level) bool {
	defer h.spare(ctx)
	return h.cfg.logger.Enabled(ctx, level)
}

// spare is deferred around the logger, whose panic must not leave behind what is being ended, nor, on a goroutine of the hub's, end
// the process.
func (h *Hub) spare(ctx context.Context) {
	if v := recover(); v != nil {
		h.panics.Add(1)
		complain(ctx, "logger", &PanicError{Value: v, Stack: debug.Stack()})
	}
}

func errorAttr(err error) slog.Attr { return slog.Any(logError, err) }

// stackAttr is the stack of a panic that err holds.
func stackAttr(err error) slog.Attr {
	var p *PanicError
	if errors.As(err, &p) {
		return slog.String(logStack, string(p.Stack))
	}
	return slog.String(logStack, "")
}

// noteRefusal counts and logs a request, or a push, that is refused.
func (h *Hub) noteRefusal(ctx context.Context, remote, message string, no *refusal) {
	h.refused.Add(1)
	if h.logs(ctx, slog.LevelDebug) {
		attrs := []slog.Attr{slog.String(logReason, no.sentence), slog.String(logRemote, remote), errorAttr(no.err)}
		if no.status != 0 { // else it was answered before
			attrs = append(attrs, slog.Int(logStatus, no.status))
		}
		h.log(ctx, slog.LevelDebug, message, attrs...)
	}
}

// logRegistration logs a registration that is refused. What the application says of it may have the token in it.
func (c *Conn) logRegistration(token string, err error) {
	var p *PanicError
	if !c.hub.logs(c.ctx, slog.LevelDebug) || errors.As(err, &p) || errors.Is(err, ErrClosed) { // a panic has been logged
		return
	}
	ce := closeError(err)
	attrs := []slog.Attr{
		slog.String(logConn, c.id), slog.String(logRemote, c.remote), slog.Int(logCode, ce.Code), slog.String(logReason, without(token, ce.Reason)),
	}
	if ce.Err != nil {
		attrs = append(attrs, slog.String(logError, without(token, ce.Err.Error())))
	}
	c.hub.log(c.ctx, slog.LevelDebug, logRegistrationRefused, attrs...)
}

// logEnd logs the end of a connection. Its cause is not logged: that is for BeforeClose, and may hold what a client has sent.
func (c *Conn) logEnd(why endReason) {
	if c.hub.logs(c.ctx, slog.LevelDebug) {
		c.hub.log(context.WithoutCancel(c.ctx), slog.LevelDebug, logConnectionEnded, slog.String(logConn, c.id), slog.String(logUser, c.Identity().User),
			slog.String(logTransport, c.Transport()), slog.String(logRemote, c.remote), slog.String(logReason, why.String()))
	}
}

// panicked reports the panic of a function of the application: to the logger, or else where net/http would have.
func (h *Hub) panicked(ctx context.Context, p *PanicError, attrs ...slog.Attr) {
	h.panics.Add(1)
	if h.logs(ctx, slog.LevelError) &&
		h.log(ctx, slog.LevelError, logHookPanicked, append(attrs, slog.String(logPanic, fmt.Sprint(p.Value)), stackAttr(p))...) {
		return
	}
	complain(ctx, "hook", p)
}

// complain reports a panic where net/http would have.
func complain(ctx context.Context, whose string, p *PanicError) {
	srv, _ := ctx.Value(http.ServerContextKey).(*http.Server)
	if srv != nil && srv.ErrorLog != nil {
		srv.ErrorLog.Printf("tailcast: %s panicked: %v\n%s", whose, p.Value, p.Stack)
		return
	}
	fmt.Fprintf(os.Stderr, "tailcast: %s panicked: %v\n%s", whose, p.Value, p.Stack)
}

func (r *sourceRun) logFailed(ctx context.Context, err error) {
	r.hub.log(ctx, slog.LevelError, logSourceFailed, slog.String(logSource, r.name), errorAttr(err), stackAttr(err))
}

func (r *sourceRun) logWaiting(ctx context.Context, err error, pause time.Duration) {
	r.hub.log(ctx, slog.LevelWarn, logSourceWaiting, slog.String(logSource, r.name), errorAttr(err), slog.Duration(logPause, pause), stackAttr(err))
}

// logReplay logs that a replay has ended with an error, for good or not.
func (p *replay) logReplay(level slog.Level, message string, err error) {
	p.hub.log(p.ctx, level, message, slog.String(logTopic, p.topic.name), errorAttr(err), stackAttr(err))
}

// logBackplane logs that the backplane cannot be reached, or can again.
func (h *Hub) logBackplane(name string, err error) {
	level, message := slog.LevelInfo, logBackplaneBack
	if err != nil {
		level, message = slog.LevelWarn, logBackplaneAway
	}
	h.log(context.Background(), level, message, slog.String(logSource, name), errorAttr(err))
}

func (h *Hub) logTail(path, event string, err error) {
	if e, ok := tailEvents[event]; ok {
		h.log(context.Background(), e.level, e.message, slog.String(logPath, path), errorAttr(err))
	}
}

// without is a text without a token, also as %q and addresses show it: what asks for a token by HTTP has it in its errors.
func without(token, text string) string {
	if token == "" {
		return text
	}
	inner := func(quoted string) string { return quoted[1 : len(quoted)-1] }
	for _, form := range []string{
		token, inner(strconv.Quote(token)), inner(strconv.QuoteToASCII(token)), url.QueryEscape(token), url.PathEscape(token),
	} {
		text = strings.ReplaceAll(text, form, "…")
	}
	return text
}
