package tailcast_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/tailcasttest"
)

// An eventRow is a row of the table of log events in the package's documentation.
type eventRow struct {
	level slog.Level
	keys  []string
}

func eventTable(t *testing.T) map[string]eventRow {
	events := make(map[string]eventRow)
	for _, row := range table(t, "event", "level", "attributes", "when") {
		if len(row) != 4 {
			t.Fatalf("a row of %d columns: %q", len(row), row)
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(row[1])); err != nil {
			t.Fatal(err)
		}
		events[row[0]] = eventRow{level, strings.Fields(row[2])}
	}
	return events
}

// A recorder is a slog.Handler that holds each event to the documentation.
type recorder struct {
	t      *testing.T
	events map[string]eventRow
	secret []string // that must not be logged

	mu   sync.Mutex
	seen map[string][]map[string]string // attributes, by event
}

func newRecorder(t *testing.T, secret ...string) *recorder {
	return &recorder{t: t, events: eventTable(t), secret: secret, seen: make(map[string][]map[string]string)}
}

func (r *recorder) option() tailcast.Option { return tailcast.WithLogger(slog.New(r)) }

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *recorder) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r *recorder) WithGroup(string) slog.Handler { return r }

func (r *recorder) Handle(ctx context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	row, ok := r.events[rec.Message]
	if !ok {
		r.t.Errorf("%q is not documented", rec.Message)
	}
	if rec.Level != row.level {
		r.t.Errorf("%q has level %v", rec.Message, rec.Level)
	}
	attrs := make(map[string]string)
	rec.Attrs(func(a slog.Attr) bool {
		if _, twice := attrs[a.Key]; twice || !slices.Contains(row.keys, a.Key) {
			r.t.Errorf("%q has an attribute %q that it should not, or twice", rec.Message, a.Key)
		}
		attrs[a.Key] = a.Value.String()
		for _, s := range r.secret {
			if strings.Contains(a.Value.String(), s) {
				r.t.Errorf("%q has a secret: %s", rec.Message, a)
			}
		}
		return true
	})
	r.seen[rec.Message] = append(r.seen[rec.Message], attrs)
	return nil
}

// has reports whether an event was logged that has all these attributes, "*" being any value.
func (r *recorder) has(event string, attrs ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, seen := range r.seen[event] {
		if !slices.ContainsFunc(attrs, func(a string) bool {
			key, want, _ := strings.Cut(a, "=")
			got, ok := seen[key]
			return !ok || want != "*" && !strings.Contains(got, want)
		}) {
			return
		}
	}
	r.t.Errorf("no event %q with %q; there are %q", event, attrs, r.seen[event])
}

// Whatever happens, only documented events are logged, with documented attributes, without tokens and payloads; and each of them
// is, when its time comes.
func TestLogEvents(t *testing.T) {
	rec := newRecorder(t, "s3cr3t", "payload")
	t.Run("requests and connections", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { logRequests(t, rec) }) })
	t.Run("registrations", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { logRegistrations(t, rec) }) })
	t.Run("hooks", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { logHooks(t, rec) }) })
	t.Run("sources", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { logSources(t, rec) }) })
	t.Run("backplane", func(t *testing.T) { synctest.Test(t, func(t *testing.T) { logBackplane(t, rec) }) })
	t.Run("tails", func(t *testing.T) { logTails(t, rec) })
	for event := range rec.events {
		if len(rec.seen[event]) == 0 && event != "tail unwatched" && !(event == "tail unreadable" && runtime.GOOS == "windows") {
			// the former takes a limit of the system's, the latter a link
			t.Errorf("%q was not logged", event)
		}
	}
}

func logRequests(t *testing.T, rec *recorder) {
	s := newSite(t, rec.option(), tailcast.WithLimits(tailcast.Limits{Connections: 3}), tailcast.WithAuthenticate(func(r *http.Request) (tailcast.Identity, error) {
		if r.Header.Get("User") == "" {
			return tailcast.Identity{}, errors.New("no session")
		}
		return tailcast.Identity{User: r.Header.Get("User")}, nil
	}))
	s.ask("", "", "")
	rec.has("request refused", "status=401", "reason=authenticate", "remote=*", "error=no session")
	s.ask("", "?tail=many", "User: ann")
	rec.has("request refused", "status=400", "reason=tail=", "remote=*")
	s.ask("", "", strings.Replace(asWS, "13", "12", 1)+"User: ann")
	rec.has("request refused", "remote=*", "reason=handshake", "error=only 13 is supported")
	for range 4 {
		s.sse("", "User: ann").nc.Close()
	}
	synctest.Wait()
	ws := s.wsWith("", http.Header{"User": {"ann"}})
	ws.WriteText("the payload")
	ws.WriteClose(1000, "payload")
	synctest.Wait()
	ws.Close()
	time.Sleep(time.Minute)
	rec.has("connection ended", "conn=*", "user=ann", "transport=sse", "remote=*", "reason=client")
	rec.has("connection ended", "conn=*", "user=ann", "transport=websocket", "remote=*", "reason=client")

	if n := s.hub.Stats().Refused; n != int64(len(rec.seen["request refused"])) {
		t.Errorf("%d requests were refused: %q", n, rec.seen["request refused"])
	}

	push := func(method, body string, auth func(*http.Request) error) {
		req := httptest.NewRequest(method, "/push", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		s.hub.PushHandler(auth).ServeHTTP(httptest.NewRecorder(), req)
	}
	push("GET", "", everybody)
	push("POST", `{"userId":"ann","event":"e","message":"payload"`, everybody)
	push("POST", `{"userId":"ann","event":"`+strings.Repeat("x", 300)+`","message":"payload"}`, everybody)
	push("POST", `{"userId":"ann","event":"e","message":"payload"}`, func(*http.Request) error { return errors.New("who is that") })
	rec.has("push refused", "status=405", "reason=*", "remote=*")
	rec.has("push refused", "status=400", "reason=topic name", "remote=*")
	rec.has("push refused", "status=401", "reason=*", "remote=*", "error=who is that")
}

func logRegistrations(t *testing.T, rec *recorder) {
	s := newSite(t, rec.option(), tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithRegistration(func(ctx context.Context, token string) (tailcast.Identity, error) {
		switch token {
		case "s3cr3t-busy":
			return tailcast.Identity{}, &tailcast.CloseError{Code: 1013, Reason: "too many of " + token, Err: fmt.Errorf("all of %s", token)}
		case "s3cr3t-panic":
			panic("a bug")
		}
		return tailcast.Identity{}, fmt.Errorf("unknown token %q", token)
	}))
	for _, text := range []string{
		`{"token":"s3cr3t","event":"orders"}`, `{"token":"s3cr3t-busy","event":"orders"}`, `{"token":"s3cr3t-panic","event":"orders"}`,
		`the payload`, `{"event":"s3cr3t"}`, `{"token":["s3cr3t"],"event":"orders"}`, `{"token":"s3cr3t","event":5}`,
	} {
		s.ws("").WriteText(text)
		synctest.Wait()
		envelopes := s.envelopes("").ws
		if command, ok := strings.CutPrefix(text, "{"); ok {
			envelopes.WriteText(`{"type":"register",` + command)
		}
		synctest.Wait()
	}
	s.wsWith("", http.Header{"Sec-Websocket-Protocol": {"tailcast.token, " + base64.RawURLEncoding.EncodeToString([]byte("s3cr3t-handshake"))}})
	s.ask("", "", asWS+"Sec-WebSocket-Protocol: tailcast.token, s3cr3t!")
	rec.has("request refused", "status=400", "reason=Sec-WebSocket-Protocol")
	time.Sleep(time.Minute)
	rec.has("registration refused", "conn=*", "remote=*", "code=4401", "reason=not accepted", `error=unknown token "…"`)
	rec.has("registration refused", "code=1013", "reason=too many of …", "error=all of …")
	rec.has("registration refused", "code=4401", "reason=the first message has to be")
	rec.has("registration refused", "code=4408", "reason=no registration within 15s")
	rec.has("connection ended", "reason=unregistered")
	rec.has("connection ended", "reason=panic")
}

func logHooks(t *testing.T, rec *recorder) {
	s := newSite(t, rec.option(),
		tailcast.WithAfterRead(func(_ *tailcast.Conn, in tailcast.Inbound) error {
			if string(in.Data) == "panic" {
				panic("a bug")
			}
			return errors.New("no: " + string(in.Data)) // BeforeClose gets it, and nobody else
		}),
		tailcast.WithFilter("f", func(v string) (func(*tailcast.Message) bool, error) {
			if v == "1" {
				panic("a bug of compile")
			}
			return func(*tailcast.Message) bool { panic("a bug of match") }, nil
		}))
	s.ask("", "?f=1", "")
	s.ws("?f=2")
	ws, other := s.ws(""), s.ws("")
	s.publish("a payload")
	ws.WriteText("panic")
	other.WriteText("payload")
	synctest.Wait()
	rec.has("hook panicked", "conn=*", "panic=a bug", "stack=log_test.go")
	rec.has("hook panicked", "panic=a bug of compile", "stack=log_test.go")
	rec.has("hook panicked", `filter="f"="2"`, "panic=a bug of match", "stack=log_test.go")
	rec.has("request refused", "status=500", "error=a bug of compile")
	time.Sleep(time.Minute)
	rec.has("connection ended", "reason=hook")
}

func logSources(t *testing.T, rec *recorder) {
	s := newSite(t, rec.option(), tailcast.WithRetention(tailcast.Retention{Messages: 10}))
	times := 0
	_ = s.hub.Run(t.Context(), &onceMore{func() error {
		switch times++; times {
		case 1:
			return errors.New("no network")
		case 2:
			panic("a bug")
		}
		return tailcast.Permanent(errors.New("no such stream"))
	}})
	rec.has("source will run again", "source=*tailcast_test.onceMore", "error=no network", "pause=100ms")
	rec.has("source will run again", "error=a bug", "pause=200ms", "stack=log_test.go")
	rec.has("source failed", "source=*tailcast_test.onceMore", "error=no such stream")

	tries := 0
	b := &badReplayer{tape: tape{data: numbered(1, 100), next: make(chan int)}, f: func(y func(tailcast.Message, error) bool) {
		switch tries++; tries {
		case 1:
			y(tailcast.Message{}, errors.New("the archive is busy"))
		case 2:
			y(tailcast.Message{}, tailcast.Permanent(errors.New("the archive is gone")))
		default:
			y(tailcast.Message{}, tailcast.ErrUnknownPosition)
		}
	}}
	go s.hub.Run(t.Context(), b)
	b.next <- 50
	synctest.Wait()
	for range 2 {
		s.sse("", "Last-Event-ID: 15.3")
		time.Sleep(time.Minute)
		synctest.Wait()
	}
	rec.has("replay position unknown", "error=unknown position")
	rec.has("replay broke off", "error=the archive is busy")
	rec.has("replay failed", "error=the archive is gone")
}

// onceMore is a Source that is run again as long as it fails.
type onceMore struct{ f func() error }

func (o *onceMore) Run(context.Context, tailcast.Publisher) error { return o.f() }

func logTails(t *testing.T, rec *recorder) {
	inDir(t, func(d *logDir, newHub func(...tailcast.Option) *site) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		s := newHub(rec.option())
		path := func(name string) string { return filepath.Join(d.dir, name) }
		defer d.follow(s, &tailcast.Tail{Path: "later.log", Topic: "later"})()
		rec.has("tail missing", "path="+path("later.log"), "error=*")
		d.append("later.log", "a payload\n")
		time.Sleep(5 * time.Second)
		rec.has("tail recovered", "path="+path("later.log"))

		must(os.Mkdir(path("dir.log"), 0o755))
		defer d.follow(s, &tailcast.Tail{Path: "dir.log", Topic: "dir"})()
		rec.has("tail irregular", "path="+path("dir.log"), "error=*")

		if runtime.GOOS != "windows" {
			must(os.Symlink("loop.log", path("loop.log")))
			defer d.follow(s, &tailcast.Tail{Path: "loop.log", Topic: "loop"})()
			rec.has("tail unreadable", "path="+path("loop.log"), "error=*")
		}

		d.append("kept.log", "a payload\n")
		must(os.WriteFile(path("kept.pos"), []byte("17"), 0o600))
		stop := d.follow(s, &tailcast.Tail{Path: "kept.log", Topic: "kept", Checkpoint: path("kept.pos")})
		rec.has("tail checkpoint", "path="+path("kept.log"), "error=no checkpoint")
		stop()
		defer d.follow(s, &tailcast.Tail{Path: "kept.log", Topic: "kept", Checkpoint: path("sub/kept.pos"), Start: tailcast.FromStart})()
		rec.has("tail checkpoint", "path="+path("kept.log"), "error=cannot be written")
		must(os.Mkdir(path("sub"), 0o755))
		d.append("kept.log", "another payload\n")
		time.Sleep(10 * time.Second)
		rec.has("tail checkpoint written", "path="+path("kept.log"))

		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, strings.Repeat("a payload of a rotated file\n", 1000))
		z.Close()
		must(os.WriteFile(path("packed.log.1.gz"), b.Bytes()[:b.Len()-20], 0o644))
		d.append("packed.log", "a payload\n")
		defer d.follow(s, &tailcast.Tail{Path: "packed.log", Topic: "packed"})()
		s.get("?topic=packed&since=earliest")
		time.Sleep(10 * time.Second)
		rec.has("tail damaged", "path="+path("packed.log"), "error=packed.log.1.gz")

		must(s.hub.Publish(t.Context(), tailcast.Message{Topic: "many/one.txt", Data: []byte("a payload")}))
		d.append("one.txt", "a payload\n")
		defer d.follow(s, &tailcast.Tail{Path: "*.txt", Topic: "many/", Start: tailcast.FromStart})()
		time.Sleep(10 * time.Second)
		rec.has("tail failed", "path="+path("one.txt"), "error=numbered by")
	})
}

// Each event of a follower has a name of its own.
func TestTailEventsHaveNames(t *testing.T) {
	events, names := eventTable(t), make(map[string]bool)
	for _, f := range parsed(t, "internal/follow") {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if !strings.HasPrefix(v.Names[0].Name, "Event") {
					continue
				}
				event, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
				name := tailcast.TailEvent(event)
				if _, ok := events[name]; err != nil || !ok || names[name] {
					t.Errorf("%s = %q is %q in the log: not documented, or not its alone", v.Names[0], event, name)
				}
				names[name] = true
			}
		}
	}
	if len(names) < 9 {
		t.Errorf("found only %v", names)
	}
}

// Only log.go logs, and what it logs are its constants, all of which are documented. The internal packages log nothing.
func TestOneFileLogs(t *testing.T) {
	events := eventTable(t)
	documented := 0
	for name, f := range parsed(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if n.Sel.Name == "logger" && name != "log.go" && name != "options.go" {
					t.Errorf("%s uses the logger", name)
				}
			case *ast.ValueSpec:
				if name != "log.go" || len(n.Values) != 1 {
					return true
				}
				lit, ok := n.Values[0].(*ast.BasicLit)
				if !ok {
					return true
				}
				text, _ := strconv.Unquote(lit.Value)
				if _, ok := events[text]; ok {
					documented++
				} else if !slices.ContainsFunc(slices.Collect(maps.Values(events)), func(r eventRow) bool { return slices.Contains(r.keys, text) }) {
					t.Errorf("%s = %q is in no row of the table", n.Names[0], text)
				}
			}
			return true
		})
	}
	if documented != len(events) {
		t.Errorf("%d constants for %d documented events", documented, len(events))
	}
	for _, pkg := range list(t, "{{.ImportPath}}", "./internal/...") {
		for _, imp := range list(t, `{{join .Imports "\n"}}`, pkg) {
			if imp == "log" || strings.HasPrefix(imp, "log/") {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}

// parsed are the files of a directory that are no tests, by name.
func parsed(t *testing.T, dir string) map[string]*ast.File {
	t.Helper()
	names, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]*ast.File)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
	}
	return files
}

func logBackplane(t *testing.T, rec *recorder) {
	plane := tailcasttest.NewSharedLog().Node()
	s := newSite(t, rec.option(), tailcast.WithBackplane(plane))
	s.publish("payload")
	plane.Cut()
	synctest.Wait()
	rec.has("backplane away", "source=*tailcasttest.LogNode", "error=cut off")
	plane.Restore()
	synctest.Wait()
	rec.has("backplane back", "source=*tailcasttest.LogNode")
}
