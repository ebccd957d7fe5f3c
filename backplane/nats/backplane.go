package nats

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/tailcast/tailcast"
)

// Config says where the stream is. The zero Config is a server on this machine.
type Config struct {
	// URL is that of a server, or those of several of a cluster, with commas between them: nats://127.0.0.1:4222 by default.
	URL string
	// Options are for the connection: credentials, TLS, a name. What they say of reconnecting does not count: see Backplane.
	Options []natsgo.Option
	// Stream is the stream's name, and what its subjects begin with: "tailcast" by default. Letters, digits, "-" and "_".
	Stream string
	// Node names this node for what its Sources publish with Positions, such as lines of a file: the host's name by default. It must be the
	// same after a restart, so that what is repeated then is not stored twice, and another one for each node that follows files of its
	// own: two files may have the same Positions. Nodes that follow the same file have the same name.
	Node string

	// What follows is for a stream that does not exist yet.

	Replicas    int           // in a cluster: 1 by default
	MaxBytes    int64         // of the stream: 1 GiB by default, −1 = no limit
	MaxMessages int64         // no limit by default
	MaxAge      time.Duration // no limit by default
	Duplicates  time.Duration // how long ids are known: 10 min by default, or MaxAge if that is shorter

	// InFlight is how many messages of one Publish may be on their way at the same time to a server that has the stream for itself: 256 by
	// default. Otherwise they go as atomic batches, if the stream has replicas and the server is 2.12 or later, or one at a time.
	InFlight int
	// AckTimeout is how long an acknowledgement may take before a message is sent again, 5 s by default.
	AckTimeout time.Duration
	// CallTimeout is how long Push, Drop and Disconnect wait for the other nodes: 2 s by default.
	CallTimeout time.Duration
}

// A Backplane is a hub's connection to the stream. It connects when it is used first, and again, for as long as it is used, when the
// connection breaks: after 50 ms at first, and then up to 2 s. It does so itself: what nats.go would send again by itself after a
// reconnect could overtake what was sent before.
type Backplane struct {
	cfg    Config
	id     string // names it among those that use the stream
	topics string // what subjects of messages begin with
	inbox  string // for acknowledgements

	closed  chan struct{}
	closing sync.Once
	stats   struct {
		connects, foreign, repeated, duplicates atomic.Int64
	}

	dialing chan struct{} // has room for whoever connects
	reading atomic.Bool   // Run gets what the stream has

	mu      sync.Mutex // guards the rest
	now     *session   // nil if there is none
	failed  int        // how often connecting has failed since it last worked
	next    time.Time  // not before this
	pub     tailcast.BackplanePublisher
	at      tailcast.Position // of the last message that Run has published
	seen    uint64            // the sequence up to which Run has read in at's stream
	turns   map[string][]turn // see sourceID
	answer  func(context.Context, []byte) []byte
	peers   map[string]time.Time // other nodes, and when they were last heard
	counter uint64               // of acknowledgements that were asked for
	waiting map[uint64]chan<- ack

	batching chan struct{} // has room for batches that are on their way
}

var (
	_ tailcast.Backplane       = (*Backplane)(nil)
	_ tailcast.BackplaneCaller = (*Backplane)(nil)
)

// New returns a Backplane for one hub. It connects to nothing before it is used. It panics on a Config that cannot be meant.
func New(c Config) *Backplane {
	c.place()
	if c.Node == "" {
		c.Node, _ = os.Hostname() // "" is a name, too
	}
	c.Replicas = cmp.Or(c.Replicas, 1)
	c.MaxBytes = cmp.Or(c.MaxBytes, 1<<30)
	c.MaxMessages = cmp.Or(c.MaxMessages, -1)
	if c.Duplicates == 0 {
		if c.Duplicates = 10 * time.Minute; c.MaxAge > 0 {
			c.Duplicates = min(c.Duplicates, c.MaxAge)
		}
	}
	c.InFlight = cmp.Or(c.InFlight, 256)
	c.AckTimeout = cmp.Or(c.AckTimeout, 5*time.Second)
	c.CallTimeout = cmp.Or(c.CallTimeout, 2*time.Second)
	if c.InFlight < 0 || c.AckTimeout < 0 || c.CallTimeout < 0 || c.MaxAge < 0 || c.Duplicates < 0 || c.Replicas < 0 {
		panic("tailcast/backplane/nats: Config: must not be negative")
	}
	return &Backplane{
		cfg: c, id: rand.Text(), topics: c.Stream + ".t.", inbox: natsgo.NewInbox(),
		closed: make(chan struct{}), dialing: make(chan struct{}, 1),
		turns: make(map[string][]turn), peers: make(map[string]time.Time), waiting: make(map[uint64]chan<- ack),
		batching: make(chan struct{}, maxBatches),
	}
}

// place sets the defaults of what says where the messages go.
func (c *Config) place() {
	c.URL = cmp.Or(c.URL, natsgo.DefaultURL)
	c.Stream = cmp.Or(c.Stream, "tailcast")
	if strings.IndexFunc(c.Stream, func(r rune) bool { return r > 127 || !plain(byte(r)) }) >= 0 {
		panic("tailcast/backplane/nats: Stream " + c.Stream + ": only letters, digits, - and _")
	}
}

// Close ends the connection, after the hub has been closed. What is called then fails.
func (b *Backplane) Close() error {
	b.closing.Do(func() { close(b.closed) })
	b.dialing <- struct{}{} // whoever connects sees closed, and leaves nothing
	defer func() { <-b.dialing }()
	b.mu.Lock()
	s := b.now
	b.now = nil
	b.mu.Unlock()
	if s != nil {
		s.leave()
		s.close(errClosed)
		<-s.gone
	}
	return nil
}

var errClosed = errors.New("the backplane has been closed")

// Stats are plain numbers.
type Stats struct {
	Connects   int64 // how often it has connected
	Foreign    int64 // messages in the stream that were not tailcast's, and left out
	Repeated   int64 // messages that were sent more than once
	Duplicates int64 // messages that the stream had already
}

// Stats returns a snapshot.
func (b *Backplane) Stats() Stats {
	n := &b.stats
	return Stats{n.connects.Load(), n.foreign.Load(), n.repeated.Load(), n.duplicates.Load()}
}

// status tells the hub that something is wrong with the log, or no longer.
func (b *Backplane) status(err error) {
	b.mu.Lock()
	pub := b.pub
	b.mu.Unlock()
	if pub != nil {
		pub.Degraded(err)
	}
}
