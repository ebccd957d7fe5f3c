package wsconn

// Dissector is the parser of what the library writes, for the fuzz target.
type Dissector struct{ d dissector }

func (d *Dissector) Feed(p []byte, emit func(op Opcode, payload []byte)) { d.d.feed(p, emit) }

// Held returns how many bytes of an unfinished frame it holds.
func (d *Dissector) Held() int { return len(d.d.part) }

// LibraryWrites does what the library does to send a frame.
func (c *Conn) LibraryWrites(p []byte) { c.tap.Write(p) }
