// Looks for an expression in the lines that the page sends. It is a worker, so that an expression that takes forever takes nothing but
// this worker's time: the page ends it then.

import { compile, matches, ranges } from "./match.js";
import { strip } from "./ansi.js";

let re = null;

onmessage = ({ data }) => {
  if (data.query) {
    re = compile(data.query);
    return;
  }
  if (data.rows) { // where it is, in rows that can be seen
    postMessage({ rows: data.rows.map(({ n, text }) => [n, ranges(re, strip(text))]) });
    return;
  }
  const found = []; // in which lines of a chunk it is
  let at = data.begin;
  for (let i = 0; i < data.ends.length; i++) {
    if (matches(re, strip(data.text.slice(at - data.begin, data.ends[i] - data.begin)))) found.push(data.from + i);
    at = data.ends[i];
  }
  postMessage({ found: Uint16Array.from(found) });
};

postMessage({ ready: true });
