// What escape sequences in a line mean. Only SGR (colours and the like) has a meaning here; everything else that a terminal would obey
// is left out of the text, and counted. Nothing is carried from one line to the next.

// Each alternative ends at the first byte that cannot belong to it, so that a sequence without an end takes no text along:
// CSI; OSC, DCS, SOS, PM, APC with their terminator; two-byte sequences; and their one-byte (C1) forms.
const escape =
  /(?:\x1b\[|\x9b)([0-?]*)([ -/]*)([@-~]?)|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?/g;

const suspect = /[\x1b\x90\x98\x9b\x9d-\x9f]/;

// strip returns the text without escape sequences.
export function strip(text) {
  return suspect.test(text) ? text.replace(escape, "") : text;
}

// parse returns the text without escape sequences, as {text, runs, dropped}: a run is {end, style}, where style is null or the object
// that sgr makes; dropped counts the sequences that were neither colours nor empty.
export function parse(text) {
  if (!suspect.test(text)) return { text, runs: [{ end: text.length, style: null }], dropped: 0 };
  const runs = [];
  let plain = "", style = null, at = 0, dropped = 0;
  const add = (part) => {
    if (!part) return;
    plain += part;
    const last = runs.at(-1);
    if (last && last.style === style) last.end = plain.length;
    else runs.push({ end: plain.length, style });
  };
  for (const m of text.matchAll(escape)) {
    add(text.slice(at, m.index));
    at = m.index + m[0].length;
    if (m[3] === "m" && !m[2] && /^[\d;:]*$/.test(m[1])) style = sgr(style, m[1]);
    else dropped++;
  }
  add(text.slice(at));
  if (runs.length === 0) runs.push({ end: 0, style: null });
  return { text: plain, runs, dropped };
}

// sgr returns the style after the parameters of one sequence: {fg, bg, bold, faint, italic, underline, inverse, strike, hidden}, or null
// for none. A colour is a number of the palette from 0 to 15, or [r, g, b].
export function sgr(before, parameters) {
  const s = { ...before };
  const codes = parameters.split(";");
  for (let i = 0; i < codes.length; i++) {
    const sub = codes[i].split(":");
    const code = Number(sub[0] || 0);
    switch (true) {
      case code === 0: for (const k of Object.keys(s)) delete s[k]; break;
      case code === 1: s.bold = true; break;
      case code === 2: s.faint = true; break;
      case code === 3: s.italic = true; break;
      case code === 4: if (sub[1] === "0") delete s.underline; else s.underline = true; break;
      case code === 7: s.inverse = true; break;
      case code === 9: s.strike = true; break;
      case code === 21: s.underline = true; break;
      case code === 22: delete s.bold; delete s.faint; break;
      case code === 23: delete s.italic; break;
      case code === 24: delete s.underline; break;
      case code === 27: delete s.inverse; break;
      case code === 29: delete s.strike; break;
      case code >= 30 && code <= 37: s.fg = code - 30; break;
      case code === 39: delete s.fg; break;
      case code >= 40 && code <= 47: s.bg = code - 40; break;
      case code === 49: delete s.bg; break;
      case code >= 90 && code <= 97: s.fg = code - 82; break;
      case code >= 100 && code <= 107: s.bg = code - 92; break;
      case code === 38 || code === 48: {
        let colour;
        if (sub.length > 1) colour = extended(sub.slice(1), true);
        else {
          const n = codes[i + 1] === "2" ? 4 : 2;
          colour = extended(codes.slice(i + 1, i + 1 + n), false);
          i += n;
        }
        if (colour !== undefined) s[code === 38 ? "fg" : "bg"] = colour;
      }
    }
  }
  return Object.keys(s).length ? s : null;
}

// extended reads 5;N and 2;R;G;B. With colons a colour space may stand before R.
function extended(p, colons) {
  if (p[0] === "5") {
    const n = Number(p[1] || 0);
    return n <= 255 ? indexed(n) : undefined;
  }
  if (p[0] !== "2") return undefined;
  const rgb = (colons && p.length > 4 ? p.slice(2, 5) : p.slice(1, 4)).map((v) => Number(v || 0));
  return rgb.length === 3 && rgb.every((v) => v <= 255) ? rgb : undefined;
}

// indexed is colour n of the 256: 16 of the palette, a cube of 6×6×6, and 24 greys.
export function indexed(n) {
  if (n < 16) return n;
  if (n >= 232) return Array(3).fill(8 + 10 * (n - 232));
  const level = (v) => (v ? 55 + 40 * v : 0);
  n -= 16;
  return [level(Math.floor(n / 36)), level(Math.floor(n / 6) % 6), level(n % 6)];
}
