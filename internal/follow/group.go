package follow

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A GroupConfig says which files to follow.
type GroupConfig struct {
	// Pattern is a glob, as for filepath.Match. A name that begins with a dot, a compressed file, and a rotated sibling of
	// another file of the Group are not meant by it.
	Pattern string
	// File is how each file is followed; its Path, Rotated, After, Open, Begin and Report are not used. Start is for the files that
	// are there at the first look. Those that come later are read from their first byte.
	File    Config
	MaxOpen int // see OpenLimit; default 1024
	// Begin is Config.Begin for a file.
	Begin func(name string, at Position)
	// Forget is called when nothing is known of a file any more: it has been gone for long, and many others have.
	Forget func(name string)
	// Report is Config.Report for a file. That one is missing is not reported.
	Report func(path, event string, err error)
}

const (
	// EventFailed is reported when following one file has ended with an error of the consumer's. It is tried again.
	EventFailed = "failed"

	maxGone      = 1024        // files that are gone, and can be replayed
	goneGraces   = 12          // how many Graces a file is absent before it is gone
	adoptTime    = time.Second // how long a file that looks rotated is left alone, where that which it was is not there
	startAtOnce  = 16          // first looks that go on at a time
	scanSpacing  = 50 * time.Millisecond
	scanShare    = 25 // a scan waits this many times as long as the last one took
	firstPause   = 100 * time.Millisecond
	longestPause = 30 * time.Second
)

// errGone is how a member's Run ends when the file has been absent for long.
var errGone = errors.New("the file is gone")

// A Group follows all files that match a pattern.
type Group struct {
	cfg    GroupConfig
	glob   *glob
	lister *lister
	limit  *OpenLimit
	notify *notifier
	gone   time.Duration

	running sync.Mutex
	first   bool // no scan has been made yet; owned by Run

	mu       sync.Mutex
	members  map[string]*member // by name
	left     []*member          // that are gone, the longest first
	past     Stats              // of members that were forgotten
	unheard  bool               // that there are no notifications was reported
	scanning Stats              // the group's own
}

// A member is a file of a Group.
type member struct {
	name, path string
	f          *Follower

	// Guarded by Group.mu.
	running bool
	stop    context.CancelFunc
	link    bool   // it is a symbolic link
	err     error  // what ended the last Run
	target  string // the file's own name
}

// NewGroup prepares a Group.
func NewGroup(cfg GroupConfig) (*Group, error) {
	pattern, err := newGlob(cfg.Pattern)
	if err != nil {
		return nil, err
	}
	cfg.File.setDefaults()
	if cfg.MaxOpen <= 0 {
		cfg.MaxOpen = 1024
	}
	return &Group{
		cfg: cfg, glob: pattern, limit: NewOpenLimit(cfg.MaxOpen), notify: shared, gone: goneGraces * cfg.File.Grace, first: true,
		lister: &lister{fs: osFS{}, dirs: make(map[string]*listing)}, members: make(map[string]*member),
	}, nil
}

// Run follows the files until ctx is done, and returns context.Cause(ctx). emit is called for several files at once, but not
// for the same. An error of it ends the Run of that file, which begins again after a while, as Follower.Run says.
func (g *Group) Run(ctx context.Context, emit func(name string, lines []Line) error) error {
	if !g.running.TryLock() {
		panic("follow: Run is called while another Run of the same Group is active")
	}
	defer g.running.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	s := &scanner{Group: g, ctx: ctx, emit: emit, places: make(map[string]*post), seen: make(map[string]time.Time),
		starts: make(chan struct{}, startAtOnce)}
	defer s.wg.Wait()
	defer cancel(nil)
	s.listener = newListener()
	if !g.cfg.File.NoNotify {
		g.notify.enter()
		defer g.notify.exit()
		defer s.leaveAll()
	}
	for _, m := range s.stopped() {
		if !s.start(m, m.link, m.target) {
			return context.Cause(ctx)
		}
	}
	for {
		again := s.scan()
		if !s.wait(again) {
			return context.Cause(ctx)
		}
	}
}

// stopped lists the files that an earlier Run was following.
func (g *Group) stopped() (list []*member) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.members {
		if !slices.Contains(g.left, m) {
			list = append(list, m)
		}
	}
	return list
}

// A scanner is the state of one Run.
type scanner struct {
	*Group
	ctx    context.Context
	emit   func(string, []Line) error
	wg     sync.WaitGroup
	starts chan struct{}

	*listener
	places map[string]*post
	whole  bool                 // notifications tell of all directories
	cost   time.Duration        // of looking through them
	seen   map[string]time.Time // when files that look rotated were first seen
}

// wait waits until there may be another file, and so long that looking for one is a small part of the time.
func (s *scanner) wait(again bool) bool {
	interval := s.cfg.File.Poll
	if s.whole && !again {
		interval *= slowest
	}
	pause := max(scanSpacing, scanShare*s.cost)
	return sleepFor(s.ctx, nil, pause) && sleepFor(s.ctx, s.wake, max(interval-pause, 0))
}

// sleepFor reports false if ctx was done first.
func sleepFor(ctx context.Context, wake <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return true
}

// scan looks which files there are. It returns true to be called again soon.
func (s *scanner) scan() (again bool) {
	began := time.Now()
	looked, found := s.glob.expand(s.lister)
	s.cost = time.Since(began)
	if s.watch(looked) {
		looked, found = s.glob.expand(s.lister) // what came before the watch is not told of
	}
	dirs := make(map[string]bool)
	for dir := range looked {
		dirs[dir] = true
	}
	s.lister.retain(dirs)
	first := s.first
	s.first = false
	s.dropLinks()
	present := make(map[string]bool)
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		names := found[dir]
		for _, name := range names {
			path := filepath.Join(dir, name)
			switch s.meant(dir, name, names, first) {
			case yes:
				if !s.follow(path, first) {
					return false
				}
			case later:
				present[path], again = true, true
			case no:
				s.end(path)
			}
		}
	}
	for path := range s.seen {
		if !present[path] {
			delete(s.seen, path)
		}
	}
	return again
}

type verdict int

const (
	no verdict = iota
	yes
	later
)

// meant decides whether a name is one of the Group's files, or what has become of one by rotation. Where the file from which it
// may come is not there, it is left alone for a moment: that is how a rotation looks.
func (s *scanner) meant(dir, name string, names []string, first bool) verdict {
	if compressed(name) {
		return no
	}
	path := filepath.Join(dir, name)
	doubtful := false
	for _, base := range rotatedFrom(name) {
		if !match(s.glob.levels[len(s.glob.levels)-1], base) {
			continue
		}
		if _, ok := slices.BinarySearch(names, base); ok || s.member(s.glob.name(filepath.Join(dir, base))) != nil {
			return no
		}
		doubtful = true
	}
	if !doubtful || first || s.member(s.glob.name(path)) != nil {
		return yes
	}
	since, ok := s.seen[path]
	if !ok {
		since = time.Now()
		s.seen[path] = since
	}
	if time.Since(since) < adoptTime {
		return later
	}
	return yes
}

// member returns the file of that name, also when it is gone; nil if there is none.
func (g *Group) member(name string) *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[name]
}

// follow begins with a file, unless it is followed already. It reports false when ctx is done.
func (s *scanner) follow(path string, first bool) bool {
	name := s.glob.name(path)
	m := s.member(name)
	if m != nil {
		s.mu.Lock()
		running := m.running
		s.mu.Unlock()
		if running {
			return true
		}
	}
	info, err := os.Stat(path)
	if err != nil || regular(info) != nil {
		return true // a directory, or gone; what can't be read is the Follower's affair
	}
	target, link := path, isLink(path)
	if link {
		if target, err = filepath.EvalSymlinks(path); err != nil {
			return true
		}
	}
	if s.twice(path, target, info, link) {
		return true
	}
	if m == nil {
		m = s.newMember(name, path, first)
	}
	return s.start(m, link, target)
}

func (s *scanner) start(m *member, link bool, target string) bool {
	select {
	case s.starts <- struct{}{}:
	case <-s.ctx.Done():
		return false
	}
	ctx, stop := context.WithCancel(s.ctx)
	s.mu.Lock()
	m.running, m.stop, m.link, m.target = true, stop, link, target
	s.members[m.name] = m
	s.left = slices.DeleteFunc(s.left, func(other *member) bool { return other == m })
	s.mu.Unlock()
	s.wg.Go(func() { s.run(ctx, m) })
	return true
}

func (s *scanner) newMember(name, path string, first bool) *member {
	cfg := s.cfg.File
	cfg.Path, cfg.Rotated, cfg.After, cfg.Open = path, "", Position{}, s.limit
	if !first {
		cfg.Start = FromStart
	}
	m := &member{name: name, path: path}
	cfg.Begin = func(at Position) {
		if s.cfg.Begin != nil {
			s.cfg.Begin(name, at)
		}
	}
	told := false
	cfg.Report = func(event string, err error) {
		if event != EventRecovered {
			told = event != EventMissing
		}
		if told {
			s.report(path, event, err)
		}
	}
	m.f = New(cfg)
	m.f.notify, m.f.lister, m.f.gone = s.notify, s.lister, s.gone
	return m
}

// twice reports whether a file is followed by another name. A link gives way to the file that it leads to; of two hard links
// the first one found is followed.
func (s *scanner) twice(path, target string, info os.FileInfo, link bool) bool {
	s.mu.Lock()
	var others []*member
	if link || linked(info) {
		for _, m := range s.members {
			if m.running && m.path != path {
				others = append(others, m)
			}
		}
	}
	s.mu.Unlock()
	return slices.ContainsFunc(others, func(m *member) bool {
		if m.target == target {
			return true
		}
		other, err := os.Stat(m.path)
		return err == nil && os.SameFile(other, info)
	})
}

// dropLinks ends the following of links that lead to what is followed by its own name now.
func (s *scanner) dropLinks() {
	s.mu.Lock()
	var links []*member
	for _, m := range s.members {
		if m.running && m.link {
			links = append(links, m)
		}
	}
	s.mu.Unlock()
	for _, m := range links {
		target, err := filepath.EvalSymlinks(m.path)
		if err != nil {
			continue
		}
		s.mu.Lock()
		m.target = target
		own := s.members[s.glob.name(target)]
		drop := own != nil && own != m && own.running && own.path == target
		s.mu.Unlock()
		if drop {
			s.end(m.path)
		}
	}
}

// end stops following a file that turns out to be none of the Group's.
func (s *scanner) end(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[s.glob.name(path)]; m != nil && m.running && m.path == path {
		m.stop()
	}
}

// run follows one file, again and again where the consumer fails.
func (s *scanner) run(ctx context.Context, m *member) {
	var once sync.Once
	started := func() { once.Do(func() { <-s.starts }) }
	defer started()
	m.f.began.Store(&started)
	pause := firstPause
	for {
		began := time.Now()
		err := m.f.Run(ctx, func(lines []Line) error { return s.emit(m.name, lines) })
		if ctx.Err() != nil || err == errGone {
			s.leave(m, err == errGone || s.ctx.Err() == nil)
			return
		}
		started()
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		s.mu.Lock()
		told := m.err != nil && m.err.Error() == err.Error()
		m.err = err
		s.mu.Unlock()
		if !told {
			s.report(m.path, EventFailed, err)
		}
		sleepFor(ctx, nil, pause)
		pause = min(2*pause, longestPause)
	}
}

// leave notes that a file is followed no more: it is gone, or it was none of the Group's.
func (s *scanner) leave(m *member, gone bool) {
	s.mu.Lock()
	m.running = false
	m.stop()
	var forget *member
	if gone {
		s.left = append(s.left, m)
		if len(s.left) > maxGone {
			forget = s.left[0]
			s.left = slices.Delete(s.left, 0, 1)
			delete(s.members, forget.name)
			s.past.add(forget.f.Stats())
		}
	}
	s.mu.Unlock()
	if forget != nil && s.cfg.Forget != nil {
		s.cfg.Forget(forget.name)
	}
}

func (g *Group) report(path, event string, err error) {
	if event == EventUnwatched {
		g.mu.Lock()
		told := g.unheard
		g.unheard = true
		g.mu.Unlock()
		if told {
			return
		}
	}
	if g.cfg.Report != nil {
		g.cfg.Report(path, event, err)
	}
}

// watch has the scanner told of what comes and goes in the directories. It reports whether any is new.
func (s *scanner) watch(looked map[string]string) (fresh bool) {
	if s.cfg.File.NoNotify {
		return false
	}
	lost := s.lost.Swap(false)
	want := make(map[string]*post)
	s.whole = len(looked) > 0
	for dir, level := range looked {
		name, err := filepath.Abs(dir)
		if err == nil {
			name, err = filepath.EvalSymlinks(name)
		}
		info, err2 := statFile(dir)
		if err != nil || err2 != nil {
			s.whole = false
			continue
		}
		s.whole = s.whole && !remote(name)
		want[name] = &post{id: identity{info}, names: []string{level}}
	}
	for dir, p := range s.places {
		now := want[dir]
		if now == nil || lost || !sameFile(now.id.FileInfo, p.id.FileInfo) {
			s.notify.leave(dir, p.in)
			delete(s.places, dir)
		}
	}
	for dir, p := range want {
		if s.places[dir] != nil {
			continue
		}
		level := p.names[0]
		p.in = &interest{l: s.listener, want: func(name string, op fsnotify.Op) bool {
			return op&(fsnotify.Create|fsnotify.Rename|fsnotify.Remove) != 0 && match(level, name)
		}}
		if err := s.notify.join(dir, p.id.FileInfo, p.in); err != nil {
			s.whole = false
			s.mu.Lock()
			s.scanning.Unwatched++
			s.mu.Unlock()
			s.report(dir, EventUnwatched, err)
			continue
		}
		s.places[dir], fresh = p, true
	}
	return fresh
}

func (s *scanner) leaveAll() {
	for dir, p := range s.places {
		s.notify.leave(dir, p.in)
	}
}

// Replay is Follower.Replay for a file of the Group.
func (g *Group) Replay(ctx context.Context, name string, after Position, emit func(lines []Line) error) error {
	m := g.member(name)
	if m == nil {
		return ErrUnknownPosition
	}
	return m.f.Replay(ctx, after, emit)
}

// Back is Follower.Back for a file of the Group.
func (g *Group) Back(ctx context.Context, name string, from Position, n, have int) (Position, int) {
	m := g.member(name)
	if m == nil {
		return from, 0
	}
	return m.f.Back(ctx, from, n, have)
}

// GroupStats are a Group's numbers.
type GroupStats struct {
	Stats              // of all its files together
	Files  int         // that are followed
	Closed int         // of these, for MaxOpen
	Gone   int         // that are remembered
	Some   []FileStats // those in trouble, and others, up to the number asked for
}

// FileStats are those of one file.
type FileStats struct {
	Name, Path string
	Stats
}

// Stats sums up, and details at most n files.
func (g *Group) Stats(n int) GroupStats {
	g.mu.Lock()
	out := GroupStats{Stats: g.past, Gone: len(g.left)}
	out.add(g.scanning)
	list := make([]*member, 0, len(g.members))
	for _, m := range g.members {
		list = append(list, m)
	}
	running := make(map[*member]bool)
	for _, m := range list {
		running[m] = m.running
	}
	g.mu.Unlock()
	slices.SortFunc(list, func(a, b *member) int { return strings.Compare(a.name, b.name) })
	var well []FileStats
	out.Notified = len(list) > 0
	for _, m := range list {
		s := m.f.Stats()
		out.add(s)
		if !running[m] {
			continue
		}
		out.Files++
		out.Notified = out.Notified && s.Notified
		if s.Open == 0 && s.Parked > 0 {
			out.Closed++
		}
		one := FileStats{m.name, m.path, s}
		if s.Trouble == "" {
			if len(well) < n {
				well = append(well, one)
			}
			continue
		}
		out.Trouble, out.LastError = s.Trouble, s.LastError
		if len(out.Some) < n {
			out.Some = append(out.Some, one)
		}
	}
	out.Some = append(out.Some, well[:min(len(well), n-len(out.Some))]...)
	return out
}

// add sums up what can be.
func (s *Stats) add(o Stats) {
	s.Lines += o.Lines
	s.Bytes += o.Bytes
	s.Gaps += o.Gaps
	s.Rotations += o.Rotations
	s.Truncations += o.Truncations
	s.Looks += o.Looks
	s.Unwatched += o.Unwatched
	s.Overflows += o.Overflows
	s.Untold += o.Untold
	s.Parked += o.Parked
	s.Open += o.Open
}

// over lets a file go that has been absent for long, as retire does, and declares what was lost with it.
func (r *run) over() error {
	absent := r.gone > 0 && !r.present && r.trouble.event == EventMissing && time.Since(r.trouble.since) >= r.gone
	if !absent || slices.ContainsFunc(r.chain, func(g *generation) bool { return time.Since(g.grew) < r.gone }) {
		return nil
	}
	for _, g := range slices.Clone(r.chain) {
		if err := r.end(g); err != nil {
			return r.haltError(err)
		}
	}
	if r.Follower.gap != nil {
		if err := r.deliverGap(r.Follower.gap); err != nil {
			return r.haltError(err)
		}
		r.Follower.gap = nil
	}
	return errGone
}
