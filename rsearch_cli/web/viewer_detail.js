// The pieces of one trajectory: outcome, plans with their passages, transcript.

import { el, visible } from "./text.js";
import { block, count, figure, fixed, line, signed } from "./viewer_dom.js";
import { PlanGraph } from "./plan_graph.js";

const TAGS = /(<\/?(?:think|search|result|answer|r)>)/;

/** The question with its reference answers. */
export function questionHead(detail, level = "h1") {
  const answers = detail.answers.flatMap((answer, i) => [i ? ", " : "", line(answer)]);
  return el(
    "div",
    { class: "question-head" },
    el(level, { tabindex: -1 }, line(detail.question, 2000)),
    el(
      "p",
      { class: "gold" },
      el("span", { class: "label" }, detail.answers.length > 1 ? "Reference answers" : "Reference answer"),
      " ",
      answers.length ? answers : el("span", { class: "muted" }, "none"),
    ),
  );
}

/** The answer with its scores: bars of the reward parts, or the scores of a prediction. */
export function outcome(source, row, detail, { advantage: withAdvantage = true } = {}) {
  const known = (name) => source.numberAt(name, row);
  const rows = detail.reward ? rewardBars(detail, source.highest) : scoreBars(known);
  const advantage = withAdvantage ? known("advantage") : null;
  return el(
    "section",
    { class: "outcome", "aria-label": "Outcome" },
    el(
      "div",
      { class: "said" },
      el("span", { class: "label" }, "Answer"),
      detail.answer === null
        ? el("p", { class: "muted" }, "No answer")
        : block(detail.answer, "answer-text", { limit: 2000 }),
    ),
    detail.failure
      ? el("p", { class: "note bad" }, "The policy's server gave no answer: ", line(detail.failure, 1000))
      : null,
    el("dl", { class: "bars" }, rows),
    advantage === null
      ? null
      : el(
          "p",
          { class: "advantage" },
          el("span", { class: "label" }, "Advantage in its group"),
          " ",
          el("b", { class: "number", title: source.advantages ?? "" }, signed(advantage, 3)),
        ),
    judgeNote(detail),
  );
}

/** `highest` is the highest reward; a full bar stands for it, or for a score of 1. */
function rewardBars({ reward }, highest) {
  const parts = [
    ["Reward", reward.total],
    ["answer", reward.answer],
    ["plan", reward.plan],
    ["format", reward.format],
    ...Object.entries(reward.extra ?? {}),
  ];
  return parts.flatMap(([name, value], i) =>
    i === 0 ? bar(name, value, "total", "not scored", highest) : bar(name, value, "", "not scored"),
  );
}

function scoreBars(known) {
  const names = {
    em: "exact match",
    f1: "F1",
    judge: "judge",
    title_recall: "title recall",
    plan: "plan",
    format: "format",
  };
  return Object.entries(names).flatMap(([name, label]) =>
    known(name) === null ? [] : bar(label, known(name), "", ""),
  );
}

function bar(name, value, className, missing, full = 1) {
  const track = el("span", { class: "track", "aria-hidden": "true" }, el("span", { class: "fill" }));
  if (value !== null && value !== undefined)
    track.firstChild.style.width = `${Math.min(Math.max(value / full, 0), 1) * 100}%`;
  const text =
    value === null || value === undefined ? el("span", { class: "muted" }, missing) : fixed(value, 3);
  return [
    el("dt", { class: className }, line(name)),
    el("dd", { class: className }, track, el("span", { class: "number" }, text)),
  ];
}

function judgeNote({ judge }) {
  if (!judge) return null;
  const score =
    judge.score === null
      ? el("span", { class: "tag warn" }, "no verdict")
      : el("b", { class: "number" }, figure(judge.score));
  return el("p", { class: "judge" }, el("span", { class: "label" }, "Verdict of the judge"), " ", score);
}

/** All rounds of searches: the plan as a graph, and under it what each node found. */
export function searches(detail) {
  const rounds = detail.rounds.map((round, i) => searchRound(round, i, detail.rounds.length));
  return el(
    "section",
    { class: "searches", "aria-label": "Searches" },
    rounds.length ? rounds : el("p", { class: "muted" }, "No search was written."),
  );
}

function searchRound(round, number, of) {
  const title = of > 1 ? `Plan ${number + 1} of ${of}` : "Plan";
  if (!round.valid)
    return el(
      "div",
      { class: "round" },
      el("h2", {}, title, " ", el("span", { class: "tag bad" }, "not valid")),
      el(
        "ul",
        { class: "problems" },
        round.problems.map((problem) => el("li", {}, line(problem, 1000))),
      ),
    );
  const found = new Map(round.results.map((result) => [result.node, result]));
  const nodes = new Map(round.nodes.map((node) => [node.label, nodeResult(node, found.get(node.label))]));
  const graph = new PlanGraph(round, {
    name: title,
    show: visible,
    open: (label) => {
      const node = nodes.get(label);
      node.open = true;
      node.querySelector("summary").focus();
      node.scrollIntoView({ block: "nearest" });
    },
  });
  graph.update(round.results, true);
  return el("div", { class: "round" }, el("h2", {}, title), graph.element, [...nodes.values()]);
}

function nodeResult(node, result) {
  const passages = result?.passages ?? [];
  const state =
    result === undefined
      ? el("span", { class: "tag" }, "not searched")
      : result.error !== null
        ? el("span", { class: "tag bad" }, "failed")
        : passages.length
          ? el("span", { class: "tag good" }, `${count(passages.length)} found`)
          : el("span", { class: "tag warn" }, "nothing found");
  const facts = [line(node.source), ...(result?.cached ? ["from the cache"] : [])];
  return el(
    "details",
    { class: "node-result", open: passages.length > 0 && passages.length <= 3 },
    el(
      "summary",
      {},
      el("span", { class: "mono node-label" }, line(node.label, 20)),
      " ",
      line(node.query),
      " ",
      el(
        "span",
        { class: "facts" },
        facts.flatMap((fact, i) => [i ? " · " : "", fact]),
      ),
      " ",
      state,
    ),
    result?.expansion.length
      ? el("p", { class: "small muted" }, "with ", line(result.expansion.join(" ")))
      : null,
    result?.error ? el("p", { class: "note bad" }, line(result.error, 1000)) : null,
    el("ol", { class: "passages" }, passages.map(passageItem)),
  );
}

function passageItem(passage) {
  return el(
    "li",
    {},
    passage.title ? el("p", { class: "passage-title" }, line(passage.title)) : null,
    passage.text ? block(passage.text, "", { limit: 4000 }) : el("p", { class: "muted" }, "text not stored"),
    el(
      "p",
      { class: "passage-id" },
      passage.id ? line(passage.id) : null,
      passage.score === null || passage.score === undefined ? null : ` · score ${figure(passage.score)}`,
    ),
  );
}

/** What the policy wrote and what the system inserted, and whether it was trained. */
export function transcript(detail) {
  const isRollout = detail.reward !== null;
  const trained = detail.trained === false ? ", not trained" : ", trained";
  const words = {
    model: `Policy${isRollout ? trained : ""}`,
    system: `Inserted${isRollout ? ", not trained" : ""}`,
  };
  const shown = detail.segments.filter((segment) => segment.text !== "");
  return el(
    "section",
    { class: "transcript", "aria-label": "Transcript" },
    shown.length
      ? shown.map((segment) =>
          el(
            "div",
            { class: `segment by-${segment.author === "model" ? "model" : "system"}` },
            el(
              "p",
              { class: "author" },
              words[segment.author] ?? segment.author,
              segment.tokens ? el("span", { class: "tokens" }, `${count(segment.tokens)} tokens`) : null,
            ),
            block(withoutOuterLines(segment.text), "", { fill: fillMarked }),
          ),
        )
      : el("p", { class: "muted" }, "Nothing was written."),
  );
}

/** Text without line feeds at its ends. */
function withoutOuterLines(text) {
  let [start, end] = [0, text.length];
  while (text[start] === "\n") start++;
  while (end > start && text[end - 1] === "\n") end--;
  return text.slice(start, end);
}

/** Set the tags of the protocol apart. */
function fillMarked(host, text) {
  host.append(
    ...text.split(TAGS).map((piece, i) => (i % 2 ? el("span", { class: "protocol-tag" }, piece) : piece)),
  );
}
