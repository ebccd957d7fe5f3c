package nats

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

// A topic is one token of a subject, and comes back as it was; and nothing but what token makes is read.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "app", "a.b", "a b", "*", ">", "=", "=3D", "ünï", "A-_9", strings.Repeat("\xff", 255), "==", "=2a", "=41", "a="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tok := token(s)
		for i := range len(tok) {
			if c := tok[i]; !plain(c) && c != '=' {
				t.Fatalf("%q has %q", tok, c)
			}
		}
		if tok == "" || len(tok) > max(3*len(s), 1) {
			t.Fatalf("%q of %q", tok, s)
		}
		if back, err := topicOf(tok); err != nil || back != s {
			t.Fatalf("%q of %q is read as %q, %v", tok, s, back, err)
		}
		if topic, err := topicOf(s); err == nil && token(topic) != s {
			t.Fatalf("%q is read as %q, which is %q", s, topic, token(topic))
		}
	})
}

// Whatever a header says, it is read or refused; and what is read says the same again.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"1 - -", "1 bp 1700000000000000000", "1 - 5 node.1f", "1 g - ", "2 - -", "", "1 bb -", "1  -", "1 - x", "1 - 5 "} {
		f.Add(s, []byte(`{"count":3,"bytes":-1,"possible":true,"reason":"r"}`))
	}
	f.Fuzz(func(t *testing.T, header string, data []byte) {
		m, err := decode(header, data)
		if err != nil {
			return
		}
		h, d, err := encode(&m)
		if strings.ContainsAny(m.Origin, "\r\n") {
			return // it came in no header
		}
		if err != nil {
			t.Fatalf("%q is read as %+v: %v", header, m, err)
		}
		again, err := decode(h, d)
		if err != nil || !same(&again, &m) {
			t.Fatalf("%q is read as %+v and %q as %+v, %v", header, m, h, again, err)
		}
	})
}

func same(a, b *tailcast.Message) bool {
	if (a.Gap == nil) != (b.Gap == nil) {
		return false
	}
	if a.Gap != nil {
		valid := strings.ToValidUTF8(b.Gap.Reason, "\ufffd")
		return a.Gap.Count == b.Gap.Count && a.Gap.Bytes == b.Gap.Bytes && a.Gap.Possible == b.Gap.Possible && a.Gap.Reason == valid
	}
	return bytes.Equal(a.Data, b.Data) && a.Binary == b.Binary && a.Partial == b.Partial && a.Time.Equal(b.Time) && a.Origin == b.Origin
}

// What a message says goes there and comes back.
func TestMessagesAreCarried(t *testing.T) {
	for _, m := range []tailcast.Message{
		{},
		{Data: []byte("text"), Time: time.Unix(0, 1)},
		{Data: []byte{0, 255}, Binary: true, Partial: true, Time: time.Unix(-1, 0), Origin: "node.ff"},
		{Gap: &tailcast.Gap{Count: 3, Bytes: -1, Possible: true, Reason: "rotation"}, Time: time.Unix(5, 6)},
	} {
		h, d, err := encode(&m)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(h, d); err != nil || !same(&got, &m) {
			t.Errorf("%+v: %q: %+v, %v", m, h, got, err)
		}
	}
	if _, _, err := encode(&tailcast.Message{Origin: "a\r\nb"}); err == nil {
		t.Error("a line end in a header")
	}
}

// Whatever an acknowledgement says, it stands for a message that is stored only with a stream and a sequence.
func FuzzAck(f *testing.F) {
	for _, s := range []string{
		`{"stream":"s","seq":5}`, `{"stream":"s","seq":5,"duplicate":true}`, `{"error":{"code":503,"err_code":10077,"description":"full"}}`, `{}`, `nul`,
		`{"stream":"s"}`, `{"error":{"err_code":10054}}`, `null`,
	} {
		f.Add([]byte(s), "")
	}
	f.Add([]byte{}, "503")
	f.Fuzz(func(t *testing.T, data []byte, status string) {
		msg := &natsgo.Msg{Data: data}
		if status != "" {
			msg.Header = natsgo.Header{"Status": {status}}
		}
		a := parseAck(msg)
		if a.err == nil && (status != "" || !bytes.Contains(bytes.ToLower(data), []byte(`s`)) || !utf8.Valid(data) && len(data) == 0) {
			t.Fatalf("%q, %q: stored", data, status)
		}
		if a.err != nil && a.err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}

// An id of a Position is the same after a restart, and another one for another node, topic, or place; and for a place that comes again
// though it was stored, or with other data.
func TestIdsOfSources(t *testing.T) {
	m := func(topic string, epoch, offset uint64) tailcast.Message {
		return tailcast.Message{Topic: topic, Pos: tailcast.Position{Epoch: epoch, Offset: offset, Check: 9}}
	}
	a, again, other := New(Config{Node: "a"}), New(Config{Node: "a"}), New(Config{Node: "b"})
	seen := make(map[string]bool)
	first := func(b *Backplane, m tailcast.Message) string {
		id := b.sourceID(&m, 0)
		if seen[id] {
			t.Errorf("%+v has the id of another one", m)
		}
		seen[id] = true
		return id
	}
	id := first(a, m("", 1, 1))
	first(a, m("", 1, 2))
	first(a, m("", 2, 1))
	first(a, m("t", 1, 1))
	first(other, m("", 1, 1))
	one := m("", 1, 1)
	if again.sourceID(&one, 0) != id {
		t.Error("another id after a restart")
	}
	anew := m("", 1, 1)
	anew.Data = []byte("another line that ends as the first")
	first(again, anew)
	a.note([]tailcast.Message{m("", 1, 1), m("", 1, 2)})
	turned := first(a, m("", 1, 1))
	if a.sourceID(&one, 1) == turned {
		t.Error("a part has the id of another")
	}
	if a.sourceID(&one, 0) != turned {
		t.Error("another id when it is tried again")
	}
	a.note([]tailcast.Message{one})
	first(a, m("", 1, 1))
	a.note([]tailcast.Message{m("", 2, 5), m("", 2, 5), m("", 2, 5)}) // parts of one
	five := m("", 2, 5)
	again.note([]tailcast.Message{five})
	if a.sourceID(&five, 0) != again.sourceID(&five, 0) {
		t.Error("parts count as messages of their own")
	}
	for i := range uint64(20) {
		a.note([]tailcast.Message{m("", 100+i, 1)})
	}
	if n := len(a.turns[""]); n > maxTurns {
		t.Errorf("%d epochs are known", n)
	}
}
