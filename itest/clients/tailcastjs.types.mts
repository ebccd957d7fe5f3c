// What TypeScript makes of tailcast.d.ts: checked and then run, against the package as npm would publish it.
import { EventStreamParser, follow, FollowError, type Gap, type Message, type Stream } from "tailcast";

const stream: Stream = follow("http://127.0.0.1:1/logs", {
  topics: ["app"], since: { app: "earliest" }, tail: 10, grep: "x", invert: true, gaps: false, params: { level: "error" }, transport: "sse",
  signal: new AbortController().signal, token: async () => "t", headers: { "x-key": "k" }, credentials: "include",
  minDelay: 1, maxDelay: 2, connectTimeout: 3, idleTimeout: 4, buffer: 5,
});
// @ts-expect-error there is no such transport
const wrong: Parameters<typeof follow>[1] = { transport: "smoke" };
// @ts-expect-error and no such option
const misspelt: Parameters<typeof follow>[1] = { topic: "app" };

stream.addEventListener("message", ({ message }) => { const data: string | Uint8Array = message.data; return data; });
stream.addEventListener("batch", ({ messages }) => {
  for (const m of messages) {
    if (m.event === "gap") { const gap: Gap = m; return gap.count; }
    const message: Message = m;
    return message.time?.slice(0, 10);
  }
  return undefined;
});
stream.addEventListener("state", ({ state, retryAt, reason, transport }) => {
  const at: number | undefined = retryAt;
  return [state, at, reason, transport];
});
// @ts-expect-error a state has no messages
stream.addEventListener("state", ({ messages }) => messages);
stream.addEventListener("error", ({ error, final }) => { const e: FollowError = error; return final && e.status; });
export function never() {
  // @ts-expect-error it is read only
  stream.since = "1x";
}

const loop = stream[Symbol.asyncIterator]();
const since: string | undefined = loop.since;
stream.publish("app", new Uint8Array([1]), { others: true }).catch((e: unknown) => e);
stream.close();
for await (const m of stream) { const item: Message | Gap = m; throw item; }
new EventStreamParser(({ event, data, topic }) => console.log(event, data, topic)).push(new TextEncoder().encode("topic: app\ndata: x\n\n"));
console.log(stream.state, since, wrong && misspelt && typeof stream.positions.get("app"));
