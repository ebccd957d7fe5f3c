package follow

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// IsGlob reports whether a path has to be matched.
func IsGlob(path string) bool {
	return strings.ContainsAny(path[len(filepath.VolumeName(path)):], "*?[")
}

// A glob is a pattern, level by level.
type glob struct {
	root   string   // the directory before the first level that has to be matched
	levels []string // the last one is the files'
	flat   bool     // all files are in one directory
}

func newGlob(pattern string) (*glob, error) {
	if _, err := filepath.Match(pattern, ""); err != nil {
		return nil, err
	}
	pattern = filepath.Clean(pattern)
	g := &glob{}
	for {
		dir, base := filepath.Split(pattern)
		g.levels = append([]string{base}, g.levels...)
		if pattern = filepath.Clean(dir); !IsGlob(pattern) {
			g.root = pattern
			break
		}
	}
	g.flat = len(g.levels) == 1
	return g, nil
}

// name is what a file is called: by its base name, or where several directories may have one of that name, by its path from
// the root on. So the name does not depend on which other files there are.
func (g *glob) name(path string) string {
	if g.flat {
		return filepath.Base(path)
	}
	rel, err := filepath.Rel(g.root, path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

// match is for one level. As in a shell, a name that begins with a dot has to be asked for.
func match(level, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(level, ".") {
		return false
	}
	ok, _ := filepath.Match(level, name)
	return ok
}

// expand lists the directories that were looked into, with the pattern for what is in them, and the names that match in the
// last ones. The names are in order.
func (g *glob) expand(l *lister) (looked map[string]string, found map[string][]string) {
	looked, found = make(map[string]string), make(map[string][]string)
	dirs := []string{g.root}
	for i, level := range g.levels {
		last := i == len(g.levels)-1
		var next []string
		for _, dir := range dirs {
			names, err := l.names(dir)
			if err != nil {
				continue
			}
			looked[dir] = level
			for _, name := range names {
				switch {
				case !match(level, name):
				case last:
					found[dir] = append(found[dir], name)
				default:
					next = append(next, filepath.Join(dir, name))
				}
			}
		}
		dirs = slices.DeleteFunc(next, func(dir string) bool {
			info, err := l.fs.Stat(dir)
			return err != nil || !info.IsDir()
		})
	}
	return looked, found
}

// rotatedFrom lists the names whose rotation may have given this one: see rotatedName.
func rotatedFrom(name string) (bases []string) {
	cut := func(s, ext string) {
		for i := 1; i < len(s); i++ {
			if isBoundary(s[i]) && rotationMark(s[i:]) {
				bases = append(bases, s[:i]+ext)
			}
		}
	}
	cut(name, "")
	if ext := filepath.Ext(name); ext != "" {
		cut(strings.TrimSuffix(name, ext), ext)
	}
	return bases
}

// isLink reports whether the last element of a path is a symbolic link.
func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&os.ModeSymlink != 0
}
