// Package viewer is a web page that shows what a hub broadcasts, live, and the JavaScript module that it reads the hub with:
//
//	mux.Handle("GET /logs", hub)
//	mux.Handle("GET /view/", viewer.Handler("../logs"))
//
// The page follows topics without losing a line, filters them on the server, searches what it has, shows ANSI colours, levels and
// JSON, loads older lines, and says where lines are missing. It keeps a million lines. It is made of static files that are in the
// program, and nothing is loaded from anywhere else.
//
// What a line says never becomes HTML or code: the page's Content-Security-Policy lets only the handler's own files run.
package viewer

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

//go:embed web/index.html web/*.css web/*.js web/*.svg tailcast/tailcast.js tailcast/tailcast.d.ts
var files embed.FS

// page is what is served at the mount; it gets a config.
var page = template.Must(template.ParseFS(files, "web/index.html"))

// An Option changes what Handler does.
type Option interface{ apply(*config) }

type option func(*config)

func (o option) apply(c *config) { o(c) }

// config is what the page is told, in attributes of its <html>, and who may frame it.
type config struct {
	Hub     string
	Title   string
	Topics  []string
	Tail    int
	framers []string
}

// TopicsJSON is empty where the topics are those that the hub's handler serves.
func (c config) TopicsJSON() (string, error) {
	if c.Topics == nil {
		return "", nil
	}
	b, err := json.Marshal(c.Topics)
	return string(b), err
}

// WithTitle sets the page's title, in its heading and the browser's tab. The default is "Log".
func WithTitle(title string) Option { return option(func(c *config) { c.Title = title }) }

// WithTopics sets the topics that the page lists, for people to choose from; at first it shows all of them. The hub's handler has to
// serve them, and the client has to be allowed to read them. By default the page shows what the handler serves without being asked for
// a topic, and lists the topics as it gets to know them.
func WithTopics(topics ...string) Option {
	return option(func(c *config) { c.Topics = append([]string{}, topics...) })
}

// WithTail sets with how many lines of each topic the page begins: 1000 by default, at most 100 000. More of them are loaded when
// somebody scrolls up.
func WithTail(n int) Option { return option(func(c *config) { c.Tail = n }) }

// WithFrameAncestors says which pages may show this one in a frame: origins such as "https://admin.example.com", or none at all
// where it is called without any. By default those of the same origin may.
func WithFrameAncestors(origins ...string) Option {
	return option(func(c *config) { c.framers = append([]string{}, origins...) })
}

const (
	defaultTail = 1000
	maxTail     = 100_000 // what a hub reads back: PROTOCOL.md, tail
)

// Handler serves the page, and its files beside it. hubPath is the URL at which the hub is served, as the browser sees it: relative to
// the page ("../logs" if the page is at /view/), absolute ("/logs"), or one of another origin, which that hub must let in
// (tailcast.WithOrigins).
//
// The page has to be mounted at a path that ends in a slash, together with what is below it. It works below any prefix that is
// stripped on the way, by http.StripPrefix or by a proxy, if hubPath is relative. Where the path without the slash reaches it too, it
// redirects, relative to what was asked for. (For a path that only has a pattern with the slash, http.ServeMux redirects, to a path that
// has lost what a proxy has stripped: there, mount both.)
//
// Query parameters of the page are passed on to the hub, for filters of the application: but for its own (topic, grep, invert), and those
// with which it asks for lines by itself (since, tail, gaps).
//
// Handler panics if hubPath cannot be read, or an option is impossible.
func Handler(hubPath string, opts ...Option) http.Handler {
	c := config{Hub: hubPath, Title: "Log", Tail: defaultTail, framers: []string{"'self'"}}
	for _, o := range opts {
		o.apply(&c)
	}
	if c.Tail < 0 || c.Tail > maxTail {
		panic(fmt.Sprintf("viewer.WithTail: %d: it must be from 0 to %d", c.Tail, maxTail))
	}
	for _, f := range c.framers {
		if strings.ContainsAny(f, "; ,\r\n") || f == "" {
			panic(fmt.Sprintf("viewer.WithFrameAncestors: %q is not an origin", f))
		}
	}
	policy, err := c.policy()
	if err != nil {
		panic(fmt.Sprintf("viewer.Handler: hubPath: %v", err))
	}
	var html bytes.Buffer
	if err := page.Execute(&html, c); err != nil {
		panic("viewer.Handler: " + err.Error()) // the template and config do not fit
	}
	h := &handler{policy: policy, page: newAsset("index.html", html.Bytes()), assets: make(map[string]*asset)}
	for _, dir := range []string{"web", "tailcast"} {
		entries, err := fs.ReadDir(files, dir)
		if err != nil {
			panic(err) // the pattern above says otherwise
		}
		for _, e := range entries {
			content, err := fs.ReadFile(files, path.Join(dir, e.Name()))
			if err != nil {
				panic(err)
			}
			if e.Name() != "index.html" {
				h.assets[e.Name()] = newAsset(e.Name(), content)
			}
		}
	}
	return h
}

// policy is the Content-Security-Policy.
func (c config) policy() (string, error) {
	u, err := url.Parse(c.Hub)
	if err != nil {
		return "", err
	}
	connect := "'self'"
	secure := u.Scheme == "https" || u.Scheme == "wss"
	switch {
	case u.Scheme != "" && !secure && u.Scheme != "http" && u.Scheme != "ws", u.Scheme != "" && u.Host == "":
		return "", fmt.Errorf("%q is not the URL of a hub", c.Hub)
	case strings.ContainsAny(u.Host, "; ,'*"):
		return "", fmt.Errorf("the host %q cannot be allowed", u.Host)
	case u.Host != "" && u.Scheme != "http" && u.Scheme != "ws":
		connect += " https://" + u.Host + " wss://" + u.Host
	}
	if u.Host != "" && !secure {
		connect += " http://" + u.Host + " ws://" + u.Host
	}
	framers := "'none'"
	if len(c.framers) > 0 {
		framers = strings.Join(c.framers, " ")
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; connect-src " + connect + "; img-src 'self' data:; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors " + framers + "; " +
		"require-trusted-types-for 'script'; trusted-types tailcast-viewer", nil
}

type handler struct {
	policy string
	page   *asset
	assets map[string]*asset // by name
}

var _ http.Handler = (*handler)(nil)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", h.policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		head.Set("Allow", "GET, HEAD")
		http.Error(w, "This is a page: GET and HEAD are all that can be done with it.", http.StatusMethodNotAllowed)
		return
	}
	dir, name := path.Split(r.URL.Path)
	switch a := h.assets[name]; {
	case !mounted(r, dir, name):
		http.NotFound(w, r)
	case name == "" && dir != "":
		h.page.ServeHTTP(w, r)
	case a != nil:
		a.ServeHTTP(w, r)
	case strings.Contains(name, "."):
		http.NotFound(w, r)
	default:
		redirect(w, r)
	}
}

// mounted reports whether the path is that of the mount, or just below it, as far as http.ServeMux tells where that is.
func mounted(r *http.Request, dir, name string) bool {
	pattern := r.Pattern[strings.IndexByte(r.Pattern, '/')+1:] // without method and host, and without the slash
	if r.Pattern == "" || !strings.HasSuffix(pattern, "/") && pattern != "" || strings.ContainsRune(pattern, '{') {
		return true
	}
	below, ok := strings.CutPrefix(dir+name, "/"+pattern)
	if !ok {
		return true // the prefix was stripped
	}
	return !strings.Contains(below, "/") && (below == "" || strings.Contains(below, "."))
}

// redirect adds the slash, without which what the page names beside it would be looked for one level too high. The answer is relative:
// what a proxy has stripped from the path is not known here.
func redirect(w http.ResponseWriter, r *http.Request) {
	asked, _, _ := strings.Cut(r.RequestURI, "?") // http.StripPrefix leaves nothing of the path else
	if u, err := url.Parse(asked); err == nil {
		asked = u.EscapedPath()
	}
	to := "./" + asked[strings.LastIndexByte(asked, '/')+1:] + "/"
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// An asset is one file.
type asset struct {
	name    string
	content []byte
	etag    string
}

func newAsset(name string, content []byte) *asset {
	sum := sha256.Sum256(content)
	return &asset{name: name, content: content, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`}
}

// types has those of all files, as what a system says of them depends on the system.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".ts":   "text/plain; charset=utf-8",
	".svg":  "image/svg+xml",
}

// ServeHTTP sends the file, or says that the browser has it already. The names have no hash in them, so that browsers have to ask: files
// of two versions must not come together.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", types[path.Ext(a.name)])
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Etag", a.etag)
	http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.content))
}
