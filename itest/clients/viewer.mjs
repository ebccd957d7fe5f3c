// A page in Chromium that does what it is told on its standard input, a JSON array for each order, and answers each with a JSON object:
// node viewer.mjs
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { launch } from "./browser.mjs";

const { page, quit } = await launch();
const context = page.context();
const cdp = await context.newCDPSession(page);
const delay = monitorEventLoopDelay({ resolution: 5 });
delay.enable();
const troubles = []; // what the console, the page's errors and the Content-Security-Policy say
const longTasks = [];
page.on("console", (m) => {
  if (!["error", "warning"].includes(m.type())) return;
  if (/net::ERR_|WebSocket connection to .* failed|status of (4\d\d|50\d)/.test(m.text())) return; // a server that is away
  troubles.push(`console: ${m.text()}`);
});
page.on("pageerror", (e) => troubles.push(`error: ${e.stack}`));
page.on("dialog", (d) => { troubles.push(`dialog: ${d.message()}`); d.dismiss(); });
page.on("request", (r) => { if (!/^(https?|blob|data):/.test(r.url()) || new URL(r.url()).pathname.includes("evil")) troubles.push(`request: ${r.url()}`); });
await page.exposeFunction("tellTrouble", (s) => { troubles.push(s); });
await page.exposeFunction("tellTask", (ms) => { longTasks.push(ms); });
await page.addInitScript(() => {
  addEventListener("securitypolicyviolation", (e) => tellTrouble(`policy: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
  new PerformanceObserver((l) => l.getEntries().forEach((e) => tellTask(Math.round(e.duration)))).observe({ type: "longtask" });
});

const orders = {
  open: async (url) => { await page.goto(url, { waitUntil: "load" }); },
  reload: async () => { await page.reload(); },
  eval: (expression) => page.evaluate(expression),
  press: (key) => page.keyboard.press(key),
  fill: (selector, text) => page.fill(selector, text, { timeout: 10_000 }),
  click: (selector) => page.click(selector, { timeout: 10_000 }),
  wheel: async (dy) => {
    const box = await page.locator("#log").boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.wheel(0, dy);
  },
  viewport: (width, height) => page.setViewportSize({ width, height }),
  media: (media) => page.emulateMedia(media),
  screenshot: (path) => page.screenshot({ path }).then(() => null),
  permit: (...names) => context.grantPermissions(names),
  freeze: async (state) => { await cdp.send("Page.setWebLifecycleState", { state }); }, // as it is done to a tab that is hidden
  hide: async () => {
    globalThis.other = await context.newPage();
    await other.bringToFront();
  },
  show: async () => {
    await other.close();
    await page.bringToFront();
  },
  download: async (selector) => {
    const [d] = await Promise.all([page.waitForEvent("download"), page.click(selector)]);
    return { name: d.suggestedFilename(), text: readFileSync(await d.path(), "utf8") };
  },
  heap: async () => { // of what is alive, in bytes
    await cdp.send("HeapProfiler.enable");
    await cdp.send("HeapProfiler.collectGarbage");
    const { usedSize } = await cdp.send("Runtime.getHeapUsage");
    const { nodes } = await cdp.send("Memory.getDOMCounters");
    return { used: usedSize, nodes };
  },
  axe: async () => {
    globalThis.axe ??= readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
    return page.evaluate(async () => {
      const result = await globalThis.axe.run(document, { resultTypes: ["violations"], rules: { region: { enabled: true } },
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
      if (!result.passes.some((r) => r.id === "color-contrast")) return ["axe has looked at no colours"];
      return result.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map((n) => n.target + " " + n.html.slice(0, 200) + " " + (n.any[0]?.message ?? "")).join(" | ")}`);
    });
  },
  troubles: async () => troubles.splice(0),
  // The durations of long tasks, and for how long this process, which has nothing to do, did not get the processor. In ms.
  tasks: async () => {
    const machine = Math.round(delay.max / 1e6);
    delay.reset();
    return { tasks: longTasks.splice(0), machine };
  },
};

console.log(JSON.stringify({ value: "ready" }));
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await orders[name](...args)) ?? null }));
  } catch (e) {
    console.log(JSON.stringify({ error: String(e.stack ?? e).slice(0, 2000) }));
  }
}
await quit();
process.exit();
