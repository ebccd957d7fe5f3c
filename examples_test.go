package tailcast_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFeatureTable: each row of examples/README.md names a test, and each test that it names is there.
func TestFeatureTable(t *testing.T) {
	table, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, pattern := range []string{"*_test.go", "examples/*/*_test.go", "internal/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(code, -1) {
				there[string(m[1])] = true
			}
		}
	}
	rows := 0
	for line := range strings.Lines(string(table)) {
		names := regexp.MustCompile(`Test\w+`).FindAllString(line, -1)
		for _, name := range names {
			if !there[name] {
				t.Errorf("there is no %s", name)
			}
		}
		if strings.HasPrefix(line, "| ") && !strings.Contains(line, "| test |") {
			if rows++; len(names) == 0 {
				t.Errorf("no test in %s", line)
			}
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
}
