// Chat is a chat room: everybody gets what anybody says, and who comes late the last 20 messages.
//
//	go run ./examples/chat
//	open http://127.0.0.1:8080/?name=ann and http://127.0.0.1:8080/?name=bob
//
// Messages are typed JSON. Pings, dead peers, rates and close codes are the hub's work: see the page's onclose for what a client sees.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/tailcast/tailcast"
)

//go:embed page.html
var page []byte

// A message is what clients send (say, whisper is for the others only) and get (say, whisper, join, leave).
type message struct {
	Type string `json:"type"`
	From string `json:"from,omitempty"` // set here: nobody speaks for another
	Text string `json:"text,omitempty"`
}

func (m message) encode() tailcast.Message {
	data, _ := json.Marshal(m) // of strings it never fails
	return tailcast.Message{Data: data}
}

func newRoom() *tailcast.Hub {
	var hub *tailcast.Hub
	hub = tailcast.New(
		tailcast.WithBacklog(20),
		tailcast.WithLimits(tailcast.Limits{MessageBytes: 4 << 10, MessageRate: 5, MessageBurst: 20, ConnectionsPerUser: 5}),
		tailcast.WithAuthenticate(func(r *http.Request) (tailcast.Identity, error) {
			name := r.URL.Query().Get("name") // a real one looks at a session
			if name == "" || len(name) > 30 || !utf8.ValidString(name) {
				return tailcast.Identity{}, errors.New("a name has 1 to 30 bytes")
			}
			return tailcast.Identity{User: name}, nil
		}),
		tailcast.WithOnConnect(func(c *tailcast.Conn) error {
			return hub.Publish(c.Context(), message{Type: "join", From: c.Identity().User}.encode())
		}),
		tailcast.WithAfterRead(func(c *tailcast.Conn, in tailcast.Inbound) error {
			var m message
			if err := json.Unmarshal(in.Data, &m); err != nil || m.Text == "" {
				return &tailcast.CloseError{Code: 1008, Reason: `say {"type":"say","text":"…"}`}
			}
			m.From = c.Identity().User
			switch m.Type {
			case "say":
				return hub.Publish(c.Context(), m.encode())
			case "whisper":
				return c.PublishOthers(c.Context(), m.encode())
			}
			return &tailcast.CloseError{Code: 1008, Reason: "there is say, and whisper"}
		}),
		tailcast.WithBeforeClose(func(c *tailcast.Conn, _ error) {
			_ = hub.Publish(context.Background(), message{Type: "leave", From: c.Identity().User}.encode()) // or the room has closed
		}),
	)
	return hub
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	hub := newRoom()
	http.Handle("GET /chat", hub)
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { w.Write(page) })
	srv := &http.Server{Addr: "127.0.0.1:8080", ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, BaseContext: func(ln net.Listener) context.Context {
		log.Printf("http://%s/?name=ann", ln.Addr())
		return context.Background()
	}}
	context.AfterFunc(ctx, func() { srv.Close() })
	err := srv.ListenAndServe()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := errors.Join(hub.Shutdown(ctx), err); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
