package tailcast

// The signatures in this file are frozen, so that programs can be planned on them; their work comes in a later version. Until
// then options panic.

func laterOption(name string) Option {
	must(false, "%s: not in this version", name)
	return nil
}

// A Backplane is a log that several hubs share. Publish returns when the log has stored the messages; Run publishes what the
// log has stored, in its order, and only that reaches viewers; Replay reads its past.
//
// Not in this version: nothing takes one.
type Backplane interface {
	Source
	Publisher
	Replayer
}

// WithBackplane makes the hub one of several that share a log.
//
// Not in this version: it panics.
func WithBackplane(b Backplane) Option { return laterOption("WithBackplane") }
