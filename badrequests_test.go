package tailcast_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/tailcast/tailcast"
)

// The mark stands in every bad value, to be looked for in the answer's header.
const mark = "kQ7zX"

// A badRequest is a request with something wrong in it, or something odd, and what it is answered.
type badRequest struct {
	name   string
	query  string   // as it stands in the URL
	header []string // beside Host
	status int
	want   string // the sentence, or how it begins if it ends in …; of a stream its first line
}

func query(name, value string) string { return "?" + name + "=" + url.QueryEscape(value) }

// badRequests is the table. The hub has 5 messages in the default topic, which ends at head, and keeps the newest 3. A request
// that names topics may have the default one and "app", or where its name begins with "open: " all; others get the default one.
func badRequests(head tailcast.Position) []badRequest {
	at := func(epoch, offset uint64, check uint32) string {
		return tailcast.Position{Epoch: epoch, Offset: offset, Check: check}.String()
	}
	gap := "# tailcast gap: "
	long := strings.Repeat("x", 64<<10)
	const sse, ndjson = "Accept: text/event-stream", "Accept: application/x-ndjson"
	ws := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	with := func(h []string, more ...string) []string { return append(append([]string(nil), h...), more...) }
	return []badRequest{
		// since: text that is no position
		{"since: nonsense", query("since", mark), nil, 400, `since: position "kQ7zX" begins with "k" at byte 1, want latest, earliest, or the version character 1.`},
		{"since: a number", query("since", "5"), nil, 400, `since: position "5" begins with "5" at byte 1, want latest, earliest, or the version character 1.`},
		{"since: only the version", query("since", "1"), nil, 400, `since: position "1" has no epoch at byte 2, want 0-9 or a-z.`},
		{"since: no offset", query("since", "1a"), nil, 400, `since: position "1a" ends at byte 2, after its epoch, want a dot and an offset.`},
		{"since: an empty offset", query("since", "1a."), nil, 400, `since: position "1a." has no offset at byte 4, want 0-9 or a-z.`},
		{"since: negative", query("since", "-1"), nil, 400, `since: position "-1" begins with "-" at byte 1, want latest, earliest, or the version character 1.`},
		{"since: a negative offset", query("since", "1a.-5"), nil, 400, `since: position "1a.-5" has "-" at byte 4 of its offset, want 0-9 or a-z.`},
		{"since: a plus", query("since", "1a.+5"), nil, 400, `since: position "1a.+5" has "+" at byte 4 of its offset, want 0-9 or a-z.`},
		{"since: epoch 0", query("since", "10.5"), nil, 400, `since: position "10.5" has epoch 0 at byte 2, which is never given out.`},
		{"since: leading zero", query("since", "1a.05"), nil, 400, `since: position "1a.05" has a leading 0 at byte 4 in its offset, which is never written.`},
		{"since: upper case", query("since", "1A.5"), nil, 400, `since: position "1A.5" has "A" at byte 2 of its epoch, want 0-9 or a-z.`},
		{"since: an epoch of 65 bits", query("since", "1zzzzzzzzzzzzz.5"), nil, 400, `since: position "1zzzzzzzzzzzzz.5" has more than 64 bits in its epoch at byte 2.`},
		{"since: a check of 33 bits", query("since", "1a.5.zzzzzzz"), nil, 400, `since: position "1a.5.zzzzzzz" has more than 32 bits in its check at byte 6.`},
		{"since: a check of 0", query("since", "1a.5.0"), nil, 400, `since: position "1a.5.0" has check 0 at byte 6, which is left out when it is 0.`},
		{"since: a fourth part", query("since", "1a.5.7.9"), nil, 400, `since: position "1a.5.7.9" goes on after its check at byte 7, want its end.`},
		{"since: NUL", query("since", "1a.5\x00"), nil, 400, `since: position "1a.5\x00" has "\x00" at byte 5 of its offset, want 0-9 or a-z.`},
		{"since: CR LF", query("since", "1a.5\r\nX-"+mark+": 1"), nil, 400, `since: position "1a.5\r\nX-kQ7zX: 1" has "\r" at byte 5 of its offset, want 0-9 or a-z.`},
		{"since: not UTF-8", query("since", "\xff\xfe"), nil, 400, `since: position "\xff\xfe" begins with "\xff" at byte 1, want latest, earliest, or the version character 1.`},
		{"since: 64 KiB", query("since", long), nil, 400, `since: position "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is 65536 bytes long, more than the 36 that any can have.`},
		{"since: 256 KiB", query("since", strings.Repeat(long, 4)), nil, 400, `since: the joined positions "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… are 262144 bytes long, more than the 131072 allowed.`},
		{"since: 1 KiB", query("since", "1"+long[:1<<10]), nil, 400, `since: position "1xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is 1025 bytes long, more than the 36 that any can have.`},
		{"since: a topic without a position", query("since", "app="), nil, 400, `since: entry 1 of the joined positions: position is empty.`},
		{"since: a topic twice", query("since", "app=1a.1,app=1a.2"), nil, 400, `since: entry 2 of the joined positions: topic "app" comes a second time.`},
		{"since: half joined", query("since", "app=1a.1,1a.2"), nil, 400, `since: entry 2 of the joined positions: "1a.2" has no equals sign, want topic=position.`},
		{"since: a broken escape", query("since", "a%4=1a.1"), nil, 400, `since: entry 1 of the joined positions: topic "a%4" has a percent sign at byte 2 without two hexadecimal digits after it.`},
		{"since: a topic of 300 bytes", query("since", long[:300]+"=1a.1"), nil, 400, `since: entry 1 of the joined positions: topic "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is 300 bytes long, more than the 255 allowed.`},
		{"since: 200 topics", query("since", strings.TrimSuffix(strings.Repeat("a=1a.1,", 200), ",")), nil, 400, `since: the joined positions "a=1a.1,a=1a.1,a=1a.1,a=1a.1,a=1a.1,a=1a."… name 200 topics, more than the 128 allowed.`},
		{"since: one for two topics", "?topic=app&topic=&since=1a.1", nil, 400, `since: one position for 2 topics; write topic=position,topic=position.`},
		{"since: one for two topics, NDJSON", "?topic=app&topic=&since=1a.1", []string{ndjson}, 400, `since: one position for 2 topics; write topic=position,topic=position.`},
		// since: positions that are well formed, and not to be had
		{"since: too old", query("since", at(head.Epoch, 1, 0)), nil, 200, gap + "1 message, unknown bytes lost: no longer kept in memory"},
		{"since: of the future", query("since", at(head.Epoch, 99, 0)), nil, 200, gap + "unknown amount lost: the position is no longer known here"},
		{"since: the largest", query("since", at(1<<64-1, 1<<64-1, 1<<32-1)), nil, 200, gap + "unknown amount lost: the position is no longer known here"},
		{"since: of another epoch", query("since", at(head.Epoch^2, 5, 0)), nil, 200, gap + "unknown amount lost: the position is no longer known here"},
		{"since: with a check that is not its", query("since", at(head.Epoch, 5, 7)), nil, 200, gap + "unknown amount lost: the position is no longer known here"},
		{"since: of another topic only", query("since", "app="+at(head.Epoch, 5, 0)), nil, 200, ""},
		{"since: of a topic that is not here", query("since", mark+"="+at(head.Epoch, 5, 0)), nil, 200, ""},
		{"since: empty", "?since=", nil, 200, ""},
		{"since: the oldest", "?since=earliest", nil, 200, "message 3"},
		{"since: too old, SSE", query("since", at(head.Epoch, 1, 0)), []string{sse}, 200, "retry: …"},
		{"since: too old, NDJSON", query("since", at(head.Epoch, 1, 0)), []string{ndjson}, 200, `{"event":"gap","topic":"","from":"` + at(head.Epoch, 1, 0) + `","to":"` + at(head.Epoch, 2, 0) + `","count":1,"bytes":-1,"reason":"no longer kept in memory"}`},
		// Last-Event-ID
		{"Last-Event-ID: nonsense", "", []string{sse, "Last-Event-ID: " + mark}, 400, `Last-Event-ID: position "kQ7zX" begins with "k" at byte 1, want latest, earliest, or the version character 1.`},
		{"Last-Event-ID: 64 KiB", "", []string{sse, "Last-Event-ID: " + long}, 400, `Last-Event-ID: position "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is 65536 bytes long, more than the 36 that any can have.`},
		{"Last-Event-ID: of another epoch", "", []string{"Last-Event-ID: " + at(7, 7, 7)}, 200, gap + "unknown amount lost: the position is no longer known here"},
		{"Last-Event-ID: bad, since good", "?since=earliest", []string{"Last-Event-ID: " + mark}, 400, "Last-Event-ID: position …"},
		{"Last-Event-ID: high bytes", "", []string{"Last-Event-ID: \x80\xff"}, 400, `Last-Event-ID: position "\x80\xff" begins with "\x80" at byte 1, want latest, earliest, or the version character 1.`},
		{"Last-Event-ID: NUL", "", []string{"Last-Event-ID: a\x00b"}, 400, "400 Bad Request"},
		// tail
		{"tail: not numeric", query("tail", mark), nil, 400, `tail="kQ7zX": must be a whole number from 0 to 2147483647.`},
		{"tail: negative", query("tail", "-1"), nil, 400, `tail="-1": must be a whole number from 0 to 2147483647.`},
		{"tail: a fraction", query("tail", "1.5"), nil, 400, `tail="1.5": must be a whole number from 0 to 2147483647.`},
		{"tail: too large", query("tail", "2147483648"), nil, 400, `tail="2147483648": must be a whole number from 0 to 2147483647.`},
		{"tail: hexadecimal", query("tail", "0x10"), nil, 400, `tail="0x10": must be a whole number from 0 to 2147483647.`},
		{"tail: CR LF", query("tail", "1\r\n"+mark+": 1"), nil, 400, `tail="1\r\nkQ7zX: 1": must be a whole number from 0 to 2147483647.`},
		{"tail: 64 KiB", query("tail", strings.Repeat("9", 64<<10)), nil, 400, `tail="9999999999999999999999999999999999999999"…: must be a whole number from 0 to 2147483647.`},
		{"tail: bad beside a good since", "?since=earliest&tail=x", nil, 400, `tail="x": must be a whole number from 0 to 2147483647.`},
		{"tail: more than there is", "?tail=2147483647", nil, 200, "message 3"},
		// gaps
		{"gaps: a word", query("gaps", mark), nil, 400, `gaps="kQ7zX": must be 0 or 1.`},
		{"gaps: negative", query("gaps", "-1"), nil, 400, `gaps="-1": must be 0 or 1.`},
		{"gaps: NUL", query("gaps", "0\x00"), nil, 400, `gaps="0\x00": must be 0 or 1.`},
		// grep, invert, and a filter of the application's
		{"grep: an open group", query("grep", "a(b"), nil, 400, `grep: expression "a(b" has an error at byte 4: missing closing ).`},
		{"grep: a closed group", query("grep", "a)b"), nil, 400, `grep: expression "a)b" has an error at byte 2: unexpected ).`},
		{"grep: an open class", query("grep", "ab[c"), nil, 400, `grep: expression "ab[c" has an error at byte 3: missing closing ].`},
		{"grep: a bad range", query("grep", "x[z-a]"), nil, 400, `grep: expression "x[z-a]" has an error at byte 3: invalid character class range.`},
		{"grep: nothing to repeat", query("grep", "*"+mark), nil, 400, `grep: expression "*kQ7zX" has an error at byte 1: missing argument to repetition operator.`},
		{"grep: repeated twice", query("grep", "ab**"), nil, 400, `grep: expression "ab**" has an error at byte 3: invalid nested repetition operator.`},
		{"grep: too many times", query("grep", "ab{1001}"), nil, 400, `grep: expression "ab{1001}" has an error at byte 3: invalid repeat count.`},
		{"grep: a bad escape", query("grep", `ab\yc`), nil, 400, `grep: expression "ab\\yc" has an error at byte 3: invalid escape sequence.`},
		{"grep: a trailing backslash", query("grep", `ab\`), nil, 400, `grep: expression "ab\\" has an error at byte 3: trailing backslash at end of expression.`},
		{"grep: a backreference", query("grep", `(a)\1`), nil, 400, `grep: expression "(a)\\1" has an error at byte 4: invalid escape sequence.`},
		{"grep: lookahead", query("grep", `a(?=b)`), nil, 400, `grep: expression "a(?=b)" has an error at byte 2: invalid or unsupported Perl syntax.`},
		{"grep: not UTF-8", query("grep", "ab\xff"), nil, 400, `grep: expression "ab\xff" has an error at byte 3: invalid UTF-8.`},
		{"grep: CR LF", query("grep", "(\r\nX: "+mark), nil, 400, `grep: expression "(\r\nX: kQ7zX" has an error at byte 12: missing closing ).`},
		{"grep: 257 bytes", query("grep", long[:257]), nil, 400, `grep="xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…: 257 bytes, the limit is 256.`},
		{"grep: too large", query("grep", `a{500}b{600}`), nil, 400, `grep: expression "a{500}b{600}" comes to 1102 steps, the limit is 1000.`},
		{"grep: twice", "?grep=a&grep=b", nil, 400, `grep comes twice.`},
		{"grep: SSE", query("grep", "("), []string{sse}, 400, `grep: expression "(" has an error at byte 2: missing closing ).`},
		{"grep: WebSocket", query("grep", "("), ws, 400, `grep: expression "(" has an error at byte 2: missing closing ).`},
		{"grep: NUL is a byte", "?tail=3&grep=" + url.QueryEscape("4|\x00"), nil, 200, "message 4"},
		{"grep: 256 bytes", "?tail=1&grep=" + url.QueryEscape("5|"+long[:254]), nil, 200, "message 5"},
		{"grep: empty", "?tail=1&grep=", nil, 200, "message 5"},
		{"invert: a word", query("invert", mark), nil, 400, `invert="kQ7zX": must be 0 or 1.`},
		{"invert: without grep", "?tail=1&invert=1", nil, 200, "message 5"},
		{"every: not a number", query("every", "\r\n"+mark), nil, 400, `every="\r\nkQ7zX": must be a??whole number.`},
		{"every: twice", "?every=1&every=2", nil, 400, `every comes twice.`},
		{"every: 300 bytes", query("every", long[:300]), nil, 400, `every="xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…: 300 bytes, the limit is 256.`},
		// topics
		{"topic: unknown", query("topic", mark), nil, 403, `topic "kQ7zX" is not served here.`},
		{"topic: NUL", query("topic", "app\x00"), nil, 403, `topic "app\x00" is not served here.`},
		{"topic: CR LF", query("topic", "app\r\nX: "+mark), nil, 403, `topic "app\r\nX: kQ7zX" is not served here.`},
		{"topic: not UTF-8", query("topic", "\xff"), nil, 403, `topic "\xff" is not served here.`},
		{"topic: 64 KiB", query("topic", long), nil, 403, `topic "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is not served here.`},
		{"topic: twice", "?topic=app&topic=app", nil, 400, `topic "app" comes twice.`},
		{"topic: 129 of them", "?" + strings.TrimSuffix(strings.Repeat("topic=app&", 129), "&"), nil, 400, `129 topics, the limit is 128.`},
		{"open: a topic with NUL", query("topic", "a\x00"), nil, 400, `topic "a\x00": bad topic name: control character at byte 1.`},
		{"open: a topic with CR LF", query("topic", "\r\nX: "+mark), nil, 400, `topic "\r\nX: kQ7zX": bad topic name: control character at byte 0.`},
		{"open: a topic that is not UTF-8", query("topic", "\xff"+mark), nil, 400, `topic "\xffkQ7zX": bad topic name: it is not UTF-8.`},
		{"open: a topic of 256 bytes", query("topic", long[:256]), []string{ndjson}, 400, `topic "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…: bad topic name: 256 bytes, the limit is 255.`},
		{"open: a topic of 64 KiB", query("topic", long), with(ws, "Sec-WebSocket-Protocol: tailcast.v1"), 400, `topic "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"…: bad topic name: 65536 bytes, the limit is 255.`},
		// the query itself
		{"query: a broken escape", "?since=%zz" + mark, nil, 400, `The query cannot be read: invalid URL escape "%zz".`},
		{"query: a semicolon", "?tail=1;since=" + mark, nil, 400, `The query cannot be read: invalid semicolon separator in query.`},
		{"query: unknown parameters", "?" + mark + "=" + mark, nil, 200, ""},
		// Accept
		{"Accept: nonsense", "?tail=1", []string{"Accept: " + mark}, 200, "message 5"},
		{"Accept: not refused", "?tail=1", []string{"Accept: image/png;q=2, ;;,,"}, 200, "message 5"},
		{"Accept: 64 KiB", "?tail=1", []string{"Accept: " + long}, 200, "message 5"},
		{"Accept: NDJSON with parameters, any case", "?tail=0", []string{"Accept: text/html;q=0.1, Application/X-NDJSON; q=0.5"}, 200, `{"event":"pos","topic":"","id":"` + head.String() + `"}`},
		{"Accept: JSON is not NDJSON", "?tail=1", []string{"Accept: application/json"}, 200, "message 5"},
		// WebSocket
		{"subprotocol: with a bad position", query("since", mark), with(ws, "Sec-WebSocket-Protocol: tailcast.v1"), 400, `since: position "kQ7zX" begins with …`},
		{"subprotocol: unknown, with a bad tail", "?tail=x", with(ws, "Sec-WebSocket-Protocol: "+mark), 400, `tail="x": must be …`},
		{"subprotocol: unknown", "", with(ws, "Sec-WebSocket-Protocol: "+mark), 101, ""},
		{"subprotocol: no token", "", with(ws, "Sec-WebSocket-Protocol: ,\"tailcast.v1\",;=,"+mark), 101, ""},
		{"subprotocol: 64 KiB", "", with(ws, "Sec-WebSocket-Protocol: "+long), 101, ""},
		{"subprotocol: without a WebSocket", "?tail=1", []string{"Sec-WebSocket-Protocol: tailcast.v1"}, 200, "message 5"},
		{"WebSocket: a bad key", "", with(ws[:3], "Sec-WebSocket-Key: "+mark), 400, "…"},
		{"WebSocket: version 7", "", with(append(append([]string(nil), ws[:2]...), ws[3]), "Sec-WebSocket-Version: 7"), 400, "…"},
		{"WebSocket: half a handshake", "", ws[1:], 426, "The request for a WebSocket came without the header Connection: Upgrade. …"},
		// strangers
		{"origin: another page", "", []string{"Origin: http://" + mark + ".example"}, 403, "…"},
		{"origin: nonsense", "", []string{"Origin: " + mark}, 403, "…"},
		{"site: another one", "", []string{"Sec-Fetch-Site: cross-site"}, 403, "…"},
	}
}

// TestBadRequests: never a 500, never anything of the request in the answer's header, and a sentence that says what is wrong.
func TestBadRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cases := len(badRequests(tailcast.Position{}))
		if cases < 60 {
			t.Errorf("only %d cases", cases)
		}
		for i := range cases {
			var c badRequest
			hub := tailcast.New(tailcast.WithRetention(tailcast.Retention{Messages: 3}), tailcast.WithAuthorize(tailcast.AllowAllTopics),
				modulo(new(atomic.Int64)))
			one, both := hub.Handler(""), hub.Handler("", "app")
			s := serveSite(t, hub, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasPrefix(c.name, "open: "):
					hub.ServeHTTP(w, r)
				case strings.Contains(r.URL.RawQuery, "topic="):
					both.ServeHTTP(w, r)
				default:
					one.ServeHTTP(w, r)
				}
			}))
			s.publish(numbered(1, 5)...)
			head, _ := hub.Head("")
			c = badRequests(head)[i]
			status, line := s.answer(c)
			t.Logf("%-45s %d %.150s", c.name, status, line)
			begin, open := strings.CutSuffix(c.want, "…")
			if status != c.status || line != c.want && !(open && strings.HasPrefix(line, begin)) {
				t.Errorf("%s:\n got %d %q\nwant %d %q", c.name, status, line, c.status, c.want)
			}
		}
	})
}

// answer sends a request and returns its answer's status and first line.
func (s *site) answer(c badRequest) (status int, line string) {
	t := s.t
	t.Helper()
	nc := s.dial()
	defer nc.Close()
	go io.WriteString(nc, "GET /"+c.query+" HTTP/1.1\r\nHost: hub.example\r\n"+strings.Join(append(c.header, "\r\n"), "\r\n"))
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	for name, values := range resp.Header {
		if all := fmt.Sprint(name, values); strings.Contains(strings.ToLower(all), strings.ToLower(mark)) || len(all) > 200 {
			t.Errorf("%s: the answer has the header %.200s", c.name, all)
		}
	}
	if resp.StatusCode == http.StatusOK { // where nothing comes, something to read
		synctest.Wait()
		s.publish("")
	} else if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, ""
	}
	line, _ = bufio.NewReader(resp.Body).ReadString('\n')
	return resp.StatusCode, strings.TrimSuffix(line, "\n")
}

// FuzzQuery: whatever a request asks for, the answer is a stream or a sentence, and nothing of it gets into a header.
func FuzzQuery(f *testing.F) {
	head := tailcast.Position{Epoch: 7, Offset: 3}
	for _, c := range badRequests(head) {
		query, accept, id := strings.TrimPrefix(c.query, "?"), "", ""
		for _, h := range c.header {
			name, value, _ := strings.Cut(h, ": ")
			switch name {
			case "Accept":
				accept = value
			case "Last-Event-ID":
				id = value
			}
		}
		f.Add(query, id, accept)
	}
	f.Fuzz(func(t *testing.T, query, id, accept string) {
		hub := tailcast.New(tailcast.WithAuthorize(tailcast.AllowAllTopics), tailcast.WithWriteTimeout(time.Second))
		defer hub.Close()
		if err := hub.Publish(t.Context(), tailcast.Message{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a stream ends at once
		r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		r.URL.RawQuery = query
		r.Header["Last-Event-Id"], r.Header["Accept"] = []string{id}, []string{accept}
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusOK:
		case http.StatusBadRequest, http.StatusForbidden:
			line := w.Body.String()
			if !utf8.ValidString(line) || strings.Count(line, "\n") != 1 || len(line) > 1000 || len(line) < 10 {
				t.Errorf("%d %q", w.Code, line)
			}
		default:
			t.Errorf("%d %q", w.Code, w.Body)
		}
		for name, values := range w.Header() {
			for _, v := range values {
				if !slices.Contains(plainHeaders, name+": "+v) {
					t.Errorf("%s: %q", name, v)
				}
			}
		}
	})
}

// plainHeaders are all that an answer may have, whatever was asked for.
var plainHeaders = []string{
	"Content-Type: text/plain; charset=utf-8", "Content-Type: text/event-stream", "Content-Type: application/x-ndjson",
	"X-Content-Type-Options: nosniff", "Cache-Control: no-store", "Cross-Origin-Resource-Policy: same-origin", "Vary: Origin, Accept",
	"X-Accel-Buffering: no",
}
