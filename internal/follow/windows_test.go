package follow_test

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// TestRaceWindows stops the follower before every call that it makes to the file system, lets something happen there, goes
// on, and compares what came with what was written: every line once and in order. Only what was destroyed may be missing, and
// that must be declared. It takes the calls of some stories, one after the other, and for each all actions, what is unread at
// that moment, and whether the writer of the old file goes on.
//
// FOLLOW_WINDOWS=n does every nth of them, 1 all; FOLLOW_WINDOW='story/action/unread/writer/call' one, and shows it.
// FOLLOW_ALL=1 goes on after many have failed.
func TestRaceWindows(t *testing.T) {
	t.Parallel()
	stride, foundStride := 307, 4
	if testing.Short() || raced {
		stride, foundStride = 997, 30
	}
	if v, err := strconv.Atoi(os.Getenv("FOLLOW_WINDOWS")); err == nil {
		stride = v
	}
	one := os.Getenv("FOLLOW_WINDOW")
	n, calls, tested, failed := 0, 0, 0, 0
	for _, name := range storyNames {
		t.Run(name, func(t *testing.T) {
			last := countCalls(t, name)
			calls += last
			for call := 1; call <= last; call++ {
				for _, action := range actionNames {
					if failed > 10 && os.Getenv("FOLLOW_ALL") == "" {
						return
					}
					for _, unread := range []string{"nothing", "lines", "half"} {
						for _, writer := range []string{"ends", "goes on"} {
							w := window{name, action, unread, writer, call}
							if n++; one == "" && n%stride != 0 && !(slices.Contains(found, w.combination()) && call%foundStride == 0) || one != "" && one != w.String() {
								continue
							}
							tested++
							if !t.Run(w.name(), func(t *testing.T) { w.test(t, one != "" || n%(stride*11) == 0) }) {
								failed++
							}
						}
					}
				}
			}
		})
	}
	t.Logf("%d calls, %d windows, %d of them tested", calls, n, tested)
}

// A window is a place in a story, and what happens there.
type window struct {
	story, action, unread, writer string
	call                          int
}

func (w window) String() string {
	return fmt.Sprintf("%s/%s/%s/%s/%d", w.story, w.action, w.unread, w.writer, w.call)
}

// found are combinations in which lines were lost, repeated or out of order once: they are tested at every call.
var found = []string{
	"grows/two rotations/half/goes on",
	"is late/copy, truncate and write/nothing/ends",
	"is late/two rotations/lines/ends",
	"is stopped/rename, copy and truncate/nothing/ends",
	"is stopped/truncate and write/nothing/ends",
	"is truncated/copy, truncate and rename/nothing/ends",
	"is truncated/two rotations/lines/goes on",
}

func (w window) combination() string {
	return fmt.Sprintf("%s/%s/%s/%s", w.story, w.action, w.unread, w.writer)
}

// name is for a subtest of the story.
func (w window) name() string { return strings.TrimPrefix(w.String(), w.story+"/") }

func (w window) test(t *testing.T, replays bool) {
	var s *stage
	defer func() {
		if t.Failed() || os.Getenv("FOLLOW_WINDOW") != "" {
			t.Logf("%s:\n%s\nitems: %v", w, strings.Join(s.log, "\n"), s.r.items)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s = newStage(t)
		defer s.r.close()
		s.r.withBirths(w.call)
		s.at(w.call, func() { s.act(w) })
		s.play(w.story)
		s.compare()
		if replays && !s.jumbled && s.past == 0 && !t.Failed() {
			s.r.check()
		}
	})
}

func countCalls(t *testing.T, story string) (n int) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		defer s.r.close()
		s.at(0, nil)
		s.play(story)
		if s.compare(); t.Failed() {
			t.Fatalf("%s\n%v", strings.Join(s.log, "\n"), s.r.items)
		}
		n = s.told
	})
	return n
}

// A stage is a rig in which every line that is written is known.
type stage struct {
	r        *rig
	t        testing.TB
	log      []string
	lines    []*stageLine
	gen      int    // the number of the live generation
	live     string // its writer; "" while the path names nothing
	old      string // the writer of the one before, while it goes on
	half     *stageLine
	seq      int
	nameless []int // generations that were deleted
	gaps     int   // how many there may be

	found   bool // the file has been looked for
	begun   bool // and the stream has begun
	past    int  // generations that are older than the stream
	changes []change
	jumbled bool // nobody can tell the order of all generations
	calls   int
	told    int // calls until the story was told
	first   time.Time
	instant time.Time
	busy    int // calls in this instant
}

// A change is the end of a generation.
type change struct {
	at   time.Time
	copy bool
}

type stageLine struct {
	text string
	gen  int
	late bool // may come after lines of newer generations
	may  bool // be lost, and declared
	mute bool // or not even that: nobody can know of it
}

func newStage(t testing.TB) *stage {
	s := &stage{r: newRig(t), t: t}
	s.r.cfg.Start, s.r.cfg.Grace = follow.FromStart, 3*time.Second
	return s
}

func (s *stage) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%v call %d: ", time.Since(realNow).Round(time.Millisecond), s.calls)+fmt.Sprintf(format, args...))
}

// at lets something happen before a call.
func (s *stage) at(call int, act func()) {
	verbose := os.Getenv("FOLLOW_WINDOW") != ""
	s.r.hook = func(op, name string) error {
		s.r.mu.Lock()
		defer s.r.mu.Unlock()
		if s.calls++; s.calls == call {
			act()
		}
		if s.first.IsZero() {
			s.first = time.Now()
		}
		s.beginning(op, name)
		if verbose {
			s.note("%s %s", op, name)
		}
		s.spinning()
		return nil
	}
}

// beginning forgives what is rotated away during the first look, before anything has come: the stream begins with the file
// that is there at some moment of it. Where none is there at first, all that comes later counts.
func (s *stage) beginning(op, name string) {
	if !s.found && op == "stat" && name == s.r.cfg.Path {
		s.found = true
		defer func() { s.begun = s.begun || s.live == "" }()
	}
	if s.begun = s.begun || len(s.r.items) > 0 || s.instant != s.first && s.instant != (time.Time{}); s.begun {
		return
	}
	for _, l := range s.lines {
		if l.gen < s.gen || s.live == "" {
			l.may, l.mute = true, true
			s.past = max(s.past, l.gen)
		}
	}
}

// spinning ends a follower that would look for ever without letting time pass.
func (s *stage) spinning() {
	if now := time.Now(); now != s.instant {
		s.instant, s.busy = now, 0
	}
	if s.busy++; s.busy > 20_000 {
		panic("the follower is spinning:\n" + strings.Join(s.log, "\n"))
	}
}

// The stories. Each is told to the end whatever happens in between.
var stories = map[string]func(s *stage){
	"grows": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.write(2)
		s.r.look()
	},
	"is late": func(s *stage) {
		s.r.run()
		s.r.look()
		s.write(2)
		s.r.look()
	},
	"is empty": func(s *stage) {
		s.write(0)
		s.r.run()
		s.r.look()
		s.write(1)
		s.r.look()
	},
	"is renamed": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.write(1)
		s.rotate()
		s.write(2)
		s.r.look()
		s.write(1)
		s.r.look()
	},
	"is renamed unread": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.rotate()
		s.write(2)
		s.rotate()
		s.write(2)
		s.r.look()
	},
	"is copied and truncated": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.write(1)
		s.copyTruncate()
		s.write(2)
		s.r.look()
	},
	"is truncated": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.truncate()
		s.write(3)
		s.r.look()
	},
	"is deleted": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.remove()
		s.r.look()
		s.write(3)
		s.r.look()
	},
	"is stopped": func(s *stage) {
		s.write(2)
		s.r.run()
		s.r.look()
		s.write(2)
		s.stop()
		s.rotate()
		s.write(2)
		s.r.run()
		s.r.look()
		s.stop()
		s.write(1)
		s.r.run()
		s.r.look()
	},
}

var storyNames, actionNames = sortedKeys(stories), sortedKeys(actions)

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// play tells a story, and what must be true after every one: the writer goes on, and all comes.
func (s *stage) play(story string) {
	stories[story](s)
	s.r.look()
	s.lateWrite()
	s.write(1)
	s.r.wait(time.Second)
	s.told = s.calls
	s.write(1)
	s.r.wait(6 * time.Second)
	s.r.set(func() {})
}

// The actions, each on the live file.
var actions = map[string]func(s *stage){
	"append":                     func(s *stage) { s.write(1) },
	"rename and create":          func(s *stage) { s.rotate() },
	"rename and write":           func(s *stage) { s.rotate(); s.write(2) },
	"rename":                     func(s *stage) { s.rename() },
	"copy and truncate":          func(s *stage) { s.copyTruncate() },
	"copy, truncate and write":   func(s *stage) { s.copyTruncate(); s.write(2) },
	"truncate":                   func(s *stage) { s.truncate() },
	"truncate and write":         func(s *stage) { s.truncate(); s.write(1) },
	"truncate and regrow":        func(s *stage) { s.truncate(); s.write(12) },
	"delete":                     func(s *stage) { s.remove() },
	"delete and recreate":        func(s *stage) { s.remove(); s.write(2) },
	"rename over":                func(s *stage) { s.renameOver() },
	"two rotations":              func(s *stage) { s.rotate(); s.write(2); s.rotate(); s.write(1) },
	"two rotations, both empty":  func(s *stage) { s.rotate(); s.rotate() },
	"rename away and back":       func(s *stage) { s.awayAndBack() },
	"rename, then delete":        func(s *stage) { s.rotate(); s.removeRotated(); s.write(1) },
	"copy, truncate and rename":  func(s *stage) { s.copyTruncate(); s.write(2); s.rotate(); s.write(1) },
	"rename, copy and truncate":  func(s *stage) { s.rotate(); s.write(2); s.copyTruncate(); s.write(1) },
	"rename and compress":        func(s *stage) { s.rotate(); s.compress(); s.write(1) },
	"two rotations, compressed":  func(s *stage) { s.rotate(); s.write(2); s.rotate(); s.compress(); s.write(1) },
	"rename, and truncate it":    func(s *stage) { s.rotate(); s.write(2); s.truncate(); s.write(1) },
	"replace with an equal size": func(s *stage) { s.equalSize() },
}

// act is what happens in a window. The story's own writer goes on in the newest file, and the old one's perhaps in the old.
func (s *stage) act(w window) {
	s.note("-- %s", w.action)
	switch w.unread {
	case "lines":
		s.write(3)
	case "half":
		s.write(1)
		s.writeHalf()
	}
	if w.writer == "goes on" && s.live != "" {
		s.keepOld()
	}
	actions[w.action](s)
	s.lateWrite()
}

func (s *stage) create() {
	s.gen++
	s.live = fmt.Sprint("w", s.gen)
	s.note("create app.log, generation %d", s.gen)
	s.r.hold(s.live, "app.log")
	s.r.touched("app.log")
}

func (s *stage) add(gen int, late bool) *stageLine {
	s.seq++
	l := &stageLine{text: fmt.Sprintf("g%d-%d", gen, s.seq), gen: gen, late: late}
	s.lines = append(s.lines, l)
	return l
}

// write appends whole lines to the live file.
func (s *stage) write(n int) {
	if s.live == "" {
		s.create()
	}
	var text strings.Builder
	if s.half != nil && s.half.gen == s.gen && n > 0 {
		text.WriteString("-end\n")
		s.half.text += "-end"
		s.half = nil
	}
	for range n {
		text.WriteString(s.add(s.gen, false).text + "\n")
	}
	s.note("write generation %d %q", s.gen, text.String())
	s.r.heldWrite(s.live, text.String())
}

func (s *stage) writeHalf() {
	s.half = s.add(s.gen, false)
	s.note("write generation %d %q", s.gen, s.half.text)
	s.r.heldWrite(s.live, s.half.text)
}

// keepOld lets the live file's writer have it open for the time when it is old.
func (s *stage) keepOld() {
	s.old = fmt.Sprint("old", s.gen)
	s.r.hold(s.old, "app.log")
}

// lateWrite writes to the file that keepOld has kept, if it was renamed and is still there.
func (s *stage) lateWrite() {
	gen, err := strconv.Atoi(strings.TrimPrefix(s.old, "old"))
	if err != nil || gen == s.gen {
		return
	}
	if w := s.r.writers[s.old]; w.name == "" || w.name == "app.log" {
		return
	}
	text := ""
	if s.half != nil && s.half.gen == gen {
		text, s.half.text, s.half = "-late\n", s.half.text+"-late", nil
	}
	l := s.add(gen, true)
	l.may, l.mute = gen <= s.past, gen <= s.past
	if !s.r.between.HasOpen(s.r.path(s.r.writers[s.old].name)) { // of unknown files the times tell the order
		s.jumbled = true
		s.gaps++ // one that is younger than what followed it may be a copy
	}
	s.note("write generation %d, late, %q", gen, text+l.text+"\n")
	s.r.heldWrite(s.old, text+l.text+"\n")
}

// over ends the live generation: what is half is a line, and comes when the file is given up. Of several generations that end
// within one look, one of them by copy and truncation, nobody can always tell the order.
func (s *stage) over(copied bool) {
	if s.half != nil {
		s.half.late = true
	}
	s.live = ""
	now := time.Now()
	s.changes = slices.DeleteFunc(s.changes, func(c change) bool { return now.Sub(c.at) > poll })
	s.changes = append(s.changes, change{now, copied})
	s.jumbled = s.jumbled || len(s.changes) > 1 && slices.ContainsFunc(s.changes, func(c change) bool { return c.copy })
}

func (s *stage) rename() {
	if s.live == "" {
		return
	}
	s.note("rename app.log app.log.1")
	if !slices.ContainsFunc(s.lines, func(l *stageLine) bool { return l.gen == s.gen }) {
		s.gaps++ // an empty one may be a copy
	}
	s.shift()
	s.r.rename("app.log", "app.log.1")
	s.over(false)
}

func (s *stage) shift() {
	for n := 8; n > 0; n-- {
		for _, ext := range []string{"", ".gz"} {
			from := fmt.Sprint("app.log.", n, ext)
			if _, err := os.Stat(s.r.path(from)); err == nil {
				s.r.rename(from, fmt.Sprint("app.log.", n+1, ext))
			}
		}
	}
}

// compress packs what was rotated. Its writer has ended.
func (s *stage) compress() {
	for n := 8; n > 0; n-- {
		name := fmt.Sprint("app.log.", n)
		if _, err := os.Stat(s.r.path(name)); err == nil {
			s.note("gzip %s", name)
			s.r.gzip(name, 1, false)
		}
	}
}

func (s *stage) rotate() {
	s.rename()
	s.create()
}

func (s *stage) awayAndBack() {
	if s.live == "" {
		return
	}
	s.note("rename app.log app.log.1, and back")
	s.shift()
	s.r.rename("app.log", "app.log.1")
	s.r.rename("app.log.1", "app.log")
}

func (s *stage) copyTruncate() {
	if s.live == "" {
		return
	}
	s.note("copy app.log app.log.1")
	s.shift()
	s.r.copy("app.log", "app.log.1")
	s.gaps++
	if !s.seen() {
		s.gaps++ // it may have been truncated before the copy, too
	}
	s.empty(true)
}

func (s *stage) truncate() {
	if s.live == "" {
		return
	}
	s.destroyed(false)
	s.empty(false)
}

// empty truncates: the next generation has the same writer.
func (s *stage) empty(copied bool) {
	s.note("truncate app.log")
	s.r.truncate("app.log")
	live := s.live
	s.over(copied)
	s.half, s.old = nil, "" // it would write to the new generation
	s.gen++
	s.live = live
}

// destroyed allows for the loss of what was not delivered of the live generation. Of one that was never read nobody knows.
func (s *stage) destroyed(mute bool) {
	s.gaps++
	seen := s.seen()
	for _, l := range s.lines {
		if l.gen == s.gen && !s.delivered(l) {
			l.may, l.mute = true, mute || !seen
		}
	}
}

// seen reports whether anything of the live generation was delivered.
func (s *stage) seen() bool {
	return slices.ContainsFunc(s.lines, func(l *stageLine) bool { return l.gen == s.gen && s.delivered(l) })
}

func (s *stage) delivered(l *stageLine) bool {
	return slices.ContainsFunc(s.r.items, func(it item) bool { return it.data == l.text })
}

// gone is for a file whose name is taken away: what is open can still be read.
func (s *stage) gone(name string) {
	if s.r.between == nil || !s.r.between.HasOpen(s.r.path(name)) {
		s.destroyed(true)
	}
	s.nameless = append(s.nameless, s.gen)
	for _, l := range s.lines {
		l.late = l.late || l == s.half && l.gen == s.gen
	}
	s.half, s.old = nil, ""
}

// stop closes the files: what has no name any more, and was not read to its end, is lost.
func (s *stage) stop() {
	s.r.stop()
	gen := s.gen
	for _, s.gen = range s.nameless {
		s.destroyed(false)
	}
	s.gen = gen
}

func (s *stage) remove() {
	if s.live == "" {
		return
	}
	s.note("remove app.log")
	s.gone("app.log")
	s.r.remove("app.log")
	s.over(false)
}

func (s *stage) removeRotated() {
	if _, err := os.Stat(s.r.path("app.log.1")); err != nil {
		return
	}
	s.note("remove app.log.1")
	gen := s.gen
	s.gen-- // the one that was rotated
	s.gone("app.log.1")
	s.gen = gen
	s.r.remove("app.log.1")
}

func (s *stage) renameOver() {
	if s.live == "" {
		return
	}
	s.gone("app.log")
	s.r.moved("app.log", "")
	s.over(false)
	s.gen++
	s.live = fmt.Sprint("w", s.gen)
	s.r.hold(s.live, "new")
	s.write(2)
	s.note("rename new app.log")
	s.r.rename("new", "app.log")
}

// equalSize is what an editor does, or a program that writes its file anew: the same size, another file.
func (s *stage) equalSize() {
	if s.live == "" {
		return
	}
	info, err := os.Stat(s.r.path("app.log"))
	s.r.must(err)
	s.remove()
	s.create()
	if n := int(info.Size()); n > 20 {
		l := s.add(s.gen, false)
		l.text += strings.Repeat("x", n-len(l.text)-1)
		s.note("write generation %d %q", s.gen, l.text)
		s.r.heldWrite(s.live, l.text+"\n")
	}
}

// compare holds what came against what was written.
func (s *stage) compare() {
	s.r.set(func() {})
	at, gaps := make(map[string]int), []int(nil) // from 1
	definite := false
	for i, it := range s.r.items {
		switch {
		case it.gap != nil:
			gaps = append(gaps, i+1)
			definite = definite || !it.gap.Possible
		case at[it.data] != 0:
			s.t.Errorf("%q came twice", it.data)
		default:
			at[it.data] = i + 1
		}
	}
	known, last, lost := make(map[string]bool), make(map[int]int), false
	var inOrder []*stageLine
	for _, l := range s.lines {
		known[l.text] = true
		n := at[l.text]
		switch {
		case n == 0 && !l.may:
			s.t.Errorf("%q is lost", l.text)
		case n == 0:
			lost = true
			if !l.mute && !slices.ContainsFunc(gaps, func(g int) bool { return g > last[l.gen] }) {
				s.t.Errorf("%q is lost without a gap", l.text)
			}
			continue
		case n < last[l.gen]:
			s.t.Errorf("%q came before an earlier line of its generation", l.text)
		}
		last[l.gen] = n
		if !l.late {
			inOrder = append(inOrder, l)
		}
	}
	sorted := slices.Clone(inOrder)
	slices.SortStableFunc(sorted, func(a, b *stageLine) int { return cmp.Compare(at[a.text], at[b.text]) })
	if !s.jumbled && !slices.Equal(sorted, inOrder) {
		s.t.Errorf("out of order: %v", s.r.items)
	}
	for text := range at {
		if !known[text] && !slices.ContainsFunc(s.lines, func(l *stageLine) bool { return l.may && strings.HasPrefix(l.text, text) }) {
			s.t.Errorf("%q was never written", text)
		}
	}
	if len(gaps) > s.gaps {
		s.t.Errorf("%d gaps, at most %d may be", len(gaps), s.gaps)
	}
	if definite && !lost {
		s.t.Errorf("a gap says that lines are missing, and none is: %v", s.r.items)
	}
}
