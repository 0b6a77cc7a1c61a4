// Scores of a run or an evaluation as tables.

import { el } from "./text.js";
import { figure, line, signed } from "./viewer_dom.js";

const SCORES = {
  em: "Exact match",
  f1: "F1",
  em_sampled: "Exact match, sampled",
  f1_sampled: "F1, sampled",
  judge: "Judge",
  title_recall: "Title recall",
  plan_valid: "Valid plans",
  format_valid: "Valid format",
};

const COSTS = {
  searches_per_question: "Searches per question",
  tokens_per_question: "Tokens per question",
  seconds_per_question: "Seconds per question",
  failed_searches: "Failed searches",
  failed_reads: "Pages not read",
  failed_answers: "Failed answers",
};

/** The scores before and after a training or of each method, and exact match by type and level. */
export function scoreTables(source) {
  const { summary } = source;
  const sides = summary.methods
    ? Object.entries(summary.methods)
    : ["before", "after"].filter((name) => summary[name]).map((name) => [name, summary[name]]);
  if (!sides.length) return [];
  return [
    scoreTable(sides, summary.difference),
    ...breakdown(sides, "by_type", "type"),
    ...breakdown(sides, "by_level", "level"),
  ];
}

function scoreTable(sides, difference) {
  const row = (name, label, format) => {
    const values = sides.map(([, scores]) => scores[name]);
    if (values.every((value) => value === null || value === undefined)) return null;
    const gain = difference?.[name];
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, label),
      sides.map(([, scores]) =>
        el(
          "td",
          { class: "number" },
          format(scores[name]),
          scores.intervals?.[name]
            ? el(
                "span",
                { class: "small muted range-of" },
                interval(scores.intervals[name]).replace("95 %: ", ""),
              )
            : null,
        ),
      ),
      difference
        ? el(
            "td",
            { class: "number" },
            gain === undefined || gain === null
              ? ""
              : [
                  signed(gain * 100, 1),
                  el(
                    "span",
                    { class: "small muted range-of" },
                    interval(difference.intervals?.[name]).replace("95 %: ", ""),
                  ),
                ],
          )
        : null,
    );
  };
  return tableBox(
    "Scores, with 95 % intervals",
    ["", ...sides.map(([name]) => name), ...(difference ? ["Difference"] : [])],
    [
      ...Object.entries(SCORES).map(([name, label]) => row(name, label, percent)),
      ...Object.entries(COSTS).map(([name, label]) => row(name, label, figure)),
    ].filter(Boolean),
  );
}

function breakdown(sides, key, label) {
  const names = [...new Set(sides.flatMap(([, scores]) => Object.keys(scores[key] ?? {})))].sort();
  if (names.length < 2) return [];
  const rows = names.map((name) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, line(name)),
      el("td", { class: "number" }, figure(sides[0][1][key]?.[name]?.n)),
      sides.map(([, scores]) => el("td", { class: "number" }, percent(scores[key]?.[name]?.em))),
    ),
  );
  return [tableBox(`Exact match by ${label}`, [label, "n", ...sides.map(([name]) => name)], rows)];
}

function tableBox(title, heads, rows) {
  return el(
    "div",
    { class: rows.length > 12 ? "score-table long" : "score-table" },
    el("h2", {}, title),
    scrollableTable(title, heads, rows),
  );
}

/** A table of scores that scrolls sideways; an empty first head is an empty corner. */
export function scrollableTable(label, heads, rows) {
  return el(
    "div",
    { class: "scroll-x", tabindex: 0, role: "region", "aria-label": label },
    el(
      "table",
      { class: "scores" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          heads.map((head, i) =>
            i || head ? el("th", { scope: "col", class: i ? "number" : null }, line(head)) : el("td", {}),
          ),
        ),
      ),
      el("tbody", {}, rows),
    ),
  );
}

/** Format a share. */
export function percent(share) {
  return share === null || share === undefined ? "–" : `${(share * 100).toFixed(1)} %`;
}

/** Format the ends of a 95 % interval of a share. */
export function interval(ends, points = false) {
  if (!ends) return "";
  const format = (value) => (value * 100).toFixed(1).replace("-", "−");
  return points
    ? ` (95 %: ${format(ends[0])} to ${format(ends[1])})`
    : `95 %: ${format(ends[0])} to ${format(ends[1])}`;
}
