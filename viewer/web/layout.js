// Where each line is, in pixels from the top of all that are kept: arithmetic without the page. A row has the height of one line of
// text until it is known better: it is estimated from its length where lines are wrapped, and measured when it has been shown.

export class Layout {
  constructor(store, rowHeight) {
    this.store = store;
    this.rowHeight = rowHeight;
    this.columns = 0; // at which lines are wrapped; 0: they are not
    this.longest = Infinity; // characters of a row that are shown
    this.head = 0; // pixels above the first row
    this.version = 1; // of rowHeight and columns
  }

  // reset forgets what was measured.
  reset(rowHeight, columns, longest) {
    this.rowHeight = rowHeight;
    this.columns = columns;
    this.longest = longest;
    this.version++;
  }

  estimate(chunk, i) {
    if (!this.columns) return this.rowHeight;
    return this.rowHeight * Math.max(1, Math.ceil(Math.min(chunk.length(i), this.longest) / this.columns));
  }

  // of returns the layout of a chunk: {version, laid, sum, heights}. heights is null while all rows are of one line.
  of(chunk) {
    let l = chunk.layout;
    if (!l || l.version !== this.version) l = chunk.layout = { version: this.version, laid: 0, sum: 0, heights: null };
    while (l.laid < chunk.count) {
      const i = l.laid++, h = this.estimate(chunk, i);
      l.sum += h;
      if (l.heights) this.room(l, chunk)[i] = h;
      else if (h !== this.rowHeight) this.room(l, chunk)[i] = h;
    }
    return l;
  }

  room(l, chunk) {
    const need = Math.max(chunk.count, 512);
    if (!l.heights || l.heights.length < need) {
      const grown = new Float32Array(need).fill(this.rowHeight);
      if (l.heights) grown.set(l.heights);
      l.heights = grown;
    }
    return l.heights;
  }

  height(n) {
    const c = this.store.chunkAt(n), l = this.of(c);
    return l.heights ? l.heights[n - c.first] : this.rowHeight;
  }

  // measured sets the height of a row that has been shown, and reports whether it is another one than before.
  measured(n, px) {
    const c = this.store.chunkAt(n), l = this.of(c), i = n - c.first;
    const before = l.heights ? l.heights[i] : this.rowHeight;
    if (Math.abs(before - px) < 0.01) return false;
    const heights = this.room(l, c);
    heights[i] = px;
    l.sum += heights[i] - before;
    return true;
  }

  total() {
    let sum = this.head;
    for (const c of this.store.chunks) sum += this.of(c).sum;
    return sum;
  }

  // top is where row n begins. n may be the end.
  top(n) {
    let y = this.head;
    for (const c of this.store.chunks) {
      const l = this.of(c);
      if (n >= c.end) {
        y += l.sum;
        continue;
      }
      const k = n - c.first;
      if (!l.heights) return y + k * this.rowHeight;
      for (let i = 0; i < k; i++) y += l.heights[i];
      return y;
    }
    return y;
  }

  // find returns the row at y, and how far below its top that is: {n, offset}. Above the first row the offset is negative.
  find(y) {
    const chunks = this.store.chunks;
    if (y < this.head || chunks.length === 0) return { n: this.store.first, offset: y - this.head };
    let at = this.head;
    for (const c of chunks) {
      const l = this.of(c);
      if (y >= at + l.sum) {
        at += l.sum;
        continue;
      }
      if (!l.heights) {
        const i = Math.min(c.count - 1, Math.floor((y - at) / this.rowHeight));
        return { n: c.first + i, offset: y - at - i * this.rowHeight };
      }
      for (let i = 0; i < c.count; i++) {
        if (y < at + l.heights[i] || i === c.count - 1) return { n: c.first + i, offset: y - at };
        at += l.heights[i];
      }
    }
    const last = this.store.end - 1;
    return { n: last, offset: y - this.top(last) };
  }

  // move returns the place px below another one, within what there is to see through a view of so many pixels.
  move(anchor, px, view) {
    const y = this.top(anchor.n) + anchor.offset + px;
    return this.find(Math.max(0, Math.min(y, this.total() - view)));
  }
}

// scale says how what is there to scroll fits into the highest element that browsers can have: {height, toBar, fromBar}, where the two
// functions translate between a place in all rows and the place of the scroll bar.
export function scale(total, view, highest) {
  if (total <= highest) return { height: total, exact: true, toBar: (y) => y, fromBar: (s) => s };
  const f = (total - view) / (highest - view);
  return { height: highest, exact: false, toBar: (y) => y / f, fromBar: (s) => s * f };
}
