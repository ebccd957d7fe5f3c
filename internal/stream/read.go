package stream

// Records are some that follow one another, as they stood at one moment. They stay valid, unchanged, as long as somebody holds
// them, whatever the log drops in the meantime.
type Records struct{ rest view }

// Read returns what comes at c, at least one record if it is Ready. It does not move c: see Records.Next.
func (l *Log) Read(c Cursor) (Records, State) {
	closed := l.closed.Load() // before looking for a record: then that is the last one
	v, state := l.view(c.Seq)
	if state == AtHead && closed {
		state = Lost
	}
	return Records{v}, state
}

// Next returns the next record, if there is one, and moves c past it.
func (r *Records) Next(c *Cursor) (Record, bool) {
	v := &r.rest
	if v.index == len(v.recs) {
		return Record{}, false
	}
	rec := v.record(v.index)
	c.Seq = rec.Seq + 1
	c.Cum = v.block.cum + uint64(v.recs[v.index].end())
	if rec.Pos != (Position{}) {
		c.Pos = rec.Pos
	}
	v.index++
	return rec, true
}
