package follow

import (
	"bytes"
	"errors"
	"os"
	"time"
)

// offset finds where to begin in the first size bytes of a file that is there already: always where a line begins.
func (s Start) offset(h *handle, size int64) (int64, error) {
	if s == FromStart {
		return 0, nil
	}
	return lineStart(h, size, int(s))
}

// lineStart goes back from size to the first byte after the newline that n more newlines follow. What comes after the last
// newline is the beginning of a line and counts for nothing. It does not go back through a large hole, but begins after it.
func lineStart(file file, size int64, n int) (int64, error) {
	buf := make([]byte, min(size, 64<<10))
	end := size
	for size > 0 {
		b := buf[:min(int64(len(buf)), size)]
		size -= int64(len(b))
		if _, err := file.ReadAt(b, size); err != nil {
			return 0, err
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b[:i], '\n') {
			if n == 0 {
				return size + int64(i) + 1, nil
			}
			n--
		}
		if len(b) >= holeSize && nulRun(b) == len(b) {
			return afterHole(file, size+int64(len(b)), end)
		}
	}
	return 0, nil
}

// first is the first look of all: it notes which files belong to the past, and where in the file that is there the stream
// begins. What is rotated meanwhile would be on neither side, so then it begins again. A file that is there and can't be read
// yet will be read from where the stream would have begun.
func (r *run) first() {
	for try := 0; ; try++ {
		past := r.siblings()
		info, err := r.named()
		var h *handle
		if err == nil {
			h, err = openHandle(r.fs, r.cfg.Path)
		}
		rotated := info != nil && errors.Is(err, os.ErrNotExist) || err == nil && !r.alike(past, r.siblings())
		if rotated && try < 20 {
			if h != nil {
				h.release()
			}
			continue
		}
		if err == nil {
			err = r.startIn(h)
		}
		switch {
		case err == nil:
			r.present = true
			r.recovered()
		case eventOf(err) == EventUnreadable:
			if !r.waits {
				r.waits, r.unread, r.past = true, info, past
			}
			r.troubled(err)
			return
		default:
			r.troubled(err)
		}
		r.started = true
		if r.waits {
			past = r.past
		}
		r.rememberAll(past)
		if r.waits && len(r.chain) > 0 { // what was rotated while nothing could be read
			r.insertMissed(0, time.Time{}, time.Time{}, r.live().id(), identity{})
			r.hist.start(r.chain[0].src, r.chain[0].reader.position(), 0)
		}
		return
	}
}

// startIn begins the stream in a file, or lets go of it with an error.
func (r *run) startIn(h *handle) error {
	size := h.info.Size()
	if r.unread != nil {
		size = min(size, r.unread.Size())
		if !r.same(identity{r.unread}, identity{h.info}) {
			size = 0 // that one was rotated
		}
	}
	at, err := r.cfg.Start.offset(h, size)
	begin := reader{file: h, maxLine: r.cfg.MaxLine}
	if err == nil {
		err = begin.seek(at)
	}
	if err != nil {
		h.release()
		return err
	}
	g := r.newGeneration(h)
	g.reader = begin
	r.chain = append(r.chain, g)
	if !r.waits {
		r.hist.start(g.src, g.reader.position(), size)
	}
	return nil
}
