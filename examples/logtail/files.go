package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A logFile is one file that is shown.
type logFile struct {
	Name  string // for people
	Topic string // "" is the default topic
	path  string
}

// maxLogs is how many topics one connection may have.
const maxLogs = 128

// nameLogs gives each path its topic: the default one to a single path, base names to several.
func nameLogs(paths []string) ([]logFile, error) {
	if len(paths) > maxLogs {
		return nil, fmt.Errorf("%d files are too many: the limit is %d", len(paths), maxLogs)
	}
	logs := make([]logFile, 0, len(paths))
	taken := make(map[string]string)
	for _, path := range paths {
		name := filepath.Base(path)
		if strings.ContainsAny(path, "*?[") {
			return nil, fmt.Errorf("%q: a pattern; without quotes the shell makes files of it", path)
		}
		if other, ok := taken[name]; ok {
			return nil, fmt.Errorf("%s and %s would both be called %s: each file needs a base name of its own", other, path, name)
		}
		if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			return nil, fmt.Errorf("%q: the name of a file to show must be plain text", path)
		}
		taken[name] = path
		logs = append(logs, logFile{Name: name, Topic: name, path: path})
	}
	if len(logs) == 1 {
		logs[0].Topic = ""
	}
	return logs, nil
}

// check says what cannot be followed, and what is waited for.
func check(logs []logFile, stderr io.Writer) error {
	for _, l := range logs {
		info, err := os.Stat(l.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(stderr, "logtail: %s does not exist yet: waiting for it\n", l.path)
		case err != nil:
			fmt.Fprintf(stderr, "logtail: %v: trying again until it works\n", err)
		case info.IsDir():
			return fmt.Errorf("%s is a directory, not a file", l.path)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file", l.path)
		}
	}
	return nil
}
