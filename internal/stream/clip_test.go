package stream_test

import (
	"testing"
	"time"

	"github.com/tailcast/tailcast/internal/stream"
)

// A viewer of what is far smaller than the records, as it is when it is compressed, costs little more than what it reads.
func TestAShortEncodingTakesLittle(t *testing.T) {
	const records, size = 2000, 1000
	budget := stream.NewBudget(0)
	log := stream.NewLog(stream.Retention{}, budget)
	for i := range uint64(records) {
		a := log.Begin()
		a.Add(stream.Position{Epoch: 1, Offset: i + 1}, int64(i+1), 0, make([]byte, size))
		a.End(time.Unix(1, 0))
	}
	plain := budget.Used()
	e := log.Encoding("short", short)
	cur, read := log.Oldest(), 0
	for {
		chunk, state := e.Next(&cur, 1<<20)
		if state != stream.Ready {
			break
		}
		read += len(chunk.Bytes)
		chunk.Advance(&cur, len(chunk.Bytes))
	}
	if read < records*3 {
		t.Fatalf("%d bytes were read", read)
	}
	// The last segment may still grow, so it has its room.
	if cost := budget.Used() - plain; cost > 100_000+8*int64(read) {
		t.Errorf("the encoding of %d bytes takes %d", read, cost)
	}
}
