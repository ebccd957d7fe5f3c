package tailcast

import (
	"fmt"
	"time"

	"github.com/tailcast/tailcast/internal/wire"
)

// A Message is one message of a topic: a log line, for one.
type Message struct {
	// Topic is where it belongs; "" is the default topic. At most 255 bytes of UTF-8 without control characters.
	Topic string
	// Data is the payload. Publish copies it: the caller may use the slice again afterwards. A Message that the hub hands
	// out shares its Data with others, who must not change it.
	Data []byte
	// Binary says that Data is not text. A WebSocket without a subprotocol gets it as a binary frame.
	Binary bool
	// Partial says that the message is a part of a line, which was cut at Tail.MaxLine and goes on in the next message, or of
	// which the rest may have been lost: then a Gap follows. Nothing is written into Data to mark it.
	Partial bool
	// Time is when it came; zero at Publish means now.
	Time time.Time
	// Pos is where it stands in its topic. A Source that numbers its topic sets it; zero at Publish lets the hub number.
	Pos Position
	// Gap, if set, declares a loss at this place of the topic. Such a message has no Data.
	Gap *Gap
	// Origin is between a hub and its Backplane, which carries it as it is: see Conn.PublishOthers. Whatever else publishes leaves it
	// empty, and the hub does not hand it out.
	Origin string
}

// A Gap says that messages are missing, and what is known about them.
type Gap struct {
	From  Position // of the last message before the gap; zero = unknown
	To    Position // a resume from here gets what comes after the gap; zero = unknown
	Count int64    // missing messages, −1 = unknown
	Bytes int64    // missing payload bytes, −1 = unknown
	// Possible: nobody can know whether anything is missing. It may be nothing.
	Possible bool
	Reason   string // one short sentence for people
}

// A Position names a place in a topic: the end of one message. A client that comes back with the Position of the last
// message that it saw gets everything after it.
//
// Positions are compared for equality only; their order is the topic's. The zero Position stands for the topic's head:
// "from now on". In a topic that the hub numbers, Epoch is drawn at random when the topic comes into being, and Offset
// counts 1, 2, 3. In a followed file, Epoch is a hash of the file's first line, Offset the byte after the line, and Check a
// CRC-32C of the bytes before it, so that a Position finds its place in a renamed file too, and never in a wrong one. With a Backplane
// it is the Backplane that numbers, the same on every node.
type Position struct {
	Epoch, Offset uint64
	Check         uint32
}

// Earliest is the Position before everything that can still be had.
func Earliest() Position { return Position{Offset: 1} }

// MarshalText returns the opaque form that clients carry: ASCII without spaces, quotes or separators.
func (p Position) MarshalText() ([]byte, error) { return wire.Position(p).Append(nil), nil }

// UnmarshalText parses what MarshalText returns, "latest" and "earliest". Its error says what is wrong and where.
func (p *Position) UnmarshalText(text []byte) error {
	q, err := wire.ParsePosition(string(text))
	if err != nil {
		return fmt.Errorf("tailcast: %w", err)
	}
	*p = Position(q)
	return nil
}

// String returns the form of MarshalText.
func (p Position) String() string { return string(wire.Position(p).Append(nil)) }

func (g *Gap) wire() *wire.Gap {
	return &wire.Gap{
		From: wire.Position(g.From), To: wire.Position(g.To),
		Count: g.Count, Bytes: g.Bytes, Possible: g.Possible, Reason: g.Reason,
	}
}
