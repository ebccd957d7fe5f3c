/** A position in a topic: opaque, to be compared for equality only, or "earliest" (all that can be had) or "latest" (from now on). */
export type Position = string;

export interface Message {
  /** Its position. Undefined if it has none: it was sent to this client alone. */
  id: Position | undefined;
  topic: string;
  /** When it was published: RFC 3339 in UTC, up to nanoseconds. Undefined if it is not known, as in all event streams. */
  time: string | undefined;
  /** The payload: bytes if it is binary or not UTF-8. In an event stream it is always text: see README.md. */
  data: string | Uint8Array;
  /** Set if it is a part of a line that goes on in the topic's next message. */
  partial?: true;
  event?: undefined;
}

/** Messages are missing at this place. */
export interface Gap {
  event: "gap";
  topic: string;
  /** The last message before it, if that is known. */
  from: Position | undefined;
  /** From here on nothing is missing, if that is known. */
  to: Position | undefined;
  /** How many messages are missing: -1 if that is not known. */
  count: number;
  /** How many bytes of payload: -1 if that is not known. */
  bytes: number;
  /** Nobody can know whether anything is missing. */
  possible: boolean;
  /** A sentence for people. "not read" if the loop itself was too slow: see FollowOptions.buffer. */
  reason: string;
}

export interface FollowOptions {
  /** By default those that the server's handler has. */
  topics?: Iterable<string>;
  /** Where to begin: one position for the only topic, or "earliest" or "latest" for all, several joined (Stream.since), or one for each topic. */
  since?: Position | Record<string, Position> | ReadonlyMap<string, Position>;
  /** Where since says nothing: begin with so many of the newest messages. */
  tail?: number;
  /** Only messages that this expression matches: RE2 syntax, at most 256 bytes. The server does it. */
  grep?: string;
  /** Only messages that grep does not match. */
  invert?: boolean;
  /** false: do not tell of gaps. */
  gaps?: boolean;
  /** Further parameters of the query, such as an application's filters. */
  params?: Record<string, string>;
  /** "auto", which is the default, takes WebSockets where they get through, and event streams elsewhere. */
  transport?: "auto" | "websocket" | "sse";
  /** Closes the stream, as close does. */
  signal?: AbortSignal;
  /** Whom the client registers as, if the application wants that. A function is asked for each WebSocket. */
  token?: string | (() => string | Promise<string>);
  /** For event streams only: a WebSocket of a page has no headers of its own. */
  headers?: HeadersInit;
  /** For event streams only. Default: "same-origin". */
  credentials?: RequestCredentials;
  /** The first attempt to come back is made after a random time of at most twice this, in ms. Default: 500. */
  minDelay?: number;
  /** No attempt waits for longer, but where the server says so. In ms; default: 30000. */
  maxDelay?: number;
  /** What brings no byte within this is taken for one that does not get through. In ms; default: 10000. */
  connectTimeout?: number;
  /** A connection without a byte for so long is dead. In ms; default: 40000. A hub says something every 15 s. */
  idleTimeout?: number;
  /** How many messages wait for a loop that does not read. Beyond it the oldest become a gap. Default: 100000. */
  buffer?: number;
}

export type State = "connecting" | "open" | "waiting" | "closed";
export type Transport = "websocket" | "sse";

/** Why a stream has ended, or a command was not carried out. */
export class FollowError extends Error {
  constructor(message: string, detail?: { status?: number; code?: number; cause?: unknown });
  /** The status of an HTTP answer. */
  readonly status: number | undefined;
  /** The code that the connection was closed with. */
  readonly code: number | undefined;
}

/** An event of a Stream: its type, and what TailcastEventMap says of that. */
export class TailcastEvent<D extends object = {}> extends Event {
  constructor(type: string, detail?: D);
}

/** What events have, by type. */
export interface TailcastEventMap {
  message: { readonly message: Message };
  gap: { readonly gap: Gap };
  /** All that has come in one turn of the event loop, in order. */
  batch: { readonly messages: readonly (Message | Gap)[] };
  state: {
    readonly state: State;
    /** With "open". */
    readonly transport?: Transport;
    /** With "waiting": when the next attempt is made, in ms since 1970; undefined until the page comes back. */
    readonly retryAt?: number;
    /** With "waiting" and "closed". */
    readonly reason?: string;
  };
  /** Where the stream stands in a topic, without a message. */
  pos: { readonly topic: string; readonly id: Position };
  join: { readonly topic: string; readonly user: string; readonly id: Position };
  leave: { readonly topic: string; readonly user: string; readonly id: Position };
  /** The server ends the connection. */
  bye: { readonly code: number; readonly reason: string; readonly retry: number };
  /** A connection has failed. If it is final, the stream is closed with this. */
  error: { readonly error: FollowError; readonly reason: string; readonly final: boolean };
}

/** A loop over messages and gaps. */
export interface Iteration extends AsyncIterableIterator<Message | Gap, undefined> {
  /** Where the loop stands: behind the last message that it was given. Fit for FollowOptions.since. */
  readonly since: string | undefined;
  return(): Promise<IteratorResult<Message | Gap, undefined>>;
  [Symbol.asyncIterator](): Iteration;
}

/** A connection to a hub that outlives its connections. */
export class Stream extends EventTarget {
  constructor(url: string | URL, options?: FollowOptions);
  readonly state: State;
  /** While it is open. */
  readonly transport: Transport | undefined;
  /** Where the stream stands in each topic: behind the last message that it has handed out. A copy. */
  readonly positions: Map<string, Position>;
  /** The same in one string, fit for FollowOptions.since. */
  readonly since: string | undefined;
  /** How many messages have come. */
  readonly received: number;
  /** How many came though they had come before. The server should never send one; they are dropped. */
  readonly duplicates: number;
  /** Connects now, if the stream is waiting. */
  retry(): void;
  /** Ends the stream. What has come is still handed out: as a last batch at once, and to loops as they ask. */
  close(): void;
  /** Publishes a message. Resolves when the hub has taken it. WebSocket only. */
  publish(topic: string, data: string | Uint8Array, options?: { others?: boolean; binary?: boolean }): Promise<void>;
  /** Adds a topic, also for all later connections. WebSocket only. */
  subscribe(topic: string, options?: { since?: Position; tail?: number }): Promise<void>;
  /** Takes a topic away, also for all later connections. WebSocket only. */
  unsubscribe(topic: string): Promise<void>;
  [Symbol.asyncIterator](): Iteration;
  addEventListener<K extends keyof TailcastEventMap>(type: K,
    listener: ((event: TailcastEvent & TailcastEventMap[K]) => unknown) | null, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof TailcastEventMap>(type: K,
    listener: ((event: TailcastEvent & TailcastEventMap[K]) => unknown) | null, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** Follows a hub: http, https, ws or wss, or relative to the page. Listeners that are added at once miss nothing. */
export function follow(url: string | URL, options?: FollowOptions): Stream;

/** What stood between two empty lines of an event stream. */
export interface EventStreamBlock {
  /** "message" if it has no name. */
  event: string;
  /** Undefined if it has no data: an EventSource dispatches nothing then. */
  data: string | undefined;
  id?: string;
  topic?: string;
  retry?: number;
}

/** A parser of event streams. It takes bytes, however they are cut. */
export class EventStreamParser {
  constructor(tell: (block: EventStreamBlock) => void);
  push(bytes: Uint8Array): void;
}
