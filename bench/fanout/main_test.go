package main

import (
	"os"
	"strings"
	"testing"
)

// TestMain lets the test be what the program is: its own server and client.
func TestMain(m *testing.M) {
	if status, ok := roleMain(os.Args); ok {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// play does works in small: nothing may be missing, repeated or out of order.
func play(t *testing.T, only, sections string, runs int) {
	b := &bench{sizes: quickSizes, rounds: 1, only: only, log: t.Output()}
	if err := b.play(sections); err != nil {
		t.Fatal(err)
	}
	for _, w := range b.played {
		for name, results := range w.results {
			for _, r := range results {
				runs--
				if r.err != nil && kindOf(name).missing() == nil {
					t.Errorf("%s: %s: %v", w.title, name, r.err)
				}
			}
		}
		if !strings.Contains(b.report(), w.title) {
			t.Errorf("%s: not in the report", w.title)
		}
	}
	if runs != 0 {
		t.Errorf("%d runs are missing", runs)
	}
}

func TestQuick(t *testing.T) {
	play(t, "tailcast,gws,raw", "3,4,7", 3+3+4)
}

func TestPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	play(t, "gorilla,melody,gobwas,centrifuge,nhooyr", "3,6", 5+5)
}

// TestTransports has all ways to read, with TLS and without.
func TestTransports(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	play(t, "", "8,11", 3+2+2+2)
}
