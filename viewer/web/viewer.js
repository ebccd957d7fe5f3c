// The page: what its parts have to do with one another, and with the reader. The parts are
//
//   tailcast.js   the connection          feed.js     messages to lines, older lines      store.js    the lines that are kept
//   layout.js     where each line is      list.js     the rows that can be seen           row.js      one row
//   search.js     searching in a worker   copy.js     copy and download                   status.js   the line at the bottom
//   topics.js     which topics            settings.js what is remembered                  ansi, colour, json, levels, text, time

import * as copy from "./copy.js";
import { Feed, check, farthest, older } from "./feed.js";
import { Layout } from "./layout.js";
import { List } from "./list.js";
import { longest, make, plainOf } from "./row.js";
import { Search } from "./search.js";
import * as settings from "./settings.js";
import { Announcer, Status } from "./status.js";
import { Store, gap } from "./store.js";
import { count, plural } from "./text.js";
import * as time from "./time.js";
import { Topics } from "./topics.js";

const root = document.documentElement;
const at = (id) => document.getElementById(id);
const given = { hub: root.dataset.hub, title: root.dataset.title, tail: Number(root.dataset.tail), topics: root.dataset.topics ? JSON.parse(root.dataset.topics) : null };

const maxBytes = 256 << 20; // of text, as far as it can be told
const slack = 1.1; // while somebody reads, so much more is kept before the stream rests

const prefs = settings.load();
const shown = settings.readAddress(location);
const store = new Store({ lines: prefs.keep, bytes: maxBytes });
const layout = new Layout(store, 20);
const feed = new Feed(store);
const search = new Search(store);
const topics = new Topics(at("topics"), given.topics, shown.topics);
const status = new Status(feed, store);
const announcer = new Announcer(at("announce"));
const view = { scheme: "light", time: prefs.time, now: Date.now(), topics: false, open: new Set(), current: undefined, target: undefined, ranges: null };
const list = new List(at("log"), store, layout, (n) => make(store.at(n), view));
topics.number = (name) => store.topic(name);
topics.draw();

// --- the stream ---

let resting = null; // where to go on, when the stream was closed since somebody reads and there is no more room
let pausedAt = 0; // store.end when following ended
let link = shown.link; // the line that the address points to, until it is there
let reach = 0; // how far back older lines were asked for
let opened = 0;

function request() {
  return { topics: topics.asked, grep: shown.grep, invert: shown.invert, params: shown.params };
}

// open begins with an empty list.
function open() {
  const before = store.size;
  stopOlder();
  resting = null;
  store.clear();
  layout.reset(layout.rowHeight, layout.columns, layout.longest);
  view.open.clear();
  view.current = view.target = undefined;
  search.again();
  list.anchor = { n: 0, offset: 0 };
  list.refresh();
  list.resume();
  pausedAt = 0;
  reach = 0;
  endOfOlder = "";
  opened++;
  const since = link?.since ? { [link.topic]: link.since } : undefined;
  // A tail counts lines before the filter, and what it looks for may be far back.
  connect({ since, tail: shown.grep ? farthest : Math.min(farthest, Math.max(given.tail, before, link ? 10_000 : 0)) });
  if (link) awaitLink();
  drawHead();
}

function connect(place) {
  feed.open(given.hub, { ...request(), gaps: true, ...place }, topics.several || topics.everything);
}

feed.addEventListener("pos", (e) => {
  if (store.size === 0 && !store.lastIds.has(e.topic) && /^1/.test(e.id ?? "")) store.lastIds.set(e.topic, e.id);
});

feed.addEventListener("lines", (e) => {
  if (topics.see(store.names)) {
    fitTopics();
    list.refresh();
  }
  showTopics();
  reachLink();
  if (list.follow) trim();
  else if (store.size > prefs.keep * slack || store.bytes > maxBytes * slack) rest();
  list.schedule();
  search.step();
  drawNewest();
  drawHead();
  at("empty").hidden = store.size > 0;
  if (announcer.on && e.count <= 4) announcer.add(e.count, tailTexts(e.count));
  else announcer.add(e.count, []);
});

feed.addEventListener("stream", ({ about, detail }) => {
  if (about === "state") status.set(detail);
  if (about === "error" && detail.final) notice(detail.reason);
});

// trim drops what is too much. What there is above the first line is another question then, and what is being loaded does not belong there.
function trim() {
  if (store.trim() === 0) return;
  stopOlder();
  endOfOlder = "";
}

// rest lets the server keep what comes: its buffer is the file.
function rest() {
  if (resting !== null || !feed.stream) return;
  resting = "";
  resting = feed.rest();
  status.set({ state: "held" });
}

// fitTopics makes the column of topics as wide as the longest name, within reason.
function fitTopics() {
  const longest = Math.max(2, ...topics.names.map((t) => (t || "default").length));
  list.root.style.setProperty("--topic-width", Math.min(16, longest));
}

function showTopics() {
  const several = topics.several;
  if (several === view.topics) return;
  view.topics = several;
  measure();
  list.refresh();
}

function tailTexts(n) {
  const texts = [];
  for (let i = Math.max(store.first, store.end - n); i < store.end; i++) texts.push(plainOf(store.at(i)));
  return texts;
}

// --- following and pausing ---

list.addEventListener("follow", () => {
  if (list.follow) {
    if (resting !== null) {
      const since = resting;
      resting = null;
      connect({ since });
    }
    trim();
    drawHead();
  } else {
    pausedAt = store.end;
  }
  at("pause").setAttribute("aria-pressed", String(!list.follow));
  drawNewest();
});

function drawNewest() {
  const b = at("newest");
  b.hidden = list.follow || store.size === 0;
  if (b.hidden) return;
  const waiting = Math.max(0, store.end - pausedAt);
  const text = waiting ? `↓ ${plural(waiting, "new line")}${resting === null ? "" : ", and more at the server"}` : "↓ newest";
  if (b.textContent !== text) b.textContent = text;
}

function togglePause() {
  if (list.follow) list.pause(true);
  else list.resume();
}

// --- older lines ---

let loading = null; // an AbortController
let endOfOlder = ""; // "beginning", "limit", or the sentence of a failure

function stopOlder() {
  loading?.abort();
  loading = null;
}

async function loadOlder() {
  if (loading || store.size === 0) return;
  const mine = (loading = new AbortController());
  endOfOlder = "";
  drawHead();
  try {
    const r = await older(given.hub, store, request(), reach, mine.signal);
    if (mine !== loading) return;
    reach = r.reach ?? reach;
    endOfOlder = r.end;
    if (r.mark !== undefined) {
      const back = store.marks.splice(r.mark).reduce((n, m) => n + m.count, 0);
      store.dropped = Math.max(0, store.dropped - back);
    }
    if (r.ids) store.lastIds = r.ids;
    store.prepend(r.lines);
  } catch (e) {
    if (mine === loading) endOfOlder = `Older lines cannot be had: ${e.message}`;
  }
  if (mine !== loading) return;
  loading = null;
  drawHead();
  search.step();
  list.schedule();
}

// drawHead says what is above the first line.
function drawHead() {
  const h = list.head;
  const button = (text) => {
    const b = document.createElement("button");
    b.type = "button";
    b.append(text);
    b.addEventListener("click", loadOlder);
    return b;
  };
  let key, parts;
  if (store.size === 0) [key, parts] = ["", () => []];
  else if (loading) [key, parts] = ["loading", () => ["Loading older lines …"]];
  else if (endOfOlder === "beginning") [key, parts] = ["beginning", () => ["The beginning: nothing older can be had."]];
  else if (endOfOlder === "limit") [key, parts] = ["limit", () => [`Here ends what can be loaded: at most ${count(farthest)} lines can be had from the server in this way.`]];
  else if (endOfOlder) [key, parts] = [endOfOlder, () => [endOfOlder, " ", button("try again")]];
  else if (store.dropped) [key, parts] = ["dropped" + store.dropped, () => [`${plural(store.dropped, "older line")} ${store.dropped === 1 ? "was" : "were"} dropped here `, button("load them")]];
  else [key, parts] = ["more", () => [button("load older lines")]];
  if (h.key === key) return;
  h.key = key;
  h.replaceChildren(...parts());
  list.fitHead();
}

list.addEventListener("render", () => {
  const view = list.root.clientHeight;
  const wanted = list.follow ? layout.total() < view : list.place() < 1.5 * view;
  if (wanted && store.size && !endOfOlder) loadOlder();
  if (search.active) search.look([...list.nodes.keys()]);
});

// --- links to lines ---

// reachLink goes to the line that the link points to, if it has come: before what follows it makes it too much to be kept.
function reachLink() {
  const n = link ? store.find(link.topic, link.id) : undefined;
  if (n === undefined) return;
  link = null;
  view.target = n;
  list.held = true;
  list.show(n);
  list.refresh(n);
}

async function awaitLink() {
  const mine = opened;
  for (let i = 0; i < 60 && link && mine === opened; i++) {
    if (store.size > 0 && i > 20) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  if (mine !== opened || !link) return;
  link = null;
  notice("The line that this link points to is gone: it is not in what the server still has, or it does not pass the filter.");
}

async function copyLink(n) {
  const line = store.at(n), id = store.idAt(n);
  if (!id) return notice("This line has no position, so there is no link to it.");
  let since = "";
  for (let k = n - 1, seen = 0; k >= store.first && seen < 20 && k > n - 2000; k--) {
    const l = store.at(k);
    if (l.topicNumber !== line.topicNumber || l.kind & gap) continue;
    const before = store.idAt(k);
    if (before) [since, seen] = [before, seen + 1];
  }
  since ||= store.lastIds.get(line.topic) ?? "";
  const hash = settings.permalink(line.topic, id, since);
  history.replaceState(null, "", location.pathname + location.search + hash);
  setTarget(n);
  notice((await copy.text(location.href)) ? "The link to this line is on the clipboard, and in the address." : "The link to this line is in the address.");
}

function setTarget(n) {
  const before = view.target;
  view.target = n;
  if (before !== undefined) list.refresh(before);
  list.refresh(n);
}

addEventListener("hashchange", () => {
  const { link: next } = settings.readAddress(location);
  if (!next) return;
  const n = store.find(next.topic, next.id);
  if (n !== undefined) {
    setTarget(n);
    list.held = true;
    return list.show(n);
  }
  link = next;
  open();
});

// --- lines, one at a time ---

function setCurrent(n, say) {
  if (!store.has(n)) return;
  const before = view.current;
  view.current = n;
  for (const k of [before, n]) if (k !== undefined) list.nodes.get(k)?.classList.toggle("current", k === n);
  if (say) {
    list.held = true;
    list.show(n);
    at("announce").textContent = plainOf(store.at(n)).slice(0, 500);
  }
}

function move(by) {
  if (store.size === 0) return;
  let n = view.current;
  if (n === undefined || !list.nodes.has(n)) n = by > 0 ? list.anchor.n - 1 : Math.min(store.end, ...[lastShown() + 1]);
  setCurrent(Math.max(store.first, Math.min(store.end - 1, n + by)), true);
}

function lastShown() {
  return layout.find(list.place() + list.root.clientHeight - 1).n;
}

function toggleOpen(n) {
  if (!store.has(n) || !list.nodes.get(n)?.querySelector(".fold")) return;
  if (!view.open.delete(n)) view.open.add(n);
  list.pause(false);
  list.refresh(n);
  if (!view.open.has(n)) layout.measured(n, layout.rowHeight);
}

list.root.addEventListener("click", (e) => {
  const row = e.target.closest(".row");
  if (!row || row.number === undefined) return;
  if (e.target.closest(".fold, .more")) {
    setCurrent(row.number, false);
    toggleOpen(row.number);
  } else if (document.getSelection()?.isCollapsed !== false) setCurrent(row.number, false);
});

// --- search and filter ---

function find() {
  clearTimeout(typing);
  typing = 0;
  search.start({ text: at("query").value, regex: pressed("regex"), exact: pressed("exact") });
}

let typing = 0;
at("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(find, 120);
});
for (const id of ["regex", "exact"]) at(id).addEventListener("click", () => { press(id, !pressed(id)); find(); });
at("find").addEventListener("submit", (e) => {
  e.preventDefault();
  if (typing) find();
  goFound(1);
});
at("next").addEventListener("click", () => goFound(1));
at("previous").addEventListener("click", () => goFound(-1));

// goFound goes to the next line that was found; the first time to the last one that can be seen or is above.
function goFound(by) {
  if (!search.active) return;
  let from = view.current;
  if (from === undefined || !list.nodes.has(from)) {
    from = list.follow ? store.end : list.anchor.n - (by > 0 ? 1 : 0);
    if (list.follow) by = -1;
  }
  const n = search.next(from, by);
  eager = n === undefined ? by : 0;
  if (n !== undefined) setCurrent(n, true);
  drawFound();
}

let eager = 0; // goFound was asked to go this way before anything was found

search.addEventListener("change", () => {
  view.ranges = search.active ? search.ranges : null;
  if (!search.active || search.fresh !== search.query) {
    search.fresh = search.query;
    list.refresh();
  }
  drawFound();
  if (eager && search.progress().found) goFound(eager);
});
search.addEventListener("ranges", (e) => e.rows.forEach((n) => list.refresh(n)));

function drawFound() {
  const { found, looked, of } = search.progress();
  const out = at("found");
  out.classList.toggle("bad", Boolean(search.error));
  at("find").classList.toggle("on", search.query !== null);
  at("next").hidden = at("previous").hidden = !search.active;
  let text = search.error;
  if (search.active) {
    const rank = view.current !== undefined && store.has(view.current) ? search.rank(view.current) : 0;
    text = rank && found ? `${count(rank)} of ${count(found)}` : found ? plural(found, "line") : looked < of ? "" : "none";
    if (looked < of) text += ` … ${Math.floor((100 * looked) / of)} %`;
  }
  if (out.textContent !== text) out.textContent = text;
}

let filters = 0; // that were asked for

async function filter(grep, invert) {
  const wanted = { ...request(), grep, invert }, mine = ++filters;
  const why = grep ? await check(given.hub, wanted) : "";
  if (mine !== filters) return; // there is a later one
  at("filter-error").textContent = why;
  at("filter-error").hidden = !why;
  at("grep").setAttribute("aria-invalid", String(Boolean(why)));
  if (why) return;
  shown.grep = grep;
  shown.invert = invert;
  at("filter").classList.toggle("on", Boolean(grep));
  reopen();
}

function reopen() {
  link = null;
  history.replaceState(null, "", location.pathname + settings.writeAddress({ topics: topics.asked, ...pick(shown, "grep", "invert", "params") }));
  open();
}

const pick = (o, ...names) => Object.fromEntries(names.map((n) => [n, o[n]]));

at("filter").addEventListener("submit", (e) => {
  e.preventDefault();
  filter(at("grep").value, pressed("invert"));
});
at("grep").addEventListener("change", () => at("grep").value !== shown.grep && filter(at("grep").value, pressed("invert")));
at("invert").addEventListener("click", () => {
  press("invert", !pressed("invert"));
  if (at("grep").value) filter(at("grep").value, pressed("invert"));
});
topics.addEventListener("change", reopen);

// --- how it looks ---

const dark = matchMedia("(prefers-color-scheme: dark)"), printing = matchMedia("print");

function applyTheme() {
  const scheme = printing.matches ? "light" : prefs.theme === "auto" ? (dark.matches ? "dark" : "light") : prefs.theme;
  root.dataset.theme = scheme;
  if (view.scheme === scheme) return;
  view.scheme = scheme;
  list.refresh();
}
for (const m of [dark, printing]) m.addEventListener("change", applyTheme);

// measure tells the layout how high a row is, and how many characters it has.
function measure() {
  const probe = document.createElement("div");
  probe.className = "row";
  const text = probe.appendChild(document.createElement("span"));
  text.append("0".repeat(100));
  list.rows.append(probe);
  const height = probe.getBoundingClientRect().height, width = text.getBoundingClientRect().width / 100;
  probe.remove();
  const before = (view.time === "off" ? 0 : 14) + (view.topics ? 2 + Number(list.root.style.getPropertyValue("--topic-width") || 8) : 0);
  const columns = prefs.wrap ? Math.max(10, Math.floor((list.root.clientWidth - 33) / width) - before) : 0;
  if (height === layout.rowHeight && columns === layout.columns) return;
  layout.reset(height, columns, longest);
  list.schedule();
}

function applyView() {
  root.classList.toggle("wrap", prefs.wrap);
  view.time = prefs.time;
  announcer.on = prefs.announce;
  store.limits.lines = prefs.keep;
  if (list.follow) trim();
  drawHead();
  applyTheme();
  layout.reset(layout.rowHeight, -1, longest);
  measure();
  list.refresh();
  const form = at("view-dialog").querySelector("form");
  for (const name of ["wrap", "announce"]) form.elements[name].checked = prefs[name];
  for (const name of ["time", "theme", "keep"]) form.elements[name].value = String(prefs[name]);
}

function choose(name, value) {
  prefs[name] = value;
  settings.save(prefs);
  applyView();
}

at("view-dialog").addEventListener("change", (e) => {
  const { name, type, checked, value } = e.target;
  choose(name, type === "checkbox" ? checked : name === "keep" ? Number(value) : value);
});
new ResizeObserver(measure).observe(list.root);

// --- buttons, keys ---

const pressed = (id) => at(id).getAttribute("aria-pressed") === "true";
const press = (id, on) => at(id).setAttribute("aria-pressed", String(on));

at("pause").addEventListener("click", togglePause);
at("newest").addEventListener("click", () => { list.resume(); list.root.focus(); });
at("retry").addEventListener("click", () => {
  if (feed.stream?.state === "waiting") feed.stream.retry();
  else connect(feed.stream?.since ? { since: feed.stream.since } : { tail: given.tail });
});
at("view").addEventListener("click", () => at("view-dialog").showModal());
at("help").addEventListener("click", () => at("help-dialog").showModal());
at("download").addEventListener("click", () => copy.save(store, fileName(), view.topics));
at("more").addEventListener("click", () => {
  const on = at("tools").classList.toggle("shown");
  at("more").setAttribute("aria-expanded", String(on));
});
at("notice").querySelector("button").addEventListener("click", () => { at("notice").hidden = true; });

function notice(text) {
  at("notice").querySelector("span").textContent = text;
  at("notice").hidden = false;
}

function fileName() {
  const title = given.title.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 60) || "log";
  return `${title}-${new Date().toISOString().replace(/[:.]/g, "-")}.log`;
}

const keys = {
  " ": togglePause,
  G: () => list.resume(), End: () => list.resume(),
  g: () => list.toTop(), Home: () => list.toTop(),
  j: () => move(1), ArrowDown: () => move(1),
  k: () => move(-1), ArrowUp: () => move(-1),
  Enter: () => view.current !== undefined && toggleOpen(view.current),
  c: async () => view.current !== undefined && store.has(view.current) && notice((await copy.text(plainOf(store.at(view.current)))) ? "The line is on the clipboard." : "The browser does not let this page copy."),
  l: () => view.current !== undefined && store.has(view.current) && copyLink(view.current),
  "/": () => focusField("query"),
  f: () => focusField("grep"),
  n: () => goFound(1), N: () => goFound(-1),
  w: () => choose("wrap", !prefs.wrap),
  t: () => choose("time", time.modes[(time.modes.indexOf(prefs.time) + 1) % time.modes.length]),
  v: () => at("view-dialog").showModal(),
  "?": () => at("help-dialog").showModal(),
};

function focusField(id) {
  at("tools").classList.add("shown");
  at("more").setAttribute("aria-expanded", "true");
  at(id).focus();
  at(id).select();
}

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  const field = e.target.closest("input, textarea, select");
  if (e.key === "Escape") {
    if (field?.id === "query" && field.value) { field.value = ""; find(); }
    return list.root.focus();
  }
  if (field || (e.target.closest("button, a") && [" ", "Enter"].includes(e.key))) return;
  const does = keys[e.key];
  if (!does) return;
  e.preventDefault();
  does();
});
list.root.addEventListener("keydown", (e) => e.key === "PageUp" && list.canScroll() && list.pause(false));

setInterval(() => {
  status.tick();
  announcer.tick();
  if (view.time !== "relative") return;
  view.now = Date.now();
  for (const [n, node] of list.nodes) {
    const t = node.querySelector(".time");
    if (t) t.textContent = time.write(store.at(n).time, "relative", view.now);
  }
}, 1000);

// What tests may read, and nobody may write: numbers of this page.
window.tailcastViewer = Object.freeze({
  get lines() { return feed.lines; }, // messages since the page was opened
  get gaps() { return feed.gaps; }, // declared losses
  get kept() { return store.size; }, // lines that are kept, gaps included
  get first() { return store.first; }, // number of the oldest
  get dropped() { return store.dropped; }, // that were dropped at the top
  get bytes() { return store.bytes; }, // about, of what is kept
  get following() { return list.follow; },
  get resting() { return resting !== null; },
  get state() { return status.state.state; },
  get transport() { return feed.stream?.transport; },
  get duplicates() { return feed.stream?.duplicates; }, // dropped by tailcast.js
  get rows() { return list.nodes.size; }, // in the page
  get renders() { return list.renders; },
  get found() { return search.progress(); },
  text: (n) => (store.has(n) ? plainOf(store.at(n)) : undefined),
  texts: () => Array.from({ length: store.size }, (_, i) => plainOf(store.at(store.first + i))),
});

at("grep").value = shown.grep;
press("invert", shown.invert);
at("filter").classList.toggle("on", Boolean(shown.grep));
copy.watch(list, store);
fitTopics();
applyView();
if (shown.grep) check(given.hub, request()).then((why) => { at("filter-error").textContent = why; at("filter-error").hidden = !why; });
open();
