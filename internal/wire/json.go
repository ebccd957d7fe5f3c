package wire

// AppendJSONString appends s as a JSON string. What is not UTF-8 in it becomes U+FFFD. Characters that mean something to HTML are
// left alone; U+2028 and U+2029 are escaped, since they end a line in JavaScript before ES2019.
func AppendJSONString(dst, s []byte) []byte {
	dst = append(dst, '"')
	for {
		n := validPrefix(s)
		dst = appendEscaped(dst, s[:n])
		if n == len(s) {
			return append(dst, '"')
		}
		dst = append(dst, "\uFFFD"...)
		s = s[n+1:]
	}
}

// appendEscaped appends s, which is valid UTF-8, as the inside of a JSON string. It looks at bytes, not runes: only what jsonSpecial
// names can need an escape, and the rest is copied in runs.
func appendEscaped(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	done := 0 // s[:done] has been appended
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !jsonSpecial[c] {
			continue
		}
		if c == 0xE2 { // the first byte of U+2028 and U+2029, and of many that need no escape
			if s[i+1] != 0x80 || s[i+2]&^1 != 0xA8 {
				continue
			}
			dst = append(dst, s[done:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[s[i+2]&15])
			i += 2
			done = i + 1
			continue
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		done = i + 1
	}
	return append(dst, s[done:]...)
}

// jsonSpecial marks the bytes at which appendEscaped must look closer.
var jsonSpecial = func() (special [256]bool) {
	for c := range 0x20 {
		special[c] = true
	}
	special['"'], special['\\'], special[0xE2] = true, true, true
	return special
}()
