package tailcasttest

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"time"
)

// Goroutines inherit the labels of the one that starts them. So those that belong to a call are known by a label, whatever else the
// process does meanwhile.
const labelKey = "tailcasttest"

var labels atomic.Int64

// labelled gives ctx, and the goroutine that calls adopt with it, a label of its own.
func labelled(ctx context.Context) (_ context.Context, label string) {
	label = fmt.Sprint("call ", labels.Add(1))
	return pprof.WithLabels(ctx, pprof.Labels(labelKey, label)), label
}

func adopt(ctx context.Context) { pprof.SetGoroutineLabels(ctx) }

// left returns the stacks of the goroutines with a label, after it has given them time to end. Nothing tells when a goroutine has
// ended, so it looks again and again.
func (s *suite) left(label string) string {
	pause := time.Millisecond
	for end := time.Now().Add(s.within); ; pause = min(2*pause, 200*time.Millisecond) {
		stacks := s.running(label)
		if stacks == "" || time.Now().After(end) {
			return stacks
		}
		time.Sleep(pause)
	}
}

func (s *suite) running(label string) string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		s.Fatal(err)
	}
	var found []string
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(stack, fmt.Sprintf("%q:%q", labelKey, label)) && !s.ignored(stack) {
			_, frames, _ := strings.Cut(stack, "\n#\t") // after the addresses and the labels
			found = append(found, "#\t"+frames)
		}
	}
	return strings.Join(found, "\n")
}

func (s *suite) ignored(stack string) bool {
	for _, function := range s.ignore {
		if strings.Contains(stack, function) {
			return true
		}
	}
	return false
}

// locked waits until done is true, or nothing in the bubble moves any more. If that is because goroutines wait for a lock it returns
// their stacks: no time passes in a bubble while one does, so no timeout would tell. Outside of a bubble it returns at once.
func locked(done func() bool) (stacks string) {
	const looks, patience = 5000, 50
	stuck := 0
	for range looks {
		if done() {
			return ""
		}
		waiting, moving := inBubble()
		switch {
		case moving:
			stuck = 0
		case waiting == "":
			return ""
		default:
			if stuck++; stuck == patience {
				return waiting
			}
		}
		runtime.Gosched()
	}
	return ""
}

// inBubble looks at the other goroutines in the caller's bubble: the stacks of those that wait for a lock, and whether one moves.
func inBubble() (waiting string, moving bool) {
	buf := make([]byte, 256<<10)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	own := "" // the caller's stack comes first
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		state, bubble := header(stack)
		switch {
		case own == "" && bubble == "":
			return "", false
		case own == "":
			own = bubble
		case bubble != own:
		case strings.HasPrefix(state, "sync.Mutex") || strings.HasPrefix(state, "sync.RWMutex"):
			waiting += stack + "\n"
		case state == "running" || state == "runnable" || state == "syscall" || state == "IO wait":
			moving = true
		}
	}
	return waiting, moving
}

// header reads the line "goroutine 7 [select (durable), synctest bubble 3]:".
func header(stack string) (state, bubble string) {
	_, rest, _ := strings.Cut(stack, "[")
	inside, _, _ := strings.Cut(rest, "]:")
	for i, part := range strings.Split(inside, ", ") {
		if i == 0 {
			state = part
		} else if strings.HasPrefix(part, "synctest bubble") {
			bubble = part
		}
	}
	return state, bubble
}
