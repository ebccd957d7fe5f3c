package wire

// Record is what the encoders encode: one message of a topic, or a declared loss. The encoders only read it.
type Record struct {
	Topic string
	Pos   Position // zero: a message outside the topic's log, so it is sent without an id
	Time  int64    // nanoseconds since the Unix epoch; 0 means unknown. Not time.Time: a log of a million records holds no pointers
	Data  []byte

	Binary  bool // Data is not text, even if its bytes happen to be valid UTF-8
	Partial bool // a piece of a line that goes on in the topic's next record

	Gap *Gap // a loss is declared here; Data, Binary, Partial and Pos are then ignored
}
