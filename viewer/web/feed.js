// From the hub to lines: the live stream, and requests for what is older.

import { follow } from "./tailcast.js";
import { binary, gap, partial } from "./store.js";

// The first lines of several topics are gathered, to be merged by their times, until nothing has come for so long, in ms; but not longer
// than that.
const quiet = 150, gathering = 800;

// line makes a message, or a gap, into a line of the store.
export function line(m, store) {
  if (m.event === "gap") return { text: JSON.stringify(m), id: "", time: NaN, topic: store.topic(m.topic), kind: gap };
  let kind = m.partial ? partial : 0, text = m.data;
  if (typeof text !== "string") {
    const read = utf8.decode(text);
    if (isText(read)) text = read;
    else [kind, text] = [kind | binary, bytesToString(text)];
  }
  return { text, id: m.id ?? "", time: m.time ? Date.parse(m.time) : NaN, topic: store.topic(m.topic), kind };
}

const utf8 = new TextDecoder();

// isText says whether bytes that are not UTF-8, or are said to be binary, can be read by people all the same: what cannot be is a byte
// in twenty at most, and nothing of it is what only machines write.
function isText(read) {
  return !/[\x00-\x08\x0e-\x1a\x1c-\x1f]/.test(read) && 20 * (read.split("\ufffd").length - 1) <= read.length;
}

function bytesToString(data) {
  let s = "";
  for (let i = 0; i < data.length; i += 8192) s += String.fromCharCode(...data.subarray(i, i + 8192));
  return s;
}

// merge puts lines of several topics in the order of their times. Those of one topic stay in their order; one without a time stays
// behind the one before it.
export function merge(lines) {
  const queues = new Map();
  for (const l of lines) {
    if (!queues.has(l.topic)) queues.set(l.topic, []);
    queues.get(l.topic).push(l);
  }
  if (queues.size < 2) return lines;
  const heads = [...queues.values()].map((list) => ({ list, at: 0, time: -Infinity }));
  const look = (h) => {
    const t = h.list[h.at]?.time;
    if (t > h.time) h.time = t;
  };
  heads.forEach(look);
  const out = [];
  while (out.length < lines.length) {
    let best = null;
    for (const h of heads) if (h.at < h.list.length && (!best || h.time < best.time)) best = h;
    out.push(best.list[best.at++]);
    look(best);
  }
  return out;
}

// A Feed is one stream into a store. Events: "lines" (event.count), "pos", and "stream", which passes on the
// events that event.about names.
export class Feed extends EventTarget {
  constructor(store) {
    super();
    this.store = store;
    this.stream = null;
    this.lines = 0; // since the page was opened, over all streams
    this.gaps = 0;
    this.bytes = 0;
    this.newest = NaN; // time of the newest message
    this.late = 0; // how much later than the quickest message the newest one came, in ms
    this.skew = Infinity; // the least that a message has been old on arrival: what the clocks differ by, if anything
  }

  // open begins anew, with options of tailcast.js's follow.
  open(hub, options, several) {
    this.close();
    const stream = (this.stream = follow(hub, options));
    let early = several ? [] : null;
    const settle = () => {
      if (stream !== this.stream || !early) return;
      const lines = merge(early);
      early = null;
      this.take(lines);
    };
    let timer = 0;
    const began = Date.now();
    stream.addEventListener("batch", (e) => {
      if (stream !== this.stream) return;
      const lines = this.read(e.messages);
      if (!early) return this.take(lines);
      for (const l of lines) early.push(l);
      clearTimeout(timer);
      if (Date.now() - began > gathering) settle();
      else timer = setTimeout(settle, quiet);
    });
    stream.addEventListener("pos", (e) => {
      if (stream === this.stream) this.dispatchEvent(Object.assign(new Event("pos"), { topic: e.topic, id: e.id }));
    });
    for (const type of ["state", "bye", "error"]) {
      stream.addEventListener(type, (e) => {
        if (stream === this.stream) this.dispatchEvent(Object.assign(new Event("stream"), { about: type, detail: e }));
      });
    }
  }

  // close drops what has come and was not handed out yet.
  close() {
    const stream = this.stream;
    this.stream = null;
    stream?.close();
  }

  // rest ends the stream, and returns where to go on.
  rest() {
    const stream = this.stream;
    stream.close(); // which hands out what has come
    this.stream = null;
    return stream.since ?? "";
  }

  read(messages) {
    const now = Date.now(), lines = [];
    for (const m of messages) {
      const l = line(m, this.store);
      lines.push(l);
      if (l.kind & gap) {
        this.gaps++;
        continue;
      }
      this.lines++;
      this.bytes += l.text.length;
      if (!Number.isNaN(l.time)) this.newest = l.time;
    }
    if (now - this.newest < this.skew) this.skew = now - this.newest;
    this.late = now - this.newest - this.skew || 0;
    return lines;
  }

  take(lines) {
    for (const l of lines) this.store.append(l);
    this.dispatchEvent(Object.assign(new Event("lines"), { count: lines.length }));
  }
}

// url returns the address of a request to the hub.
export function url(hub, { topics, params, grep, invert, since, tail }) {
  const u = new URL(hub, document.baseURI);
  u.protocol = u.protocol.replace(/^ws/, "http");
  const q = u.searchParams;
  for (const [k, v] of Object.entries(params ?? {})) q.set(k, v);
  for (const t of topics ?? []) q.append("topic", t);
  if (grep) q.set("grep", grep);
  if (grep && invert) q.set("invert", "1");
  if (since) q.set("since", since);
  if (tail !== undefined) q.set("tail", tail);
  return u;
}

// check asks the hub whether it takes a request, and returns its sentence if it does not.
export async function check(hub, request) {
  const stop = new AbortController();
  try {
    const r = await fetch(url(hub, { ...request, tail: 0 }), { headers: { accept: "application/x-ndjson" }, signal: stop.signal });
    if (r.status >= 400 && r.status < 500) return (await r.text()).trim();
  } catch { /* no answer is no judgement */ } finally {
    stop.abort();
  }
  return "";
}

// objects yields what an NDJSON response says, until the caller has enough.
async function* objects(address, signal) {
  const response = await fetch(address, { headers: { accept: "application/x-ndjson" }, signal });
  if (!response.ok) throw new Error((await response.text()).trim().slice(0, 300) || `status ${response.status}`);
  let rest = "";
  for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const l of lines) yield JSON.parse(l);
  }
}

const page = 5000; // older lines that are wanted at a time
const silence = 3000; // ms without a line of them: then what is read is live, and what was looked for did not come
export const farthest = 100_000; // lines that a hub reads back: PROTOCOL.md, tail

// older returns lines before those that the store has: {lines, end}, and ids, the last position before them of each topic. They are read from before what was dropped, if something was, and
// else from a tail that doubles until it is longer than what is kept. end says that there are no more: "beginning", or "limit".
export async function older(hub, store, request, reach, signal) {
  const known = store.oldest();
  if (known.size === 0) return { lines: [], end: "beginning", reach };
  const topics = [...known.keys()];
  if (store.marks.length) return { ...(await afterMark(hub, store, request, known, signal)), reach };
  for (let tail = Math.min(farthest, Math.max(reach, store.size) + page); ; tail = Math.min(farthest, 2 * tail)) {
    const r = await until(url(hub, { ...request, topics, since: "", tail }), known, store, signal);
    if (r.lines.some((l) => !(l.kind & gap))) return { lines: r.lines, end: "", reach: tail, ids: above(r, store) };
    if (tail === farthest) return { lines: [], end: store.size >= farthest || request.grep || r.missed ? "limit" : "beginning", reach: tail };
    if (r.read < tail && !request.grep && !r.missed && topics.length === 1) return { lines: [], end: "beginning", reach: tail };
  }
}

// above returns what store.lastIds is when lines that were read stand first.
function above({ lines, begins }, store) {
  const ids = new Map(store.lastIds);
  for (const number of new Set(lines.map((l) => l.topic))) {
    const topic = store.names[number];
    if (begins.has(topic)) ids.set(topic, begins.get(topic));
    else ids.delete(topic);
  }
  return ids;
}

// afterMark reads what was dropped last, some thousands of lines of it.
async function afterMark(hub, store, request, known, signal) {
  let k = store.marks.length, n = 0;
  while (k > 0 && n < page) n += store.marks[--k].count;
  const { ids } = store.marks[k];
  const since = [...known.keys()].map((t) => `${encodeURIComponent(t)}=${ids.get(t) ?? "earliest"}`).join(",");
  const r = await until(url(hub, { ...request, topics: [...known.keys()], since }), known, store, signal);
  return { lines: r.lines, end: "", mark: k, ids };
}

// until reads lines up to the oldest ones that are known. missed says that it has not met one of them: it begins behind it, or that one
// is not there any more. begins has the positions before the first lines, where they are known.
async function until(address, known, store, signal) {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());
  const open = new Set(known.keys()), begun = new Set();
  const begins = new Map();
  const passed = new Set(); // topics whose first line is one that the store has already
  let lines = [], read = 0, silent = false;
  const hush = () => {
    silent = true;
    stop.abort();
  };
  let timer = setTimeout(hush, 3 * silence); // until the first one
  try {
    for await (const o of objects(address, stop.signal)) {
      if (o.event === "pos" && !begun.has(o.topic) && o.id !== "latest") begins.set(o.topic, o.id);
      if (o.event && o.event !== "gap") continue;
      clearTimeout(timer);
      timer = setTimeout(hush, silence);
      if (!open.has(o.topic)) continue;
      read++;
      if (o.id === known.get(o.topic)) {
        open.delete(o.topic);
        if (open.size === passed.size) break;
        continue;
      }
      if (o.id && !begun.has(o.topic)) {
        begun.add(o.topic);
        if (store.find(o.topic, o.id) !== undefined) passed.add(o.topic);
        if (open.size === passed.size) break;
      }
      if (o.b64) o.data = Uint8Array.from(atob(o.data), (c) => c.charCodeAt(0));
      lines.push(line(o, store));
    }
  } catch (e) {
    if (!silent) throw e;
  } finally {
    clearTimeout(timer);
    stop.abort();
  }
  const strange = new Set([...open].map((t) => store.topic(t))); // their place was not found: what was read may be there already
  if (strange.size) lines = lines.filter((l) => !strange.has(l.topic));
  return { lines: merge(lines), begins, read, missed: strange.size > 0 };
}
