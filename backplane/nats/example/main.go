// Example runs two hubs that share a JetStream stream, and nginx in front of them: whoever comes is sent to one or the other, and sees
// the same.
//
//	go run ./example
//	curl -N http://127.0.0.1:8080/
//	curl -d 'hello' http://127.0.0.1:8080/publish
//
// The broker is in this program, and keeps the stream below -store; -url takes a real one, or those of a cluster, with -creds and -replicas
// for what it asks for and how often it keeps the stream. Where nginx is not installed, a
// reverse proxy of the standard library stands in its place.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/backplane/nats"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "where the front listens")
	store := flag.String("store", "", "where the broker in here keeps the stream; a directory that goes with it by default")
	var broker nats.Config
	flag.StringVar(&broker.URL, "url", "", "of a broker that is there already, or those of a cluster, with commas")
	flag.IntVar(&broker.Replicas, "replicas", 1, "how many members of the cluster keep the stream, if it does not exist yet")
	flag.Func("creds", "a file with credentials for it", func(file string) error {
		broker.Options = append(broker.Options, natsgo.UserCredentials(file))
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *store, broker); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr, store string, broker nats.Config) error {
	dir, err := os.MkdirTemp("", "tailcast-example")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if store == "" {
		store = filepath.Join(dir, "stream")
	}
	if broker.URL == "" {
		s, err := startBroker(store)
		if err != nil {
			return err
		}
		defer func() { s.Shutdown(); s.WaitForShutdown() }()
		broker.URL = s.ClientURL()
	}
	var nodes []string
	for _, name := range []string{"one", "two"} {
		at, stop, err := startNode(name, broker)
		if err != nil {
			return err
		}
		defer stop()
		nodes = append(nodes, at)
	}
	log.Printf("nodes at %s and %s, the front at http://%s/", nodes[0], nodes[1], addr)
	if _, err := exec.LookPath("nginx"); err != nil {
		return proxyTo(ctx, addr, nodes)
	}
	return nginxTo(ctx, dir, addr, nodes)
}

// startBroker runs a nats-server in this program.
func startBroker(store string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: store})
	if err != nil {
		return nil, err
	}
	if s.Start(); !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("the broker is not ready")
	}
	return s, nil
}

// startNode runs a node: a hub at the broker, and a server of its own. In production each is a program of its own.
func startNode(name string, broker nats.Config) (addr string, stop func(), err error) {
	broker.Node = name
	plane := nats.New(broker)
	hub := tailcast.New(tailcast.WithBackplane(plane), tailcast.WithBacklog(10), tailcast.WithLogger(slog.With("node", name)))
	mux := http.NewServeMux()
	mux.Handle("GET /", hub)
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<10))
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second) // while the broker is away Publish waits for it
			defer cancel()
			err = hub.Publish(ctx, tailcast.Message{Data: fmt.Appendf(nil, "%s, by node %s", text, name)})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Node", name)
		mux.ServeHTTP(w, r)
	})}
	go srv.Serve(l)
	return l.Addr().String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = hub.Shutdown(ctx) // the viewers have been told to come back
		_ = srv.Close()
		_ = plane.Close()
	}, nil
}

// config is nginx's: it sends each request to the next node, and passes streams and WebSockets on as they come.
const config = `
daemon off; worker_processes 1; pid %[1]s/nginx.pid; error_log stderr warn;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
	upstream nodes { server %[3]s; server %[4]s; }
	server {
		listen %[2]s;
		location / {
			proxy_pass http://nodes;
			proxy_http_version 1.1;
			proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $connection_upgrade;
			proxy_buffering off;
			proxy_read_timeout 1h;
		}
	}
}
`

// nginxTo runs nginx until ctx is done.
func nginxTo(ctx context.Context, dir, addr string, nodes []string) error {
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, config, dir, addr, nodes[0], nodes[1]), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "nginx", "-p", dir, "-c", conf)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr, cmd.WaitDelay = os.Stderr, 5*time.Second
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("nginx: %w", err)
	}
	return nil
}

// proxyTo does nginx's work until ctx is done.
func proxyTo(ctx context.Context, addr string, nodes []string) error {
	var next atomic.Uint32
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: nodes[next.Add(1)%2]})
		r.Out.Host = r.In.Host
	}}
	srv := &http.Server{Addr: addr, Handler: proxy, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
