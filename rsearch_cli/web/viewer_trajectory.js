// One trajectory, and all trajectories of one question at one step.

import { el } from "./text.js";
import { count, figure, line, signed } from "./viewer_dom.js";
import { readFilter } from "./viewer_filter.js";
import { outcome, questionHead, searches, transcript } from "./viewer_detail.js";

/** The view at #/SOURCE/row/ROW?FILTER; the filter says what the next one is. */
export class TrajectoryView {
  constructor(app, source, row, query) {
    Object.assign(this, { app, source, row, query });
    this.title = `Trajectory ${row + 1}`;
    this.pager = el("div", { class: "pager" });
    this.body = el("div", { class: "loading" }, "Loading …");
    this.element = el("article", { class: "view trajectory-view" }, this.pager, this.body);
    this.drawPager();
    app.fill(this, this.body, async () => this.draw(await app.store.detail(source, row)));
  }

  update(source) {
    this.source = source;
    this.drawPager();
  }

  drawPager() {
    const rows = this.app.rows(this.source, this.query);
    const place = rows.indexOf(this.row);
    const to = (other) =>
      place < 0 || rows[other] === undefined
        ? null
        : this.app.address(this.source, `row/${rows[other]}`, this.query);
    const filtered = Object.entries(readFilter(this.query)).some(
      ([name, value]) =>
        name !== "sort" && (Array.isArray(value) ? value.some((end) => end !== null) : value),
    );
    this.keys = { ArrowLeft: to(place - 1), ArrowRight: to(place + 1) };
    this.pager.replaceChildren(
      el(
        "a",
        { href: this.app.address(this.source, "rows", this.query) },
        filtered ? "Filtered trajectories" : "All trajectories",
      ),
      el("span", { class: "muted number" }, place < 0 ? "" : `${count(place + 1)} of ${count(rows.length)}`),
      pageLink("← Previous", this.keys.ArrowLeft),
      pageLink("Next →", this.keys.ArrowRight),
    );
  }

  draw(detail) {
    const { source, row } = this;
    return el(
      "div",
      {},
      questionHead(detail),
      facts(this.app, source, row, detail),
      el(
        "div",
        { class: "two-columns" },
        el("div", {}, el("h2", {}, "Transcript"), transcript(detail)),
        el("div", { class: "side" }, outcome(source, row, detail), searches(detail)),
      ),
    );
  }
}

function pageLink(label, address) {
  return address
    ? el("a", { class: "button", href: address }, label)
    : el("span", { class: "button", "aria-disabled": "true" }, label);
}

function facts(app, source, row, detail) {
  const step = source.numberAt("step", row);
  const group = source.numberAt("group", row);
  const named = [
    [line(source.name)],
    step === null ? [line(source.textAt("phase", row) ?? "")] : [`step ${figure(step)}`],
    [line(source.textAt("type", row) ?? "")],
    amounts(source, row),
    detail.stop
      ? [
          `ended by ${{ answer: "its answer", eos: "end of sequence", length: "the token limit" }[detail.stop] ?? detail.stop}`,
        ]
      : [],
    group === null ? [] : [el("a", { href: app.address(source, `group/${group}`) }, "Its group")],
  ];
  return el(
    "p",
    { class: "facts-line" },
    named
      .flat()
      .filter((fact) => fact.textContent !== "")
      .map((fact) => el("span", {}, fact)),
  );
}

function amounts(source, row) {
  const named = {
    tokens: ["token written", "tokens written"],
    inserted: ["inserted", "inserted"],
    searches: ["search", "searches"],
    failed: ["search failed", "searches failed"],
  };
  return Object.entries(named).flatMap(([name, [one, many]]) => {
    const value = source.numberAt(name, row);
    if (value === null || (name === "failed" && !value)) return [];
    return [
      el("span", { class: name === "failed" ? "bad" : null }, `${figure(value)} ${value === 1 ? one : many}`),
    ];
  });
}

/** The view at #/SOURCE/group/GROUP. */
export class GroupView {
  constructor(app, source, group) {
    Object.assign(this, { app, source, group });
    this.title = "Group";
    this.rows = rowsOfGroup(source, group);
    this.body = el("div", { class: "loading" }, "Loading …");
    this.element = el(
      "article",
      { class: "view group-view" },
      el("div", { class: "pager" }, this.pager()),
      this.body,
    );
    app.fill(this, this.body, async () => {
      if (!this.rows.length) throw new Error(`${source.name} has no group ${group}`);
      const details = await Promise.all(this.rows.map((row) => app.store.detail(source, row)));
      return this.draw(details);
    });
  }

  pager() {
    const last = (this.source.columns.group?.values ?? []).reduce(
      (most, group) => (group > most ? group : most),
      -1,
    );
    const to = (group) =>
      group < 0 || group > last ? null : this.app.address(this.source, `group/${group}`);
    this.keys = { ArrowLeft: to(this.group - 1), ArrowRight: to(this.group + 1) };
    return [
      el("a", { href: this.app.address(this.source, "rows") }, "All trajectories"),
      el("span", { class: "muted number" }, `group ${count(this.group + 1)} of ${count(last + 1)}`),
      pageLink("← Previous", this.keys.ArrowLeft),
      pageLink("Next →", this.keys.ArrowRight),
    ];
  }

  draw(details) {
    const { source } = this;
    const order = this.rows
      .map((_, i) => i)
      .sort(
        (a, b) =>
          (source.numberAt("reward", this.rows[b]) ?? -1) - (source.numberAt("reward", this.rows[a]) ?? -1) ||
          a - b,
      );
    const rewards = this.rows
      .map((row) => source.numberAt("reward", row))
      .filter((reward) => reward !== null);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
    const deviation = Math.sqrt(
      rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / (rewards.length - 1),
    );
    const spread = rewards.length > 1 ? ` ± ${figure(deviation)}` : "";
    const unscored = this.rows.length - rewards.length;
    const most = Math.max(...this.rows.map((row) => Math.abs(source.numberAt("advantage", row) ?? 0)));
    return el(
      "div",
      {},
      questionHead(details[0]),
      el(
        "p",
        { class: "facts-line" },
        el("span", {}, `step ${figure(source.numberAt("step", this.rows[0]))}`),
        el("span", {}, `${count(this.rows.length)} completions`),
        rewards.length ? el("span", {}, `reward ${figure(mean)}${spread}`) : null,
        unscored ? el("span", { class: "tag warn" }, `${count(unscored)} unscored`) : null,
      ),
      source.advantages ? el("p", { class: "small muted" }, `Advantages ${source.advantages}.`) : null,
      most === 0 && rewards.length
        ? el("p", { class: "note warn" }, "All rewards are equal, so no completion has an advantage.")
        : null,
      el(
        "ol",
        { class: "completions" },
        this.cards(order, details).map((card) => this.completion(card, most)),
      ),
    );
  }

  /** Completions of the same text and reward share a card. */
  cards(order, details) {
    const cards = new Map();
    order.forEach((i, place) => {
      const row = this.rows[i];
      const text = details[i].segments.map((segment) => segment.text).join("");
      const key = JSON.stringify([
        this.source.numberAt("reward", row),
        this.source.numberAt("advantage", row),
        text,
      ]);
      if (!cards.has(key)) cards.set(key, { detail: details[i], rows: [], numbers: [] });
      cards.get(key).rows.push(row);
      cards.get(key).numbers.push(place + 1);
    });
    return [...cards.values()];
  }

  completion({ detail, rows, numbers }, most) {
    const { source } = this;
    const advantage = source.numberAt("advantage", rows[0]);
    const links = rows.flatMap((row, i) => [
      i ? " " : "",
      el(
        "a",
        { href: this.app.address(source, `row/${row}`), "aria-label": `Completion ${numbers[i]}` },
        String(numbers[i]),
      ),
    ]);
    return el(
      "li",
      { class: "completion" },
      el(
        "h2",
        {},
        rows.length > 1 ? "Completions " : "Completion ",
        links,
        rows.length > 1 ? el("span", { class: "tag" }, `${count(rows.length)} identical`) : null,
      ),
      el(
        "div",
        { class: "signed-bar-row" },
        el("span", { class: "label" }, "Advantage"),
        signedBar(advantage, most),
        el("b", { class: "number" }, signed(advantage)),
      ),
      outcome(source, rows[0], detail, { advantage: false }),
      transcript(detail),
    );
  }
}

function rowsOfGroup(source, group) {
  const values = source.columns.group?.values ?? [];
  const rows = [];
  for (let row = 0; row < values.length; row++) if (values[row] === group) rows.push(row);
  return rows;
}

/** A bar from the middle: to the right for more than nothing, to the left for less. */
function signedBar(value, most) {
  const fill = el("span", { class: value < 0 ? "fill minus" : "fill plus" });
  fill.style.width = `${most ? (Math.abs(value ?? 0) / most) * 50 : 0}%`;
  return el("span", { class: "signed-bar", "aria-hidden": "true" }, fill);
}
