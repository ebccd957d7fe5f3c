package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// A pace is how fast a demo goes.
type pace struct {
	interval time.Duration // between two lines
	rotate   int           // lines a file
}

// A demo writes a log for show, in a directory of its own, and rotates it as logrotate does: by renaming it, and creating a
// new one.
type demo struct {
	pace
	dir  string
	file *os.File
	line int // lines written
}

// demoKeep is how many rotated files are kept.
const demoKeep = 5

func newDemo(p pace) (*demo, error) {
	dir, err := os.MkdirTemp("", "logtail-demo-")
	if err != nil {
		return nil, err
	}
	d := &demo{pace: p, dir: dir}
	if err := d.create(); err != nil {
		d.remove()
		return nil, err
	}
	return d, nil
}

func (d *demo) log() logFile { return logFile{Name: "demo.log", path: d.name(0)} }

// name is that of the file that was rotated n times.
func (d *demo) name(n int) string {
	if n == 0 {
		return filepath.Join(d.dir, "demo.log")
	}
	return filepath.Join(d.dir, fmt.Sprintf("demo.log.%d", n))
}

func (d *demo) remove() {
	if d.file != nil {
		d.file.Close()
	}
	os.RemoveAll(d.dir)
}

// write writes until ctx is done.
func (d *demo) write(ctx context.Context) error {
	tick := time.NewTicker(d.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := d.writeLine(now); err != nil {
				return fmt.Errorf("demo: %w", err)
			}
		}
	}
}

func (d *demo) writeLine(now time.Time) error {
	if d.line > 0 && d.line%d.rotate == 0 {
		if err := d.rotateFile(); err != nil {
			return err
		}
	}
	d.line++
	_, err := fmt.Fprintln(d.file, demoLine(now, d.line))
	return err
}

func (d *demo) rotateFile() error {
	if err := d.file.Close(); err != nil {
		return err
	}
	for n := demoKeep; n > 0; n-- {
		if err := os.Rename(d.name(n-1), d.name(n)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return d.create()
}

func (d *demo) create() (err error) {
	d.file, err = os.OpenFile(d.name(0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

// demoLine is line n of a shop that does not exist.
func demoLine(now time.Time, n int) string {
	stamp := now.UTC().Format("2006-01-02T15:04:05.000Z")
	ms, order := 2+rand.IntN(90), 81000+n
	if n%12 == 0 {
		return fmt.Sprintf(`{"time":%q,"n":%d,"level":"info","msg":"order paid","order":%d,"amount":"%d.%02d","took_ms":%d}`,
			stamp, n, order, 5+rand.IntN(200), rand.IntN(100), ms)
	}
	texts := [...]string{
		fmt.Sprintf("INFO  GET /products/%d 200 %d ms", 100+rand.IntN(800), ms),
		fmt.Sprintf("INFO  GET /basket 200 %d ms", ms),
		fmt.Sprintf("DEBUG cache: hit for product:%d, expires in %d s", 100+rand.IntN(800), rand.IntN(300)),
		fmt.Sprintf("INFO  POST /orders 201 %d ms order=%d", ms, order),
		`INFO  GET /search?q=<script>alert("hello")</script> 200 7 ms`,
		fmt.Sprintf("INFO  user \"Zoë 🦊\" signed in from 203.0.113.%d", 1+rand.IntN(254)),
		fmt.Sprintf("WARN  payments: attempt 2 of 3 for order %d, gateway answered 503 after %d ms", order, 900+ms),
		fmt.Sprintf("ERROR mail: order %d: dial tcp 192.0.2.25:587: connect: connection refused", order),
	}
	weights := [...]int{24, 12, 16, 12, 3, 4, 4, 2}
	return fmt.Sprintf("%s #%05d %s", stamp, n, texts[pick(weights[:])])
}

// pick returns an index, as often as its weight says.
func pick(weights []int) int {
	sum := 0
	for _, w := range weights {
		sum += w
	}
	r := rand.IntN(sum)
	for i, w := range weights {
		if r -= w; r < 0 {
			return i
		}
	}
	return len(weights) - 1
}
