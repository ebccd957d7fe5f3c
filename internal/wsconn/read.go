package wsconn

import "errors"

// take goes through what was read, until it comes to the end of a message (ok), of what was read, or to an error, which is then in
// c.err. It does not wait.
func (c *Conn) take() (data []byte, binary, ok bool) {
	f := &c.frame
	for c.err == nil {
		if !f.whole {
			if c.in = f.feed(c.in); !f.whole {
				return nil, false, false
			}
			if c.check(); c.err != nil {
				return nil, false, false
			}
		}
		n := min(f.left, int64(len(c.in)))
		p := c.in[:n]
		c.in = c.in[n:]
		f.left -= n
		f.key = unmask(p, f.key)
		if f.op.control() {
			c.takeControl(p)
		} else if data, ok := c.takeData(p); ok {
			return data, c.msg.binary, true
		}
		if f.whole { // the rest of its payload has to come
			return nil, false, false
		}
	}
	return nil, false, false
}

// check looks at the header of a frame, before anything of its payload.
func (c *Conn) check() {
	f, m := &c.frame, &c.msg
	shortest, rsv := f.parse(), f.rsv()
	if c.inflate && !m.open && (f.op == opText || f.op == opBinary) {
		rsv &^= bitRSV1
	}
	switch {
	case !shortest:
		c.fail(1002, "a length that is not written in its shortest form")
	case f.left < 0:
		c.fail(1002, "received negative payload length: %d", f.left)
	case rsv != 0:
		c.fail(1002, "received header with unexpected rsv bits set: %v:%v:%v", f.head[0]&bitRSV1 != 0, f.head[0]&bitRSV2 != 0, f.head[0]&bitRSV3 != 0)
	case !f.masked():
		c.fail(1002, "received unmasked frame from client")
	case f.op.control():
		c.checkControl()
	case f.op > opBinary:
		c.fail(1002, "received unknown opcode opcode(%d)", f.op)
	case f.op == opContinuation && !m.open:
		c.fail(1002, "received continuation frame without text or binary frame")
	case f.op != opContinuation && m.open:
		c.fail(1002, "received new data message without finishing the previous message")
	default:
		c.checkData()
	}
	if m.open && c.err == nil {
		if m.cost += int64(f.have); f.op.control() {
			m.cost += f.left
		}
		if m.cost > c.limit+flood {
			c.fail(1008, "too many fragments for one message")
		}
	}
}

// flood is what a message may cost beside its payload, and the limit once more. Without it a message of a million empty fragments
// would cost no limit.
const flood = 64 << 10

func (c *Conn) checkControl() {
	f := &c.frame
	switch {
	case f.op > OpPong:
		c.fail(1002, "received unknown opcode opcode(%d)", f.op)
	case f.left > maxControl:
		c.fail(1002, "received control frame payload with invalid length: %d", f.left)
	case !f.fin():
		c.fail(1002, "received fragmented control frame")
	}
}

func (c *Conn) checkData() {
	f, m := &c.frame, &c.msg
	if f.op != opContinuation {
		m.begin(f.op == opBinary, f.rsv() != 0)
	}
	most := c.limit
	if m.deflated {
		most += deflateSlack(most)
	}
	if f.left > most-m.length {
		c.tooLarge()
		return
	}
	m.length += f.left
}

func (c *Conn) tooLarge() { c.fail(1009, "a message may have %d bytes", c.limit) }

func (c *Conn) badText() { c.fail(1007, "text that is not valid UTF-8") }

// takeControl takes a part of a control frame's payload.
func (c *Conn) takeControl(p []byte) {
	f := &c.frame
	if f.left > 0 {
		c.said = append(c.said, p...)
		return
	}
	if len(c.said) > 0 || c.due != 0 {
		p = append(c.said, p...)
		c.said = nil
		c.relax()
	}
	f.end()
	c.answer(f.op, p)
}

// takeData takes a part of a data frame's payload, and returns the message if that is its end.
func (c *Conn) takeData(p []byte) (data []byte, ok bool) {
	f, m := &c.frame, &c.msg
	end := f.left == 0
	fin := end && f.fin()
	if end {
		f.end()
	}
	if fin && m.empty() { // the whole of it lies where it was read
		data = p
	} else if data = m.add(p); !fin {
		if !m.valid() {
			c.badText()
		}
		return nil, false
	}
	m.open = false
	if c.discard {
		return nil, true
	}
	if m.deflated {
		var err error
		if data, err = m.unpack(data, c.limit); errors.Is(err, errTooLarge) {
			c.tooLarge()
			return nil, false
		} else if err != nil {
			c.fail(1007, "%v", err)
			return nil, false
		}
	}
	if !m.validEnd(data) {
		c.badText()
		return nil, false
	}
	return data, true
}
