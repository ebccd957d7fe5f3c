// Searching what is kept. The lines go to a worker, some chunks at a time, newest first, so the page stays awake whatever is looked for.

import { compile } from "./match.js";
import { binary, gap } from "./store.js";

const patience = 2000; // ms for one chunk
const ahead = 4; // chunks at the worker

let policy; // the one that the page's Content-Security-Policy names
function script(name) {
  const url = new URL(name, import.meta.url).href;
  policy ??= globalThis.trustedTypes?.createPolicy("tailcast-viewer", { createScriptURL: (u) => u });
  return policy ? policy.createScriptURL(url) : url;
}

// A Search keeps in each chunk which of its lines match: chunk.matches is {query, lines, upto}. Events: "change".
export class Search extends EventTarget {
  constructor(store) {
    super();
    this.store = store;
    this.query = null; // {text, regex, exact}
    this.error = "";
    this.ranges = new Map(); // by line, for those that can be seen
    this.worker = null;
    this.ready = false; // it has been loaded
    this.sent = []; // {chunk, upto, query} or {rows}, in the order of the answers to come
    this.timer = 0;
    this.changed = 0;
  }

  get active() { return this.query !== null && !this.error; }

  // start looks for something else; an empty text ends the search.
  start(query) {
    this.stop();
    this.error = "";
    this.query = query.text ? query : null;
    if (this.query) {
      try {
        compile(query);
        this.worker = new Worker(script("search-worker.js"), { type: "module" });
        this.worker.onmessage = (e) => this.answer(e.data);
        this.worker.onerror = () => this.fail("The search has failed.");
        this.worker.postMessage({ query });
        this.step();
      } catch (e) {
        this.error = e instanceof SyntaxError ? e.message.replace(/^Invalid regular expression: /, "") : String(e);
      }
    }
    this.dispatchEvent(new Event("change"));
  }

  // again begins anew when the lines have become others, whose numbers may be those of the ones before.
  again() {
    if (this.active) this.start({ ...this.query });
  }

  stop() {
    this.worker?.terminate();
    this.worker = null;
    this.ready = false;
    this.sent = [];
    this.ranges.clear();
    clearTimeout(this.timer);
    this.timer = 0;
    this.query = null;
  }

  fail(why) {
    const query = this.query;
    this.stop();
    this.query = query;
    this.error = why;
    this.dispatchEvent(new Event("change"));
  }

  // step sends what has not been looked at. It is called again when lines have come.
  step() {
    if (!this.worker) return;
    const chunks = this.store.chunks;
    for (let k = chunks.length - 1; k >= 0 && this.sent.length < ahead; k--) {
      const c = chunks[k];
      if (c.matches?.query !== this.query) c.matches = { query: this.query, lines: [], upto: 0, asked: 0 };
      if (c.matches.asked < c.count) this.send(c);
    }
    if (!this.timer) this.watch();
  }

  send(c) {
    const from = c.matches.asked, begin = from ? c.ends[from - 1] : 0;
    const text = c.text === null ? c.texts.slice(from).join("") : c.text.slice(begin);
    this.worker.postMessage({ text, begin, from, ends: c.ends.slice(from, c.count) });
    c.matches.asked = c.count;
    this.sent.push({ chunk: c, upto: c.count, matches: c.matches });
  }

  // watch gives the worker time for its next answer. What is sent meanwhile gives it no more.
  watch() {
    clearTimeout(this.timer);
    this.timer = this.ready && this.sent.length ? setTimeout(() => this.fail("This expression takes too long."), patience * this.sent.length) : 0;
  }

  answer(data) {
    if (data.ready) {
      this.ready = true;
      return this.watch();
    }
    const asked = this.sent.shift();
    if (!asked) return;
    clearTimeout(this.timer);
    this.timer = 0;
    if (data.rows) {
      for (const [n, ranges] of data.rows) this.ranges.set(n, ranges);
      this.dispatchEvent(Object.assign(new Event("ranges"), { rows: data.rows.filter(([, r]) => r.length).map(([n]) => n) }));
    } else {
      const { chunk, matches, upto } = asked;
      for (const i of data.found) {
        if (!(chunk.kinds[i] & (gap | binary))) matches.lines.push(i);
      }
      matches.upto = upto;
      this.tell();
    }
    this.step();
  }

  // tell says that there is something new, some times a second.
  tell() {
    this.changed ||= setTimeout(() => {
      this.changed = 0;
      this.dispatchEvent(new Event("change"));
    }, 100);
  }

  // look asks where it is in rows that can be seen.
  look(numbers) {
    if (!this.worker) return;
    const rows = [];
    for (const n of numbers) {
      if (this.ranges.has(n) || !this.store.has(n)) continue;
      const line = this.store.at(n);
      this.ranges.set(n, []);
      if (!(line.kind & (gap | binary))) rows.push({ n, text: line.text.slice(0, 20000) });
    }
    if (this.ranges.size > 2000) for (const n of [...this.ranges.keys()].slice(0, 1000)) this.ranges.delete(n);
    if (!rows.length) return;
    this.worker.postMessage({ rows });
    this.sent.push({ rows });
    if (!this.timer) this.watch();
  }

  // progress returns {found, looked, of} in lines.
  progress() {
    let found = 0, looked = 0;
    for (const c of this.store.chunks) {
      if (c.matches?.query !== this.query) continue;
      found += c.matches.lines.length;
      looked += c.matches.upto;
    }
    return { found, looked, of: this.store.size };
  }

  // rank is which of the found lines n is, from 1.
  rank(n) {
    let before = 0;
    for (const c of this.store.chunks) {
      if (c.matches?.query !== this.query) continue;
      if (c.end <= n) before += c.matches.lines.length;
      else return before + c.matches.lines.filter((i) => c.first + i <= n).length;
    }
    return before;
  }

  // next returns the found line after n (or before it, if by is -1), and begins again at the other end.
  next(n, by) {
    const chunks = this.store.chunks.filter((c) => c.matches?.query === this.query && c.matches.lines.length);
    if (!chunks.length) return undefined;
    const all = by > 0 ? chunks : chunks.toReversed();
    for (const c of all) {
      if (by > 0 ? c.end <= n : c.first > n) continue;
      const i = by > 0 ? c.matches.lines.find((i) => c.first + i > n) : c.matches.lines.findLast((i) => c.first + i < n);
      if (i !== undefined) return c.first + i;
    }
    return all[0].first + (by > 0 ? all[0].matches.lines[0] : all[0].matches.lines.at(-1));
  }
}
