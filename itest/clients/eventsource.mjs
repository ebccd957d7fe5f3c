// Writes each event of an EventSource to a file, a line for each: node eventsource.mjs URL FILE
import { createWriteStream } from "node:fs";
import { EventSource } from "eventsource";

const [url, file] = process.argv.slice(2);
const out = createWriteStream(file);
const source = new EventSource(url);
source.addEventListener("open", () => console.log("open"));
source.addEventListener("message", (e) => out.write(e.data + "\n"));
source.addEventListener("gap", (e) => out.write("# gap " + e.data + "\n"));
source.addEventListener("bye", (e) => console.log("bye " + e.data));
source.addEventListener("error", () => {
  console.log("closed"); // it would come back by itself: here each connection counts
  source.close();
  out.end();
});
