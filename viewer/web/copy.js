// Copying and saving lines. A selection may begin and end in rows that the list would take out of the page, with thousands of rows
// between them that were never there: its two ends are kept in the page, and the text comes from the store.

import { plainOf } from "./row.js";

// watch makes copying work for a list.
export function watch(list, store) {
  const ends = () => {
    const s = document.getSelection();
    if (!s || s.isCollapsed || !list.root.contains(s.anchorNode) || !list.root.contains(s.focusNode)) return null;
    const a = rowOf(s.anchorNode), b = rowOf(s.focusNode);
    return a && b ? { s, from: Math.min(a.number, b.number), to: Math.max(a.number, b.number) } : null;
  };
  document.addEventListener("selectionchange", () => {
    const e = ends();
    const pinned = new Set(e ? [e.from, e.to] : []);
    list.pinned = pinned;
    if (e) list.pause(false); // what is being selected must not move away
  });
  document.addEventListener("copy", (event) => {
    const e = ends();
    if (!e || e.from === e.to) return; // within one row the browser knows best
    const range = e.s.getRangeAt(0);
    const lines = [];
    for (let n = e.from; n <= e.to; n++) if (store.has(n)) lines.push(plainOf(store.at(n)));
    const head = part(list.nodes.get(e.from), range, true), tail = part(list.nodes.get(e.to), range, false);
    if (head !== null) lines[0] = head;
    if (tail !== null) lines[lines.length - 1] = tail;
    event.clipboardData.setData("text/plain", lines.join("\n"));
    event.preventDefault();
  });
}

function rowOf(node) {
  return (node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement)?.closest(".row");
}

// part returns what a range has of a row's text, null if it has all of it or does not touch it.
function part(row, range, first) {
  const text = row?.querySelector(".text");
  const [node, offset] = first ? [range.startContainer, range.startOffset] : [range.endContainer, range.endOffset];
  if (!text?.contains(node)) return null;
  const r = document.createRange();
  r.selectNodeContents(text);
  if (first) r.setStart(node, offset);
  else r.setEnd(node, offset);
  return r.toString();
}

// text puts a text on the clipboard, and reports whether that worked.
export async function text(s) {
  try {
    await navigator.clipboard.writeText(s);
    return true;
  } catch { // not allowed, or not a secure page
    const area = document.createElement("textarea");
    area.className = "unseen";
    area.value = s;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

// save offers all lines that are kept as a file, each with its topic and a tab before it if there are several. They are put together a chunk at a time, so that the page stays awake.
export async function save(store, name, several) {
  const parts = [];
  for (const chunk of [...store.chunks]) {
    const lines = [];
    for (let i = 0; i < chunk.count; i++) {
      const line = store.lineOf(chunk, i);
      lines.push((several ? line.topic + "\t" : "") + plainOf(line) + "\n");
    }
    parts.push(new Blob([lines.join("")]));
    if (parts.length % 20 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "text/plain;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
