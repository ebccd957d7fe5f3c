// What a reader has chosen: how the page looks, kept in the browser, and what it shows, kept in its address.

const key = "tailcast.viewer";

const defaults = { theme: "auto", wrap: false, time: "local", keep: 1_000_000, announce: false };
const allowed = {
  theme: ["auto", "light", "dark"], wrap: [true, false], time: ["off", "local", "utc", "relative"],
  keep: [10_000, 100_000, 1_000_000], announce: [true, false],
};

// load never fails: storage may be full, forbidden, or hold what another version wrote.
export function load() {
  const settings = { ...defaults, wrap: globalThis.innerWidth < 600 }; // on a phone most lines would not be seen whole
  try {
    const kept = JSON.parse(localStorage.getItem(key) ?? "{}");
    for (const [name, values] of Object.entries(allowed)) if (values.includes(kept?.[name])) settings[name] = kept[name];
  } catch { /* the defaults, then */ }
  return settings;
}

export function save(settings) {
  try {
    localStorage.setItem(key, JSON.stringify(settings));
  } catch { /* then it counts until the page is left */ }
}

// Parameters that are not the application's: the page's own, and those that it gives the hub by itself.
const own = ["topic", "grep", "invert", "since", "tail", "gaps"];

// readAddress returns what the page's address asks for: {topics, grep, invert, params, link}. topics is empty where it names none; link
// is the line that it points to, if it does.
export function readAddress(location) {
  const query = new URLSearchParams(location.search);
  const params = {};
  for (const [name, value] of query) if (!own.includes(name)) params[name] = value;
  const hash = new URLSearchParams(location.hash.slice(1));
  const link = hash.get("id") ? { id: hash.get("id"), topic: hash.get("topic") ?? "", since: hash.get("since") ?? "" } : null;
  return { topics: query.getAll("topic"), grep: query.get("grep") ?? "", invert: query.get("invert") === "1", params, link };
}

// writeAddress returns the query for what is shown.
export function writeAddress({ topics, grep, invert, params }) {
  const query = new URLSearchParams(params);
  for (const t of topics ?? []) query.append("topic", t);
  if (grep) query.set("grep", grep);
  if (grep && invert) query.set("invert", "1");
  const s = query.toString();
  return s ? "?" + s : "";
}

// permalink returns the fragment that points to a line. since is the id of a line some way above it, where the page begins.
export function permalink(topic, id, since) {
  const hash = new URLSearchParams({ id });
  if (topic) hash.set("topic", topic);
  if (since && since !== id) hash.set("since", since);
  return "#" + hash;
}
