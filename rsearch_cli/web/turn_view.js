// A turn on the page: question, thoughts, plans as graphs, answer and sources.

import { answerView, sourcesView } from "./answer_view.js";
import { PlanGraph } from "./plan_graph.js";
import { BoundedText, el, foreignStart, visible, visibleStart } from "./text.js";

const FOLDED_THOUGHT = 1500; // characters of a thought that stay when it is over

/** Shows one turn and follows it; `update` may be called as often as events arrive. */
export class TurnView {
  /**
   * @param actions What its buttons do: `openCitation(turn, citation, words)`,
   *   `openNode(turn, plan, label)`, `copy(turn, format)`, `retry(turn)`.
   */
  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    this.steps = [];
    this.waiting = false;
    this.askedAs = el("p", { class: "asked-as muted small", hidden: true });
    this.stepsElement = el("div", { class: "steps" });
    this.working = el("p", { class: "working" });
    this.answerElement = el("div");
    this.end = el("div");
    const question = el("h2", { class: "question foreign", dir: "auto" });
    new BoundedText(question, { limit: 2000 }).set(turn.question);
    this.element = el(
      "article",
      { class: "turn", tabindex: "-1", "aria-label": visibleStart(turn.question, 200) },
      question,
      this.askedAs,
      this.stepsElement,
      this.working,
      this.answerElement,
      this.end,
    );
    this.paint();
  }

  /** Paints what has changed, at most once a frame. */
  update() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
      this.onPaint?.();
    });
  }

  /** Lets go of the page. */
  close() {
    this.steps.forEach(({ graph }) => graph?.close());
    this.element.remove();
  }

  paint() {
    const { turn } = this;
    this.paintAskedAs();
    this.paintSteps();
    this.working.hidden = turn.outcome !== "running";
    this.working.textContent = turn.outcome === "running" ? describeProgress(turn) : "";
    if (turn.outcome === "running") this.paintDraft();
    else if (this.painted !== turn.outcome) this.paintEnd();
    this.painted = turn.outcome;
  }

  paintAskedAs() {
    const { askedAs, note } = this.turn;
    const key = `${askedAs}\n${note}`;
    if (key === this.askedKey) return;
    this.askedKey = key;
    const parts = [];
    if (askedAs) parts.push("Asked as: ", foreignStart(askedAs));
    if (note) parts.push(askedAs ? " · " : "", foreignStart(note));
    this.askedAs.replaceChildren(...parts);
    this.askedAs.hidden = parts.length === 0;
  }

  paintSteps() {
    const { steps, outcome } = this.turn;
    // A restarted turn has other steps than before.
    while (this.steps.length && this.steps.at(-1).step !== steps[this.steps.length - 1]) {
      const gone = this.steps.pop();
      gone.graph?.close();
      gone.element.remove();
    }
    steps.forEach((step, i) => {
      this.steps[i] ??= this.addStep(step);
      this.steps[i].text?.set(step.text);
      this.steps[i].graph?.update(step.results, outcome !== "running");
    });
  }

  addStep(step) {
    const shown = step.kind === "thought" ? thoughtView(step) : this.planView(step);
    this.stepsElement.append(shown.element);
    return { step, ...shown };
  }

  planView(step) {
    if (step.nodes.length === 0) {
      const why = step.problems.slice(0, 3).map((problem) => foreignStart(problem, "p"));
      const said = el("p", {}, "The plan is not valid.");
      return { element: el("div", { class: "note warn plan-problems" }, said, ...why) };
    }
    const graph = new PlanGraph(step, {
      open: (label) => this.actions.openNode(this.turn, step, label),
      show: visible,
    });
    return { element: graph.element, graph };
  }

  paintDraft() {
    if (this.turn.answer === "") {
      this.answerElement.replaceChildren();
      this.draft = null;
      return;
    }
    if (!this.draft) {
      const text = el("p", { class: "short foreign", dir: "auto" });
      this.draft = new BoundedText(text);
      this.answerElement.replaceChildren(el("div", { class: "answer" }, text));
    }
    this.draft.set(this.turn.answer);
  }

  paintEnd() {
    const { turn, actions } = this;
    this.draft = null;
    this.answerElement.replaceChildren();
    this.end.replaceChildren();
    this.steps.forEach(({ text }) => text?.fold(FOLDED_THOUGHT));
    if (turn.outcome === "done" || turn.answer) this.answerElement.append(answerView(turn, actions));
    if (turn.outcome === "stopped") {
      this.end.append(el("div", { class: "note" }, el("p", {}, "Stopped."), retryButton(turn, actions)));
    }
    if (turn.outcome === "failed") this.end.append(failureView(turn, actions));
    if (turn.final === null) return;
    const sources = sourcesView(turn, actions);
    if (sources) this.end.append(sources);
    this.end.append(
      el(
        "div",
        { class: "turn-foot" },
        el("span", { class: "cost muted small number" }, describeCost(turn.final)),
        copyButton("Copy", () => actions.copy(turn, "text")),
        copyButton("Copy as Markdown", () => actions.copy(turn, "markdown")),
      ),
    );
  }
}

function thoughtView(step) {
  const text = el("div", { class: "foreign", dir: "auto" });
  const element = el("div", { class: "thought", role: "group", "aria-label": "Thought" }, text);
  return { element, text: new BoundedText(text) };
}

function failureView(turn, actions) {
  const { title, detail = "", wait = null } = turn.error ?? { title: "The question could not be answered." };
  return el(
    "div",
    { class: "note bad failure" },
    el("p", {}, title, wait === null ? null : ` Try again in ${wait} s.`),
    detail ? foreignStart(detail, "p", { class: "small foreign" }) : null,
    retryButton(turn, actions),
  );
}

function retryButton(turn, actions) {
  const name = turn.outcome === "stopped" ? "Ask again" : "Try again";
  return el("button", { type: "button", class: "button retry", onclick: () => actions.retry(turn) }, name);
}

function copyButton(name, copy) {
  const button = el("button", { type: "button", class: "button quiet" }, name);
  button.addEventListener("click", async () => {
    button.textContent = (await copy()) ? "Copied" : "Could not copy";
    setTimeout(() => (button.textContent = name), 2000);
  });
  return button;
}

/** What the agent is doing, in a few words. */
export function describeProgress(turn) {
  if (turn.outcome === "stopped") return "Stopped.";
  if (turn.outcome === "failed") return turn.error?.title ?? "Failed.";
  if (turn.outcome === "done") return turn.answer ? `Answer: ${visibleStart(turn.answer, 300)}` : "No answer.";
  if (turn.answer) return "Writing the answer";
  const last = turn.steps.at(-1);
  if (last?.kind === "plan" && last.nodes.length > last.results.length) {
    return `Searching: ${last.results.length} of ${last.nodes.length} done`;
  }
  if (last?.kind === "plan") return "Reading the results";
  return last ? "Thinking" : "Waiting for the agent";
}

function describeCost(final) {
  const { searches = 0, failed_searches: failed = 0, failed_reads: unread = 0, seconds, usd } = final;
  const parts = [`${searches} ${searches === 1 ? "search" : "searches"}${failed ? ` (${failed} failed)` : ""}`];
  if (unread) parts.push(`${unread} ${unread === 1 ? "page" : "pages"} not read`);
  if (Number.isFinite(seconds)) parts.push(`${seconds.toFixed(1)} s`);
  if (usd) parts.push(`$${Number(usd).toFixed(4)}`);
  return parts.join(" · ");
}
