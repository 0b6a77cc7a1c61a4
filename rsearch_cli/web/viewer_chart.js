// A chart of curves over the steps of a training, as SVG.

import { el } from "./text.js";
import { figure, svgEl } from "./viewer_dom.js";

const HEIGHT = 176;
const MARGIN = { left: 46, right: 10, top: 8, bottom: 24 };
const FEW = 40;
const STYLES = 8;

/** Curves that share one axis. `onstep` is called with a step that was clicked or confirmed. */
export class LineChart {
  constructor(title, { unit = "", onstep = null } = {}) {
    this.unit = unit;
    this.onstep = onstep;
    this.place = null;
    this.width = 0;
    this.legend = el("ul", { class: "legend" });
    this.readout = el("span", { class: "chart-step" });
    this.svg = svgEl("svg", {
      class: "chart",
      height: HEIGHT,
      role: "slider",
      tabindex: 0,
      "aria-label": `${title}, by step`,
      onkeydown: (event) => this.key(event),
      onpointermove: (event) => this.point(event),
      onpointerleave: (event) => event.pointerType === "touch" || this.move(null),
      // A tap reads out.
      onclick: (event) => event.pointerType === "touch" || this.confirm(),
      onblur: () => this.move(null),
    });
    const heading = el("h3", {}, title, unit ? el("span", { class: "unit" }, ` ${unit}`) : null);
    this.element = el(
      "figure",
      { class: "chart-box" },
      el("figcaption", {}, heading, this.readout),
      this.svg,
      this.legend,
    );
    new ResizeObserver(() => {
      const width = Math.floor(this.svg.parentElement.clientWidth);
      if (width !== this.width) this.draw(width);
    }).observe(this.element);
  }

  /** Set `steps` and `series` ({label, values}); `smooth` draws running means over the raw curves. */
  set(steps, series, smooth) {
    Object.assign(this, { steps, series, smooth });
    this.shown = series.map(({ values }) => (smooth ? smoothed(values) : values));
    this.values = series.map(() => el("span", { class: "value" }));
    this.legend.replaceChildren(
      ...series.map(({ label }, i) =>
        el("li", {}, sample(i), el("span", { class: "name" }, label), " ", this.values[i]),
      ),
    );
    if (this.width) this.draw(this.width);
  }

  draw(width) {
    this.width = width;
    const right = Math.max(width - MARGIN.right, MARGIN.left + 20);
    const bottom = HEIGHT - MARGIN.bottom;
    const [low, high, ticks] = scale(this.series.flatMap(({ values }) => extent(values)));
    const [first, last] = [this.steps[0], this.steps.at(-1)];
    this.x = (step) => MARGIN.left + ((step - first) / Math.max(last - first, 1)) * (right - MARGIN.left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
    const drawn = [
      ...ticks.map((tick) => this.grid(tick, right)),
      ...stepTicks(first, last, right - MARGIN.left).map((step) =>
        svgEl(
          "text",
          { x: this.x(step), y: HEIGHT - 6, class: "tick", "text-anchor": "middle" },
          figure(step),
        ),
      ),
      ...this.series.flatMap((_, i) => this.curve(i, right - MARGIN.left)),
    ];
    this.cursor = svgEl("g", { class: "cursor" });
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...drawn, this.cursor);
    this.move(this.place);
  }

  grid(tick, right) {
    const y = this.y(tick);
    return svgEl(
      "g",
      {},
      svgEl("line", { x1: MARGIN.left, x2: right, y1: y, y2: y, class: "grid" }),
      svgEl("text", { x: MARGIN.left - 6, y: y + 4, class: "tick", "text-anchor": "end" }, figure(tick)),
    );
  }

  curve(i, pixels) {
    const raw = this.series[i].values;
    const path = (values, name) =>
      svgEl("path", {
        class: `${name} series-${i % STYLES}`,
        d: pathOf(this.steps, values, this.x, this.y, pixels),
      });
    const dots =
      this.steps.length > FEW
        ? []
        : this.steps.flatMap((step, at) => {
            const value = this.shown[i][at];
            return isKnown(value)
              ? [svgEl("circle", { class: `dot series-${i % STYLES}`, cx: this.x(step), cy: this.y(value), r: 2 })]
              : [];
          });
    return [...(this.smooth ? [path(raw, "raw")] : []), path(this.shown[i], "curve"), ...dots];
  }

  point(event) {
    const { left } = this.svg.getBoundingClientRect();
    const first = this.steps[0];
    const share = (event.clientX - left - MARGIN.left) / (this.x(this.steps.at(-1)) - MARGIN.left || 1);
    this.move(nearest(this.steps, first + share * (this.steps.at(-1) - first)));
  }

  key(event) {
    const last = this.steps.length - 1;
    const page = Math.max(1, Math.round(last / 10));
    const now = this.place ?? last;
    const to = {
      ArrowLeft: now - 1,
      ArrowRight: now + 1,
      PageDown: now - page,
      PageUp: now + page,
      Home: 0,
      End: last,
    }[event.key];
    if (event.key === "Enter") return this.confirm();
    if (to === undefined) return;
    event.preventDefault();
    this.move(Math.min(Math.max(to, 0), last));
  }

  confirm() {
    if (this.onstep && this.place !== null) this.onstep(this.steps[this.place]);
  }

  /** Read out the values at a place in `steps`; null for the last one. */
  move(place) {
    this.place = place !== null && place < this.steps.length ? place : null;
    const last = this.steps.length - 1;
    const at = this.place ?? last;
    this.readout.textContent = `step ${figure(this.steps[at])}`;
    this.values.forEach((value, i) => (value.textContent = figure(this.shown[i][at])));
    const said = this.series.map(({ label }, i) => `${label} ${figure(this.shown[i][at])}`);
    for (const [name, value] of [
      ["min", this.steps[0]],
      ["max", this.steps[last]],
      ["now", this.steps[at]],
      ["text", `step ${this.steps[at]}: ${said.join(", ")}`],
    ])
      this.svg.setAttribute(`aria-value${name}`, value);
    if (!this.cursor) return;
    const x = this.x(this.steps[at]);
    this.cursor.replaceChildren(
      ...(this.place === null
        ? []
        : [
            svgEl("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, class: "cursor-line" }),
            ...this.shown.flatMap((values, i) =>
              isKnown(values[at])
                ? [
                    svgEl("circle", {
                      class: `cursor-dot series-${i % STYLES}`,
                      cx: x,
                      cy: this.y(values[at]),
                      r: 4,
                    }),
                  ]
                : [],
            ),
          ]),
    );
  }
}

function sample(i) {
  return svgEl(
    "svg",
    { class: "sample", width: 22, height: 8, "aria-hidden": "true" },
    svgEl("line", { x1: 0, x2: 22, y1: 4, y2: 4, class: `curve series-${i % STYLES}` }),
  );
}

function isKnown(value) {
  return value !== null && value !== undefined && Number.isFinite(value);
}

function extent(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (!isKnown(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : [];
}

/**
 * Exponential running mean over about a fifteenth of the steps, corrected for its start; unknown
 * values stay unknown.
 */
function smoothed(values) {
  const keep = Math.min(Math.max(1 - 15 / values.length, 0.6), 0.98);
  let [sum, weight] = [0, 0];
  return values.map((value) => {
    if (!isKnown(value)) return null;
    sum = sum * keep + value * (1 - keep);
    weight = weight * keep + (1 - keep);
    return sum / weight;
  });
}

/** Limits and ticks of the vertical axis that hold all values, on round numbers. */
function scale(values) {
  let [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [0, 1];
  // Shares read best on their whole range.
  if (low >= 0 && high <= 1 && high > 0.3) [low, high] = [0, 1];
  else if (low > 0 && low < high / 2) low = 0;
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) / 2, high + Math.abs(high) / 2];
  const step = roundStep((high - low) / 4);
  const ticks = [];
  for (let i = Math.floor(low / step + 1e-9); i <= Math.ceil(high / step - 1e-9); i++)
    ticks.push(Number((i * step).toPrecision(12)));
  return [ticks[0], ticks.at(-1), ticks];
}

function roundStep(least, factors = [1, 2, 2.5, 5, 10]) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * factors.find((factor) => factor * power >= least * 0.999);
}

function stepTicks(first, last, pixels) {
  if (first === last) return [first];
  const least = (last - first) / Math.max(2, Math.floor(pixels / 50));
  const step = Math.max(1, roundStep(least, [1, 2, 5, 10]));
  const ticks = [];
  for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) ticks.push(tick);
  return ticks;
}

function nearest(steps, wanted) {
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] <= wanted) low = middle;
    else high = middle;
  }
  return wanted - steps[low] <= steps[high] - wanted ? low : high;
}

/** The path of a curve: at most the lowest and the highest value per pixel, gaps where unknown. */
function pathOf(steps, values, x, y, pixels) {
  const points = thin(steps, values, Math.max(50, pixels));
  let open = false;
  return points
    .map(([step, value]) => {
      if (!isKnown(value)) return (open = false) || "";
      const command = `${open ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
      open = true;
      return command;
    })
    .join("");
}

function thin(steps, values, most) {
  if (steps.length <= 2 * most) return steps.map((step, i) => [step, values[i]]);
  const size = steps.length / most;
  const points = [];
  for (let bucket = 0; bucket < most; bucket++) {
    const end = Math.min(Math.floor((bucket + 1) * size), steps.length);
    let [low, high] = [null, null];
    for (let i = Math.floor(bucket * size); i < end; i++) {
      if (!isKnown(values[i])) continue;
      if (low === null || values[i] < values[low]) low = i;
      if (high === null || values[i] > values[high]) high = i;
    }
    if (low === null) points.push([steps[Math.floor(bucket * size)], null]);
    else
      for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)])
        points.push([steps[i], values[i]]);
  }
  return points;
}
