// A run or an evaluation at a glance: headline figures, scores, curves, settings.

import { el, visible } from "./text.js";
import { count, figure, fixed, line, signed } from "./viewer_dom.js";
import { LineChart } from "./viewer_chart.js";
import { interval, percent, scoreTables } from "./viewer_scores.js";
import { writeFilter, NO_FILTER } from "./viewer_filter.js";

/**
 * Charts, each with the series that it shows if they were measured; a name that ends in "/" stands
 * for all that begin with it.
 */
const CHARTS = [
  ["Reward and its parts", "", ["reward", "reward/answer", "reward/plan", "reward/format", "reward/"]],
  ["Groups", "", ["reward_std", "groups/zero_advantage"]],
  ["Discarded rollouts", "per step", ["discarded/rollouts"]],
  ["Entropy", "nats per token", ["entropy"]],
  ["Divergence from the start", "KL", ["kl"]],
  ["Completion length", "tokens", ["completion_length"]],
  ["Shares of completions", "", ["format_valid", "truncated", "repeated/tags", "repeated/ngrams"]],
  ["Spend", "USD", ["spend/usd", "spend/saved_usd", "discarded/usd"]],
  ["Searches", "per step", ["searches", "calls/search", "cache_hits/search"]],
  [
    "Failures",
    "per step",
    ["failed/search", "failed/judge", "failed/read", "failed/parts", "unscored"],
  ],
  ["Gradient norm", "", ["grad_norm"]],
  ["Loss", "", ["loss"]],
  [
    "Seconds",
    "per step",
    ["seconds/step", "seconds/generate", "seconds/update", "seconds/search", "seconds/reward"],
  ],
];
// Shares of counts that are shown.
const DERIVED = /^failed_share\//;
const VALIDATION = ["em", "f1", "judge", "title_recall", "all_titles", "plan_valid", "format_valid", "reward"];
const MOST_SERIES = 8;

/** The view at #/SOURCE/overview. */
export class OverviewView {
  constructor(app, source) {
    Object.assign(this, { app, source });
    this.title = "Overview";
    this.charts = new Map();
    this.smooth = el("input", { type: "checkbox", onchange: () => this.drawCharts() });
    this.heading = el("h1", { tabindex: -1 });
    this.facts = el("p", { class: "facts-line" });
    this.notes = el("div", { class: "notes" });
    this.tiles = el("ul", { class: "tiles" });
    this.tables = el("div", { class: "score-tables" });
    this.grid = el("div", { class: "chart-grid" });
    this.hint = el(
      "p",
      { class: "small muted" },
      "A click or Enter on a point opens the trajectories of its step.",
    );
    this.zero = el("p", { class: "small muted zero" });
    this.curves = el(
      "section",
      { "aria-label": "Curves" },
      el(
        "div",
        { class: "section-head" },
        el("h2", {}, "Curves"),
        el("label", { class: "check" }, this.smooth, "Smooth"),
        this.hint,
      ),
      this.grid,
      this.zero,
    );
    this.settings = el("details", { class: "settings" });
    this.element = el(
      "article",
      { class: "view overview-view" },
      this.heading,
      this.facts,
      this.notes,
      this.tiles,
      this.curves,
      this.tables,
      this.settings,
    );
    this.update(source);
  }

  update(source) {
    this.source = source;
    this.heading.replaceChildren(line(source.name));
    this.facts.replaceChildren(...factsOf(source).map((fact) => el("span", {}, fact)));
    this.notes.replaceChildren(...notesOf(source));
    this.tiles.replaceChildren(...tilesOf(source));
    this.tables.replaceChildren(...scoreTables(source));
    this.drawCharts();
    this.drawSettings();
  }

  drawCharts() {
    const charts = chartsOf(this.source);
    const measured = charts.filter(({ series }) => series.some(({ values }) => values.some(Boolean)));
    const elements = measured.map(({ title, unit, steps, series, leads }) => {
      const onstep = leads ? (step) => this.openStep(step) : null;
      const chart = this.charts.get(title) ?? new LineChart(title, { unit, onstep });
      this.charts.set(title, chart);
      chart.set(steps, series, this.smooth.checked);
      return chart.element;
    });
    const drawn = [...this.grid.children];
    // A chart that is moved loses the focus.
    if (elements.length !== drawn.length || elements.some((element, i) => element !== drawn[i]))
      this.grid.replaceChildren(...elements);
    const zero = charts.filter((chart) => !measured.includes(chart)).flatMap(({ series }) => series);
    this.zero.textContent = zero.length
      ? `Zero at every step: ${zero.map(({ label }) => label).join(", ")}.`
      : "";
    this.hint.hidden = !measured.some(({ leads }) => leads);
    this.curves.hidden = !measured.length;
  }

  openStep(step) {
    location.hash = this.app.address(this.source, "rows", writeFilter({ ...NO_FILTER, step: [step, step] }));
  }

  drawSettings() {
    const entries = Object.entries(this.source.settings).sort(([a], [b]) => (a < b ? -1 : 1));
    this.settings.hidden = !entries.length;
    this.settings.replaceChildren(
      el("summary", {}, `Settings (${count(entries.length)})`),
      el(
        "dl",
        { class: "setting-list" },
        entries.flatMap(([key, value]) => [
          el("dt", {}, line(key)),
          el("dd", {}, line(typeof value === "string" ? value : JSON.stringify(value), 500)),
        ]),
      ),
    );
  }
}

function chartsOf({ curves, validations, columns }) {
  const steps = curves.step;
  const leads = Boolean(columns.step);
  const rest = new Set(Object.keys(curves.series));
  const charts = CHARTS.map(([title, unit, names]) => {
    const series = chartSeries(curves.series, names);
    for (const { name } of series) rest.delete(name);
    return { title, unit, steps, series, leads };
  });
  for (const name of rest)
    if (!DERIVED.test(name))
      charts.push({
        title: capitalised(seriesLabel(name)),
        unit: "",
        steps,
        series: chartSeries(curves.series, [name]),
        leads,
      });
  const scores = Object.fromEntries(
    VALIDATION.map((name) => [name, validations.map((row) => row[name] ?? null)]),
  );
  const validation = { title: "Validation", unit: "", steps: validations.map((row) => row.step) };
  charts.splice(1, 0, { ...validation, series: chartSeries(scores, VALIDATION), leads: false });
  return charts.filter((chart) => chart.steps.length && chart.series.length);
}

function chartSeries(all, names) {
  const wanted = new Set();
  for (const name of names) {
    if (!name.endsWith("/")) wanted.add(name);
    else for (const other of Object.keys(all)) if (other.startsWith(name)) wanted.add(other);
  }
  return [...wanted]
    .filter((name) => all[name]?.some((value) => value !== null))
    .slice(0, MOST_SERIES)
    .map((name) => ({ name, label: seriesLabel(name), values: all[name] }));
}

function capitalised(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function seriesLabel(name) {
  const words = {
    "groups/zero_advantage": "groups without advantage",
    "discarded/rollouts": "replaced by other questions",
    "discarded/usd": "discarded, per step",
    "discarded/reward": "reward of discarded rollouts",
    "spend/saved_usd": "saved by the cache",
    "spend/usd": "spent",
    reward_std: "standard deviation in a group",
    "failed/search": "failed searches",
    "failed/judge": "failed verdicts",
    "failed/read": "pages not read",
    "failed/parts": "failed reward parts",
    "calls/search": "calls",
    "cache_hits/search": "from the cache",
    "repeated/tags": "repeated tags",
    "repeated/ngrams": "repeated words",
    "calls/judge": "calls of the judge",
    "cache_hits/judge": "verdicts from the cache",
    "oom/halved": "batches halved for memory",
    em: "exact match",
    f1: "F1",
    plan_valid: "valid plans",
    format_valid: "valid format",
    grad_norm: "gradient norm",
  };
  return (
    words[name] ??
    visible(name)
      .replace(/^(reward|seconds)\//, "")
      .replaceAll("_", " ")
  );
}

function factsOf(source) {
  const { summary, settings } = source;
  const context = summary.context ?? summary;
  const model = context.policy ?? summary.model ?? settings["policy.model"];
  return [
    source.kind === "run" ? "Training run" : "Evaluation",
    ...(model ? [line(String(model))] : []),
    ...(context.questions ? [line(String(context.questions))] : []),
    ...(context.split ? [["split ", line(String(context.split))]] : []),
    ...((summary.seed ?? context.seed ?? null) === null ? [] : [`seed ${summary.seed ?? context.seed}`]),
    ...(source.finished ? [] : [el("span", { class: "tag warn" }, "not finished")]),
  ];
}

function notesOf(source) {
  const alarms = source.curves.alarms ?? [];
  const shown = alarms.slice(-20).map(({ step, alarms: names }) =>
    el(
      "li",
      {},
      `step ${figure(step)}: `,
      line(
        [names]
          .flat()
          .map((alarm) => (typeof alarm === "string" ? alarm : JSON.stringify(alarm)))
          .join(", "),
        600,
      ),
    ),
  );
  return [
    ...(source.warnings ?? []).map((warning) => el("p", { class: "note warn" }, line(warning, 1000))),
    ...(alarms.length
      ? [
          el(
            "details",
            { class: "note warn" },
            el(
              "summary",
              {},
              `${count(alarms.length)} ${alarms.length === 1 ? "step" : "steps"} with alarms`,
            ),
            el("ul", {}, shown),
          ),
        ]
      : []),
  ];
}

function tilesOf(source) {
  const { summary, curves } = source;
  const tiles = [];
  if (summary.after && summary.before) tiles.push(scoreTile("Exact match, before → after", summary));
  else if (summary.methods)
    for (const [name, scores] of Object.entries(summary.methods))
      tiles.push(tile(["Exact match, ", line(name)], percent(scores.em), interval(scores.intervals?.em)));
  const reward = curves.series.reward;
  if (reward?.length)
    tiles.push(tile("Reward, last step", fixed(reward.at(-1)), `first step ${fixed(reward[0])}`));
  if (curves.step.length) {
    const planned = source.settings[source.settings.stage === "sft" ? "sft.max_steps" : "train.max_steps"];
    tiles.push(
      tile("Steps", count(curves.step.at(-1)), planned > curves.step.at(-1) ? `of ${count(planned)}` : null),
    );
  }
  tiles.push(tile("Trajectories", count(source.count), null));
  const spend = Object.values(source.spend ?? {});
  if (spend.length) {
    const total = (name) => spend.reduce((sum, service) => sum + (service[name] ?? 0), 0);
    tiles.push(tile("Spent", dollars(total("usd")), `${dollars(total("saved_usd"))} saved by the cache`));
    tiles.push(
      tile(
        "Failed calls",
        count(total("failed")),
        `${count(total("calls"))} calls, ${count(total("hits"))} from the cache`,
      ),
    );
  }
  if (summary.seconds) tiles.push(tile("Time", duration(summary.seconds), null));
  return tiles;
}

function scoreTile(label, { before, after, difference }) {
  const gain = difference?.em ?? null;
  return tile(
    label,
    `${percent(before.em)} → ${percent(after.em)}`,
    gain === null ? null : `${signed(gain * 100, 1)} points${interval(difference.intervals?.em, true)}`,
  );
}

function tile(label, value, note) {
  return el(
    "li",
    { class: "tile" },
    el("span", { class: "label" }, label),
    el("span", { class: "big number" }, value),
    note ? el("span", { class: "small muted number" }, note) : null,
  );
}

function dollars(usd) {
  return `$${usd && usd < 0.01 ? usd.toFixed(4) : usd.toFixed(2)}`;
}

function duration(seconds) {
  if (seconds < 120) return `${figure(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
