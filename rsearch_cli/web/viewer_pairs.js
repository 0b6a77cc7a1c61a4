// Pairs of answers to one question, one from each side of a comparison.

/** How a question changed: key, name, and what it means; in the order of the table. */
export const CHANGES = [
  ["lost", "Lost", "right in A, wrong in B"],
  ["gained", "Gained", "wrong in A, right in B"],
  ["score", "Other score", "right in both or wrong in both, but another score"],
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
 * Pair the rows of two sides by question, as `viewer/comparisons.py` does. Several rollouts of a
 * question count with their mean.
 */
export function pairSides(first, second) {
  const a = rowsByQuestion(first);
  const b = rowsByQuestion(second);
  const pairs = [];
  for (const [key, rows] of a) {
    const others = b.get(key);
    if (others) pairs.push(describePair(key, first.source, rows, second.source, others));
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

/** The rows of each question by key; without predictions whose id occurs twice, unless in samples. */
function rowsByQuestion({ source, phase }) {
  const { phase: phases, id: ids, key: keys } = source.columns;
  const code = phases.texts.indexOf(phase);
  const nameOf = (row) => `${ids.codes[row]}:${source.numberAt("sample", row)}`;
  const [seen, repeated] = [new Set(), new Set()];
  for (let row = 0; phase !== "train" && row < source.count; row++) {
    if (phases.codes[row] !== code) continue;
    if (seen.has(nameOf(row))) repeated.add(ids.codes[row]);
    seen.add(nameOf(row));
  }
  const rows = new Map();
  for (let row = 0; row < source.count; row++) {
    if (phases.codes[row] !== code || repeated.has(ids.codes[row])) continue;
    const key = keys.texts[keys.codes[row]];
    if (rows.has(key)) rows.get(key).push(row);
    else rows.set(key, [row]);
  }
  return rows;
}

/** The mean of a column over rows, or null if none of them has a value. */
export function meanOf(source, rows, name) {
  const values = rows.map((row) => source.numberAt(name, row)).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function describePair(key, first, rows, second, others) {
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
      : Math.abs(scores[0] - scores[1]) > 1e-9
        ? "score"
        : said[0] === said[1]
          ? "same"
          : "differs";
  return { key, rows, others, scores, said, change, question: first.textAt("question", rows[0]) };
}
