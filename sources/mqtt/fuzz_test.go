package mqtt

import (
	"strings"
	"testing"

	mochi "github.com/mochi-mqtt/server/v2"
)

// What we let through a broker must take.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "#", "+", "a/b", "a/+/c/#", "a/#/b", "a+", "#/a", "/", "//", "$share/g/a", "$share/g/", "$share//a", "$share/g", "$share/+/a", "$SYS/#", "a\x00", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		group, _, _ := strings.Cut(filter, "/")
		if group != "$share" && strings.EqualFold(group, "$share") {
			return // this broker reads it as if it were in small letters
		}
		if err := checkFilter(filter); err == nil && !mochi.IsValidFilter(filter, false) {
			t.Errorf("%q: a broker says that it is not valid", filter)
		}
	})
}

func FuzzServer(f *testing.F) {
	for _, s := range []string{"", "mqtt://h", "mqtts://u:p@h:1", "ws://[::1]/mqtt", "wss://h:1/x?y", "tcp://h", "http://h", "mqtt:h", "mqtt://:1", "mqtt://u:hidden@h:x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseServer(text)
		if err != nil {
			if strings.Contains(text, ":hidden@") && strings.Contains(err.Error(), ":hidden@") {
				t.Errorf("%q: the error tells the password: %v", text, err)
			}
			return
		}
		again, err := parseServer(s.url.String())
		if err != nil || again.address != s.address || again.tls != s.tls || again.webSocket != s.webSocket {
			t.Errorf("%q: %+v became %+v, %v", text, s, again, err)
		}
	})
}

func TestFiltersAsTheStandardHasThem(t *testing.T) {
	for filter, valid := range map[string]bool{
		"sport/tennis/player1/#": true, "sport/#": true, "#": true, "+": true, "+/tennis/#": true, "sport/+/player1": true, "/": true, "/finance": true,
		"sport/tennis#": false, "sport/tennis/#/ranking": false, "sport+": false, "": false, "a\x00b": false, "\xff": false,
		"$share/consumer1/sport/tennis/+": true, "$share/consumer1//finance": true, "$share/c/": false, "$share//a": false, "$share/c": false, "$share/c+/a": false,
		strings.Repeat("a", 65535): true, strings.Repeat("a", 65536): false,
	} {
		if err := checkFilter(filter); (err == nil) != valid {
			t.Errorf("%.40q: %v", filter, err)
		}
	}
}
