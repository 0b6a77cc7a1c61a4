// Two runs or evaluations compared, question by question.

import { el } from "./text.js";
import { count, figure, fixed, line, signed } from "./viewer_dom.js";
import { LineChart } from "./viewer_chart.js";
import { outcome, questionHead, searches, transcript } from "./viewer_detail.js";
import { CHANGES, chosenSides, meanOf, pairSides, pairsOf } from "./viewer_pairs.js";
import { scrollableTable } from "./viewer_scores.js";
import { VirtualTable } from "./viewer_table.js";

const MEANS = {
  em: "Exact match",
  f1: "F1",
  judge: "Judge",
  title_recall: "Title recall",
  all_titles: "All titles found",
  reward: "Reward",
  answer: "Answer reward",
  plan: "Valid plans",
  format: "Format",
  failed: "Failed searches",
  searches: "Searches",
  tokens: "Tokens",
};
/** Names of the same figures in the comparisons that were computed with the data. */
const COMPUTED = { plan: "plan_valid", format: "format_valid" };

function sideLabel({ source, phase }, alone) {
  return alone ? phase : `${source.name} · ${phase}`;
}

/** The view at #/compare?a=SOURCE:PHASE&b=SOURCE:PHASE&show=CHANGE. */
export class CompareView {
  constructor(app, query) {
    this.app = app;
    this.title = "Compare";
    this.head = el("div", { class: "compare-head" });
    this.figures = el("div", { class: "score-tables" });
    this.chart = new LineChart("Reward in training", {});
    this.counts = el("div", { class: "change-filter", role: "group", "aria-label": "Show questions" });
    this.status = el("p", { class: "counts", role: "status" });
    this.table = new VirtualTable({
      label: "Paired questions",
      href: (pair) => this.pairAddress(pair),
      onsort: () => {},
    });
    this.element = el(
      "article",
      { class: "view compare-view" },
      el("h1", { tabindex: -1 }, "Compare"),
      this.head,
      this.figures,
      this.chart.element,
      el("h2", {}, "Questions"),
      this.counts,
      this.status,
      this.table.element,
    );
    this.narrow = matchMedia("(max-width: 44rem)");
    this.closing = new AbortController();
    this.narrow.addEventListener("change", () => this.draw(), { signal: this.closing.signal });
    this.navigate(query);
  }

  navigate(query) {
    this.query = new URLSearchParams(query);
    this.draw();
  }

  /** Stop following the width of the window. */
  close() {
    this.closing.abort();
  }

  update() {
    this.draw();
  }

  draw() {
    const { sides, first, second } = chosenSides(this.app.store, this.query);
    const alone = this.app.store.sources.length === 1;
    Object.assign(this, { first, second });
    const { pairs, onlyFirst, onlySecond } = pairSides(first, second);
    this.drawHead(sides, alone, onlyFirst, onlySecond);
    this.figures.replaceChildren(figuresTable(this.app.store, first, second, pairs));
    this.drawCurves();
    const counts = new Map();
    for (const { change } of pairs) counts.set(change, (counts.get(change) ?? 0) + 1);
    const show = counts.has(this.query.get("show")) ? this.query.get("show") : "";
    const choice = (kind, label, hint, number) =>
      el(
        "button",
        {
          type: "button",
          class: `button choice change-${kind || "all"}`,
          "aria-pressed": String(show === kind),
          title: hint,
          onclick: () => this.choose("show", kind),
        },
        `${label} `,
        el("b", { class: "number" }, count(number)),
      );
    const focused = this.counts.contains(document.activeElement)
      ? [...this.counts.children].indexOf(document.activeElement)
      : -1;
    this.counts.replaceChildren(
      choice("", "All", "", pairs.length),
      ...CHANGES.filter(([kind]) => counts.get(kind)).map(([kind, label, hint]) =>
        choice(kind, label, hint, counts.get(kind)),
      ),
    );
    if (focused >= 0) this.counts.children[focused]?.focus();
    const shown = pairsOf(pairs, show);
    this.status.textContent = pairs.length
      ? `${count(shown.length)} of ${count(pairs.length)} questions`
      : "These two sides have no question in common.";
    this.table.element.hidden = !pairs.length;
    this.table.set(pairColumns(this.narrow.matches), shown, "");
  }

  drawHead(sides, alone, onlyFirst, onlySecond) {
    const select = (name, chosen) =>
      el(
        "label",
        { class: "field" },
        el("span", {}, name.toUpperCase()),
        el(
          "select",
          { name, onchange: (event) => this.choose(name, event.target.value) },
          sides.map((side) =>
            el(
              "option",
              { value: side.key, selected: side === chosen },
              line(sideLabel(side, alone), 80).textContent,
            ),
          ),
        ),
      );
    const name = document.activeElement?.closest?.(".compare-head") ? document.activeElement.name : null;
    const rest = [
      [onlyFirst, "A"],
      [onlySecond, "B"],
    ]
      .filter(([number]) => number)
      .map(([number, side]) => `${count(number)} only in ${side}`);
    const left = rest.length ? `Questions left out: ${rest.join(", ")}` : "";
    this.head.replaceChildren(
      select("a", this.first),
      select("b", this.second),
      el("button", { type: "button", class: "button quiet", onclick: () => this.swap() }, "Swap A and B"),
      el("p", { class: "muted small left-out" }, left),
    );
    if (name) this.head.querySelector(`[name="${name}"]`)?.focus();
  }

  drawCurves() {
    const [a, b] = [this.first.source, this.second.source];
    const both = a !== b && a.curves.series.reward && b.curves.series.reward;
    this.chart.element.hidden = !both;
    if (!both) return;
    const steps = [...new Set([...a.curves.step, ...b.curves.step])].sort((x, y) => x - y);
    const along = ({ curves }) => {
      const at = new Map(curves.step.map((step, i) => [step, curves.series.reward[i]]));
      return steps.map((step) => at.get(step) ?? null);
    };
    this.chart.set(
      steps,
      [
        { label: `A ${a.name}`, values: along(a) },
        { label: `B ${b.name}`, values: along(b) },
      ],
      false,
    );
  }

  choose(name, value) {
    if (value) this.query.set(name, value);
    else this.query.delete(name);
    this.write();
  }

  swap() {
    const [a, b] = [this.first.key, this.second.key];
    this.query.set("a", b);
    this.query.set("b", a);
    this.write();
  }

  write() {
    this.draw();
    this.app.write(`#/compare?${this.query}`, true);
  }

  pairAddress(pair) {
    return `#/pair?${new URLSearchParams({ a: this.first.key, b: this.second.key, ...(this.query.get("show") ? { show: this.query.get("show") } : {}), key: pair.key })}`;
  }
}

function pairColumns(narrow) {
  const score = (i) => ({ width: 5, name: "number", cell: (pair) => scoreCell(pair.scores[i]) });
  const said = (i) => ({
    width: 14,
    cell: (pair) =>
      pair.said[i] === null ? el("span", { class: "muted" }, "no answer") : line(pair.said[i]),
  });
  const words = {
    gained: "▲ gained",
    lost: "▼ lost",
    same: "same",
    score: "other score",
    differs: "other answer",
    unscored: "no score",
  };
  const all = [
    {
      key: "change",
      title: "Change",
      width: narrow ? 5.5 : 7,
      cell: ({ change }) => el("span", { class: `change-${change}` }, words[change]),
    },
    {
      key: "question",
      title: "Question",
      width: narrow ? 8 : 18,
      main: true,
      cell: (pair) => line(pair.question),
    },
    { key: "said-a", title: "A says", ...said(0) },
    { key: "score-a", title: "A", ...score(0) },
    { key: "said-b", title: "B says", ...said(1) },
    { key: "score-b", title: "B", ...score(1) },
  ];
  return narrow ? all.slice(0, 2) : all;
}

function scoreCell(score) {
  if (score === null) return "–";
  const right = score >= 0.5;
  return el("span", { class: right ? "good" : "bad" }, right ? "✓ " : "✗ ", fixed(score));
}

/** The figures that came with the data, with interval and significance; else means over the pairs. */
function figuresTable(store, first, second, pairs) {
  const isSide = (side, { source, phase }) => side.source === source.number && side.phase === phase;
  const computed = store.comparisons.find((c) => isSide(c.first, first) && isSide(c.second, second));
  const turned = computed
    ? null
    : store.comparisons.find((c) => isSide(c.first, second) && isSide(c.second, first));
  const rows = Object.entries(MEANS).flatMap(([name, label]) => {
    const metric = (computed ?? turned)?.metrics[COMPUTED[name] ?? name];
    const both = pairs
      .map(({ rows: a, others: b }) => [meanOf(first.source, a, name), meanOf(second.source, b, name)])
      .filter((values) => !values.includes(null));
    if (!both.length) return [];
    const means = metric
      ? [metric.first, metric.second]
      : [0, 1].map((i) => both.reduce((sum, values) => sum + values[i], 0) / both.length);
    if (metric && turned) means.reverse();
    const ends = metric?.interval
      ? turned
        ? [-metric.interval[1], -metric.interval[0]]
        : metric.interval
      : null;
    const digits = ["searches", "tokens"].includes(name) ? 1 : 3;
    const shown = (value) => fixed(value, digits);
    const number = (...content) => el("td", { class: "number" }, ...content);
    return [
      el(
        "tr",
        {},
        el("th", { scope: "row" }, label),
        number(shown(means[0])),
        number(shown(means[1])),
        number(signed(means[1] - means[0], digits)),
        number(ends ? `${signed(ends[0], 3)} to ${signed(ends[1], 3)}` : ""),
        number(
          metric?.p === undefined ? "" : figure(metric.p),
          metric?.test ? el("span", { class: "small muted range-of" }, metric.test) : null,
        ),
        number(count(metric?.n ?? both.length)),
      ),
    ];
  });
  const heads = ["", "A", "B", "B − A", "95 % interval", "p", "n"];
  return el("div", { class: "score-table" }, scrollableTable("Figures", heads, rows));
}

/** The view at #/pair?a=…&b=…&key=QUESTION. */
export class PairView {
  constructor(app, query) {
    this.app = app;
    this.title = "Compared question";
    const given = new URLSearchParams(query);
    const { first, second } = chosenSides(app.store, query);
    const pairs = pairsOf(pairSides(first, second).pairs, given.get("show"));
    const place = pairs.findIndex(({ key }) => key === given.get("key"));
    const to = (other) => {
      if (place < 0 || !pairs[other]) return null;
      const query = new URLSearchParams(given);
      query.set("key", pairs[other].key);
      return `#/pair?${query}`;
    };
    given.delete("key");
    this.keys = { ArrowLeft: to(place - 1), ArrowRight: to(place + 1) };
    const button = (label, address) =>
      address
        ? el("a", { class: "button", href: address }, label)
        : el("span", { class: "button", "aria-disabled": "true" }, label);
    this.body = el("div", { class: "loading" }, "Loading …");
    this.element = el(
      "article",
      { class: "view pair-view" },
      el(
        "div",
        { class: "pager" },
        el("a", { href: `#/compare?${given}` }, "All questions"),
        el(
          "span",
          { class: "muted number" },
          place < 0 ? "" : `${count(place + 1)} of ${count(pairs.length)}`,
        ),
        button("← Previous", this.keys.ArrowLeft),
        button("Next →", this.keys.ArrowRight),
      ),
      this.body,
    );
    app.fill(this, this.body, async () => {
      const pair = pairs[place];
      if (!pair) throw new Error("the two sides have no such question in common");
      const details = await Promise.all([
        app.store.detail(first.source, pair.rows[0]),
        app.store.detail(second.source, pair.others[0]),
      ]);
      return el(
        "div",
        {},
        questionHead(details[0]),
        el(
          "p",
          { class: "facts-line" },
          el(
            "span",
            { class: `change change-${pair.change}` },
            CHANGES.find(([kind]) => kind === pair.change)
              .slice(1)
              .join(": "),
          ),
        ),
        el(
          "div",
          { class: "sides" },
          this.side("A", first, pair.rows, details[0]),
          this.side("B", second, pair.others, details[1]),
        ),
      );
    });
  }

  side(name, { source, phase }, rows, detail) {
    const [row] = rows;
    return el(
      "section",
      { class: "pair-side", "aria-label": `Side ${name}` },
      el(
        "h2",
        {},
        `${name}: `,
        el("a", { href: this.app.address(source, `row/${row}`) }, line(`${source.name} · ${phase}`)),
      ),
      rows.length > 1
        ? el("p", { class: "muted small" }, `The first of ${count(rows.length)} completions.`)
        : null,
      outcome(source, row, detail),
      searches(detail),
      transcript(detail),
    );
  }
}
