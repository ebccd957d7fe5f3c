package tailcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"regexp/syntax"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/fanout"
	"github.com/tailcast/tailcast/internal/stream"
)

const (
	// maxFilterBytes is how long the value of a parameter may be that says what passes.
	maxFilterBytes = 256
	// maxFilters is how many filters a topic may have at a time.
	maxFilters = 32
	// maxFilterSteps is how large an expression may be that is compiled, in instructions: for each byte of a message it takes
	// time for each of them, at worst.
	maxFilterSteps = 1000
)

// parameters are those of the query that have a meaning already.
var parameters = []string{"topic", "since", "tail", "grep", "invert", "gaps", "token"}

// A filterRule is what one WithFilter says.
type filterRule struct {
	name    string
	compile func(string) (func(*Message) bool, error)
}

// A filter is what a client wants to see. In a topic, all who ask for the same share one: see filterUse.
type filter struct {
	key    string // what was asked for
	grep   *regexp.Regexp
	invert bool
	own    []func(*Message) bool
}

// parseFilter reads what a request wants to see, nil for everything.
func (h *Hub) parseFilter(ctx context.Context, q url.Values) (*filter, *refusal) {
	f := new(filter)
	invert, err := parseInvert(q)
	if err != nil {
		return nil, refusalf(http.StatusBadRequest, "%v", err)
	}
	grep, err := filterValue(q, "grep")
	if err == nil && grep != "" {
		f.invert = invert
		f.grep, err = compileGrep(grep)
		f.key = fmt.Sprintf("grep=%q invert=%t", grep, invert)
	}
	if err != nil {
		return nil, refusalf(http.StatusBadRequest, "%v", err)
	}
	for i := range h.cfg.filters {
		if no := h.compileOwn(ctx, f, &h.cfg.filters[i], q); no != nil {
			return nil, no
		}
	}
	if f.key == "" {
		return nil, nil
	}
	return f, nil
}

// compileOwn adds what one of the application's parameters says.
func (h *Hub) compileOwn(ctx context.Context, f *filter, rule *filterRule, q url.Values) *refusal {
	value, err := filterValue(q, rule.name)
	if err != nil {
		return refusalf(http.StatusBadRequest, "%v", err)
	}
	if value == "" {
		return nil
	}
	var match func(*Message) bool
	err = h.ask(ctx, func() (err error) { match, err = rule.compile(value); return err })
	var panicked *PanicError
	switch {
	case errors.As(err, &panicked):
		return &refusal{status: http.StatusInternalServerError, sentence: "The server cannot read " + quote(rule.name) + ": something is wrong with it.", err: err}
	case err != nil:
		return refusalf(http.StatusBadRequest, "%s=%s: %s.", plain(rule.name), quote(value), strings.TrimSuffix(plain(err.Error()), "."))
	case match != nil:
		f.own = append(f.own, match)
		f.key += fmt.Sprintf(" %q=%q", rule.name, value)
	}
	return nil
}

// filterValue is the value of a parameter that says what passes, "" for none.
func filterValue(q url.Values, name string) (string, error) {
	values := q[name]
	switch {
	case len(values) > 1:
		return "", fmt.Errorf("%s comes twice.", plain(name))
	case len(values) == 1 && len(values[0]) > maxFilterBytes:
		return "", fmt.Errorf("%s=%s: %d bytes, the limit is %d.", plain(name), quote(values[0]), len(values[0]), maxFilterBytes)
	case len(values) == 1:
		return values[0], nil
	}
	return "", nil
}

func parseInvert(q url.Values) (bool, error) {
	switch v := q.Get("invert"); v {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	default:
		return false, fmt.Errorf("invert=%s: must be 0 or 1.", quote(v))
	}
}

// plain is a text that others have made, fit to be shown: printable, on one line, and not long.
func plain(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// compileGrep compiles a regular expression. The error is a sentence that says where it is wrong.
func compileGrep(expr string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, grepError(expr, err)
	}
	// 256 bytes can come to 250 000 steps, which take 50 MB and much time to be counted exactly.
	n := steps(tree)
	if n < 10*maxFilterSteps {
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			return nil, grepError(expr, err)
		}
		n = len(prog.Inst)
	}
	if n > maxFilterSteps {
		return nil, fmt.Errorf("grep: expression %s comes to %d steps, the limit is %d.", quote(expr), n, maxFilterSteps)
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, grepError(expr, err)
	}
	return re, nil
}

// steps is about how many instructions an expression comes to.
func steps(re *syntax.Regexp) int {
	n := 1
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpCapture:
		n = 2
	case syntax.OpConcat, syntax.OpRepeat:
		n = 0
	}
	for _, sub := range re.Sub {
		n += steps(sub)
	}
	if re.Op == syntax.OpRepeat { // the package refuses more than 1000 repetitions, nested ones multiplied
		n *= max(re.Min, re.Max, 1)
	}
	return n
}

func grepError(expr string, err error) error {
	var e *syntax.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("grep: expression %s cannot be used.", quote(expr))
	}
	return fmt.Errorf("grep: expression %s has an error at byte %d: %s.", quote(expr), grepErrorAt(expr, e)+1, e.Code)
}

// grepErrorAt is the place in expr of an error that the package regexp/syntax has found, which only says what it is. The shortest
// beginning of expr that has the same error ends with it. All longer ones have it too, so few of them have to be tried.
func grepErrorAt(expr string, e *syntax.Error) int {
	switch e.Code {
	case syntax.ErrInvalidUTF8:
		for i, r := range expr {
			if _, n := utf8.DecodeRuneInString(expr[i:]); r == utf8.RuneError && n == 1 {
				return i
			}
		}
		return 0
	case syntax.ErrMissingParen:
		return len(expr)
	case syntax.ErrTrailingBackslash:
		return len(expr) - 1
	case syntax.ErrLarge, syntax.ErrNestingDepth:
		return 0
	}
	end := sort.Search(len(expr), func(i int) bool {
		_, err := syntax.Parse(expr[:i], syntax.Perl)
		var found *syntax.Error
		return errors.As(err, &found) && found.Code == e.Code && (found.Expr == e.Expr || e.Code == syntax.ErrUnexpectedParen)
	})
	if e.Code == syntax.ErrUnexpectedParen {
		return max(end-1, 0)
	}
	return max(end-len(e.Expr), 0)
}

// match reports whether a message passes.
func (f *filter) match(topic string, r *stream.Record) bool {
	if f.grep != nil && f.grep.Match(r.Data) == f.invert {
		return false
	}
	if len(f.own) == 0 {
		return true
	}
	m := Message{
		Topic: topic, Data: r.Data, Binary: r.Flags&stream.Binary != 0, Partial: r.Flags&stream.Partial != 0, Pos: Position(r.Pos),
	}
	if r.Time != 0 {
		m.Time = time.Unix(0, r.Time)
	}
	for _, own := range f.own {
		if !own(&m) {
			return false
		}
	}
	return true
}

// A filterUse is a filter in use in a topic: one for all who ask for the same, so that it is asked once about each message.
type filterUse struct {
	stream.Filter
	topic *topic
	hub   *Hub
	what  *filter
	over  atomic.Bool // it has panicked

	// Guarded by topic.mu.
	uses    int                        // by requests and subscriptions
	leftAt  uint64                     // when the last one went, of those that went
	viewers map[*subscription]struct{} // of these, the subscriptions
}

// filterIDs numbers filters: one that has panicked is not to be mistaken for the next one that is asked for the same.
var filterIDs atomic.Uint64

func newFilterUse(h *Hub, t *topic, f *filter) *filterUse {
	u := &filterUse{topic: t, hub: h, what: f, viewers: make(map[*subscription]struct{})}
	u.Filter = stream.Filter{
		Key:   strconv.FormatUint(filterIDs.Add(1), 10),
		Match: u.match,
		Go:    h.host,
	}
	return u
}

// useFilter returns the topic's filter that does what f does, for a subscription or for a request that will have one, until
// freeFilter. One that is not used goes when there is no room.
func (t *topic) useFilter(h *Hub, f *filter, s *subscription) (*filterUse, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.filters[f.key]
	if u == nil {
		if len(t.filters) >= maxFilters && !t.evictFilter() {
			return nil, fmt.Errorf("%w: %d, which is the limit", ErrTooManyFilters, maxFilters)
		}
		u = newFilterUse(h, t, f)
		if t.filters == nil {
			t.filters = make(map[string]*filterUse)
		}
		t.filters[f.key] = u
	}
	u.uses++
	if s != nil {
		u.viewers[s] = struct{}{}
	}
	return u, nil
}

// evictFilter forgets the filter that is not used for longest; mu is held.
func (t *topic) evictFilter() bool {
	var oldest *filterUse
	for _, u := range t.filters {
		if u.uses == 0 && (oldest == nil || u.leftAt < oldest.leftAt) {
			oldest = u
		}
	}
	if oldest == nil {
		return false
	}
	delete(t.filters, oldest.what.key)
	return true
}

func (t *topic) freeFilter(u *filterUse, s *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(u.viewers, s)
	if u.uses--; u.uses == 0 {
		u.leftAt = filterIDs.Add(1)
	}
}

// reserve makes sure that a request's topics have room for its filter, until free.
func (h *Hub) reserve(req *request) (free func(), _ *refusal) {
	if req.filter == nil {
		return nil, nil
	}
	var uses []*filterUse
	free = func() {
		for _, u := range uses {
			u.topic.freeFilter(u, nil)
			h.part(u.topic)
		}
	}
	for _, name := range req.topics {
		t := h.visit(name)
		u, err := t.useFilter(h, req.filter, nil)
		if err != nil {
			h.part(t)
			free()
			return nil, refusalf(http.StatusServiceUnavailable, "There are %d filters in use in topic %s, which is the limit: try again later.", maxFilters, quote(name))
		}
		uses = append(uses, u)
	}
	return free, nil
}

// takeFilter lets a new subscription read through f.
func (s *subscription) takeFilter(f *filter) (err error) {
	if f != nil {
		s.filter, err = s.topic.useFilter(s.conn.hub, f, s)
	}
	return err
}

func (s *subscription) dropFilter() {
	if s.filter != nil {
		s.topic.freeFilter(s.filter, s)
	}
}

// encoding is what it reads of a log of its topic, which fan wakes.
func (s *subscription) encoding(log *stream.Log, fan *fanout.Topic) *stream.Encoding {
	copied := *s.conn.format // the encoding may outlive the connection, and is not to keep its request in memory
	f := &copied
	if s.filter == nil {
		return log.Encoding(f.key(), f.encoder(s.topic.name))
	}
	chosen := &s.filter.Filter
	return log.Filtered(f.key(), f.encoder(s.topic.name), chosen, func() { fan.WakeFiltered(chosen) })
}

// match is stream.Filter's. A panic ends the filter, and all who read through it.
func (u *filterUse) match(r *stream.Record) (pass, ok bool) {
	defer func() {
		if v := recover(); v != nil {
			u.panicked(&PanicError{Value: v, Stack: debug.Stack()})
			pass, ok = false, false
		}
	}()
	if u.over.Load() {
		return false, false
	}
	return u.what.match(u.topic.name, r), true
}

func (u *filterUse) panicked(p *PanicError) {
	if u.over.Swap(true) { // for a message of another log
		return
	}
	t := u.topic
	t.mu.Lock()
	if t.filters[u.what.key] == u { // who asks for it now gets another one
		delete(t.filters, u.what.key)
	}
	ctx := context.Background()
	viewers := make([]*subscription, 0, len(u.viewers))
	for s := range u.viewers {
		viewers = append(viewers, s)
		ctx = s.conn.ctx
	}
	t.mu.Unlock()
	u.hub.panicked(ctx, p, slog.String(logTopic, t.name), slog.String(logFilter, u.what.key))
	for _, s := range viewers {
		s.conn.end(endPanic, p)
	}
}
