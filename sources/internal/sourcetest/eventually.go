package sourcetest

import (
	"testing"
	"time"
)

// Patience is how long nothing may happen before a test gives up. RabbitMQ takes its time to start.
const Patience = 2 * time.Minute

// Eventually waits for a condition of which nothing tells.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up after %v: %s", Patience, what)
		}
	}
}
