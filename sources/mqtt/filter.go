package mqtt

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// checkFilter reports what is wrong with a topic filter: sections 4.7 and 4.8.2 of the MQTT standard.
func checkFilter(filter string) error {
	rest := filter
	if first, shared, _ := strings.Cut(filter, "/"); first == "$share" {
		var group string
		if group, rest, _ = strings.Cut(shared, "/"); group == "" || rest == "" || strings.ContainsAny(group, "+#") {
			return fmt.Errorf("filter %q: a shared one is $share/GROUP/FILTER", filter)
		}
	}
	switch {
	case rest == "":
		return fmt.Errorf("filter %q: it is empty", filter)
	case len(filter) > math.MaxUint16:
		return fmt.Errorf("filter %.20q…: %d bytes, the limit is %d", filter, len(filter), math.MaxUint16)
	case !utf8.ValidString(filter) || strings.ContainsRune(filter, 0):
		return fmt.Errorf("filter %q: it is not text", filter)
	}
	for level, last := "", false; !last; {
		level, rest, last = cutLevel(rest)
		switch {
		case level == "+" || level == "#" && last:
		case level == "#":
			return fmt.Errorf("filter %q: # is for the end", filter)
		case strings.ContainsAny(level, "+#"):
			return fmt.Errorf("filter %q: + and # stand alone between slashes", filter)
		}
	}
	return nil
}

func cutLevel(filter string) (level, rest string, last bool) {
	level, rest, more := strings.Cut(filter, "/")
	return level, rest, !more
}
