package wire

import "strconv"

// The functions below append control objects, one JSON object each, without a line end and without line ends inside. A WebSocket
// gets one as a text frame (AppendFrame), NDJSON as a line, an event stream as the data of AppendSSEControl.

// AppendBye appends the object that announces the end of a connection: a close code, and in how many milliseconds the client should
// come back. The reason is left out if empty, and retry if it is not positive.
func AppendBye(dst []byte, code int, reason string, retryMS int) []byte {
	dst = append(dst, `{"event":"bye","code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = appendReason(dst, reason)
	if retryMS > 0 {
		dst = append(dst, `,"retry":`...)
		dst = strconv.AppendInt(dst, int64(retryMS), 10)
	}
	return append(dst, '}')
}

// AppendDegraded appends the object that says that messages may be late, or that this is over. The reason is left out if empty.
func AppendDegraded(dst []byte, over bool, reason string) []byte {
	dst = append(dst, `{"event":"degraded"`...)
	if over {
		dst = append(dst, `,"over":true`...)
	}
	return append(appendReason(dst, reason), '}')
}

// AppendError appends the object that says what was wrong, with the ref of the command at fault if it had one.
func AppendError(dst []byte, reason string, ref ...int64) []byte {
	dst = append(dst, `{"event":"error"`...)
	dst = appendReason(dst, reason)
	return append(appendRef(dst, ref), '}')
}

// AppendOK appends the object that answers a command that was carried out, with the command's ref if it had one.
func AppendOK(dst []byte, ref ...int64) []byte {
	dst = append(dst, `{"event":"ok"`...)
	return append(appendRef(dst, ref), '}')
}

// appendRef appends a ref member for the first of ref, if there is one: 0 is a ref as good as any other.
func appendRef(dst []byte, ref []int64) []byte {
	if len(ref) == 0 {
		return dst
	}
	dst = append(dst, `,"ref":`...)
	return strconv.AppendInt(dst, ref[0], 10)
}

// AppendPos appends the object that tells a quiet client where the topic's head is, to resume from there.
func AppendPos(dst []byte, topic string, pos Position) []byte {
	dst = append(dst, `{"event":"pos","topic":`...)
	dst = AppendJSONString(dst, []byte(topic))
	dst = append(dst, `,"id":"`...)
	return append(pos.Append(dst), `"}`...)
}

// AppendJoin appends the object that says that a user has come to a topic, and its position there if it has one.
func AppendJoin(dst []byte, topic, user string, pos Position) []byte {
	return appendPresence(dst, "join", topic, user, pos)
}

// AppendLeave appends the object that says that a user has left a topic, as AppendJoin.
func AppendLeave(dst []byte, topic, user string, pos Position) []byte {
	return appendPresence(dst, "leave", topic, user, pos)
}

func appendPresence(dst []byte, event, topic, user string, pos Position) []byte {
	dst = append(dst, `{"event":"`...)
	dst = append(dst, event...)
	dst = append(dst, `","topic":`...)
	dst = AppendJSONString(dst, []byte(topic))
	dst = append(dst, `,"user":`...)
	dst = AppendJSONString(dst, []byte(user))
	if !pos.IsZero() {
		dst = append(dst, `,"id":"`...)
		dst = append(pos.Append(dst), '"')
	}
	return append(dst, '}')
}
