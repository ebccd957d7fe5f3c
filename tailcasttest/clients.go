package tailcasttest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/tailcast/tailcast"
	"github.com/tailcast/tailcast/internal/testnet"
)

// A Stream is a client that reads a streaming response: of text, of server-sent events or of NDJSON. See Server.Stream.
//
// Line, Event and Object block until there is one. They return io.EOF when the response has ended as it should, and
// io.ErrUnexpectedEOF when it was cut off. One goroutine may read at a time; Stall, Resume and Close may be called at any time.
type Stream struct {
	// Response is what the server has answered, whatever its status. Read its Body through the methods.
	Response *http.Response
	// LastEventID is the id that an EventSource would come back with. Event sets it.
	LastEventID string

	link
	br *bufio.Reader
}

// Stream sends a GET for path, with its query ("/logs?tail=10"), and waits for the head of the answer. accept is the Accept header:
// "text/event-stream" for events, "application/x-ndjson" for objects, "" for lines of text. A hub answers when the viewer has its
// place, so it gets everything that is published after Stream has returned; other handlers may answer with their first byte only.
//
// A status other than 200 is no failure: see Stream.Response. The test fails if there is no answer at all.
func (s *Server) Stream(path, accept string) *Stream {
	s.t.Helper()
	header, host := s.header()
	if accept != "" {
		header.Set("Accept", accept)
	}
	l := s.dial()
	var req strings.Builder
	fmt.Fprintf(&req, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	_ = header.Write(&req) // to memory
	req.WriteString("\r\n")
	if _, err := io.WriteString(l.conn, req.String()); err != nil {
		s.t.Fatalf("tailcasttest: GET %s: %v", path, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(l.conn), nil)
	if err != nil {
		s.t.Fatalf("tailcasttest: GET %s: %v", path, err)
	}
	return &Stream{Response: resp, link: *l, br: bufio.NewReader(resp.Body)}
}

// Line returns the next line, without its end.
func (s *Stream) Line() (string, error) {
	line, err := s.br.ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		return line, nil // the last one has no end; the next call says why
	}
	return strings.TrimSuffix(line, "\n"), err
}

// Object reads the next line of JSON into v, as json.Unmarshal does.
func (s *Stream) Object(v any) error {
	line, err := s.Line()
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(line), v); err != nil {
		return fmt.Errorf("tailcasttest: the line %.80q: %w", line, err)
	}
	return nil
}

// An Event is one that an EventSource would dispatch.
type Event struct {
	Name string // "" for a message; "gap", "bye", …
	Data string
	ID   string // of this event; "" if it has none
}

// Event returns the next event. As an EventSource does it passes over comments and over blocks without data, but takes their ids.
func (s *Stream) Event() (Event, error) {
	var e Event
	var data []string
	for {
		line, err := s.br.ReadString('\n')
		if err != nil {
			return Event{}, err // a block that is cut off says nothing
		}
		line = strings.TrimRight(line, "\r\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.ID != "" {
				s.LastEventID = e.ID
			}
			if data != nil {
				e.Data = strings.Join(data, "\n")
				return e, nil
			}
			e = Event{}
		case field == "data":
			data = append(data, value)
		case field == "id":
			e.ID = value
		case field == "event":
			e.Name = value
		}
	}
}

// A WebSocket is a client. See Server.WebSocket.
//
// One goroutine may read while another one writes; Stall, Resume and Close may be called at any time.
type WebSocket struct {
	// Response is the answer to the handshake: its status is 101, unless the server has refused, and its Body can be read then.
	Response *http.Response

	link
	ws  *testnet.WS
	err error // why there is no WebSocket
}

// WebSocket performs the handshake for path, with its query, and offers the subprotocols: none, or tailcast.v1 for a hub's envelopes.
// A hub answers when the viewer has its place, so it gets everything that is published after WebSocket has returned.
//
// A refusal is no failure: see WebSocket.Response; whatever is called then returns an error that says what the server has answered.
// The test fails if there is no answer at all, or a wrong one.
func (s *Server) WebSocket(path string, subprotocols ...string) *WebSocket {
	s.t.Helper()
	header, host := s.header()
	if len(subprotocols) > 0 {
		header.Set("Sec-WebSocket-Protocol", strings.Join(subprotocols, ", "))
	}
	l := s.dial()
	ws, resp, err := testnet.NewWS(l.conn, host, path, header)
	if refusal := new(testnet.HandshakeError); err != nil && !errors.As(err, &refusal) {
		s.t.Fatalf("tailcasttest: WebSocket %s: %v", path, err)
	} else if err != nil {
		err = fmt.Errorf("tailcasttest: there is no WebSocket: the server has answered %s: %s", resp.Status, strings.TrimSpace(refusal.Body))
	}
	return &WebSocket{Response: resp, link: *l, ws: ws, err: err}
}

// Subprotocol returns what the server has chosen; "" for none.
func (ws *WebSocket) Subprotocol() string { return ws.Response.Header.Get("Sec-WebSocket-Protocol") }

// Read blocks until there is a message, and returns its payload, and whether it came as a binary one. Pings are answered meanwhile,
// and only then: a client that does not read is silent, as one that hangs. When the server closes, the Close frame is answered, and
// the error is a *tailcast.CloseError with its code, 1005 if it has none. When the connection ends without one, the error is io.EOF.
func (ws *WebSocket) Read() (data []byte, binary bool, err error) {
	if ws.err != nil {
		return nil, false, ws.err
	}
	op, data, err := ws.ws.ReadMessage()
	if closed := new(testnet.ClosedError); errors.As(err, &closed) {
		err = &tailcast.CloseError{Code: closed.Code, Reason: closed.Reason}
	}
	return data, op == testnet.OpBinary, err
}

// Object reads the next message into v, as json.Unmarshal does: an envelope of tailcast.v1, for one.
func (ws *WebSocket) Object(v any) error {
	data, _, err := ws.Read()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("tailcasttest: the message %.80q: %w", data, err)
	}
	return nil
}

// Write sends a text message: a command of tailcast.v1, for one. It blocks while the connection is full.
func (ws *WebSocket) Write(text string) error {
	if ws.err != nil {
		return ws.err
	}
	return ws.ws.WriteText(text)
}

// Goodbye sends a Close frame, as a client that leaves. Read then returns the server's answer, after what was sent before it.
func (ws *WebSocket) Goodbye(code int, reason string) error {
	if ws.err != nil {
		return ws.err
	}
	return ws.ws.WriteClose(code, reason)
}
