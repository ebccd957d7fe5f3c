package tailcasttest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/tailcast/tailcast"
)

// A ReplaySource is what TestReplayer tests: one type that is a Source and a Replayer.
type ReplaySource interface {
	tailcast.Source
	tailcast.Replayer
}

// TestReplayer holds a Source that is a Replayer to the contract of tailcast.Replayer. newSource is as for TestSource, which is to be
// used beside it; what a new Source publishes at first has to be readable again, all of it. more makes src have one more message, or
// several, which it publishes then; it is called while Run goes on, and need not wait for that.
//
//	func TestJournalReplays(t *testing.T) {
//		tailcasttest.TestReplayer(t, newJournal, func(t testing.TB, j *Journal) { j.Append("more") }, tailcasttest.Bubble())
//	}
//
// What is checked: that Replay yields after each Position what was published after it, with the same Positions, Data and cuts,
// during Run and when it has ended (rule 1); that nothing is left out without a Gap, also when messages have expired (2, see the
// option Expire); that a foreign Position gets ErrUnknownPosition, or a Gap where it may be one that was forgotten (3); Earliest (4);
// that an iterator ends where the consumer breaks, at each message, and with its context, before it begins, while it waits and
// while yield does, and otherwise goes on with what is published (5); that several of them can read at the same time, beside Run,
// and a yield that does not return holds up nobody else (6); that Data stays as it is until yield returns; and that nothing goes on
// when an iterator has returned. The zero Position is never asked for, and not here either.
func TestReplayer[S ReplaySource](t testing.TB, newSource func(t testing.TB) S, more func(t testing.TB, src S), opts ...Option) {
	t.Helper()
	c := newConfig(opts)
	check := func(name string, f func(p *past)) bool {
		t.Helper()
		return c.check(t, name, func(s *suite) {
			src := newSource(s.TB)
			p := &past{suite: s, src: src, more: func() { more(s.TB, src) }}
			if p.begin() {
				f(p)
			}
		})
	}
	check("what was live is replayed from each position", (*past).eachPosition)
	if !check("a yield that does not return holds up nobody", (*past).held) {
		return // The other checks could get no further than this one.
	}
	check("a foreign position is unknown", (*past).foreign)
	check("an iterator ends where the consumer breaks", (*past).breaks)
	check("an iterator ends with its context", (*past).contexts)
	check("an iterator waits for more", (*past).follows)
	check("several read at the same time", (*past).together)
	if c.expire != nil {
		check("what has expired is declared", (*past).expired)
	}
}

// A past is a Source that has published something and goes on.
type past struct {
	*suite
	src  ReplaySource
	more func()
	live Recorder
	run  *run
}

// begin runs the Source until it has published its first messages.
func (p *past) begin() bool {
	p.Helper()
	if p.run = p.bring(p.src, &p.live, p.messages, nil); p.run == nil {
		return false
	}
	for _, m := range p.live.Messages() {
		if m.Gap == nil && m.Pos == (tailcast.Position{}) {
			p.broken(replayerRule(1), "messages that have a Position, so that Replay can be asked for what comes after one", show(m)+" has none")
			p.run.stop()
			return false
		}
	}
	return true
}

// grow makes the Source publish more, and reports whether it does.
func (p *past) grow() bool {
	p.Helper()
	have, _ := p.live.state()
	ctx, label := labelled(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		adopt(ctx)
		p.more()
	}()
	there := func() bool {
		now, _ := p.live.state()
		return now > have
	}
	stuck := locked(there)
	switch {
	case stuck != "":
		stuck = "it waits for a lock:\n" + stuck
	case !p.reachMore(have):
		stuck = fmt.Sprintf("no message came within %v:\n%s", p.within, p.running(label)+p.running(p.run.label))
	case p.run.over():
		stuck = fmt.Sprintf("Run has returned %v", p.run.err)
	case !p.await(done):
		stuck = fmt.Sprint("the function that makes more has not returned after ", p.within)
	}
	if stuck != "" {
		p.broken(replayerRule(6), "Run to publish what there is more, whatever Replay does", stuck)
	}
	return stuck == ""
}

// reachMore waits for a message beyond the first n; a Gap is none.
func (p *past) reachMore(n int) bool {
	for p.reach(p.run, &p.live, n+1) {
		msgs := p.live.Messages()
		if len(msgs) <= n || slices.ContainsFunc(msgs[n:], func(m tailcast.Message) bool { return m.Gap == nil }) {
			return true
		}
		n = len(msgs)
	}
	return false
}

// growBy is grow, several times.
func (p *past) growBy(times int) bool {
	p.Helper()
	for range times {
		if !p.grow() {
			return false
		}
	}
	return true
}

// end ends what goes on, when a check is over.
func (p *past) end(tapes ...*tape) {
	p.Helper()
	for _, t := range tapes {
		t.stop()
	}
	p.run.stop()
}

// topics returns what was published live, by topic, without gaps.
func (p *past) topics() map[string][]tailcast.Message {
	topics := make(map[string][]tailcast.Message)
	for _, m := range p.live.Messages() {
		if m.Gap == nil {
			topics[m.Topic] = append(topics[m.Topic], m)
		}
	}
	return topics
}

// places calls f for each position of each topic, and before for Earliest, with what was live after it.
func (p *past) places(f func(place)) {
	for topic, live := range p.topics() {
		f(place{topic: topic, after: tailcast.Earliest(), live: live, want: live})
		for i := range live {
			f(place{topic: topic, after: live[i].Pos, live: live, want: live[i+1:]})
		}
	}
}

// A place is a position that Replay can be asked for.
type place struct {
	topic string
	after tailcast.Position
	live  []tailcast.Message // all of the topic
	want  []tailcast.Message // those after it
}

func (at place) String() string {
	name := "after " + at.after.String()
	if at.after == tailcast.Earliest() {
		name = "after Earliest()"
	}
	if at.topic != "" {
		name += fmt.Sprintf(" in topic %q", at.topic)
	}
	return name
}

// last is the position of the newest message.
func (at place) last() tailcast.Position { return at.live[len(at.live)-1].Pos }

func (p *past) eachPosition() {
	all := func() {
		p.places(func(at place) {
			if len(at.want) == 0 {
				return // there is nothing to yield: see follows
			}
			t := p.replay(at, tapeOptions{})
			t.reach(at.last())
			t.stop()
			p.compare(at, t)
		})
	}
	all()
	p.run.stop()
	if !p.Failed() {
		all() // viewers come back after that too
	}
}

// compare holds what was yielded to what was live, of which nothing is lost.
func (p *past) compare(at place, t *tape) {
	p.Helper()
	got, err := t.yielded()
	if at.after == tailcast.Earliest() { // there may be messages from before Run
		got = got[max(slices.IndexFunc(got, func(m tailcast.Message) bool { return m.Pos == at.live[0].Pos }), 0):]
	}
	k := 0
	for i, m := range got {
		if k == len(at.want) && !slices.ContainsFunc(at.live, func(l tailcast.Message) bool { return l.Pos == m.Pos }) {
			return // newer ones
		}
		switch next := slices.IndexFunc(at.want, func(w tailcast.Message) bool { return w.Pos == m.Pos }); {
		case m.Gap != nil:
			if !p.liveGaps() {
				p.broken(replayerRule(2), t.says("all messages, since they can be had"), show(m))
				return
			}
		case next == k:
			w := at.want[k]
			if string(m.Data) != string(w.Data) || m.Partial != w.Partial || m.Binary != w.Binary {
				p.broken(replayerRule(1), t.says(show(w)+", as it was live"), show(m))
				return
			}
			k++
		case next > k && i == 0 && at.after == tailcast.Earliest():
			p.broken(replayerRule(4), t.says(show(at.want[0])+" first"), "it began with "+show(m))
			return
		case next > k && i == 0:
			p.broken(replayerRule(2), t.says(show(at.want[0])+" first, or a Gap"), "it began with "+show(m))
			return
		case k == len(at.want):
			p.broken(replayerRule(1), t.says("newer messages only"), show(m)+" once more")
			return
		default:
			p.broken(replayerRule(1), t.says(show(at.want[k])+" next"), show(m))
			return
		}
	}
	switch broken := replayerRule(1); {
	case k == len(at.want):
	case err != nil:
		switch {
		case !errors.Is(err, tailcast.ErrUnknownPosition):
			broken = replayerRule(5)
		case at.after == tailcast.Earliest():
			broken = replayerRule(4)
		}
		p.broken(broken, t.says(show(at.want[k])+" next"), fmt.Sprintf("the error %q", err))
	case t.ended:
		p.broken(replayerRule(5), t.says(show(at.want[k])+" next, and then to wait for more"), "the iterator ended")
	default:
		p.broken(broken, t.says(show(at.want[k])+" next"), fmt.Sprint("nothing came within ", p.within))
	}
}

// liveGaps reports whether the Source itself has declared a loss.
func (p *past) liveGaps() bool {
	return slices.ContainsFunc(p.live.Messages(), func(m tailcast.Message) bool { return m.Gap != nil })
}

func (p *past) foreign() {
	for topic, live := range p.topics() {
		pos := live[0].Pos
		other := tailcast.Position{Epoch: pos.Epoch ^ 0x5ca1ab1e, Offset: pos.Offset, Check: pos.Check}
		if other.Epoch == 0 {
			other.Epoch = 1
		}
		p.unknown(place{topic: topic, after: tailcast.Position{Offset: pos.Offset + 2}}, false) // of nobody: its epoch is 0
		p.unknown(place{topic: topic, after: other}, true)
	}
	p.run.stop()
}

// unknown asks for a position that is not the Source's, or may be one of which it knows nothing any more.
func (p *past) unknown(at place, forgotten bool) {
	t := p.replay(at, tapeOptions{})
	t.until(func() bool { return len(t.got) > 0 || t.err != nil })
	if t.err != nil {
		p.await(t.done) // something else may follow, and must not
	}
	got, err := t.yielded()
	t.stop()
	expected := t.says("ErrUnknownPosition, and nothing else")
	if forgotten {
		expected += "; or a Gap, if it may be a position that the Source has forgotten"
	}
	switch {
	case len(got) > 0 && err != nil:
		p.broken(replayerRule(3), expected, fmt.Sprintf("%s, and the error %q", show(got[0]), err))
	case len(got) > 0 && forgotten && got[0].Gap != nil:
	case len(got) > 0:
		p.broken(replayerRule(3), expected, show(got[0]))
	case err == nil && t.ended:
		p.broken(replayerRule(3), expected, "the iterator ended without a word")
	case err == nil:
		p.broken(replayerRule(3), expected, fmt.Sprint("nothing came within ", p.within))
	case !errors.Is(err, tailcast.ErrUnknownPosition):
		p.broken(replayerRule(3), expected, fmt.Sprintf("the error %q", err))
	}
}

func (p *past) breaks() {
	for topic, live := range p.topics() {
		for n := range live {
			t := p.replay(place{topic: topic, after: tailcast.Earliest()}, tapeOptions{breakAt: n + 1})
			ended := p.await(t.done)
			if got, _ := t.yielded(); !ended && len(got) > n {
				p.broken(replayerRule(5), t.says(fmt.Sprintf("to end when the consumer breaks at message %d", n+1)),
					fmt.Sprintf("it has not returned after %v:\n%s", p.within, p.running(t.label)))
				p.FailNow()
			}
			t.stop()
		}
	}
	p.run.stop()
}

func (p *past) contexts() {
	for topic, live := range p.topics() {
		before := p.replay(place{topic: topic, after: tailcast.Earliest()}, tapeOptions{cancelled: true})
		before.endsWith("whose context had been cancelled before")

		waiting := p.replay(place{topic: topic, after: live[len(live)-1].Pos}, tapeOptions{})
		p.settle(waiting.done)
		waiting.cancel(errOver)
		waiting.endsWith("whose context was cancelled while it had nothing to yield")

		all := p.replay(place{topic: topic, after: tailcast.Earliest()}, tapeOptions{})
		all.reach(live[len(live)-1].Pos)
		p.settle(all.done)
		all.cancel(errOver)
		all.endsWith("whose context was cancelled while it waited for more")

		held := p.replay(place{topic: topic, after: tailcast.Earliest()}, tapeOptions{hold: make(chan struct{})})
		held.until(func() bool { return len(held.got) > 0 })
		held.cancel(errOver)
		held.release()
		held.endsWith("whose context was cancelled while yield had not returned")
	}
	p.run.stop()
}

// follows reads on from the newest message, and from the oldest, while there comes more.
func (p *past) follows() {
	var tapes []*tape
	p.places(func(at place) {
		if len(at.want) == 0 || at.after == tailcast.Earliest() {
			t := p.replay(at, tapeOptions{})
			if len(at.want) > 0 {
				t.reach(at.last())
			}
			tapes = append(tapes, t)
			p.settle(t.done)
		}
	})
	if p.growBy(2) {
		p.complete(tapes)
	}
	p.end(tapes...)
}

// together reads from each position at the same time, while there comes more.
func (p *past) together() {
	var tapes []*tape
	p.places(func(at place) { tapes = append(tapes, p.replay(at, tapeOptions{})) })
	if p.growBy(3) {
		p.complete(tapes)
	}
	p.end(tapes...)
}

// held lets one consumer take its time: neither Run nor another consumer waits for it, and nobody changes what it looks at.
func (p *past) held() {
	for topic := range p.topics() {
		first := p.replay(place{topic: topic, after: tailcast.Earliest()}, tapeOptions{hold: make(chan struct{})})
		if first.until(func() bool { return len(first.got) > 0 }) && p.grow() && p.beside() {
			first.release()
			p.complete([]*tape{first})
		}
		first.stop()
	}
	p.run.stop()
}

// beside reads from each position while another consumer's yield has not returned.
func (p *past) beside() bool {
	var tapes []*tape
	var stuck string
	p.places(func(at place) {
		if len(at.want) == 0 || stuck != "" {
			return
		}
		t := p.replay(at, tapeOptions{})
		tapes = append(tapes, t)
		if stuck = locked(func() bool { return t.count() > 0 }); stuck != "" {
			stuck = "it waits for a lock:\n" + stuck
		} else if !t.reach(at.last()) && t.count() == 0 {
			stuck = fmt.Sprintf("nothing came within %v:\n%s", p.within, p.running(t.label))
		}
		if stuck != "" {
			p.broken(replayerRule(6), t.says("messages, while another consumer's yield has not returned"), stuck)
		}
	})
	if stuck == "" {
		p.complete(tapes)
	}
	for _, t := range tapes {
		t.cancel(errOver)
	}
	return stuck == ""
}

// complete sees that tapes get to the newest message, as it was live.
func (p *past) complete(tapes []*tape) {
	p.Helper()
	topics := p.topics()
	for _, t := range tapes {
		at := t.at
		at.live = topics[at.topic]
		at.want = at.live[1+slices.IndexFunc(at.live, func(m tailcast.Message) bool { return m.Pos == at.after }):]
		if len(at.want) > 0 {
			t.reach(at.last())
			t.stop()
			p.compare(at, t)
		}
		t.stop()
	}
}

// expired asks for all positions again when the oldest messages are gone.
func (p *past) expired() {
	before := p.topics()
	p.expire(p.TB, p.src)
	if !p.grow() { // so that there is a message that Replay must come to
		p.end()
		return
	}
	missing := 0
	for topic, live := range p.topics() {
		for i := range before[topic] {
			at := place{topic: topic, after: live[i].Pos, live: live, want: live[i+1:]}
			if i == len(live)-1 {
				continue
			}
			t := p.replay(at, tapeOptions{})
			t.reach(at.last())
			t.stop()
			missing += p.compareLossy(at, t)
		}
	}
	if missing == 0 && !p.Failed() {
		p.Errorf("tailcasttest: the function of the option Expire has taken nothing from what Replay yields")
	}
	p.run.stop()
}

// compareLossy holds what was yielded to what was live, of which the beginning may be gone. It returns how many are.
func (p *past) compareLossy(at place, t *tape) (missing int) {
	p.Helper()
	got, err := t.yielded()
	expected := t.says("first a Gap, if something is missing, and then all that there is")
	if len(got) == 0 {
		p.broken(replayerRule(2), expected, fmt.Sprintf("no message, and the error %v", err))
		return 0
	}
	declared := got[0].Gap != nil
	if declared {
		if len(got[0].Data) > 0 {
			p.broken(replayerRule(2), expected, "a Gap that has Data")
		}
	}
	if declared || p.liveGaps() { // one may follow another
		got = slices.DeleteFunc(got, func(m tailcast.Message) bool { return m.Gap != nil })
	}
	if len(got) == 0 {
		p.broken(replayerRule(2), expected, fmt.Sprintf("a Gap, and nothing after it within %v, but the error %v", p.within, err))
		return 0
	}
	missing = slices.IndexFunc(at.want, func(m tailcast.Message) bool { return m.Pos == got[0].Pos })
	switch {
	case missing < 0:
		p.broken(replayerRule(2), expected, show(got[0])+" came first, which was not published after it")
		return 0
	case missing > 0 && !declared:
		p.broken(replayerRule(2), expected, fmt.Sprintf("it began with %s: %d are missing, and no Gap says so", show(got[0]), missing))
		return missing
	}
	want := at.want[missing:]
	for i := range min(len(got), len(want)) {
		if got[i].Gap != nil || got[i].Pos != want[i].Pos || string(got[i].Data) != string(want[i].Data) {
			p.broken(replayerRule(2), t.says(show(want[i])+" next"), show(got[i]))
			return missing
		}
	}
	if len(got) < len(want) {
		p.broken(replayerRule(2), t.says(show(want[len(got)])+" next"), fmt.Sprintf("nothing more came within %v, but the error %v", p.within, err))
	}
	return missing
}
