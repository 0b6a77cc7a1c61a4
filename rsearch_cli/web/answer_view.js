// An answer with its citations, as elements and as Markdown.

import { BoundedText, el, foreignStart, visible, visibleStart } from "./text.js";

/** The short answer as a sentence: its passages are those that hold its words. */
function shortAnswer(turn) {
  const holding = (turn.final?.citations ?? []).filter((citation) => citation.holds_answer);
  return { text: turn.answer, numbers: holding.map(({ number }) => number), supported: true };
}

/** The sentences of the long answer `{text, numbers, supported, problem}`; none for a short one. */
function sentencesOf(turn) {
  return turn.final?.paragraph?.sentences ?? [];
}

export function answerView(turn, actions) {
  const host = el("div", { class: "answer" });
  if (!turn.answer) {
    host.append(el("p", { class: "muted" }, "No answer."));
    return host;
  }
  host.append(el("p", { class: "short" }, ...sentenceView(turn, shortAnswer(turn), actions)));
  const sentences = sentencesOf(turn);
  if (sentences.length) {
    const parts = sentences.flatMap((sentence) => sentenceView(turn, sentence, actions));
    host.append(el("p", { class: "paragraph" }, ...parts));
  }
  const note = turn.final?.paragraph?.note;
  if (note) host.append(foreignStart(note, "p", { class: "paragraph-note muted small foreign" }));
  return host;
}

function sentenceView(turn, { text, numbers, supported, problem }, actions) {
  const words = el("bdi", { class: "foreign" });
  new BoundedText(words).set(text);
  const marks = numbers.flatMap((number) => markFor(turn, number, text, actions));
  if (!supported) marks.push(unsupportedMark(problem));
  const spaced = marks.flatMap((mark) => [" ", mark]);
  return [el("span", { class: supported ? "sentence" : "sentence unsupported" }, words), ...spaced, " "];
}

function unsupportedMark(problem) {
  const why = visibleStart(problem, 500);
  return el(
    "span",
    { class: "tag warn unsupported-mark", title: why },
    "unsupported",
    why ? el("span", { class: "visually-hidden" }, `: ${why}`) : null,
  );
}

/** Numbers of the passages that the answer or one of its sentences cites. */
function citedNumbers(turn) {
  return new Set([shortAnswer(turn), ...sentencesOf(turn)].flatMap(({ numbers }) => numbers));
}

function markFor(turn, number, text, actions) {
  const citation = turn.final.citations.find((one) => one.number === number);
  if (!citation) return [];
  const name = `Source ${number}: ${titleOf(citation)}`;
  const open = () => actions.openCitation(turn, citation, text);
  return [el("button", { type: "button", class: "cite", "aria-label": name, title: name, onclick: open }, `${number}`)];
}

/** The passages that were found: those that hold the answer, the others on demand. */
export function sourcesView(turn, actions) {
  const citations = turn.final?.citations ?? [];
  if (citations.length === 0) return null;
  const cited = citedNumbers(turn);
  const first = citations.filter(({ number }) => cited.has(number));
  const others = citations.filter(({ number }) => !cited.has(number));
  const host = el("div", { class: "sources", role: "group", "aria-label": "Sources" });
  if (first.length) host.append(el("h3", {}, "Sources"), listView(turn, first, actions));
  if (others.length) {
    const name = first.length ? `${others.length} more found` : `${others.length} found`;
    host.append(el("details", {}, el("summary", {}, `${name}`), listView(turn, others, actions)));
  }
  return host;
}

function listView(turn, citations, actions) {
  return el(
    "ol",
    {},
    ...citations.map((citation) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", onclick: () => actions.openCitation(turn, citation, turn.answer) },
          el("span", { class: "muted number" }, `${citation.number}`),
          el("bdi", { class: "title" }, titleOf(citation)),
        ),
      ),
    ),
  );
}

function titleOf({ title, id }) {
  return visibleStart(title || id || "Untitled", 300);
}

/** The answer as plain text. */
export function answerAsText(turn) {
  const paragraph = sentencesOf(turn).map(({ text }) => text).join(" ");
  return [turn.answer, paragraph].filter(Boolean).join("\n\n");
}

/** Question, answer and its sources as Markdown; text from outside is escaped. */
export function answerAsMarkdown(turn) {
  const cited = citedNumbers(turn);
  const sources = (turn.final?.citations ?? [])
    .filter(({ number }) => cited.has(number))
    .map((citation) => `${citation.number}. ${sourceAsMarkdown(citation)}`);
  const parts = [
    `## ${escapeMarkdown(turn.question)}`,
    turn.answer ? sentenceAsMarkdown(shortAnswer(turn)) : "No answer.",
    sentencesOf(turn).map(sentenceAsMarkdown).join(" "),
    sources.join("\n"),
  ];
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

function sentenceAsMarkdown({ text, numbers, supported }) {
  const marks = numbers.map((number) => `\\[${number}\\]`).join("");
  return [escapeMarkdown(text), marks, supported ? "" : "*(unsupported)*"].filter(Boolean).join(" ");
}

function sourceAsMarkdown(citation) {
  const title = escapeMarkdown(titleOf(citation));
  if (!/^https?:\/\//i.test(citation.url ?? "")) return title;
  try {
    const address = new URL(citation.url).href.replace(/[<>()]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
    return `[${title}](${address})`;
  } catch {
    return title;
  }
}

function escapeMarkdown(text) {
  const flat = visible(text).split(/\s+/).filter(Boolean).join(" ");
  return flat.replace(/([\\`*_{}[\]<>#|~&$!])/g, "\\$1");
}
