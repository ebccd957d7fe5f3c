package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestMain lets the test be what the program is: its own child processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "child" {
		os.Exit(childMain(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// TestTable plays a few scenarios: what the driver does works, and tailcast declares what it does not deliver.
func TestTable(t *testing.T) {
	run, only := "^(rename, slow writer|2 rotations in one look|copytruncate, lines between|line in two writes|run again|process killed)$", "."
	if testing.Short() {
		run = "^(rename, unread lines|process killed)$"
	}
	if _, err := exec.LookPath("tail"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Log("there is no GNU tail:", err)
		only = "tailcast|nxadm"
	}
	b := newBench(regexp.MustCompile(run), regexp.MustCompile(only), 12)
	b.log = t.Output()
	if err := b.play(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for c, r := range b.results {
		if r.Delivered == 0 || r.Written == 0 {
			t.Errorf("%s: %s: %d of %d lines arrived", c.scenario, c.follower.name, r.Delivered, r.Written)
		}
		if c.follower.name == "tailcast" && !r.honest() {
			t.Errorf("%s: tailcast: %s", c.scenario, r)
		}
	}
	if page := b.report(nil); strings.Count(page, "\n") < len(b.results) {
		t.Error(page)
	}
}

// TestSpeeds measures for a moment.
func TestSpeeds(t *testing.T) {
	dir := t.TempDir()
	rates, err := throughput(dir, 20_000, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(rates) != len(ways) {
		t.Errorf("rates: %v", rates)
	}
	took, err := latencies(dir, "tailcast", 1000, 200_000_000)
	if err != nil || len(took) != 200 {
		t.Errorf("%d lines, %v", len(took), err)
	}
}

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name, written, delivered string // a line is a letter; written and delivered by one writer, in order
		want                     string
	}{
		{"all", "abc", "abc", "ok"},
		{"lost", "abcd", "ad", "2 lost"},
		{"lost at the end", "abc", "ab", "1 lost"},
		{"declared", "abcd", "a|d", "2 lost, declared"},
		{"declared at the end", "abc", "ab|", "1 lost, declared"},
		{"declared elsewhere", "abcd", "|ad", "2 lost"},
		{"one of two", "abcde", "a|ce", "1 lost; 1 lost, declared"},
		{"twice", "abc", "abbc", "1 twice"},
		{"torn", "abc", "axc", "1 lost; 1 torn"},
		{"out of order", "abc", "acb", "1 out of order"},
		{"alike", "aba", "aba", "ok"},
		{"alike, twice", "aba", "abaa", "1 twice"},
	} {
		l := newLedger()
		for i, c := range test.written {
			l.enter("w", i+1, []byte(string(c)))
		}
		for _, c := range test.delivered {
			if c == '|' {
				l.gap("")
			} else {
				l.arrived([]byte(string(c)))
			}
		}
		if got := fmt.Sprint(l.judge()); got != test.want {
			t.Errorf("%s: wrote %s, got %s: %s, want %s", test.name, test.written, test.delivered, got, test.want)
		}
	}
}
