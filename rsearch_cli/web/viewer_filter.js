// Which trajectories are shown and in which order, and how that is written in the address.

/** The settings of a filter, with the values that mean "any". */
export const NO_FILTER = Object.freeze({
  q: "",
  phase: "",
  type: "",
  step: [null, null],
  reward: [null, null],
  plan: "",
  failed: false,
  unscored: false,
  sort: "",
});

/** Read a filter from the query part of the address. */
export function readFilter(query) {
  const given = new URLSearchParams(query);
  const range = (name) => {
    const [low, high] = (given.get(name) ?? "").split("~");
    return [numberOrNull(low), numberOrNull(high)];
  };
  return {
    q: given.get("q") ?? "",
    phase: given.get("phase") ?? "",
    type: given.get("type") ?? "",
    step: range("step"),
    reward: range("reward"),
    plan: ["valid", "invalid"].includes(given.get("plan")) ? given.get("plan") : "",
    failed: given.get("failed") === "1",
    unscored: given.get("unscored") === "1",
    sort: given.get("sort") ?? "",
  };
}

/** Write a filter as the query part of an address, "" for none. */
export function writeFilter(filter) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filter)) {
    if (Array.isArray(value)) {
      if (value.some((end) => end !== null)) query.set(name, value.map((end) => end ?? "").join("~"));
    } else if (value) query.set(name, value === true ? "1" : value);
  }
  return query.toString();
}

function numberOrNull(text) {
  return text === undefined || text.trim() === "" || Number.isNaN(Number(text)) ? null : Number(text);
}

/** Return the rows of a source that a filter lets through, in its order, as a Uint32Array. */
export function selectRows(source, filter) {
  const tests = rowTests(source, filter);
  const found = new Uint32Array(source.count);
  let length = 0;
  rows: for (let row = 0; row < source.count; row++) {
    for (const test of tests) if (!test(row)) continue rows;
    found[length++] = row;
  }
  const rows = found.slice(0, length);
  return filter.sort ? sortRows(source, rows, filter.sort) : rows;
}

function rowTests(source, filter) {
  const columns = source.columns;
  const tests = [];
  for (const name of ["phase", "type"]) {
    if (!filter[name]) continue;
    const code = columns[name]?.texts.indexOf(filter[name]) ?? -1;
    const codes = columns[name]?.codes;
    tests.push(code < 0 ? () => false : (row) => codes[row] === code);
  }
  for (const name of ["step", "reward"]) {
    const [low, high] = filter[name];
    if (low === null && high === null) continue;
    const values = columns[name]?.values;
    const [from, to] = [low ?? -Infinity, high ?? Infinity];
    // Comparisons with NaN, an unknown value, are false.
    tests.push(values ? (row) => values[row] >= from && values[row] <= to : () => false);
  }
  if (filter.plan) {
    const wanted = filter.plan === "valid" ? 1 : 0;
    const values = columns.valid?.values;
    tests.push(values ? (row) => values[row] === wanted : () => false);
  }
  if (filter.failed) {
    const values = columns.failed?.values;
    tests.push(values ? (row) => values[row] > 0 : () => false);
  }
  if (filter.unscored) tests.push((row) => isUnscored(source, row));
  if (filter.q.trim()) tests.push(textTest(source, filter.q));
  return tests;
}

/** Whether a trajectory should have a score and has none. */
export function isUnscored(source, row) {
  const known = source.columns.unscored?.values;
  if (known) return known[row] === 1;
  return source.textAt("phase", row) === "train" && source.numberAt("reward", row) === null;
}

/** All words must occur in the question or in the answer; each distinct text is searched once. */
function textTest(source, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const columns = ["question", "said"].map((name) => source.columns[name]).filter(Boolean);
  const hits = columns.map((column) => {
    column.lower ??= column.texts.map((text) => text.toLowerCase());
    return column.lower.map((text) => words.every((word) => text.includes(word)));
  });
  return (row) => columns.some(({ codes }, i) => codes[row] >= 0 && hits[i][codes[row]]);
}

/** Sort by a column, "-name" for descending; unknown values come last, ties keep their order. */
function sortRows(source, rows, sort) {
  const descending = sort.startsWith("-");
  const column = source.columns[descending ? sort.slice(1) : sort];
  if (!column) return rows;
  const keys = column.values ?? textRanks(column);
  const sign = descending ? -1 : 1;
  return rows.sort((a, b) => {
    const [first, second] = [keys[a], keys[b]];
    if (first === second) return a - b;
    if (Number.isNaN(first)) return Number.isNaN(second) ? a - b : 1;
    if (Number.isNaN(second)) return -1;
    return sign * (first - second);
  });
}

function textRanks(column) {
  if (!column.ranks) {
    const lower = (column.lower ??= column.texts.map((text) => text.toLowerCase()));
    const order = Uint32Array.from(lower, (_, code) => code).sort((a, b) =>
      lower[a] < lower[b] ? -1 : lower[a] > lower[b] ? 1 : 0,
    );
    const rank = new Float64Array(order.length);
    order.forEach((code, place) => (rank[code] = place));
    column.ranks = Float64Array.from(column.codes, (code) => (code < 0 ? NaN : rank[code]));
  }
  return column.ranks;
}
