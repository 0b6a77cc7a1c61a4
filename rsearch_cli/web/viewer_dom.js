// Elements and figures of the viewer. Text from outside only ever becomes text nodes.

import { el, fillBounded, visible } from "./text.js";

const ENGLISH = new Intl.NumberFormat("en");
const VIEWER_SVG = "http://www.w3.org/2000/svg";

/** Create an SVG element, like `el`. */
export function svgEl(tag, attributes = {}, ...children) {
  const element = document.createElementNS(VIEWER_SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return text as one isolated line, shortened. */
export function line(text, limit = 300) {
  const short = text.length > limit ? `${text.slice(0, limit).trimEnd()} …` : text;
  return el("bdi", { dir: "auto" }, visible(short).replace(/\s+/g, " "));
}

/** Return text of any length as a block that keeps its lines; a long one can be shown whole. */
export function block(text, className = "", options = {}) {
  const element = el("div", { class: `foreign ${className}`.trim(), dir: "auto" });
  fillBounded(element, text, options);
  return element;
}

/** Format a whole number with separators. */
export function count(value) {
  return ENGLISH.format(value);
}

/** Format a number for reading, to three significant digits; null and NaN become a dash. */
export function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const text =
    Number.isInteger(value) || size >= 1000
      ? count(Math.round(value))
      : size < 0.0001
        ? value.toExponential(1)
        : String(Number(value.toPrecision(3)));
  return text.replace("-", "−");
}

/** Format a number with a fixed number of decimals, for columns. */
export function fixed(value, digits = 2) {
  return value === null || value === undefined || Number.isNaN(value)
    ? "–"
    : value.toFixed(digits).replace("-", "−");
}

/** Format a number with its sign. */
export function signed(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return (value > 0 ? "+" : "") + fixed(value, digits);
}
