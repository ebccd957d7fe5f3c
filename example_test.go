package tailcast_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/tailcast/tailcast"
)

// Follow a log file and let everybody watch it.
func ExampleHub() {
	hub := tailcast.New(tailcast.WithBacklog(100))
	http.Handle("GET /logs", hub)
	go func() { log.Fatal(hub.Run(context.Background(), tailcast.NewTail("/var/log/app.log"))) }()
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

// Publish sends a message to whoever watches.
func ExampleHub_Publish() {
	hub := tailcast.New()
	defer hub.Close()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	if err := hub.Publish(context.Background(), tailcast.Message{Data: []byte("hello, everybody")}); err != nil {
		log.Fatal(err)
	}
	resp, err := http.Get(srv.URL + "?tail=1")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	line, _ := bufio.NewReader(resp.Body).ReadString('\n')
	fmt.Print(line)
	// Output: hello, everybody
}

// A program watches a topic itself: here until it has seen an error.
func ExampleHub_Subscribe() {
	hub := tailcast.New()
	defer hub.Close()
	for _, line := range []string{"started", "ready", "error: no space left", "stopped"} {
		_ = hub.Publish(context.Background(), tailcast.Message{Data: []byte(line)})
	}
	for msg, err := range hub.Subscribe(context.Background(), "", tailcast.Earliest()) {
		if err != nil {
			log.Fatal(err)
		}
		if msg.Gap != nil {
			fmt.Println("missed:", msg.Gap.Count)
			continue
		}
		fmt.Printf("%s\n", msg.Data)
		if strings.HasPrefix(string(msg.Data), "error: ") {
			break
		}
	}
	// Output:
	// started
	// ready
	// error: no space left
}

// A parameter of one's own: ?level=warn leaves out the lines of lower levels. grep=… is there without it.
func ExampleWithFilter() {
	levels := []string{"debug", "info", "warn", "error"}
	hub := tailcast.New(tailcast.WithFilter("level", func(value string) (func(*tailcast.Message) bool, error) {
		least := slices.Index(levels, value)
		if least < 0 {
			return nil, fmt.Errorf("must be one of %s", strings.Join(levels, ", "))
		}
		return func(m *tailcast.Message) bool {
			word, _, _ := strings.Cut(string(m.Data), " ")
			return slices.Index(levels, word) >= least
		}, nil
	}))
	defer hub.Close()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	for _, line := range []string{"info started", "error disk full", "debug tick", "warn slow"} {
		if err := hub.Publish(context.Background(), tailcast.Message{Data: []byte(line)}); err != nil {
			log.Fatal(err)
		}
	}
	resp, err := http.Get(srv.URL + "?tail=10&level=warn")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for range 2 {
		line, _ := lines.ReadString('\n')
		fmt.Print(line)
	}
	// Output:
	// error disk full
	// warn slow
}

// Several topics behind one handler; a request may ask for some of them with ?topic=….
func ExampleHub_Handler() {
	hub := tailcast.New()
	http.Handle("GET /logs", hub.Handler("access.log", "error.log"))
	go func() {
		log.Fatal(hub.Run(context.Background(),
			&tailcast.Tail{Path: "/var/log/access.log", Topic: "access.log"},
			&tailcast.Tail{Path: "/var/log/error.log", Topic: "error.log", Start: tailcast.LastLines(50)}))
	}()
}

// Cookies say who a client is, and each user may read topics of his own.
func ExampleWithAuthenticate() {
	sessions := map[string]tailcast.Identity{
		"s3cr3t": {User: "alice", Expires: time.Now().Add(8 * time.Hour)},
	}
	hub := tailcast.New(
		tailcast.WithAuthenticate(func(r *http.Request) (tailcast.Identity, error) {
			cookie, err := r.Cookie("session")
			if err != nil {
				return tailcast.Identity{}, err
			}
			id, ok := sessions[cookie.Value]
			if !ok {
				return tailcast.Identity{}, errors.New("no such session")
			}
			return id, nil
		}),
		tailcast.WithAuthorize(func(_ context.Context, a tailcast.Access) error {
			if a.Action == tailcast.ActionRead && strings.HasPrefix(a.Topic, a.Identity.User+"/") {
				return nil
			}
			return fmt.Errorf("%s may not %s %s", a.Identity.User, a.Action, a.Topic)
		}),
		tailcast.WithLimits(tailcast.Limits{Connections: 10_000, ConnectionsPerUser: 20}),
	)
	http.Handle("GET /events", hub) // ?topic=alice/mail&topic=alice/jobs
}

// Where http.Server.Shutdown comes first, it begins the hub's, and the program waits for both.
func ExampleHub_Shutdown() {
	hub := tailcast.New()
	srv := &http.Server{Addr: "127.0.0.1:8080", Handler: hub, ReadHeaderTimeout: 5 * time.Second}
	srv.RegisterOnShutdown(func() {
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		hub.Shutdown(stop)
	})

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Shutdown(stop) // waits for responses, but not for WebSockets, for most streams, and for what was registered
		hub.Shutdown(stop) // does
	}()
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-ended // ListenAndServe returns as soon as Shutdown begins
}

// The hub's numbers at /debug/vars, beside those of the process: importing expvar puts its handler into http.DefaultServeMux.
func ExampleHub_Stats() {
	hub := tailcast.New()
	defer hub.Close()
	if expvar.Get("tailcast") == nil { // a name can be published once
		expvar.Publish("tailcast", expvar.Func(func() any { return hub.Stats() }))
	}
	srv := httptest.NewServer(http.DefaultServeMux)
	defer srv.Close()

	for _, line := range []string{"started", "ready"} {
		if err := hub.Publish(context.Background(), tailcast.Message{Data: []byte(line)}); err != nil {
			log.Fatal(err)
		}
	}
	resp, err := http.Get(srv.URL + "/debug/vars")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var vars struct{ Tailcast tailcast.Stats }
	if err := json.NewDecoder(resp.Body).Decode(&vars); err != nil {
		log.Fatal(err)
	}
	s := vars.Tailcast
	fmt.Println(s.Published, "messages of", s.PublishedBytes, "bytes in", s.Topics, "topic")
	fmt.Println(s.Accepted, "connections, of which", s.Ended["too_slow"], "were too slow")
	// Output:
	// 2 messages of 12 bytes in 1 topic
	// 0 connections, of which 0 were too slow
}

// A chat in a few lines: what one client sends goes to all.
func ExampleWithAfterRead() {
	var hub *tailcast.Hub
	hub = tailcast.New(tailcast.WithAfterRead(func(c *tailcast.Conn, in tailcast.Inbound) error {
		return hub.Publish(c.Context(), tailcast.Message{Data: in.Data})
	}))
	http.Handle("GET /chat", hub)
}

// Ticker is a Source of one's own.
type Ticker time.Duration

func (t Ticker) Run(ctx context.Context, pub tailcast.Publisher) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-time.After(time.Duration(t)):
			if err := pub.Publish(ctx, tailcast.Message{Data: now.AppendFormat(nil, time.RFC3339)}); err != nil {
				return err
			}
		}
	}
}

func ExampleSource() {
	hub := tailcast.New()
	go hub.Run(context.Background(), Ticker(time.Second))
}

// Lines broadcasts what a program writes.
func ExampleLines() {
	hub := tailcast.New()
	defer hub.Close()
	err := hub.Run(context.Background(), tailcast.Lines(strings.NewReader("one\ntwo\n"), ""))
	head, _ := hub.Head("")
	fmt.Println(err, head.Offset)
	// Output: <nil> 2
}
