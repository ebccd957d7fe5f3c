// What tailcast.js does at which time, with a WebSocket and a fetch that do what they are told, and clocks that stand still:
// node --test clients/tailcastjs.test.mjs
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createParser } from "eventsource-parser";
import { EventStreamParser, follow, FollowError } from "../../viewer/tailcast/tailcast.js";

const settled = () => new Promise((resolve) => setImmediate(resolve));
const began = Date.UTC(2025, 0, 1);
const seconds = 1000;

let sockets, requests, random, page, hosts = 0, streams;

class FakeSocket {
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols, protocol: "", sent: [], closed: false });
    sockets.push(this);
  }
  open(protocol = "tailcast.v1") {
    this.protocol = protocol;
    this.onopen?.({});
    return this;
  }
  tell(...envelopes) {
    for (const e of envelopes) this.onmessage?.({ data: typeof e === "string" ? e : JSON.stringify(e) });
    return this;
  }
  end(code, reason = "") { this.onclose?.({ code, reason }); }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() { this.closed = true; }
}

// A fake fetch notes the request; the test answers it.
function fakeFetch(url, init) {
  const request = { url: new URL(url), init };
  requests.push(request);
  return new Promise((resolve, reject) => {
    init.signal.addEventListener("abort", () => reject(init.signal.reason));
    request.fail = (message) => reject(new TypeError(message));
    request.answer = async (status, body, headers = {}) => {
      resolve(new Response(body, { status, headers }));
      await settled();
    };
    request.stream = async () => {
      let controller;
      const body = new ReadableStream({ start: (c) => { controller = c; } });
      request.tell = async (text) => {
        controller.enqueue(new TextEncoder().encode(text));
        await settled();
      };
      request.end = async () => {
        controller.close();
        await settled();
      };
      await request.answer(200, body, { "content-type": "text/event-stream" });
    };
  });
}

beforeEach(() => {
  sockets = [];
  requests = [];
  streams = [];
  random = 0.5;
  page = new EventTarget();
  page.visibilityState = "visible";
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: began });
  mock.method(Math, "random", () => random);
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = fakeFetch;
  globalThis.document = page;
  for (const name of ["addEventListener", "removeEventListener"]) globalThis[name] = page[name].bind(page);
  Object.defineProperty(globalThis, "navigator", { value: { onLine: true }, configurable: true });
});

afterEach(() => {
  for (const s of streams) s.close();
  mock.timers.reset();
  mock.restoreAll();
});

// begin follows at a host of its own, since what gets through to a host is remembered; it notes all events.
async function begin(options = {}, path = "/logs") {
  const stream = follow(`http://h${++hosts}.test${path}`, options);
  streams.push(stream);
  stream.log = [];
  for (const type of ["message", "gap", "batch", "state", "pos", "join", "leave", "bye", "error"]) {
    stream.addEventListener(type, (e) => stream.log.push(e));
  }
  await settled();
  return stream;
}

const newest = (list) => list[list.length - 1];
const states = (stream) => stream.log.filter((e) => e.type === "state").map((e) => e.state);
const data = (stream) => stream.log.filter((e) => e.type === "message").map((e) => e.message.data);
const pos = (id, topic = "a") => ({ event: "pos", topic, id });
const message = (id, text = id, topic = "a") => ({ id, topic, time: "2025-01-01T00:00:00.123456789Z", data: text });
const pass = async (ms) => {
  for (; ms > 0; ms -= 250) { // Date jumps to the end of a tick
    mock.timers.tick(Math.min(ms, 250));
    await settled();
  }
};
const shown = (type, detail) => page.dispatchEvent(Object.assign(new Event(type), detail));

test("what comes is handed out, each once and in order, to events, batches and loops", async () => {
  const s = await begin();
  const loop = (async () => {
    const all = [];
    for await (const m of s) all.push(m);
    return all;
  })();
  await settled();
  sockets[0].open().tell(pos("1"), message("2"), { event: "gap", topic: "a", from: "2", to: "5", count: 3, bytes: 9, reason: "gone" },
    message("6"), { event: "new", topic: "a" }, { id: "7", topic: "a", data: "/wA=", b64: true }, { topic: "a", data: "for you" },
    { id: "8", topic: "a", data: "par", partial: true });
  assert.deepEqual(data(s), ["2", "6", new Uint8Array([255, 0]), "for you", "par"]);
  assert.equal(s.log.filter((e) => e.type === "batch").length, 0);
  await settled();
  const batches = s.log.filter((e) => e.type === "batch");
  assert.equal(batches.length, 1);
  s.close();
  assert.deepEqual(await loop, batches[0].messages);
  assert.deepEqual(batches[0].messages[1], { event: "gap", topic: "a", from: "2", to: "5", count: 3, bytes: 9, possible: false, reason: "gone" });
  assert.deepEqual(batches[0].messages[0], { id: "2", topic: "a", time: "2025-01-01T00:00:00.123456789Z", data: "2" });
  assert.equal(batches[0].messages[5].partial, true);
  assert.equal(s.received, 5);
  assert.equal(s.since, "a=8");
  assert.equal(sockets[0].closed, true);
});

test("it asks for what it was told to ask for", async () => {
  await begin({ topics: ["a", "b/ c"], since: { a: "1x" }, tail: 5, grep: "é+", invert: true, gaps: false, params: { size: "2" } }, "/logs?key=k#top");
  const { url, protocols } = sockets[0];
  assert.equal(url.protocol, "ws:");
  assert.equal(url.hash, "");
  assert.deepEqual([...url.searchParams], [["key", "k"], ["size", "2"], ["tail", "5"], ["grep", "é+"], ["invert", "1"], ["gaps", "0"],
    ["topic", "a"], ["topic", "b/ c"], ["since", "a=1x"]]);
  assert.deepEqual(protocols, ["tailcast.v1"]);
  assert.throws(() => follow("ftp://x.test/"), TypeError);
  assert.throws(() => follow("http://x.test/", { transport: "smoke" }), TypeError);
});

for (const [name, options, told, want] of [
  ["nothing was said", {}, [], {}],
  ["a tail and nothing came", { tail: 9 }, [], { tail: "9" }],
  ["a position of each topic", { topics: ["a", "ü=,"] }, [pos("1"), message("2"), pos("3", "ü=,"), { event: "gap", topic: "ü=,", to: "4" }], { since: "a=2,%C3%BC%3D%2C=4" }],
  ["earliest, and one topic has said nothing yet", { topics: ["a", "b"], since: "earliest" }, [pos("1")], { since: "a=1,b=earliest" }],
  ["earliest of unknown topics, and nothing came", { since: "earliest" }, [pos("1")], { since: "earliest" }],
  ["earliest of unknown topics, and something came", { since: "earliest" }, [pos("1"), message("2")], { since: "a=2", tail: "2147483647" }],
  ["latest of unknown topics", { since: "latest" }, [pos("1")], { since: "a=1", tail: "0" }],
  ["one position", { topics: ["a"], since: "1x" }, [], { since: "a=1x" }],
  ["a joined one", { since: "a=1x,b=1y" }, [pos("2x")], { since: "a=2x,b=1y" }],
  ["a gap without an end", {}, [pos("1"), { event: "gap", topic: "a", count: -1 }], { since: "a=1" }],
  ["who came and went", {}, [pos("1"), { event: "join", topic: "a", user: "u", id: "2" }, { event: "leave", topic: "a", user: "u", id: "3" }], { since: "a=3" }],
]) {
  test(`it comes back to where it was: ${name}`, async () => {
    const s = await begin({ transport: "websocket", ...options });
    sockets[0].open().tell(...told).end(1006);
    if (told.length === 0) { // it has asked why
      await requests.at(-1)?.fail("gone");
      await settled();
    }
    s.retry();
    await settled();
    const query = Object.fromEntries(sockets[1].url.searchParams);
    delete query.topic;
    assert.deepEqual(query, want);
  });
}

test("the backoff is full jitter between 0 and a bound that doubles, and begins anew after a connection that lasted", async () => {
  const s = await begin({ transport: "sse", minDelay: 100, maxDelay: 1000 });
  const wait = async () => {
    requests.at(-1).fail("no network");
    await settled();
    return newest(s.log).retryAt - Date.now();
  };
  random = 0.999;
  const bounds = [];
  for (let i = 0; i < 6; i++) {
    bounds.push(Math.ceil(await wait()));
    await pass(1000);
  }
  assert.deepEqual(bounds, [200, 400, 800, 1000, 1000, 1000].map((ms) => Math.ceil(ms * 0.999)));
  random = 0;
  assert.equal(await wait(), 0);
  await pass(1);
  await requests.at(-1).stream();
  await requests.at(-1).tell("id: 1x\n\n");
  assert.equal(s.state, "open");
  await requests.at(-1).end();
  random = 0.999;
  await pass(1);
  assert.equal(Math.ceil(await wait()), 999, "a connection that did not last does not count");
  await pass(1000);
  await requests.at(-1).stream();
  await requests.at(-1).tell("id: 1x\n\n");
  await pass(6 * seconds);
  await requests.at(-1).end();
  assert.equal(Math.ceil(newest(s.log).retryAt - Date.now()), 100);
});

test("bye is honoured, also when the page is shown; retry is not held up by it", async () => {
  const s = await begin();
  sockets[0].open().tell(pos("1"), { event: "bye", code: 1001, reason: "restart", retry: 2500 });
  assert.deepEqual(states(s), ["connecting", "open", "waiting"]);
  assert.equal(newest(s.log).retryAt - Date.now(), 2500);
  assert.equal(newest(s.log).reason, "restart");
  assert.equal(sockets[0].closed, true);
  for (let i = 0; i < 24; i++) {
    await pass(100);
    shown("visibilitychange");
    shown("online");
  }
  assert.equal(sockets.length, 1);
  await pass(100);
  assert.equal(sockets.length, 2);
  sockets[1].open().tell(pos("1"), { event: "bye", code: 1001, reason: "restart", retry: 2500 });
  s.retry();
  assert.equal(sockets.length, 3);
  assert.equal(s.log.some((e) => e.type === "error"), false);
});

test("Retry-After is honoured, in seconds and as a date", async () => {
  for (const header of ["7", new Date(began + 7 * seconds).toUTCString()]) {
    const s = await begin({ transport: "sse" });
    await requests.at(-1).answer(503, "too many\n", { "content-type": "text/plain; charset=utf-8", "retry-after": header });
    assert.equal(newest(s.log).retryAt - began, 7 * seconds);
    assert.equal(newest(s.log).reason, "too many");
  }
});

test("a page that is shown, and a network that is back, end the wait at once, but not again and again", async () => {
  for (const [type, detail] of [["visibilitychange"], ["online"], ["resume"]]) {
    const s = await begin({ transport: "sse", minDelay: 20 * seconds });
    const before = requests.length;
    requests.at(-1).fail("no network");
    await pass(1500);
    shown(type, detail);
    await settled();
    assert.equal(requests.length, before + 1, type);
    requests.at(-1).fail("no network");
    for (let i = 0; i < 100; i++) {
      await settled();
      shown(type, detail);
      if (i % 10 === 9) {
        await pass(100);
        requests.at(-1).fail("no network");
      }
    }
    assert.equal(requests.length, before + 2, `${type}, a hundred times in a second`);
    s.close();
  }
});

test("a page that is put away lets go of its connection, and has one at once when it comes back", async () => {
  const s = await begin();
  sockets[0].open().tell(pos("1"), message("2"));
  shown("pagehide", { persisted: true });
  assert.equal(sockets[0].closed, true);
  assert.equal(s.state, "waiting");
  await pass(60 * seconds);
  shown("online");
  assert.equal(sockets.length, 2, "a page that hears of networks is there");
  shown("pagehide", { persisted: true });
  shown("pageshow", { persisted: true });
  assert.equal(sockets.length, 3);
  assert.equal(sockets[2].url.searchParams.get("since"), "a=2");
  sockets[0].tell(message("3"));
  sockets[1].open().tell(message("3"));
  assert.deepEqual(data(s), ["2"], "connections that were given up say nothing any more");
});

test("offline it waits for the network, but tries now and then, and does not believe it of this device", async () => {
  navigator.onLine = false;
  const s = await begin({ transport: "sse" });
  assert.equal(requests.length, 0);
  assert.equal(newest(s.log).reason, "the device is offline");
  await pass(29 * seconds);
  assert.equal(requests.length, 0);
  await pass(1 * seconds);
  assert.equal(requests.length, 1);
  requests[0].fail("no network");
  await settled();
  await pass(1 * seconds);
  assert.equal(requests.length, 1);
  navigator.onLine = true;
  shown("online");
  assert.equal(requests.length, 2);
  s.close();
  navigator.onLine = false;
  for (const host of ["localhost", "127.0.0.1:81", "[::1]:82", "x.localhost"]) {
    const local = follow(`http://${host}/`, { transport: "sse" });
    streams.push(local);
    await settled();
    assert.equal(requests.at(-1).url.host, host);
  }
});

test("a connection without a byte for 40 seconds is dead; one that is asked, and answers, is not", async () => {
  const s = await begin();
  sockets[0].open().tell(pos("1"));
  for (let i = 0; i < 20; i++) {
    await pass(15 * seconds);
    sockets[0].tell(pos("1"));
  }
  assert.equal(sockets[0].sent.length, 0);
  let quiet = 0;
  for (; s.state === "open"; quiet++) await pass(1 * seconds);
  assert.ok(quiet >= 40 && quiet <= 45, `${quiet} s`);
  assert.deepEqual(sockets[0].sent, [{ type: "ping", ref: -1 }]);
  assert.equal(newest(s.log).reason, "the connection is dead");
  await pass(1 * seconds);
  sockets[1].open().tell(pos("1"));
  for (let i = 0; i < 300; i++) {
    await pass(1 * seconds);
    for (const { ref } of sockets[1].sent.splice(0)) sockets[1].tell({ event: "error", reason: "unknown type", ref });
  }
  assert.equal(s.state, "open");
  assert.equal(s.log.filter((e) => e.type === "error").length, 1);
});

test("a tab that was frozen does not take its sleep for the server's silence, but asks", async () => {
  const s = await begin();
  sockets[0].open().tell(pos("1"));
  for (let i = 0; i < 10; i++) {
    mock.timers.setTime(Date.now() + 3600 * seconds); // the clock went on, the timers did not
    await pass(5 * seconds);
    assert.equal(s.state, "open");
    assert.equal(sockets[0].sent.length, i + 1);
    sockets[0].tell({ event: "error", reason: "unknown type", ref: -1 });
    await pass(5 * seconds);
  }
  mock.timers.setTime(Date.now() + 3600 * seconds);
  await pass(5 * seconds);
  assert.equal(s.state, "open");
  await pass(5 * seconds);
  assert.notEqual(s.state, "open", "nobody has answered");
  s.close();

  const sse = await begin({ transport: "sse" });
  await requests.at(-1).stream();
  await requests.at(-1).tell("id: 1x\n\n");
  mock.timers.setTime(Date.now() + 3600 * seconds);
  await pass(19 * seconds);
  assert.equal(sse.state, "open", "an event stream cannot be asked: it has until its next heartbeat");
  await requests.at(-1).tell(": hb\n\n");
  await pass(30 * seconds);
  assert.equal(sse.state, "open");
});

test("when the page is shown an open connection is asked whether it is alive", async () => {
  const s = await begin();
  sockets[0].open().tell(pos("1"));
  for (let i = 0; i < 50; i++) shown("visibilitychange");
  assert.deepEqual(sockets[0].sent, [{ type: "ping", ref: -1 }]);
  await pass(5 * seconds);
  assert.equal(s.state, "waiting");
});

test("a handshake that never ends, or brings nothing, is given up, and an event stream is tried", async () => {
  for (const open of [false, true]) {
    const s = await begin({ minDelay: 20 * seconds });
    if (open) sockets.at(-1).open();
    const before = requests.length;
    await pass(9 * seconds);
    assert.equal(requests.length, before);
    if (open) assert.equal(sockets.at(-1).sent[0].type, "ping");
    await pass(3 * seconds);
    if (open) { // it may have been cut: once more
      assert.equal(s.state, "waiting");
      s.retry();
      sockets.at(-1).open();
      await pass(12 * seconds);
    }
    assert.equal(requests.length, before + 1);
    await requests.at(-1).stream();
    await requests.at(-1).tell("retry: 2000\n\nid: 1x\n\n");
    assert.equal(s.transport, "sse");
    const opened = sockets.length;
    await requests.at(-1).end();
    s.retry();
    assert.equal(requests.length, before + 2, "what works is kept");
    await requests.at(-1).stream();
    await requests.at(-1).tell("id: 1x\n\n");
    assert.equal(sockets.length, opened);
    for (let i = 0; i < 6; i++) {
      assert.equal(sockets.length, opened);
      await pass(10 * seconds);
      if (i !== 2) {
        await requests.at(-1).tell(": hb\n\n");
        continue;
      }
      await requests.at(-1).end();
      s.retry();
      await requests.at(-1).stream();
      await requests.at(-1).tell("id: 1x\n\n");
    }
    assert.equal(sockets.length, opened + 1, "a WebSocket is tried again after a while, beside the stream");
    assert.equal(sockets.at(-1).url.searchParams.get("tail"), "0");
    assert.equal(s.state, "open");
    sockets.at(-1).end(1006);
    await requests.at(-1).tell(": hb\n\n");
    assert.equal(s.state, "open");
    s.close();
  }
});

test("what answers a handshake and does not speak tailcast.v1 is no hub", async () => {
  const s = await begin();
  sockets[0].open("");
  assert.equal(requests.length, 1);
  await requests[0].answer(200, "<!doctype html>", { "content-type": "text/html" });
  assert.equal(s.state, "waiting");
  assert.equal(newest(s.log).reason, "the answer is text/html, and not an event stream");
});

test("codes and statuses that another attempt would not change are final", async () => {
  for (const code of [1008, 4401, 4403, 4408]) {
    const s = await begin();
    const it = s[Symbol.asyncIterator]();
    sockets.at(-1).open().tell(message("1")).end(code, "no");
    assert.equal(s.state, "closed");
    assert.equal((await it.next()).value.id, "1", "what has come is read before the end");
    await assert.rejects(it.next(), (e) => e instanceof FollowError && e.code === code && e.message === "no");
    assert.deepEqual(await it.next(), { value: undefined, done: true });
    await assert.rejects(s[Symbol.asyncIterator]().next(), FollowError);
  }
  for (const code of [1000, 1001, 1006, 1011, 1013, 4000]) {
    const s = await begin();
    sockets.at(-1).open().tell(message("1")).end(code, "perhaps");
    assert.equal(s.state, "waiting", code);
    s.close();
  }
  for (const status of [400, 401, 403, 404, 410, 451]) {
    const s = await begin();
    sockets.at(-1).onerror({});
    await requests.at(-1).answer(status, "because\n", { "content-type": "text/plain" });
    assert.equal(s.state, "closed");
    assert.deepEqual([newest(s.log).reason, s.log.at(-2).error.status], ["because", status]);
  }
  for (const status of [408, 429, 500, 502, 503]) {
    const s = await begin();
    sockets.at(-1).onerror({});
    await requests.at(-1).answer(status, "<h1>because</h1>", { "content-type": "text/html" });
    assert.equal(s.state, "waiting", status);
    assert.match(newest(s.log).reason, new RegExp(`^${status}`));
    s.close();
  }
});

test("a token goes into the handshake, and 401 to a request that has no place for it is not final", async () => {
  let n = 0;
  const s = await begin({ token: async () => `tök${++n}` });
  assert.deepEqual(sockets[0].protocols, ["tailcast.v1", "tailcast.token", Buffer.from("tök1").toString("base64url")]);
  sockets[0].end(1006);
  await requests[0].answer(401, "who are you?", { "content-type": "text/plain" });
  assert.equal(s.state, "waiting");
  s.retry();
  await settled();
  assert.deepEqual(sockets[1].protocols[2], Buffer.from("tök2").toString("base64url"));
});

test("a message that was there already is dropped and counted", async () => {
  const s = await begin();
  sockets[0].open().tell(pos("1"), message("2"), pos("1", "b")).end(1006);
  s.retry();
  sockets[1].open().tell(message("2"), message("3"), message("3", "again"), message("1", "1", "b"));
  assert.deepEqual(data(s), ["2", "3", "again"], "equal positions later on are a file that was written anew");
  assert.equal(s.duplicates, 2);

  const sse = await begin({ transport: "sse", topics: ["a"] });
  await requests.at(-1).stream();
  await requests.at(-1).tell("id: 1\n\ndata: two\nid: 2\n\n");
  await requests.at(-1).end();
  sse.retry();
  await requests.at(-1).stream();
  await requests.at(-1).tell("id: 2\n\ndata: two\nid: 2\n\ndata: three\nid: 3\n\n");
  assert.deepEqual(data(sse), ["two", "three"]);
  assert.equal(sse.duplicates, 1);
});

test("an event stream with several topics: each message has its topic's position, and one sent to this client alone has none", async () => {
  const s = await begin({ transport: "sse", topics: ["a", "b,c"] });
  await requests[0].stream();
  await requests[0].tell("retry: 2000\n\nid: a=1,b%2Cc=7\n\n");
  await requests[0].tell("topic: a\ndata: x\nid: a=2,b%2Cc=7\n\ntopic: b,c\ndata: y\nid: a=2,b%2Cc=8\n\ntopic: a\ndata: direct\nid: a=2,b%2Cc=8\n\n");
  await requests[0].tell('event: gap\ndata: {"event":"gap","topic":"a","to":"5","count":3,"bytes":4}\nid: a=5,b%2Cc=8\n\n');
  const got = s.log.filter((e) => e.type === "message").map((e) => [e.message.topic, e.message.id, e.message.data]);
  assert.deepEqual(got, [["a", "2", "x"], ["b,c", "8", "y"], ["a", undefined, "direct"]]);
  assert.equal(s.since, "a=5,b%2Cc=8");
  await requests[0].end();
  s.retry();
  assert.equal(requests[1].url.searchParams.get("since"), "a=5,b%2Cc=8");
  assert.equal(requests[1].init.headers["last-event-id"], undefined);
});

test("a stream that stood before the first message says so in the header, which declares what is missing", async () => {
  const s = await begin({ transport: "sse", topics: ["a"], headers: { "X-Key": "k" } });
  await requests[0].stream();
  await requests[0].tell("id: earliest\n\n");
  await requests[0].end();
  s.retry();
  assert.equal(requests[1].init.headers["last-event-id"], "a=earliest");
  assert.equal(requests[1].init.headers["x-key"], "k");
  assert.equal(requests[1].init.credentials, "same-origin");
});

test("what cannot be read ends the connection, and not the stream", async () => {
  const s = await begin();
  sockets[0].open().tell(message("1"), "{", message("2"));
  assert.equal(s.state, "waiting");
  assert.deepEqual(data(s), ["1"]);
  const sse = await begin({ transport: "sse" });
  await requests[0].stream();
  await requests[0].tell("event: gap\ndata: {\n\n");
  assert.equal(sse.state, "waiting");
});

test("nothing comes after close, whoever closes", async () => {
  for (const type of ["message", "batch", "gap", "state", "error"]) {
    const s = await begin();
    let after = 0, closed = false;
    s.addEventListener(type, () => {
      s.close();
      closed = true;
    });
    s.log.length = 0;
    sockets.at(-1).open().tell(message("1"), { event: "gap", topic: "a" }, message("2"));
    await settled();
    sockets.at(-1).end(1006);
    await settled();
    assert.equal(closed, true, type);
    assert.equal(newest(s.log).state, "closed", type);
    const handed = s.log.filter((e) => e.type === "batch").flatMap((e) => e.messages);
    assert.deepEqual(handed, s.log.filter((e) => e.type === "message" || e.type === "gap").map((e) => e.message ?? e.gap), `${type}: batches are complete`);
    after = s.log.length;
    await pass(60 * seconds);
    assert.equal(s.log.length, after);
  }
  const controller = new AbortController();
  const s = await begin({ signal: controller.signal });
  const loop = (async () => { for await (const m of s) assert.fail(m); })();
  controller.abort();
  await loop;
  assert.equal(s.state, "closed");
  const dead = await begin({ signal: AbortSignal.abort() });
  assert.equal(dead.state, "closed");
  assert.equal((await dead[Symbol.asyncIterator]().next()).done, true);
});

test("a listener that throws is reported, and the others go on", async () => {
  const s = await begin();
  const reported = [];
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.on("uncaughtException", (e) => reported.push(e.message));
  s.addEventListener("message", () => { throw new Error("mine"); });
  const later = [];
  s.addEventListener("message", (e) => later.push(e.message.data));
  sockets[0].open().tell(message("1"), message("2"));
  await settled();
  await settled();
  process.removeAllListeners("uncaughtException");
  for (const l of listeners) process.on("uncaughtException", l);
  assert.deepEqual(later, ["1", "2"]);
  assert.deepEqual(reported, ["mine", "mine"]);
  assert.equal(s.since, "a=2");
});

test("commands have answers, in any order; those that lose their connection say that nobody knows", async () => {
  const s = await begin();
  await assert.rejects(s.publish("a", "early"), /connecting/);
  sockets[0].open().tell(pos("1"));
  const first = s.publish("a", new Uint8Array([255]), { others: true }), second = s.subscribe("b", { tail: 3 });
  assert.deepEqual(sockets[0].sent, [
    { type: "publish", topic: "a", data: "/w==", b64: true, others: true, ref: 1 }, { type: "subscribe", topic: "b", tail: 3, ref: 2 }]);
  sockets[0].tell({ event: "ok", ref: 2 }, pos("9", "b"), { event: "error", reason: "not you", ref: 1 });
  await second;
  await assert.rejects(first, /not you/);
  const third = s.unsubscribe("a");
  sockets[0].tell({ event: "ok", ref: 3 });
  await third;
  const fourth = s.publish("b", "x");
  sockets[0].end(1006);
  await assert.rejects(fourth, /nobody knows/);
  s.retry();
  assert.deepEqual(sockets[1].url.searchParams.getAll("topic"), ["b"]);
  assert.equal(sockets[1].url.searchParams.get("since"), "b=9");
  sockets[1].open().tell(pos("9", "b"));
  const fifth = s.publish("b", "x");
  s.close();
  await assert.rejects(fifth, /closed/);
});

test("a loop that is not read keeps the newest, and tells exactly what it has dropped, topic by topic", async () => {
  const s = await begin({ buffer: 10 });
  const it = s[Symbol.asyncIterator]();
  sockets[0].open().tell(pos("0"), pos("0", "b"), message("1"));
  assert.equal((await it.next()).value.id, "1");
  const waiting = [it.next(), it.next()];
  sockets[0].tell(message("2", "é"), message("3", "3"));
  assert.deepEqual((await Promise.all(waiting)).map((r) => r.value.id), ["2", "3"]);
  sockets[0].tell(message("4", "éé"), { event: "gap", topic: "a", from: "4", to: "6", count: 2, bytes: 5 }, message("7", "xy", "b"), { event: "gap", topic: "b", to: "8", count: -1, bytes: 3 });
  for (let i = 10; i < 20; i++) sockets[0].tell(message(String(i)));
  const rest = [];
  for (let i = 0; i < 12; i++) rest.push((await it.next()).value);
  assert.deepEqual(rest.slice(0, 2), [
    { event: "gap", topic: "a", from: "3", to: "6", count: 3, bytes: 9, possible: false, reason: "not read" },
    { event: "gap", topic: "b", from: "0", to: "8", count: -1, bytes: 5, possible: false, reason: "not read" }]);
  assert.deepEqual(rest.slice(2).map((m) => m.id), ["10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]);
  assert.equal(it.since, "a=19,b=8");
  await it.return();
  assert.equal(s.state, "closed");
});

test("a loop's queue is cheap however long it is", async () => {
  const s = await begin();
  const it = s[Symbol.asyncIterator]();
  sockets[0].open();
  let next = 0, read = 0;
  for (let round = 0; round < 50; round++) { // it grows to 50 000 and is read meanwhile
    for (let i = 0; i < 2000; i++) sockets[0].tell(message(String(next++)));
    for (let i = 0; i < 1000; i++) assert.equal((await it.next()).value.id, String(read++));
  }
  while (read < next) assert.equal((await it.next()).value.id, String(read++));
});

// The parser.

const pieces = ["data: x\n", "data:y\r\n", "data\r", "data:  z: \n", "id: 1x.2\n", "id\n", "id: a\0b\n", "event: gap\r\n", "event:\n", "retry: 25\n",
  "retry: 2x\n", ": hb\n", ":\r", "\n", "\r\n", "\r", "\n\n", "topic: ü\n", "data: \u{1F600}é\u2028\n", "other: 1\n", "data: {\"a\":1}\n", "\ufeff", "dat", "a: q\r\n\r\n"];

function parsed(chunks) {
  const blocks = [];
  const parser = new EventStreamParser((b) => blocks.push(b));
  for (const chunk of chunks) parser.push(chunk);
  return blocks;
}

test("any split of an event stream gives the same events, which are those of the package eventsource-parser", () => {
  let seed = 20250101;
  const below = (n) => { // the same numbers each time
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor(seed / 2 ** 32 * n);
  };
  let events = 0;
  for (let round = 0; round < 3000; round++) {
    let text = below(4) === 0 ? "\ufeff" : "";
    for (let i = below(30); i >= 0; i--) text += pieces[below(pieces.length)];
    text += "\n\n";
    const bytes = new TextEncoder().encode(text);
    const chunks = [];
    for (let at = 0; at < bytes.length;) {
      const n = below(5) === 0 ? 0 : 1 + below(9);
      chunks.push(bytes.subarray(at, at + n));
      at += n;
    }
    const whole = parsed([bytes]);
    assert.deepEqual(parsed(chunks), whole, JSON.stringify(text));
    const theirs = [];
    const parser = createParser({ onEvent: (e) => theirs.push([e.event || "message", e.data, e.id]) });
    parser.feed(new TextDecoder().decode(bytes));
    const ours = whole.filter((b) => b.data !== undefined).map((b) => [b.event, b.data, b.id]);
    assert.deepEqual(ours, theirs, JSON.stringify(text));
    events += ours.length;
  }
  assert.ok(events > 3000, `${events} events`);
});
