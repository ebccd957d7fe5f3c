package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// A spec is what server and client of one run are told to do.
type spec struct {
	Server    string
	Transport string        // see transports
	Conns     int           // that read
	Stalled   int           // connections more, which read nothing
	Topics    int           // of each connection
	Rate      int           // messages a second, of all topics together; 0 = all at once
	Count     int           // messages of each topic; 0 = the connections are idle
	Size      int           // bytes of a message
	Warm      int           // messages of each topic that come before those whose latency counts
	Weigh     bool          // measure what the idle connections cost, before messages come
	Profile   string        // file for a CPU profile of the sending part
	Patience  time.Duration // the client gives up when nothing has come for so long
}

// Transports.
const (
	overWS    = "ws"
	overWSS   = "wss"
	overSSE   = "sse"    // over HTTP/1.1
	overSSEh2 = "sse-h2" // over HTTP/2 with TLS
)

func (s *spec) tls() bool { return s.Transport == overWSS || s.Transport == overSSEh2 }

func (s *spec) burst() bool { return s.Count > 0 && s.Rate == 0 }

func (s *spec) idle() bool { return s.Count == 0 }

// chatty reports whether the server's protocol has messages of its own.
func (s *spec) chatty() bool { return s.Server == "centrifuge" }

// deliveries is how many there must be.
func (s *spec) deliveries() int64 { return int64(s.Conns) * int64(s.Topics) * int64(s.Count) }

// What the processes say to each other, on their standard input and output, is JSON, a line each.

// An address is what a server says first.
type address struct {
	Addr string
	Cert []byte // DER, to be trusted, where there is TLS
	Err  string `json:",omitempty"`
}

// A sent is what a server says last.
type sent struct {
	User, System time.Duration // CPU from the start of sending until the client had everything
	RSS, PeakRSS int64         // bytes; the peak is that of the same time
	Idle         *idleCost     `json:",omitempty"`
	Err          string        `json:",omitempty"`
}

// An idleCost is what each connection costs when nothing happens.
type idleCost struct {
	RSS, Inuse, Goroutines float64 // Inuse: of heap and stacks
}

// A received is what a client says last.
type received struct {
	tally
	Missing  int64
	P50, P99 time.Duration
	Took     time.Duration // from when the first message was due to the last one's arrival
	CPU      time.Duration // of the client itself
	Err      string        `json:",omitempty"`
}

// A wire is one end of that conversation.
type wire struct {
	in  *bufio.Reader
	out io.Writer
}

func newWire(in io.Reader, out io.Writer) *wire { return &wire{bufio.NewReaderSize(in, 64<<10), out} }

func (w *wire) tell(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.out.Write(append(b, '\n'))
	return err
}

func (w *wire) hear(v any) error {
	line, err := w.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: %.100q", err, line)
	}
	return nil
}

// goOn is what the driver says to a server: to begin, then again when the client has everything. A client says it when its connections
// are there, and when everything has come; the driver says it to an idle one, to end.
const goOn = "go on"
