package main

import "fmt"

// String is a result for one cell of a table.
func (r result) String() string {
	s := ""
	add := func(n int, what string) {
		if n == 0 {
			return
		}
		if s != "" {
			s += ", "
		}
		s += fmt.Sprintf("%d %s", n, what)
	}
	add(r.Lost-r.Declared, "lost")
	add(r.Declared, "lost, declared")
	add(r.Duplicated, "twice")
	add(r.Torn, "torn")
	add(r.Reordered, "out of order")
	if r.End != "" {
		if s != "" {
			s += ", "
		}
		s += r.End
	}
	if s == "" {
		return "ok"
	}
	return s
}
