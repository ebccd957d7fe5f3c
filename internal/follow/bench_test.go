package follow_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tailcast/tailcast/internal/follow"
)

const benchSize = 64 << 20

func benchFile(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "app.log")
	line := strings.Repeat("x", 99) + "\n"
	if err := os.WriteFile(path, []byte(strings.Repeat(line, benchSize/100)), 0o644); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchSize / 100 * 100)
	b.ReportAllocs()
	return path
}

// BenchmarkRun reads lines of 100 bytes from the page cache.
func BenchmarkRun(b *testing.B) {
	path := benchFile(b)
	for b.Loop() {
		n := 0
		f := follow.New(follow.Config{Path: path, Start: follow.FromStart, NoNotify: true})
		f.Run(context.Background(), func(lines []follow.Line) error {
			if n += len(lines); n == benchSize/100 {
				return io.EOF
			}
			return nil
		})
	}
}

// BenchmarkReplay does the same through Replay.
func BenchmarkReplay(b *testing.B) {
	path := benchFile(b)
	for b.Loop() {
		n := 0
		f := follow.New(follow.Config{Path: path, NoNotify: true})
		f.Replay(context.Background(), follow.Position{}, func(lines []follow.Line) error {
			if n += len(lines); n == benchSize/100 {
				return io.EOF
			}
			return nil
		})
	}
}

// BenchmarkBareLoop is the limit: blocks of the same size, and IndexByte.
func BenchmarkBareLoop(b *testing.B) {
	path := benchFile(b)
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		buf, n := make([]byte, 256<<10), 0
		for {
			m, err := f.Read(buf)
			for rest := buf[:m]; ; n++ {
				i := bytes.IndexByte(rest, '\n')
				if i < 0 {
					break
				}
				rest = rest[i+1:]
			}
			if err != nil {
				break
			}
		}
		f.Close()
		if n != benchSize/100 {
			b.Fatal(n)
		}
	}
}
