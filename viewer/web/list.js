// The rows that can be seen, and no others: a list of any length in an element that scrolls.
//
// What stands at the upper edge of the view is the anchor: a row, and how many of its pixels are above the edge. It is what stays where
// it is when rows come or go at either end, or turn out to be higher than was thought. The scroll bar is derived from it; what a user
// does to the scroll bar moves the anchor. While the list follows there is no anchor: the last row stands at the lower edge.

import { scale } from "./layout.js";

const highest = 12e6; // pixels; Firefox's limit for an element is the lowest, with 17.8 million
const usual = 8; // rows beyond each edge, so that a browser that scrolls by itself for a moment shows no hole

export class List extends EventTarget {
  constructor(root, store, layout, make) {
    super();
    this.root = root;
    this.store = store;
    this.layout = layout;
    this.make = make; // (n) => element
    this.space = root.appendChild(element("space"));
    this.rows = root.appendChild(element("rows"));
    this.head = this.rows.appendChild(element("head"));
    this.nodes = new Map(); // by number
    this.pinned = new Set(); // rows that stay in the page because a selection begins or ends there
    this.anchor = { n: 0, offset: 0 };
    this.follow = true;
    this.held = false; // does not go on following by being scrolled to the end
    this.expected = 0; // scrollTop, unless the user scrolls
    this.scrolling = 0; // a timer, while he does in a list whose scroll bar is not exact
    this.frame = 0;
    this.spare = usual;
    this.renders = 0;
    root.addEventListener("scroll", () => this.scrolled(), { passive: true });
    root.addEventListener("wheel", (e) => e.deltaY < 0 && !e.ctrlKey && this.canScroll() && this.pause(false), { passive: true });
    new ResizeObserver(() => this.schedule()).observe(root);
    addEventListener("beforeprint", () => this.print(1000));
    addEventListener("afterprint", () => this.print(usual));
    this.fitHead();
  }

  // print puts so many rows before and after those that can be seen into the page.
  print(rows) {
    this.spare = rows;
    this.render();
  }

  // schedule renders in the next frame.
  schedule() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  pause(held) {
    if (held) this.held = true;
    if (!this.follow) return;
    this.follow = false;
    this.dispatchEvent(new Event("follow"));
    this.schedule();
  }

  resume() {
    this.held = false;
    this.schedule();
    if (this.follow) return;
    this.follow = true;
    this.dispatchEvent(new Event("follow"));
  }

  canScroll() { return this.layout.total() > this.root.clientHeight; }

  place() { return this.layout.top(this.anchor.n) + this.anchor.offset; }

  scrolled() {
    const at = this.root.scrollTop, by = at - this.expected;
    if (Math.abs(by) < 1) return;
    this.expected = at;
    const view = this.root.clientHeight, total = this.layout.total();
    if (by < 0) this.pause(false);
    if (this.follow) return this.schedule();
    const bar = scale(total, view, highest);
    if (Math.abs(by) > 3 * view && !bar.exact) this.anchor = this.layout.find(bar.fromBar(at));
    else this.anchor = this.layout.move(this.anchor, by, view);
    if (at <= 0) this.anchor = this.layout.find(0);
    if (!bar.exact) {
      clearTimeout(this.scrolling);
      this.scrolling = setTimeout(() => {
        this.scrolling = 0;
        this.schedule();
      }, 150);
    }
    if (by > 0 && !this.held && at >= this.root.scrollHeight - view - 2) this.resume();
    this.schedule();
  }

  // show brings row n into view, in the middle if it is not there yet.
  show(n) {
    if (!this.store.has(n)) return;
    this.pause(false);
    const view = this.root.clientHeight, y = this.place(), top = this.layout.top(n);
    if (top < y || top + this.layout.height(n) > y + view) {
      const total = this.layout.total();
      this.anchor = this.layout.find(Math.max(0, Math.min(top - view / 3, total - view)));
    }
    this.schedule();
  }

  toTop() {
    this.pause(false);
    this.anchor = this.layout.find(0);
    this.schedule();
  }

  // refresh makes rows anew in the next frame: all, or one.
  refresh(n) {
    for (const node of n === undefined ? this.nodes.values() : [this.nodes.get(n)]) if (node) node.stale = true;
    this.schedule();
  }

  // fitHead takes the head's height into account after its text has changed.
  fitHead() {
    const { display } = this.head.style;
    this.head.style.display = "";
    this.layout.head = this.head.offsetHeight;
    this.head.style.display = display;
    this.schedule();
  }

  render() {
    this.renders++;
    const { store, layout, root } = this;
    if (store.size === 0) {
      this.refreshNone();
      return;
    }
    const view = root.clientHeight;
    let first, y;
    for (let pass = 0; pass < 3; pass++) {
      y = this.settle(view);
      first = this.fill(view);
      if (!this.measure()) break;
    }
    y = this.settle(view);
    const bar = scale(layout.total(), view, highest);
    this.space.style.height = Math.ceil(bar.height) + "px";
    let at = root.scrollTop;
    const target = bar.toBar(y);
    const edge = (at <= 0) !== (y <= 0) || (at >= bar.height - view - 1) !== (y >= layout.total() - view - 1);
    if (Math.abs(at - target) >= 1 && (bar.exact || !this.scrolling || edge)) {
      root.scrollTop = target;
      at = root.scrollTop;
    }
    this.expected = at;
    const top = first === store.first ? 0 : layout.top(first);
    this.rows.style.transform = `translateY(${at + top - y}px)`;
    this.dispatchEvent(new Event("render"));
  }

  refreshNone() {
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
    this.head.style.display = "";
    this.space.style.height = "0px";
    this.rows.style.transform = "";
    this.root.scrollTop = this.expected = 0;
    this.dispatchEvent(new Event("render"));
  }

  // settle brings the anchor to where it may be, and returns the pixels above the view.
  settle(view) {
    const { store, layout } = this;
    const most = Math.max(0, layout.total() - view);
    if (this.follow) {
      this.anchor = layout.find(most);
      return most;
    }
    if (this.anchor.n < store.first) this.anchor = { n: store.first, offset: 0 };
    if (this.anchor.n >= store.end) this.anchor = layout.find(most);
    const y = this.place();
    if (y > most) this.anchor = layout.find(most);
    return Math.min(y, most);
  }

  // fill puts the rows that can be seen into the page, and returns the first one.
  fill(view) {
    const { store, layout, nodes } = this;
    const first = Math.max(store.first, this.anchor.n - this.spare);
    let end = this.anchor.n;
    for (let room = view + this.anchor.offset; room > 0 && end < store.end; end++) room -= layout.height(end);
    end = Math.min(store.end, end + this.spare);
    for (const [n, node] of nodes) {
      if (n >= first && n < end) continue;
      if (this.pinned.has(n) && store.has(n)) {
        node.classList.add("pinned");
        continue;
      }
      node.remove();
      nodes.delete(n);
    }
    this.head.style.display = first === store.first ? "" : "none";
    let next = this.head.nextSibling;
    while (next && next.number < first) next = next.nextSibling;
    for (let n = first; n < end; n++) {
      let node = nodes.get(n);
      if (!node || node.stale) {
        const before = node;
        node = this.make(n);
        node.number = n;
        nodes.set(n, node);
        before?.replaceWith(node);
        if (next === before && before) next = node;
      } else if (node.classList.contains("pinned")) {
        node.classList.remove("pinned");
      }
      if (node === next) next = next.nextSibling;
      else this.rows.insertBefore(node, next);
    }
    return first;
  }

  // measure looks how high the rows are that may have any height, and reports whether one was thought to be otherwise.
  measure() {
    let changed = false;
    for (const [n, node] of this.nodes) {
      if (node.classList.contains("pinned")) continue;
      const px = this.layout.columns || node.classList.contains("open") ? node.getBoundingClientRect().height : this.layout.rowHeight;
      if (this.layout.measured(n, px)) changed = true;
    }
    return changed;
  }
}

function element(name) {
  const e = document.createElement("div");
  e.className = name;
  return e;
}
