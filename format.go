package tailcast

import (
	"github.com/tailcast/tailcast/internal/stream"
	"github.com/tailcast/tailcast/internal/wire"
)

// A format is a form in which messages go to a client.
type format struct {
	transport string         // what Conn.Transport returns
	gaps      bool           // gaps are told
	deflater  *wire.Deflater // compresses the messages of a topic; nil: they are sent as they are
}

var (
	formatWebSocket = format{transport: "websocket", gaps: true}
	formatEnvelope  = format{transport: "tailcast.v1", gaps: true}
	formatSSE       = format{transport: "sse", gaps: true}
	formatNDJSON    = format{transport: "ndjson", gaps: true}
	formatText      = format{transport: "text", gaps: true}
)

// sharedFormats are all that there are.
var sharedFormats = func() (all []*format) {
	for _, f := range []format{formatWebSocket, formatEnvelope, formatSSE, formatNDJSON, formatText} {
		quiet := f
		quiet.gaps = false
		all = append(all, &f, &quiet)
	}
	return all
}()

// shared returns f as all connections of the format have it, which do not keep their requests in memory.
func (f *format) shared() *format {
	for _, s := range sharedFormats {
		if *s == *f {
			return s
		}
	}
	return f
}

// webSocket reports whether the format goes over a WebSocket.
func (f *format) webSocket() bool {
	return f.transport == formatWebSocket.transport || f.transport == formatEnvelope.transport
}

// objects reports whether messages are envelopes: objects that say all there is to say of a message.
func (f *format) objects() bool {
	return f.transport == formatEnvelope.transport || f.transport == formatNDJSON.transport
}

// marks reports whether a connection with several topics gets its messages in a form of its own, with marks in it that say
// which topic, or which place in several, a message belongs to.
func (f *format) marks() bool {
	return f.transport == formatSSE.transport || f.transport == formatText.transport
}

// append adds one record. (A switch, not a function value: r stays on the caller's stack.)
func (f *format) append(dst []byte, r *wire.Record) []byte {
	switch f.transport {
	case formatWebSocket.transport:
		return wire.AppendWS(dst, r)
	case formatEnvelope.transport:
		return wire.AppendWSEnvelope(dst, r)
	case formatNDJSON.transport:
		return wire.AppendNDJSON(dst, r)
	case formatSSE.transport:
		return wire.AppendSSE(dst, r)
	}
	return wire.AppendText(dst, r)
}

// key names the encoding that all connections of this format share.
func (f *format) key() string {
	key := f.transport
	if !f.gaps {
		key += " gaps=0"
	}
	if f.deflater != nil {
		key += " deflate"
	}
	return key
}

// encoder makes the records of a topic ready for a socket.
func (f *format) encoder(topic string) stream.Encoder {
	return func(dst []byte, r *stream.Record) []byte {
		w := wire.Record{
			Topic: topic, Pos: wire.Position(r.Pos), Time: r.Time, Data: r.Data,
			Binary: r.Flags&stream.Binary != 0, Partial: r.Flags&stream.Partial != 0,
		}
		if r.Flags&stream.Event != 0 {
			return f.appendPresence(dst, topic, r)
		}
		if r.Flags&stream.Gap != 0 {
			if f.transport == formatText.transport && f.gaps && r.Flags&stream.AfterPartial != 0 {
				dst = append(dst, '\n') // the line that was cut does not go on
			}
			return f.appendStoredGap(dst, &w)
		}
		start := len(dst)
		if dst = f.append(dst, &w); f.deflater != nil {
			dst = f.deflater.Frame(dst, start)
		}
		return dst
	}
}

// appendPresence appends who has come or left: see presence. Text, and a WebSocket without a subprotocol, have no place for it.
func (f *format) appendPresence(dst []byte, topic string, r *stream.Record) []byte {
	object, event := wire.AppendJoin, "join"
	if r.Data[0] == left {
		object, event = wire.AppendLeave, "leave"
	}
	switch {
	case f.objects():
		return f.appendObject(dst, object(nil, topic, string(r.Data[1:]), wire.Position(r.Pos)))
	case f.transport == formatSSE.transport:
		return wire.AppendSSEControl(dst, event, object(nil, topic, string(r.Data[1:]), wire.Position(r.Pos)), wire.Position(r.Pos).Append(nil))
	}
	return dst
}

func (f *format) appendStoredGap(dst []byte, w *wire.Record) []byte {
	gap, err := wire.ParseGapBinary(w.Data)
	if err != nil { // it was stored by us
		panic("tailcast: a stored gap is damaged: " + err.Error())
	}
	if !f.gaps {
		return dst
	}
	w.Data, w.Gap = nil, &gap
	return f.append(dst, w)
}

// message appends one message as a viewer of topic gets it, not compressed; a Gap only if gaps are told.
func (f *format) message(dst []byte, topic string, m *Message) []byte {
	w := wire.Record{
		Topic: topic, Pos: wire.Position(m.Pos), Data: m.Data, Binary: m.Binary, Partial: m.Partial,
	}
	if !m.Time.IsZero() {
		w.Time = m.Time.UnixNano()
	}
	if m.Gap != nil {
		if !f.gaps {
			return dst
		}
		w.Gap = m.Gap.wire()
	}
	return f.append(dst, &w)
}
