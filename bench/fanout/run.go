package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// An outcome is one run of a leg.
type outcome struct {
	*sent
	*received
	Load string // before it
}

// right reports what is wrong with what the client has received, nil for nothing.
func (o *outcome) right() error {
	if o.Missing == 0 && o.Skipped == 0 && o.Back == 0 && o.Torn == 0 && o.Closed == 0 {
		return nil
	}
	why := ""
	if o.Why != "" {
		why = " (" + o.Why + ")"
	}
	return fmt.Errorf("%d missing, %d repeated or out of order, %d torn, %d connections closed%s", o.Missing, o.Back, o.Torn, o.Closed, why)
}

// A role is another process of this program.
type role struct {
	*wire
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	said strings.Builder // on its standard error
}

func startRole(name string) (*role, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &role{name: name, cmd: exec.Command(self, "-role", name)}
	r.cmd.Stderr = &r.said
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.wire = newWire(out, r.in)
	return r, r.cmd.Start()
}

// expect hears v, which says so itself if something has failed.
func (r *role) expect(v any) error {
	var raw json.RawMessage
	if err := r.hear(&raw); err != nil {
		return fmt.Errorf("%s: %w%s", r.name, err, r.last())
	}
	var failed struct{ Err string }
	if json.Unmarshal(raw, &failed) == nil && failed.Err != "" {
		return fmt.Errorf("%s: %s", r.name, failed.Err)
	}
	return json.Unmarshal(raw, v)
}

// last is the end of what the process has said to nobody.
func (r *role) last() string {
	r.stop()
	s := strings.TrimSpace(r.said.String())
	if s == "" {
		return ""
	}
	return ": " + s[:min(len(s), 2000)]
}

// stop ends the process.
func (r *role) stop() {
	r.in.Close()
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// run runs server and client.
func run(s *spec) (*outcome, error) {
	o := &outcome{sent: &sent{}, received: &received{}, Load: firstLine("/proc/loadavg")}
	server, err := startRole("server")
	if err != nil {
		return nil, err
	}
	defer server.stop()
	client, err := startRole("client")
	if err != nil {
		return nil, err
	}
	defer client.stop()
	limit := time.AfterFunc(s.limit(), func() {
		_ = server.cmd.Process.Kill()
		_ = client.cmd.Process.Kill()
	})
	defer limit.Stop()
	var at address
	var order string
	if err := errors.Join(server.tell(s), client.tell(s)); err != nil {
		return nil, err
	}
	if err := server.expect(&at); err != nil {
		return nil, err
	}
	if err := client.tell(&at); err != nil {
		return nil, err
	}
	if err := client.expect(&order); err != nil {
		return nil, err
	}
	if err := server.tell(goOn); err != nil {
		return nil, err
	}
	if !s.idle() {
		if err := client.expect(&order); err != nil {
			return nil, err
		}
		if err := server.tell(goOn); err != nil {
			return nil, err
		}
	}
	if err := server.expect(o.sent); err != nil {
		return nil, err
	}
	if s.idle() {
		if err := client.tell(goOn); err != nil {
			return nil, err
		}
	}
	if err := client.expect(o.received); err != nil {
		return nil, err
	}
	return o, nil
}

// limit is far more than a run takes.
func (s *spec) limit() time.Duration {
	d := 3 * time.Minute
	if s.Rate > 0 {
		d += 2 * time.Duration(s.Count*s.Topics) * time.Second / time.Duration(s.Rate)
	}
	return d
}
