package wire

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// AppendSSE appends r as one block of an event stream, from which an EventSource dispatches exactly one event: Data line by line,
// then the id if Pos is not zero, then the empty line. The event's data is Data with every CR, LF, and CRLF turned into LF.
// A Gap is an event named gap, whose data is its control object and whose id is the position after it.
//
// The id comes last so that a writer who needs another one drops the block's last byte and appends AppendSSEID: the later counts.
func AppendSSE(dst []byte, r *Record) []byte {
	pos := r.Pos
	if r.Gap != nil {
		dst = append(dst, "event: gap\ndata: "...)
		dst = appendGapObject(dst, r.Topic, r.Gap) // JSON of ours has no line ends
		dst = append(dst, '\n')
		pos = r.Gap.To
	} else {
		dst = appendSSEData(dst, r.Data)
	}
	if !pos.IsZero() {
		dst = append(dst, "id: "...)
		dst = pos.Append(dst)
		dst = append(dst, '\n')
	}
	return append(dst, '\n')
}

// appendSSEData appends data as data lines, at least one: a block without any dispatches nothing. A lone CR ends a line for
// EventSource too, so a payload with one could otherwise forge fields of its own.
func appendSSEData(dst, data []byte) []byte {
	valid := utf8.Valid(data)
	for {
		line, rest, more := cutByte(data, '\n')
		if more && len(line) > 0 && line[len(line)-1] == '\r' {
			line = line[:len(line)-1]
		}
		for cr := true; cr; {
			var part []byte
			part, line, cr = cutByte(line, '\r')
			dst = appendSSELine(dst, part, valid)
		}
		if !more {
			return dst
		}
		data = rest
	}
}

// cutByte is bytes.Cut for one byte.
func cutByte(s []byte, sep byte) (before, after []byte, found bool) {
	if i := bytes.IndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, nil, false
}

func appendSSELine(dst, line []byte, valid bool) []byte {
	dst = append(dst, "data:"...)
	if len(line) > 0 {
		dst = append(dst, ' ') // EventSource takes one space away, so that a line's own first space stays
	}
	if valid {
		dst = append(dst, line...)
	} else {
		dst = appendValid(dst, line)
	}
	return append(dst, '\n')
}

// AppendSSEControl appends a block with a named event, whose data is a control object. The id, made by Position.Append or
// AppendPositions, comes last; an empty one is left out. It panics if event or id has a byte that would end their line.
func AppendSSEControl(dst []byte, event string, object, id []byte) []byte {
	mustBeLine("event", []byte(event))
	dst = append(dst, "event: "...)
	dst = append(dst, event...)
	dst = append(dst, '\n')
	dst = appendSSEData(dst, object)
	if len(id) == 0 {
		return append(dst, '\n')
	}
	return AppendSSEID(dst, id)
}

// AppendSSEID appends a block of only an id, which sets what an EventSource sends as Last-Event-ID and dispatches nothing; after a
// block without its last byte it becomes that block's id. An empty id would reset Last-Event-ID: for it only the empty line that
// ends a block is appended. It panics if id has a byte that would end its line.
func AppendSSEID(dst, id []byte) []byte {
	if len(id) == 0 {
		return append(dst, '\n')
	}
	mustBeLine("id", id)
	dst = append(dst, "id: "...)
	dst = append(dst, id...)
	return append(dst, "\n\n"...)
}

// AppendSSERetry appends a block that tells an EventSource how many milliseconds to wait before it reconnects.
func AppendSSERetry(dst []byte, ms int) []byte {
	dst = append(dst, "retry: "...)
	dst = strconv.AppendInt(dst, int64(max(ms, 0)), 10) // a sign would make EventSource ignore the field
	return append(dst, "\n\n"...)
}

// AppendSSEComment appends a block of only a comment, such as a heartbeat. It panics if comment has a byte that would end its line.
func AppendSSEComment(dst []byte, comment string) []byte {
	mustBeLine("comment", []byte(comment))
	dst = append(dst, ": "...)
	dst = append(dst, comment...)
	return append(dst, "\n\n"...)
}

// mustBeLine panics if s can't be the value of a field. NUL ends no line, but makes EventSource ignore an id.
func mustBeLine(field string, s []byte) {
	if bytes.ContainsAny(s, "\r\n\x00") {
		panic(fmt.Sprintf("wire: %s %s of an event stream has a line end or NUL", field, quote(string(s))))
	}
}
