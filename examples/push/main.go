// Push is a service that pushes messages to users: clients register with a token for an event, and POST /push reaches all connections of
// a user that have it. Its protocol is wserver's.
//
//	go run ./examples/push
//	open http://127.0.0.1:12345/ in two tabs, and in a terminal
//	curl -H 'Content-Type: application/json' -d '{"userId":"jack","event":"topic1","message":"hello"}' http://127.0.0.1:12345/push
//
// With PUSH_SECRET set, /push wants it as Authorization: Bearer; without it, only this machine may push.
package main

import (
	"context"
	"crypto/subtle"
	_ "embed"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tailcast/tailcast"
)

//go:embed page.html
var page []byte

// users are whose tokens are whose. A real service looks into its sessions.
var users = map[string]string{"aaa": "jack", "bbb": "jill"}

func whose(_ context.Context, token string) (tailcast.Identity, error) {
	user, ok := users[token]
	if !ok {
		return tailcast.Identity{}, errors.New("unknown token")
	}
	return tailcast.Identity{User: user}, nil
}

// mayPush wants the secret, or where there is none a client on this machine.
func mayPush(secret string) func(*http.Request) error {
	return func(r *http.Request) error {
		if secret == "" {
			if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && from.Addr().IsLoopback() {
				return nil
			}
		} else if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+secret)) == 1 {
			return nil
		}
		return errors.New("not authorized")
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	addr := flag.String("addr", "127.0.0.1:12345", "listen on this `address`")
	flag.Parse()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("http://%s/", ln.Addr())
	if err := serve(ctx, ln, os.Getenv("PUSH_SECRET")); err != nil {
		log.Fatal(err)
	}
}

// serve runs the service until ctx is done.
func serve(ctx context.Context, ln net.Listener, secret string) error {
	hub := tailcast.New(tailcast.WithRegistration(whose), tailcast.WithAuthorize(tailcast.AllowAllTopics))
	mux := http.NewServeMux()
	mux.Handle("GET /ws", hub)
	mux.Handle("/push", hub.PushHandler(mayPush(secret)))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	select {
	case <-ctx.Done():
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err := errors.Join(hub.Shutdown(ctx), srv.Shutdown(ctx)) // the hub first: it says goodbye
		if errors.Is(err, context.DeadlineExceeded) {
			err = nil // who took nothing was cut off, and so is what a browser has opened and not used
		}
		return err
	case err := <-ended:
		return err
	}
}
