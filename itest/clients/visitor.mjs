// Does what it is told on its standard input, a JSON array for each order, and says what happens to it:
// node visitor.mjs node|chromium ORIGIN
import { createInterface } from "node:readline";

// install defines the orders that a page and Node carry out alike: both have a WebSocket and an EventSource.
function install() {
  globalThis.orders = {
    open(url) {
      let messages = 0;
      globalThis.socket = new WebSocket(url);
      socket.onopen = () => say("open", {});
      socket.onmessage = () => messages++;
      socket.onerror = () => {}; // a close event follows
      socket.onclose = (e) => say("close", { code: e.code, reason: e.reason, clean: e.wasClean, messages });
    },
    talk(url, protocols) {
      globalThis.socket = new WebSocket(url, protocols);
      socket.onopen = () => say("open", { data: socket.protocol });
      socket.onmessage = (e) => say("message", { data: e.data });
      socket.onerror = () => {}; // a close event follows
      socket.onclose = (e) => say("close", { code: e.code, reason: e.reason, clean: e.wasClean });
    },
    command: (c) => socket.send(JSON.stringify(c)),
    send: (n) => socket.send("x".repeat(n)),
    close: (...args) => socket.close(...args),
    source(url) {
      const source = globalThis.source = new EventSource(url);
      const tell = (e) => say(e.type, { data: e.data, state: source.readyState, at: performance.now() });
      for (const type of ["open", "message", "bye", "error"]) source.addEventListener(type, tell);
    },
    async ndjson(url) {
      const response = await fetch(url, { headers: { accept: "application/x-ndjson" } });
      say("open", { data: response.headers.get("content-type") });
      let rest = "";
      for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
        const { value, done } = await reader.read();
        if (done) return say("close", {});
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const data of lines) say("message", { data });
      }
    },
    unsource: () => source.close(),
  };
}

const say = (event, detail) => console.log(JSON.stringify({ event, ...detail }));
const [kind, origin] = process.argv.slice(2);
let obey, quit = () => {};
if (kind === "node") {
  globalThis.WebSocket = (await import("ws")).WebSocket;
  globalThis.EventSource = (await import("eventsource")).EventSource;
  globalThis.say = say;
  install();
  Object.assign(orders, {
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    raw: (hex) => socket._socket.write(Buffer.from(hex, "hex")),
  });
  obey = (name, ...args) => orders[name](...args);
} else {
  const browser = await (await import("./browser.mjs")).launch();
  const page = browser.page;
  quit = browser.quit;
  await page.exposeFunction("say", say);
  await page.addInitScript(install);
  const visit = () => page.goto(new URL("/page", origin).href);
  await visit();
  obey = async (name, ...args) => {
    if (name !== "leave") return page.evaluate(([name, args]) => { orders[name](...args); }, [name, args]);
    await page.goto("about:blank");
    await visit();
  };
}
say("ready", {});
for await (const line of createInterface({ input: process.stdin })) {
  await obey(...JSON.parse(line));
  say("done", {});
}
await quit();
process.exit();
