// Package nats is a tailcast.Backplane over NATS JetStream: a stream is the log that hubs share.
//
//	b := nats.New(nats.Config{URL: "nats://broker:4222"})
//	defer b.Close()
//	hub := tailcast.New(tailcast.WithBackplane(b))
//
// All topics are in one stream, whose sequence is the Offset of every Position and whose time of creation, in nanoseconds, is the Epoch.
// So what the stream has lost and what has come into its place is told apart, and a viewer resumes on any node. A stream that does not
// exist is made: a file store that drops its oldest messages beyond Config.MaxBytes, MaxAge and MaxMessages, and nothing else ever.
// A stream that exists is used as it is, if it keeps messages like that.
//
// # What holds
//
// Publish returns when the stream has stored the messages. Each has an id (Nats-Msg-Id), and is sent again with the same one until it
// is known to be stored or the context ends. A message with a Position, such as a line of a followed file, has an id made of that and
// of its Data: a Source that repeats, after a crash too, what it does not know to have been stored does not store it twice (unless it is
// a long line, and the server takes messages of another size than before: then its parts are others). The stream
// knows ids for its duplicate window (Config.Duplicates, 10 minutes): what is tried again later than that, after a longer outage, may
// be there twice.
//
// Messages of one call keep their order within a topic, through broken connections and changes of a cluster's leader too; those of
// others may come between them. Where other servers are in the way, what is sent may be lost in the midst of what is not: there the
// messages of a call go as atomic batches, which a server knows from version 2.12 on, and a stream has that this package has made
// (allow_atomic), if it has replicas. Without them it is one message at a time. That a stream is moved, or gets replicas, under a node
// that reached it directly is seen within some seconds: what is sent meanwhile, while its leader changes as well, may change places.
//
// What JetStream acknowledges it has given to the operating system, which survives the end of the process, SIGKILL included, and not
// that of the machine: for that the server needs sync_interval: always, or the stream replicas. A server that comes back with less
// than it had acknowledged is taken for one that has lost it: its nodes declare a gap.
//
// A message has to fit into the server's max_payload, 1 MiB by default, and the stream's max_msg_size, with some 150 bytes of headers. A
// longer line of a Source becomes Partial messages; all else gets a tailcast.TooLargeError.
//
// Messages that others put into the stream's subjects are left out, and counted in Stats.
//
// # At most once
//
// AtMostOnce passes messages between hubs over core NATS, without a stream. It is for what is worth nothing a second later, such as
// prices, cursors and typing marks: nothing is stored for it, and a message reaches the others as soon as the server has it. What is
// published while a hub has no connection does not reach it, and is nowhere to be had; its viewers are told that something may be missing.
// Each hub has an order and Positions of its own. Where a viewer must get everything, or resume on another hub, use a Backplane. Both may
// use one broker and one name, but not one hub.
package nats
