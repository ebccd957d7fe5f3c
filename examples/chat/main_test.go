package main

//lint:file-ignore SA1019 Its authors go on with the library under another path; CONTRIBUTING says why it stays here.

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nhooyr.io/websocket"
)

type client struct {
	t *testing.T
	*websocket.Conn
}

func enter(t *testing.T, url, name string) client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, url+"?name="+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return client{t, conn}
}

func (c client) say(message string) {
	c.t.Helper()
	if err := c.Write(c.t.Context(), websocket.MessageText, []byte(message)); err != nil {
		c.t.Fatal(err)
	}
}

func (c client) want(messages ...string) {
	c.t.Helper()
	for _, want := range messages {
		if _, data, err := c.Read(c.t.Context()); string(data) != want || err != nil {
			c.t.Fatalf("got %s, %v; want %s", data, err, want)
		}
	}
}

func TestChat(t *testing.T) {
	hub := newRoom()
	defer hub.Close()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	ann := enter(t, srv.URL, "ann")
	ann.want(`{"type":"join","from":"ann"}`)
	bob := enter(t, srv.URL, "bob")
	bob.want(`{"type":"join","from":"ann"}`, `{"type":"join","from":"bob"}`)
	ann.want(`{"type":"join","from":"bob"}`)
	ann.say(`{"type":"say","from":"bob","text":"hello"}`) // nobody speaks for another
	ann.want(`{"type":"say","from":"ann","text":"hello"}`)
	bob.want(`{"type":"say","from":"ann","text":"hello"}`)
	ann.say(`{"type":"whisper","text":"not to me"}`)
	ann.say(`{"type":"say","text":"to all"}`)
	ann.want(`{"type":"say","from":"ann","text":"to all"}`)
	bob.want(`{"type":"whisper","from":"ann","text":"not to me"}`, `{"type":"say","from":"ann","text":"to all"}`)
	bob.Close(websocket.StatusNormalClosure, "")
	ann.want(`{"type":"leave","from":"bob"}`)
	ann.say("hello?")
	_, data, err := ann.Read(t.Context())
	if string(data) == `{"type":"leave","from":"ann"}` { // she may still be there to be told
		_, data, err = ann.Read(t.Context())
	}
	if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("after what is no message: %s, %v", data, err)
	}

	cat := enter(t, srv.URL, "cat") // gets what was said before
	cat.want(`{"type":"join","from":"ann"}`)
	for range 50 {
		cat.say(`{"type":"say","text":"spam"}`)
	}
	for err = nil; err == nil; {
		_, _, err = cat.Read(t.Context())
	}
	if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("after too many messages: %v", err)
	}
	if _, resp, err := websocket.Dial(t.Context(), srv.URL, nil); err == nil || resp.StatusCode != 401 {
		t.Errorf("without a name: %v", err)
	}
	if !strings.Contains(string(page), "/chat") {
		t.Error("no page")
	}
}
