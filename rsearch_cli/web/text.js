// Text from models, passages and files, shown without executing or reordering anything.

const CONTROLS = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u206f\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}]",
  "gu",
);
// More marks on one letter than any script needs paint over the lines around it.
const STACKED = /(\p{M}{8})\p{M}+/gu;

/** Text in which control characters are visible: ␛ for an escape, [U+202E] for an override. */
export function visible(text) {
  return String(text ?? "")
    .replaceAll("\r\n", "\n")
    .replace(/[\u2028\u2029]/g, "\n")
    .replace(CONTROLS, nameControl)
    .replace(STACKED, "$1");
}

/** The beginning of a text, as `visible` shows it. */
export function visibleStart(text, limit) {
  const whole = String(text ?? "");
  return whole.length > limit ? `${visible(whole.slice(0, limit).toWellFormed())}…` : visible(whole);
}

function nameControl(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
}

/** An element: `el("button", {class: "button", type: "button", onclick: f}, "Stop")`; arrays of children count as their elements. */
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element for text from outside: control characters visible, direction isolated. */
export function foreign(text, name = "bdi", attributes = {}) {
  return el(name, { dir: name === "bdi" ? null : "auto", ...attributes }, visible(text));
}

/** The same for the beginning of a text that should not be long. */
export function foreignStart(text, name = "bdi", attributes = {}) {
  return foreign(visibleStart(text, 1000), name, attributes);
}

/** A link, or the address as text if it is not one of the web. */
export function webLink(address) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // Shown as text below.
  }
  if (url === null || !["http:", "https:"].includes(url.protocol)) return foreign(address);
  return el(
    "a",
    { href: url.href, target: "_blank", rel: "noopener noreferrer", referrerpolicy: "no-referrer" },
    el("bdi", {}, visible(url.host)),
    el("span", { class: "visually-hidden" }, " (opens in a new tab)"),
  );
}

const SHOWN_AT_FIRST = 8000;
const PIECE = 20000;

/** Text of any length, which may grow: the beginning, and a button that shows the rest. */
export class BoundedText {
  /**
   * @param host The element to fill.
   * @param fill Puts a piece of visible text into an element.
   */
  constructor(host, { fill = (element, text) => element.append(text), limit = SHOWN_AT_FIRST } = {}) {
    this.host = host;
    this.fill = fill;
    this.limit = limit;
    this.text = "";
    this.shown = 0;
    this.expanded = false;
    this.more = el("button", { type: "button", class: "link-button show-all" });
    this.more.addEventListener("click", () => {
      this.expanded = true;
      this.more.remove();
      this.showRest();
    });
  }

  set(text) {
    const whole = String(text ?? "");
    if (whole === this.text) return;
    const grown = this.expanded && whole.startsWith(this.text);
    this.text = whole;
    if (grown) this.showRest();
    else this.showStart();
  }

  /** Shows less of it from now on, unless the person has asked for all. */
  fold(limit) {
    this.limit = limit;
    if (!this.expanded && this.text.length > limit * 1.25) this.showStart();
  }

  showStart() {
    const isLong = this.text.length > this.limit * 1.25;
    this.expanded = false;
    this.shown = isLong ? cutBefore(this.text, this.limit) : this.text.length;
    this.host.replaceChildren();
    this.fill(this.host, visible(this.text.slice(0, this.shown)));
    if (!isLong) return;
    this.more.textContent = `Show all ${this.text.length.toLocaleString("en")} characters`;
    this.host.append("… ", this.more);
  }

  /** Adds what is not shown, in pieces with pauses: the page stays usable. */
  async showRest() {
    if (this.filling) return;
    this.filling = true;
    while (this.expanded && this.shown < this.text.length) {
      const end = cutBefore(this.text, this.shown + PIECE);
      const piece = el("div", { class: "text-piece" });
      this.fill(piece, visible(this.text.slice(this.shown, end)));
      this.host.append(piece);
      this.shown = end;
      await new Promise((resolve) => setTimeout(resolve));
    }
    this.filling = false;
  }
}

/** Fills an element with text of any length, as `BoundedText` does. */
export function fillBounded(host, text, options = {}) {
  new BoundedText(host, options).set(text);
}

/** Where to cut a text: at most at `end`, after white space if some is near, never in a pair. */
function cutBefore(text, end) {
  if (end >= text.length) return text.length;
  const near = text.slice(end - 200, end).search(/\s\S*$/u);
  if (near >= 0) return end - 200 + near + 1;
  return /[\ud800-\udbff]/.test(text[end - 1]) ? end - 1 : end;
}

const STOP_WORDS = new Set(
  ("a about after all also an and another any are as at be because been before being between both but by can " +
    "could did do does during each for from had has have having he her here him his how however i if in into is " +
    "it its many me more most my no nor not of on once only or other our out over own same she since so some such " +
    "than that the their them then there these they this those through to too under until up upon us very was we " +
    "were what when where which while who whom whose why will with would you your").split(" "),
);

function foldWord(word) {
  return word
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/['\u2019]s$/u, "");
}

function* wordsOf(text) {
  const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
  for (const { segment, index, isWordLike } of segmenter.segment(text)) {
    if (isWordLike) yield { word: foldWord(segment), start: index, end: index + segment.length };
  }
}

/** The words of an answer or a sentence that are worth marking in a passage. */
export function markedWords(text) {
  const words = [...wordsOf(String(text ?? "").slice(0, 4000))].map(({ word }) => word);
  const telling = words.filter((word) => !STOP_WORDS.has(word));
  return new Set(telling.length ? telling : words);
}

/** Appends text to an element, with `<mark>` around words of a set; neighbours share a mark. */
export function appendMarked(host, text, words) {
  const spans = [];
  for (const { word, start, end } of wordsOf(text)) {
    if (!words.has(word)) continue;
    const last = spans.at(-1);
    if (last && /^[\s\p{P}]{1,2}$/u.test(text.slice(last.end, start))) last.end = end;
    else spans.push({ start, end });
  }
  let at = 0;
  for (const { start, end } of spans) {
    host.append(text.slice(at, start), el("mark", {}, text.slice(start, end)));
    at = end;
  }
  host.append(text.slice(at));
}
