// The table of trajectories with its filters.

import { el, visible } from "./text.js";
import { count, fixed, line, signed } from "./viewer_dom.js";
import { NO_FILTER, isUnscored, readFilter, writeFilter } from "./viewer_filter.js";
import { VirtualTable } from "./viewer_table.js";

const HINTS = {
  step: "Training step",
  phase: "train, or the evaluation that it belongs to",
  reward: "Total reward",
  answer: "Score of the answer in the reward",
  plan: "Reward for the plans",
  format: "Share of the format rules that were kept",
  valid: "Whether all plans are valid",
  em: "Exact match",
  f1: "Token F1",
  judge: "Verdict of the judge",
  sample: "Which sample of its question, from 0",
  failed: "Failed searches",
  searches: "Executed searches",
  tokens: "Tokens that the policy wrote",
  advantage: "Advantage within its group",
  stop: "Why generation ended",
};

/** The view at #/SOURCE/rows?FILTER. */
export class RowsView {
  constructor(app, source, query) {
    Object.assign(this, { app, source });
    this.counts = el("p", { class: "counts", role: "status" });
    this.filter = readFilter(query);
    this.form = new FilterForm((filter, done) => this.change(filter, done));
    this.table = new VirtualTable({
      label: "Trajectories",
      href: (row) => this.app.address(this.source, `row/${row}`, writeFilter(this.filter)),
      onsort: (key) => this.change({ ...this.filter, sort: nextSort(this.filter.sort, key) }, true),
    });
    this.title = "Trajectories";
    this.element = el(
      "div",
      { class: "view rows-view" },
      el("h1", { class: "visually-hidden", tabindex: -1 }, "Trajectories"),
      this.form.element,
      this.counts,
      this.table.element,
    );
    this.narrow = matchMedia("(max-width: 44rem)");
    this.closing = new AbortController();
    this.narrow.addEventListener("change", () => this.show(), { signal: this.closing.signal });
    this.form.offer(source);
    this.show();
  }

  /** Follow an address of the same source. */
  navigate(query) {
    this.filter = readFilter(query);
    this.show();
  }

  /** Stop following the width of the window. */
  close() {
    this.closing.abort();
  }

  /** Follow data that has grown. */
  update(source) {
    this.source = source;
    this.form.offer(source);
    this.show();
  }

  change(filter, done) {
    // A click on a row ends typing first; the row must still be there when the button is released.
    const same = writeFilter(filter) === writeFilter(this.filter);
    this.filter = filter;
    if (!same) this.show();
    this.app.write(this.app.address(this.source, "rows", writeFilter(filter)), done);
  }

  show() {
    this.form.set(this.filter);
    const rows = this.app.rows(this.source, writeFilter(this.filter));
    this.table.set(rowColumns(this.source, this.filter.phase, this.narrow.matches), rows, this.filter.sort);
    const all = this.source.count;
    const found =
      rows.length === all
        ? `${count(all)} trajectories`
        : `${count(rows.length)} of ${count(all)} trajectories`;
    this.counts.replaceChildren(el("strong", {}, found), ...means(this.source, rows));
  }
}

/** Means of what is selected, for those scores that are known. */
function means(source, rows) {
  const named = {
    reward: "mean reward",
    answer: "answer",
    em: "exact match",
    f1: "F1",
    valid: "valid plans",
  };
  return Object.entries(named).flatMap(([name, label]) => {
    const values = source.columns[name]?.values;
    if (!values) return [];
    let [sum, known] = [0, 0];
    for (const row of rows) {
      if (Number.isNaN(values[row])) continue;
      sum += values[row];
      known++;
    }
    return known ? [el("span", {}, `${label} `, el("b", {}, fixed(sum / known, 3)))] : [];
  });
}

function nextSort(sort, key) {
  // Numbers are most telling from one end: the first click sorts upwards, the third not at all.
  return sort === key ? `-${key}` : sort === `-${key}` ? "" : key;
}

/** The columns with anything in them: of a phase, or of all rows if it is "". */
function rowColumns(source, phase, narrow) {
  const known = source.knownIn(phase);
  const number = (key, title, width, format = fixed) => ({
    key,
    title,
    width,
    hint: HINTS[key],
    name: "number",
    sortable: true,
    cell: (row) => format(source.numberAt(key, row)),
  });
  const text = (key, title, width) => ({
    key,
    title,
    width,
    hint: HINTS[key],
    sortable: true,
    cell: (row) => textCell(source.textAt(key, row)),
  });
  const whole = (value) => (value === null ? "–" : count(value));
  const all = [
    number("step", "Step", narrow ? 3 : 4, whole),
    { ...text("question", "Question", narrow ? 8 : 18), main: true },
    text("said", "Answer", 11),
    { ...number("reward", "Reward", narrow ? 5.5 : 8), cell: (row) => rewardCell(source, row) },
    number("answer", "Answer score", 7),
    {
      ...number("em", "EM", narrow || known.has("reward") ? 4 : 6),
      cell: (row) =>
        (known.has("reward") ? null : unscoredTag(source, row)) ?? fixed(source.numberAt("em", row)),
    },
    number("f1", "F1", 4),
    number("judge", "Judge", 4.5),
    { ...number("valid", "Plan", 5.5), name: "", cell: (row) => validCell(source.numberAt("valid", row)) },
    number("format", "Format", 4.75),
    number("advantage", "Advantage", 6.25, signed),
    number("searches", "Searches", 5.5, whole),
    { ...number("failed", "Failed", 4.5), cell: (row) => failedCell(source.numberAt("failed", row)) },
    number("tokens", "Tokens", 4.75, whole),
    number("sample", "Sample", 5, whole),
    text("type", "Type", 9),
    text("phase", "Phase", 7.5),
    text("stop", "End", 4.75),
  ];
  return all.filter(
    ({ key }) => known.has(key) && (!narrow || ["step", "question", "reward", "em"].includes(key)),
  );
}

function textCell(text) {
  return text === null ? el("span", { class: "muted" }, "–") : line(text);
}

function rewardCell(source, row) {
  const reward = source.numberAt("reward", row);
  if (reward === null) return unscoredTag(source, row) ?? "–";
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span", { class: "fill" }));
  bar.firstChild.style.width = `${Math.min(Math.max(reward / source.highest, 0), 1) * 100}%`;
  return [bar, fixed(reward)];
}

function unscoredTag(source, row) {
  return isUnscored(source, row) ? el("span", { class: "tag warn" }, "unscored") : null;
}

function validCell(valid) {
  if (valid === null) return "–";
  return valid ? el("span", { class: "good" }, "✓ valid") : el("span", { class: "bad" }, "✗ invalid");
}

function failedCell(failed) {
  return failed ? el("span", { class: "bad" }, count(failed)) : failed === null ? "–" : "0";
}

/** The fields of the filter. `onchange(filter, done)`: `done` is false while a text is being typed. */
class FilterForm {
  constructor(onchange) {
    this.onchange = onchange;
    const select = (name) => el("select", { name, onchange: () => this.read(true) });
    const number = (name, end, label, step) =>
      el("input", {
        type: "number",
        name: `${name}-${end}`,
        step,
        "aria-label": label,
        oninput: () => this.read(false),
        onchange: () => this.read(true),
      });
    const box = (name, label) =>
      el(
        "label",
        { class: "check" },
        el("input", { type: "checkbox", name, onchange: () => this.read(true) }),
        label,
      );
    const field = (label, ...inputs) => el("label", { class: "field" }, el("span", {}, label), ...inputs);
    const range = (label, name, step) =>
      el(
        "div",
        { class: "field", role: "group", "aria-label": label },
        el("span", { "aria-hidden": "true" }, label),
        el(
          "span",
          { class: "range" },
          number(name, "from", `${label} from`, step),
          "–",
          number(name, "to", `${label} to`, step),
        ),
      );
    this.phase = field("Phase", select("phase"));
    this.type = field("Question type", select("type"));
    this.step = range("Step", "step", 1);
    this.reward = range("Reward", "reward", "any");
    this.clear = el(
      "button",
      { type: "button", class: "button quiet", onclick: () => this.onchange({ ...NO_FILTER }, true) },
      "Clear",
    );
    this.fields = el(
      "form",
      {
        class: "filters",
        role: "search",
        "aria-label": "Filter trajectories",
        onsubmit: (event) => event.preventDefault(),
      },
      el(
        "label",
        { class: "field grow" },
        el("span", {}, "Question or answer contains"),
        el("input", {
          type: "search",
          name: "q",
          autocomplete: "off",
          spellcheck: "false",
          oninput: () => this.read(false),
          onchange: () => this.read(true),
        }),
      ),
      this.phase,
      this.type,
      this.step,
      this.reward,
      field(
        "Plan",
        el(
          "select",
          { name: "plan", onchange: () => this.read(true) },
          option("", "any"),
          option("valid", "valid"),
          option("invalid", "not valid"),
        ),
      ),
      el("div", { class: "checks" }, box("failed", "failed searches"), box("unscored", "unscored")),
      this.clear,
    );
    this.element = el("details", { class: "filter-box" }, el("summary", {}, "Filters"), this.fields);
    this.element.open = !matchMedia("(max-width: 44rem)").matches;
  }

  /** Offer what occurs in the source. */
  offer(source) {
    for (const name of ["phase", "type"]) {
      const texts = source.columns[name]?.texts ?? [];
      const select = this.fields.elements[name];
      // An open list closes when its options are replaced.
      if (select.options.length !== texts.length + 1) {
        const kept = select.value;
        select.replaceChildren(option("", "any"), ...texts.map((text) => option(text, visible(text))));
        select.value = kept;
      }
      this[name].hidden = texts.length < 2;
    }
    for (const name of ["step", "reward"]) this[name].hidden = !source.columns[name];
  }

  set(filter) {
    const fields = this.fields.elements;
    const put = (name, value) => {
      if (fields[name] !== document.activeElement) fields[name].value = value ?? "";
    };
    for (const name of ["q", "phase", "type", "plan"]) put(name, filter[name]);
    for (const name of ["step", "reward"]) {
      put(`${name}-from`, filter[name][0]);
      put(`${name}-to`, filter[name][1]);
    }
    for (const name of ["failed", "unscored"]) fields[name].checked = filter[name];
    this.sort = filter.sort;
    this.clear.disabled = writeFilter({ ...filter, sort: "" }) === "";
  }

  read(done) {
    const fields = this.fields.elements;
    const number = (name) => (fields[name].value.trim() === "" ? null : fields[name].valueAsNumber);
    const range = (name) => [number(`${name}-from`), number(`${name}-to`)];
    this.onchange(
      {
        q: fields.q.value,
        phase: fields.phase.value,
        type: fields.type.value,
        step: range("step"),
        reward: range("reward"),
        plan: fields.plan.value,
        failed: fields.failed.checked,
        unscored: fields.unscored.checked,
        sort: this.sort,
      },
      done,
    );
  }
}

function option(value, label) {
  return el("option", { value }, label);
}
