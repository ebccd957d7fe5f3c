package viewer_test

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/tailcast/tailcast/viewer"
)

// get asks a handler for a path.
func get(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// mounts are ways to have the page at /a/view/.
func mounts() map[string]http.Handler {
	h := viewer.Handler("../logs")
	mounts := map[string]http.Handler{"alone": h, "a router that tells no pattern": h}
	mux := http.NewServeMux()
	mux.Handle("GET /a/view/", h)
	mounts["ServeMux"] = mux
	both := http.NewServeMux()
	both.Handle("GET /a/view", h)
	both.Handle("GET /a/view/", h)
	mounts["ServeMux, both patterns"] = both
	strip := http.NewServeMux()
	strip.Handle("/a/view/", http.StripPrefix("/a/view", h))
	strip.Handle("/a/view", http.StripPrefix("/a/view", h))
	mounts["StripPrefix"] = strip
	wild := http.NewServeMux()
	wild.Handle("GET /{tenant}/view/", h)
	mounts["a wildcard"] = wild
	return mounts
}

// TestEachMountServesThePage: and what the page names beside it, wherever it is.
func TestEachMountServesThePage(t *testing.T) {
	for name, h := range mounts() {
		t.Run(name, func(t *testing.T) {
			resp := get(h, "GET", "/a/view/?grep=x")
			html := body(t, resp)
			if resp.StatusCode != 200 || !strings.HasPrefix(html, "<!doctype html>") || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatalf("%s %v\n%.200s", resp.Status, resp.Header, html)
			}
			names := regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(html, -1)
			if len(names) < 3 {
				t.Fatalf("the page names %q", names)
			}
			for _, m := range names {
				if resp := get(h, "GET", "/a/view/"+m[1]); resp.StatusCode != 200 {
					t.Errorf("%s: %s", m[1], resp.Status)
				}
			}
			for target, want := range map[string]int{"/a/view/none.js": 404, "/a/view/index.html": 404, "/a/view/package.json": 404} {
				if resp := get(h, "GET", target); resp.StatusCode != want {
					t.Errorf("%s: %s, want %d", target, resp.Status, want)
				}
			}
		})
	}
}

// TestWithoutTheSlash: what is asked for without it is answered with a redirect that also holds behind a proxy that strips a prefix.
func TestWithoutTheSlash(t *testing.T) {
	for name, h := range mounts() {
		if name == "ServeMux" || name == "a wildcard" {
			continue // which redirects by itself
		}
		for target, want := range map[string]string{"/a/view": "./view/", "/a/view?grep=a%20b&invert=1": "./view/?grep=a%20b&invert=1"} {
			resp := get(h, "GET", target)
			if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("Location") != want {
				t.Errorf("%s: %s: %s to %q, want %q", name, target, resp.Status, resp.Header.Get("Location"), want)
			}
		}
	}
	h := viewer.Handler("../logs")
	for _, target := range []string{"//evil.example", "/a/%2f%2fevil.example", "/a/%0d%0aSet-Cookie:x", "/\\evil.example"} {
		if to := get(h, "GET", target).Header.Get("Location"); to != "" && (!strings.HasPrefix(to, "./") || strings.ContainsAny(to, "\r\n")) {
			t.Errorf("%s: to %q, which leaves the place", target, to)
		}
	}
}

// TestBelowTheMountIsNothing: where ServeMux tells what the mount is, a path that is not the page's is no page.
func TestBelowTheMountIsNothing(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /view/", viewer.Handler("../logs"))
	root := http.NewServeMux()
	root.Handle("/", viewer.Handler("logs"))
	for _, c := range []struct {
		mux    http.Handler
		target string
		want   int
	}{
		{mux, "/view/", 200}, {mux, "/view/viewer.js", 200}, {mux, "/view/x", 404}, {mux, "/view/x/", 404}, {mux, "/view/x/viewer.js", 404},
		{root, "/", 200}, {root, "/viewer.css", 200}, {root, "/x", 404}, {root, "/x/", 404}, {root, "/x/viewer.js", 404},
	} {
		if resp := get(c.mux, "GET", c.target); resp.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.target, resp.Status, c.want)
		}
	}
}

func TestOnlyGetAndHead(t *testing.T) {
	h := viewer.Handler("../logs")
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		resp := get(h, method, "/view/")
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s, Allow: %s", method, resp.Status, resp.Header.Get("Allow"))
		}
	}
	resp := get(h, "HEAD", "/view/")
	if resp.StatusCode != 200 || body(t, resp) != "" || resp.Header.Get("Content-Length") == "0" {
		t.Errorf("HEAD: %s %v", resp.Status, resp.Header)
	}
}

// TestHeaders: each answer has those that keep strangers' text harmless, and lets the browser ask whether it has the file already.
func TestHeaders(t *testing.T) {
	h := viewer.Handler("../logs")
	seen := make(map[string]string)
	for _, name := range []string{"", "viewer.js", "viewer.css", "favicon.svg", "tailcast.js", "tailcast.d.ts", "none.js"} {
		resp := get(h, "GET", "/view/"+name)
		for key, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := resp.Header.Get(key); got != want {
				t.Errorf("%q: %s: %q", name, key, got)
			}
		}
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ") || strings.Contains(policy, "unsafe") {
			t.Errorf("%q: %s", name, policy)
		}
		if name == "none.js" {
			continue
		}
		etag := resp.Header.Get("Etag")
		if resp.Header.Get("Cache-Control") != "no-cache" || !regexp.MustCompile(`^"[\w-]{24}"$`).MatchString(etag) || seen[etag] != "" {
			t.Errorf("%q: %q %q, as %q", name, resp.Header.Get("Cache-Control"), etag, seen[etag])
		}
		seen[etag] = "x" + name
		if again := get(h, "GET", "/view/"+name, "If-None-Match", etag); again.StatusCode != http.StatusNotModified {
			t.Errorf("%q, again: %s", name, again.Status)
		}
	}
	if ct := get(h, "GET", "/view/viewer.js").Header.Get("Content-Type"); ct != "text/javascript; charset=utf-8" {
		t.Errorf("scripts are %s, which a browser does not run as a module", ct)
	}
	if a, b := get(h, "GET", "/").Header.Get("Etag"), get(viewer.Handler("/logs"), "GET", "/").Header.Get("Etag"); a == b {
		t.Error("two pages have one ETag")
	}
}

// TestWhatThePageIsTold: the hub's URL and the rest are attributes, whatever is in them.
func TestWhatThePageIsTold(t *testing.T) {
	const evil = `"><script>alert(1)</script>&amp;'`
	html := body(t, get(viewer.Handler("../logs?x="+`"'><b>&`, viewer.WithTitle(evil), viewer.WithTopics("app", evil), viewer.WithTail(7)), "GET", "/"))
	for _, want := range []string{
		`data-hub="../logs?x=&#34;&#39;&gt;&lt;b&gt;&amp;"`,
		`<title>&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;&#39;</title>`,
		`data-tail="7"`,
		`data-topics="[&#34;app&#34;,&#34;`,
	} {
		if !strings.Contains(html, want) {
			t.Errorf("no %s in\n%.900s", want, html)
		}
	}
	if n := strings.Count(html, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	if html := body(t, get(viewer.Handler("/logs"), "GET", "/")); !strings.Contains(html, `data-topics=""`) || !strings.Contains(html, "<title>Log</title>") {
		t.Errorf("by default: %.600s", html)
	}
}

// TestPolicyFollowsTheHub: a hub of another origin may be connected to, and nothing else.
func TestPolicyFollowsTheHub(t *testing.T) {
	for hub, want := range map[string]string{
		"../logs":                     "connect-src 'self';",
		"/logs":                       "connect-src 'self';",
		"https://hub.example/logs":    "connect-src 'self' https://hub.example wss://hub.example;",
		"wss://hub.example:8443/logs": "connect-src 'self' https://hub.example:8443 wss://hub.example:8443;",
		"http://127.0.0.1:8080/logs":  "connect-src 'self' http://127.0.0.1:8080 ws://127.0.0.1:8080;",
		"//hub.example/logs":          "connect-src 'self' https://hub.example wss://hub.example http://hub.example ws://hub.example;",
	} {
		if policy := get(viewer.Handler(hub), "GET", "/").Header.Get("Content-Security-Policy"); !strings.Contains(policy, want) {
			t.Errorf("%s: %s, want %s", hub, policy, want)
		}
	}
	for want, opts := range map[string][]viewer.Option{
		"frame-ancestors 'self';":                   nil,
		"frame-ancestors 'none';":                   {viewer.WithFrameAncestors()},
		"frame-ancestors https://a.example 'self';": {viewer.WithFrameAncestors("https://a.example", "'self'")},
	} {
		if policy := get(viewer.Handler("/logs", opts...), "GET", "/").Header.Get("Content-Security-Policy"); !strings.Contains(policy, want) {
			t.Errorf("%s, want %s", policy, want)
		}
	}
}

func TestImpossibleOptionsPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"a scheme":            func() { viewer.Handler("javascript:alert(1)") },
		"a part of a scheme":  func() { viewer.Handler("tp://hub.example/") },
		"no URL":              func() { viewer.Handler("http://%zz") },
		"a host with a quote": func() { viewer.Handler("http://a;script-src/") },
		"a negative tail":     func() { viewer.Handler("/logs", viewer.WithTail(-1)) },
		"too long a tail":     func() { viewer.Handler("/logs", viewer.WithTail(100_001)) },
		"no origin":           func() { viewer.Handler("/logs", viewer.WithFrameAncestors("a; script-src *")) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v := recover(); v == nil || !strings.HasPrefix(fmt.Sprint(v), "viewer.") {
					t.Errorf("panic: %v", v)
				}
			}()
			f()
		})
	}
}

// TestThePageRunsOnlyWhatItCameWith: no file has what the policy would refuse, or makes HTML of text; and all that a module imports
// is there.
func TestThePageRunsOnlyWhatItCameWith(t *testing.T) {
	h := viewer.Handler("../logs")
	entries, err := os.ReadDir("web")
	if err != nil {
		t.Fatal(err)
	}
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script(>|[^>]*>[^<])|https?:`)
	sinks := regexp.MustCompile(`(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setAttribute\("style"|createContextualFragment|DOMParser`)
	imports := regexp.MustCompile(`(?m)^(?:import|export) .*from "(\./[^"]+)";|new Worker\(script\("([^"]+)"`)
	modules := 0
	for _, e := range entries {
		code, err := fs.ReadFile(os.DirFS("web"), e.Name())
		if err != nil {
			t.Fatal(err)
		}
		switch path.Ext(e.Name()) {
		case ".html":
			if m := inline.Find(code); m != nil {
				t.Errorf("%s has %q", e.Name(), m)
			}
		case ".js":
			modules++
			if m := sinks.Find(code); m != nil {
				t.Errorf("%s has %q", e.Name(), m)
			}
			for _, m := range imports.FindAllStringSubmatch(string(code), -1) {
				if resp := get(h, "GET", "/"+strings.TrimPrefix(m[1]+m[2], "./")); resp.StatusCode != 200 {
					t.Errorf("%s imports %s%s: %s", e.Name(), m[1], m[2], resp.Status)
				}
			}
		}
	}
	if modules < 10 {
		t.Errorf("%d modules", modules)
	}
}

// FuzzPath: whatever is asked for, the answer is one that was meant, and a redirect stays below where it was asked.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "", "/view", "/view/", "/view/viewer.js", "//x", "/a/../b", "/%2e%2e", "/x.js", "/\\x", "/a b", "/view?x"} {
		f.Add(s)
	}
	h := viewer.Handler("../logs")
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.NewRequest("GET", "http://h/", nil)
		if err != nil {
			t.Fatal(err)
		}
		u, err := r.URL.Parse("/" + target)
		if err != nil {
			return
		}
		r.URL, r.RequestURI = u, u.RequestURI()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		to := w.Header().Get("Location")
		switch w.Code {
		case 200, 404:
			if to != "" {
				t.Errorf("%q: %d to %q", target, w.Code, to)
			}
		case http.StatusTemporaryRedirect:
			there, err := u.Parse(to)
			if err != nil || there.Host != u.Host || !strings.HasSuffix(there.Path, "/") {
				t.Errorf("%q: to %q, which is %v, %v", target, to, there, err)
			}
		default:
			t.Errorf("%q: %d", target, w.Code)
		}
	})
}
