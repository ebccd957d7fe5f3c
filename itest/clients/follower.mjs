// Follows hubs with tailcast.js as it is told on its standard input, a JSON array for each order, and says what it gets:
// node follower.mjs node|chromium ORIGIN
import { createInterface } from "node:readline";

// install defines the orders that a page and Node carry out alike. Streams have names.
function install() {
  const streams = globalThis.streams = {};
  const plain = (m) => m.data instanceof Uint8Array ? { ...m, bytes: Array.from(m.data), data: undefined } : m;
  const answer = (name, promise) => promise.then(() => say("answer", { name, ok: true }), (e) => say("answer", { name, reason: e.message }));
  globalThis.orders = {
    follow(name, url, options = {}) {
      const s = streams[name] = tailcast.follow(url, options);
      s.addEventListener("batch", (e) => say("batch", { name, messages: e.messages.map(plain) }));
      for (const type of ["state", "error", "bye", "join", "leave"]) {
        s.addEventListener(type, (e) => say(type, {
          name, state: e.state, transport: e.transport, reason: e.reason, final: e.final, code: e.error?.code ?? e.code,
          status: e.error?.status, user: e.user, topic: e.topic, wait: e.retryAt && Math.round(e.retryAt - Date.now()),
        }));
      }
    },
    // loop reads n messages, one every pause ms, and breaks.
    async loop(name, url, options, n, pause) {
      const s = streams[name] = tailcast.follow(url, options);
      const it = s[Symbol.asyncIterator]();
      try {
        for await (const m of it) {
          say("batch", { name, messages: [plain(m)] });
          if (--n === 0) break;
          if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
        }
        say("over", { name, since: it.since, state: s.state });
      } catch (e) {
        say("over", { name, reason: e.message, code: e.code, status: e.status, since: it.since, state: s.state });
      }
    },
    ask(name) {
      const s = streams[name];
      say("asked", { name, state: s.state, transport: s.transport, since: s.since, positions: Object.fromEntries(s.positions), received: s.received, duplicates: s.duplicates });
    },
    publish: (name, ...args) => void answer(name, streams[name].publish(...args)),
    subscribe: (name, ...args) => void answer(name, streams[name].subscribe(...args)),
    unsubscribe: (name, ...args) => void answer(name, streams[name].unsubscribe(...args)),
    retry: (name) => streams[name].retry(),
    close: (name) => streams[name].close(),
  };
}

let over = false;
const say = (event, detail) => { if (!over) console.log(JSON.stringify({ event, ...detail })); };
const [kind, origin] = process.argv.slice(2);
let obey, quit = () => {};
if (kind === "node") {
  globalThis.tailcast = await import("../../viewer/tailcast/tailcast.js");
  globalThis.say = say;
  install();
  obey = (name, ...args) => void orders[name](...args);
} else {
  const browser = await (await import("./browser.mjs")).launch({
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
    args: ["--host-resolver-rules=MAP example.com 127.0.0.1"], // a host that is not this one, for the browser
  });
  const { page } = browser;
  quit = async () => {
    await hush();
    clearInterval(listen);
    await browser.quit();
  };
  page.on("pageerror", (e) => console.error("the page:", e));
  await page.addInitScript(() => {
    globalThis.said = [];
    globalThis.say = (event, detail) => said.push({ event, ...detail });
  });
  await page.addInitScript(install);
  await page.goto(new URL("/page", origin).href);
  await page.waitForFunction(() => globalThis.tailcast);
  const session = await page.context().newCDPSession(page);
  // The page keeps what it has to say until it is asked: what is said while a page goes away gets lost. Nobody asks in between.
  let silent = false, asking = Promise.resolve();
  const ask = async () => {
    if (!silent) for (const { event, ...detail } of await page.evaluate(() => said.splice(0))) say(event, detail);
  };
  const listen = setInterval(() => { asking = asking.then(ask); }, 20);
  const hush = async () => {
    silent = true;
    await asking;
  };
  const outside = {
    offline: (on) => page.context().setOffline(on),
    async lifecycle(state) {
      if (state === "frozen") await hush();
      await session.send("Page.setWebLifecycleState", { state });
      silent = state === "frozen";
    },
    visible: (state) => page.evaluate((state) => { // there is no other way in a headless browser
      Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, state),
    async leave() {
      await hush();
      await page.goto(new URL("/other", origin).href);
    },
    async back() {
      await page.goBack({ waitUntil: "commit" });
      say("back", { kept: await page.evaluate(() => globalThis.streams && Object.keys(streams).length > 0) });
      silent = false;
    },
  };
  obey = async (name, ...args) => {
    if (outside[name]) return outside[name](...args);
    return page.evaluate(([name, args]) => { orders[name](...args); }, [name, args]);
  };
}
say("ready", {});
for await (const line of createInterface({ input: process.stdin })) {
  await obey(...JSON.parse(line));
  say("done", {});
}
await quit();
over = true;
process.stdout.write("", () => process.exit()); // not in the middle of a line
