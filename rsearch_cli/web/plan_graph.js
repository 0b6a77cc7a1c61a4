// Draws a search plan as SVG: nodes in layers, edges between them, and what each search found.
//
//   const graph = new PlanGraph(plan, { open: (label) => …, show: visible });
//   host.append(graph.element);
//   graph.update(results);          // results as in `rsearch infer --json`: {node, error, passages, …}
//   graph.update(results, true);    // nodes without a result will not get one any more
//
// No imports, so that the file can be served as a module or put into a page as it is.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";
const PLAN = { narrow: 140, wide: 250, gap: 14, between: 34, slot: 10, line: 17, lines: 3, limit: 400 };

/** The state of each node: label → {kind, text}. */
export function planStates(plan, results, finished = false) {
  const found = new Map(results.map((result) => [result.node, result]));
  const states = new Map();
  for (const { label } of plan.nodes) {
    const parents = plan.edges.filter(([, child]) => child === label).map(([parent]) => parent);
    states.set(label, planNodeState(found.get(label), parents.every((p) => found.has(p)), finished));
  }
  return states;
}

function planNodeState(result, ready, finished) {
  if (result === undefined) {
    if (finished) return { kind: "missing", text: "not run" };
    return ready ? { kind: "searching", text: "searching" } : { kind: "waiting", text: "waiting" };
  }
  if (result.error !== null && result.error !== undefined) return { kind: "failed", text: "failed" };
  const count = result.passages.length;
  return { kind: count ? "found" : "empty", text: `${count} found` };
}

/** Groups nodes into waves: the parents of a node are all in earlier waves. */
export function planWaves(plan) {
  const labels = new Set(plan.nodes.map((node) => node.label));
  const edges = plan.edges.filter(([a, b]) => labels.has(a) && labels.has(b));
  const done = new Set();
  let waiting = plan.nodes.map((node) => node.label);
  const waves = [];
  while (waiting.length) {
    const ready = waiting.filter((label) => edges.every(([a, b]) => b !== label || done.has(a)));
    const wave = ready.length ? ready : waiting; // a cycle, which no valid plan has
    waves.push(wave);
    wave.forEach((label) => done.add(label));
    waiting = waiting.filter((label) => !done.has(label));
  }
  return waves;
}

/**
 * Places boxes and edges of a plan in a width, from left to right where that is lower, else from
 * top to bottom.
 *
 * @returns {{width, height, across, boxes: Map, edges: {parent, child, points}[]}} `points` are
 *   the ends of straight and curved stretches in turn; `across` says that waves are columns.
 */
export function layoutPlan(plan, width, nodeHeight) {
  const waves = planWaves(plan);
  const columns = Math.max(1, Math.floor((width + PLAN.gap) / (PLAN.narrow + PLAN.gap)));
  const rows = waves.flatMap((wave) => planRows(wave, columns));
  const down = placeLayers(plan, rows, { width, nodeHeight, across: false });
  const room = (width - (waves.length - 1) * PLAN.between) / Math.max(1, waves.length);
  if (room < PLAN.narrow + 20) return down;
  const across = placeLayers(plan, waves, { width, nodeHeight, across: true });
  return across.height < down.height ? across : down;
}

function planRows(wave, columns) {
  const count = Math.ceil(wave.length / columns);
  const each = Math.ceil(wave.length / count);
  return Array.from({ length: count }, (_, row) => wave.slice(row * each, (row + 1) * each));
}

/** Adds the places where edges pass through layers in between, and orders each layer. */
function orderLayers(plan, rows) {
  const layerOf = new Map(rows.flatMap((row, layer) => row.map((label) => [label, layer])));
  const layers = rows.map((row) => row.map((label) => ({ label, slot: null, before: [] })));
  const at = new Map(layers.flat().map((item) => [item.label, item]));
  const routes = [];
  for (const [parent, child] of plan.edges) {
    if (!(layerOf.get(parent) < layerOf.get(child))) continue;
    const route = [at.get(parent)];
    for (let layer = layerOf.get(parent) + 1; layer < layerOf.get(child); layer += 1) {
      let slot = layers[layer].find((item) => item.slot === parent);
      if (!slot) layers[layer].push((slot = { label: null, slot: parent, before: [] }));
      route.push(slot);
    }
    route.push(at.get(child));
    route.slice(1).forEach((item, i) => item.before.push(route[i]));
    routes.push({ parent, child, route });
  }
  layers.forEach((layer) => {
    layer.forEach((item, i) => {
      const places = item.before.map((other) => other.place);
      item.wish = places.length ? places.reduce((a, b) => a + b, 0) / places.length : (i + 0.5) / layer.length;
    });
    layer.sort((a, b) => a.wish - b.wish);
    layer.forEach((item, i) => (item.place = (i + 0.5) / layer.length));
  });
  return { layers, routes };
}

function placeLayers(plan, rows, { width, nodeHeight, across }) {
  const { layers, routes } = orderLayers(plan, rows);
  const gaps = PLAN.between * Math.max(0, layers.length - 1);
  const nodeWidth = across ? Math.min(PLAN.wide, (width - gaps) / layers.length) : widthInRows(layers, width);
  const [along, over] = across ? [nodeWidth, nodeHeight] : [nodeHeight, nodeWidth];
  const spans = layers.map((layer) => spanOf(layer, over));
  const starts = startsOf(layers, along);
  const whole = across ? Math.max(0, ...spans) : width;
  layers.forEach((layer, depth) => {
    let next = across ? (whole - spans[depth]) / 2 : 0;
    for (const item of layer) {
      const size = item.label === null ? PLAN.slot : over;
      Object.assign(item, { start: starts[depth], middle: next + size / 2 });
      next += size + PLAN.gap;
    }
  });
  const point = (a, b) => (across ? [a, b] : [b, a]);
  const boxes = new Map();
  for (const item of layers.flat()) {
    if (item.label === null) continue;
    const [x, y] = point(item.start, item.middle - over / 2);
    boxes.set(item.label, { x, y, width: nodeWidth, height: nodeHeight });
  }
  const edges = routes.map(({ parent, child, route }) => ({
    parent,
    child,
    points: route.flatMap((item, i) => [
      ...(i > 0 ? [point(item.start, item.middle)] : []),
      ...(i < route.length - 1 ? [point(item.start + along, item.middle)] : []),
    ]),
  }));
  const length = layers.length ? starts.at(-1) + along : 0;
  return { width, height: across ? whole : length, across, boxes, edges };
}

/** Where each layer starts; layers that no edge connects are close together. */
function startsOf(layers, along) {
  const starts = [0];
  for (const layer of layers.slice(1)) {
    const connected = layer.some((item) => item.before.length);
    starts.push(starts.at(-1) + along + (connected ? PLAN.between : PLAN.gap));
  }
  return starts;
}

function spanOf(layer, over) {
  const sizes = layer.map((item) => (item.label === null ? PLAN.slot : over));
  return sizes.reduce((a, b) => a + b, 0) + PLAN.gap * (layer.length - 1);
}

function widthInRows(layers, width) {
  const rooms = layers.map((layer) => {
    const nodes = layer.filter((item) => item.label !== null).length;
    const slots = layer.length - nodes;
    return (width - PLAN.gap * (layer.length - 1) - PLAN.slot * slots) / Math.max(1, nodes);
  });
  return Math.max(60, Math.min(PLAN.wide, ...rooms));
}

/** Breaks text into at most `lines` lines that `measure` finds no wider than `width`. */
export function wrapText(text, width, lines, measure) {
  const out = [];
  let line = "";
  for (const word of text.split(/\s+/u).filter(Boolean)) {
    const joined = line ? `${line} ${word}` : word;
    if (measure(joined) <= width) {
      line = joined;
      continue;
    }
    if (line) out.push(line);
    line = "";
    for (const letter of word) {
      if (line && measure(line + letter) > width) {
        out.push(line);
        line = "";
        if (out.length > lines) break;
      }
      line += letter;
    }
    if (out.length > lines) break;
  }
  if (line) out.push(line);
  if (out.length <= lines) return out;
  let last = out[lines - 1];
  while (last && measure(`${last}…`) > width) last = [...last].slice(0, -1).join("");
  return [...out.slice(0, lines - 1), `${last.trimEnd()}…`];
}

/** A plan on the page; it follows the width of the element it is put into. */
export class PlanGraph {
  /**
   * @param plan `{nodes: [{label, query, source}], edges: [[parent, child]]}`.
   * @param open Called with a label when its node is clicked, or Enter or Space pressed on it.
   * @param show Makes text from outside visible, as `visible` of text.js does.
   * @param name What a screen reader calls the graph.
   */
  constructor(plan, { open = null, show = (text) => text, name = "Search plan" } = {}) {
    this.plan = plan;
    this.open = open;
    this.show = (text) => show(String(text ?? "").slice(0, PLAN.limit));
    this.name = name;
    this.results = [];
    this.finished = false;
    this.width = 0;
    this.element = document.createElement("div");
    this.element.className = "plan-graph";
    this.observer = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.observer.observe(this.element);
  }

  /** Shows the results that have arrived; `finished` says that no more will come. */
  update(results, finished = false) {
    this.results = results;
    this.finished = finished;
    if (this.width) this.paintStates();
    else this.fit();
  }

  /** Draws the graph anew if its width has changed. */
  fit() {
    const width = Math.floor(this.element.clientWidth);
    if (width < 1 || width === this.width) return;
    this.width = width;
    this.draw();
  }

  draw() {
    const focused = this.element.contains(document.activeElement)
      ? document.activeElement.dataset.label
      : undefined;
    const [placed, queries] = this.place();
    const svg = planShape("svg", {
      width: placed.width,
      height: placed.height,
      viewBox: `0 0 ${placed.width} ${placed.height}`,
      role: "group",
      "aria-label": `${this.name}, ${this.plan.nodes.length} ${this.plan.nodes.length === 1 ? "query" : "queries"}`,
    });
    placed.edges.forEach((edge) => svg.append(...edgeShapes(edge, placed.across)));
    this.nodes = new Map();
    for (const node of this.plan.nodes) {
      if (this.nodes.has(node.label)) continue;
      const drawn = this.drawNode(node, placed.boxes.get(node.label), queries.get(node.label));
      this.nodes.set(node.label, drawn);
      svg.append(drawn.group);
    }
    this.element.replaceChildren(svg);
    this.paintStates();
    if (focused !== undefined) this.nodes.get(focused)?.group.focus();
  }

  /** The layout, in nodes as high as the longest query needs, and the lines of each query. */
  place() {
    const measure = textMeasure(this.element, 13);
    for (let lines = 1; ; lines += 1) {
      const placed = layoutPlan(this.plan, this.width, 42 + lines * PLAN.line);
      const queries = new Map(
        this.plan.nodes.map((node) => {
          const room = placed.boxes.get(node.label).width - 52;
          return [node.label, wrapText(this.show(node.query), room, PLAN.lines, measure)];
        }),
      );
      if ([...queries.values()].every((query) => query.length <= lines)) return [placed, queries];
    }
  }

  drawNode(node, box, lines) {
    const group = planShape("g", { class: "node", transform: `translate(${box.x} ${box.y})` });
    group.dataset.label = node.label;
    const small = textMeasure(this.element, 12);
    const base = box.height - 13;
    const [source = ""] = wrapText(this.show(node.source), box.width - 102, 1, small);
    const [label = ""] = wrapText(this.show(node.label), 22, 1, small);
    const title = planShape("title");
    const state = planShape("text", { class: "state", x: 27, y: base });
    group.append(
      title,
      planShape("rect", { class: "box", width: box.width, height: box.height, rx: 8 }),
      planShape("rect", { class: "badge", x: 8, y: 9, width: 24, height: 20, rx: 5 }),
      planShape("text", { class: "badge-text", x: 20, y: 23.5 }, label),
      ...lines.map((line, i) => planShape("text", { x: 40, y: 23.5 + i * PLAN.line }, line)),
      planShape("circle", { class: "dot", cx: 16, cy: base - 4, r: 3.5 }),
      state,
      planShape("text", { class: "source", x: box.width - 10, y: base }, source),
    );
    if (this.open) {
      group.setAttribute("role", "button");
      group.setAttribute("tabindex", "0");
      group.addEventListener("click", () => this.open(node.label));
      group.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        this.open(node.label);
      });
    } else {
      group.setAttribute("role", "img");
    }
    return { group, state, title };
  }

  paintStates() {
    const states = planStates(this.plan, this.results, this.finished);
    for (const node of this.plan.nodes) {
      const drawn = this.nodes.get(node.label);
      const { kind, text } = states.get(node.label);
      const result = this.results.find((r) => r.node === node.label);
      drawn.group.setAttribute("class", `node ${kind}`);
      drawn.state.textContent = text;
      const parents = this.plan.edges.filter(([, child]) => child === node.label).map(([p]) => this.show(p));
      const parts = [
        `${this.show(node.label)}: ${this.show(node.query)}`,
        `source ${this.show(node.source)}`,
        parents.length ? `after ${parents.join(", ")}` : "",
        result?.error ? `failed: ${this.show(result.error)}` : text,
        result?.cached ? "from the cache" : "",
      ];
      const whole = parts.filter(Boolean).join("; ");
      drawn.title.textContent = whole;
      drawn.group.setAttribute("aria-label", whole);
    }
  }

  /** Stops following the width of the page. */
  close() {
    this.observer.disconnect();
  }
}

function planShape(name, attributes = {}, text = null) {
  const shape = document.createElementNS(SVG_NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  if (text !== null) shape.textContent = text;
  return shape;
}

function edgeShapes({ points }, across) {
  const [first, ...rest] = points;
  const tip = rest.at(-1);
  const end = across ? [tip[0] - 6, tip[1]] : [tip[0], tip[1] - 6];
  let path = `M${first}`;
  let from = first;
  [...rest.slice(0, -1), end].forEach((to, i) => {
    if (i % 2) path += `L${to}`;
    else if (across) path += `C${(from[0] + to[0]) / 2},${from[1]} ${(from[0] + to[0]) / 2},${to[1]} ${to}`;
    else path += `C${from[0]},${(from[1] + to[1]) / 2} ${to[0]},${(from[1] + to[1]) / 2} ${to}`;
    from = to;
  });
  const [x, y] = tip;
  const arrow = across ? `M${x},${y}l-7,-4v8z` : `M${x},${y}l-4,-7h8z`;
  return [planShape("path", { class: "edge", d: path }), planShape("path", { class: "arrow", d: arrow })];
}

let measuringContext = null;

function textMeasure(element, size) {
  measuringContext ??= document.createElement("canvas").getContext("2d");
  const font = `${size}px ${getComputedStyle(element).fontFamily}`;
  return (text) => {
    measuringContext.font = font;
    return measuringContext.measureText(text).width;
  };
}
