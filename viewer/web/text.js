// Text as it can be shown: what would be invisible, or would change how other text looks, becomes a symbol.

const marksShown = 8; // combining marks on one letter

// Control characters but for the tab, lone halves of a pair, what sets a direction, and what ends a line; and long runs of marks.
const odd = new RegExp(
  "[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2060-\\u2064\\u2066-\\u206f\\ufeff\\ufff9-\\ufffb]" +
  "|[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]" +
  "|\\p{M}{" + (marksShown + 1) + ",}|[\\u{e0000}-\\u{e007f}]+", "gu");

const plainOnly = /^[\t\x20-\x7e]*$/;

const names = {
  0x061c: "ALM", 0x200b: "ZWSP", 0x200e: "LRM", 0x200f: "RLM", 0x2028: "LS", 0x2029: "PS", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF",
  0x202d: "LRO", 0x202e: "RLO", 0x2060: "WJ", 0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM",
};

// pieces cuts text into [{text, symbol, title}]: symbol stands for text where that is odd, and title says what it is.
export function pieces(text) {
  if (plainOnly.test(text)) return text ? [{ text }] : [];
  const out = [];
  let at = 0;
  for (const m of text.matchAll(odd)) {
    if (m.index > at) out.push({ text: text.slice(at, m.index) });
    at = m.index + m[0].length;
    out.push(...symbols(m[0]));
  }
  if (at < text.length) out.push({ text: text.slice(at) });
  return out;
}

function symbols(s) {
  const code = s.codePointAt(0);
  const single = s.length === 1 || (s.length === 2 && code > 0xffff);
  if (single) return [{ text: s, ...symbol(code) }];
  if (code >= 0xe0000) return [{ text: s, symbol: `⟨${[...s].length} tags⟩`, title: "characters that cannot be seen" }];
  const marks = [...s];
  const rest = marks.slice(marksShown);
  return [
    { text: marks.slice(0, marksShown).join("") },
    { text: rest.join(""), symbol: `⟨+${rest.length} marks⟩`, title: "combining marks that are not shown" },
  ];
}

function symbol(code) {
  const title = "U+" + code.toString(16).toUpperCase().padStart(4, "0");
  if (code < 0x20 || code === 0x7f) return { symbol: "^" + String.fromCharCode(code ^ 0x40), title };
  return { symbol: `⟨${names[code] ?? title}⟩`, title };
}

// count writes a number with thin spaces between thousands.
export function count(n) {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

// bytes writes a size.
export function bytes(n) {
  for (const unit of ["bytes", "KiB", "MiB", "GiB"]) {
    if (n < 1024 || unit === "GiB") return (unit === "bytes" || n >= 100 ? count(n) : n.toFixed(1)) + "\u00a0" + unit;
    n /= 1024;
  }
}

// plural is "1 line", "2 lines".
export function plural(n, what) {
  return `${count(n)}\u00a0${what}${n === 1 ? "" : "s"}`;
}

// hexdump shows binary data, which comes as a string of bytes: 16 a line.
export function hexdump(data) {
  const lines = [];
  for (let i = 0; i < data.length; i += 16) {
    const part = data.slice(i, i + 16);
    const hex = Array.from(part, (c) => c.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
    lines.push(i.toString(16).padStart(8, "0") + "  " + hex.padEnd(48) + " " + part.replace(/[^\x20-\x7e]/g, "."));
  }
  return lines.join("\n");
}
