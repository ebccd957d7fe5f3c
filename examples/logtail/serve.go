package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/viewer"
)

// serve follows the files and shows them until ctx is done.
func serve(ctx context.Context, cfg *config, stdout, stderr io.Writer) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	if len(cfg.logs) == 0 {
		d, err := newDemo(cfg.demo)
		if err != nil {
			return err
		}
		defer d.remove()
		defer wg.Wait()
		defer fail(nil)
		cfg.logs = []logFile{d.log()}
		wg.Go(func() { failed(fail, d.write(ctx)) })
	}
	if err := check(cfg.logs, stderr); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return fmt.Errorf("%w; -addr sets another address", err)
	}

	hub := tailcast.New(tailcast.WithBacklog(cfg.backlog()))
	var sources []tailcast.Source
	for _, l := range cfg.logs {
		sources = append(sources, &tailcast.Tail{Path: l.path, Topic: l.Topic, Start: cfg.start(), Checkpoint: cfg.checkpoint})
	}
	srv := &http.Server{
		Handler:           routes(hub, cfg),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // for a body that never comes; streams are not bound by it
		IdleTimeout:       time.Minute,
	}
	wg.Go(func() { failed(fail, hub.Run(ctx, sources...)) })
	wg.Go(func() { failed(fail, srv.Serve(ln)) })
	announce(stdout, ln.Addr(), cfg.logs)

	<-ctx.Done()
	err = shutdown(hub, srv)
	wg.Wait()
	var f *failure
	if errors.As(context.Cause(ctx), &f) {
		err = errors.Join(f, err)
	}
	return err
}

// A failure is an error that ends the program.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

func failed(fail context.CancelCauseFunc, err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		fail(&failure{err})
	}
}

// shutdown lets viewers have what is on its way to them, says goodbye, and stops. The hub goes first: http.Server.Shutdown
// waits for streams to end, and does not end them.
func shutdown(hub *tailcast.Hub, srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := errors.Join(hub.Shutdown(ctx), srv.Shutdown(ctx))
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // who takes nothing is cut off, which is not this program's failure
	}
	return err
}

func routes(hub *tailcast.Hub, cfg *config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /logs", stream(hub, cfg.logs))
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, hub.Stats()) })
	mux.Handle("GET /", viewer.Handler("logs", pageOptions(cfg)...))
	return mux
}

// pageOptions are for the page: it begins with a screen full of lines at least.
func pageOptions(cfg *config) []viewer.Option {
	if len(cfg.logs) == 1 {
		return []viewer.Option{viewer.WithTitle(cfg.logs[0].Name), viewer.WithTail(cfg.tail())}
	}
	return []viewer.Option{viewer.WithTitle("logtail"), viewer.WithTail(cfg.tail()), viewer.WithTopics(topics(cfg.logs)...)}
}

// stream is the hub, mounted for exactly these files.
func stream(hub *tailcast.Hub, logs []logFile) http.Handler { return hub.Handler(topics(logs)...) }

func topics(logs []logFile) []string {
	var topics []string
	for _, l := range logs {
		topics = append(topics, l.Topic)
	}
	return topics
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client may have gone
}

// announce says where to look.
func announce(w io.Writer, addr net.Addr, logs []logFile) {
	base := baseURL(addr)
	fmt.Fprintf(w, "Open  %s/\n", base)
	fmt.Fprintf(w, "or    curl -N %s/logs\n", base)
	if len(logs) > 1 {
		for _, l := range logs {
			fmt.Fprintf(w, "or    curl -N '%s/logs?topic=%s'\n", base, url.QueryEscape(l.Topic))
		}
	}
}

// baseURL is how a browser on this machine reaches addr.
func baseURL(addr net.Addr) string {
	host := addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = fmt.Sprintf("localhost:%d", tcp.Port)
	}
	return "http://" + host
}
