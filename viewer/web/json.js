// Lines that are JSON, as a tree. It is made of text nodes only.

const limit = 1 << 20; // characters; a longer line is shown as text
const nodes = 5000; // in one tree

// object returns what the line is, or undefined if it is not an object or an array.
export function object(text) {
  const first = text.trimStart()[0];
  if ((first !== "{" && first !== "[") || text.length > limit) return undefined;
  try {
    const v = JSON.parse(text);
    return typeof v === "object" && v !== null ? v : undefined;
  } catch {
    return undefined;
  }
}

// outline returns the tree as lines of tokens: {depth, tokens: [[kind, text]…]}, where a kind is "key", "string", "number", "word" or
// "mark". It is what an indenting printer writes, and goes on to depth 100.
export function outline(value) {
  const lines = [];
  let line;
  const start = (depth) => lines.push((line = { depth, tokens: [] }));
  const put = (kind, text) => line.tokens.push([kind, text]);
  const walk = (v, depth) => {
    if (typeof v !== "object" || v === null) {
      put(typeof v === "string" ? "string" : typeof v === "number" ? "number" : "word", JSON.stringify(v));
      return;
    }
    const [open, close] = Array.isArray(v) ? "[]" : "{}";
    const entries = Object.entries(v);
    if (entries.length === 0) return put("mark", open + close);
    if (depth >= 100) return put("mark", open + "…" + close);
    put("mark", open);
    entries.forEach(([k, item], i) => {
      if (lines.length > nodes) return;
      start(depth + 1);
      if (lines.length > nodes) return put("mark", "… more than can be shown");
      if (open === "{") {
        put("key", JSON.stringify(k));
        put("mark", ": ");
      }
      walk(item, depth + 1);
      if (i < entries.length - 1) put("mark", ",");
    });
    start(depth);
    put("mark", close);
  };
  start(0);
  walk(value, 0);
  return lines;
}

// tree makes the outline into an element.
export function tree(value) {
  const pre = document.createElement("div");
  pre.className = "tree";
  for (const { depth, tokens } of outline(value)) {
    const row = pre.appendChild(document.createElement("div"));
    row.append("  ".repeat(Math.min(depth, 40)));
    for (const [kind, text] of tokens) {
      const span = row.appendChild(document.createElement("span"));
      span.className = "json-" + kind;
      span.append(shown(text));
    }
  }
  return pre;
}

// JSON.stringify leaves what sets a direction as it is.
function shown(text) {
  return text.replace(/[\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\x7f-\x9f]/g,
    (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}
