package main

//lint:file-ignore SA1019 Its authors go on with the library under another path; CONTRIBUTING says why it stays here.

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"nhooyr.io/websocket"
)

func TestPushReachesTheUsersConnections(t *testing.T) {
	for _, secret := range []string{"", "s3cret"} {
		url := start(t, secret)
		tabs := []*websocket.Conn{register(t, url, `{"token": "aaa", "event": "topic1"}`), register(t, url, `{"token": "aaa", "event": "topic1"}`)}
		jill := register(t, url, `{"token":"bbb","event":"topic1"}`)
		for want := ""; want != "message sent to 2 clients\n"; { // the registrations are on their way
			_, want = push(t, url, secret, `{"userId":"jack","event":"topic1","message":"hello"}`)
		}
		for _, tab := range tabs {
			if _, data, err := tab.Read(t.Context()); string(data) != "hello" || err != nil {
				t.Errorf("got %q, %v", data, err)
			}
		}
		for answer := ""; answer != "message sent to 1 clients\n"; {
			_, answer = push(t, url, secret, `{"userId":"jill","event":"topic1","message":"for jill"}`)
		}
		if _, data, err := jill.Read(t.Context()); string(data) != "for jill" || err != nil {
			t.Errorf("jill got %q, %v", data, err)
		}
		if code, _ := push(t, url, "wrong", `{}`); secret != "" && code != http.StatusUnauthorized {
			t.Errorf("with a wrong secret: %d", code)
		}
		refused := register(t, url, `{"token":"ccc","event":"topic1"}`)
		if _, _, err := refused.Read(t.Context()); websocket.CloseStatus(err) != 4401 {
			t.Errorf("with a wrong token: %v", err)
		}
		resp, err := http.Get(url + "/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), "new WebSocket") {
			t.Errorf("the page: %s", body)
		}
	}
}

func register(t *testing.T, url, message string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func push(t *testing.T, url, secret, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/push", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/plain")
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer)
}

// start runs the service on a free port until the test ends.
func start(t *testing.T, secret string) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, ln, secret) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String()
}
