// The topics to choose from, as buttons that are pressed while their topic is shown.

export class Topics extends EventTarget {
  constructor(root, listed, chosen) {
    super();
    this.root = root;
    this.listed = listed; // the topics that the page was given, or null: then those that come along are all there are
    this.names = [...(listed ?? chosen)];
    const there = chosen.filter((t) => !listed || listed.includes(t));
    this.chosen = new Set(there.length ? there : this.names);
    this.everything = !listed && chosen.length === 0; // the hub is not asked for topics by name
    this.number = () => 0;
    this.draw();
  }

  // asked is what the hub is asked for: undefined, or names.
  get asked() { return this.everything ? undefined : [...this.chosen]; }

  // several says that lines have to tell which topic they are of.
  get several() { return this.everything ? this.names.length > 1 : this.chosen.size > 1; }

  // see takes note of topics that lines have come from.
  see(names) {
    let changed = false;
    for (const name of names) {
      if (this.names.includes(name)) continue;
      this.names.push(name);
      this.chosen.add(name);
      changed = true;
    }
    if (changed) this.draw();
    return changed;
  }

  toggle(name) {
    const next = new Set(this.chosen);
    if (!next.delete(name)) next.add(name);
    if (next.size === 0) return; // one is always shown
    this.chosen = next;
    this.everything = !this.listed && next.size === this.names.length;
    this.draw();
    this.dispatchEvent(new Event("change"));
  }

  draw() {
    this.root.hidden = this.names.length < 2;
    const focused = this.root.contains(document.activeElement) ? document.activeElement.topic : undefined;
    this.root.replaceChildren(...this.names.map((name) => {
      const b = document.createElement("button");
      b.type = "button";
      b.topic = name;
      b.className = "colour" + (this.number(name) % 8);
      b.setAttribute("aria-pressed", String(this.chosen.has(name)));
      b.append(name || "default");
      b.addEventListener("click", () => this.toggle(name));
      return b;
    }));
    if (focused !== undefined) [...this.root.children].find((b) => b.topic === focused)?.focus();
  }
}
