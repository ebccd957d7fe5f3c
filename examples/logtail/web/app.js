// Shows what /logs sends. A log line is text from strangers: it reaches the page through textContent, and in no other way.
"use strict";

const maxRows = 5000; // in the page; older rows go
const retryDelay = 3000; // ms, where EventSource gives up

const at = (id) => document.getElementById(id);
const log = at("log");

const view = {
  topic: null, // null = all
  several: false, // rows say which file they are of
  source: null,
  retry: 0,
  lastID: "",
  rows: [], // in the page
  waiting: [], // not in the page yet, at most maxRows
  lines: 0, // seen
  paused: false,
  follow: true, // keep the newest row in sight
  drawing: false,
};

// --- the stream ---

function connect() {
  clearTimeout(view.retry);
  view.source?.close();
  const query = new URLSearchParams();
  if (view.topic !== null) query.set("topic", view.topic);
  if (view.lastID) query.set("since", view.lastID);
  const source = new EventSource("logs?" + query);
  view.source = source;
  setState("connecting", "connecting");
  source.onopen = () => setState("live", "live");
  source.onmessage = (e) => {
    const topic = note(e.lastEventId);
    view.lines++;
    add({ text: plain(e.data), topic, kind: level(e.data) });
  };
  source.addEventListener("gap", (e) => {
    note(e.lastEventId);
    const gap = parse(e.data);
    add({ text: gapText(gap), topic: gap.topic, kind: "gap" });
  });
  source.addEventListener("bye", (e) => {
    source.said = parse(e.data).reason;
  });
  source.onerror = () => {
    const why = source.said ? ": " + source.said : "";
    if (source.readyState === EventSource.CLOSED) {
      // It never comes back by itself after an answer other than 200, such as a proxy's 502.
      view.retry = setTimeout(connect, retryDelay);
    }
    setState("down", "reconnecting" + why);
  };
}

// note keeps the id to go on from, and returns the topic of its message: with several topics an id is topic=position,… and
// one position has changed. That of the very first message can't be told.
function note(id) {
  const before = places(view.lastID);
  view.lastID = id;
  if (!view.several || before.size === 0) return "";
  const changed = [...places(id)].filter(([topic, pos]) => before.get(topic) !== pos);
  return changed.length === 1 ? decodeURIComponent(changed[0][0]) : "";
}

function places(id) {
  return new Map(id.split(",").filter((p) => p.includes("=")).map((p) => p.split("=", 2)));
}

function setState(state, text) {
  at("state").dataset.state = state;
  at("state").textContent = text;
}

// --- what is said ---

function level(text) {
  const found = /"level":\s*"(\w+)"/.exec(text.slice(0, 400)) ?? /\b(DEBUG|TRACE|WARN|WARNING|ERROR|FATAL|PANIC)\b/.exec(text.slice(0, 80));
  switch (found?.[1].toLowerCase()) {
    case "debug": case "trace": return "debug";
    case "warn": case "warning": return "warn";
    case "error": case "fatal": case "panic": return "error";
  }
  return "";
}

// plain is a line without the colours of a terminal.
function plain(text) {
  return text.replace(/\x1b\[[\d;]*m/g, "");
}

function gapText(gap) {
  const amounts = [];
  if (gap.count >= 0) amounts.push(number(gap.count) + (gap.count === 1 ? " line" : " lines"));
  if (gap.bytes >= 0) amounts.push(number(gap.bytes) + " bytes");
  const amount = amounts.join(", ") || "an unknown number of lines";
  return (gap.possible ? "possibly missing: " : "missing: ") + amount + (gap.reason ? " (" + gap.reason + ")" : "");
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return {};
  }
}

function number(n) {
  return n.toLocaleString("en");
}

// --- rows ---

function add(entry) {
  view.waiting.push(entry);
  if (view.waiting.length > 2 * maxRows) view.waiting = view.waiting.slice(-maxRows);
  draw();
}

// draw shows what waits at the next frame: thousands of lines may come between two.
function draw() {
  if (view.drawing) return;
  view.drawing = true;
  requestAnimationFrame(() => {
    view.drawing = false;
    if (!view.paused) append(view.waiting.splice(0).slice(-maxRows));
    at("pause").textContent = view.paused ? "Resume" + waitingText() : "Pause";
    at("count").textContent = countText();
  });
}

function append(entries) {
  if (entries.length === 0) return;
  at("empty").hidden = true;
  const rows = entries.map(row);
  view.rows.push(...rows);
  for (const old of view.rows.splice(0, Math.max(0, view.rows.length - maxRows))) old.remove();
  log.append(...rows);
  if (view.follow) scrollDown();
}

function row(entry) {
  const div = document.createElement("div");
  div.className = "row " + entry.kind;
  if (view.several && entry.kind !== "gap") div.append(cell("topic", entry.topic));
  const label = view.several && entry.kind === "gap" && entry.topic ? entry.topic + ": " : "";
  div.append(cell("line", label + entry.text));
  return div;
}

function cell(name, text) {
  const span = document.createElement("span");
  span.className = name;
  span.textContent = text;
  return span;
}

function clear() {
  for (const old of view.rows.splice(0)) old.remove();
  view.waiting = [];
  view.lines = 0;
  view.lastID = "";
  view.follow = true;
  at("empty").hidden = false;
  draw();
}

function waitingText() {
  const n = view.waiting.length;
  return n === 0 ? "" : n > maxRows ? " (" + number(maxRows) + "+)" : " (" + number(n) + ")";
}

function countText() {
  if (view.lines === 0) return "no lines yet";
  const shown = view.rows.length >= maxRows ? ", the newest " + number(maxRows) + " shown" : "";
  return number(view.lines) + (view.lines === 1 ? " line" : " lines") + shown;
}

// --- following and pausing ---

function scrollDown() {
  log.scrollTop = log.scrollHeight;
}

log.addEventListener("scroll", () => {
  view.follow = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  at("latest").hidden = view.follow;
});

at("latest").addEventListener("click", () => {
  view.follow = true;
  scrollDown();
});

at("pause").addEventListener("click", () => {
  view.paused = !view.paused;
  at("pause").setAttribute("aria-pressed", view.paused);
  draw();
});

// --- files ---

function tab(label, topic) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.setAttribute("aria-pressed", topic === view.topic);
  button.addEventListener("click", () => {
    for (const b of at("tabs").children) b.setAttribute("aria-pressed", b === button);
    view.topic = topic;
    view.several = topic === null;
    clear();
    connect();
  });
  return button;
}

async function begin() {
  const files = await (await fetch("files")).json();
  if (files.length > 1) {
    view.several = true;
    at("tabs").append(tab("All", null), ...files.map((f) => tab(f.name, f.topic)));
    at("tabs").hidden = false;
  } else {
    at("title").textContent = files[0].name;
  }
  document.title = files.map((f) => f.name).join(", ") + " · logtail";
  connect();
}

begin().catch((err) => setState("down", "failed: " + err.message));
