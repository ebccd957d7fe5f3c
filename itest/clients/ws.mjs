// Writes each message of a WebSocket to a file, a line for each: node ws.mjs URL FILE
import { createWriteStream } from "node:fs";
import WebSocket from "ws";

const [url, file] = process.argv.slice(2);
const out = createWriteStream(file);
const ws = new WebSocket(url);
ws.on("open", () => console.log("open"));
ws.on("message", (data, binary) => out.write(binary ? "binary\n" : data + "\n"));
ws.on("error", (err) => console.error(String(err)));
ws.on("close", (code, reason) => {
  console.log(`closed ${code} ${reason}`);
  out.end();
});
