package follow

import "sync"

// Stats are plain numbers, counted since New.
type Stats struct {
	Lines       int64 // delivered; a piece of a long line counts as one
	Bytes       int64 // delivered, line ends included
	Gaps        int64 // declared
	Rotations   int64
	Truncations int64
	Looks       int64  // at the path
	Unwatched   int64  // times that a directory could not be watched
	Overflows   int64  // of the notifications' queue
	Untold      int64  // times that a change came without a notification, and the file is polled for it
	Parked      int64  // times that a file was closed for the OpenLimit
	Open        int    // generations that are open now
	Notified    bool   // notifications arrive; else polling only
	Trouble     string // the event that was reported last and is not over; "" if all is well
	LastError   error  // what came with it, or the last error there was

	CheckpointError error // why there was none that is of use, or why it can't be written; nil again once it can
}

type counters struct {
	limit *OpenLimit
	mu    sync.Mutex
	s     Stats
}

// Stats may be called at any time.
func (f *Follower) Stats() Stats {
	f.stat.mu.Lock()
	defer f.stat.mu.Unlock()
	return f.stat.s
}

func (c *counters) update(change func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.s)
}

func (c *counters) opened(n int) {
	c.limit.opened(n)
	c.update(func(s *Stats) { s.Open += n })
}
