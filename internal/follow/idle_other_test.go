//go:build !unix

package follow_test

import (
	"testing"
	"time"
)

func cpu(testing.TB) time.Duration { return 0 }
func inUse() uint64                { return 0 }
