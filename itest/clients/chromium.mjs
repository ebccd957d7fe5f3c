// Writes each event of Chromium's own EventSource, on the page at the root of URL, to a file: node chromium.mjs URL FILE
import { createWriteStream } from "node:fs";
import { launch } from "./browser.mjs";

const [url, file] = process.argv.slice(2);
const out = createWriteStream(file);
const { page, quit } = await launch();
await page.goto(new URL("/favicon.ico", url).href); // the right origin, and nothing that reads the stream by itself
await page.evaluate((url) => new Promise((resolve) => {
  globalThis.lines = [];
  globalThis.over = false;
  const source = new EventSource(url);
  source.onopen = resolve;
  source.onmessage = (e) => lines.push(e.data);
  source.addEventListener("gap", (e) => lines.push("# gap " + e.data));
  source.onerror = () => { over = true; source.close(); };
}), url);
console.log("open");
for (let over = false; !over;) {
  let lines;
  [lines, over] = await page.evaluate(() => [lines.splice(0).join("\n"), over]);
  if (lines) out.write(lines + "\n");
  else await new Promise((resolve) => setTimeout(resolve, 50));
}
console.log("closed");
out.end();
await quit();
