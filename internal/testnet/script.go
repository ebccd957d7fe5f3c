package testnet

import "time"

// A Step says what becomes of one write to a scripted Conn, be it a TryWrite, a WriteSome or a part of a Write.
type Step struct {
	take  int
	pause time.Duration
	err   error
}

// Take lets the next write take at most n bytes, so that the writer sees a short write.
func Take(n int) Step {
	if n < 1 {
		panic("testnet: Take needs at least one byte; Block takes none")
	}
	return Step{take: n}
}

// Block answers the next TryWrite with "would block". A Write or WriteSome that meets it goes on with the step after it.
func Block() Step { return Step{} }

// Pause makes the connection take nothing for d, counted from the first write that meets it.
func Pause(d time.Duration) Step {
	if d <= 0 {
		panic("testnet: Pause needs a duration above zero")
	}
	return Step{pause: d}
}

// Fail answers the next write with err. The connection itself stays as it is.
func Fail(err error) Step { return Step{err: err} }

// Script queues steps for the writes to c. A write that finds the connection stalled, paused or full uses up no step. After the last one, writes are free again.
func (c *Conn) Script(steps ...Step) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	c.out.script = append(c.out.script, steps...)
	c.out.cond.Broadcast()
}

// Stall makes c take nothing from its writers until Resume, as if the peer had a window of zero.
func (c *Conn) Stall() { c.setStall(true) }

// Resume ends a Stall.
func (c *Conn) Resume() { c.setStall(false) }

func (c *Conn) setStall(on bool) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	c.out.stall = on
	c.out.cond.Broadcast()
}

// take accepts what it can of p now. Blocked says that the script refused it once: the next try may succeed without anything happening first.
func (f *flow) take(p []byte) (n int, blocked bool, err error) {
	room := f.bound - len(f.buf)
	paused := f.pause.timer != nil && !f.pause.expired
	if f.stall || paused || room <= 0 || len(p) == 0 {
		return 0, false, nil
	}
	limit := len(p)
	if len(f.script) > 0 {
		step := f.script[0]
		f.script = f.script[1:]
		switch {
		case step.err != nil:
			return 0, false, step.err
		case step.pause > 0:
			f.pause.set(&f.cond, time.Now().Add(step.pause))
			return 0, false, nil
		case step.take == 0:
			return 0, true, nil
		}
		limit = step.take
	}
	n = min(len(p), room, limit)
	f.buf = append(f.buf, p[:n]...)
	f.counts.Writes++
	f.counts.Bytes += int64(n)
	f.cond.Broadcast()
	return n, false, nil
}
