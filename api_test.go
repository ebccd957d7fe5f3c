package tailcast_test

import (
	"bytes"
	"context"
	"flag"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
)

// A change that breaks a program of somebody's breaks this one first.
var (
	_ func(...tailcast.Option) *tailcast.Hub                                                    = tailcast.New
	_ func(*tailcast.Hub, http.ResponseWriter, *http.Request)                                   = (*tailcast.Hub).ServeHTTP
	_ func(*tailcast.Hub, ...string) http.Handler                                               = (*tailcast.Hub).Handler
	_ func(*tailcast.Hub, context.Context, ...tailcast.Message) error                           = (*tailcast.Hub).Publish
	_ func(*tailcast.Hub, context.Context, ...tailcast.Source) error                            = (*tailcast.Hub).Run
	_ func(*tailcast.Hub, context.Context, string, tailcast.Position) messages                  = (*tailcast.Hub).Subscribe
	_ func(*tailcast.Hub, context.Context, string, int64) error                                 = (*tailcast.Hub).WaitLag
	_ func(*tailcast.Hub, context.Context, string, string, []byte) (tailcast.PushResult, error) = (*tailcast.Hub).Push
	_ func(*tailcast.Hub, context.Context, string, string) (int, error)                         = (*tailcast.Hub).Drop
	_ func(*tailcast.Hub, context.Context, string, error) (int, error)                          = (*tailcast.Hub).Disconnect
	_ func(*tailcast.Hub, func(*http.Request) error) http.Handler                               = (*tailcast.Hub).PushHandler
	_ func(*tailcast.Hub) iter.Seq[*tailcast.Conn]                                              = (*tailcast.Hub).Conns
	_ func(*tailcast.Hub, string) iter.Seq[string]                                              = (*tailcast.Hub).Presence
	_ func(*tailcast.Hub, string) (tailcast.Position, bool)                                     = (*tailcast.Hub).Head
	_ func(*tailcast.Hub) tailcast.Stats                                                        = (*tailcast.Hub).Stats
	_ func(*tailcast.Hub, context.Context) error                                                = (*tailcast.Hub).Shutdown
	_ func(*tailcast.Hub) error                                                                 = (*tailcast.Hub).Close
	_ func(*tailcast.Conn) string                                                               = (*tailcast.Conn).ID
	_ func(*tailcast.Conn) tailcast.Identity                                                    = (*tailcast.Conn).Identity
	_ func(*tailcast.Conn) []string                                                             = (*tailcast.Conn).Topics
	_ func(*tailcast.Conn) string                                                               = (*tailcast.Conn).Remote
	_ func(*tailcast.Conn) string                                                               = (*tailcast.Conn).Transport
	_ func(*tailcast.Conn) context.Context                                                      = (*tailcast.Conn).Context
	_ func(*tailcast.Conn, context.Context, string, tailcast.Position) error                    = (*tailcast.Conn).Subscribe
	_ func(*tailcast.Conn, string) error                                                        = (*tailcast.Conn).Unsubscribe
	_ func(*tailcast.Conn, tailcast.Message) error                                              = (*tailcast.Conn).Send
	_ func(*tailcast.Conn, error) error                                                         = (*tailcast.Conn).Close
	_ func(*tailcast.Conn, func(*tailcast.Conn, tailcast.Inbound) error)                        = (*tailcast.Conn).AfterRead
	_ func(*tailcast.Conn, func(*tailcast.Conn, error))                                         = (*tailcast.Conn).BeforeClose
	_ func(tailcast.TopicPublisher, string) (tailcast.Position, bool)                           = tailcast.TopicPublisher.Head
	_ func(tailcast.TopicPublisher, string, tailcast.Position) error                            = tailcast.TopicPublisher.Begin
	_ func() tailcast.Position                                                                  = tailcast.Earliest
	_ func(tailcast.Position) ([]byte, error)                                                   = tailcast.Position.MarshalText
	_ func(*tailcast.Position, []byte) error                                                    = (*tailcast.Position).UnmarshalText
	_ func(func(context.Context) messages) tailcast.Source                                      = tailcast.FromSeq
	_ func(io.Reader, string) tailcast.Source                                                   = tailcast.Lines
	_ func(error) error                                                                         = tailcast.Permanent
	_ func(string) *tailcast.Tail                                                               = tailcast.NewTail
	_ func(int) tailcast.Start                                                                  = tailcast.LastLines
	_ func(context.Context, tailcast.Access) error                                              = tailcast.AllowAllTopics
	_ func(int) tailcast.Option                                                                 = tailcast.WithBacklog
	_ func(tailcast.Retention) tailcast.Option                                                  = tailcast.WithRetention
	_ func(int64) tailcast.Option                                                               = tailcast.WithMemoryLimit
	_ func(tailcast.Limits) tailcast.Option                                                     = tailcast.WithLimits
	_ func(string, tailcast.TopicConfig) tailcast.Option                                        = tailcast.WithTopicConfig
	_ func(func(*http.Request) (tailcast.Identity, error)) tailcast.Option                      = tailcast.WithAuthenticate
	_ func(func(context.Context, tailcast.Access) error) tailcast.Option                        = tailcast.WithAuthorize
	_ func(func(context.Context, string) (tailcast.Identity, error)) tailcast.Option            = tailcast.WithRegistration
	_ func(...string) tailcast.Option                                                           = tailcast.WithOrigins
	_ func(...string) tailcast.Option                                                           = tailcast.WithHosts
	_ func(func(*tailcast.Conn) error) tailcast.Option                                          = tailcast.WithOnConnect
	_ func(func(*tailcast.Conn, tailcast.Inbound) error) tailcast.Option                        = tailcast.WithAfterRead
	_ func(func(*tailcast.Conn, error)) tailcast.Option                                         = tailcast.WithBeforeClose
	_ func(interval, timeout time.Duration) tailcast.Option                                     = tailcast.WithPing
	_ func(time.Duration) tailcast.Option                                                       = tailcast.WithHeartbeat
	_ func(time.Duration) tailcast.Option                                                       = tailcast.WithWriteTimeout
	_ func(time.Duration) tailcast.Option                                                       = tailcast.WithFlushInterval
	_ func(int) tailcast.Option                                                                 = tailcast.WithCompression
	_ func() tailcast.Option                                                                    = tailcast.WithDetach
	_ func(tailcast.LagPolicy) tailcast.Option                                                  = tailcast.WithLagPolicy
	_ func(string, func(string) (func(*tailcast.Message) bool, error)) tailcast.Option          = tailcast.WithFilter
	_ func(tailcast.Backplane) tailcast.Option                                                  = tailcast.WithBackplane
	_ func(*slog.Logger) tailcast.Option                                                        = tailcast.WithLogger
	_ []tailcast.LagPolicy                                                                      = []tailcast.LagPolicy{tailcast.LagCatchUp, tailcast.LagSkip, tailcast.LagClose}
	_ []tailcast.Start                                                                          = []tailcast.Start{tailcast.FromEnd, tailcast.FromStart}
	_ []tailcast.Action                                                                         = []tailcast.Action{tailcast.ActionRead, tailcast.ActionPublish}

	_ http.Handler       = (*tailcast.Hub)(nil)
	_ tailcast.Publisher = (*tailcast.Hub)(nil)
	_ tailcast.Source    = (*tailcast.Tail)(nil)
	_ tailcast.Replayer  = (*tailcast.Tail)(nil)
	_ tailcast.Source    = tailcast.SourceFunc(nil)
	_ tailcast.Publisher = tailcast.PublisherFunc(nil)
	_ error              = (*tailcast.CloseError)(nil)
	_ error              = (*tailcast.PanicError)(nil)

	_ = []error{
		tailcast.ErrClosed, tailcast.ErrTopicOwner, tailcast.ErrMessage, tailcast.ErrUnknownPosition, tailcast.ErrQueueFull,
		tailcast.ErrWriteTimeout, tailcast.ErrPingTimeout, tailcast.ErrNotSubscribed, tailcast.ErrSubscribed,
		tailcast.ErrTopicName, tailcast.ErrTooManyTopics, tailcast.ErrTooManyFilters,
	}
	_ = tailcast.Message{Topic: "", Data: []byte(nil), Binary: false, Partial: false, Time: time.Time{}, Pos: tailcast.Position{}, Gap: (*tailcast.Gap)(nil)}
	_ = tailcast.Gap{From: tailcast.Position{}, To: tailcast.Position{}, Count: int64(0), Bytes: int64(0), Possible: false, Reason: ""}
	_ = tailcast.Position{Epoch: uint64(0), Offset: uint64(0), Check: uint32(0)}
	_ = tailcast.Identity{User: "", Expires: time.Time{}, Value: any(nil)}
	_ = tailcast.Access{Identity: tailcast.Identity{}, Action: tailcast.ActionRead, Topic: "", Remote: ""}
	_ = tailcast.Inbound{Data: []byte(nil), Binary: false}
	_ = tailcast.Limits{Connections: 0, ConnectionsPerUser: 0, ConnectionsPerAddress: 0, Topics: 0, MessageBytes: int64(0), MessageRate: float64(0), MessageBurst: 0}
	_ = tailcast.Retention{Bytes: int64(0), Messages: 0, Age: time.Duration(0)}
	_ = tailcast.TopicConfig{Retention: tailcast.Retention{}, Backlog: 0, Lag: tailcast.LagCatchUp}
	_ = tailcast.PushResult{Matched: 0, Queued: 0, Dropped: 0}
	_ = tailcast.CloseError{Code: 0, Reason: "", Err: error(nil)}
	_ = tailcast.PanicError{Value: any(nil), Stack: []byte(nil)}
	_ = tailcast.Tail{Path: "", Topic: "", Checkpoint: "", Rotated: "", Start: tailcast.FromEnd, MaxLine: 0, Poll: time.Duration(0), Grace: time.Duration(0), MaxOpen: 0}
)

type messages = iter.Seq2[tailcast.Message, error]

// TestLater holds what comes in a later version to a clear error.
func TestLater(t *testing.T) {
	hub := tailcast.New()
	defer hub.Close()
	for name, option := range map[string]func(){
		"WithRegistration": func() { tailcast.WithRegistration(nil) }, // without a function it cannot be meant
		"WithLagPolicy(0)": func() { tailcast.WithLagPolicy(0) },      // changes nothing in a TopicConfig, so it is no policy
		"WithBackplane":    func() { tailcast.WithBackplane(nil) },
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.HasPrefix(v, "tailcast: "+name+": ") {
					t.Errorf("%s: %v", name, v)
				}
			}()
			option()
		}()
	}
}

var update = flag.Bool("update", false, "write testdata/api.txt anew")

// TestAPI holds everything exported to testdata/api.txt, so that no name comes, goes or changes unseen.
func TestAPI(t *testing.T) {
	const file = "testdata/api.txt"
	api := strings.Join(exported(t), "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(api), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	frozen, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	was, is := strings.Split(string(frozen), "\n"), strings.Split(api, "\n")
	for _, line := range was {
		if !slices.Contains(is, line) {
			t.Errorf("gone:  %s", line)
		}
	}
	for _, line := range is {
		if !slices.Contains(was, line) {
			t.Errorf("new:   %s", line)
		}
	}
	if t.Failed() {
		t.Log("if that is meant: go test -run TestAPI . -args -update")
	}
}

// exported returns a line for each exported declaration, field and method of the package in this directory.
func exported(t *testing.T) (lines []string) {
	fset := token.NewFileSet()
	add := func(prefix string, node any) {
		var b bytes.Buffer
		if err := printer.Fprint(&b, fset, node); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, prefix+strings.Join(strings.Fields(b.String()), " "))
	}
	names, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.FileExports(f) // drops what is not exported, fields of structs included
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil || exportedType(d.Recv.List[0].Type) {
					d.Body = nil
					add("", d)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					addSpec(add, d.Tok, s)
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}

func exportedType(e ast.Expr) bool {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	return ast.IsExported(e.(*ast.Ident).Name)
}

func addSpec(add func(string, any), tok token.Token, s ast.Spec) {
	switch s := s.(type) {
	case *ast.ValueSpec:
		for _, n := range s.Names {
			add(tok.String()+" ", n)
		}
	case *ast.TypeSpec:
		var fields *ast.FieldList
		switch typ := s.Type.(type) {
		case *ast.StructType:
			fields = typ.Fields
			add("type ", s.Name)
		case *ast.InterfaceType:
			fields = typ.Methods
			add("type ", s.Name)
		default:
			add("type ", s)
			return
		}
		for _, f := range fields.List {
			for _, n := range f.Names {
				add("type "+s.Name.Name+", "+n.Name+" ", f.Type)
			}
			if len(f.Names) == 0 {
				add("type "+s.Name.Name+", ", f.Type)
			}
		}
	}
}
