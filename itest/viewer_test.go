package itest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tailcast/tailcast"
	logviewer "github.com/tailcast/tailcast/viewer"
)

// A viewed is a hub with the viewer's page beside it.
type viewed struct {
	t      *testing.T
	hub    *tailcast.Hub
	url    string                              // of the page
	before atomic.Pointer[func(*http.Request)] // what is done before the hub gets a request
}

// newViewed serves a hub at /logs, with these topics, and the page at /view/.
func newViewed(t *testing.T, topics []string, opts ...tailcast.Option) *viewed {
	t.Helper()
	v := &viewed{t: t, hub: tailcast.New(append([]tailcast.Option{tailcast.WithAuthorize(tailcast.AllowAllTopics)}, opts...)...)}
	mux := http.NewServeMux()
	logs := v.hub.Handler(topics...)
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, r *http.Request) {
		if before := v.before.Load(); before != nil {
			(*before)(r)
		}
		logs.ServeHTTP(w, r)
	})
	page := logviewer.Handler("../logs", logviewer.WithTitle("Shop"))
	mux.Handle("GET /view/", page)
	mux.Handle("GET /view", page) // ServeMux's own redirect does not know the prefix of a proxy
	server := httptest.NewServer(mux)
	t.Cleanup(func() { v.hub.Close(); server.Close() })
	v.url = server.URL + "/view/"
	return v
}

// asked has a function called before the hub gets a request.
func (v *viewed) asked(before func(*http.Request)) { v.before.Store(&before) }

// asksBack reports whether a request is for older lines, and not a stream or whether a filter is right.
func asksBack(r *http.Request) bool {
	return r.Header.Get("Accept") == "application/x-ndjson" && r.FormValue("tail") != "0"
}

func (v *viewed) publish(topic string, lines ...string) {
	v.t.Helper()
	var messages []tailcast.Message
	for _, l := range lines {
		messages = append(messages, tailcast.Message{Topic: topic, Data: []byte(l)})
	}
	v.send(messages...)
}

func (v *viewed) send(messages ...tailcast.Message) {
	v.t.Helper()
	if err := v.hub.Publish(context.Background(), messages...); err != nil {
		v.t.Fatal(err)
	}
}

func numbered(prefix string, from, to int) []string {
	var lines []string
	for n := from; n <= to; n++ {
		lines = append(lines, fmt.Sprintf("%s %d", prefix, n))
	}
	return lines
}

// TestViewerFollowsAndPauses: lines come as they are published. Scrolling up pauses, and a marker counts what waits; nothing of it is
// lost, and what is read stays where it is.
func TestViewerFollowsAndPauses(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	v.publish("", numbered("line", 1, 200)...)
	p := newViewerPage(t, v.url)
	p.shows("line 200")
	v.publish("", "line 201")
	p.shows("line 201")

	p.do("wheel", -600)
	p.until("!tailcastViewer.following")
	const place = `(() => { const top = document.querySelector("#log").getBoundingClientRect().top; const r = [...document.querySelectorAll(".row")].find((r) => r.getBoundingClientRect().bottom > top + 1); return r.textContent + " at " + Math.round(r.getBoundingClientRect().top - top); })()`
	settled := ""
	eventually(t, "scrolling ends", func() bool {
		before := settled
		time.Sleep(300 * time.Millisecond)
		settled = eval[string](p, place)
		return before == settled
	})
	v.publish("", numbered("line", 202, 1201)...)
	p.shows("1\u202f000\u00a0new lines")
	if now := eval[string](p, place); now != settled {
		t.Errorf("what was read has moved: %q, then %q", settled, now)
	}
	p.do("click", "#newest")
	p.shows("line 1201")

	p.do("press", "Space")
	p.until("!tailcastViewer.following")
	v.publish("", "line 1202")
	p.shows("1\u00a0new line")
	p.do("press", "End")
	p.until("tailcastViewer.following")
	p.shows("line 1202")
	want := numbered("line", 1, 1202)
	if got := p.lines(); !slices.Equal(got, want) {
		t.Errorf("%d lines, not %d", len(got), len(want))
	}
}

// tasks are the page's tasks of more than 50 ms since the last time.
type tasks struct {
	Tasks   []int // ms
	Machine int   // for how many ms another process has waited for the processor
}

func (p *viewerPage) tasks() (t tasks) {
	p.t.Helper()
	p.ask(&t, "tasks")
	return t
}

func (t tasks) worst() int { return slices.Max(append(t.Tasks, 0)) }

func (t tasks) String() string {
	return fmt.Sprintf("%d long tasks, the longest %d ms, while another process has waited for up to %d ms", len(t.Tasks), t.worst(), t.Machine)
}

// TestViewerKeepsUp: 10 000 lines a second. Nothing is lost, and the page has no more elements than can be seen. In a soak also: no
// task of the page takes longer than 200 ms, but for what the machine takes; and once as many lines are there as may be kept, the page
// takes no more memory.
func TestViewerKeepsUp(t *testing.T) {
	soak := os.Getenv("ITEST_SOAK") == "1"
	if !soak {
		t.Parallel()
	}
	seconds, rate := setting(t, "ITEST_SECONDS", 6, 60), 10_000
	v := newViewed(t, []string{""}, tailcast.WithRetention(tailcast.Retention{Bytes: 32 << 20, Messages: 1 << 30}))
	p := newViewerPage(t, v.url)
	p.do("eval", `localStorage.setItem("tailcast.viewer", '{"keep":100000}')`)
	p.do("reload")
	p.until("tailcastViewer.state === 'open'")
	p.do("eval", "new Promise((resolve) => setTimeout(resolve, 500))")
	p.tasks()
	type heap struct{ Used, Nodes int }
	var heaps []heap
	sample := func() {
		var h heap
		p.ask(&h, "heap")
		h.Used >>= 20
		heaps = append(heaps, h)
		p.tasks() // what was looked at has taken time
	}
	var seen tasks
	look := func() {
		now := p.tasks()
		seen.Tasks, seen.Machine = append(seen.Tasks, now.Tasks...), max(seen.Machine, now.Machine)
	}
	began, sent, elements := time.Now(), 0, 0
	warm := 20 * rate // twice what is kept
	for sent < seconds*rate {
		due := min(seconds*rate, int(time.Since(began).Seconds()*float64(rate)), sent+rate/10) // what was not sent in time does not come at once
		for ; sent < due; sent++ {
			v.publish("", fmt.Sprintf("2026-01-02T15:04:05.678Z INFO  request %08d GET /products/%d 200 in %d ms from 203.0.113.%d", sent+1, sent%997, sent%89, sent%251))
		}
		if sent >= warm {
			p.until(fmt.Sprintf("tailcastViewer.lines >= %d", sent))
			look()
			sample()
			warm += 10 * rate
		}
		elements = max(elements, eval[int](p, "document.querySelectorAll('#log *').length"))
		time.Sleep(20 * time.Millisecond)
	}
	p.until(fmt.Sprintf("tailcastViewer.lines >= %d", sent))
	p.shows(fmt.Sprintf("request %08d", sent))
	look()
	sample()
	t.Logf("%d lines in %v; %v; at most %d elements; MiB of heap and nodes: %v; %s",
		sent, time.Since(began).Round(time.Millisecond), seen, elements, heaps, p.state())
	if got := eval[int](p, "tailcastViewer.lines"); got != sent || v.hub.Stats().Published != int64(sent) {
		t.Errorf("the page has got %d lines of %d", got, v.hub.Stats().Published)
	}
	if n := eval[int](p, "tailcastViewer.gaps + tailcastViewer.duplicates"); n != 0 {
		t.Errorf("%d gaps and duplicates", n)
	}
	if kept := eval[int](p, "tailcastViewer.kept"); kept > 100_000 || kept < min(sent, 99_000) {
		t.Errorf("%d lines are kept", kept)
	}
	if elements > 600 {
		t.Errorf("%d elements in the list", elements)
	}
	if soak && seen.worst() > 200+seen.Machine {
		t.Errorf("%v", seen)
	}
	if first, last := heaps[0], heaps[len(heaps)-1]; last.Used > first.Used*5/4+4 || last.Nodes > first.Nodes+2000 {
		t.Errorf("from %v, memory has grown to %v", first, last)
	}
}

// TestViewerKeepsAMillion: as many lines as may be kept, and more. The page scrolls through them and searches them without being held up.
func TestViewerKeepsAMillion(t *testing.T) {
	lines := setting(t, "ITEST_VIEWER_LINES", 60_000, 1_100_000)
	if os.Getenv("ITEST_SOAK") != "1" {
		t.Parallel()
	}
	v := newViewed(t, []string{""}, tailcast.WithRetention(tailcast.Retention{Bytes: 32 << 20, Messages: 1 << 30}))
	p := newViewerPage(t, v.url)
	p.until("tailcastViewer.state === 'open'")
	for n := 0; n < lines; n += 5000 {
		v.publish("", numbered("this is a line of some length, as they are in logs, and its number is", n+1, n+5000)...)
		p.until(fmt.Sprintf("tailcastViewer.lines >= %d - 20000", n))
	}
	p.until(fmt.Sprintf("tailcastViewer.lines === %d", lines))
	kept := min(lines, 1_000_000)
	p.until(fmt.Sprintf("tailcastViewer.kept <= %d && tailcastViewer.kept > %d - 1000", kept, kept))
	var heap struct{ Used, Nodes int }
	p.ask(&heap, "heap")
	p.tasks()
	p.do("press", "/")
	began := time.Now()
	p.do("fill", "#query", "number is 1")
	p.until("tailcastViewer.found.looked === tailcastViewer.found.of")
	searched := time.Since(began)
	want := 0
	for n := lines - eval[int](p, "tailcastViewer.kept") + 1; n <= lines; n++ {
		if strings.HasPrefix(fmt.Sprint(n), "1") {
			want++
		}
	}
	if got := eval[int](p, "tailcastViewer.found.found"); got != want {
		t.Errorf("found %d lines, not %d", got, want)
	}
	search := p.tasks()
	for _, key := range []string{"Enter", "Escape", "Escape", "PageUp", "g", "PageDown", "w", "End", "g", "w", "End"} {
		p.do("press", key)
		p.do("eval", "new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)))")
	}
	// Half way down, with a bar that stands for more than an element can be high: a page further is a page further.
	p.do("press", "Space")
	p.do("eval", `document.querySelector("#log").scrollTop = document.querySelector("#log").scrollHeight / 2`)
	p.do("eval", "new Promise((resolve) => setTimeout(resolve, 500))")
	const first = `Number([...document.querySelectorAll(".row")].find((r) => r.getBoundingClientRect().bottom > document.querySelector("#log").getBoundingClientRect().top + 1).textContent.split(" ").at(-1))`
	middle := eval[int](p, first)
	p.do("wheel", 400)
	p.do("eval", "new Promise((resolve) => setTimeout(resolve, 700))")
	if after := eval[int](p, first); after != middle+20 {
		t.Errorf("400 pixels below line %d is %d", middle, after)
	}
	if half := lines - kept/2; middle < half-kept/50 || middle > half+kept/50 {
		t.Errorf("half way down is line %d of %d", middle, lines)
	}
	moving := p.tasks()
	t.Logf("%d lines kept with %d MiB of heap; searched in %v: %v; moving: %v", kept, heap.Used>>20, searched.Round(time.Millisecond), search, moving)
	if os.Getenv("ITEST_SOAK") == "1" && search.worst() > 200+search.Machine {
		t.Errorf("the search has held the page up: %v", search)
	}
	if heap.Used > 60<<20+250*kept {
		t.Errorf("%d MiB for %d lines", heap.Used>>20, kept)
	}
}

// TestViewerForgetsHonestly: what is more than may be kept goes at the top, says so, and can be had back. Memory is flat then.
func TestViewerForgetsHonestly(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""}, tailcast.WithRetention(tailcast.Retention{Bytes: 32 << 20, Messages: 1 << 30}))
	p := newViewerPage(t, v.url)
	p.do("click", "#view")
	p.do("click", "#view-dialog [name=keep][value='10000']")
	p.do("press", "Escape")
	for n := 0; n < 40_000; n += 1000 {
		v.publish("", numbered("line", n+1, n+1000)...)
		p.until(fmt.Sprintf("tailcastViewer.lines >= %d", n+1000))
	}
	p.until("tailcastViewer.kept <= 10000 && tailcastViewer.dropped >= 30000")
	before := eval[int](p, "tailcastViewer.dropped")
	p.do("click", "#log")
	p.do("press", "Home")
	p.until(fmt.Sprintf("tailcastViewer.dropped < %d", before)) // they come by themselves
	back := eval[int](p, "tailcastViewer.dropped")
	p.do("press", "Home")
	p.until(fmt.Sprintf("tailcastViewer.dropped < %d", back))
	p.until("document.querySelector('.head').textContent.includes('older lines were dropped here')")
	lines := p.lines()
	if want := numbered("line", 40_000-len(lines)+1, 40_000); !slices.Equal(lines, want) {
		t.Errorf("%d lines from %q to %q, which are not all between", len(lines), lines[0], lines[len(lines)-1])
	}

	// Who reads loses nothing of it: beyond what may be kept, the stream rests.
	first := eval[string](p, "tailcastViewer.text(tailcastViewer.first)")
	v.publish("", numbered("line", 40_001, 60_000)...)
	p.until("tailcastViewer.resting")
	p.shows("and more at the server")
	if now := eval[string](p, "tailcastViewer.text(tailcastViewer.first)"); now != first {
		t.Errorf("the first line was %q, and is %q", first, now)
	}
	p.do("press", "G")
	p.shows("line 60000")
	lines = p.lines()
	if want := numbered("line", 60_000-len(lines)+1, 60_000); !slices.Equal(lines, want) || len(lines) > 10_000 {
		t.Errorf("%d lines from %q to %q, which are not all between", len(lines), lines[0], lines[len(lines)-1])
	}
}

// TestViewerSurvivesTheServer: the server is killed and comes back, several times, while lines are written and the file is rotated. The
// page has each line once, in order. It also has, when its tab was frozen meanwhile.
func TestViewerSurvivesTheServer(t *testing.T) {
	t.Parallel()
	need(t, "node", "chromium", "npm/playwright-core")
	path := t.TempDir() + "/app.log"
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-addr", freeAddr(t), "-from-start", path}
	server := startLogtail(t, args...)
	w := (&writer{Name: "a", Path: path, Rate: 2000, Width: 120}).start()
	p := newViewerPage(t, strings.TrimSuffix(server.url, "logs"))
	p.until("tailcastViewer.lines > 2000")
	for kill := range setting(t, "ITEST_KILLS", 3, 10) {
		server.kill(t)
		p.until("['waiting', 'connecting'].includes(tailcastViewer.state)")
		rotate(t, path)
		if err := w.order("reopen"); err != nil {
			t.Fatal(err)
		}
		if kill == 1 {
			p.do("freeze", "frozen")
		}
		server = startLogtail(t, args...)
		if kill == 1 {
			time.Sleep(time.Second) // lines go by
			p.do("freeze", "active")
		}
		before := eval[int](p, "tailcastViewer.lines")
		p.until(fmt.Sprintf("tailcastViewer.state === 'open' && tailcastViewer.lines > %d", before+500))
	}
	p.do("hide")
	from := w.seq.Load()
	eventually(t, "lines are written", func() bool { return w.seq.Load() > from+1000 })
	p.do("show")
	w.limit.Store(w.seq.Load() + 2000)
	eventually(t, "the writer is done", func() bool { return w.seq.Load() >= w.limit.Load() })
	last := int(w.seq.Load())
	if err := w.order("stop"); err != nil {
		t.Fatal(err)
	}
	p.until(fmt.Sprintf("tailcastViewer.kept >= %d", last))
	a := newAccount("the page")
	for _, line := range p.lines() {
		a.line([]byte(line))
	}
	a.check(t, map[string]int{"a": last})
	t.Log(p.state())
	server.stop(t)
}

// hostile are lines that want to be more than text.
func hostile() []string {
	return []string{
		`<script>alert("evil")</script>`,
		`</script><script src="/evil.js"></script>`,
		`<img src=/evil.png onerror=alert(1)>`,
		`</title></html><svg onload=alert(1)>`,
		"\x1b]0;evil title\x07after the title",
		"\x1b]8;;javascript:alert(1)\x1b\\a link\x1b]8;;\x1b\\",
		"\x1b]52;c;ZXZpbA==\x07clipboard",
		"\x1b[2J\x1b[Hcleared \x1bPq#0;2;0;0;0\x1b\\sixel \x9b31mC1",
		"\x1b]0;never ends",
		"abc \u202e\u2066gpj.exe\u2069 \u200f right to left \u05d0\u05d1\u05d2",
		"zalgo: a" + strings.Repeat("\u0301", 100_000) + " after the marks",
		strings.Repeat("long ", 20_000) + "its end",
		"nul \x00 bell \a back\b del \x7f",
		"{\"__proto__\":{\"polluted\":1},\"constructor\":\"x\",\"html\":\"<b>bold</b><script>alert(2)</script>\"}",
		`javascript:alert(3)`,
		"half a pair: \xed\xa0\x80, and no UTF-8: \xff" + strings.Repeat(" and so on", 10),
		"\xff\xfe\xfd\xfc\xfb",
		"\x1b[31mred and no end",
		"plain after it",
	}
}

// TestViewerIsHarmless: lines that want to be more than text are shown as what they are, and nothing of them is carried out.
func TestViewerIsHarmless(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	v.publish("", hostile()...)
	p := newViewerPage(t, v.url+"?grep=%3Cscript%3Ealert(9)%3C/script%3E%7C.#id=%3Cscript%3E")
	p.shows("plain after it")
	for _, want := range []string{`<script>alert("evil")</script>`, `<img src=/evil.png onerror=alert(1)>`, "after the title", "a link", "⟨RLO⟩", "⟨PDI⟩", "nul ^@ bell ^G", "del ^?", "+1", "more characters", "no UTF-8: \ufffd and so on", "binary, 5\u00a0bytes: ff fe fd fc fb"} {
		p.shows(want)
	}
	for i := range eval[int](p, "document.querySelectorAll('.fold').length") {
		p.do("eval", fmt.Sprintf("document.querySelectorAll('.fold')[%d].click()", i))
		p.do("eval", "new Promise(requestAnimationFrame)")
	}
	p.do("press", "w")
	p.do("eval", "new Promise((resolve) => setTimeout(resolve, 300))")
	bad := eval[[]string](p, `[
		document.title !== "Shop" && "the title is " + document.title,
		document.querySelectorAll("script").length !== 1 && "a script",
		document.querySelector("#log img, #log script, #log a, #log svg, #log b") && "an element of a line",
		({}).polluted && "the prototype is polluted",
		getComputedStyle([...document.querySelectorAll(".row")].find((r) => r.textContent.includes("plain after it")).querySelector(".text")).color !== getComputedStyle(document.body).color && "the colour of the line before",
		[...document.querySelectorAll(".row")].some((r) => r.scrollHeight > r.clientHeight + 30) && "something stands out of its row",
	].filter(Boolean)`)
	if len(bad) > 0 {
		t.Errorf("%v", bad)
	}
	t.Log(p.tasks())
	p.quiet()
}

// TestViewerIsAccessible: axe finds nothing, in light and dark, on a phone, with dialogs and rows open.
func TestViewerIsAccessible(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{"app", "db"})
	p := newViewerPage(t, v.url)
	check := func(what string) {
		t.Helper()
		var violations []string
		p.ask(&violations, "axe")
		for _, violation := range violations {
			t.Errorf("%s: %s", what, violation)
		}
	}
	p.until("tailcastViewer.state === 'open'")
	check("empty")
	v.send(tailcast.Message{Topic: "app", Gap: &tailcast.Gap{Count: 12, Bytes: 1034, Reason: "the file was truncated"}})
	for level := range strings.FieldsSeq("FATAL ERROR WARN INFO DEBUG TRACE nothing") {
		v.publish("app", level+" this is a line")
		v.publish("db", fmt.Sprintf(`{"level":%q,"msg":"order paid","order":12,"tags":["a",null,true]}`, strings.ToLower(level)))
	}
	for _, code := range []int{30, 31, 32, 33, 34, 35, 36, 37, 90, 91, 92, 93, 94, 95, 96, 97} {
		v.publish("app", fmt.Sprintf("\x1b[%dmcolour %d\x1b[0m \x1b[%dmon it\x1b[0m \x1b[2;%dmfaint\x1b[0m \x1b[7;%dminverse\x1b[0m", code, code, code+10, code, code))
	}
	v.publish("app", "\x1b[38;2;250;250;210mnearly white\x1b[0m \x1b[38;2;5;5;40mnearly black\x1b[0m \x1b[31;41mred on red\x1b[0m \x1b[48;5;240mgrey\x1b[0m", "control \x01\u202e", strings.Repeat("x", 3000))
	p.shows("nearly white")
	for _, scheme := range []string{"light", "dark"} {
		p.do("media", map[string]string{"colorScheme": scheme})
		for _, size := range [][2]int{{1280, 900}, {360, 740}} {
			p.do("viewport", size[0], size[1])
			p.until(fmt.Sprintf("document.documentElement.dataset.theme === %q", scheme))
			what := fmt.Sprint(scheme, size)
			p.do("reload")
			p.shows("control")
			check(what)
			if (scheme == "light") != (size[0] == 1280) {
				continue
			}
			p.do("press", "Space")
			p.do("press", "/")
			p.do("fill", "#query", "colour")
			p.until("tailcastViewer.found.found > 0")
			p.do("press", "Enter")
			p.until("document.querySelector('mark')")
			p.do("press", "Escape")
			p.do("press", "Escape")
			p.do("press", "Home")
			p.do("eval", "new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
			p.until("document.querySelector('.fold')")
			p.do("eval", "document.querySelectorAll('.fold[aria-expanded=false]').forEach((b) => b.click())")
			p.until("document.querySelector('.row.open')")
			check(what + ", searched, rows open")
			for _, d := range []string{"view", "help"} {
				p.do("click", "#"+d)
				check(what + ", " + d)
				p.do("press", "Escape")
			}
			p.do("fill", "#grep", "(")
			p.do("press", "Enter")
			p.until("!document.querySelector('#filter-error').hidden")
			check(what + ", an error")
		}
	}
}

// TestViewerBehindNginx: the page and the hub are below a prefix that the server knows nothing of.
func TestViewerBehindNginx(t *testing.T) {
	t.Parallel()
	need(t, "nginx")
	v := newViewed(t, []string{""}, tailcast.WithHosts(proxyHost, "127.0.0.1", "localhost"))
	v.publish("", "through the proxy")
	hub := strings.TrimSuffix(strings.TrimPrefix(v.url, "http://"), "/view/")
	location := replaced(t, readmeNginx(t), "location /logs", "location /some/prefix/", "http://HUB;", "http://HUB/;")
	f := (&proxy{name: "nginx", host: true, ws: true, config: nginxWith(onTCP, location)}).start(t, hub, "")
	p := newViewerPage(t, "http://"+f.addr+"/some/prefix/view?grep=through") // without the slash: the redirect has to keep the prefix
	p.shows("through the proxy")
	if at := eval[string](p, "location.pathname + location.search"); at != "/some/prefix/view/?grep=through" {
		t.Errorf("the page is at %s", at)
	}
	v.publish("", "not this", "this comes through live")
	p.shows("this comes through live")
	if n := eval[int](p, "tailcastViewer.kept"); n != 2 {
		t.Errorf("%d lines, with a filter", n)
	}
	p.until("tailcastViewer.transport === 'websocket'")
}

// TestViewerModules runs the tests of the page's functions that need no page.
func TestViewerModules(t *testing.T) {
	t.Parallel()
	need(t, "node")
	out, err := exec.Command("node", "--test", "--test-force-exit", "clients/viewer/").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "# fail 0") || strings.Contains(string(out), "# pass 0") {
		t.Errorf("no test has run:\n%s", out)
	}
}

// TestViewerShowsWhatLinesSay: levels, ANSI colours, JSON, gaps, binary messages, parts of lines, topics, times.
func TestViewerShowsWhatLinesSay(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{"app", "db"})
	v.publish("app", "ERROR disk full", "\x1b[1;32mok\x1b[0m then \x1b[38;5;208morange\x1b[0m", `{"level":40,"msg":"slow","user":{"id":7,"tags":["a","b"]}}`)
	v.publish("db", "select 1")
	v.send(
		tailcast.Message{Topic: "app", Data: []byte{0, 1, 2, 0xff}, Binary: true},
		tailcast.Message{Topic: "app", Data: []byte("a cut line "), Partial: true},
		tailcast.Message{Topic: "app", Gap: &tailcast.Gap{Count: 12, Bytes: 1034, Reason: "the file was truncated"}},
		tailcast.Message{Topic: "app", Gap: &tailcast.Gap{Count: -1, Bytes: -1, Possible: true, Reason: "copied"}},
		tailcast.Message{Topic: "app", Data: []byte("last")},
	)
	p := newViewerPage(t, v.url)
	p.shows("last")
	const row = `(text) => [...document.querySelectorAll(".row")].find((r) => r.textContent.includes(text))`
	for _, c := range []struct{ what, expression string }{
		{"a level by its word", `row("disk full").dataset.level === "error"`},
		{"a level by its number in JSON", `row("slow").dataset.level === "warn"`},
		{"no level", `row("select").dataset.level === undefined`},
		{"bold", `row("then orange").querySelector(".bold").textContent === "ok"`},
		{"a colour of the 256", `[...row("then orange").querySelectorAll("span")].some((s) => s.textContent === "orange" && s.style.color)`},
		{"a gap's count and reason", `row("12\u00a0lines (1.0\u00a0KiB) of app missing here: the file was truncated").classList.contains("gap")`},
		{"a gap that is only possible", `row("an unknown number of lines of app may be missing here: copied")`},
		{"a binary message", `row("binary, 4\u00a0bytes: 00 01 02 ff")`},
		{"a part of a line", `row("a cut line").textContent.includes("goes on")`},
		{"topics have colours of their own", `getComputedStyle(row("disk full").querySelector(".topic")).color !== getComputedStyle(row("select").querySelector(".topic")).color`},
		{"a time stamp", `/^\d\d:\d\d:\d\d\.\d\d\d$/.test(row("last").querySelector("time").textContent)`},
	} {
		if !eval[bool](p, "(() => { const row = "+row+"; return Boolean("+c.expression+"); })()") {
			t.Errorf("%s: not so: %s", c.what, c.expression)
		}
	}

	p.do("click", `.row[data-level="warn"] .fold`)
	p.shows("\"tags\": [")
	if n := eval[int](p, `document.querySelectorAll(".tree > div").length`); n != 11 {
		t.Errorf("the tree has %d lines", n)
	}
	p.do("press", "k") // from the one that was chosen by the click
	p.until(`document.querySelector(".row.current")?.textContent.includes("orange")`)
	p.do("press", "Enter") // which has nothing to unfold
	p.do("press", "j")
	p.do("press", "Enter")
	p.until(`!document.querySelector(".row.open")`)
	p.do("press", "Enter")
	p.until(`document.querySelector(".row.open")?.textContent.includes("slow")`)

	for _, want := range []string{`/^\d+:\d\d:\d\d\.\d\d\d$/`, `/^\d+ (s|min) ago$/`, "off"} { // after local: UTC, relative, none
		p.do("press", "t")
		if want == "off" {
			p.until(`!document.querySelector(".row time")`)
			continue
		}
		p.until(want + `.test(document.querySelector(".row time")?.textContent)`)
	}

	p.do("click", "#topics button:first-child") // app is not wanted any more
	p.until("tailcastViewer.kept === 1")
	if lines := p.lines(); !slices.Equal(lines, []string{"select 1"}) {
		t.Errorf("only db: %q", lines)
	}
	if at := eval[string](p, "location.search"); at != "?topic=db" {
		t.Errorf("the address says %s", at)
	}
	v.publish("app", "not shown")
	v.publish("db", "select 2")
	p.shows("select 2")
	p.do("reload")
	p.shows("select 2")
	if lines := p.lines(); !slices.Equal(lines, []string{"select 1", "select 2"}) {
		t.Errorf("only db, by the address: %q", lines)
	}
}

// TestViewerFindsAndFilters: the search in the page marks, counts and goes to what it finds, in what is there and what comes, and an
// expression without an end costs the page nothing. The filter on the server shows the server's sentence where it is wrong.
func TestViewerFindsAndFilters(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""}, tailcast.WithRetention(tailcast.Retention{Bytes: 32 << 20, Messages: 1 << 30}))
	for n := 1; n <= 30_000; n += 1000 {
		v.publish("", numbered("line", n, n+999)...)
	}
	v.publish("", "INFO \x1b[31mNee\x1b[0mdle one", strings.Repeat("a", 40)+"!", "needle two")
	p := newViewerPage(t, v.url+"?tail=5")
	p.until("tailcastViewer.kept >= 1000")
	p.do("press", "/")
	p.do("fill", "#query", "needle")
	p.until("document.querySelector('#found').textContent === '2\u00a0lines'")
	p.until("[...document.querySelectorAll('mark')].map((m) => m.textContent).join() === 'Nee,dle,needle'")
	v.publish("", "a third needle")
	p.until("document.querySelector('#found').textContent === '3\u00a0lines'")
	p.do("press", "Enter")
	p.until("document.querySelector('.row.current')?.textContent.includes('third')")
	p.until("document.querySelector('#found').textContent === '3 of 3'")
	p.do("press", "Enter") // goes round
	p.until("document.querySelector('.row.current')?.textContent.includes('one')")
	p.do("press", "Escape")
	p.do("press", "Escape")
	p.do("fill", "#query", "needle")
	p.do("click", "#exact")
	p.until("document.querySelector('#found').textContent.endsWith('2\u00a0lines') || document.querySelector('#found').textContent.endsWith('of 2')")
	p.do("click", "#exact")
	p.do("click", "#regex")
	p.do("fill", "#query", "(")
	p.until("document.querySelector('#found.bad')?.textContent.includes('roup')")
	p.do("fill", "#query", "(a|a)*$")
	p.shows("This expression takes too long.")
	p.do("fill", "#query", `^line \d+7$`)
	p.until("tailcastViewer.found.found > 50 && tailcastViewer.found.looked === tailcastViewer.found.of")
	p.do("press", "End")

	p.do("fill", "#grep", "line (")
	p.do("press", "Enter")
	p.until("document.querySelector('#filter-error').textContent.includes('missing closing )')")
	if n := eval[int](p, "tailcastViewer.kept"); n < 1000 {
		t.Errorf("a filter that is wrong has left %d lines", n)
	}
	p.do("fill", "#grep", `line 299\d\d$`)
	p.do("press", "Enter")
	p.until("tailcastViewer.kept === 100")
	p.until("document.querySelector('#filter-error').hidden")
	p.do("click", "#invert")
	p.until("tailcastViewer.kept > 800 && !tailcastViewer.texts().some((l) => /^line 299\\d\\d$/.test(l))")
	v.publish("", "line 29999", "line 30001")
	p.shows("line 30001")
	if at := eval[string](p, "new URLSearchParams(location.search).get('grep')"); at != `line 299\d\d$` {
		t.Errorf("the address says %q", at)
	}
	if slices.Contains(p.lines()[500:], "line 29999") {
		t.Error("what the filter leaves out has come")
	}
	p.do("fill", "#grep", "")
	p.do("press", "Enter")
	p.until("tailcastViewer.texts().includes('line 29999')")
}

// TestViewerLoadsOlderLines: scrolling up loads what was written before, from the file, until there is no more; the place stays. A link
// to a line opens there, and says so if the line is gone.
func TestViewerLoadsOlderLines(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/app.log"
	if err := os.WriteFile(path, []byte(strings.Join(numbered("line", 1, 20_000), "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := startLogtail(t, "-addr", freeAddr(t), path)
	home := strings.TrimSuffix(server.url, "logs")
	p := newViewerPage(t, home)
	p.shows("line 20000")
	if n := eval[int](p, "tailcastViewer.kept"); n != 1000 {
		t.Errorf("%d lines at first", n)
	}
	p.do("click", "#log")
	for before := 0; ; {
		p.do("press", "Home")
		p.until(fmt.Sprintf("tailcastViewer.kept > %d", before))
		if before = eval[int](p, "tailcastViewer.kept"); before == 20_000 {
			break
		}
		p.until("!document.querySelector('.head').textContent.startsWith('Loading')")
	}
	p.do("press", "Home")
	p.shows("The beginning: nothing older can be had.")
	if lines := p.lines(); !slices.Equal(lines, numbered("line", 1, 20_000)) {
		t.Errorf("%d lines from %q to %q", len(lines), lines[0], lines[len(lines)-1])
	}

	p.do("permit", "clipboard-read", "clipboard-write")
	p.do("click", ".row:nth-child(8) .text")
	chosen := eval[string](p, "document.querySelector('.row.current .text').textContent")
	p.do("press", "c")
	p.shows("The line is on the clipboard.")
	if got := eval[string](p, "navigator.clipboard.readText()"); got != chosen {
		t.Errorf("the clipboard has %q, not %q", got, chosen)
	}
	for _, link := range []func(){
		func() { p.do("click", ".row:nth-child(8) .text") },                                         // near the beginning
		func() { p.do("press", "End"); p.do("press", "k"); p.do("press", "k"); p.do("press", "k") }, // near the end
	} {
		link()
		chosen = eval[string](p, "document.querySelector('.row.current .text').textContent")
		p.do("press", "l")
		p.shows("The link to this line")
		address := eval[string](p, "location.href")
		p.do("open", "about:blank")
		p.do("open", address)
		p.until("document.querySelector('.row.target')")
		if got := eval[string](p, "document.querySelector('.row.target .text').textContent"); got != chosen {
			t.Errorf("%s points to %q, not to %q", address, got, chosen)
		}
		p.until("!tailcastViewer.following")
	}

	// A filter looks back as far as the server reads, and what cannot be had is said.
	p.do("open", home+"?grep="+url.QueryEscape(`^line \d+000$`))
	p.until("tailcastViewer.kept === 20")
	appendLines(t, path, numbered("line", 20_001, 103_500))
	p.until("tailcastViewer.kept === 103")
	p.do("reload")
	p.until("tailcastViewer.kept === 100")
	p.do("press", "Home")
	p.until("document.querySelector('.head').textContent.includes('at most 100\u202f000 lines can be had')")
	if lines := p.lines(); lines[0] != "line 4000" || lines[99] != "line 103000" {
		t.Errorf("from %q to %q", lines[0], lines[99])
	}
	p.do("open", "about:blank")
	p.do("open", home+"#id=1zzzz.5&since=1zzzz.1")
	p.shows("The line that this link points to is gone")
	server.stop(t)
}

func appendLines(t *testing.T, path string, lines []string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Join(lines, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestViewerLoadsWhatFitsAbove: older lines that come when the lines that they belong above have been dropped are not put above others.
func TestViewerLoadsWhatFitsAbove(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""}, tailcast.WithRetention(tailcast.Retention{Bytes: 32 << 20, Messages: 1 << 30}))
	v.publish("", numbered("line", 1, 6000)...)
	p := newViewerPage(t, v.url)
	p.do("eval", `localStorage.setItem("tailcast.viewer", '{"keep":10000}')`)
	p.do("reload")
	p.shows("line 6000")
	answer, asks := make(chan bool), make(chan bool, 1)
	v.asked(func(r *http.Request) {
		if asksBack(r) {
			asks <- true
			<-answer
		}
	})
	p.do("click", "#log")
	p.do("press", "Home")
	<-asks
	v.publish("", numbered("line", 6001, 15_500)...)
	p.until("tailcastViewer.lines >= 10500")
	p.do("press", "End")
	p.until("tailcastViewer.following && tailcastViewer.kept <= 10000")
	before := eval[int](p, "tailcastViewer.dropped")
	close(answer)
	v.asked(func(*http.Request) {})
	p.until("!document.querySelector('.head').textContent.startsWith('Loading')")
	p.do("press", "Home")
	p.until(fmt.Sprintf("tailcastViewer.dropped < %d || tailcastViewer.kept > 10000", before))
	lines := p.lines()
	if want := numbered("line", 15_500-len(lines)+1, 15_500); !slices.Equal(lines, want) {
		t.Errorf("%d lines from %q to %q, which are not all between", len(lines), lines[0], lines[len(lines)-1])
	}
}

// TestViewerTriesAgain: the button that offers to try again does, when older lines could not be had.
func TestViewerTriesAgain(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	v.publish("", numbered("line", 1, 1200)...)
	p := newViewerPage(t, v.url)
	p.shows("line 1200")
	v.asked(func(r *http.Request) {
		if asksBack(r) {
			panic(http.ErrAbortHandler)
		}
	})
	p.do("click", "#log")
	p.do("press", "Home")
	p.shows("Older lines cannot be had")
	v.asked(func(*http.Request) {})
	p.do("click", ".head button")
	p.until("tailcastViewer.kept === 1200")

	// The oldest line can be linked to, though nothing is there that stands before it.
	p.do("press", "Home")
	p.shows("The beginning: nothing older can be had.")
	p.do("click", ".row .text")
	p.until("document.querySelector('.row.current .text')?.textContent === 'line 1'")
	p.do("press", "l")
	p.shows("The link to this line")
	address := eval[string](p, "location.href")
	p.do("open", "about:blank")
	p.do("open", address)
	p.until("document.querySelector('.row.target')?.textContent.includes('line 1')")
}

// TestViewerShowsWhatWasAskedLast: of two filters the later one counts, whichever the server has looked at first; and what was found
// in the lines before is not marked in others.
func TestViewerShowsWhatWasAskedLast(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	v.publish("", "a needle here", "b needle", "a long way to a needle")
	p := newViewerPage(t, v.url)
	p.do("press", "/")
	p.do("fill", "#query", "needle")
	p.until("document.querySelectorAll('mark').length === 3")
	answer, asks := make(chan bool), make(chan bool, 2)
	v.asked(func(r *http.Request) {
		if r.Header.Get("Accept") == "application/x-ndjson" && r.FormValue("grep") == "^b" {
			asks <- true
			<-answer
		}
	})
	p.do("fill", "#grep", "^b")
	p.do("press", "Enter")
	<-asks
	p.do("fill", "#grep", "way")
	p.do("press", "Enter")
	p.until("tailcastViewer.kept === 1 && tailcastViewer.texts()[0].includes('way')")
	close(answer)
	p.do("eval", "new Promise((resolve) => setTimeout(resolve, 500))")
	if lines := p.lines(); !slices.Equal(lines, []string{"a long way to a needle"}) {
		t.Errorf("the filter says way, and the lines are %q", lines)
	}
	p.until("[...document.querySelectorAll('.row mark')].map((m) => m.textContent).join() === 'needle'")
}

// TestViewerFindsWhatALinkPointsTo: also if more lines follow than are kept.
func TestViewerFindsWhatALinkPointsTo(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""}, tailcast.WithRetention(tailcast.Retention{Bytes: 64 << 20, Messages: 1 << 30}))
	head := func() string {
		at, ok := v.hub.Head("")
		if !ok {
			t.Fatal("no line is there")
		}
		return at.String()
	}
	v.publish("", numbered("line", 1, 10)...)
	since := head()
	v.publish("", "wanted")
	id := head()
	p := newViewerPage(t, v.url)
	p.do("eval", `localStorage.setItem("tailcast.viewer", '{"keep":10000}')`)
	for n := 0; n < 60_000; n += 10_000 {
		v.publish("", numbered("line", n+12, n+10_011)...)
	}
	p.do("open", "about:blank")
	p.do("open", v.url+"#id="+id+"&since="+since)
	p.until("document.querySelector('.row.target')?.textContent.includes('wanted') || !document.querySelector('#notice').hidden")
	if !eval[bool](p, "Boolean(document.querySelector('.row.target'))") {
		t.Errorf("%s", eval[string](p, "document.querySelector('#notice').innerText"))
	}
}

// TestViewerGivesTextAway: a selection over rows that were never in the page is copied in full, and a download has all that is there.
func TestViewerGivesTextAway(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	v.publish("", numbered("line", 1, 499)...)
	v.publish("", "\x1b[31mline 500\x1b[0m")
	p := newViewerPage(t, v.url)
	p.shows("line 500")
	p.do("press", "Home")
	p.shows("line 1\n")
	p.do("eval", `getSelection().setBaseAndExtent(document.querySelector(".row .text").firstChild, 2, document.querySelector(".row .text").firstChild, 3)`)
	p.do("eval", "new Promise(requestAnimationFrame)")
	p.do("eval", `document.querySelector("#log").scrollTop = 1e6`)
	p.shows("line 500")
	p.do("eval", `(() => { const rows = [...document.querySelectorAll(".row:not(.pinned) .text")]; getSelection().extend(rows.at(-1).querySelector("span").firstChild, 4); })()`)
	copied := eval[string](p, `new Promise((resolve) => { document.addEventListener("copy", (e) => resolve(e.clipboardData.getData("text/plain")), { once: true }); document.execCommand("copy"); })`)
	want := numbered("line", 1, 500)
	want[0], want[499] = "ne 1", "line"
	if got := strings.Split(copied, "\n"); !slices.Equal(got, want) {
		t.Errorf("copied: %d lines, from %q to %q", len(got), got[0], got[len(got)-1])
	}
	var file struct{ Name, Text string }
	p.ask(&file, "download", "#download")
	if want := strings.Join(numbered("line", 1, 500), "\n") + "\n"; file.Text != want || !strings.HasPrefix(file.Name, "Shop-") || !strings.HasSuffix(file.Name, ".log") {
		t.Errorf("%s has %d bytes, not %d", file.Name, len(file.Text), len(want))
	}
}

// TestViewerRemembers: how the page looks is kept; where storage holds nonsense, or is forbidden, the page works all the same. Wrapped
// lines have the height that they need, and stand where they should.
func TestViewerRemembers(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	for n := range 150 {
		v.publish("", fmt.Sprintf("line %d %s", n+1, strings.Repeat("word ", n%97)))
	}
	p := newViewerPage(t, v.url)
	p.shows("line 150")
	p.do("press", "w")
	p.until("document.querySelector('.row').getBoundingClientRect().height >= 20 && [...document.querySelectorAll('.row')].some((r) => r.getBoundingClientRect().height > 30)")
	p.do("click", "#view")
	p.do("click", "#view-dialog [name=theme][value=dark]")
	p.do("press", "Escape")
	p.until("document.documentElement.dataset.theme === 'dark'")
	p.do("reload")
	p.shows("line 150")
	p.until("document.documentElement.dataset.theme === 'dark' && document.documentElement.classList.contains('wrap')")
	// Walking up row by row: each is there, in order, none stands over another, and none is left out.
	const rows = `[...document.querySelectorAll(".row")].map((r) => { const b = r.getBoundingClientRect(); return [Number(r.querySelector(".text").textContent.split(" ")[1]), b.top, b.bottom]; })`
	seen := 151
	for range 200 {
		list := eval[[][3]float64](p, rows)
		for i := 1; i < len(list); i++ {
			if list[i][0] != list[i-1][0]+1 || list[i][1] < list[i-1][2]-0.5 || list[i][1] > list[i-1][2]+0.5 {
				t.Fatalf("after %v stands %v", list[i-1], list[i])
			}
		}
		if int(list[len(list)-1][0]) < seen-1 {
			t.Fatalf("from %d to %v", seen, list[len(list)-1][0])
		}
		if seen = int(list[0][0]); seen == 1 {
			break
		}
		p.do("wheel", -300)
		p.do("eval", "new Promise((resolve) => setTimeout(resolve, 150))")
	}
	if seen != 1 {
		t.Errorf("scrolling up has come to line %d", seen)
	}
	p.do("eval", "dispatchEvent(new Event('beforeprint'))") // then more is there than can be seen
	p.until("tailcastViewer.rows === 150")
	p.do("eval", "dispatchEvent(new Event('afterprint'))")
	p.until("tailcastViewer.rows < 100")
	p.do("eval", "localStorage.setItem('tailcast.viewer', '{\"theme\":17,\"keep\":\"all\",')")
	p.do("reload")
	p.shows("line 150")
	p.do("eval", "localStorage.setItem('tailcast.viewer', 'null')")
	p.do("reload")
	p.shows("line 150")
}

// TestViewerSurvivesTheNetwork: connections are cut, and nothing goes through for a while. The page says so, counts down, comes back at
// once when it is told to, and has each line once.
func TestViewerSurvivesTheNetwork(t *testing.T) {
	t.Parallel()
	v := newViewed(t, []string{""})
	c := newCutter(t, strings.TrimSuffix(strings.TrimPrefix(v.url, "http://"), "/view/"), 1)
	p := newViewerPage(t, "http://"+c.addr+"/view/")
	v.publish("", numbered("line", 1, 10)...)
	p.shows("line 10")
	sent := 10
	for range 3 {
		c.setDown(true)
		p.shows("not connected")
		v.publish("", numbered("line", sent+1, sent+10)...)
		sent += 10
		c.setDown(false)
		if eval[bool](p, "tailcastViewer.state === 'waiting'") {
			p.do("eval", "document.querySelector('#retry').click()")
		}
		p.shows(fmt.Sprintf("line %d", sent))
		p.shows("live")
	}
	c.setDark(true)
	v.publish("", numbered("line", sent+1, sent+10)...)
	c.setDark(false)
	p.shows(fmt.Sprintf("line %d", sent+10))
	if lines := p.lines(); !slices.Equal(lines, numbered("line", 1, sent+10)) {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
	if n := eval[int](p, "tailcastViewer.gaps"); n != 0 {
		t.Errorf("%d gaps", n)
	}
}

// TestViewerSaysWhyItIsRefused: the server's sentence is what the reader sees, and he can try again.
func TestViewerSaysWhyItIsRefused(t *testing.T) {
	t.Parallel()
	var open atomic.Bool
	v := newViewed(t, []string{""}, tailcast.WithAuthenticate(func(*http.Request) (tailcast.Identity, error) {
		if open.Load() {
			return tailcast.Identity{User: "ann"}, nil
		}
		return tailcast.Identity{}, errors.New("not today")
	}))
	v.publish("", "for friends")
	p := newViewerPage(t, v.url)
	p.until("tailcastViewer.state === 'closed'")
	p.shows("ended: ")
	t.Log(eval[string](p, "document.querySelector('#notice').innerText"))
	p.until("document.querySelector('#notice').innerText.length > 10")
	open.Store(true)
	p.do("click", "#retry")
	p.shows("for friends")
}
