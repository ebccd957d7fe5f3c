// The line at the bottom: how the connection is, how far behind, how many lines there are. And what a screen reader is told.

import { count, plural } from "./text.js";

const at = (id) => document.getElementById(id);

export class Status {
  constructor(feed, store) {
    this.feed = feed;
    this.store = store;
    this.state = { state: "connecting" };
    this.seen = 0;
    this.rates = []; // lines of the last seconds
    this.skip = 0; // seconds that do not count: what was there already comes in them
  }

  set(detail) {
    this.state = { state: detail.state, retryAt: detail.retryAt, reason: detail.reason, transport: detail.transport ?? this.state.transport };
    if (detail.state === "open") this.skip = 2;
    this.draw();
  }

  // tick is called each second.
  tick() {
    if (this.skip > 0) this.rates = [];
    else this.rates.push(this.feed.lines - this.seen);
    this.skip--;
    this.seen = this.feed.lines;
    if (this.rates.length > 5) this.rates.shift();
    this.draw();
  }

  get rate() { return this.rates.length ? this.rates.reduce((a, b) => a + b) / this.rates.length : 0; }

  draw() {
    const { state, retryAt, transport } = this.state;
    at("state").dataset.state = state;
    write(at("state").querySelector(".words"), this.words());
    at("state").title = state === "open" ? `connected by ${transport === "sse" ? "Server-Sent Events" : "WebSocket"}` : "";
    at("retry").hidden = state !== "waiting" && state !== "closed";
    const s = state === "waiting" && retryAt ? Math.max(1, Math.ceil((retryAt - Date.now()) / 1000)) : 0;
    write(at("countdown"), s ? `again in ${s} s` : "");
    const { late } = this.feed;
    write(at("lag"), state === "open" && this.rate > 0 && late > 1000 ? `${(late / 1000).toFixed(1)} s behind` : "");
    write(at("rate"), this.rate > 0 ? `${count(Math.ceil(this.rate))} lines/s` : "");
    const { size, dropped } = this.store;
    write(at("kept"), plural(size, "line") + (dropped ? `, ${count(dropped)} older dropped` : ""));
  }

  words() {
    const { state, reason } = this.state;
    const why = reason ? `: ${String(reason).slice(0, 200)}` : "";
    switch (state) {
      case "open": return "live";
      case "waiting": return "not connected" + why;
      case "held": return "resting: what comes is kept by the server";
      case "closed": return "ended" + why;
    }
    return "connecting" + why;
  }
}

function write(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// An Announcer reads new lines to screen readers while they come slowly, and their number when they do not.
export class Announcer {
  constructor(root) {
    this.root = root;
    this.on = false;
    this.waiting = [];
    this.count = 0;
    this.last = 0;
  }

  add(n, texts) {
    if (!this.on) return;
    this.count += n;
    if (this.waiting.length < 4) this.waiting.push(...texts.slice(0, 4));
  }

  // tick is called each second.
  tick() {
    if (!this.on || this.count === 0 || document.hidden) return;
    const slow = this.count <= 3;
    if (!slow && Date.now() - this.last < 10_000) return;
    this.last = Date.now();
    this.root.textContent = slow ? this.waiting.map((t) => t.slice(0, 300)).join("\n") : plural(this.count, "new line");
    this.waiting = [];
    this.count = 0;
  }
}
