// What to look for, and where it is.

const most = 1000; // places in one line

// compile returns a RegExp for {text, regex, exact}; it throws a SyntaxError with a sentence if that is none.
export function compile({ text, regex, exact }) {
  const source = regex ? text : text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  const flags = exact ? "g" : "gi";
  try {
    return new RegExp(source, flags + "u");
  } catch (e) {
    if (!regex) throw e;
    return new RegExp(source, flags); // which takes some that are sloppy
  }
}

// ranges returns where it is found, as [from, to] in characters.
export function ranges(re, text) {
  const out = [];
  re.lastIndex = 0;
  for (let m; out.length < most && (m = re.exec(text));) {
    if (m[0] === "") re.lastIndex += text.codePointAt(re.lastIndex) > 0xffff ? 2 : 1;
    else out.push([m.index, m.index + m[0].length]);
  }
  return out;
}

// matches reports whether there is something to mark in a text. An empty place is none.
export function matches(re, text) {
  re.lastIndex = 0;
  for (let m; (m = re.exec(text));) {
    if (m[0] !== "") return true;
    re.lastIndex += text.codePointAt(re.lastIndex) > 0xffff ? 2 : 1;
  }
  return false;
}
