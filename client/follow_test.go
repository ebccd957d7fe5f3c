package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/client"
	"github.com/tailcast/tailcast/tailcasttest"
)

func publish(t testing.TB, hub *tailcast.Hub, topic string, data ...string) {
	t.Helper()
	for _, d := range data {
		if err := hub.Publish(context.Background(), tailcast.Message{Topic: topic, Data: []byte(d)}); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprintf("message %d", i))
	}
	return out
}

// read takes n messages, without gaps.
func read(t testing.TB, seq func(func(tailcast.Message, error) bool), n int) (out []string) {
	t.Helper()
	for m, err := range seq {
		if err != nil {
			t.Fatalf("after %d messages: %v", len(out), err)
		}
		if m.Gap != nil {
			t.Fatalf("after %d messages: gap %+v", len(out), m.Gap)
		}
		if out = append(out, string(m.Data)); len(out) == n {
			break
		}
	}
	return out
}

func TestFollowGetsWhatIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithBacklog(10))
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)
		want := numbered(1, 5)
		publish(t, hub, "", want...)
		seq := client.Follow(t.Context(), srv.URL, client.WithHTTPClient(srv.Client()))
		if got := read(t, seq, 5); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

func TestTheEndOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New()
		defer hub.Close()
		srv := tailcasttest.Serve(t, hub)
		over := errors.New("over")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			synctest.Wait()
			cancel(over)
		}()
		n := 0
		for _, err := range client.Follow(ctx, srv.URL, client.WithHTTPClient(srv.Client())) {
			if n++; !errors.Is(err, over) || n > 1 {
				t.Errorf("%d: %v", n, err)
			}
		}
	})
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// newServer serves h on a port of the system, and returns its URL.
func newServer(t testing.TB, h http.Handler) string {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}
