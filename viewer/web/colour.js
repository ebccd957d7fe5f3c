// Colours that can be read. A program chooses its colours for a terminal of its own: here each is moved towards black or white until
// it stands out from what is behind it as WCAG 2 asks of text.

const wanted = 5; // 4.5 is AA; the rest is for rows that are highlighted

// Two palettes of the 16, for a light and a dark page. The second eight are the bright ones.
const palettes = {
  light: ["#24292f", "#b3261e", "#116329", "#7d4e00", "#0550ae", "#8250df", "#0f6674", "#57606a",
    "#57606a", "#c62828", "#1a7f37", "#8a5a00", "#0969da", "#a13ebf", "#137c8b", "#6b7480"],
  dark: ["#8b949e", "#ff7b72", "#56d364", "#d9a441", "#79b8ff", "#d2a8ff", "#56c8d8", "#c9d1d9",
    "#9aa4af", "#ffa198", "#7ee787", "#f2cc60", "#a5d6ff", "#e2c5ff", "#8be0ec", "#ffffff"],
};

// What the style sheet has for --page and --text; used where a line sets only one of the two, and behind faint text.
export const base = { light: { page: [255, 255, 255], text: [31, 35, 40] }, dark: { page: [14, 18, 23], text: [215, 221, 228] } };

export function hex(s) {
  return [1, 3, 5].map((i) => parseInt(s.slice(i, i + 2), 16));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

// contrast is WCAG's ratio of two colours, from 1 to 21.
export function contrast(a, b) {
  const [x, y] = [luminance(a), luminance(b)];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
}

export function mix(a, b, share) {
  return a.map((v, i) => Math.round(v + (b[i] - v) * share));
}

// legible moves fg towards black or white, whichever is further from bg, until it can be read.
export function legible(fg, bg) {
  const towards = contrast([0, 0, 0], bg) > contrast([255, 255, 255], bg) ? [0, 0, 0] : [255, 255, 255];
  for (let share = 0; share < 1; share += 0.1) {
    const c = mix(fg, towards, share);
    if (contrast(c, bg) >= wanted) return c;
  }
  return towards;
}

const css = (rgb) => `rgb(${rgb.join(" ")})`;

// colours returns what style.color and style.background have to be for a style of ansi.js, "" for what stays as it is.
export function colours(style, scheme) {
  const { page, text } = base[scheme];
  const rgb = (c) => (Array.isArray(c) ? c : hex(palettes[scheme][c]));
  let fg = style.fg === undefined ? undefined : rgb(style.fg);
  let bg = style.bg === undefined ? undefined : rgb(style.bg);
  if (style.inverse) [fg, bg] = [bg ?? page, fg ?? text];
  const behind = bg ?? page;
  if (style.faint) fg = mix(fg ?? text, behind, 0.4);
  if (fg === undefined && bg === undefined) return { color: "", background: "" };
  return { color: css(legible(fg ?? text, behind)), background: bg ? css(bg) : "" };
}
