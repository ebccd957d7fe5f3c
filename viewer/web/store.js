// The lines that the page keeps, in chunks: of each one string for the text and one for the ids, and arrays of numbers for the rest.
// A million lines are two thousand strings then, and the garbage collector has nothing to do with them.
//
// Lines are numbered. The first one is 0; older ones, that are loaded later, have numbers below that. A line keeps its number.

export const partial = 1, binary = 2, gap = 4; // kinds of lines, as bits

const chunkLines = 512;
const chunkChars = 1 << 18;

class Chunk {
  constructor(first) {
    this.first = first;
    this.count = 0;
    this.chars = 0;
    this.texts = []; // until it is sealed
    this.ids = [];
    this.text = null; // after that
    this.idText = null;
    this.ends = new Uint32Array(chunkLines);
    this.times = new Float64Array(chunkLines);
    this.topics = new Uint16Array(chunkLines);
    this.kinds = new Uint8Array(chunkLines);
    this.layout = null; // of layout.js
    this.matches = null; // of search.js
  }

  get end() { return this.first + this.count; }
  get full() { return this.count === chunkLines || this.chars >= chunkChars; }
  get bytes() { return this.sealedBytes ?? 2 * this.chars + 100 * this.count; }

  add(line) {
    const i = this.count++;
    this.chars += line.text.length;
    this.texts.push(line.text);
    this.ids.push(line.id);
    this.ends[i] = this.chars;
    this.times[i] = line.time;
    this.topics[i] = line.topic;
    this.kinds[i] = line.kind;
  }

  seal() {
    this.text = this.texts.join("");
    this.idText = this.ids.join("\n");
    this.texts = this.ids = null;
    for (const a of ["ends", "times", "topics", "kinds"]) {
      if (this.count < chunkLines) this[a] = this[a].slice(0, this.count);
    }
    const wide = /[^\x00-\xff]/.test(this.text) ? 2 : 1;
    this.sealedBytes = this.text.length * wide + this.idText.length + 15 * this.count + 500;
  }

  textAt(i) {
    return this.texts ? this.texts[i] : this.text.slice(i ? this.ends[i - 1] : 0, this.ends[i]);
  }

  length(i) { return this.ends[i] - (i ? this.ends[i - 1] : 0); }

  // idList is made anew each time for a sealed chunk: it is for rare questions.
  idList() { return this.ids ?? this.idText.split("\n"); }
}

// lastOf returns the last id of each topic in a chunk. They are copies: a part of a string keeps the whole of it in memory.
function lastOf(chunk, names) {
  const last = new Map();
  chunk.idList().forEach((id, i) => id && last.set(names[chunk.topics[i]], id));
  for (const [name, id] of last) last.set(name, [...id].join(""));
  return last;
}

export class Store {
  constructor(limits) {
    this.limits = limits; // {lines, bytes}
    this.chunks = [];
    this.names = []; // of topics, by number
    this.dropped = 0; // lines, at the top, since the beginning
    this.marks = []; // where dropped lines were: {ids: Map of topic to position, count}
    this.sealedBytes = 0;
    this.clear();
  }

  clear() {
    this.chunks = [];
    this.dropped = 0;
    this.marks = [];
    this.sealedBytes = 0;
    this.lastIds = new Map(); // of the lines before the first one that is kept
  }

  get first() { return this.chunks.length ? this.chunks[0].first : 0; }
  get end() { return this.chunks.length ? this.chunks.at(-1).end : 0; }
  get size() { return this.end - this.first; }
  get bytes() {
    const last = this.chunks.at(-1);
    return this.sealedBytes + (last && !last.text ? last.bytes : 0);
  }

  topic(name) {
    let n = this.names.indexOf(name);
    if (n < 0) n = this.names.push(name) - 1;
    return n;
  }

  // append adds a line {text, id, time, topic, kind} at the end.
  append(line) {
    let last = this.chunks.at(-1);
    if (!last || last.text !== null) this.chunks.push((last = new Chunk(this.end)));
    last.add(line);
    if (last.full) this.seal(last);
  }

  seal(chunk) {
    chunk.seal();
    this.sealedBytes += chunk.bytes;
  }

  // prepend adds older lines before the first one. Where nothing is kept it is the same as appending them.
  prepend(lines) {
    if (this.chunks.length === 0) return lines.forEach((l) => this.append(l));
    const made = [];
    let chunk = null;
    for (const line of lines) {
      if (!chunk || chunk.full) made.push((chunk = new Chunk(0)));
      chunk.add(line);
    }
    let first = this.first;
    for (const c of made.reverse()) {
      first -= c.count;
      c.first = first;
      this.seal(c);
      this.chunks.unshift(c);
    }
  }

  // trim drops the oldest chunks while there are more lines or bytes than allowed, and returns how many lines that were.
  trim(allowed = 1) {
    let n = 0;
    while (this.chunks.length > 1 && (this.size > this.limits.lines * allowed || this.bytes > this.limits.bytes * allowed)) {
      const c = this.chunks.shift();
      this.sealedBytes -= c.bytes;
      n += c.count;
      const before = this.lastIds;
      this.lastIds = new Map([...before, ...lastOf(c, this.names)]);
      this.marks.push({ ids: before, count: c.count });
      if (this.marks.length > 20000) this.marks.shift();
    }
    this.dropped += n;
    return n;
  }

  chunkAt(n) {
    let low = 0, high = this.chunks.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      if (this.chunks[mid].first <= n) low = mid;
      else high = mid - 1;
    }
    return this.chunks[low];
  }

  has(n) { return n >= this.first && n < this.end; }

  // at returns line n.
  at(n) {
    const c = this.chunkAt(n);
    return this.lineOf(c, n - c.first);
  }

  // lineOf returns line i of a chunk, also of one that is not kept any more.
  lineOf(c, i) {
    return { n: c.first + i, text: c.textAt(i), time: c.times[i], topic: this.names[c.topics[i]], topicNumber: c.topics[i], kind: c.kinds[i] };
  }

  idAt(n) {
    const c = this.chunkAt(n);
    return c.idList()[n - c.first];
  }

  // find returns the number of the line with this id, undefined if there is none. The newest chunks come first.
  find(topic, id) {
    const number = this.names.indexOf(topic);
    for (let k = this.chunks.length - 1; k >= 0; k--) {
      const c = this.chunks[k];
      if (c.idText !== null && !c.idText.includes(id)) continue;
      const ids = c.idList();
      for (let i = c.count - 1; i >= 0; i--) {
        if (ids[i] === id && c.topics[i] === number) return c.first + i;
      }
    }
    return undefined;
  }

  // oldest returns the id of the oldest line of each topic that has one.
  oldest() {
    const found = new Map();
    for (const c of this.chunks) {
      const ids = c.idList();
      for (let i = 0; i < c.count; i++) {
        const name = this.names[c.topics[i]];
        if (ids[i] && !(c.kinds[i] & gap) && !found.has(name)) found.set(name, ids[i]);
      }
      if (found.size === this.names.length) break;
    }
    return found;
  }
}
