package prometheus

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tailcast/tailcast"
)

// A metric is one number of a T.
type metric[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*T) float64
}

type stats = tailcast.Stats

// plain are the metrics without labels.
var plain = []metric[stats]{
	counter("connections_accepted_total", "Connections so far.", func(s *stats) int64 { return s.Accepted }),
	counter("requests_refused_total", "Requests that were refused, pushes included.", func(s *stats) int64 { return s.Refused }),
	gauge("users", "Users that have connections.", func(s *stats) int { return s.Users }),
	gauge("topics", "Topics that have a log.", func(s *stats) int { return s.Topics }),
	counter("messages_received_total", "Messages of clients, commands and registrations included.", func(s *stats) int64 { return s.Received }),
	counter("received_bytes_total", "Payload of the messages of clients.", func(s *stats) int64 { return s.ReceivedBytes }),
	counter("messages_published_total", "Messages taken from Publish and Sources, gaps included.", func(s *stats) int64 { return s.Published }),
	counter("published_bytes_total", "Payload of the messages published.", func(s *stats) int64 { return s.PublishedBytes }),
	counter("messages_delivered_total", "Messages handed to the kernel, for all viewers together.", func(s *stats) uint64 { return s.Delivered }),
	counter("sent_bytes_total", "Bytes handed to the kernel, framing included.", func(s *stats) uint64 { return s.SentBytes }),
	counter("messages_compressed_total", "Messages that compression has made smaller, each once for all viewers of a format.", func(s *stats) int64 { return s.Compressed }),
	counter("compression_input_bytes_total", "Bytes of the compressed messages before.", func(s *stats) int64 { return s.CompressedFrom }),
	counter("compression_output_bytes_total", "Bytes of the compressed messages after.", func(s *stats) int64 { return s.CompressedTo }),
	counter("private_messages_queued_total", "Messages of Send and Push that were queued.", func(s *stats) uint64 { return s.Private }),
	counter("private_messages_dropped_total", "Messages of Send and Push that found no room in a queue.", func(s *stats) uint64 { return s.PrivateDropped }),
	counter("pushes_total", "Pushes that were accepted.", func(s *stats) int64 { return s.Pushes }),
	counter("pushes_matched_total", "Connections that pushes were for.", func(s *stats) int64 { return s.PushMatched }),
	counter("pushes_queued_total", "Connections that a push was queued for.", func(s *stats) int64 { return s.PushQueued }),
	counter("pushes_dropped_total", "Connections that had no room for a push.", func(s *stats) int64 { return s.PushDropped }),
	gauge("catchups", "Viewers that are being served from a Replayer.", func(s *stats) int64 { return s.CatchUps }),
	counter("panics_total", "Panics of hooks and sources.", func(s *stats) int64 { return s.Panics }),
	gauge("memory_bytes", "Memory of logs, encodings and queues.", func(s *stats) int64 { return s.Memory }),
	gauge("memory_limit_bytes", "The limit of that memory; 0 is none.", func(s *stats) int64 { return s.MemoryLimit }),
	gauge("lag_messages", "Lag of the viewer that is furthest behind, in messages.", func(s *stats) uint64 { return s.LagMessages }),
	gauge("lag_bytes", "Lag of the viewer that is furthest behind, in bytes.", func(s *stats) uint64 { return s.LagBytes }),
}

// Those with labels.
var (
	connections = desc("connections", "Connections that there are.", "transport")
	ended       = desc("connections_ended_total", "Connections that have ended.", "reason")
	gaps        = desc("gaps_total", "Losses declared to viewers.", "reason")
	sources     = desc("sources", "Sources in the care of Run, by their type.", "source", "state")
	restarts    = desc("source_restarts_total", "How often these sources were run again.", "source")
)

type tailStats = tailcast.TailStats

// tails are the metrics of all Tails together.
var tails = []metric[tailStats]{
	gauge("tails", "Tails.", func(*tailStats) int { return 1 }),
	counter("tail_lines_total", "Lines published.", func(t *tailStats) int64 { return t.Lines }),
	counter("tail_read_bytes_total", "Bytes of the lines published, line ends included.", func(t *tailStats) int64 { return t.Bytes }),
	counter("tail_rotations_total", "Rotations seen.", func(t *tailStats) int64 { return t.Rotations }),
	counter("tail_truncations_total", "Truncations seen.", func(t *tailStats) int64 { return t.Truncations }),
	counter("tail_gaps_total", "Losses that Tails have declared.", func(t *tailStats) int64 { return t.Gaps }),
	gauge("tail_files", "Files that globs follow.", func(t *tailStats) int { return t.Files }),
	gauge("tail_open_files", "Files that are open.", func(t *tailStats) int { return t.Open }),
	gauge("tail_closed_files", "Files of globs that are closed, since too many would be open.", func(t *tailStats) int { return t.Closed }),
	gauge("tails_polling", "Tails that the system does not tell of changes.", func(t *tailStats) int { return one(!t.Notified) }),
	gauge("tails_in_trouble", "Tails that something keeps from reading.", func(t *tailStats) int { return one(t.Trouble != "") }),
	gauge("tails_without_checkpoint", "Tails with something wrong about their checkpoint.", func(t *tailStats) int { return one(t.Checkpoint != "") }),
	counter("tail_watches_refused_total", "Times that the system refused to tell of changes: a limit.", func(t *tailStats) int64 { return t.Unwatched }),
	counter("tail_notifications_overflowed_total", "Times that the system may have left out changes.", func(t *tailStats) int64 { return t.Overflows }),
	counter("tail_changes_untold_total", "Times that a change came of which the system did not tell.", func(t *tailStats) int64 { return t.Untold }),
}

type backplaneStats = tailcast.BackplaneStats

// backplanes are the metrics of a hub that has a Backplane.
var backplanes = []metric[backplaneStats]{
	gauge("backplane_connected", "Whether the log that hubs share can be reached.", func(b *backplaneStats) int { return one(b.Connected) }),
	counter("backplane_degraded_total", "How often it could not be reached.", func(b *backplaneStats) int64 { return b.Degraded }),
	counter("backplane_messages_received_total", "Messages that came from the log, of all nodes.", func(b *backplaneStats) int64 { return b.Received }),
	counter("backplane_received_bytes_total", "Payload of the messages that came from the log.", func(b *backplaneStats) int64 { return b.ReceivedBytes }),
	gauge("backplane_waiting_messages", "Messages of Publish and of clients that the log has not stored yet.", func(b *backplaneStats) int { return b.Waiting }),
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tailcast_"+name, help, labels, nil)
}

type number interface{ int | int64 | uint64 }

func counter[T any, N number](name, help string, value func(*T) N) metric[T] {
	return newMetric(prometheus.CounterValue, name, help, value)
}

func gauge[T any, N number](name, help string, value func(*T) N) metric[T] {
	return newMetric(prometheus.GaugeValue, name, help, value)
}

func newMetric[T any, N number](kind prometheus.ValueType, name, help string, value func(*T) N) metric[T] {
	return metric[T]{desc(name, help), kind, func(t *T) float64 { return float64(value(t)) }}
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}
