// Package tailcast is an embeddable hub that broadcasts live messages, the lines of a followed log file first of all, to
// any number of browsers, curls and programs.
//
//	hub := tailcast.New(tailcast.WithBacklog(100))
//	mux.Handle("GET /logs", hub)
//	go func() { errs <- hub.Run(ctx, tailcast.NewTail("/var/log/app.log")) }()
//
// One handler serves WebSocket, server-sent events, lines of JSON and plain text, as the request asks: see Hub.ServeHTTP.
//
// # The model
//
// A topic is an append-only log; a viewer is a cursor in it. Publishing appends and never waits for a viewer. What a
// viewer has not been sent yet is one run of adjacent, ready bytes that all viewers of its format share, so a viewer that
// is behind gets many messages with one write. History, send queue, resume and lag are one thing: where the cursor stands.
//
// Messages come from Hub.Publish and from Sources, which Hub.Run runs: a Tail follows files, Lines reads a stream, and a
// type of your own has one method to write. A Source that can read its past is a Replayer: then what a viewer has missed,
// because it was away or is slow, is read again from there, and the viewer joins the live log at the exact message. For a
// Tail the file itself is that memory.
//
// The program itself watches a topic with a loop over Hub.Subscribe, with the guarantees that viewers have. Package client does the
// same with a hub elsewhere, and makes a Source of it; package viewer is a page to look at, and has a client for pages of your own.
//
// # Guarantees
//
// Order. Per topic there is one order, that of Publish, and what each viewer is sent is a subsequence of it in that order.
// Messages of Conn.Send are in the order of the calls. Plainly: nobody sees B before A if A was published first in the
// same topic. Between two topics nothing is promised.
//
// No silent loss. Between two messages that a viewer is sent, every message that the publisher published between them has
// been sent too, unless a gap is declared at that place. Plainly: either you see it, or you see that you don't. A gap is an
// "event: gap" in an event stream, an object {"event":"gap",…} among envelopes (the subprotocol tailcast.v1, and NDJSON),
// and a line "# tailcast gap: …" in text. A bare WebSocket shows a Source's gap as that
// line; its own lag, where it cannot be made up for, closes it with 1013 and the number of messages. A line that looks like
// it may also be a log line: gaps=0 in the query turns the lines off.
//
// Resume. A client that comes back with the Position of the last message it saw gets everything after it exactly once, as
// long as memory or the topic's Replayer has it; otherwise a gap, and then what there is. For a Tail this holds across a
// restart of the process and across rotations of the file. Plainly: reload the page and nothing is missing, nothing twice.
//
// Bounds. Memory is bounded by WithMemoryLimit, what was read from Replayers included, plus a constant for each connection,
// whatever viewers do. WithMaxReplays bounds how many Replayers are being read, each with some 200 KiB of its own, and there are no more
// compressors than processors, 1 MB each: see WithCompression.
//
// # Several hubs
//
// With WithBackplane hubs on several machines share a log (package backplane/nats: a JetStream stream). All of them append the same
// messages with the same Positions in the same order; Publish returns when the log has stored them; a viewer that comes back to
// any of them with the last id that it saw gets everything after it once, or a gap. Plainly: it does not matter where a viewer is sent
// to. Messages of one Publish keep their order in a topic, but others' may come between them. Conns, Stats, Presence and limits are
// those of one hub, and joins and leaves are not told. While the log is away nothing is lost that it has stored: Sources wait, Hub.Publish
// waits with up to 1024 messages and 8 MiB and then returns ErrBackplane, and viewers stay and are told.
//
// # Slow viewers
//
// A slow viewer costs nobody anything. When the log has dropped what it needs next, it is served from the Replayer until it
// has caught up, at its own pace; viewers at about the same place share what is read. Without a Replayer it is told how much it
// missed and goes on with the oldest message that there is. WithLagPolicy, or WithTopicConfig for some topics, changes that:
// LagSkip tells it at once, for messages that are of no use when they are old, and LagClose closes it. A peer that takes not a
// single byte for the write timeout, 10 s, ends with ErrWriteTimeout.
//
// Where most viewers of a Source that can replay are about to fall behind what is in memory, it is held up, for at most 100 ms
// a batch. A program that wants to wait for all of its viewers calls Hub.WaitLag between its messages.
//
// # Filters
//
// A request with grep=EXPRESSION gets only the messages whose payload the regular expression matches, with invert=1 the others;
// WithFilter adds parameters of the application's own. A filter is asked once about each message, live or replayed, whatever number of
// viewers and formats share it, when the first of them comes there. That happens on a goroutine of its own: a slow filter
// delays those who have asked for it, who then lag as any slow viewer does, and no publisher or other viewer.
//
// What is left out moves the viewer's place all the same, and heartbeats tell it: who has found nothing for an hour comes back to
// the end, not to where it began. Gaps pass all filters. An expression has at most 256 bytes and 1000 instructions, a topic 32
// different filters at a time; a request beyond that is answered 503.
//
// # Users
//
// A connection belongs to a user if its Identity has one: by WithAuthenticate, from its request, or by WithRegistration, from a message
// with a token. Hub.Push sends a message to all connections of a user that have a topic, and says how many; Drop takes the topic from them, Disconnect
// closes them, Presence tells who is there, and TopicConfig.Presence tells the viewers of it. What is pushed is not published: nobody else
// gets it, and who comes later does not either. Conn.PublishOthers publishes for everybody but the connection itself.
//
// # Hooks
//
//	hook          called on                how often                 its error
//	Authenticate  the request's goroutine  once for each request     refuses it with 401
//	Authorize     the request's goroutine  once for each topic       refuses the request with 403
//	              the connection's reader  for each command          answers the command with an error
//	Registration  the connection's reader  for each registration     closes the connection with it, or with 4401
//	OnConnect     the request's goroutine  once, before any message  closes the connection with it
//	AfterRead     the connection's reader  for each data message     closes the connection with it
//	BeforeClose   a goroutine of its own   exactly once              (it has none)
//	Filter        a goroutine of its own   once for each message and value: see WithFilter; compile: once for each request that has
//	                                       the parameter, on its goroutine, and its error refuses it with 400
//
// A token in the handshake is judged on the request's goroutine. That is, for a WebSocket, one that the handler's waits for, so that
// what hooks take of a stack is not held as long as the connection lives.
//
// AfterRead sees the commands of a client of tailcast.v1 too, each before it is carried out; if it returns an error the
// command is not.
//
// Hooks are called with no lock held. They may call Send, Publish, Subscribe, Close and all else, but Shutdown only with a
// context that ends, since it waits for them. The time that OnConnect and AfterRead
// take does not count against the peer, but the next message is read only when they have returned. What BeforeClose sends
// still arrives if the peer is there. A panic becomes a *PanicError: it closes that connection (BeforeClose: it is closing
// already; Authenticate, Authorize and compile: the request is answered 500; Filter: it closes all viewers in the topic that share it), is counted in Stats, and goes to the logger, or where
// none is set to the server's ErrorLog. So does runtime.Goexit, which testing's FailNow calls; before there is a connection it ends the
// handler, and nothing is answered. A logger that panics is passed over.
//
// # Close codes
//
//	1000  Conn.Close(nil)
//	1001  the hub is shut down
//	1002  the peer broke the protocol
//	1007  the peer sent text that is not UTF-8
//	1008  the peer sent more messages than Limits.MessageRate, or an absurd number of fragments
//	1009  the peer's message is larger than Limits.MessageBytes
//	1011  Conn.Close with a cause that holds no *CloseError, a hook's error or panic, or hooks that left the request's topics no room, or a panic
//	      of its filter
//	1013  the client was too slow: the reason says how many messages it missed. Under LagCatchUp this happens only to a bare
//	      WebSocket, where no Replayer has what it missed or Limits.ReplayBytes is reached. Or a client of tailcast.v1 does not
//	      read the answers to its commands: then the cause matches ErrQueueFull. Or a registration found no room: for one more
//	      connection of the user, or one more topic
//	4401  the Identity has expired, or WithRegistration refuses the token
//	4403  a registration for a topic that the client may not read, and WithAuthorize has no *CloseError to say so
//	4408  no registration within Limits.RegistrationTime
//	else  the *CloseError that the cause holds
//
// BeforeClose is given the cause: what Close was called with, a hook's error or panic, or else what matches one of these.
//
//	*CloseError          the peer closed the WebSocket (1005 if it gave no code), or broke its protocol or a limit; Shutdown
//	                     (1001); or the Identity has expired (4401)
//	ErrWriteTimeout      the peer took no byte, or its kernel acknowledged none, for the write timeout
//	ErrPingTimeout       a WebSocket's peer was silent after a ping
//	ErrTooManyTopics     OnConnect had subscribed to so many topics that there was no room for those of the request
//	*PanicError          a hook of the connection, or its filter, panicked
//	io.ErrUnexpectedEOF  the peer vanished: its end of the connection came (FIN, and a half close is no less), or its HTTP/2
//	                     stream or connection ended
//	syscall.ECONNRESET   the peer vanished with a reset (RST), as a process that is killed with bytes unread
//	syscall.EPIPE, …     the peer vanished while it was written to; whatever else the network says
//	the context's cause  the request's context ended by its server or by middleware
//
// Of a stream that net/http writes, which is one over HTTP/2 or behind a wrapper of the ResponseWriter, every end of the peer's
// matches io.ErrUnexpectedEOF, with the network's word beside it where it is known; and so does the end of its context without
// a cause, since net/http says the same when a client has gone.
//
// A network that is gone without a word shows by ErrPingTimeout, and in a stream by ErrWriteTimeout (on Linux: elsewhere only
// when the kernel's queue is full). Of a stream that net/http writes, and of a text stream with nothing to send, only the
// kernel can know, after minutes; over HTTP/2 so does net/http with http.Server.HTTP2.SendPingTimeout, which also ends a
// connection that takes nothing. Without it such a connection keeps its handler, and BeforeClose alone comes in time.
//
// # Shutdown
//
// http.Server.Shutdown ends no stream. It waits, for as long as it may, for those that are responses still (HTTP/2, and behind
// middleware), and not at all for WebSockets and for streams whose connection was taken over, which it no longer knows.
// Hub.Shutdown ends all of them: it sends every viewer the rest, says goodbye, and waits. Call it first, then the server's:
//
//	<-ctx.Done()
//	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
//	defer cancel()
//	hub.Shutdown(stop)
//	srv.Shutdown(stop)
//
// Who comes meanwhile is told to come back later. Where the server's Shutdown comes first, since it is called by code that knows
// of no hub, it can begin the hub's:
//
//	srv.RegisterOnShutdown(func() {
//		stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
//		defer cancel()
//		hub.Shutdown(stop)
//	})
//
// But it waits neither for that function nor for what it no longer knows, and a program that ends then cuts off its viewers.
// So wait for the hub after it, with another hub.Shutdown(stop), which joins the first one: see the example of Hub.Shutdown.
//
// # Strangers
//
// A browser's page is let in only from the hub's own origin, scheme, host and port alike, or from one of WithOrigins; a
// request that the browser says comes from another site is refused. A hub that listens on a loopback address answers only to
// localhost and to loopback addresses, or to WithHosts, since any page can have its name resolve there.
//
// WithAuthenticate says who a client is, and WithAuthorize what it may read. Without the latter, only the topics that a handler
// names are served: see Hub.Handler. WithLimits bounds how many connections there are, in total and of a user or an address,
// and what a connection may send.
//
// # Stats
//
// Hub.Stats returns numbers, for expvar, for one: see its example. What counts events never falls, so the difference of two looks is
// what happened in between. The keys of its maps are these and no others, whatever clients and Sources say of themselves.
//
//	Ended          the connection has ended because
//	client         its client closed it: a WebSocket with a Close frame; a stream, which has no goodbye, in any way
//	lost           the network did: of a WebSocket without a Close frame, of a stream by a timeout of the kernel's
//	application    of Conn.Close or Hub.Disconnect
//	shutdown       of Hub.Shutdown or Hub.Close
//	too_slow       the client was, and is closed for that: 1013
//	write_timeout  it took nothing more: ErrWriteTimeout
//	ping_timeout   nothing was heard of it: ErrPingTimeout
//	expired        its Identity has: 4401
//	unregistered   it did not register in time, or was refused
//	protocol       it broke the protocol: 1002, 1007
//	limit          it sent too much (1008, 1009), or reached a limit of topics, filters, or connections of a user
//	hook           OnConnect or AfterRead returned an error
//	panic          a hook, or its filter, panicked
//	context        its request's context ended, by the server or by middleware
//
// The sum of Ended and of the connections that there are is Accepted. A connection is there until nothing of it is left, which may be
// seconds after BeforeClose.
//
//	GapsByReason      messages are missing because
//	source            a Source, or who else published the Gap, says so: counted once, however many viewers there are
//	replayer          a Replayer says so: counted each time that it is read
//	replay_failed     the Replayer failed for good
//	unknown_position  a viewer came back to a Position of which nothing is known
//	not_kept          a viewer came back when memory no longer had what it missed, and there is no Replayer
//	too_slow          a viewer was, and there is no Replayer, or the LagPolicy says so
//	replay_limit      a viewer reached Limits.ReplayBytes
//	queue_full        messages of Conn.Send and Hub.Push found no room: PrivateDropped says how many
//
// A viewer that has asked for gaps=0 counts too. A bare WebSocket is not told of a full queue, which then shows in PrivateDropped alone.
//
// # Log events
//
// WithLogger's logger gets these events. Their texts do not change; what varies is in attributes, with the same key for the same thing.
// One without a value is left out: there is no error where nothing failed, and no topic for the default topic. Payloads and tokens
// are not logged; an error or a panic of the application is, as it is, but for a registration's token in its error.
// What concerns a request is logged with its context, so that a slog.Handler finds there what middleware has put into it.
//
//	event                    level  attributes                         when
//	request refused          DEBUG  status reason remote error         a request does not become a connection; no status: it was answered
//	push refused             DEBUG  status reason remote error         PushHandler does not carry out a request
//	registration refused     DEBUG  conn remote code reason error      and the connection is closed for it
//	connection ended         DEBUG  conn user transport remote reason  nothing of it is left; the reason is a key of Stats.Ended
//	hook panicked            ERROR  conn topic filter panic stack      a function of the application
//	source will run again    WARN   source error pause stack           it has failed
//	source failed            ERROR  source error stack                 and will not run again
//	replay broke off         WARN   topic error stack                  it is tried again
//	replay failed            ERROR  topic error stack                  for good: its viewers are told of a gap
//	replay position unknown  DEBUG  topic error                        a client came back to one that the Replayer does not know
//	backplane away           WARN   source error                       the log cannot be reached, or is not yet
//	backplane back           INFO   source                             it can again
//	tail missing             WARN   path error                         the file, or its directory, is not there
//	tail unreadable          WARN   path error                         it cannot be opened or read
//	tail irregular           WARN   path error                         it is a directory, a pipe or a device
//	tail unwatched           WARN   path error                         the system does not tell of changes: it is polled
//	tail damaged             WARN   path error                         a compressed file ends too early, or is wrong inside
//	tail failed              WARN   path error                         what a file of a glob has could not be published: it is tried again
//	tail recovered           INFO   path                               what was wrong is over
//	tail checkpoint          WARN   path error                         it is of no use, or cannot be written
//	tail checkpoint written  INFO   path                               it could be written again
//
// What is wrong with a tail is logged when it begins, and not again until it is over.
package tailcast
