package client

import "unicode/utf8"

// scan reads an object as hubs write them: without white space, nested values, null, escapes in names, surrogates, numbers of more than
// 18 digits. It reports false for everything else, which may still be JSON.
func (p *parser) scan(s []byte) bool {
	if len(s) < 2 || s[0] != '{' {
		return false
	}
	for i := 1; ; i++ {
		name, n, ok := scanString(s[i:])
		if !ok || name.escaped {
			return false
		}
		if i += n; i+1 >= len(s) || s[i] != ':' {
			return false
		}
		i++
		v, n, ok := scanValue(s[i:])
		if !ok {
			return false
		}
		if m, is := known(name.text); is {
			if v.kind != m.wants() {
				return false
			}
			p.values[m] = v
		}
		switch i += n; {
		case i >= len(s):
			return false
		case s[i] == '}':
			return i == len(s)-1
		case s[i] != ',':
			return false
		}
	}
}

// scanValue reads a value, and returns how long it is.
func scanValue(s []byte) (v value, n int, ok bool) {
	switch {
	case s[0] == '"':
		return scanString(s)
	case len(s) >= 4 && string(s[:4]) == "true":
		return value{text: s[:4], kind: isBool}, 4, true
	case len(s) >= 5 && string(s[:5]) == "false":
		return value{text: s[:5], kind: isBool}, 5, true
	}
	if s[0] == '-' {
		n++
	}
	digits := n
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	if n == digits || n-digits > 18 || s[digits] == '0' && n-digits > 1 {
		return value{}, 0, false
	}
	return value{text: s[:n], kind: isNumber}, n, true
}

// special marks the bytes of a string that need a look.
var special = func() (special [256]bool) {
	for c := range 256 {
		special[c] = c < ' ' || c == '"' || c == '\\'
	}
	return special
}()

// scanString reads a string with its quotes.
func scanString(s []byte) (v value, n int, ok bool) {
	if len(s) < 2 || s[0] != '"' {
		return value{}, 0, false
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case !special[c]:
		case c == '"':
			v.text, v.kind = s[1:i], isString
			return v, i + 1, utf8.Valid(v.text)
		case c != '\\' || i+1 == len(s):
			return value{}, 0, false
		default:
			v.escaped = true
			i++
			switch s[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if r := hex4(s[i+1:]); r < 0 || 0xD800 <= r && r < 0xE000 {
					return value{}, 0, false
				}
				i += 4
			default:
				return value{}, 0, false
			}
		}
	}
	return value{}, 0, false
}
