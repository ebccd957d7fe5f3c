package tailcast

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// An origin is what a browser says a page is from (RFC 6454): a scheme, a host and a port, in lower case.
type origin struct{ scheme, host, port string }

// parseOrigin reads "scheme://host[:port]" and nothing more.
func parseOrigin(s string) (origin, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
		return origin{}, false
	}
	return newOrigin(u.Scheme, u.Host)
}

// newOrigin reads a scheme and the value of a Host header.
func newOrigin(scheme, host string) (origin, bool) {
	u := url.URL{Host: strings.ToLower(host)}
	o := origin{strings.ToLower(scheme), u.Hostname(), u.Port()}
	if o.port == "" {
		o.port = map[string]string{"http": "80", "https": "443"}[o.scheme]
	}
	return o, o.host != "" && o.port != ""
}

// admitPage lets a browser's page in only from its own origin, or from one of WithOrigins. Programs send no Origin. It
// returns the foreign origin that was let in, "" if there is none. The error is the sentence for the client.
func (c *config) admitPage(r *http.Request) (foreign string, err error) {
	if err := c.admitHost(r); err != nil {
		return "", err
	}
	said := r.Header.Values("Origin")
	if len(said) == 0 {
		if strings.EqualFold(r.Header.Get("Sec-Fetch-Site"), "cross-site") {
			return "", fmt.Errorf("A page of another site may not read from host %s: see tailcast.WithOrigins.", quote(r.Host))
		}
		return "", nil
	}
	scheme := scheme(r)
	own, ownOK := newOrigin(scheme, r.Host)
	from, ok := parseOrigin(said[0])
	switch {
	case len(said) > 1 || !ok:
	case c.origins[from]:
		return said[0], nil
	case ownOK && from == own:
		return "", nil
	}
	return "", fmt.Errorf("A page of origin %s may not read from host %s, reached over %s: see tailcast.WithOrigins. "+
		"If that is its own origin, a proxy in front must pass the header Host on, with the port, and set X-Forwarded-Proto.",
		quote(strings.Join(said, ", ")), quote(r.Host), scheme)
}

// scheme is how the browser reached us. A proxy that ends TLS says so in X-Forwarded-Proto, which no page can set in the
// request of a WebSocket or an EventSource.
func scheme(r *http.Request) string {
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return "https"
	}
	return "http"
}

// admitHost protects a hub that listens on a loopback address from a page whose name was made to resolve there (DNS
// rebinding): such a page's Host is its own name.
func (c *config) admitHost(r *http.Request) error {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local == nil || !loopback(local.String()) || r.Host == "" { // HTTP/1.0 needs no Host; a browser always sends one
		return nil
	}
	o, ok := newOrigin("http", r.Host)
	if ok && (o.host == "localhost" || strings.HasSuffix(o.host, ".localhost") || loopback(o.host) || c.hosts[o.host]) {
		return nil
	}
	return fmt.Errorf("Host %s is not served on a loopback address: see tailcast.WithHosts.", quote(r.Host))
}

// loopback reports whether an address, with or without a port, is one of this machine alone.
func loopback(addr string) bool {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().Unmap().IsLoopback()
	}
	a, err := netip.ParseAddr(addr)
	return err == nil && a.Unmap().IsLoopback()
}

// allowOrigin sets what lets a page of a foreign origin read the answer (Fetch standard, 3.3).
func allowOrigin(h http.Header, foreign string) {
	policy := "same-origin"
	if foreign != "" {
		policy = "cross-origin"
		h.Set("Access-Control-Allow-Origin", foreign)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Set("Cross-Origin-Resource-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Origin, Accept")
}

// answerPreflight lets a foreign page that was let in send the headers that a stream, or WithAuthenticate, understands (Fetch
// standard, 3.3.2).
func answerPreflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET")
	h.Set("Access-Control-Allow-Headers", "Authorization, Last-Event-ID")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}
