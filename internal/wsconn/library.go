package wsconn

//lint:file-ignore SA1019 The library marks its whole package deprecated because its authors went on under another path. tailcast uses it
//on purpose, and only here: what it is used for is in this file, so that a change of library is a change of this file.

import (
	"errors"
	"net/http"

	"nhooyr.io/websocket"
)

// library is the library's connection. It performs the handshake, reads frames, and writes control frames into a tap.
type library = websocket.Conn

const libraryBinary = websocket.MessageBinary

// libraryAccept performs the handshake and answers the request if it is not one. It does not check the Origin (that is the caller's
// part: the library ignores the scheme). With inflate it reads compressed messages; it never writes any.
func libraryAccept(w http.ResponseWriter, r *http.Request, subprotocols []string, inflate bool) (*library, error) {
	mode := websocket.CompressionDisabled
	if inflate { // which offer fits is settled
		mode = websocket.CompressionNoContextTakeover
		r = r.Clone(r.Context())
		r.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate")
	}
	return websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: true,
		CompressionMode:    mode,
	})
}

// libraryClose returns the peer's Close frame if that is what err reports.
func libraryClose(err error) (code int, reason string, ok bool) {
	var ce websocket.CloseError
	if !errors.As(err, &ce) {
		return 0, "", false
	}
	return int(ce.Code), ce.Reason, true
}
