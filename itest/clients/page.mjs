// Prints each line of a page's #log in Chromium as it comes, until its standard input ends: node page.mjs URL
import { launch } from "./browser.mjs";

const { page, quit } = await launch();
await page.goto(process.argv[2]);
let over = false;
process.stdin.on("end", () => { over = true; }).resume();
for (let shown = 0; !over; await new Promise((resolve) => setTimeout(resolve, 20))) {
  const lines = (await page.$eval("#log", (log) => log.textContent)).split("\n");
  for (; shown < lines.length - 1; shown++) console.log(lines[shown]);
}
await quit();
