package tailcast_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// TestStrangers is the matrix of origins and hosts: who is let in, and who is not.
func TestStrangers(t *testing.T) {
	const local, public = "127.0.0.1:8080", "192.0.2.1:80"
	rows := []struct {
		name    string
		listens string
		host    string
		header  string // "Name: value" lines, separated by |
		want    int
	}{
		{"a program sends no origin", public, "hub.example", "", 200},
		{"the page's own origin", public, "hub.example", "Origin: http://hub.example", 200},
		{"with the default port spelt out", public, "hub.example", "Origin: http://hub.example:80", 200},
		{"the host with the default port", public, "hub.example:80", "Origin: http://hub.example", 200},
		{"a port of its own", public, "hub.example:8080", "Origin: http://hub.example:8080", 200},
		{"another case", public, "Hub.Example", "Origin: HTTP://hub.EXAMPLE", 200},
		{"another port", public, "hub.example:8080", "Origin: http://hub.example:8081", 403},
		{"another scheme", public, "hub.example", "Origin: https://hub.example", 403},
		{"TLS ended by a proxy", public, "hub.example", "Origin: https://hub.example|X-Forwarded-Proto: https", 200},
		{"plain HTTP against a proxy with TLS", public, "hub.example", "Origin: http://hub.example|X-Forwarded-Proto: https", 403},
		{"another site", public, "hub.example", "Origin: http://evil.example", 403},
		{"a look-alike in front", public, "hub.example", "Origin: http://hub.example.evil.example", 403},
		{"a look-alike behind", public, "hub.example", "Origin: http://evilhub.example", 403},
		{"a subdomain", public, "hub.example", "Origin: http://a.hub.example", 403},
		{"a parent domain", public, "a.hub.example", "Origin: http://hub.example", 403},
		{"a trailing dot", public, "hub.example", "Origin: http://hub.example.", 403},
		{"the host as user", public, "hub.example", "Origin: http://hub.example@evil.example", 403},
		{"user information", public, "hub.example", "Origin: http://x@hub.example", 403},
		{"a path", public, "hub.example", "Origin: http://hub.example/", 403},
		{"a query", public, "hub.example", "Origin: http://hub.example?", 403},
		{"a fragment", public, "hub.example", "Origin: http://hub.example#", 403},
		{"null, of a sandboxed frame", public, "hub.example", "Origin: null", 403},
		{"nothing in it", public, "hub.example", "Origin: ", 403},
		{"no scheme", public, "hub.example", "Origin: hub.example", 403},
		{"a file", public, "hub.example", "Origin: file://", 403},
		{"an extension", public, "hub.example", "Origin: chrome-extension://hub.example", 403},
		{"two origins", public, "hub.example", "Origin: http://hub.example|Origin: http://evil.example", 403},
		{"a list of origins", public, "hub.example", "Origin: http://hub.example, http://evil.example", 403},
		{"garbage", public, "hub.example", "Origin: http://[::1", 403},
		{"an address of IPv6", public, "[2001:db8::1]:80", "Origin: http://[2001:db8::1]", 200},
		{"a friend", public, "hub.example", "Origin: https://friend.example", 200},
		{"a friend's other port", public, "hub.example", "Origin: https://friend.example:8443", 403},
		{"a friend over plain HTTP", public, "hub.example", "Origin: http://friend.example", 403},
		{"a link in another site", public, "hub.example", "Sec-Fetch-Site: cross-site", 403},
		{"a page of one's own", public, "hub.example", "Sec-Fetch-Site: same-origin", 200},
		{"typed into the address bar", public, "hub.example", "Sec-Fetch-Site: none", 200},
		{"a friend is of another site", public, "hub.example", "Origin: https://friend.example|Sec-Fetch-Site: cross-site", 200},
		{"loopback by address", local, "127.0.0.1:8080", "Origin: http://127.0.0.1:8080", 200},
		{"loopback by name", local, "localhost:8080", "Origin: http://localhost:8080", 200},
		{"loopback by name below localhost", local, "app.localhost:8080", "", 200},
		{"loopback of IPv6", local, "[::1]:8080", "", 200},
		{"another loopback address", local, "127.9.9.9", "", 200},
		{"DNS rebinding", local, "evil.example:8080", "Origin: http://evil.example:8080", 403},
		{"DNS rebinding without an origin", local, "evil.example:8080", "", 403},
		{"a name that begins like localhost", local, "localhost.evil.example", "", 403},
		{"an address that is not loopback", local, "192.0.2.7:8080", "", 403},
		{"no host, as in HTTP/1.0", local, "", "", 200},
		{"no host, and a page", local, "", "Origin: http://evil.example", 403},
		{"a host that was named", local, "logs.example", "Origin: http://logs.example", 200},
		{"the loopback of the peer from outside", public, "localhost", "Origin: http://localhost", 200},
	}
	var table strings.Builder
	table.WriteString("\n| who | listens on | Host | headers | answer |\n|---|---|---|---|---|\n")
	synctest.Test(t, func(t *testing.T) {
		hub := tailcast.New(tailcast.WithOrigins("https://friend.example"), tailcast.WithHosts("logs.example"))
		for _, addr := range []string{local, public} {
			l := testnet.Listen()
			l.Local = net.TCPAddrFromAddrPort(mustAddr(addr))
			s := serveSiteOn(t, hub, hub, l)
			for _, row := range rows {
				if row.listens != addr {
					continue
				}
				got := s.status(row.host, row.header)
				if got != row.want {
					t.Errorf("%s: host %q, %q: %d, want %d", row.name, row.host, row.header, got, row.want)
				}
				fmt.Fprintf(&table, "| %s | %s | %s | %s | %d |\n", row.name, addr, row.host, strings.ReplaceAll(row.header, "|", "; "), got)
			}
		}
	})
	t.Log(table.String())
}

// A page of another origin that was let in asks first before it sends who its user is, or where it stands.
func TestThePreflightOfAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, tailcast.WithOrigins("https://friend.example"), tailcast.WithAuthenticate(users))
		for origin, want := range map[string]int{"https://friend.example": 204, "http://evil.example": 403, "http://hub.example": 405} {
			nc := s.dial()
			io.WriteString(nc, "OPTIONS / HTTP/1.1\r\nHost: hub.example\r\nOrigin: "+origin+"\r\nAccess-Control-Request-Method: GET\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			nc.Close()
			may := resp.Header.Get("Access-Control-Allow-Headers")
			if resp.StatusCode != want || (want == 204) != (strings.Contains(may, "Authorization") && strings.Contains(may, "Last-Event-ID")) {
				t.Errorf("a page of %s: %s, may send %q", origin, resp.Status, may)
			}
		}
	})
}

// TestARefusalNamesItsCure: what a page of the user's own meets behind a proxy that changes the Host or ends TLS without a word.
func TestARefusalNamesItsCure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for _, row := range []struct{ host, origin string }{
			{"127.0.0.1:8080", "http://hub.example"},
			{"hub.example", "http://hub.example:8080"},
			{"hub.example", "https://hub.example"},
		} {
			nc := s.dial()
			io.WriteString(nc, "GET / HTTP/1.1\r\nHost: "+row.host+"\r\nOrigin: "+row.origin+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			nc.Close()
			for _, want := range []string{row.host, row.origin, "over http:", "WithOrigins", "pass the header Host on", "X-Forwarded-Proto"} {
				if resp.StatusCode != 403 || !strings.Contains(string(body), want) {
					t.Errorf("%v: %d %q; want %q in it", row, resp.StatusCode, body, want)
				}
			}
		}
	})
}

// status asks for a WebSocket, an event stream and text, and expects one answer of all.
func (s *site) status(host, header string) int {
	s.t.Helper()
	status := 0
	for _, format := range []string{
		"", "Accept: text/event-stream|",
		"Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==|",
	} {
		nc := s.dial()
		io.WriteString(nc, "GET / HTTP/1.1\r\nHost: "+host+"\r\n"+lines(format+header)+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err != nil {
			s.t.Fatalf("%s %s: %v", host, header, err)
		}
		got := resp.StatusCode
		if got == 101 {
			got = 200
		}
		if status != 0 && got != status {
			s.t.Errorf("host %q, %q: %d and %d", host, header, status, got)
		}
		status = got
		if status == 200 && resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			s.t.Errorf("host %q: nosniff is missing", host)
		}
		nc.Close()
	}
	return status
}

func lines(header string) string {
	var b strings.Builder
	for l := range strings.SplitSeq(header, "|") {
		if l != "" {
			b.WriteString(l + "\r\n")
		}
	}
	return b.String()
}

func mustAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
