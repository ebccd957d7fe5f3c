package main

import (
	"os"
	"testing"
)

// TestMain lets the test be what the program is: its own server and client.
func TestMain(m *testing.M) {
	if status, ok := roleMain(os.Args); ok {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// TestQuick does the works in small: nothing is missing, repeated or out of order.
func TestQuick(t *testing.T) {
	b := &bench{sizes: quickSizes, rounds: 1, only: "tailcast,gws,raw", log: t.Output()}
	if err := b.play("3,4,7"); err != nil {
		t.Fatal(err)
	}
	if len(b.played) != 3 {
		t.Errorf("%d works", len(b.played))
	}
	for _, w := range b.played {
		if len(w.legs) < 3 {
			t.Errorf("%s: %d servers", w.title, len(w.legs))
		}
		for name, results := range w.results {
			for _, r := range results {
				if r.err != nil && kindOf(name).missing() == nil {
					t.Errorf("%s: %s: %v", w.title, name, r.err)
				}
			}
		}
	}
	t.Log(b.report())
}
