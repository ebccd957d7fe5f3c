// How severe a line is: "fatal", "error", "warn", "info", "debug", "trace", or "" where it does not say.

const words = {
  emerg: "fatal", emergency: "fatal", alert: "fatal", crit: "fatal", critical: "fatal", fatal: "fatal", panic: "fatal",
  error: "error", err: "error", severe: "error", fail: "error", failed: "error",
  warn: "warn", warning: "warn",
  info: "info", information: "info", informational: "info", notice: "info",
  debug: "debug", dbg: "debug", fine: "debug",
  trace: "trace", verbose: "trace", finest: "trace",
};

const reach = 160; // A level stands at the beginning of a line. Further on, the word is a part of what is said.

const key = /\b(?:level|lvl|severity|loglevel|log\.level)\s*[=:]\s*["']?([A-Za-z]+)\b/i;
// A whole word in capitals; or in any case within brackets; or as the first word before a colon.
const word = /(?<![\w-])(EMERG|EMERGENCY|ALERT|CRIT|CRITICAL|FATAL|PANIC|ERROR|ERR|SEVERE|WARN|WARNING|INFO|NOTICE|DEBUG|DBG|TRACE|VERBOSE)(?![\w-])|[[(<]\s*([A-Za-z]+)\s*[\])>]|^\s*([A-Za-z]+):/g;
// klog and glog begin with a letter and the date: E0102 15:04:05.678901.
const klog = /^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ /;
const letters = { I: "info", W: "warn", E: "error", F: "fatal" };
const syslog = /^<(\d{1,3})>/;

// levelOf looks at a line without its escape sequences, and at what it is as JSON, if it is an object.
export function levelOf(text, object) {
  if (object) return levelOfObject(object);
  const head = text.slice(0, reach);
  const k = klog.exec(head);
  if (k) return letters[k[1]];
  const p = syslog.exec(head);
  if (p && Number(p[1]) < 192) return ofSyslog(Number(p[1]) % 8);
  const field = key.exec(head);
  if (field && word2level(field[1])) return word2level(field[1]);
  for (const m of head.matchAll(word)) {
    const level = word2level(m[1] ?? m[2] ?? m[3]);
    if (level) return level;
  }
  return "";
}

function levelOfObject(o) {
  const names = ["level", "lvl", "severity", "loglevel", "logLevel", "log.level", "levelname", "@level", "severityText", "severity_text"];
  for (const name of names) {
    const level = ofValue(o[name], name);
    if (level) return level;
  }
  const nested = o.log;
  return nested && typeof nested === "object" ? ofValue(nested.level) : "";
}

function ofValue(v, name) {
  if (typeof v === "string") return word2level(v) || (/^\d+$/.test(v) ? ofValue(Number(v), name) : "");
  if (typeof v !== "number") return "";
  if (v < 10) return name === "severity" ? ofSyslog(v) : "";
  // pino and bunyan
  return v >= 60 ? "fatal" : v >= 50 ? "error" : v >= 40 ? "warn" : v >= 30 ? "info" : v >= 20 ? "debug" : "trace";
}

function ofSyslog(n) {
  return ["fatal", "fatal", "fatal", "error", "warn", "info", "info", "debug"][n] ?? "";
}

function word2level(w) {
  w = w.toLowerCase();
  return Object.hasOwn(words, w) ? words[w] : "";
}
