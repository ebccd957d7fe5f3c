// Package wire turns records into bytes that are ready for a socket, one encoder per format, and reads and writes positions.
//
// Every function is pure, but for the Deflater, which keeps what it compresses with: it appends to the slice that it is given and returns the longer slice, keeps no reference to its
// arguments, holds no state, and may be called concurrently on different slices. The encoders for records do not allocate except
// to grow dst, since they run once per message and format for all viewers together.
//
// It also reads what clients say: positions, and the commands of tailcast.v1.
//
// The formats, and what becomes of bytes that are not UTF-8 in each:
//
//	AppendWS          a frame for a bare WebSocket        U+FFFD for each, or a binary frame where Record.Binary is set
//	AppendWSEnvelope  a frame for the tailcast.v1 client  base64, marked "b64":true
//	AppendNDJSON      a line of JSON                      base64, marked "b64":true
//	AppendSSE         a block of server-sent events       U+FFFD for each, also where Record.Binary is set
//	AppendText        a line of plain text                as they are
//
// A Deflater compresses what the first two have appended.
//
// "For each" is Go's way of ranging over a string: one U+FFFD for every byte that is not part of a valid encoding. A browser that
// decoded the same bytes itself may write fewer of them, since it counts a truncated sequence once.
package wire
