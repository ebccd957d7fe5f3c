package testnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/testnet"
)

func TestAcceptWaitsForDialAndEndsWithClose(t *testing.T) {
	both(t, func(t *testing.T) {
		l := testnet.Listen()
		accepted := make(chan net.Conn)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("Accept = %v, want net.ErrClosed", err)
					}
					close(accepted)
					return
				}
				accepted <- c
			}
		}()
		client, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		if server != client.Peer() || server.RemoteAddr().String() != client.LocalAddr().String() || server.LocalAddr().String() != "192.0.2.1:80" {
			t.Errorf("Accept returned %v → %v", server.RemoteAddr(), server.LocalAddr())
		}
		l.Close()
		<-accepted
		if _, err := l.Dial(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial after Close = %v, want ECONNREFUSED", err)
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close = %v", err)
		}
		if _, err := client.Write([]byte("x")); err != nil {
			t.Errorf("an accepted connection must live on: %v", err)
		}
	})
}

func TestCloseResetsWhatNobodyAccepted(t *testing.T) {
	l := testnet.Listen()
	client, _ := l.Dial(t.Context())
	l.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %v, want ECONNRESET", err)
	}
}

func TestDialFromHasTheGivenAddress(t *testing.T) {
	l := testnet.Listen()
	l.Local = &net.TCPAddr{IP: net.IPv6loopback, Port: 8080}
	c, err := l.DialFrom(t.Context(), &net.TCPAddr{IP: net.IPv4(203, 0, 113, 9), Port: 7})
	if err != nil || c.Peer().RemoteAddr().String() != "203.0.113.9:7" || c.RemoteAddr().String() != "[::1]:8080" {
		t.Errorf("DialFrom = %v → %v, %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if _, err := l.Dial(ctx); err != why {
		t.Errorf("Dial with a cancelled context = %v", err)
	}
}

// serve runs a server in a bubble and stops it before the bubble ends.
func serve(t *testing.T, h http.Handler) *testnet.Listener {
	l := testnet.Listen()
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return l
}

func TestAnHTTPServerStreamsInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for i := range 10 {
				fmt.Fprintf(w, "%d ", i)
				http.NewResponseController(w).Flush()
				time.Sleep(time.Hour)
			}
			io.WriteString(w, r.URL.Path+" "+r.RemoteAddr)
		}))
		begin := time.Now()
		resp, err := testnet.HTTPClient(l).Get("http://anything/path")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := "0 1 2 3 4 5 6 7 8 9 /path 198.51.100.1:1024"; string(body) != want || err != nil {
			t.Errorf("body %q, %v; want %q", body, err, want)
		}
		if got := time.Since(begin); got != 10*time.Hour {
			t.Errorf("the stream took %v", got)
		}
	})
}

func TestASlowHeaderMeetsTheServersTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t, http.NotFoundHandler())
		c, _ := l.Dial(t.Context())
		c.Write([]byte("GET / HTTP/1.1\r\nHo"))
		begin := time.Now()
		io.ReadAll(c)
		if got := time.Since(begin); got != time.Minute {
			t.Errorf("the connection lived for %v, want ReadHeaderTimeout", got)
		}
	})
}

func TestAClientThatGoesAwayCancelsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan time.Time, 1)
		l := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			gone <- time.Now()
		}))
		resp, err := testnet.HTTPClient(l).Get("http://anything/")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		closed := time.Now()
		resp.Body.Close()
		if at := <-gone; at != closed {
			t.Errorf("the server noticed after %v", at.Sub(closed))
		}
	})
}
