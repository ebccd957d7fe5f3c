package wsconn

// Dissector is the parser of what the library writes, for the fuzz target.
type Dissector struct{ d dissector }

func (d *Dissector) Feed(p []byte, emit func(op Opcode, payload []byte)) { d.d.feed(p, emit) }

// Held returns how many bytes of an unfinished frame it holds.
func (d *Dissector) Held() int { return len(d.d.part) }

// LibraryWrites does what the library does to send a frame.
func (c *Conn) LibraryWrites(p []byte) { c.tap.Write(p) }

// Lengths is the check of the client's lengths, for the fuzz target.
type Lengths struct{ l lengths }

func (l *Lengths) Feed(p []byte) (n int, ok bool) { return l.l.feed(p) }

// AcceptDeflate is the answer to a client's offers, for the fuzz target.
var AcceptDeflate = acceptDeflate
