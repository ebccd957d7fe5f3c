package wsconn

//lint:file-ignore SA1019 The library marks its whole package deprecated because its authors went on under another path. tailcast uses it
//on purpose, and only here (and in a test): what it is used for is in this file, so that a change of library is a change of this file.

import (
	"net/http"

	"nhooyr.io/websocket"
)

// libraryAccept performs the handshake, answers the request if it is not one, and returns the subprotocol. It neither checks the Origin (that is
// the caller's part: the library ignores the scheme) nor offers compression (the library would compress for each connection anew).
// Nothing of the library is left then.
func libraryAccept(w http.ResponseWriter, r *http.Request, subprotocols []string) (subprotocol string, err error) {
	lib, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: true,
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return "", err
	}
	subprotocol = lib.Subprotocol()
	return subprotocol, lib.CloseNow() // it waits for the library's goroutine
}
