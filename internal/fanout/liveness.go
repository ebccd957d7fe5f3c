package fanout

import "time"

// look is called by the worker at each tick.
func (c *Conn) look(now time.Time) {
	switch {
	case c.LastRead != nil && c.pool.cfg.PingInterval > 0:
		c.lookAlive(now.UnixNano())
	case c.Resident && c.pool.cfg.Heartbeat > 0:
		if now.UnixNano()-c.lastOut.Load() >= int64(c.pool.cfg.Heartbeat) {
			c.Beat()
		}
	}
}

// lookAlive pings a peer that was not heard of for the ping interval, and gives up on one that was not heard of for the
// pong timeout after that. To be heard of is to have a byte read of it, or to have made room for a write that had to wait:
// a viewer that is slow but moving may find its ping only after megabytes of data, and lives.
func (c *Conn) lookAlive(now int64) {
	heard := max(c.LastRead(), c.progress.Load())
	cfg := &c.pool.cfg
	switch {
	case c.pingAt == 0:
		if now-heard >= int64(cfg.PingInterval) {
			c.pingAt = now
			c.ackedThen = c.acked()
			c.ask(func() { c.ping = true })
		}
	case heard > c.pingAt:
		c.pingAt = 0
	case now-c.pingAt >= int64(cfg.PongTimeout):
		// Nothing had to wait, so the ping is with the peer's kernel, or lost. The kernel's acknowledgements of data sent
		// since then tell a slow reader from a dead peer.
		const pingFrame = 2
		if acked := c.acked(); acked > c.ackedThen+pingFrame {
			c.pingAt, c.ackedThen = now, acked
			return
		}
		c.Abort(ErrPingTimeout)
	}
}

// acked is how many bytes the peer has acknowledged; what was sent, where the system does not tell.
func (c *Conn) acked() uint64 {
	sent := c.sent.Load()
	if s, ok := c.Socket.(unackedSocket); ok {
		if n, ok := s.Unacked(); ok {
			return sent - min(uint64(n), sent)
		}
	}
	return sent
}
