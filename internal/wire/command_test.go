package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tailcast/tailcast/internal/wire"
)

func TestCommands(t *testing.T) {
	pos, latest := wire.Position{Epoch: 10, Offset: 1}, wire.Position{}
	for in, want := range map[string]wire.Command{
		`{"type":"subscribe","topic":"app"}`:                                     {Type: "subscribe", Topic: "app", Tail: -1},
		`{"type":"subscribe"}`:                                                   {Type: "subscribe", Tail: -1},
		` {"ref":0,"since":"1a.1","topic":"a\u0000b","type":"subscribe"} `:       {Type: "subscribe", Topic: "a\x00b", Since: &pos, Tail: -1, Ref: []int64{0}},
		`{"type":"subscribe","since":"latest","tail":0,"data":7}`:                {Type: "subscribe", Since: &latest, Tail: 0},
		`{"type":"subscribe","since":null,"tail":null,"ref":null,"topic":null}`:  {Type: "subscribe", Tail: -1},
		`{"type":"unsubscribe","topic":"app","since":5,"ref":-7}`:                {Type: "unsubscribe", Topic: "app", Tail: -1, Ref: []int64{-7}},
		`{"type":"publish","data":"é\n"}`:                                        {Type: "publish", Data: []byte("é\n"), Tail: -1},
		`{"type":"publish","data":"","b64":false}`:                               {Type: "publish", Data: []byte{}, Tail: -1},
		`{"type":"publish","data":"AP8=","b64":true,"new":{"in":["version 2"]}}`: {Type: "publish", Data: []byte{0, 255}, Binary: true, Tail: -1},
		`{"type":"publish","data":"a","data":"b","DATA":"c"}`:                    {Type: "publish", Data: []byte("b"), Tail: -1},
	} {
		got, err := wire.ParseCommand([]byte(in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestBadCommands(t *testing.T) {
	for in, want := range map[string]string{
		``:        `a command is a JSON object, and this is not JSON at byte 0: unexpected end of JSON input`,
		`hello`:   `a command is a JSON object, and this is not JSON at byte 1: invalid character 'h' looking for beginning of value`,
		`{} {}`:   `a command is a JSON object, and this is not JSON at byte 4: invalid character '{' after top-level value`,
		`[1]`:     `a command is a JSON object, and this is of type array`,
		`"hello"`: `a command is a JSON object, and this is of type string`,
		`null`:    `a command is a JSON object, and this is null`,
		`{}`:      `type is "", want subscribe, unsubscribe, publish or register`,
		`{"type":"` + strings.Repeat("x", 99) + `"}`:             `type is "` + strings.Repeat("x", 40) + `"…, want subscribe, unsubscribe, publish or register`,
		`{"Type":"subscribe"}`:                                   `type is "", want subscribe, unsubscribe, publish or register`,
		`{"type":1}`:                                             `type is "1", want a string`,
		`{"type":"subscribe","topic":["a"]}`:                     `topic is "[\"a\"]", want a string`,
		`{"type":"subscribe","since":1}`:                         `since is "1", want a string`,
		`{"type":"subscribe","since":""}`:                        `since: position is empty`,
		`{"type":"subscribe","since":"app=1a.1"}`:                `since: position "app=1a.1" begins with "a" at byte 1, want latest, earliest, or the version character 1`,
		`{"type":"subscribe","tail":-1}`:                         `tail is -1, want a whole number from 0 to 2147483647`,
		`{"type":"subscribe","tail":1.5}`:                        `tail is "1.5", want a whole number of 32 bits`,
		`{"type":"subscribe","tail":4294967296}`:                 `tail is "4294967296", want a whole number of 32 bits`,
		`{"type":"publish"}`:                                     `data is missing`,
		`{"type":"publish","data":{}}`:                           `data is "{}", want a string`,
		`{"type":"publish","data":"?","b64":true}`:               `data is not base64: illegal base64 data at input byte 0`,
		`{"type":"publish","data":"","b64":1}`:                   `b64 is "1", want true or false`,
		`{"type":"unsubscribe","ref":"1"}`:                       `ref is "\"1\"", want a whole number of 64 bits`,
		`{"type":"unsubscribe","ref":1e3}`:                       `ref is "1e3", want a whole number of 64 bits`,
		`{"type":"unsubscribe","ref":9223372036854775808}`:       `ref is "9223372036854775808", want a whole number of 64 bits`,
		strings.Repeat(`[`, 20_000):                              `a command is a JSON object, and this is not JSON at byte 10001: invalid character '[' exceeded max depth`,
		`{"type":"subscribe","topic":"a` + "\x01" + `"}`:         `a command is a JSON object, and this is not JSON at byte 31: invalid character '\x01' in string literal`,
		`{"type":"subscribe","x":{"y":` + "\u2028" + `}}`:        `a command is a JSON object, and this is not JSON at byte 30: invalid character 'â' looking for beginning of value`,
		`{"type":"publish","data":"a","b64":true,"ref":"\ud800"`: `a command is a JSON object, and this is not JSON at byte 54: unexpected end of JSON input`,
	} {
		if _, err := wire.ParseCommand([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%.60s:\n got %v\nwant %s", in, err, want)
		}
	}
	if c, err := wire.ParseCommand([]byte(`{"type":"nonsense","ref":4}`)); err == nil || len(c.Ref) != 1 || c.Ref[0] != 4 {
		t.Errorf("the error of a command with a ref: %+v, %v", c, err)
	}
}

// FuzzParseCommand: whatever comes is either an error that is a short line of text, or what encoding/json reads too.
func FuzzParseCommand(f *testing.F) {
	for _, s := range []string{
		`{"type":"subscribe","topic":"app","since":"1a.1","tail":3,"ref":1}`, `{"type":"publish","data":"AP8=","b64":true}`,
		`{"type":"unsubscribe","topic":"\ud83d\ude00\ud800"}`, `{"type":null}`, `nul`, `{"type":"publish","data":"a","ref":-0}`, "\xff", `[[[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		c, err := wire.ParseCommand(in)
		if !bytes.Equal(in, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if s := err.Error(); len(s) > 400 || strings.ContainsAny(s, "\r\n\x00") || !utf8.ValidString(s) {
				t.Fatalf("%q: the error is %q", in, s)
			}
			return
		}
		var members map[string]any
		d := json.NewDecoder(bytes.NewReader(in))
		d.UseNumber()
		if err := d.Decode(&members); err != nil {
			t.Fatalf("%q is read as %+v, and encoding/json says %v", in, c, err)
		}
		want := func(name string) string { s, _ := members[name].(string); return s }
		data := string(c.Data)
		if c.Binary {
			data = want("data")
			if raw, err := base64.StdEncoding.DecodeString(data); err != nil || !bytes.Equal(raw, c.Data) {
				t.Fatalf("%q: data %q", in, c.Data)
			}
		}
		if c.Type != want("type") || c.Topic != want("topic") || c.Type == wire.Publish && data != want("data") {
			t.Fatalf("%q is read as %+v", in, c)
		}
		if c.Since != nil && c.Since.String() != want("since") {
			t.Fatalf("%q is read with since %v", in, c.Since)
		}
		if _, ok := members["ref"].(json.Number); ok != (len(c.Ref) == 1) {
			t.Fatalf("%q is read with ref %v", in, c.Ref)
		}
	})
}

// FuzzCommandRoundTrip: what encoding/json writes comes back.
func FuzzCommandRoundTrip(f *testing.F) {
	f.Add("app", []byte("data"), false, int64(1), uint64(3), uint64(4), 5)
	f.Add("\x00\u2028\"\\", []byte{0xFF, '\n'}, true, int64(-1), uint64(0), uint64(0), 0)
	f.Fuzz(func(t *testing.T, topic string, data []byte, isBinary bool, ref int64, epoch, offset uint64, tail int) {
		topic = sanitise([]byte(topic))
		text := sanitise(data)
		if isBinary {
			text = base64.StdEncoding.EncodeToString(data)
		} else {
			data = []byte(text)
		}
		b, err := json.Marshal(map[string]any{"type": "publish", "topic": topic, "data": text, "b64": isBinary, "ref": ref})
		if err != nil {
			t.Fatal(err)
		}
		c, err := wire.ParseCommand(b)
		if err != nil || c.Topic != topic || !bytes.Equal(c.Data, data) || c.Binary != isBinary || len(c.Ref) != 1 || c.Ref[0] != ref {
			t.Fatalf("%s is read as %+v, %v", b, c, err)
		}
		pos := wire.Position{Epoch: epoch, Offset: offset}
		tail = int(uint32(tail) >> 1)
		b, err = json.Marshal(map[string]any{"type": "subscribe", "topic": topic, "since": pos.String(), "tail": tail})
		if err != nil {
			t.Fatal(err)
		}
		c, err = wire.ParseCommand(b)
		if !pos.Valid() {
			if err == nil {
				t.Fatalf("%s is read as %+v", b, c)
			}
			return
		}
		if err != nil || c.Topic != topic || c.Since == nil || *c.Since != pos || c.Tail != tail || c.Ref != nil {
			t.Fatalf("%s is read as %+v, %v", b, c, err)
		}
	})
}
