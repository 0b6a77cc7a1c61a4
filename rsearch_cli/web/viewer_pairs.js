// Pairs of answers to one question, one from each side of a comparison.

/** How a question changed: key, name, and what it means; in the order of the table. */
export const CHANGES = [
  ["lost", "Lost", "right in A, wrong in B"],
  ["gained", "Gained", "wrong in A, right in B"],
  ["differs", "Other answer", "same score, another answer"],
  ["same", "Same", "same score, same answer"],
  ["unscored", "No score", "no score on a side"],
];

/** All sides that can be compared: each phase of each source. */
export function comparableSides(store) {
  return store.sources.flatMap((source) => {
    const phases = source.columns.phase?.texts ?? [];
    return phases.map((phase) => ({ source, phase, key: `${source.number}:${phase}` }));
  });
}

/** The comparison of two sources, of trained agents if possible, or undefined. */
export function comparisonAcross(store) {
  const across = store.comparisons.filter(({ first, second }) => first.source !== second.source);
  return across.find(({ second }) => ["after-greedy", "rsearch"].includes(second.phase)) ?? across[0];
}

/** The two sides of an address, or those that say most. */
export function chosenSides(store, query) {
  const sides = comparableSides(store);
  const given = new URLSearchParams(query);
  const find = (key) => sides.find((side) => side.key === given.get(key));
  const computed = comparisonAcross(store) ?? store.comparisons[0];
  const key = (side) => side && `${side.source}:${side.phase}`;
  const byKey = (wanted) => sides.find((side) => side.key === wanted);
  const first = find("a") ?? byKey(key(computed?.first)) ?? sides[0];
  const second = find("b") ?? byKey(key(computed?.second)) ?? sides.find((side) => side !== first) ?? first;
  return { sides, first, second };
}

/**
 * Pair the rows of two sides by question. A side with several rows for a question counts with
 * their mean.
 */
export function pairSides(first, second) {
  const a = rowsByQuestion(first);
  const b = rowsByQuestion(second);
  const pairs = [];
  for (const [id, rows] of a) {
    const others = b.get(id);
    if (!others || questionOf(first, rows) !== questionOf(second, others)) continue;
    pairs.push(describePair(id, first.source, rows, second.source, others));
  }
  const order = new Map(CHANGES.map(([kind], place) => [kind, place]));
  pairs.sort((x, y) => order.get(x.change) - order.get(y.change));
  return { pairs, onlyFirst: a.size - pairs.length, onlySecond: b.size - pairs.length };
}

/** The pairs with one kind of change, or all if there is none of it. */
export function pairsOf(pairs, change) {
  const found = pairs.filter((pair) => pair.change === change);
  return found.length ? found : pairs;
}

function questionOf({ source }, rows) {
  return source.textAt("question", rows[0]);
}

function rowsByQuestion({ source, phase }) {
  const rows = new Map();
  const ids = source.columns.id ?? source.columns.question;
  const code = source.columns.phase.texts.indexOf(phase);
  for (let row = 0; row < source.count; row++) {
    if (source.columns.phase.codes[row] !== code) continue;
    const id = ids.texts[ids.codes[row]];
    if (rows.has(id)) rows.get(id).push(row);
    else rows.set(id, [row]);
  }
  return rows;
}

/** The mean of a column over rows, or null if none of them has a value. */
export function meanOf(source, rows, name) {
  const values = rows.map((row) => source.numberAt(name, row)).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function describePair(id, first, rows, second, others) {
  const scores = [
    meanOf(first, rows, "em") ?? meanOf(first, rows, "answer"),
    meanOf(second, others, "em") ?? meanOf(second, others, "answer"),
  ];
  const said = [first.textAt("said", rows[0]), second.textAt("said", others[0])];
  const right = scores.map((score) => score >= 0.5);
  const change = scores.includes(null)
    ? "unscored"
    : right[0] !== right[1]
      ? right[1]
        ? "gained"
        : "lost"
      : said[0] === said[1]
        ? "same"
        : "differs";
  return { id, rows, others, scores, said, change, question: first.textAt("question", rows[0]) ?? id };
}
