package wire

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendEnvelope appends r as one JSON object without a line end. A message is
//
//	{"id":"1abc.zz","topic":"app","time":"2025-01-02T15:04:05.678901234Z","data":"…"}
//
// without id if Pos is zero and without time if Time is zero, with "partial":true if Partial is set, and with "b64":true and data in
// base64 if Binary is set or Data is not valid UTF-8; "binary":true tells the two apart. A Gap is a control object:
//
//	{"event":"gap","topic":"app","from":"1abc.a","to":"1abc.zz","count":12,"bytes":-1,"possible":true,"reason":"…"}
//
// without from, to, possible, and reason where these are zero; count and bytes are −1 where unknown.
func AppendEnvelope(dst []byte, r *Record) []byte {
	if r.Gap != nil {
		return appendGapObject(dst, r.Topic, r.Gap)
	}
	dst = append(dst, '{')
	if !r.Pos.IsZero() {
		dst = append(dst, `"id":"`...)
		dst = r.Pos.Append(dst)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"topic":`...)
	dst = AppendJSONString(dst, []byte(r.Topic))
	if r.Time != 0 {
		dst = append(dst, `,"time":"`...)
		dst = time.Unix(0, r.Time).UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	if !r.Binary && utf8.Valid(r.Data) {
		dst = append(dst, `,"data":"`...)
		dst = appendEscaped(dst, r.Data)
		dst = append(dst, '"')
	} else {
		dst = append(dst, `,"b64":true`...)
		if r.Binary {
			dst = append(dst, `,"binary":true`...)
		}
		dst = append(dst, `,"data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, r.Data)
		dst = append(dst, '"')
	}
	if r.Partial {
		dst = append(dst, `,"partial":true`...)
	}
	return append(dst, '}')
}

// AppendNDJSON appends r's envelope as a line.
func AppendNDJSON(dst []byte, r *Record) []byte { return append(AppendEnvelope(dst, r), '\n') }

func appendGapObject(dst []byte, topic string, g *Gap) []byte {
	dst = append(dst, `{"event":"gap","topic":`...)
	dst = AppendJSONString(dst, []byte(topic))
	if !g.From.IsZero() {
		dst = append(dst, `,"from":"`...)
		dst = append(g.From.Append(dst), '"')
	}
	if !g.To.IsZero() {
		dst = append(dst, `,"to":"`...)
		dst = append(g.To.Append(dst), '"')
	}
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendInt(dst, max(g.Count, -1), 10)
	dst = append(dst, `,"bytes":`...)
	dst = strconv.AppendInt(dst, max(g.Bytes, -1), 10)
	if g.Possible {
		dst = append(dst, `,"possible":true`...)
	}
	return append(appendReason(dst, g.Reason), '}')
}

// appendReason appends a reason member, unless it is empty.
func appendReason(dst []byte, reason string) []byte {
	if reason == "" {
		return dst
	}
	dst = append(dst, `,"reason":`...)
	return AppendJSONString(dst, []byte(reason))
}
