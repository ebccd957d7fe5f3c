// Tailcast's client for pages, workers, Node, Deno and Bun: follow(url) gives a Stream of messages that comes back by itself and
// goes on behind the last message that it had. See README.md, and PROTOCOL.md for what goes over the wire.
//
// From the outside in: follow and Stream (what is asked for, where it stands, when it comes back), Iteration (for await), Watch
// (is the connection alive?), Socket and EventStream (the two ways to the server, which hand envelopes to the Stream), and
// EventStreamParser.

/**
 * Follows a hub. The stream connects by itself, in the next microtask: listeners that are added at once miss nothing.
 *
 * @param {string | URL} url  of the hub: http, https, ws or wss, or relative to the page
 * @param {import("./tailcast.js").FollowOptions} [options]
 * @returns {Stream}
 */
export function follow(url, options) {
  return new Stream(url, options);
}

/** Why a stream has ended, or a command was not carried out. */
export class FollowError extends Error {
  /**
   * @param {string} message  the server's sentence, where it has said one
   * @param {{status?: number, code?: number, cause?: unknown}} [detail]
   */
  constructor(message, { status, code, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "FollowError";
    /** The status of an HTTP answer. */
    this.status = status;
    /** The code that the connection was closed with. */
    this.code = code;
  }
}

/** An event of a Stream. What it tells depends on its type: see the table in README.md. */
export class TailcastEvent extends Event {
  /**
   * @param {string} type
   * @param {object} [detail]  what the event has beside its type
   */
  constructor(type, detail) {
    super(type);
    Object.assign(this, detail);
  }
}

const seconds = 1000;
const goodUptime = 5 * seconds; // a connection that has lasted so long begins the backoff anew
const wakeGuard = 1 * seconds; // between two attempts, however often the page is shown and hidden
const probeTime = 5 * seconds; // for the answer to a probe
const heartbeatTime = 20 * seconds; // a hub is never silent for longer than 15 s
const upgradeSoon = 5 * seconds; // an event stream goes back to the WebSocket that has worked before
const upgradeFirst = 60 * seconds; // or looks whether there is one now, and then less and less often
const upgradeMost = 1800 * seconds;
const longestAdvice = 3600 * seconds;
const finalCodes = new Set([1008, 4401, 4403, 4408]);
const passing = new Set([408, 425, 429]); // statuses of 4xx that another attempt may not get
const probeRef = -1;

/** What has got through to a URL, for the life of the page: "websocket" or "sse". @type {Map<string, string>} */
const known = new Map();

/** A connection to a hub that outlives its connections. Made by follow. */
export class Stream extends EventTarget {
  // what is asked for
  #url;
  #options;
  /** The topics, where they are known. @type {Set<string> | undefined} */
  #topics;
  /** Where topics begin that have no position yet: one for all of them. @type {string | undefined} */
  #start;
  /** The same, for single topics. @type {Map<string, string>} */
  #starts = new Map();

  // where it stands
  /** @type {Map<string, string>} */
  #positions = new Map();
  /** The newest id of an event stream with several topics: it has all positions. Positions may be behind it, see #settle. */
  #joined;
  /** The position in the only topic, whose name nobody has said. */
  #lone;
  #got = false; // a message or a gap
  #received = 0;
  #duplicates = 0;

  // the connection
  #state = "connecting";
  #announced = false; // its first state
  /** What has ended it. @type {FollowError | undefined} */
  #failure;
  /** @type {Socket | EventStream | undefined} */
  #link;
  /** @type {Socket | undefined} */
  #upgrade;
  #upgradeTimer;
  #upgradeDelay = upgradeFirst;
  /** @type {number | undefined} */
  #upgradeAt;
  #timer; // until the next attempt
  #retryAt = 0;
  #notBefore = 0; // the server's advice
  #tries = 0;
  #triedAt = -Infinity;
  #mute = 0; // WebSockets in a row that opened and brought nothing
  #away = false; // the page is put away (bfcache)
  #unlisten = () => {};

  // who listens
  /** @type {Set<Iteration>} */
  #iterations = new Set();
  /** The types that somebody has ever listened to. */
  #heard = new Set();
  #batch = [];
  #pending = new Map(); // commands without an answer
  #lastRef = 0;

  /**
   * @param {string | URL} url
   * @param {import("./tailcast.js").FollowOptions} [options]
   */
  constructor(url, options = {}) {
    super();
    this.#options = { transport: "auto", minDelay: 500, maxDelay: 30 * seconds, connectTimeout: 10 * seconds, idleTimeout: 40 * seconds, buffer: 100_000, ...options };
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace(/^ws/, "http");
    this.#url.hash = "";
    if (!/^https?:$/.test(this.#url.protocol)) throw new TypeError(`${url} is not an address of http, https, ws or wss`);
    if (!["auto", "websocket", "sse"].includes(this.#options.transport)) {
      throw new TypeError(`transport: ${this.#options.transport} is none of auto, websocket and sse`);
    }
    const query = this.#url.searchParams;
    const topics = this.#options.topics ?? (query.has("topic") ? query.getAll("topic") : undefined);
    if (topics !== undefined) this.#topics = new Set(typeof topics === "string" ? [topics] : topics);
    this.#begin(this.#options.since ?? query.get("since") ?? undefined);
    for (const name of ["topic", "since"]) query.delete(name);
    this.#ask(query);

    const { signal } = this.#options;
    if (signal?.aborted) {
      this.#state = "closed";
      return;
    }
    const abort = () => this.close();
    signal?.addEventListener("abort", abort, { once: true });
    const unwatch = watchPage((event) => this.#page(event));
    this.#unlisten = () => {
      signal?.removeEventListener("abort", abort);
      unwatch();
    };
    queueMicrotask(() => this.#connect());
  }

  /** "connecting", "open", "waiting" for the next attempt, or "closed". */
  get state() { return this.#state; }

  /** "websocket" or "sse", while it is open. */
  get transport() { return this.#state === "open" ? this.#link?.name : undefined; }

  /** Where the stream stands in each topic: behind the last message that it has handed out. A copy. */
  get positions() {
    this.#settle();
    return new Map(this.#positions);
  }

  /** The same in one string, fit for the option since of a later stream; undefined if nothing is known yet. */
  get since() { return this.#since(); }

  /** How many messages have come. */
  get received() { return this.#received; }

  /** How many messages came though they had come before: the server should never send one. They were dropped. */
  get duplicates() { return this.#duplicates; }

  /** Connects now, if the stream is waiting. */
  retry() {
    if (this.#state === "waiting") this.#connect(true);
  }

  /** Ends the stream. What has come is still handed out: as a last batch at once, and to loops as they ask. */
  close() { this.#close("closed"); }

  /**
   * Publishes a message. Resolves when the hub has taken it. WebSocket only.
   *
   * @param {string} topic
   * @param {string | Uint8Array} data
   * @param {{others?: boolean, binary?: boolean}} [options]  others: not to this connection
   * @returns {Promise<void>}
   */
  publish(topic, data, { others, binary } = {}) {
    const b64 = binary || typeof data !== "string";
    if (b64) data = toBase64(typeof data === "string" ? new TextEncoder().encode(data) : data);
    return this.#command({ type: "publish", topic, data, b64: b64 || undefined, others: others || undefined });
  }

  /**
   * Adds a topic, also for all later connections. WebSocket only.
   *
   * @param {string} topic
   * @param {{since?: string, tail?: number}} [options]
   * @returns {Promise<void>}
   */
  subscribe(topic, { since, tail } = {}) {
    return this.#command({ type: "subscribe", topic, since, tail }, () => {
      this.#settle();
      this.#topics ??= new Set(this.#positions.keys());
      this.#topics.add(topic);
      if (since !== undefined) this.#starts.set(topic, since);
    });
  }

  /**
   * Takes a topic away, also for all later connections. WebSocket only.
   *
   * @param {string} topic
   * @returns {Promise<void>}
   */
  unsubscribe(topic) {
    return this.#command({ type: "unsubscribe", topic }, () => {
      this.#settle();
      this.#topics ??= new Set(this.#positions.keys());
      this.#topics.delete(topic);
      this.#starts.delete(topic);
      this.#positions.delete(topic);
    });
  }

  /** @override */
  addEventListener(type, listener, options) {
    this.#heard.add(type);
    super.addEventListener(type, listener, options);
  }

  /**
   * A loop over messages and gaps, from now on. It ends when the stream is closed, and throws what has ended it otherwise.
   * Breaking out of it closes the stream.
   *
   * @returns {Iteration}
   */
  [Symbol.asyncIterator]() {
    const iteration = new Iteration(this.#options.buffer, this.positions, (it) => {
      this.#iterations.delete(it);
      this.close();
    });
    if (this.#state === "closed") iteration.finish(this.#failure);
    else this.#iterations.add(iteration);
    return iteration;
  }

  // What is asked for, and from where.

  /** begin notes where topics begin. */
  #begin(since) {
    if (since === undefined || since === "") return;
    if (typeof since === "object") this.#starts = new Map(since instanceof Map ? since : Object.entries(since));
    else if (since.includes("=")) this.#starts = splitPositions(since);
    else this.#start = since;
  }

  /** ask puts what stays the same into the query. */
  #ask(query) {
    const { tail, grep, invert, gaps, params } = this.#options;
    for (const [name, value] of Object.entries(params ?? {})) query.set(name, value);
    if (tail !== undefined) query.set("tail", tail);
    if (grep) query.set("grep", grep);
    if (invert) query.set("invert", "1");
    if (gaps === false) query.set("gaps", "0");
  }

  /** address is the URL for the next connection. */
  #address() {
    const url = new URL(this.#url);
    for (const topic of this.#topics ?? []) url.searchParams.append("topic", topic);
    const since = this.#since();
    if (since !== undefined) url.searchParams.set("since", since);
    if (!this.#topics && since !== this.#start) { // topics that it has not been told of yet begin as the others did
      if (this.#start === "latest") url.searchParams.set("tail", "0");
      if (this.#start === "earliest") url.searchParams.set("tail", "2147483647");
    }
    return url;
  }

  /** since is where the next connection begins. */
  #since() {
    this.#settle();
    if (this.#lone !== undefined) return this.#lone;
    // Who has asked for everything and got nothing yet asks for it again: where it stood, there may be topics without a position.
    if (this.#start === "earliest" && !this.#topics && !this.#got) return this.#start;
    const all = new Map(this.#starts);
    if (this.#topics && (this.#topics.size === 1 || this.#start === "earliest" || this.#start === "latest")) {
      for (const topic of this.#topics) if (!all.has(topic) && this.#start !== undefined) all.set(topic, this.#start);
    }
    for (const [topic, position] of this.#positions) all.set(topic, position);
    if (this.#topics) for (const topic of [...all.keys()]) if (!this.#topics.has(topic)) all.delete(topic);
    if (all.size === 0) return this.#start;
    return joinPositions(all);
  }

  /** settle brings the positions up to the newest id that has all of them. */
  #settle() {
    if (this.#joined === undefined) return;
    for (const [topic, position] of splitPositions(this.#joined)) this.#positions.set(topic, position);
    this.#joined = undefined;
  }

  // Connections.

  #connect(anyway = false) {
    if (this.#state === "closed") return;
    clearTimeout(this.#timer);
    // What the browser says is not always true: now and then it is tried nevertheless.
    if (!anyway && isOffline(this.#url)) return this.#wait("the device is offline", this.#options.maxDelay, true);
    this.#tries++;
    this.#triedAt = Date.now();
    this.#notBefore = 0;
    const { transport } = this.#options;
    if (transport === "websocket" && typeof WebSocket === "undefined") return this.#fail(new FollowError("there is no WebSocket here"));
    const socket = transport === "websocket" || (transport === "auto" && typeof WebSocket !== "undefined" &&
      (known.get(this.#key) !== "sse" || this.#tries % 4 === 0)); // where event streams fail too, another network may have come
    if (socket) this.#openSocket();
    else this.#openEventStream();
  }

  get #key() { return this.#url.origin + this.#url.pathname; }

  #openSocket() {
    this.#setState("connecting");
    if (this.#state === "closed") return; // by a listener
    this.#stopUpgrade();
    this.#link = new Socket(this.#address(), this.#options, this.#hooks());
  }

  /** openEventStream opens an event stream, or, after a WebSocket that did not come about, only asks for the reason of that. */
  #openEventStream(failed) {
    this.#setState("connecting");
    if (this.#state === "closed") return; // by a listener
    this.#stopUpgrade();
    const { headers, credentials = "same-origin" } = this.#options;
    const asks = this.#options.transport === "websocket" ? failed : undefined;
    const init = { headers: { ...Object.fromEntries(new Headers(headers)), accept: "text/event-stream" }, credentials, cache: "no-store" };
    const url = this.#address();
    // By the header, unlike the query, a stream that stood before the first message is told what it has missed of the beginning.
    const since = url.searchParams.get("since") ?? "";
    if (/(^|=)earliest(,|$)/.test(since) && (this.#positions.size > 0 || this.#lone)) init.headers["last-event-id"] = since;
    this.#link = new EventStream(url, init, this.#options, this.#hooks(failed), asks);
  }

  /** hooks is what a link calls; nothing of it counts once the stream has another one. */
  #hooks(failed) {
    const resumed = new Map(this.positions);
    const openedAt = Date.now();
    let lived = false;
    const mine = (link) => link === this.#link && this.#state !== "closed";
    return {
      /** The first byte has come. */
      live: (link) => {
        if (!mine(link)) return;
        lived = true;
        this.#lives(link, failed);
      },
      envelope: (link, envelope) => {
        if (mine(link)) this.#envelope(envelope, resumed);
      },
      end: (link, end) => {
        if (!mine(link)) return;
        this.#link = undefined;
        if (lived && Date.now() - openedAt >= goodUptime) this.#tries = 0;
        this.#ended(link, { ...end, lived });
      },
    };
  }

  #lives(link, failed) {
    if (link.name === "websocket") {
      known.set(this.#key, "websocket");
      this.#upgradeDelay = upgradeFirst;
      this.#upgradeAt = undefined;
      this.#mute = 0;
    } else if (this.#options.transport === "auto" && typeof WebSocket !== "undefined") {
      const worked = known.get(this.#key) === "websocket" && this.#upgradeDelay !== upgradeSoon;
      if (worked) this.#upgradeDelay = upgradeSoon;
      else {
        if (this.#upgradeDelay === upgradeSoon) this.#upgradeDelay = upgradeFirst;
        if (failed) known.set(this.#key, "sse");
      }
      this.#upgradeLater();
    }
    this.#setState("open", { transport: link.name });
  }

  #ended(link, end) {
    for (const { reject } of this.#pending.values()) {
      reject(new FollowError("the connection has ended before the answer: nobody knows whether the command was carried out"));
    }
    this.#pending.clear();
    const { code, status, retry, opened, lived } = end;
    const reason = end.reason || `closed with ${code}`;
    const refused = status >= 400 && status < 500 && !passing.has(status) &&
      !(status === 401 && this.#options.token !== undefined && this.#options.transport !== "sse"); // a token is for WebSockets only
    if (finalCodes.has(code) || refused) return this.#fail(new FollowError(reason, { code, status }));
    // A WebSocket that did not come about does not say why: the same request without one does, and may get through.
    if (link.name === "websocket" && !lived && end.silent && (!opened || ++this.#mute >= 2)) return this.#openEventStream(reason);
    if (!end.bye) this.dispatchEvent(new TailcastEvent("error", { error: new FollowError(reason, { code, status }), reason, final: false }));
    if (this.#state === "closed") return;
    const { minDelay, maxDelay } = this.#options;
    if (retry === undefined && isOffline(this.#url)) return this.#wait("the device is offline", maxDelay, true);
    let delay = Math.random() * Math.min(maxDelay, minDelay * 2 ** Math.min(this.#tries, 30));
    if (retry !== undefined) {
      const advice = Math.min(retry, longestAdvice);
      this.#notBefore = Date.now() + advice;
      delay = this.#tries > 1 ? Math.max(advice, delay) : advice;
    }
    this.#wait(reason, delay);
  }

  #wait(reason, delay, anyway) {
    clearTimeout(this.#timer);
    this.#retryAt = Date.now() + delay;
    this.#timer = setTimeout(() => this.#connect(anyway), delay);
    this.#setState("waiting", { reason, retryAt: this.#retryAt });
  }

  #setState(state, detail) {
    if (state === this.#state && state !== "waiting" && this.#announced) return;
    this.#announced = true;
    this.#state = state;
    this.dispatchEvent(new TailcastEvent("state", { state, ...detail }));
  }

  #fail(error) {
    this.#failure = error;
    this.#flush();
    if (this.#state === "closed") return;
    this.dispatchEvent(new TailcastEvent("error", { error, reason: error.message, final: true }));
    this.#close(error.message);
  }

  #close(reason) {
    if (this.#state === "closed") return;
    this.#flush();
    if (this.#state === "closed") return; // by a listener of the batch
    clearTimeout(this.#timer);
    this.#stopUpgrade();
    this.#unlisten();
    this.#state = "closed";
    const link = this.#link;
    this.#link = undefined;
    link?.close();
    for (const { reject } of this.#pending.values()) reject(this.#failure ?? new FollowError("the stream is closed"));
    this.#pending.clear();
    for (const iteration of this.#iterations) iteration.finish(this.#failure);
    this.#iterations.clear();
    this.dispatchEvent(new TailcastEvent("state", { state: "closed", reason }));
  }

  // From an event stream back to a WebSocket.

  #upgradeLater() {
    clearTimeout(this.#upgradeTimer);
    this.#upgradeAt ??= Date.now() + this.#upgradeDelay; // also if the event stream is cut again and again before
    this.#upgradeTimer = setTimeout(() => this.#tryUpgrade(), Math.max(0, this.#upgradeAt - Date.now()));
  }

  /** tryUpgrade opens a WebSocket beside the event stream. Only if that gets through the stream lets go of what it has. */
  #tryUpgrade() {
    this.#upgradeAt = undefined;
    const url = new URL(this.#url);
    for (const topic of this.#topics ?? []) url.searchParams.append("topic", topic);
    url.searchParams.set("tail", "0");
    this.#upgrade = new Socket(url, this.#options, {
      live: (socket) => {
        if (socket !== this.#upgrade) return;
        this.#stopUpgrade();
        if (this.#state !== "open") return;
        const old = this.#link;
        this.#link = undefined;
        old?.close();
        known.set(this.#key, "websocket");
        this.#openSocket();
      },
      envelope() {},
      end: (socket) => {
        if (socket !== this.#upgrade) return;
        this.#upgrade = undefined;
        known.set(this.#key, "sse");
        this.#upgradeDelay = Math.min(Math.max(2 * this.#upgradeDelay, upgradeFirst), upgradeMost);
        this.#upgradeLater();
      },
    });
  }

  #stopUpgrade() {
    clearTimeout(this.#upgradeTimer);
    const socket = this.#upgrade;
    this.#upgrade = undefined;
    socket?.close();
  }

  // The page around it.

  /** page is told what happens to the page: "hide", "show" (again), or "wake" (there is a network, somebody looks). */
  #page(event) {
    if (this.#state === "closed") return;
    if (event === "hide") { // a page with open connections may not be kept, and those of one that is kept are dead
      this.#away = true;
      clearTimeout(this.#timer);
      this.#stopUpgrade();
      const link = this.#link;
      this.#link = undefined;
      link?.close();
      this.#setState("waiting", { reason: "the page is put away", retryAt: undefined });
      return;
    }
    if (this.#away) {
      this.#away = false;
      return this.#connect();
    }
    const now = Date.now();
    if (this.#state === "open") return this.#link?.doubt();
    if (this.#state !== "waiting") return;
    const at = Math.max(now, this.#notBefore, this.#triedAt + wakeGuard);
    if (at <= now) return this.#connect();
    if (at >= this.#retryAt) return;
    clearTimeout(this.#timer);
    this.#retryAt = at;
    this.#timer = setTimeout(() => this.#connect(), at - now);
  }

  // What comes.

  #envelope(o, resumed) {
    switch (o.event) {
      case undefined:
        return this.#message(o, resumed);
      case "gap": {
        const { event, topic, from, to, count = -1, bytes = -1, possible = false, reason = "" } = o;
        this.#stand(topic, to, o);
        resumed.delete(topic);
        this.#got = true;
        return this.#hand({ event, topic, from, to, count, bytes, possible, reason }, "gap");
      }
      case "pos":
        if (o.joined !== undefined || o.topic === undefined) {
          this.#stand(o.topic, o.id, o);
          this.#settle();
          if (this.#heard.has("pos")) {
            const all = this.#lone === undefined ? this.#positions : [["", this.#lone]];
            for (const [topic, id] of [...all]) this.dispatchEvent(new TailcastEvent("pos", { topic, id }));
          }
          for (const iteration of this.#iterations) for (const [topic, id] of this.#positions) iteration.stand(topic, id);
          return;
        }
        this.#stand(o.topic, o.id, o);
        for (const iteration of this.#iterations) iteration.stand(o.topic, o.id);
        if (this.#heard.has("pos")) this.dispatchEvent(new TailcastEvent("pos", { topic: o.topic, id: o.id }));
        return;
      case "join":
      case "leave":
        this.#stand(o.topic, o.id, o);
        this.dispatchEvent(new TailcastEvent(o.event, { topic: o.topic, user: o.user, id: o.id }));
        return;
      case "bye":
        this.dispatchEvent(new TailcastEvent("bye", { code: o.code, reason: o.reason, retry: o.retry }));
        return;
      case "ok":
      case "error": {
        const command = this.#pending.get(o.ref);
        if (command) {
          this.#pending.delete(o.ref);
          if (o.event === "ok") command.resolve();
          else command.reject(new FollowError(o.reason));
        } else if (o.event === "error" && o.ref !== probeRef) {
          this.dispatchEvent(new TailcastEvent("error", { error: new FollowError(o.reason), reason: o.reason, final: false }));
        }
      }
    }
  }

  #message(o, resumed) {
    const { id } = o;
    const topic = o.topic ?? this.#only;
    if (id !== undefined) {
      if (resumed.size > 0 && resumed.has(topic)) {
        if (resumed.get(topic) === id) {
          this.#duplicates++;
          return;
        }
        resumed.delete(topic);
      }
      this.#stand(topic, id, o);
    }
    const message = { id, topic: topic ?? "", time: o.time, data: o.b64 ? fromBase64(o.data) : o.data };
    if (o.partial) message.partial = true;
    this.#received++;
    this.#got = true;
    this.#hand(message, "message");
  }

  /** only is the name of the only topic, if it is known that there is just one. */
  get #only() {
    const names = this.#topics ?? this.#positions;
    return names.size === 1 ? names.keys().next().value : undefined;
  }

  /** stand notes where the stream stands in a topic, or in all of them. */
  #stand(topic, id, { joined }) {
    if (joined !== undefined) {
      this.#joined = joined;
      this.#lone = undefined;
      return;
    }
    if (id === undefined) return;
    topic ??= this.#only;
    if (topic === undefined) {
      this.#lone = id;
      return;
    }
    this.#lone = undefined;
    this.#positions.set(topic, id);
  }

  /** hand gives a message or a gap to everybody. */
  #hand(item, type) {
    for (const iteration of this.#iterations) iteration.push(item);
    if (this.#heard.has("batch")) {
      if (this.#batch.push(item) === 1) soon(() => this.#flush());
    }
    if (this.#heard.has(type)) this.dispatchEvent(new TailcastEvent(type, { [type]: item }));
  }

  #flush() {
    if (this.#batch.length === 0) return;
    const messages = this.#batch;
    this.#batch = [];
    this.dispatchEvent(new TailcastEvent("batch", { messages }));
  }

  #command(command, done = () => {}) {
    if (this.#state !== "open" || this.#link?.name !== "websocket") {
      return Promise.reject(new FollowError(this.#state === "open" ? "commands need a WebSocket" : `the stream is ${this.#state}`));
    }
    const ref = ++this.#lastRef;
    const { promise, resolve, reject } = withResolvers();
    // What an ok changes counts before the next envelope is looked at, and not a microtask later.
    this.#pending.set(ref, { resolve: () => { done(); resolve(undefined); }, reject });
    this.#link.send(JSON.stringify({ ...command, ref }));
    return promise;
  }
}

/** A loop over a stream, and what it has not read yet. */
class Iteration {
  #most;
  #leave;
  #queue = [];
  #head = 0;
  #waiting = [];
  #over = false;
  #failure;
  /** What was dropped since nobody read it, by topic. @type {Map<string, object>} */
  #dropped = new Map();
  /** @type {Map<string, string>} */
  #positions;

  constructor(most, positions, leave) {
    this.#most = Math.max(1, most);
    this.#positions = positions;
    this.#leave = leave;
  }

  /** Where the loop stands: behind the last message that it was given. Fit for the option since. */
  get since() { return this.#positions.size === 0 ? undefined : joinPositions(this.#positions); }

  push(item) {
    if (this.#over) return;
    if (this.#waiting.length > 0) {
      this.#waiting.shift().resolve({ value: this.#read(item), done: false });
      return;
    }
    this.#queue.push(item);
    if (this.#queue.length - this.#head > this.#most) this.#drop(this.#take());
  }

  /** stand notes a position that no message has. What is not read yet is before it. */
  stand(topic, id) {
    if (this.#queue.length === this.#head && this.#dropped.size === 0 || !this.#positions.has(topic)) this.#positions.set(topic, id);
  }

  finish(failure) {
    if (this.#over) return;
    this.#over = true;
    this.#failure = failure;
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (this.#failure) {
        reject(this.#failure);
        this.#failure = undefined; // the others get the end
      } else resolve({ value: undefined, done: true });
    }
  }

  next() {
    for (const [topic, gap] of this.#dropped) {
      this.#dropped.delete(topic);
      return Promise.resolve({ value: this.#read(gap), done: false });
    }
    if (this.#queue.length > this.#head) return Promise.resolve({ value: this.#read(this.#take()), done: false });
    if (this.#failure) {
      const failure = this.#failure;
      this.#failure = undefined;
      return Promise.reject(failure);
    }
    if (this.#over) return Promise.resolve({ value: undefined, done: true });
    const { promise, resolve, reject } = withResolvers();
    this.#waiting.push({ resolve, reject });
    return promise;
  }

  return(value) {
    this.#queue = [];
    this.#head = 0;
    this.#dropped.clear();
    this.#failure = undefined;
    if (!this.#over) {
      this.finish();
      this.#leave(this);
    }
    return Promise.resolve({ value, done: true });
  }

  [Symbol.asyncIterator]() { return this; }

  #read(item) {
    const position = item.event === "gap" ? item.to : item.id;
    if (position !== undefined) this.#positions.set(item.topic, position);
    return item;
  }

  /** take takes the oldest out; what is before the head is cut off only when it is half of the queue. */
  #take() {
    const item = this.#queue[this.#head];
    this.#queue[this.#head++] = undefined;
    if (this.#head >= 1024 && 2 * this.#head >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    } else if (this.#head === this.#queue.length) {
      this.#queue.length = this.#head = 0;
    }
    return item;
  }

  #drop(item) {
    let gap = this.#dropped.get(item.topic);
    if (!gap) {
      const from = this.#positions.get(item.topic);
      gap = { event: "gap", topic: item.topic, from, to: undefined, count: 0, bytes: 0, possible: false, reason: "not read" };
      this.#dropped.set(item.topic, gap);
    }
    const isGap = item.event === "gap";
    const add = (sum, n) => sum < 0 || n < 0 ? -1 : sum + n;
    gap.count = add(gap.count, isGap ? item.count : 1);
    gap.bytes = add(gap.bytes, isGap ? item.bytes : byteLength(item.data));
    gap.possible &&= isGap && item.possible;
    gap.to = (isGap ? item.to : item.id) ?? gap.to;
  }
}

/**
 * A Watch tells when nothing has come for too long. It counts ticks and not the time, so a tab that was frozen with its timers
 * does not take its own sleep for the server's silence: a tick that is late says nothing, and is a reason to ask.
 */
class Watch {
  #step;
  #ask;
  #dead;
  #quiet = 0; // ticks in which nothing has come
  #doubts = 0; // in a row
  #timer;
  #due = 0;

  /**
   * @param {number} limit  how long may nothing come, in ms
   * @param {() => number} ask  asks the server for a sign of life, and says how long that may take
   * @param {() => void} dead
   */
  constructor(limit, ask, dead) {
    this.#step = limit / 8;
    this.#ask = ask;
    this.#dead = dead;
    this.#arm(this.#step);
  }

  alive() {
    this.#quiet = 0;
    this.#doubts = 0;
  }

  /** doubt gives the server a short time to show that it is there. */
  doubt() {
    if (this.#doubts === 0) this.#suspect();
  }

  #suspect() {
    this.#doubts++;
    this.#quiet = 8;
    this.#arm(this.#ask());
  }

  stop() { clearTimeout(this.#timer); }

  #arm(delay) {
    clearTimeout(this.#timer);
    this.#due = Date.now() + delay;
    this.#timer = setTimeout(() => this.#tick(), delay);
  }

  #tick() {
    const late = Math.abs(Date.now() - this.#due) > 5 * seconds;
    if (late && this.#doubts < 2) return this.#suspect(); // what has come meanwhile may be told after this
    if (++this.#quiet > 8) return this.#dead();
    if (this.#quiet === 6) this.#ask();
    this.#arm(this.#step);
  }
}

/** A WebSocket of envelopes. */
class Socket {
  name = "websocket";
  #hooks;
  #ws;
  #watch;
  #over = false;
  #opened = false;
  #lived = false;

  constructor(url, options, hooks) {
    this.#hooks = hooks;
    const silent = () => this.#end({ reason: "nothing comes through a WebSocket", silent: true });
    this.#watch = new Watch(options.connectTimeout, () => this.#probe(), silent);
    this.#open(url, options);
  }

  async #open(url, { token, idleTimeout }) {
    const address = new URL(url);
    address.protocol = address.protocol.replace(/^http/, "ws");
    try {
      const protocols = ["tailcast.v1"];
      const secret = typeof token === "function" ? await token() : token;
      if (this.#over) return;
      if (secret !== undefined) protocols.push("tailcast.token", toBase64(new TextEncoder().encode(secret)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, ""));
      this.#ws = new WebSocket(address, protocols);
    } catch (cause) {
      // Not from within the constructor: nobody knows this one yet.
      queueMicrotask(() => this.#end({ reason: `no WebSocket: ${cause.message}`, silent: true }));
      return;
    }
    const ws = this.#ws;
    ws.onopen = () => {
      if (ws.protocol !== "tailcast.v1") return this.#end({ reason: "what answers does not speak tailcast.v1", silent: true });
      this.#opened = true;
    };
    ws.onmessage = ({ data }) => {
      if (this.#over) return;
      if (!this.#lived) {
        this.#lived = true;
        this.#watch.stop();
        this.#watch = new Watch(idleTimeout, () => this.#probe(), () => this.#end({ reason: "the connection is dead" }));
        this.#hooks.live(this);
      }
      this.#watch.alive();
      if (typeof data !== "string") return;
      let envelope;
      try {
        envelope = JSON.parse(data);
      } catch (cause) {
        return this.#end({ reason: `an envelope cannot be read: ${cause.message}` });
      }
      this.#hooks.envelope(this, envelope);
      if (envelope.event === "bye") this.#end({ code: envelope.code, reason: envelope.reason, retry: retryOf(envelope.retry), bye: true });
    };
    const interrupted = () => this.#opened ? "the connection was interrupted" : "the WebSocket was refused";
    // After an error comes a close with 1006; but of a handshake that has failed Node 22 tells no close.
    ws.onerror = (event) => this.#end({ code: 1006, reason: event.message || interrupted(), silent: true });
    ws.onclose = ({ code, reason }) => this.#end({ code, reason: reason || interrupted(), silent: code === 1006 || code === 1005 });
  }

  send(text) { this.#ws.send(text); }

  /** probe sends a command that nobody has, which is answered with an error: that is a sign of life. */
  #probe() {
    if (this.#opened) this.send(JSON.stringify({ type: "ping", ref: probeRef }));
    return probeTime;
  }

  doubt() { this.#watch.doubt(); }

  close() {
    if (this.#over) return;
    this.#over = true;
    this.#watch.stop();
    const ws = this.#ws;
    if (!ws) return;
    ws.onopen = ws.onmessage = ws.onclose = null;
    ws.onerror = () => {};
    ws.close();
  }

  #end(end) {
    if (this.#over) return;
    this.close();
    this.#hooks.end(this, { opened: this.#opened, ...end });
  }
}

/** An event stream, read by fetch: an EventSource knows neither the field topic nor why it was refused. */
class EventStream {
  name = "sse";
  #hooks;
  #abort = new AbortController();
  #watch;
  #over = false;
  #retry;
  #lived = false;
  #asks;
  #last = new Map(); // positions by topic, of joined ids
  #keys = new Map(); // topics as joined ids have them

  /** asks is why there is no WebSocket, where the answer is wanted and the stream is not. */
  constructor(url, init, { connectTimeout, idleTimeout }, hooks, asks) {
    this.#hooks = hooks;
    this.#asks = asks;
    this.#watch = new Watch(connectTimeout, () => probeTime, () => this.#end({ reason: "the server does not answer" }));
    this.#read(url, init, idleTimeout);
  }

  async #read(url, init, idleTimeout) {
    try {
      const response = await fetch(url, { ...init, signal: this.#abort.signal });
      if (this.#over) return;
      const type = response.headers.get("content-type") ?? "nothing";
      if (response.status !== 200 || !/^text\/event-stream\b/i.test(type)) {
        const retry = retryAfter(response.headers.get("retry-after"));
        const reason = response.status === 200 ? `the answer is ${type}, and not an event stream` : await sentence(response);
        return this.#end({ status: response.status, reason, retry });
      }
      const reader = response.body.getReader();
      const parser = new EventStreamParser((block) => this.#block(block));
      for (let first = true; ; first = false) {
        const { value, done } = await reader.read();
        if (this.#over) return;
        if (done) return this.#end({ reason: "the connection was interrupted" });
        if (first) {
          this.#watch.stop();
          this.#watch = new Watch(idleTimeout, () => heartbeatTime, () => this.#end({ reason: "the connection is dead" }));
        }
        this.#watch.alive();
        parser.push(value);
        if (!this.#lived) this.#live(); // though only retry has come, or a comment: an error would have come with it
        if (this.#over) return;
      }
    } catch (cause) {
      this.#end({ reason: this.#lived ? "the connection was interrupted" : `the server cannot be reached: ${cause.cause?.message || cause.message}` });
    }
  }

  #live() {
    if (this.#over) return;
    if (this.#asks !== undefined) return this.#end({ reason: this.#asks });
    this.#lived = true;
    this.#hooks.live(this);
  }

  /** block makes an envelope of a block. */
  #block({ event, data, id, topic, retry }) {
    if (this.#over) return;
    if (retry !== undefined) this.#retry = retry;
    let object;
    if (data !== undefined && event !== "message") {
      try {
        object = JSON.parse(data);
      } catch (cause) {
        return this.#end({ reason: `an event cannot be read: ${cause.message}` });
      }
    }
    if (event === "error") return this.#end({ reason: object?.reason, retry: this.#retry }); // in place of a stream
    if (!this.#lived && event !== "bye" && (data !== undefined || id !== undefined)) this.#live();
    if (this.#over) return;
    const joined = id?.includes("=") ? id : undefined;
    if (data === undefined) {
      if (joined !== undefined) this.#last = splitPositions(joined);
      if (id) this.#hooks.envelope(this, joined === undefined ? { event: "pos", id } : { event: "pos", joined });
    } else if (event === "message") {
      if (joined !== undefined) id = this.#moved(joined, topic);
      this.#hooks.envelope(this, { id, topic, data, joined });
    } else if (event === "gap" || event === "join" || event === "leave") {
      this.#last.set(object.topic, object.to ?? object.id);
      this.#hooks.envelope(this, { ...object, joined });
    } else if (event === "bye") {
      this.#hooks.envelope(this, object);
      this.#end({ code: object.code, reason: object.reason, retry: retryOf(object.retry) ?? this.#retry, bye: true });
    }
  }

  /** moved is a topic's position in a joined id, if it is another one than before: a message of which it is not has none. */
  #moved(joined, topic) {
    let key = this.#keys.get(topic);
    if (key === undefined) this.#keys.set(topic, key = `,${escapeTopic(topic)}=`);
    let at = joined.indexOf(key) + key.length;
    if (joined.startsWith(key.slice(1))) at = key.length - 1;
    else if (at < key.length) return undefined;
    const end = joined.indexOf(",", at);
    const position = end < 0 ? joined.slice(at) : joined.slice(at, end);
    if (this.#last.get(topic) === position) return undefined;
    this.#last.set(topic, position);
    return position;
  }

  send() {}

  doubt() { this.#watch.doubt(); }

  close() {
    if (this.#over) return;
    this.#over = true;
    this.#watch.stop();
    this.#abort.abort();
  }

  #end(end) {
    if (this.#over) return;
    this.close();
    this.#hooks.end(this, end);
  }
}

/**
 * A parser of event streams (WHATWG HTML, 9.2.6) that also tells the field topic, and blocks without data, of which an EventSource
 * says nothing. It takes bytes, however they are cut.
 */
export class EventStreamParser {
  #tell;
  #decoder = new TextDecoder(); // takes a byte order mark away
  #rest = ""; // a line that has not ended yet
  #cr = false; // the last one has ended with CR: a LF that follows is a part of that
  #block = {};
  #data = [];

  /** @param {(block: import("./tailcast.js").EventStreamBlock) => void} tell */
  constructor(tell) { this.#tell = tell; }

  /** @param {Uint8Array} bytes */
  push(bytes) {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return;
    let start = 0;
    if (this.#cr && text[0] === "\n") start = 1;
    this.#cr = false;
    const ends = /\r\n|\n|\r/g;
    ends.lastIndex = start;
    for (let end; (end = ends.exec(text)) !== null; start = ends.lastIndex) {
      this.#line(this.#rest + text.slice(start, end.index));
      this.#rest = "";
      this.#cr = ends.lastIndex === text.length && end[0] === "\r";
    }
    this.#rest += text.slice(start);
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    switch (name) {
      case "data":
        this.#data.push(value);
        break;
      case "id":
        if (!value.includes("\0")) this.#block.id = value;
        break;
      case "retry":
        if (/^[0-9]+$/.test(value)) this.#block.retry = Number(value);
        break;
      case "event":
      case "topic":
        this.#block[name] = value;
    }
  }

  #dispatch() {
    const block = this.#block;
    block.event ||= "message";
    block.data = this.#data.length > 0 ? this.#data.join("\n") : undefined;
    this.#block = {};
    this.#data = [];
    this.#tell(block);
  }
}

// Positions.

/** escapeTopic writes a topic as joined positions have it: of ASCII, letters, digits and -._~/: stand for themselves. */
function escapeTopic(topic) {
  return encodeURIComponent(topic).replace(/%2F/g, "/").replace(/%3A/g, ":")
    .replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());
}

function joinPositions(positions) {
  return Array.from(positions, ([topic, position]) => `${escapeTopic(topic)}=${position}`).join(",");
}

function splitPositions(joined) {
  return new Map(joined.split(",").map((entry) => {
    const at = entry.indexOf("=");
    return [decodeURIComponent(entry.slice(0, at)), entry.slice(at + 1)];
  }));
}

// The page, if there is one.

/** watchPage tells when the page is put away ("hide"), comes back ("show"), or there is a reason to look ("wake"). */
function watchPage(tell) {
  const added = [];
  const on = (target, type, listener) => {
    if (typeof target?.addEventListener !== "function") return;
    target.addEventListener(type, listener);
    added.push(() => target.removeEventListener(type, listener));
  };
  const { document } = globalThis;
  on(globalThis, "online", () => tell("wake"));
  if (document) {
    on(globalThis, "pageshow", ({ persisted }) => { if (persisted) tell("show"); });
    on(globalThis, "pagehide", () => tell("hide"));
    on(document, "visibilitychange", () => { if (document.visibilityState === "visible") tell("wake"); });
    on(document, "resume", () => tell("wake"));
  }
  return () => { for (const remove of added) remove(); };
}

/** isOffline says what the browser says, but this device is there without a network, too. */
function isOffline({ hostname }) {
  return globalThis.navigator?.onLine === false && !/^(localhost|.*\.localhost|127\.[0-9.]+|\[::1\])$/.test(hostname);
}

// Small things.

let channel;
const later = [];

/** soon calls f when what is there already has been worked off. Timers would be slowed down in hidden tabs. */
function soon(f) {
  if (typeof setImmediate === "function") return void setImmediate(f);
  if (typeof MessageChannel === "undefined" || !(globalThis.document || globalThis.WorkerGlobalScope) || globalThis.Deno) return void setTimeout(f, 0);
  if (!channel) {
    channel = new MessageChannel();
    channel.port1.onmessage = () => later.shift()();
  }
  later.push(f);
  channel.port2.postMessage(0);
}

function withResolvers() {
  let resolve, reject;
  const promise = new Promise((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
}

/** retryOf takes an advice only if it is one. */
function retryOf(ms) { return Number.isFinite(ms) && ms >= 0 ? ms : undefined; }

/** retryAfter reads the header Retry-After: seconds, or a date. */
function retryAfter(value) {
  if (!value) return undefined;
  const ms = /^[0-9]+$/.test(value) ? Number(value) * seconds : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** sentence is what an answer says, if that is text, and not a page. */
async function sentence(response) {
  const name = `${response.status} ${response.statusText}`.trim();
  if (!/^text\/plain\b/i.test(response.headers.get("content-type") ?? "")) return name;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let chunk; text.length < 1000 && !(chunk = await reader.read()).done;) text += chunk.value;
  reader.cancel().catch(() => {});
  return text.slice(0, 1000).trim() || name;
}

function byteLength(data) { return typeof data === "string" ? new TextEncoder().encode(data).length : data.length; }

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function toBase64(bytes) {
  if (bytes.toBase64) return bytes.toBase64();
  let binary = "";
  for (let i = 0; i < bytes.length; i += 0x8000) binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(binary);
}
