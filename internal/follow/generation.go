package follow

import (
	"bytes"
	"io"
	"os"
	"time"
)

// A generation is one file, from its first byte until it is rotated away or truncated.
type generation struct {
	src    *source
	h      *handle // nil between two Runs
	reader reader
	gap    *Gap        // to be declared before its next line
	gapped bool        // it was
	cut    bool        // it began when its file was truncated, and so did what is found to have been between it and the one before
	sealed bool        // complete as it is: a copy, or packed
	missed bool        // the path was never seen to name it
	fresh  bool        // nothing was read of it while it was empty, or since it was opened again
	first  os.FileInfo // of the file as it was when this generation was found
	size   int64       // as it was last seen
	grew   time.Time   // when it was last seen to grow
	looked time.Time   // when its size was last seen, since it was opened
	born   time.Time   // the file's time when it was first opened
	mtime  time.Time   // of the file when the path was last seen to name it: a late writer does not make older what came after it
	filled time.Time   // of the file after its first block was read, where settle has read that
	aged   time.Time   // when it ceased to be the live one; zero before
	last   imprint     // of what was read when it was closed
}

// An imprint is the last bytes that were read of a file, and where they ended.
type imprint struct {
	end   int64
	bytes []byte
}

// on reports whether a file shows the imprint. An imprint of nothing is on every file.
func (p imprint) on(file io.ReaderAt) bool {
	b := make([]byte, len(p.bytes))
	n, _ := file.ReadAt(b, p.end-int64(len(b)))
	return n == len(b) && bytes.Equal(b, p.bytes)
}

func (g *generation) id() identity { return identity{g.h.info} }

// rest is how many bytes are known to be there and not delivered.
func (g *generation) rest() int64 { return g.size - g.reader.offset() }

// newGeneration begins at the first byte of h, and takes over the caller's use of h.
func (f *Follower) newGeneration(h *handle) *generation {
	g := &generation{h: h, first: h.info, gap: f.gap, src: &source{info: identity{h.info}}}
	f.gap = nil
	g.reader = reader{file: h, maxLine: f.cfg.MaxLine}
	g.size, g.mtime, g.born = h.info.Size(), h.written(), h.written()
	g.fresh = g.size == 0
	g.quietSince(g.mtime)
	g.complete()
	if h.retain() {
		g.src.h = h
	}
	f.hist.add(g.src)
	f.stat.opened(1)
	return g
}

// replaceFile lets the generation go on in another file with the same content.
func (f *Follower) replaceFile(g *generation, h *handle) {
	f.closeFile(g)
	g.h, g.reader.file = h, h
	g.complete()
	if h.retain() {
		f.hist.attach(g.src, h)
	}
	f.stat.opened(1)
}

// closeFile keeps the place: the generation may be opened again.
func (f *Follower) closeFile(g *generation) {
	if g.h == nil {
		return
	}
	g.last = g.reader.imprint()
	g.reader.forget()
	g.fresh = g.reader.end() == 0
	g.looked = time.Time{}
	if info, err := g.h.Stat(); err == nil && g.fresh && !g.h.packed() { // all that will tell it from others, once it is packed
		f.hist.describe(g.src, identity{info})
	}
	g.h.release()
	g.h = nil
	f.hist.close(g.src)
	f.stat.opened(-1)
}
