package follow_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tailcast/tailcast/internal/follow"
)

// TestRandomPrograms lets random programs write, rotate and stop, and compares what comes with a model that knows every line
// of every generation. FOLLOW_PROGRAMS is how many; FOLLOW_SEED=n runs program n only, and shows it.
// Every other program has files with times of birth, as Linux tells them; FOLLOW_BIRTHS=1 gives them to all, FOLLOW_BIRTHS=0 to none.
// FOLLOW_PARK=1 closes files while they are idle: what is then removed, or truncated, unread is a gap that the model does not expect.
// FOLLOW_HEADER=1 lets all generations begin with the same line: then a position right after it is one of several generations,
// and a replay from there need not be the one that the model expects.
func TestRandomPrograms(t *testing.T) { t.Parallel(); randomPrograms(t, false) }

// TestRandomRestarts is the same with a checkpoint: whenever the program would stop, the process may end, or be killed. All
// that holds for one process holds for a sequence of them, but that a killed one's last second is repeated.
func TestRandomRestarts(t *testing.T) { t.Parallel(); randomPrograms(t, true) }

func randomPrograms(t *testing.T, restarts bool) {
	first, last := 0, 120
	if restarts {
		last = 60 // of several lives each
	}
	if os.Getenv("TAILCAST_SOAK") != "" {
		last = 5000
	}
	if testing.Short() || raced {
		last = 20
	}
	if n, err := strconv.Atoi(os.Getenv("FOLLOW_PROGRAMS")); err == nil {
		last = n
	}
	seed, err := strconv.Atoi(os.Getenv("FOLLOW_SEED"))
	one := err == nil
	if one {
		first, last = seed, seed+1
	}
	failed := 0
	for seed := first; seed < last && failed < 3; seed++ {
		var p *program
		ok := t.Run(strconv.Itoa(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p = newProgram(t, seed, restarts)
				defer p.r.close()
				p.execute()
			})
		})
		if !ok {
			failed++
		}
		if !ok || one {
			t.Logf("program %d:\n%s\nitems: %v", seed, strings.Join(p.log, "\n"), p.r.items)
		}
	}
}

// A program is a random one, and the model of what it did.
type program struct {
	r    *rig
	t    *testing.T
	rng  *rand.Rand
	log  []string
	gens []*modelGen
	live *modelGen // the one that the path names; nil while nothing does
	max  int       // rotated files that are kept

	restarts bool // the process may end
	copies   bool // rotation copies and truncates, else it renames
	dated    bool // app.log-2026…, else app.log.1
	header   bool // all generations begin with the same line
	packing  int  // 0: rotated files are never packed; 1: now and then; 2: at each rotation
	rotated  []rotatedFile
	dates    int
	seq      int
	gaps     int // how many gaps there may be
}

type rotatedFile struct {
	name string
	gen  *modelGen
}

// A modelGen is a generation.
type modelGen struct {
	id      int
	fd      string // its writer; "" when that is closed
	lines   []*modelLine
	pending string // an incomplete line
	changed time.Time
	over    bool // it was rotated away
	stirred bool // and written to after that
	header  bool // has one
}

type modelLine struct {
	text string
	seq  int
	late bool // written after the next generation had begun
	may  bool // it may be lost, if that is declared
	mute bool // or not even that: its generation was never seen, or was at its end when it was last seen
}

// undecidable are programs that have births always, for without them nothing tells the order: two files have the time of the same
// second, and the name that one has for a moment says the opposite; or a writer that is late turns the times around while nothing has
// the live file's name.
var undecidable = []int{2199, 2570, 3017, 3795}

func newProgram(t *testing.T, seed int, restarts bool) *program {
	rng := rand.New(rand.NewPCG(7, uint64(seed)))
	p := &program{t: t, r: newRig(t), rng: rng, max: 3 + rng.IntN(4), dated: rng.IntN(3) == 0, header: os.Getenv("FOLLOW_HEADER") != ""}
	p.r.coarse = rng.IntN(3) == 0
	p.r.withBirths(seed)
	if slices.Contains(undecidable, seed) && os.Getenv("FOLLOW_BIRTHS") == "" {
		p.r.births.On = true
	}
	p.r.cfg.Start = -1
	if os.Getenv("FOLLOW_PARK") != "" {
		p.r.cfg.Open = follow.NewOpenLimit(0)
	}
	p.copies = rng.IntN(3) == 0
	p.packing = rng.IntN(3)
	if p.restarts = restarts; restarts {
		p.r.cfg.Checkpoint = p.r.path("app.pos")
	}
	return p
}

func (p *program) note(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf("%v ", time.Since(realNow).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (p *program) execute() {
	p.create()
	if p.rng.IntN(2) == 0 {
		p.write(p.live)
	}
	p.run()
	for range 10 + p.rng.IntN(50) {
		p.step()
	}
	p.finish()
	p.compare()
	if !p.t.Failed() {
		p.r.check()
	}
}

func (p *program) step() {
	switch n := p.rng.IntN(100); {
	case n < 30:
		p.write(p.live)
	case n < 38:
		p.partial()
	case n < 54 && p.copies:
		p.copyTruncate()
	case n < 54:
		p.rotate()
	case n < 68:
		p.late()
	case n < 69 && !p.copies:
		p.remove()
	case n < 70 && !p.copies:
		p.renameOver()
	case n < 71:
		p.truncate()
	case n < 90:
		p.pause(time.Duration(p.rng.IntN(1500)) * time.Millisecond)
	case n < 91:
		p.pause(time.Duration(p.rng.IntN(20)) * time.Second)
	case n < 92:
		p.compress()
	case n < 94:
		p.stop()
	case n < 95 && p.restarts:
		p.stop()
		p.run()
	case n < 96:
		p.run()
	case n < 97:
		p.awayAndBack()
	case n < 98:
		p.note("replays")
		p.r.checkReplays("in between")
	case n < 99:
		p.hole()
	case n >= 98 && !p.copies: // an unread file that is copied and truncated several times does not tell the order
		p.note("fail")
		p.r.set(func() { p.r.failNext = true })
	}
}

func (p *program) pause(d time.Duration) {
	p.note("sleep %v", d)
	p.r.wait(d)
}

func (p *program) stop() {
	n := 0
	if p.restarts {
		n = p.rng.IntN(5)
	}
	switch {
	case n == 0:
		p.note("stop")
		p.r.stop()
	case n <= 2 || p.unknownStart():
		p.note("exit")
		p.r.exit()
	default:
		p.note("kill")
		p.r.kill()
		for _, g := range p.gens { // what the checkpoint did not know was never seen
			for _, l := range g.lines {
				unknown := !p.delivered(g.lines[0])
				l.mute = l.mute || l.may && unknown
				l.late = l.late || g.stirred && unknown // of unknown ones the times tell the order
			}
		}
		p.note("repeats %d", len(p.r.repeated))
	}
}

// unknownStart reports whether a file that is copied and truncated would be an unread one for the next process: see step.
func (p *program) unknownStart() bool {
	unsaved := p.r.items[min(p.r.saved, len(p.r.items)):]
	return p.copies && slices.ContainsFunc(p.gens, func(g *modelGen) bool {
		return len(g.lines) > 0 && slices.ContainsFunc(unsaved, func(it item) bool { return it.data == g.lines[0].text })
	})
}

func (p *program) run() {
	p.note("run")
	p.r.stop() // it may have ended by itself
	p.r.run()
}

func (p *program) create() {
	g := &modelGen{id: len(p.gens), fd: fmt.Sprint("w", len(p.gens)), changed: time.Now()}
	p.gens = append(p.gens, g)
	p.live = g
	p.note("create app.log, generation %d", g.id)
	p.r.hold(g.fd, "app.log")
	p.r.touched("app.log")
}

// text is a new line's, complete.
func (p *program) text(g *modelGen) string {
	p.seq++
	return fmt.Sprintf("g%d-%d-%s", g.id, p.seq, strings.Repeat("x", p.rng.IntN(90)))
}

func (p *program) write(g *modelGen) {
	if g == nil {
		p.create()
		g = p.live
	}
	data := ""
	if p.header && !g.header && len(g.lines) == 0 && g.pending == "" {
		data, g.header = "header\n", true
	}
	if g.pending != "" {
		data += "end\n"
		p.add(g, g.pending+"end")
		g.pending = ""
	}
	for range p.rng.IntN(4) {
		text := p.text(g)
		data += text + "\n"
		p.add(g, text)
	}
	p.send(g, data)
}

func (p *program) add(g *modelGen, text string) {
	g.lines = append(g.lines, &modelLine{text: text, seq: p.seq, late: g.over})
}

func (p *program) send(g *modelGen, data string) {
	p.note("write generation %d %q", g.id, data)
	p.r.heldWrite(g.fd, data)
	g.changed = time.Now()
}

func (p *program) partial() {
	g := p.live
	if g == nil || g.pending != "" || p.header && !g.header {
		return
	}
	g.pending = p.text(g)
	p.send(g, g.pending)
}

// rotate renames the file; the next one is created at once or by the next write.
func (p *program) rotate() {
	if p.live == nil {
		return
	}
	p.shift(true)
	p.live.over = true
	if len(p.live.lines) == 0 {
		p.live.fd = "" // nobody follows an empty file that was never seen as the live one
		p.gaps++       // and it may be a copy
	}
	p.live = nil
	if p.rng.IntN(4) > 0 {
		p.create()
	}
}

// shift makes room among the rotated names and puts the live file, or a copy of it, there.
func (p *program) shift(rename bool) {
	if len(p.rotated) >= p.max {
		old := p.rotated[0]
		p.rotated = p.rotated[1:]
		p.note("remove %s", old.name)
		p.r.remove(old.name)
		p.gone(old.gen)
	}
	name := "app.log.1"
	if p.dated {
		p.dates++
		name = fmt.Sprintf("app.log-20260101-%03d", p.dates)
	} else {
		for i := range p.rotated {
			old := &p.rotated[i]
			next := fmt.Sprintf("app.log.%d", len(p.rotated)-i+1)
			if strings.HasSuffix(old.name, ".gz") {
				next += ".gz"
			}
			p.r.rename(old.name, next)
			old.name = next
		}
	}
	p.rotated = append(p.rotated, rotatedFile{name, p.live})
	if rename {
		p.note("rename app.log %s", name)
		p.r.rename("app.log", name)
		if p.packing > 1 {
			p.live.over = true
			p.compress()
		}
		return
	}
	p.note("copy app.log %s", name)
	p.r.copy("app.log", name)
	if p.packing > 0 && p.rng.IntN(4) == 0 {
		p.compress()
	}
}

// hole lets a hole follow what was written so far.
func (p *program) hole() {
	g := p.live
	if g == nil || len(g.lines) == 0 {
		return
	}
	if g.pending != "" {
		p.add(g, g.pending)
		g.pending = ""
	}
	n := follow.HoleSize + p.rng.IntN(200_000)
	p.note("hole of %d", n)
	p.r.must(p.r.hole([]string{"app.log", strconv.Itoa(n)}))
}

// compress packs the rotated files but for the newest few. Nobody writes to them any more.
func (p *program) compress() {
	for i := range max(0, len(p.rotated)-p.rng.IntN(3)) {
		old := &p.rotated[i]
		if p.packing == 0 || strings.HasSuffix(old.name, ".gz") {
			continue
		}
		p.note("gzip %s", old.name)
		if p.r.cancel == nil || len(p.r.done) > 0 { // a new file may get the number of one that was being read
			p.gaps++
		}
		p.r.gzip(old.name, 1+p.rng.IntN(3), p.rng.IntN(4) == 0)
		old.name += ".gz"
		if old.gen.over {
			old.gen.fd = ""
		}
	}
}

// late writes to a generation that was rotated away not long ago, and that is known: of unknown ones the times tell the order.
func (p *program) late() {
	for _, g := range slices.Backward(p.gens) {
		if g.over && g.fd != "" && p.delivered(g.lines[0]) && time.Since(g.changed) < 3*time.Second && p.rng.IntN(2) == 0 {
			p.write(g)
			g.stirred = true
			return
		}
	}
}

// copyTruncate may let the writer write between the copy and the truncation.
func (p *program) copyTruncate() {
	g := p.live
	if g == nil {
		return
	}
	p.shift(false)
	if len(g.lines) == 0 || !p.delivered(g.lines[0]) {
		p.gaps++ // it may have been truncated before, too
	}
	unread := p.knownUnread(g)
	p.endLine(g)
	if unread && p.rng.IntN(3) == 0 {
		n := len(g.lines)
		p.write(g)
		for _, l := range g.lines[n:] {
			l.may = true
		}
	}
	p.empty(g)
}

// knownUnread reports whether something of g was delivered, and its newest line was not. Of a generation that was never seen,
// or that was quiet, nobody can know that something was written between copy and truncation.
func (p *program) knownUnread(g *modelGen) bool {
	return len(g.lines) > 0 && p.delivered(g.lines[0]) && !p.delivered(g.lines[len(g.lines)-1])
}

func (p *program) delivered(l *modelLine) bool {
	return slices.ContainsFunc(p.r.items, func(it item) bool { return it.data == l.text })
}

func (p *program) truncate() {
	if g := p.live; g != nil {
		p.endLine(g)
		p.forgiveLines(g)
		p.empty(g)
	}
}

// empty truncates the live file: the next generation begins, with the same writer.
func (p *program) empty(g *modelGen) {
	p.note("truncate app.log")
	p.r.truncate("app.log")
	p.gaps++
	g.over = true
	next := &modelGen{id: len(p.gens), fd: g.fd, changed: time.Now()}
	g.fd = ""
	p.gens = append(p.gens, next)
	p.live = next
}

// endLine makes a line of what is pending: nothing will come after it.
func (p *program) endLine(g *modelGen) {
	if g.pending != "" {
		p.add(g, g.pending)
		g.lines[len(g.lines)-1].late = true // it waits until the generation is given up
		g.pending = ""
	}
}

// remove deletes the live file. Only an open descriptor has what was not read.
func (p *program) remove() {
	g := p.live
	if g == nil {
		return
	}
	p.note("remove app.log")
	p.r.remove("app.log")
	g.over = true
	p.gone(g)
	p.live = nil
	p.create()
}

// renameOver replaces the live file with another that has lines already.
func (p *program) renameOver() {
	g := p.live
	if g == nil {
		return
	}
	g.over = true
	p.gone(g)
	p.r.moved("app.log", "")
	next := &modelGen{id: len(p.gens), fd: fmt.Sprint("w", len(p.gens)), changed: time.Now()}
	p.gens = append(p.gens, next)
	p.live = next
	p.r.hold(next.fd, "new")
	p.write(next)
	p.note("rename new app.log, generation %d", next.id)
	p.r.rename("new", "app.log")
}

// awayAndBack renames the live file, and after a while gives it its name back.
func (p *program) awayAndBack() {
	if p.live == nil {
		return
	}
	p.note("rename app.log app.log.99, and back")
	p.r.rename("app.log", "app.log.99")
	p.pause(time.Duration(p.rng.IntN(1000)) * time.Millisecond)
	p.r.rename("app.log.99", "app.log")
}

// gone allows for the loss of what was not delivered of a generation that is in no file any more.
func (p *program) gone(g *modelGen) {
	p.endLine(g)
	g.fd = ""
	p.gaps++
	p.forgiveLines(g)
}

func (p *program) forgiveLines(g *modelGen) {
	seen := len(g.lines) > 0 && p.delivered(g.lines[0])
	for _, l := range g.lines {
		if !p.delivered(l) {
			l.may, l.mute = true, l.mute || !seen || l.late
		}
	}
}

func (p *program) finish() {
	p.r.set(func() { p.r.failNext = false })
	p.run()
	p.write(p.live)
	p.send(p.live, p.closing())
	p.pause(time.Minute)
	for _, g := range p.gens {
		if g.over {
			p.endLine(g)
		}
	}
}

// closing ends the last line, and makes sure that there is one.
func (p *program) closing() string {
	g := p.live
	text := g.pending + p.text(g)
	g.pending = ""
	p.add(g, text)
	return text[strings.LastIndex(text, "g"):] + "\n"
}

// compare holds what came against the model.
func (p *program) compare() {
	at := make(map[string]int) // where each line came, from 1
	headers, gaps := 0, []int(nil)
	for i, it := range p.r.items {
		switch {
		case it.gap != nil:
			gaps = append(gaps, i+1)
		case it.pos == follow.Position{}: // a hole
		case it.data == "header":
			headers++
		case at[it.data] != 0:
			p.t.Errorf("%q came twice", it.data)
		default:
			at[it.data] = i + 1
		}
	}
	if len(gaps) > p.gaps {
		p.t.Errorf("%d gaps, at most %d may be", len(gaps), p.gaps)
	}
	known, wantHeaders := make(map[string]bool), 0
	var inOrder []*modelLine
	for _, g := range p.gens {
		if g.header {
			wantHeaders++
		}
		last := 0
		for i, l := range g.lines {
			known[l.text] = true
			n := at[l.text]
			switch {
			case n == 0 && p.repeated(l):
			case n == 0:
				p.checkLoss(g, l, last, gaps)
			case n < last:
				p.t.Errorf("%q came before an earlier line of its generation", l.text)
			default:
				last = n
			}
			if !l.late && n > 0 && !(i > 0 && g.lines[i-1].late) {
				inOrder = append(inOrder, l)
			}
		}
	}
	slices.SortStableFunc(inOrder, func(a, b *modelLine) int { return cmp.Compare(at[a.text], at[b.text]) })
	// Of several copies that were made while nothing was read, nobody can always tell which came first.
	for i := 1; i < len(inOrder) && !p.copies; i++ {
		if a, b := inOrder[i-1], inOrder[i]; a.seq > b.seq {
			p.t.Errorf("%q came before %q", a.text, b.text)
		}
	}
	for text := range at {
		if !known[text] && !p.torn(text) {
			p.t.Errorf("%q was never written", text)
		}
	}
	if headers > wantHeaders || headers < wantHeaders-p.gaps {
		p.t.Errorf("%d headers came, want %d", headers, wantHeaders)
	}
}

// repeated lines came, but the process was killed that had got them, and they have gone since.
func (p *program) repeated(l *modelLine) bool {
	return slices.ContainsFunc(p.r.repeated, func(it item) bool { return it.data == l.text })
}

// checkLoss wants a gap after the last line that came of the generation.
func (p *program) checkLoss(g *modelGen, l *modelLine, last int, gaps []int) {
	if !l.may {
		p.t.Errorf("%q of generation %d is lost", l.text, g.id)
	} else if !l.mute && !slices.ContainsFunc(gaps, func(n int) bool { return n > last }) {
		p.t.Errorf("%q of generation %d is lost without a gap", l.text, g.id)
	}
}

// torn is what was read of a line that was truncated away before it was complete.
func (p *program) torn(text string) bool {
	for _, g := range p.gens {
		if slices.ContainsFunc(g.lines, func(l *modelLine) bool { return l.may && strings.HasPrefix(l.text, text) }) {
			return true
		}
	}
	return false
}
