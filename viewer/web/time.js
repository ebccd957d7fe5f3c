// When a line was written, as the reader wants to see it.

export const modes = ["off", "local", "utc", "relative"];

const two = (n) => String(n).padStart(2, "0");
const three = (n) => String(n).padStart(3, "0");

// write returns the short form of ms since 1970, "" if it is not known. now is for the relative one.
export function write(ms, mode, now) {
  if (mode === "off" || Number.isNaN(ms)) return "";
  const d = new Date(ms);
  if (mode === "relative") return relative(now - ms);
  if (mode === "utc") return `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}.${three(d.getUTCMilliseconds())}`;
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${three(d.getMilliseconds())}`;
}

// whole is the long form, with the day.
export function whole(ms) {
  return Number.isNaN(ms) ? "" : new Date(ms).toISOString();
}

export function relative(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}
