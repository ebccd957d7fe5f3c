package wsconn

import "strings"

// acceptDeflate returns the answer to the first offer of permessage-deflate among a client's Sec-WebSocket-Extensions that can be
// accepted (RFC 7692, 5 and 7.1). The library is not asked: it lets parameters pass that come twice or have impossible values, and
// its answer to server_max_window_bits=15 lacks the parameter.
func acceptDeflate(extensions []string) (answer string, ok bool) {
	for _, header := range extensions {
		for _, offer := range splitUnquoted(header, ',') {
			if answer, ok = acceptOffer(splitUnquoted(offer, ';')); ok {
				return answer, true
			}
		}
	}
	return "", false
}

// acceptOffer answers one offer, its name and its parameters. Our side deflates each message by itself with the full window, and asks
// the client to do without its context too, which any client can (7.1.1.2); what the client's window is does not matter to who
// inflates.
func acceptOffer(offer []string) (answer string, ok bool) {
	if trimSpace(offer[0]) != "permessage-deflate" {
		return "", false
	}
	answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	seen := make(map[string]bool)
	for _, param := range offer[1:] {
		name, value, valued := strings.Cut(param, "=")
		name, value = trimSpace(name), unquote(trimSpace(value))
		switch name {
		case "server_no_context_takeover", "client_no_context_takeover":
			ok = !valued
		case "client_max_window_bits":
			ok = !valued || isWindow(value)
		case "server_max_window_bits":
			ok = value == "15" // compress/flate has no other window
			answer += "; server_max_window_bits=15"
		default:
			ok = false
		}
		if !ok || seen[name] {
			return "", false
		}
		seen[name] = true
	}
	return answer, true
}

// isWindow reports whether s is a number from 8 to 15, without leading zeros (7.1.2).
func isWindow(s string) bool {
	switch s {
	case "8", "9", "10", "11", "12", "13", "14", "15":
		return true
	}
	return false
}

// splitUnquoted splits at each sep outside of a quoted string (RFC 9110, 5.6.4). One that does not end goes to the end of s.
func splitUnquoted(s string, sep byte) (parts []string) {
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// unquote returns what a quoted string says, or s if it is none. No value that means anything here has an escape in it.
func unquote(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}

func trimSpace(s string) string { return strings.Trim(s, " \t") }
