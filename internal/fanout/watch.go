package fanout

import (
	"sync"
	"sync/atomic"
)

// A Watcher is somebody who reads a topic's log by itself, and not through a connection: it is woken when the log has grown, and
// counts for the pace of whoever fills the log.
type Watcher struct {
	C chan struct{} // holds something when there may be something new

	topic *Topic
	at    atomic.Uint64 // payload bytes of the log that it has passed
	lastLook
}

// watchers are those of one topic.
type watchers struct {
	count atomic.Int32 // of set

	mu  sync.Mutex // guards set, and the lastLook of those in it
	set map[*Watcher]struct{}
}

// Watch adds a Watcher that has passed at bytes of the topic's log. What comes from now on wakes it, until Stop.
func (t *Topic) Watch(at uint64) *Watcher {
	w := &Watcher{C: make(chan struct{}, 1)}
	w.add(t, at)
	return w
}

// Move lets it watch another topic. It must not be called concurrently with itself or Stop.
func (w *Watcher) Move(t *Topic, at uint64) {
	w.Stop()
	w.add(t, at)
}

// Stop ends it.
func (w *Watcher) Stop() {
	ws := &w.topic.watchers
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.set, w)
	ws.count.Store(int32(len(ws.set)))
}

func (w *Watcher) add(t *Topic, at uint64) {
	w.topic = t
	w.at.Store(at)
	ws := &t.watchers
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.set == nil {
		ws.set = make(map[*Watcher]struct{})
	}
	w.lastLook = lastLook{}
	ws.set[w] = struct{}{}
	ws.count.Store(int32(len(ws.set)))
}

// Pass says that it has passed at bytes of its log.
func (w *Watcher) Pass(at uint64) { w.at.Store(at) }

// Wake wakes it.
func (w *Watcher) Wake() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

func (ws *watchers) wake() {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.set {
		w.Wake()
	}
}

func (ws *watchers) each(f func(at uint64, known bool, l *lastLook)) {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.set {
		f(w.at.Load(), true, &w.lastLook)
	}
}
