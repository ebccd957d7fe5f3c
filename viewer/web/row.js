// One line as an element. All that a line says goes into text nodes.

import * as ansi from "./ansi.js";
import { colours } from "./colour.js";
import * as json from "./json.js";
import { levelOf } from "./levels.js";
import { binary, gap, partial } from "./store.js";
import { bytes, count, hexdump, pieces, plural } from "./text.js";
import * as time from "./time.js";

export const longest = 2000; // characters of a row; the rest is folded
const unfolded = 200_000; // of one that is open
const glance = 16_384; // What is longer is looked at only as far as this, until it is opened: rows are made for each frame.

// plainOf is what is searched, copied and downloaded: the text as it is read.
export function plainOf(line) {
  if (line.kind & gap) return "# " + gapText(JSON.parse(line.text));
  if (line.kind & binary) return "(binary: " + bytes(line.text.length) + ")";
  return ansi.strip(line.text);
}

// make returns the row of a line. view says how: {scheme, time, now, topics, open, current, target, ranges}.
export function make(line, view) {
  const row = document.createElement("div");
  row.className = "row";
  if (line.kind & gap) return gapRow(row, line);
  if (line.n === view.current) row.classList.add("current");
  if (line.n === view.target) row.classList.add("target");
  if (view.time !== "off") row.append(stamp(line, view));
  if (view.topics) row.append(topic(line));
  const open = view.open.has(line.n);
  if (open) row.classList.add("open");
  if (line.kind & binary) {
    row.append(fold(open), note(`binary, ${bytes(line.text.length)}: ${hexHead(line.text)}`));
    if (open) row.append(block("hex", hexdump(line.text.slice(0, 1 << 16))));
    return row;
  }
  const raw = open ? line.text : line.text.slice(0, glance);
  const parsed = ansi.parse(raw);
  const object = raw.length === line.text.length ? json.object(parsed.text) : undefined;
  const level = levelOf(parsed.text, Array.isArray(object) ? undefined : object);
  if (level) row.dataset.level = level;
  const long = parsed.text.length > longest || raw.length < line.text.length;
  if (object || long) row.append(fold(open));
  const shown = cut(parsed.text, open && !object ? unfolded : longest);
  const text = row.appendChild(document.createElement("bdi"));
  text.className = "text";
  fill(text, parsed, shown, view.ranges?.get(line.n) ?? [], view.scheme);
  const more = parsed.text.length - shown + line.text.length - raw.length;
  if (more > 0) row.append(note(`… ${count(more)} more characters`, "more"));
  if (line.kind & partial) row.append(note("⤶ goes on", "partial", "This line was cut. It goes on in the next one of its topic."));
  if (parsed.dropped) row.append(note(`${plural(parsed.dropped, "escape")}`, "escapes", "Escape sequences that are not colours are not carried out."));
  if (open && object) row.append(json.tree(object));
  return row;
}

// cut returns how many characters are shown, without tearing one apart.
function cut(text, most) {
  if (text.length <= most) return text.length;
  const c = text.charCodeAt(most);
  return c >= 0xdc00 && c <= 0xdfff ? most - 1 : most;
}

// fill writes the first characters of a text into an element, with its colours, and marks on what was found.
function fill(into, parsed, end, ranges, scheme) {
  let at = 0, r = 0;
  for (const run of parsed.runs) {
    const stop = Math.min(run.end, end);
    if (at >= stop) continue;
    const part = run.style ? styled(into.appendChild(document.createElement("span")), run.style, scheme) : into;
    while (at < stop) {
      while (r < ranges.length && ranges[r][1] <= at) r++;
      const found = r < ranges.length && ranges[r][0] <= at;
      const next = Math.min(stop, r < ranges.length ? ranges[r][found ? 1 : 0] : stop);
      write(found ? part.appendChild(document.createElement("mark")) : part, parsed.text.slice(at, next));
      at = next;
    }
  }
}

function write(into, text) {
  for (const p of pieces(text)) {
    if (!p.symbol) {
      into.append(p.text);
      continue;
    }
    const s = into.appendChild(document.createElement("span"));
    s.className = "symbol";
    s.title = p.title;
    s.append(p.symbol);
  }
}

function styled(span, style, scheme) {
  const { color, background } = colours(style, scheme);
  if (color) span.style.color = color;
  if (background) span.style.backgroundColor = background;
  for (const name of ["bold", "italic"]) if (style[name]) span.classList.add(name);
  const lines = [style.underline && "underline", style.strike && "line-through"].filter(Boolean);
  if (lines.length) span.style.textDecoration = lines.join(" ");
  return span;
}

function stamp(line, view) {
  const t = document.createElement("time");
  t.className = "time";
  const whole = time.whole(line.time);
  if (whole) t.dateTime = t.title = whole;
  t.append(time.write(line.time, view.time, view.now));
  return t;
}

function topic(line) {
  const t = document.createElement("span");
  t.className = "topic colour" + (line.topicNumber % 8);
  const name = line.topic || "default";
  t.title = name;
  t.append(name);
  return t;
}

// fold is a button that the keyboard reaches through the row.
function fold(open) {
  const b = document.createElement("button");
  b.type = "button";
  b.className = "fold";
  b.tabIndex = -1;
  b.setAttribute("aria-expanded", String(open));
  b.setAttribute("aria-label", open ? "Fold this line" : "Unfold this line");
  b.append(open ? "▾" : "▸");
  return b;
}

function note(text, name = "", title = "") {
  const s = document.createElement("span");
  s.className = "note " + name;
  if (title) s.title = title;
  s.append(text);
  return s;
}

function block(name, text) {
  const d = document.createElement("div");
  d.className = name;
  d.append(text);
  return d;
}

function hexHead(data) {
  return Array.from(data.slice(0, 16), (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ") + (data.length > 16 ? " …" : "");
}

function gapRow(row, line) {
  row.classList.add("gap");
  row.append(note("⚠ " + gapText(JSON.parse(line.text)), "why"));
  return row;
}

// gapText says what is missing.
export function gapText(g) {
  const lines = g.count > 0 ? plural(g.count, "line") : g.count === 0 ? "" : "an unknown number of lines";
  const size = g.bytes > 0 ? ` (${bytes(g.bytes)})` : "";
  const where = g.topic ? ` of ${g.topic}` : "";
  const what = g.possible ? `${lines || "lines"}${size}${where} may be missing here` : `${lines || "lines"}${size}${where} missing here`;
  return what + (g.reason ? ": " + pieces(String(g.reason)).map((p) => p.symbol ?? p.text).join("") : "");
}
