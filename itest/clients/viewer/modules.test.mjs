// The functions of the viewer's page that need no page.
import assert from "node:assert/strict";
import { register } from "node:module";
import { describe, test } from "node:test";
import * as ansi from "../../../viewer/web/ansi.js";
import { base, colours, contrast, hex, legible } from "../../../viewer/web/colour.js";
import { save } from "../../../viewer/web/copy.js";
import * as json from "../../../viewer/web/json.js";
import { Layout, scale } from "../../../viewer/web/layout.js";
import { levelOf } from "../../../viewer/web/levels.js";
import { compile, matches, ranges } from "../../../viewer/web/match.js";
import { Search } from "../../../viewer/web/search.js";
import { permalink, readAddress, writeAddress } from "../../../viewer/web/settings.js";
import { Store, gap } from "../../../viewer/web/store.js";
import { bytes, count, hexdump, pieces, plural } from "../../../viewer/web/text.js";
import * as time from "../../../viewer/web/time.js";
import { Topics } from "../../../viewer/web/topics.js";

// The handler serves tailcast.js beside the others.
register("data:text/javascript," + encodeURIComponent(`export const resolve = (name, context, next) =>
  next(name === "./tailcast.js" ? "../tailcast/tailcast.js" : name, context)`));
const { older } = await import("../../../viewer/web/feed.js");

// random numbers from 0 to n-1, the same ones each time.
function random(seed) {
  let s = seed >>> 0;
  return (n) => {
    s = (Math.imul(s, 1664525) + 1013904223) >>> 0;
    return Math.floor((s / 2 ** 32) * n);
  };
}

describe("ansi", () => {
  const styles = (text) => {
    const { text: plain, runs } = ansi.parse(text);
    let at = 0;
    return runs.map(({ end, style }) => [plain.slice(at, (at = end)), style]);
  };
  test("text without escapes is one run", () => {
    assert.deepEqual(ansi.parse("plain"), { text: "plain", runs: [{ end: 5, style: null }], dropped: 0 });
    assert.deepEqual(ansi.parse(""), { text: "", runs: [{ end: 0, style: null }], dropped: 0 });
  });
  for (const [what, text, want] of [
    ["the 16 colours", "\x1b[31mr\x1b[92mg\x1b[44mb\x1b[105mm\x1b[0m.", [["r", { fg: 1 }], ["g", { fg: 10 }], ["b", { fg: 10, bg: 4 }], ["m", { fg: 10, bg: 13 }], [".", null]]],
    ["back to the default", "\x1b[31;42mx\x1b[39my\x1b[49mz", [["x", { fg: 1, bg: 2 }], ["y", { bg: 2 }], ["z", null]]],
    ["the 256", "\x1b[38;5;9ma\x1b[48;5;196mb\x1b[38;5;255mc", [["a", { fg: 9 }], ["b", { fg: 9, bg: [255, 0, 0] }], ["c", { fg: [238, 238, 238], bg: [255, 0, 0] }]]],
    ["true colour, with semicolons and colons", "\x1b[38;2;1;2;3ma\x1b[38:2::4:5:6mb\x1b[48:2:7:8:9mc", [["a", { fg: [1, 2, 3] }], ["b", { fg: [4, 5, 6] }], ["c", { fg: [4, 5, 6], bg: [7, 8, 9] }]]],
    ["what is not a colour is none", "\x1b[38;5;256ma\x1b[38;2;1;2;300mb\x1b[38mc", [["abc", null]]],
    ["what follows a long colour counts", "\x1b[38;5;9;1ma", [["a", { fg: 9, bold: true }]]],
    ["bold, faint, italic, underline, inverse, strike", "\x1b[1;2;3;4;7;9ma\x1b[22;23mb\x1b[24;27;29mc",
      [["a", { bold: true, faint: true, italic: true, underline: true, inverse: true, strike: true }], ["b", { underline: true, inverse: true, strike: true }], ["c", null]]],
    ["underlines have kinds", "\x1b[4:3ma\x1b[4:0mb", [["a", { underline: true }], ["b", null]]],
    ["an empty SGR ends all", "\x1b[1ma\x1b[mb\x1b[1m\x1b[;mc", [["a", { bold: true }], ["bc", null]]],
    ["C1", "\x9b31ma\x9b0mb", [["a", { fg: 1 }], ["b", null]]],
  ]) test(what, () => assert.deepEqual(styles(text), want));
  test("other escapes are dropped, and counted", () => {
    for (const e of ["\x1b[2J", "\x1b[?25l", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x9d0;t\x9c", "\x1bPq\x1b\\", "\x1b^x\x1b\\", "\x1b(B", "\x1b7", "\x1b[>4;1m", "\x1b[1 q"]) {
      assert.deepEqual(ansi.parse(`a${e}b`), { text: "ab", runs: [{ end: 2, style: null }], dropped: 1 }, JSON.stringify(e));
      assert.equal(ansi.strip(`a${e}b`), "ab");
    }
  });
  test("an escape without an end takes no more than itself", () => {
    assert.equal(ansi.strip("a\x1b["), "a");
    assert.equal(ansi.strip("a\x1b[31"), "a");
    assert.equal(ansi.strip("a\x1b]0;title \x1b[31mred"), "ared");
    assert.equal(ansi.strip("a\x1b"), "a");
    assert.equal(ansi.strip("a\x1b[31é"), "aé");
  });
  test("strip and parse agree, leave no escape, and take time in proportion", () => {
    const r = random(1), bits = ["\x1b", "[", "]", "3", "1", ";", "m", "\x07", "\\", "P", "a", "é", "\x9b", "\x9c", " ", "?", "K", ":"];
    for (let i = 0; i < 20_000; i++) {
      const s = Array.from({ length: r(20) }, () => bits[r(bits.length)]).join("");
      const p = ansi.parse(s);
      assert.equal(p.text, ansi.strip(s), JSON.stringify(s));
      assert.ok(!p.text.includes("\x1b"), JSON.stringify(s));
      assert.equal(p.runs.at(-1).end, p.text.length);
    }
    for (const s of ["\x1b[".repeat(50_000), "\x1b[" + "1;".repeat(50_000), "\x1b]".repeat(50_000), "\x1b ".repeat(50_000)]) ansi.parse(s);
  });
});

describe("colour", () => {
  test("every colour can be read on every other, in both schemes", () => {
    const r = random(2);
    for (let i = 0; i < 3000; i++) {
      const [fg, bg] = [0, 0].map(() => [r(256), r(256), r(256)]);
      assert.ok(contrast(legible(fg, bg), bg) >= 4.5, `${fg} on ${bg}`);
    }
    const rgb = (css) => /rgb\((.*)\)/.exec(css)[1].split(" ").map(Number);
    for (const scheme of ["light", "dark"]) {
      for (let fg = -1; fg < 16; fg++) {
        for (let bg = -1; bg < 16; bg++) {
          for (const more of [{}, { faint: true }, { inverse: true }]) {
            const style = { ...more, ...(fg >= 0 && { fg }), ...(bg >= 0 && { bg }) };
            const c = colours(style, scheme);
            const front = c.color ? rgb(c.color) : base[scheme].text, back = c.background ? rgb(c.background) : base[scheme].page;
            assert.ok(contrast(front, back) >= 4.5, `${scheme} ${JSON.stringify(style)}: ${contrast(front, back)}`);
          }
        }
      }
    }
  });
  test("a colour that can be read stays as it is", () => {
    assert.deepEqual(legible([0, 0, 0], [255, 255, 255]), [0, 0, 0]);
    assert.deepEqual(hex("#0a10ff"), [10, 16, 255]);
    assert.deepEqual(colours({ bold: true }, "light"), { color: "", background: "" });
  });
});

describe("text", () => {
  const shown = (s) => pieces(s).map((p) => p.symbol ?? p.text).join("");
  test("nothing invisible is left", () => {
    assert.equal(shown("a\x00\x07\x1b\x7f\tb\r\n"), "a^@^G^[^?\tb^M^J");
    assert.equal(shown("\u202eevil\u2066\u2069\u200f\u061c\ufeff\x85\u2028"), "⟨RLO⟩evil⟨LRI⟩⟨PDI⟩⟨RLM⟩⟨ALM⟩⟨BOM⟩⟨U+0085⟩⟨LS⟩");
    assert.equal(shown("\ud800 \udc00"), "⟨U+D800⟩ ⟨U+DC00⟩");
  });
  test("people's writing stays", () => {
    for (const s of ["Zoë 🦊 👩‍👩‍👧 שלום ñ é ไทย हिन्दी 日本", "é".normalize("NFD")]) assert.equal(shown(s), s);
  });
  test("many marks on one letter are counted", () => {
    assert.equal(shown("a" + "\u0301".repeat(100_000) + "b"), "a" + "\u0301".repeat(8) + "⟨+99992 marks⟩b");
  });
  test("the pieces are the whole text", () => {
    const r = random(3), bits = ["a", "\x00", "\u202e", "\u0301", "\ud83e", "\udd8a", "\n", "é", "\u200b", "\u{e0041}", "\ufeff"];
    for (let i = 0; i < 20_000; i++) {
      const s = Array.from({ length: r(25) }, () => bits[r(bits.length)]).join("");
      assert.equal(pieces(s).map((p) => p.text).join(""), s);
    }
  });
  test("numbers", () => {
    assert.equal(count(1234567), "1\u202f234\u202f567");
    assert.equal(count(12), "12");
    assert.equal(plural(1, "line"), "1\u00a0line");
    assert.equal(plural(0, "line"), "0\u00a0lines");
    assert.equal(bytes(1034), "1.0\u00a0KiB");
    assert.equal(bytes(5e9), "4.7\u00a0GiB");
    assert.equal(hexdump("\x00A\xff").split("\n").length, 1);
    assert.match(hexdump("\x00A\xff"), /^00000000 {2}00 41 ff +\.A\.$/);
  });
});

describe("levels", () => {
  for (const [text, want] of [
    ["ERROR no", "error"], ["2026-01-02T15:04:05Z WARN  x", "warn"], ["[info] x", "info"], ["error: x", "error"], ["(Warning) x", "warn"],
    ["level=debug msg=x", "debug"], ["ts=1 lvl=eror msg=x", ""], ['level="warning"', "warn"], ["severity: CRITICAL", "fatal"],
    ["no error was found", ""], ["ERRORS are none", ""], ["an information desk", ""], ["GET /error 200", ""], ["TERROR", ""], ["PRE-ERROR", ""],
    ["x".repeat(300) + " ERROR", ""], ["I0102 15:04:05.000001 1 x.go:1] m", "info"], ["E0102 15:04:05.000001 1 x.go:1] m", "error"],
    ["<11>Jan 2 app: x", "error"], ["<14>Jan 2 app: x", "info"], ["<999> x", ""], ["", ""], ["constructor: x", ""], ["[toString] x", ""],
  ]) test(JSON.stringify(text.slice(0, 40)), () => assert.equal(levelOf(text, undefined), want));
  for (const [object, want] of [
    [{ level: "info" }, "info"], [{ lvl: "ERROR" }, "error"], [{ severity: "WARNING" }, "warn"], [{ level: 30 }, "info"], [{ level: 50 }, "error"], [{ level: 60 }, "fatal"],
    [{ level: 10 }, "trace"], [{ "log.level": "debug" }, "debug"], [{ log: { level: "error" } }, "error"], [{ severity: 3 }, "error"], [{ severity: 7 }, "debug"],
    [{ level: "30" }, "info"], [{ level: null }, ""], [{ msg: "ERROR" }, ""], [{ level: {} }, ""], [{ level: "__proto__" }, ""], [{ log: null }, ""],
  ]) test(JSON.stringify(object), () => assert.equal(levelOf(JSON.stringify(object), object), want));
});

describe("json", () => {
  test("only objects and arrays are", () => {
    for (const s of ["", "12", '"x"', "null", "{", "[1", "{}x", "x{}"]) assert.equal(json.object(s), undefined, s);
    assert.deepEqual(json.object(' {"a":1}\r'), { a: 1 });
    assert.equal(json.object("[" + " ".repeat(2 << 20) + "]"), undefined);
    assert.equal(json.object("[".repeat(100_000)), undefined);
  });
  test("the outline is what an indenting printer writes", () => {
    const r = random(4);
    const value = (depth) => {
      switch (r(depth > 4 ? 5 : 8)) {
        case 0: return null;
        case 1: return r(2) === 0;
        case 2: return r(1000) / 8;
        case 3: case 4: return "s\"\n" + r(100);
        case 5: return Array.from({ length: r(4) }, () => value(depth + 1));
        default: return Object.fromEntries(Array.from({ length: r(4) }, (_, i) => ["k" + i, value(depth + 1)]));
      }
    };
    for (let i = 0; i < 500; i++) {
      const v = value(0);
      const text = json.outline(v).map((l) => "  ".repeat(l.depth) + l.tokens.map(([, t]) => t).join("")).join("\n");
      assert.equal(text, JSON.stringify(v, null, 2));
    }
  });
  test("it has an end", () => {
    let deep = 0;
    for (let i = 0; i < 2000; i++) deep = [deep];
    assert.ok(json.outline(deep).length < 300);
    assert.ok(json.outline(Array.from({ length: 100_000 }, (_, i) => i)).length < 5100);
  });
});

describe("match", () => {
  const find = (query, text) => ranges(compile({ exact: false, regex: false, ...query }), text);
  test("plain text, in any case", () => {
    assert.deepEqual(find({ text: "err" }, "Err, ERR!"), [[0, 3], [5, 8]]);
    assert.deepEqual(find({ text: "err", exact: true }, "Err, err!"), [[5, 8]]);
    assert.deepEqual(find({ text: "a.b(c-d)/[e]" }, "xa.b(c-d)/[e]"), [[1, 13]]);
    assert.deepEqual(find({ text: "a.b" }, "axb"), []);
  });
  test("expressions", () => {
    assert.deepEqual(find({ text: "\\d+", regex: true }, "a12b345"), [[1, 3], [4, 7]]);
    assert.deepEqual(find({ text: "x*", regex: true }, "axxb🦊"), [[1, 3]]);
    assert.deepEqual(find({ text: "\\_", regex: true }, "a_b"), [[1, 2]]);
    assert.throws(() => compile({ text: "(", regex: true }), SyntaxError);
    assert.equal(matches(compile({ text: "x*", regex: true }), "abc🦊"), false);
    assert.equal(matches(compile({ text: "^b|c$", regex: true }), "abc"), true);
  });
  test("there is a most", () => assert.equal(find({ text: "a" }, "a".repeat(5000)).length, 1000));
});

describe("address", () => {
  const location = (url) => new URL(url);
  test("what is written is read", () => {
    const shown = { topics: ["app", "d b"], grep: "a&b=c", invert: true, params: { user: "ann" } };
    const read = readAddress(location("http://x/v/" + writeAddress(shown) + permalink("d b", "1abc.2", "1abc.1")));
    assert.deepEqual(read, { ...shown, link: { id: "1abc.2", topic: "d b", since: "1abc.1" } });
  });
  test("what the page asks the hub for is not for others to say", () => {
    const read = readAddress(location("http://x/v/?gaps=0&since=latest&tail=1&user=ann"));
    assert.deepEqual(read.params, { user: "ann" });
  });
  test("an empty one", () => {
    assert.equal(writeAddress({ topics: undefined, grep: "", invert: true, params: {} }), "");
    assert.deepEqual(readAddress(location("http://x/v/")), { topics: [], grep: "", invert: false, params: {}, link: null });
  });
});

describe("time", () => {
  const ms = Date.UTC(2026, 0, 2, 3, 4, 5, 6);
  test("forms", () => {
    assert.equal(time.write(ms, "utc", 0), "03:04:05.006");
    assert.match(time.write(ms, "local", 0), /^\d\d:\d\d:\d\d\.006$/);
    assert.equal(time.write(ms, "off", 0), "");
    assert.equal(time.write(NaN, "utc", 0), "");
    assert.equal(time.whole(NaN), "");
    for (const [ago, want] of [[-5, "0 s ago"], [59_999, "59 s ago"], [61_000, "1 min ago"], [3_600_000, "1 h ago"], [200_000_000, "2 d ago"]]) assert.equal(time.relative(ago), want);
  });
});

const line = (n, extra = {}) => ({ text: "line " + n, id: "1a." + n, time: n, topic: 0, kind: 0, ...extra });

describe("store", () => {
  test("it is a list, whatever is done to it", () => {
    const r = random(5);
    for (let round = 0; round < 20; round++) {
      const store = new Store({ lines: 3000, bytes: 1e9 });
      store.topic("app");
      let want = [], next = 0, before = -1, dropped = 0;
      for (let i = 0; i < 60; i++) {
        switch (r(4)) {
          case 0: case 1:
            for (let k = r(900); k > 0; k--, next++) { store.append(line(next)); want.push("line " + next); }
            break;
          case 2: {
            if (want.length === 0) break;
            const lines = [];
            for (let k = r(900); k > 0; k--, before--) lines.unshift(line(before));
            store.prepend(lines);
            want = [...lines.map((l) => l.text), ...want];
            break;
          }
          default: {
            const n = store.trim();
            dropped += n;
            want = want.slice(n);
            assert.ok(store.size <= 3000 || store.chunks.length === 1);
            if (n > 0) before = Infinity; // what is dropped is not followed by older ones here
          }
        }
        if (before === Infinity) break;
      }
      assert.equal(store.size, want.length);
      assert.equal(store.dropped, dropped);
      assert.deepEqual(Array.from({ length: store.size }, (_, i) => store.at(store.first + i).text), want);
      for (let k = 0; k < 20 && want.length; k++) {
        const n = store.first + r(store.size);
        const id = store.idAt(n);
        assert.equal(id, "1a." + store.at(n).text.slice(5));
        assert.equal(store.find("app", id), n);
      }
      assert.equal(store.find("app", "1a.none"), undefined);
      assert.equal(store.find("other", "1a.0"), undefined);
    }
  });
  test("what is dropped can be asked for again", () => {
    const store = new Store({ lines: 1000, bytes: 1e9 });
    store.topic("app");
    store.lastIds.set("app", "1a.start");
    for (let n = 0; n < 5000; n++) store.append(line(n));
    store.trim();
    assert.equal(store.marks[0].ids.get("app"), "1a.start");
    assert.equal(store.marks[1].ids.get("app"), "1a.511");
    assert.equal(store.marks.reduce((n, m) => n + m.count, 0), store.dropped);
    assert.equal(store.lastIds.get("app"), "1a." + (store.first - 1));
    assert.equal(store.oldest().get("app"), "1a." + store.first);
  });
  test("bytes count too", () => {
    const store = new Store({ lines: 1e9, bytes: 1e6 });
    store.topic("app");
    for (let n = 0; n < 20_000; n++) store.append(line(n, { text: "x".repeat(200) }));
    store.trim();
    assert.ok(store.bytes <= 1e6 && store.bytes > 5e5, String(store.bytes));
  });
  test("a gap has no position", () => {
    const store = new Store({ lines: 100, bytes: 1e6 });
    store.topic("app");
    store.append(line(1, { kind: gap, id: "" }));
    assert.equal(store.oldest().size, 0);
  });
});

describe("layout", () => {
  // model: heights as an array.
  test("it agrees with adding up", () => {
    const r = random(6);
    for (let round = 0; round < 30; round++) {
      const store = new Store({ lines: 1e9, bytes: 1e9 });
      store.topic("app");
      const layout = new Layout(store, 20);
      layout.reset(20, round % 2 ? 0 : 40, 200);
      layout.head = r(2) * 24;
      const heights = [];
      let first = 0, before = -1;
      const height = (l) => 20 * (layout.columns ? Math.max(1, Math.ceil(Math.min(l.text.length, 200) / 40)) : 1);
      const make = (n) => line(n, { text: "x".repeat(r(300)) });
      for (let i = 0; i < 40; i++) {
        switch (r(4)) {
          case 0: for (let k = r(700); k > 0; k--) { const l = make(store.end); store.append(l); heights.push(height(l)); } break;
          case 1: {
            if (!heights.length) break;
            const lines = Array.from({ length: r(700) }, () => make(before--));
            store.prepend(lines);
            heights.unshift(...lines.map(height));
            first -= lines.length;
            break;
          }
          case 2: {
            if (!heights.length) break;
            const k = r(heights.length), px = 20 + r(200);
            assert.equal(layout.measured(first + k, px), heights[k] !== px);
            heights[k] = px;
            break;
          }
          default: {
            store.limits.lines = Math.max(1, heights.length - r(1000));
            const n = store.trim();
            heights.splice(0, n);
            first += n;
          }
        }
        assert.equal(store.size, heights.length);
        const total = heights.reduce((a, b) => a + b, layout.head);
        assert.ok(Math.abs(layout.total() - total) < 0.5);
        if (!heights.length) continue;
        assert.equal(store.first, first);
        const k = r(heights.length), y = heights.slice(0, k).reduce((a, b) => a + b, layout.head);
        assert.equal(layout.top(first + k), y);
        const into = r(heights[k]);
        assert.deepEqual(layout.find(y + into), { n: first + k, offset: into });
        assert.equal(layout.height(first + k), heights[k]);
        const view = 300, by = r(2000) - 1000, moved = layout.move({ n: first + k, offset: into }, by, view);
        assert.equal(layout.top(moved.n) + moved.offset, Math.max(0, Math.min(y + into + by, total - view)));
      }
    }
  });
  test("a million rows fit into the highest element", () => {
    const bar = scale(20e6, 700, 12e6);
    assert.equal(bar.height, 12e6);
    assert.equal(bar.toBar(0), 0);
    assert.ok(Math.abs(bar.toBar(20e6 - 700) - (12e6 - 700)) < 0.01);
    assert.ok(Math.abs(bar.fromBar(bar.toBar(1234567)) - 1234567) < 0.01);
    assert.deepEqual([scale(5000, 700, 12e6).exact, scale(5000, 700, 12e6).toBar(77)], [true, 77]);
  });
});

describe("topics", () => {
  test("those of an address that are not listed are not asked for", () => {
    globalThis.document = { createElement: () => ({ setAttribute() {}, append() {}, addEventListener() {} }) };
    const root = { contains: () => false, replaceChildren() {} };
    assert.deepEqual(new Topics(root, ["app", "db"], ["db", "gone"]).asked, ["db"]);
    const none = new Topics(root, ["app", "db"], ["gone"]);
    assert.deepEqual(none.asked, ["app", "db"]);
    assert.equal(none.several, true);
  });
});

describe("search", () => {
  test("an expression that takes forever is ended while lines come", (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    let worker;
    globalThis.Worker = class {
      constructor() { worker = this; }
      postMessage() {}
      terminate() { this.ended = true; }
    };
    const store = new Store({ lines: 1e9, bytes: 1e9 });
    store.topic("app");
    store.append(line(0));
    const search = new Search(store);
    search.start({ text: "(a|a)*$", regex: true, exact: false });
    worker.onmessage({ data: { ready: true } });
    for (let n = 1; n < 100 && !search.error; n++) {
      store.append(line(n));
      search.step();
      search.look([n]);
      t.mock.timers.tick(500);
    }
    assert.equal(search.error, "This expression takes too long.");
    assert.ok(worker.ended);
  });
});

describe("older lines", () => {
  test("they tell what stands before them", async () => {
    const store = new Store({ lines: 1000, bytes: 1e9 });
    for (const name of ["app", "db", "new"]) store.topic(name);
    store.append(line(7));
    store.append(line(1, { topic: 1, id: "1b.1" }));
    store.append(line(0, { topic: 2, id: "1c.0" }));
    globalThis.document = { baseURI: "http://hub/view/" };
    globalThis.fetch = async () => new Response([
      { event: "pos", topic: "app", id: "1a.4" }, { event: "pos", topic: "db", id: "earliest" }, { event: "pos", topic: "new", id: "earliest" },
      { id: "1a.5", topic: "app", data: "five" }, { id: "1a.6", topic: "app", data: "six" }, { id: "1b.0", topic: "db", data: "db" },
      { id: "1c.0", topic: "new", data: "there" }, { id: "1b.1", topic: "db", data: "there" }, { id: "1a.7", topic: "app", data: "there" },
    ].map((o) => JSON.stringify(o) + "\n").join(""));
    store.lastIds = new Map([["app", "1a.6"], ["db", "1b.0"], ["new", "1c.x"]]);
    const r = await older("../logs", store, {}, 0, new AbortController().signal);
    assert.deepEqual(r.lines.map((l) => l.text), ["five", "six", "db"]);
    assert.deepEqual([...r.ids].sort(), [["app", "1a.4"], ["db", "earliest"], ["new", "1c.x"]]);
  });
});

describe("download", () => {
  test("it has the lines that were there, whatever is shown meanwhile", async () => {
    const store = new Store({ lines: 1e9, bytes: 1e9 });
    store.topic("app");
    for (let n = 0; n < 512 * 30; n++) store.append(line(n));
    let blob;
    const { createObjectURL } = URL;
    URL.createObjectURL = (b) => { blob = b; return "blob:x"; };
    globalThis.document = { createElement: () => ({ click() {} }) };
    const saved = save(store, "x.log", false);
    store.clear();
    for (let n = 0; n < 512 * 30; n++) store.append(line(n, { text: "another" }));
    await saved;
    URL.createObjectURL = createObjectURL;
    assert.equal(await blob.text(), Array.from({ length: 512 * 30 }, (_, n) => `line ${n}\n`).join(""));
  });
});
