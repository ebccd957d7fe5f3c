package tailcast

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/tailcast/tailcast/internal/wire"
)

// Limits bound what clients may take. A field that is zero has its default; where it says so, −1 means no limit.
type Limits struct {
	// Connections is how many there may be in total. Default: no limit. Over it, requests are answered 503 with Retry-After,
	// and event streams, which would never come back after that, 200 with retry advice and an event: error.
	Connections int
	// ConnectionsPerUser is how many may have the same Identity.User, if that is not empty. Default: no limit.
	ConnectionsPerUser int
	// ConnectionsPerAddress is how many may come from the same IP address, or from the same /64 of IPv6. Default: no limit.
	// The address is http.Request.RemoteAddr: behind a proxy, set it from the proxy's header first (chi's RealIP, for one), or
	// all clients are one.
	ConnectionsPerAddress int
	// Topics is how many a connection may have: 128 by default, which is also the most that can be set.
	Topics int
	// MessageBytes is how large a message of a client may be, in bytes: 64 KiB by default. A larger one closes its connection
	// with 1009.
	MessageBytes int64
	// MessageRate is how many messages a second a client may send in the long run, pings included: 100 by default, −1 = no
	// limit. A client that sends more is closed with 1008. While OnConnect or AfterRead runs, what a client may send adds up.
	MessageRate float64
	// MessageBurst is how many a client may send at once: 200 by default.
	MessageBurst int
	// ReplayBytes is how much payload a client may be served from a Replayer at a time, until it has caught up with what is in
	// memory: 1 GiB by default, −1 = no limit. Beyond it there is a gap of unknown size, and then the oldest message in memory; a
	// bare WebSocket, which can't be told, is closed with 1013.
	ReplayBytes int64
	// RegistrationTime is how long a WebSocket has to register: 15 s by default. See WithRegistration.
	RegistrationTime time.Duration
}

// maxTopics is how many topics a connection can have.
const maxTopics = wire.MaxTopics

// withDefaults returns l with nothing left to be said.
func (l Limits) withDefaults() Limits {
	for _, n := range []*int{&l.Connections, &l.ConnectionsPerUser, &l.ConnectionsPerAddress} {
		if *n == 0 {
			*n = -1
		}
	}
	if l.Topics == 0 {
		l.Topics = maxTopics
	}
	if l.MessageBytes == 0 {
		l.MessageBytes = 64 << 10
	}
	if l.MessageRate == 0 {
		l.MessageRate = 100
	}
	if l.MessageBurst == 0 {
		l.MessageBurst = 200
	}
	if l.ReplayBytes == 0 {
		l.ReplayBytes = 1 << 30
	}
	if l.RegistrationTime == 0 {
		l.RegistrationTime = 15 * time.Second
	}
	return l
}

// check panics if the limits cannot be meant.
func (l Limits) check() {
	must(l.Connections >= -1 && l.ConnectionsPerUser >= -1 && l.ConnectionsPerAddress >= -1,
		"WithLimits: a number of connections is less than -1")
	must(l.Topics >= 0 && l.Topics <= maxTopics, "WithLimits: %d topics, must be from 1 to %d", l.Topics, maxTopics)
	must(l.MessageBytes >= 0, "WithLimits: MessageBytes is %d, must be positive", l.MessageBytes)
	must(0 <= l.MessageRate && l.MessageRate <= math.MaxFloat64 || l.MessageRate == -1, "WithLimits: MessageRate is %v, must be positive, or -1 for no limit", l.MessageRate)
	must(l.MessageBurst >= 0, "WithLimits: MessageBurst is %d, must be positive", l.MessageBurst)
	must(l.RegistrationTime >= 0, "WithLimits: RegistrationTime is %v, must be positive", l.RegistrationTime)
	must(l.ReplayBytes >= -1, "WithLimits: ReplayBytes is %d, must be positive, or -1 for no limit", l.ReplayBytes)
}

// Seats are the connections that there are, those that are being made included, as far as limits count them.
type seats struct {
	mu     sync.Mutex
	all    int
	users  map[string]int
	places map[string]int // by address
}

// A seatsError is the sentence that says why there is no seat.
type seatsError string

func (e seatsError) Error() string { return string(e) }

// A seat is what a connection takes of them.
type seat struct {
	of          *seats
	limits      *Limits
	user, place string // user is guarded by of.mu
}

// take takes a seat, unless a limit is reached: then the error is the sentence for the client.
func (s *seats) take(l *Limits, user, remote string) (*seat, error) {
	var place string
	if l.ConnectionsPerAddress >= 0 {
		place = addressKey(remote)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.Connections >= 0 && s.all >= l.Connections:
		return nil, fmt.Errorf("There are %d connections, which is the limit: try again later.", s.all)
	case l.ConnectionsPerAddress >= 0 && s.places[place] >= l.ConnectionsPerAddress:
		return nil, fmt.Errorf("There are %d connections from your address, which is the limit: close one first.", s.places[place])
	}
	if err := s.count(l, user, 1); err != nil {
		return nil, err
	}
	s.all++
	if l.ConnectionsPerAddress >= 0 {
		count(&s.places, place, 1)
	}
	return &seat{of: s, limits: l, user: user, place: place}, nil
}

// count adds n to a user's seats, if there is a limit to them and it allows that; mu is held.
func (s *seats) count(l *Limits, user string, n int) error {
	switch {
	case user == "" || l.ConnectionsPerUser < 0:
		return nil
	case n > 0 && s.users[user] >= l.ConnectionsPerUser:
		return seatsError(fmt.Sprintf("You have %d connections, which is the limit for a user: close one first.", s.users[user]))
	}
	count(&s.users, user, n)
	return nil
}

// move gives the seat to another user, unless that one has too many. A nil seat is nobody's.
func (s *seat) move(user string) error {
	if s == nil {
		return nil
	}
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if user == s.user {
		return nil
	}
	if err := s.of.count(s.limits, user, 1); err != nil {
		return err
	}
	_ = s.of.count(s.limits, s.user, -1)
	s.user = user
	return nil
}

func (s *seat) leave() {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	s.of.all--
	_ = s.of.count(s.limits, s.user, -1)
	if s.limits.ConnectionsPerAddress >= 0 {
		count(&s.of.places, s.place, -1)
	}
}

// count adds n under a key, and keeps no zeros.
func count(m *map[string]int, key string, n int) {
	if *m == nil {
		*m = make(map[string]int)
	}
	if (*m)[key] += n; (*m)[key] == 0 {
		delete(*m, key)
	}
}

// addressKey is what counts as one address: one of IPv4, or a /64 of IPv6, which is what one household gets. What is no address,
// such as that of a Unix socket, stands for itself.
func addressKey(remote string) string {
	addr, err := netip.ParseAddr(remote) // as some middleware sets it
	if ap, aerr := netip.ParseAddrPort(remote); aerr == nil {
		addr, err = ap.Addr(), nil
	}
	if err != nil {
		return remote
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	net, _ := addr.Prefix(64)
	return net.String()
}

// A meter measures what a client sends against a rate. It belongs to the connection's reader.
type meter struct {
	limits *Limits
	left   float64 // messages that may come now
	last   time.Time
}

func newMeter(l *Limits, now time.Time) meter {
	return meter{limits: l, left: float64(l.MessageBurst), last: now}
}

// take counts a message, and reports whether it may come.
func (m *meter) take(now time.Time) bool {
	if m.limits.MessageRate < 0 {
		return true
	}
	if burst := float64(m.limits.MessageBurst); m.left < burst {
		m.left = min(burst, m.left+m.gain(now))
	}
	m.last = now
	m.left--
	return m.left >= 0
}

// resume says that nothing was read since the last message: what came meanwhile is not a burst. At most a minute counts.
func (m *meter) resume(now time.Time) {
	if m.limits.MessageRate < 0 {
		return
	}
	m.left = min(m.left+m.gain(now), float64(m.limits.MessageBurst)+60*m.limits.MessageRate)
	m.last = now
}

func (m *meter) gain(now time.Time) float64 { return now.Sub(m.last).Seconds() * m.limits.MessageRate }
