// Embed shows how a service that has its own routes takes in a hub: a shop whose orders, and whose log, can be watched live.
//
//	go run ./examples/embed
//	curl -N http://127.0.0.1:8080/orders/live           watch the orders,
//	curl -d tea http://127.0.0.1:8080/orders            in another terminal make one,
//	curl -N http://127.0.0.1:8080/logs?since=earliest   and read the service's log from its beginning
//
// Three things happen here: routes mounts the hub beside everything else, takeOrder publishes, and serve starts and stops it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tailcast/tailcast"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	ln, err := net.Listen("tcp", "127.0.0.1:8080")
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(ctx, ln, filepath.Join(os.TempDir(), "embed.log")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the service until ctx is done.
func serve(ctx context.Context, ln net.Listener, logPath string) error {
	file, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	hub := tailcast.New(tailcast.WithBacklog(10))
	shop := &shop{hub: hub, log: slog.New(slog.NewTextHandler(file, nil))}
	srv := &http.Server{
		Handler:           shop.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // for a body that never comes; streams are not bound by it
	}

	ended := make(chan error, 2)
	go func() { ended <- hub.Run(ctx, &tailcast.Tail{Path: logPath, Start: tailcast.LastLines(10)}) }()
	go func() { ended <- srv.Serve(ln) }()
	select {
	case <-ctx.Done():
	case err = <-ended: // neither ends by itself
	}

	// The hub first: it lets viewers have what is on its way to them, and says goodbye. http.Server.Shutdown alone would wait
	// for ever for streams that never end, and it does not know of WebSockets.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stopped := errors.Join(hub.Shutdown(ctx), srv.Shutdown(ctx))
	if errors.Is(stopped, context.DeadlineExceeded) {
		stopped = nil // who took nothing has been cut off, which is not this program's failure
	}
	return errors.Join(err, stopped)
}

type shop struct {
	hub *tailcast.Hub
	log *slog.Logger
}

func (s *shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("POST /orders", s.takeOrder)
	mux.Handle("GET /orders/live", s.hub.Handler("orders"))
	mux.Handle("GET /logs", s.hub) // the default topic
	return mux
}

func (s *shop) takeOrder(w http.ResponseWriter, r *http.Request) {
	what, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	err = s.hub.Publish(r.Context(), tailcast.Message{Topic: "orders", Data: fmt.Appendf(nil, "ordered: %q", what)})
	if err != nil { // ErrClosed: the service is shutting down
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	s.log.Info("order taken", "bytes", len(what))
	w.WriteHeader(http.StatusCreated)
}
