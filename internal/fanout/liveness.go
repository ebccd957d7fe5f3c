package fanout

import "time"

// look is called by the worker at each tick.
func (c *Conn) look(now time.Time) {
	if s, ok := c.Socket.(*blockingSocket); ok && c.state.CompareAndSwap(free, taken) {
		c.unbind(s, leastBound)
		if !c.release() {
			c.w.push(c)
		}
	}
	switch {
	case c.LastRead == nil:
		c.lookQuiet(now.UnixNano())
		c.lookAcked(now.UnixNano())
	default:
		c.lookHeard(now.UnixNano())
		if c.Beats && c.askedAt == 0 { // what a peer acknowledges that was pinged counts for it, and a heartbeat proves nothing
			c.lookQuiet(now.UnixNano())
		}
	}
}

// lookHeard pings a peer that was not heard of for the ping interval, and gives up on one that was not heard of for the
// pong timeout after that. To be heard of is to have a byte read of it, or to have made room for a write that had to wait:
// a viewer that is slow but moving may find its ping only after megabytes of data, and lives.
func (c *Conn) lookHeard(now int64) {
	heard := max(c.LastRead(), c.progress.Load())
	cfg := &c.pool.cfg
	switch {
	case cfg.PingInterval == 0:
	case c.askedAt == 0:
		if now-heard >= int64(cfg.PingInterval) {
			c.askedAt = now
			c.ackedThen, _ = c.acked()
			c.ask(func() { c.ping = true })
		}
	case heard >= c.askedAt:
		c.askedAt = 0
	case now-c.askedAt >= int64(cfg.PongTimeout):
		// Nothing had to wait, so the ping is with the peer's kernel, or lost. The kernel's acknowledgements of data sent
		// since then tell a slow reader from a dead peer. Where the system does not tell of them, what was sent counts.
		const pingFrame = 2
		if acked, _ := c.acked(); acked > c.ackedThen+pingFrame {
			c.askedAt, c.ackedThen = now, acked
			return
		}
		c.Abort(ErrPingTimeout)
	}
}

// lookQuiet sends a heartbeat where nothing was sent for long.
func (c *Conn) lookQuiet(now int64) {
	cfg := &c.pool.cfg
	if sent := c.sent.Load(); sent != c.sentThen || c.quietAt == 0 {
		c.sentThen, c.quietAt = sent, now
	} else if cfg.Heartbeat > 0 && now-c.quietAt >= int64(cfg.Heartbeat) {
		c.quietAt = now
		c.Beat()
	}
}

// lookAcked sees to a stream, whose peer never says anything: it is given up when its kernel acknowledges nothing of what was
// sent, for the write timeout.
func (c *Conn) lookAcked(now int64) {
	cfg := &c.pool.cfg
	acked, known := c.acked()
	switch {
	case !known:
	case acked == c.sent.Load():
		c.askedAt = 0
	case c.askedAt == 0 || acked > c.ackedThen: // (it may fall: what TLS adds to a write counts as not acknowledged)
		c.askedAt, c.ackedThen = now, acked
	case now-c.askedAt >= int64(cfg.WriteTimeout):
		c.Abort(ErrWriteTimeout)
	}
}

// acked is how many bytes the peer has acknowledged; what was sent, where that is not known.
func (c *Conn) acked() (n uint64, known bool) {
	sent := c.sent.Load()
	if s, ok := c.Socket.(unackedSocket); ok {
		if n, ok := s.Unacked(); ok {
			return sent - min(uint64(n), sent), true
		}
	}
	return sent, false
}
