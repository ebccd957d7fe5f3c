//go:build !linux

package follow

import "time"

// Births are not asked for elsewhere.
type Births struct{ On bool }

func (b *Births) Note(string, time.Time) error { return nil }
func (b *Births) Use(*Follower)                {}
