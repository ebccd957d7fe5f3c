package fanout

// Locked calls f while nobody else can ask anything of the connection, nor be told of it.
func (c *Conn) Locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Turn reports whether somebody has the turn, and whether there is a note for him.
func (c *Conn) Turn() (had, noted bool) {
	state := c.state.Load()
	return state&taken != 0, state&again != 0
}
